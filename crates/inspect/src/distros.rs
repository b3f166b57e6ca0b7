// SPDX-License-Identifier: Apache-2.0
//! Distributions: by which names they are known, in which files they say so, what packages they have.

use super::release::{self, Release, Version};

/// Names of distributions in `ID` of os-release and `DISTRIB_ID` of lsb-release.
const IDS: &[(&str, &str)] = &[
    ("alpine", "alpinelinux"),
    ("altlinux", "altlinux"),
    ("arch", "archlinux"),
    ("buildroot", "buildroot"),
    ("centos", "centos"),
    ("cirros", "cirros"),
    ("coreos", "coreos"),
    ("debian", "debian"),
    ("fedora", "fedora"),
    ("frugalware", "frugalware"),
    ("gentoo", "gentoo"),
    ("kali", "kalilinux"),
    ("kylin", "kylin"),
    ("linuxmint", "linuxmint"),
    ("mageia", "mageia"),
    ("mandriva", "mandriva"),
    ("mandrivalinux", "mandriva"),
    ("meego", "meego"),
    ("neokylin", "neokylin"),
    ("ol", "oraclelinux"),
    ("openmandriva", "openmandriva"),
    ("opensuse", "opensuse"),
    ("opensuse-leap", "opensuse"),
    ("opensuse-microos", "opensuse"),
    ("opensuse-tumbleweed", "opensuse"),
    ("pardus", "pardus"),
    ("pld", "pldlinux"),
    ("pld linux", "pldlinux"),
    ("rhel", "rhel"),
    ("rocky", "rocky"),
    ("scientific", "scientificlinux"),
    ("slackware", "slackware"),
    ("sled", "sles"),
    ("sles", "sles"),
    ("sles_sap", "sles"),
    ("ttylinux", "ttylinux"),
    ("ubuntu", "ubuntu"),
    ("void", "voidlinux"),
];

/// Families in `ID_LIKE`, for distributions that have no name above.
const LIKE: &[(&str, &str)] = &[
    ("rhel", "redhat-based"),
    ("centos", "redhat-based"),
    ("fedora", "redhat-based"),
    ("suse", "suse-based"),
    ("opensuse", "suse-based"),
    ("sles", "suse-based"),
];

/// Beginnings of lines in files of the Red Hat family.
const RED_HAT_LINES: &[(&str, &str)] = &[
    ("Fedora", "fedora"),
    ("Red Hat Enterprise Linux", "rhel"),
    ("Red Hat Linux", "rhel"),
    ("CentOS", "centos"),
    ("Scientific Linux", "scientificlinux"),
    ("Rocky Linux", "rocky"),
    ("Oracle Linux", "oraclelinux"),
    ("NeoKylin", "neokylin"),
    ("OpenMandriva", "openmandriva"),
    ("Mandriva", "mandriva"),
    ("Mageia", "mageia"),
    ("ALT ", "altlinux"),
    ("", "redhat-based"),
];

/// Beginnings of the first line of SuSE-release.
const SUSE_LINES: &[(&str, &str)] = &[
    ("openSUSE", "opensuse"),
    ("SUSE Linux Enterprise", "sles"),
    ("SUSE Linux 10", "opensuse"),
    ("Novell Linux Desktop", "sles"),
    ("", "suse-based"),
];

/// How a file is read.
#[derive(Clone, Copy, Debug)]
enum Reader {
    /// One line with name and version; the distribution by its beginning.
    Line(&'static [(&'static str, &'static str)]),
    /// SuSE-release.
    Suse,
    /// os-release(5).
    Os,
    /// lsb-release.
    Lsb,
}

/// Files in which distributions say what they are. The first that says so has it.
const FILES: &[(&str, Reader)] = &[
    ("/etc/os-release", Reader::Os),
    ("/usr/lib/os-release", Reader::Os),
    ("/etc/lsb-release", Reader::Lsb),
    ("/etc/oracle-release", Reader::Line(&[("", "oraclelinux")])),
    ("/etc/centos-release", Reader::Line(&[("", "centos")])),
    ("/etc/altlinux-release", Reader::Line(&[("", "altlinux")])),
    ("/etc/mageia-release", Reader::Line(&[("", "mageia")])),
    ("/etc/openmandriva-release", Reader::Line(&[("", "openmandriva")])),
    ("/etc/mandriva-release", Reader::Line(&[("", "mandriva")])),
    ("/etc/mandrake-release", Reader::Line(&[("", "mandriva")])),
    ("/etc/meego-release", Reader::Line(&[("", "meego")])),
    ("/etc/fedora-release", Reader::Line(&[("", "fedora")])),
    ("/etc/pld-release", Reader::Line(&[("", "pldlinux")])),
    ("/etc/kylin-release", Reader::Line(&[("", "kylin")])),
    ("/etc/redhat-release", Reader::Line(RED_HAT_LINES)),
    ("/etc/arch-release", Reader::Line(&[("", "archlinux")])),
    ("/etc/gentoo-release", Reader::Line(&[("", "gentoo")])),
    ("/etc/slackware-version", Reader::Line(&[("", "slackware")])),
    ("/etc/ttylinux-target", Reader::Line(&[("", "ttylinux")])),
    ("/etc/SuSE-release", Reader::Suse),
    ("/etc/cirros/version", Reader::Line(&[("", "cirros")])),
    ("/etc/br-version", Reader::Line(&[("", "buildroot")])),
    ("/etc/alpine-release", Reader::Line(&[("", "alpinelinux")])),
    ("/etc/frugalware-release", Reader::Line(&[("", "frugalware")])),
    ("/etc/void-release", Reader::Line(&[("", "voidlinux")])),
    ("/etc/debian_version", Reader::Line(&[("", "debian")])),
    // Pardus was made of Debian later on.
    ("/etc/pardus-release", Reader::Line(&[("", "pardus")])),
];

/// Files of distributions that are more exact than os-release where that has the major version only.
const EXACT: &[(&str, &str)] = &[
    ("debian", "/etc/debian_version"),
    ("centos", "/etc/centos-release"),
    ("oraclelinux", "/etc/oracle-release"),
    ("scientificlinux", "/etc/redhat-release"),
    ("rocky", "/etc/redhat-release"),
    ("rhel", "/etc/redhat-release"),
];

/// Files whose name for the product is told in any case: clients know these systems by it.
const NAMED_BY: &[(&str, &str, Reader)] = &[
    ("linuxmint", "/etc/lsb-release", Reader::Lsb),
    ("oraclelinux", "/etc/oracle-release", Reader::Line(&[])),
    ("scientificlinux", "/etc/redhat-release", Reader::Line(&[])),
];

/// What a Linux distribution is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Distro {
    /// As inspection names it.
    pub name: Option<&'static str>,
    /// What its file says.
    pub release: Release,
}

/// Finds out from its files which distribution it is. `read` returns a file's bytes, none if there is no such
/// file.
pub(crate) fn identify(read: &dyn Fn(&str) -> Option<Vec<u8>>) -> Option<Distro> {
    let mut unnamed: Option<Distro> = None;
    for (file, reader) in FILES {
        let Some(text) = read(file) else { continue };
        let mut distro = reader.read(&text);
        match (&mut unnamed, distro.name) {
            (None, Some(name)) => {
                complete(name, &mut distro.release, read);
                return Some(distro);
            }
            // os-release does not name one that we know: another file does, and what that says with a version is
            // more exact.
            (Some(first), Some(name)) => {
                first.name = Some(name);
                if distro.release.version.is_some() {
                    first.release.version = distro.release.version;
                    first.release.product_name = distro.release.product_name;
                }
                break;
            }
            (None, None) => unnamed = Some(distro),
            (Some(_), None) => {}
        }
    }
    unnamed.map(|mut distro| {
        let like = || distro.release.like.iter().find_map(|id| find(LIKE, id));
        distro.name = distro.name.or_else(like);
        distro
    })
}

impl Reader {
    fn read(self, text: &[u8]) -> Distro {
        let by_id = |release: Release| {
            let name = release.id.as_deref().and_then(|id| find(IDS, id));
            Distro { name, release }
        };
        match self {
            Self::Os => by_id(release::os_release(text)),
            Self::Lsb => by_id(release::lsb_release(text)),
            Self::Suse => {
                let name = by_beginning(SUSE_LINES, release::first_line(text));
                Distro { name, release: release::suse_release(text) }
            }
            Self::Line(lines) => {
                let name = by_beginning(lines, release::first_line(text));
                Distro { name, release: release::one_line(text) }
            }
        }
    }
}

fn find(table: &[(&str, &'static str)], id: &[u8]) -> Option<&'static str> {
    table.iter().find(|(name, _)| name.as_bytes() == id).map(|(_, distro)| *distro)
}

fn by_beginning(lines: &[(&str, &'static str)], text: &[u8]) -> Option<&'static str> {
    let found = lines.iter().find(|(begin, _)| text.starts_with(begin.as_bytes()));
    found.map(|(_, distro)| *distro)
}

/// Takes from other files what they say better: the version, if that does not contradict, and the product's name.
fn complete(name: &str, release: &mut Release, read: &dyn Fn(&str) -> Option<Vec<u8>>) {
    let exact = EXACT.iter().find(|(distro, _)| *distro == name).filter(|_| !release.has_minor);
    if let Some(text) = exact.and_then(|(_, file)| read(file)) {
        let exact = release::one_line(&text);
        let agrees = match (release.version, exact.version) {
            (Some((major, _)), Some((exact, _))) => major == exact,
            (Some(_), None) => false,
            (None, _) => true,
        };
        if agrees {
            release.version = exact.version.or(release.version);
            release.product_name = exact.product_name.or(release.product_name.take());
        }
    }
    let named = NAMED_BY.iter().find(|(distro, ..)| *distro == name);
    if let Some(named) = named.and_then(|(_, file, reader)| Some(reader.read(&read(file)?))) {
        release.product_name = named.release.product_name.or(release.product_name.take());
    }
}

/// Format of packages, and the program that manages them.
pub(crate) fn packages(
    distro: Option<&str>,
    like: &[Vec<u8>],
    version: Option<Version>,
) -> (Option<&'static str>, Option<&'static str>) {
    let major = version.map_or(0, |(major, _)| major);
    let yum_before = |dnf| if major >= dnf { "dnf" } else { "yum" };
    let (format, management) = match distro.unwrap_or_default() {
        "fedora" => ("rpm", yum_before(22)),
        "rhel" | "redhat-based" if major == 0 => return (Some("rpm"), None),
        "rhel" | "redhat-based" if major < 5 => ("rpm", "up2date"),
        "rhel" | "centos" | "scientificlinux" | "oraclelinux" | "rocky" | "redhat-based" => {
            ("rpm", yum_before(8))
        }
        "neokylin" | "openmandriva" => ("rpm", "dnf"),
        "meego" => ("rpm", "yum"),
        "mageia" | "mandriva" => ("rpm", "urpmi"),
        "opensuse" | "sles" | "suse-based" => ("rpm", "zypper"),
        "altlinux" => ("rpm", "apt"),
        "debian" | "ubuntu" | "linuxmint" | "kalilinux" | "kylin" => ("deb", "apt"),
        "archlinux" => ("pacman", "pacman"),
        "gentoo" => ("ebuild", "portage"),
        "pardus" => ("pisi", "pisi"),
        "alpinelinux" => ("apk", "apk"),
        "voidlinux" => ("xbps", "xbps"),
        "netbsd" | "minix" => ("pkgsrc", "pkgsrc"),
        "" if like.iter().any(|l| matches!(&l[..], b"debian" | b"ubuntu")) => ("deb", "apt"),
        "" if like.iter().any(|l| l == b"arch") => ("pacman", "pacman"),
        _ => return (None, None),
    };
    (Some(format), Some(management))
}
