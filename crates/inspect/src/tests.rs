// SPDX-License-Identifier: Apache-2.0
//! Guests made of a few files each, and what inspection has to find.

use super::guest::Guest;
use super::os::Os;
use super::{unix, windows};
use guest_fs::paths::Sysroot;
use hive::made::{self, wide};
use std::path::Path;

/// A directory with these files; those that end in `/` are directories.
fn guest(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, contents) in files {
        let file = dir.path().join(path);
        match path.strip_suffix('/') {
            Some(_) => std::fs::create_dir_all(&file).unwrap(),
            None => {
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(&file, contents).unwrap();
            }
        }
    }
    dir
}

fn look(dir: &Path) -> unix::Found {
    let root = Sysroot::new(dir).open().unwrap();
    unix::look(&Guest::at(&root))
}

fn os(files: &[(&str, &[u8])]) -> Option<Os> {
    let dir = guest(files);
    match look(dir.path()) {
        unix::Found::Root(os, _) => Some(*os),
        _ => None,
    }
}

/// A Linux with this one file besides what makes it one.
fn linux(file: &str, text: &str) -> Os {
    let fstab = b"/dev/sda1 / ext4 defaults 0 1\n";
    os(&[("bin/", b""), ("etc/fstab", fstab), (file, text.as_bytes())]).unwrap()
}

/// The first bytes of a program for this machine.
fn program(machine: u16, class: u8) -> Vec<u8> {
    let mut out = b"\x7fELF".to_vec();
    out.extend([class, 1, 1]);
    out.resize(18, 0);
    out.extend(machine.to_le_bytes());
    out.resize(64, 0);
    out
}

/// File, its text, distribution, version, format of packages and what manages them.
type Row = (
    &'static str,
    &'static str,
    Option<&'static str>,
    (i32, i32),
    Option<&'static str>,
    Option<&'static str>,
);

const OS: &str = "etc/os-release";
const LSB: &str = "etc/lsb-release";
const REDHAT: &str = "etc/redhat-release";
const SUSE: &str = "etc/SuSE-release";

#[rustfmt::skip]
const DISTROS: &[Row] = &[
    (OS, "ID=debian\nVERSION_ID=\"12\"\n", Some("debian"), (12, 0), Some("deb"), Some("apt")),
    (OS, "ID=ubuntu\nVERSION_ID=\"22.04\"\n", Some("ubuntu"), (22, 4), Some("deb"), Some("apt")),
    (OS, "ID=linuxmint\nVERSION_ID=21\n", Some("linuxmint"), (21, 0), Some("deb"), Some("apt")),
    (OS, "ID=kali\nVERSION_ID=2023.1\n", Some("kalilinux"), (2023, 1), Some("deb"), Some("apt")),
    (OS, "ID=kylin\nVERSION_ID=V10\n", Some("kylin"), (10, 0), Some("deb"), Some("apt")),
    (OS, "ID=fedora\nVERSION_ID=38\n", Some("fedora"), (38, 0), Some("rpm"), Some("dnf")),
    (OS, "ID=fedora\nVERSION_ID=21\n", Some("fedora"), (21, 0), Some("rpm"), Some("yum")),
    (OS, "ID=rhel\nVERSION_ID=\"9.2\"\n", Some("rhel"), (9, 2), Some("rpm"), Some("dnf")),
    (OS, "ID=\"centos\"\nVERSION_ID=7\n", Some("centos"), (7, 0), Some("rpm"), Some("yum")),
    (OS, "ID=rocky\nVERSION_ID=9.1\n", Some("rocky"), (9, 1), Some("rpm"), Some("dnf")),
    (OS, "ID=ol\nVERSION_ID=8.7\n", Some("oraclelinux"), (8, 7), Some("rpm"), Some("dnf")),
    (OS, "ID=scientific\nVERSION_ID=7.9\n", Some("scientificlinux"), (7, 9), Some("rpm"), Some("yum")),
    (OS, "ID=almalinux\nID_LIKE=\"rhel centos\"\nVERSION_ID=9.1\n", Some("redhat-based"), (9, 1), Some("rpm"), Some("dnf")),
    (OS, "ID=neokylin\nVERSION_ID=7\n", Some("neokylin"), (7, 0), Some("rpm"), Some("dnf")),
    (OS, "ID=opensuse-leap\nVERSION_ID=15.4\n", Some("opensuse"), (15, 4), Some("rpm"), Some("zypper")),
    (OS, "ID=sles\nVERSION_ID=15.4\n", Some("sles"), (15, 4), Some("rpm"), Some("zypper")),
    (OS, "ID=sled\nVERSION_ID=12.5\n", Some("sles"), (12, 5), Some("rpm"), Some("zypper")),
    (OS, "ID=caasp\nID_LIKE=suse\nVERSION_ID=4\n", Some("suse-based"), (4, 0), Some("rpm"), Some("zypper")),
    (OS, "ID=arch\n", Some("archlinux"), (0, 0), Some("pacman"), Some("pacman")),
    (OS, "ID=gentoo\nVERSION_ID=2.13\n", Some("gentoo"), (2, 13), Some("ebuild"), Some("portage")),
    (OS, "ID=alpine\nVERSION_ID=3.17.1\n", Some("alpinelinux"), (3, 17), Some("apk"), Some("apk")),
    (OS, "ID=\"void\"\n", Some("voidlinux"), (0, 0), Some("xbps"), Some("xbps")),
    (OS, "ID=altlinux\nVERSION_ID=10.1\n", Some("altlinux"), (10, 1), Some("rpm"), Some("apt")),
    (OS, "ID=mageia\nVERSION_ID=8\n", Some("mageia"), (8, 0), Some("rpm"), Some("urpmi")),
    (OS, "ID=openmandriva\nVERSION_ID=4.3\n", Some("openmandriva"), (4, 3), Some("rpm"), Some("dnf")),
    (OS, "ID=pardus\nVERSION_ID=2019\n", Some("pardus"), (2019, 0), Some("pisi"), Some("pisi")),
    (OS, "ID=coreos\nVERSION_ID=2023.5.0\n", Some("coreos"), (2023, 5), None, None),
    (OS, "ID=buildroot\nVERSION_ID=2022.02\n", Some("buildroot"), (2022, 2), None, None),
    (OS, "ID=pld\nVERSION_ID=3.0\n", Some("pldlinux"), (3, 0), None, None),
    (OS, "ID=frugalware\nVERSION_ID=2.1\n", Some("frugalware"), (2, 1), None, None),
    (OS, "ID=raspbian\nID_LIKE=debian\nVERSION_ID=11\n", None, (11, 0), Some("deb"), Some("apt")),
    (OS, "ID=nonesuch\nVERSION_ID=1\n", None, (1, 0), None, None),
    (LSB, "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=10.10\n", Some("ubuntu"), (10, 10), Some("deb"), Some("apt")),
    (LSB, "DISTRIB_ID=LinuxMint\nDISTRIB_RELEASE=10\n", Some("linuxmint"), (10, 0), Some("deb"), Some("apt")),
    (LSB, "DISTRIB_ID=Mageia\nDISTRIB_RELEASE=2\n", Some("mageia"), (2, 0), Some("rpm"), Some("urpmi")),
    (LSB, "DISTRIB_ID=MandrivaLinux\nDISTRIB_RELEASE=2010.1\n", Some("mandriva"), (2010, 1), Some("rpm"), Some("urpmi")),
    (LSB, "DISTRIB_ID=CoreOS\nDISTRIB_RELEASE=647.0.0\n", Some("coreos"), (647, 0), None, None),
    (REDHAT, "Fedora release 17 (Beefy Miracle)\n", Some("fedora"), (17, 0), Some("rpm"), Some("yum")),
    (REDHAT, "Red Hat Enterprise Linux AS release 4 (Nahant Update 8)\n", Some("rhel"), (4, 8), Some("rpm"), Some("up2date")),
    (REDHAT, "Red Hat Enterprise Linux Server release 6.4 (Santiago)\n", Some("rhel"), (6, 4), Some("rpm"), Some("yum")),
    (REDHAT, "CentOS Linux release 7.3.1611 (Core)\n", Some("centos"), (7, 3), Some("rpm"), Some("yum")),
    (REDHAT, "Scientific Linux release 6.1 (Carbon)\n", Some("scientificlinux"), (6, 1), Some("rpm"), Some("yum")),
    (REDHAT, "AlmaLinux release 8.5 (Arctic Sphynx)\n", Some("redhat-based"), (8, 5), Some("rpm"), Some("dnf")),
    (REDHAT, "", Some("redhat-based"), (0, 0), Some("rpm"), None),
    ("etc/oracle-release", "Oracle Linux Server release 6.5\n", Some("oraclelinux"), (6, 5), Some("rpm"), Some("yum")),
    ("etc/debian_version", "6.0.2\n", Some("debian"), (6, 0), Some("deb"), Some("apt")),
    ("etc/debian_version", "wheezy/sid\n", Some("debian"), (0, 0), Some("deb"), Some("apt")),
    ("etc/pardus-release", "Pardus 2011.2\n", Some("pardus"), (2011, 2), Some("pisi"), Some("pisi")),
    ("etc/arch-release", "\n", Some("archlinux"), (0, 0), Some("pacman"), Some("pacman")),
    ("etc/gentoo-release", "Gentoo Base System release 2.0.3\n", Some("gentoo"), (2, 0), Some("ebuild"), Some("portage")),
    ("etc/meego-release", "MeeGo release 1.2 (MeeGo)\n", Some("meego"), (1, 2), Some("rpm"), Some("yum")),
    ("etc/slackware-version", "Slackware 13.37.0\n", Some("slackware"), (13, 37), None, None),
    ("etc/ttylinux-target", "target ttylinux-i686-13.0\n", Some("ttylinux"), (13, 0), None, None),
    ("etc/cirros/version", "0.3.0\n", Some("cirros"), (0, 3), None, None),
    ("etc/br-version", "2012.11.1\n", Some("buildroot"), (2012, 11), None, None),
    ("etc/alpine-release", "3.4.6\n", Some("alpinelinux"), (3, 4), Some("apk"), Some("apk")),
    ("etc/frugalware-release", "Frugalware 1.3 (Haven)\n", Some("frugalware"), (1, 3), None, None),
    ("etc/pld-release", "3.0 PLD Linux (Th)\n", Some("pldlinux"), (3, 0), None, None),
    ("etc/altlinux-release", "ALT Linux 6.0.0 Centaurus  (Cheiron)\n", Some("altlinux"), (6, 0), Some("rpm"), Some("apt")),
    (SUSE, "openSUSE 11.2 (x86_64)\nVERSION = 11.2\n", Some("opensuse"), (11, 2), Some("rpm"), Some("zypper")),
    (SUSE, "SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\nPATCHLEVEL = 3\n", Some("sles"), (11, 3), Some("rpm"), Some("zypper")),
    (SUSE, "Foo 12 (x86_64)\nVERSION = 12\n", Some("suse-based"), (12, 0), Some("rpm"), Some("zypper")),
];

#[test]
fn distributions_are_told_by_their_files() {
    for (file, text, distro, version, format, management) in DISTROS {
        let os = linux(file, text);
        assert_eq!((os.kind, os.distro), ("linux", *distro), "{file}: {text}");
        assert_eq!(os.version.unwrap_or((0, 0)), *version, "{file}: {text}");
        assert_eq!((os.package_format, os.package_management), (*format, *management), "{text}");
    }
}

#[test]
fn what_os_release_leaves_out_another_file_says() {
    let os = os(&[
        ("bin/", b""),
        ("etc/fstab", b""),
        (OS, b"ID=debian\nVERSION_ID=12\nPRETTY_NAME=\"Debian GNU/Linux 12\"\nBUILD_ID=x\n"),
        ("etc/debian_version", b"12.4\n"),
        ("etc/hostname", b"# made\n\nhost.example.com\n"),
        ("bin/bash", &program(183, 2)),
    ])
    .unwrap();
    assert_eq!(os.version, Some((12, 4)));
    assert_eq!(os.product_name.unwrap(), "12.4");
    assert_eq!(os.build_id.unwrap(), "x");
    assert_eq!(os.hostname.unwrap(), "host.example.com");
    assert_eq!(os.arch, Some("aarch64"));
}

#[test]
fn hostnames_are_where_each_family_keeps_them() {
    for (file, text) in [
        ("etc/HOSTNAME", "h\n"),
        ("etc/sysconfig/network", "NETWORKING=yes\nHOSTNAME=\"h\"\n"),
        ("etc/conf.d/hostname", "# x\nhostname=\"h\"\n"),
    ] {
        assert_eq!(linux(file, text).hostname.unwrap(), "h", "{file}");
    }
    assert_eq!(linux("etc/hostname", "\n").hostname, None);
}

#[test]
fn other_systems_are_told_apart() {
    let fstab: (&str, &[u8]) = ("etc/fstab", b"/dev/x / ufs rw 1 1\n");
    let sh = program(3, 1);
    type Case<'a> = (&'a [(&'a str, &'a [u8])], &'a str, Option<&'a str>, (i32, i32));
    let cases: &[Case<'_>] = &[
        (
            &[fstab, ("bin/freebsd-version", b"#!/bin/sh\nUSERLAND_VERSION=\"13.1-RELEASE-p3\"\n")],
            "freebsd",
            Some("freebsd"),
            (13, 1),
        ),
        (
            &[fstab, ("etc/motd", b"FreeBSD 9.1-RELEASE (GENERIC) #0\n"), ("bin/", b"")],
            "freebsd",
            Some("freebsd"),
            (9, 1),
        ),
        (
            &[fstab, ("etc/release", b"NetBSD 5.0.1/i386\n"), ("netbsd", b""), ("bin/sh", &sh)],
            "netbsd",
            Some("netbsd"),
            (5, 0),
        ),
        (
            &[fstab, ("etc/motd", b"OpenBSD 5.4 (GENERIC.MP) #41: Tue\n"), ("bsd", b"")],
            "openbsd",
            Some("openbsd"),
            (5, 4),
        ),
        (
            &[
                fstab,
                ("hurd/console", b""),
                ("hurd/hello", b""),
                ("hurd/null", b""),
                ("bin/", b""),
                ("etc/debian_version", b"7.0\n"),
            ],
            "hurd",
            Some("debian"),
            (7, 0),
        ),
        (&[fstab, ("service/vm", &sh), ("etc/version", b"3.3.0\n")], "minix", None, (3, 3)),
        (&[("FDOS/FREEDOS.SS", b"")], "dos", Some("freedos"), (0, 0)),
    ];
    for (files, kind, distro, version) in cases {
        let os = os(files).unwrap();
        assert_eq!((os.kind, os.distro), (*kind, *distro));
        assert_eq!(os.version.unwrap_or((0, 0)), *version, "{kind}");
    }
}

#[test]
fn what_is_no_root_is_none() {
    assert!(os(&[("grub/menu.lst", b"")]).is_none());
    assert!(os(&[("home/user/etc/fstab", b"")]).is_none());
    assert!(os(&[("etc/fstab/", b""), ("bin/", b"")]).is_none());
}

#[test]
fn a_separate_usr_tells_the_distribution() {
    let dir =
        guest(&[("bin/", b""), ("share/", b""), ("lib/os-release", b"ID=fedora\nVERSION_ID=38\n")]);
    let unix::Found::Usr(usr) = look(dir.path()) else { panic!("not /usr") };
    assert_eq!(usr.distro.unwrap().name, Some("fedora"));
    assert_eq!(usr.arch, None);
}

#[test]
fn a_separate_usr_tells_the_architecture_by_the_programs_in_it() {
    // The second is what /sbin/init of a root whose /sbin is a link to usr/sbin leads to.
    for file in ["bin/bash", "sbin/init"] {
        let program = program(62, 2);
        let dir = guest(&[("bin/", b""), ("share/", b""), ("lib/", b""), (file, &program)]);
        let unix::Found::Usr(usr) = look(dir.path()) else { panic!("not /usr") };
        assert_eq!(usr.arch, Some("x86_64"), "{file}");
        let mut os = Os::default();
        os.take_usr(&usr);
        assert_eq!(os.arch, Some("x86_64"), "{file}");
        let mut os = Os { arch: Some("aarch64"), ..Os::default() };
        os.take_usr(&usr);
        assert_eq!(os.arch, Some("aarch64"), "the root's own programs count first");
    }
}

#[test]
fn a_products_name_is_the_one_that_clients_know() {
    type Files<'a> = &'a [(&'a str, &'a [u8])];
    let cases: &[(Files<'_>, &str)] = &[
        (
            &[(OS, b"ID=debian\nPRETTY_NAME=x\n"), ("etc/debian_version", b"trixie/sid\n")],
            "trixie/sid",
        ),
        (
            &[
                (OS, b"ID=centos\nVERSION_ID=7\nPRETTY_NAME=\"CentOS Linux 7 (Core)\"\n"),
                ("etc/centos-release", b"CentOS Linux release 7.9.2009 (Core)\n"),
            ],
            "CentOS Linux release 7.9.2009 (Core)",
        ),
        (
            &[
                (OS, b"ID=rhel\nVERSION_ID=7.0\nPRETTY_NAME=\"RHEL 7.0\"\n"),
                (REDHAT, b"Red Hat Enterprise Linux Server release 7.0 (Maipo)\n"),
            ],
            "RHEL 7.0",
        ),
        (
            &[
                (OS, b"ID=debian\nVERSION_ID=12\nPRETTY_NAME=\"Debian 12\"\n"),
                ("etc/debian_version", b"11.6\n"),
            ],
            "Debian 12",
        ),
        (
            &[
                (OS, b"ID=ol\nVERSION_ID=8.7\nPRETTY_NAME=x\n"),
                ("etc/oracle-release", b"Oracle Linux Server release 8.7\n"),
            ],
            "Oracle Linux Server release 8.7",
        ),
        (
            &[
                (OS, b"ID=linuxmint\nVERSION_ID=21.1\nPRETTY_NAME=x\n"),
                (LSB, b"DISTRIB_ID=LinuxMint\nDISTRIB_DESCRIPTION=\"Linux Mint 21.1 Vera\"\n"),
            ],
            "Linux Mint 21.1 Vera",
        ),
        (
            &[
                (OS, b"ID=almalinux\nID_LIKE=rhel\nVERSION_ID=9.1\nPRETTY_NAME=x\n"),
                (REDHAT, b"AlmaLinux release 9.1 (Lime Lynx)\n"),
            ],
            "AlmaLinux release 9.1 (Lime Lynx)",
        ),
    ];
    for (files, name) in cases {
        let root: Files<'_> = &[("bin/", b""), ("etc/fstab", b"")];
        let os = os(&[root, *files].concat()).unwrap();
        assert_eq!(os.product_name.unwrap(), *name);
    }
}

#[test]
fn a_version_in_a_file_of_the_distribution_that_it_is_made_of_is_taken() {
    let os = os(&[
        ("bin/", b""),
        ("etc/fstab", b""),
        (OS, b"ID=raspbian\nID_LIKE=debian\nVERSION_ID=11\nPRETTY_NAME=Raspbian\n"),
        ("etc/debian_version", b"11.6\n"),
    ])
    .unwrap();
    assert_eq!((os.distro, os.version), (Some("debian"), Some((11, 6))));
    assert_eq!(os.product_name.unwrap(), "11.6");
}

#[test]
fn devices_and_fifos_in_the_place_of_files_are_not_read() {
    use rustix::fs::{FileType, Mode, makedev};
    let fstab: &[u8] = b"/dev/sda1 / ext4 defaults 0 1\n";
    // The zero device, which has as many bytes as anybody wants, and a FIFO, which nobody ever writes to.
    let nodes = [(FileType::CharacterDevice, makedev(1, 5)), (FileType::Fifo, 0)];
    for (kind, number) in nodes {
        let dir = guest(&[("bin/", b""), ("etc/fstab", fstab)]);
        for file in ["etc/os-release", "etc/hostname", "etc/debian_version"] {
            let path = dir.path().join(file);
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, Mode::RUSR, number)
                .expect("this test makes device nodes: run it as root");
        }
        let root = Sysroot::new(dir.path()).open().unwrap();
        assert_eq!(Guest::at(&root).read("/etc/hostname"), None);
        let unix::Found::Root(os, _) = look(dir.path()) else { panic!("a root without {kind:?}") };
        assert_eq!((os.hostname, os.distro), (None, None), "{kind:?}");
    }
}

#[test]
fn files_behind_links_that_lead_out_are_not_read() {
    let outside = guest(&[("os-release", b"ID=fedora\n")]);
    let dir = guest(&[("bin/", b""), ("etc/fstab", b"")]);
    let link = dir.path().join("etc/os-release");
    std::os::unix::fs::symlink(outside.path().join("os-release"), link).unwrap();
    let unix::Found::Root(os, _) = look(dir.path()) else { panic!("no root") };
    assert_eq!(os.distro, None);
}

/// A SOFTWARE hive, and a SYSTEM hive.
fn hives() -> (Vec<u8>, Vec<u8>) {
    let dword = |n: u32| n.to_le_bytes();
    let current: &[&str] = &["Microsoft", "Windows NT", "CurrentVersion"];
    let guid = "{35378EAC-683F-11D2-A89A-00C04FBBCFA2}";
    let policy = ["Microsoft", "Windows", "CurrentVersion", "Group Policy", "History", guid];
    let software = made::with(&[
        (current, "ProductName", 1, &wide("Windows Server 2019 Standard")),
        (current, "InstallationType", 1, &wide("Server")),
        (current, "CurrentVersion", 1, &wide("6.3")),
        (current, "CurrentMajorVersionNumber", 4, &dword(10)),
        (current, "CurrentMinorVersionNumber", 4, &dword(0)),
        (current, "CurrentBuildNumber", 1, &wide("17763")),
        (&policy, "", 1, &wide("")),
    ]);
    let parameters = ["ControlSet001", "Services", "Tcpip", "Parameters"];
    let system = made::with(&[
        (&["Select"], "Current", 4, &dword(1)),
        (&parameters, "Hostname", 1, &wide("WIN-HOST")),
    ]);
    (software.unwrap(), system.unwrap())
}

#[test]
fn windows_is_told_by_its_registry() {
    let (software, system) = hives();
    let mut cmd = b"MZ".to_vec();
    cmd.resize(0x3c, 0);
    cmd.extend(0x40_u32.to_le_bytes());
    cmd.extend(b"PE\0\0\x64\x86");
    let dir = guest(&[
        ("Windows/System32/cmd.exe", &cmd),
        ("Windows/System32/config/SOFTWARE", &software),
        ("Windows/System32/config/SYSTEM", &system),
    ]);
    let root = Sysroot::new(dir.path()).open().unwrap();
    let os = windows::look(&Guest::at(&root)).unwrap();
    assert_eq!((os.kind, os.distro, os.arch), ("windows", Some("windows"), Some("x86_64")));
    assert_eq!(os.product_name.unwrap(), "Windows Server 2019 Standard");
    assert_eq!(os.product_variant.unwrap(), "Server");
    assert_eq!((os.version, os.build_id.unwrap()), (Some((10, 0)), "17763".into()));
    assert_eq!(os.hostname.unwrap(), "WIN-HOST");
    let windows = os.windows.unwrap();
    assert_eq!(windows.systemroot, "/Windows");
    assert_eq!(windows.software_hive.unwrap(), "/Windows/System32/config/SOFTWARE");
    assert_eq!(windows.system_hive.unwrap(), "/Windows/System32/config/SYSTEM");
    assert_eq!(windows.current_control_set.unwrap(), "ControlSet001");
    assert!(windows.group_policy);
}
