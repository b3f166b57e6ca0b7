// SPDX-License-Identifier: Apache-2.0
//! Which Debian package every program and file that we use comes from; installing what is missing.

mod apt;
pub(crate) mod unpacked;

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::run;
use crate::vm::kernel;

/// What a package is needed for; a command asks for several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// Booting the VM.
    Vm,
    /// Serving and looking at logical units in it.
    Luns,
    /// Looking at what is in images, with no VM.
    Files,
    /// The end-to-end tests.
    Test,
    /// Measuring beside the C daemon.
    Bench,
    /// Making Debian packages.
    Package,
}

/// All there is.
pub(crate) const ALL: &[For] =
    &[For::Vm, For::Luns, For::Files, For::Test, For::Bench, For::Package];

/// How to tell that something is there.
#[derive(Clone, Copy, Debug)]
enum Sign {
    Program(&'static str),
    File(&'static str),
    /// A kernel in /boot with its modules.
    Kernel,
    /// A busybox that needs no shared libraries.
    StaticBusybox,
}

/// One of the files of Augeas's lenses.
const LENSES: &str = "/usr/share/augeas/lenses/dist/hosts.aug";

/// What makes journals of what is exported.
const JOURNAL_REMOTE: &str = "/lib/systemd/systemd-journal-remote";
/// One of GRUB's files for PCs.
const GRUB_PC: &str = "/usr/lib/grub/i386-pc/boot.img";

/// What Debian's libtcmu is linked with.
const NL_GENL: &str = "/usr/lib/x86_64-linux-gnu/libnl-genl-3.so.200";
const GLIB: &str = "/usr/lib/x86_64-linux-gnu/libgio-2.0.so.0";
/// What Debian's handler_rbd.so is linked with.
const RBD: &str = "/usr/lib/x86_64-linux-gnu/librbd.so.1";
const GFAPI: &str = "/usr/lib/x86_64-linux-gnu/libgfapi.so.0";

/// What is needed, for what, and its package.
#[rustfmt::skip]
const NEEDS: &[(Sign, For, &str)] = &[
    (Sign::Program("qemu-system-x86_64"), For::Vm,    "qemu-system-x86"),
    (Sign::Kernel,                        For::Vm,    "linux-image-amd64"),
    (Sign::StaticBusybox,                 For::Vm,    "busybox-static"),
    (Sign::Program("modprobe"),           For::Vm,    "kmod"),
    (Sign::Program("mkfs.ext4"),          For::Vm,    "e2fsprogs"),
    (Sign::Program("xz"),                 For::Vm,    "xz-utils"),
    (Sign::Program("setpriv"),            For::Vm,    "util-linux"),
    (Sign::Program("linux.uml"),          For::Vm,    "user-mode-linux"),
    (Sign::Program("qemu-img"),           For::Luns,  "qemu-utils"),
    (Sign::Program("dbus-daemon"),        For::Luns,  "dbus"),
    (Sign::Program("fio"),                For::Luns,  "fio"),
    (Sign::Program("sg_inq"),             For::Test,  "sg3-utils"),
    (Sign::Program("targetcli"),          For::Test,  "targetcli-fb"),
    (Sign::Program("dmsetup"),            For::Test,  "dmsetup"),
    (Sign::Program("genisoimage"),        For::Test,  "genisoimage"),
    (Sign::Program("blkzone"),            For::Test,  "util-linux"),
    (Sign::Program("growisofs"),          For::Test,  "growisofs"),
    (Sign::Program("wodim"),              For::Test,  "wodim"),
    (Sign::Program("xorriso"),            For::Test,  "xorriso"),
    (Sign::File(RBD),                     For::Test,  "librbd1"),
    (Sign::Program("ceph-mon"),           For::Test,  "ceph-mon"),
    (Sign::Program("ceph-osd"),           For::Test,  "ceph-osd"),
    (Sign::Program("ceph-mgr"),           For::Test,  "ceph-mgr"),
    (Sign::Program("rbd"),                For::Test,  "ceph-common"),
    (Sign::File(GFAPI),                   For::Test,  "libgfapi0"),
    (Sign::Program("glusterd"),           For::Test,  "glusterfs-server"),
    (Sign::Program("dpkg-deb"),           For::Test,  "dpkg"),
    (Sign::Program("cryptsetup"),         For::Test,  "cryptsetup-bin"),
    (Sign::Program("python3"),            For::Test,  "python3"),
    (Sign::Program("cc"),                 For::Test,  "gcc"),
    (Sign::File("/usr/include/stdio.h"),  For::Test,  "libc6-dev"),
    (Sign::Program("nm"),                 For::Test,  "binutils"),
    (Sign::Program("pkg-config"),         For::Test,  "pkgconf"),
    (Sign::Program("valgrind"),           For::Test,  "valgrind"),
    (Sign::File(NL_GENL),                 For::Test,  "libnl-genl-3-200"),
    (Sign::File(GLIB),                    For::Test,  "libglib2.0-0"),
    (Sign::Program("guestfish"),          For::Files, "libguestfs-tools"),
    (Sign::Program("guestfsd"),           For::Test,  "guestfsd"),
    (Sign::Program("linux.uml"),          For::Files, "user-mode-linux"),
    (Sign::Program("sfdisk"),             For::Test,  "fdisk"),
    (Sign::Program("parted"),             For::Test,  "parted"),
    (Sign::Program("sgdisk"),             For::Test,  "gdisk"),
    (Sign::Program("mkfs.vfat"),          For::Test,  "dosfstools"),
    (Sign::Program("mkfs.ntfs"),          For::Test,  "ntfs-3g"),
    (Sign::Program("mkfs.xfs"),           For::Test,  "xfsprogs"),
    (Sign::Program("mkfs.btrfs"),         For::Test,  "btrfs-progs"),
    (Sign::Program("mkfs.f2fs"),          For::Test,  "f2fs-tools"),
    (Sign::Program("mksquashfs"),         For::Test,  "squashfs-tools"),
    (Sign::Program("zerofree"),           For::Test,  "zerofree"),
    (Sign::Program("lvm"),                For::Test,  "lvm2"),
    (Sign::Program("ldmtool"),            For::Test,  "ldmtool"),
    (Sign::Program("thin_check"),         For::Test,  "thin-provisioning-tools"),
    (Sign::Program("mdadm"),              For::Test,  "mdadm"),
    (Sign::Program("pgrep"),              For::Test,  "procps"),
    (Sign::Program("cpio"),               For::Test,  "cpio"),
    (Sign::Program("lzop"),               For::Test,  "lzop"),
    (Sign::Program("zstd"),               For::Test,  "zstd"),
    (Sign::Program("bzip2"),              For::Test,  "bzip2"),
    (Sign::Program("file"),               For::Test,  "file"),
    (Sign::Program("scrub"),              For::Test,  "scrub"),
    (Sign::Program("openssl"),            For::Test,  "openssl"),
    (Sign::Program("uuidgen"),            For::Test,  "uuid-runtime"),
    (Sign::Program("setfattr"),           For::Test,  "attr"),
    (Sign::Program("setfacl"),            For::Test,  "acl"),
    (Sign::File(LENSES),                  For::Test,  "augeas-lenses"),
    (Sign::Program("hivexregedit"),       For::Test,  "libwin-hivex-perl"),
    (Sign::Program("hivexml"),            For::Test,  "libhivex-bin"),
    (Sign::File(JOURNAL_REMOTE),          For::Test,  "systemd-journal-remote"),
    (Sign::Program("icat"),               For::Test,  "sleuthkit"),
    (Sign::Program("yarac"),              For::Test,  "yara"),
    (Sign::Program("rsync"),              For::Test,  "rsync"),
    (Sign::Program("setfiles"),           For::Test,  "policycoreutils"),
    (Sign::Program("syslinux"),           For::Test,  "syslinux"),
    (Sign::Program("mcopy"),              For::Test,  "mtools"),
    (Sign::Program("extlinux"),           For::Test,  "extlinux"),
    (Sign::Program("grub-install"),       For::Test,  "grub2-common"),
    (Sign::File(GRUB_PC),                 For::Test,  "grub-pc-bin"),
    (Sign::Program("tcmu-runner"),        For::Bench, "tcmu-runner"),
    (Sign::Program("gcc"),                For::Bench, "gcc"),
    (Sign::File("/usr/include/stdio.h"),  For::Bench, "libc6-dev"),
    (Sign::Program("dpkg-source"),        For::Bench, "dpkg-dev"),
    (Sign::Program("dpkg-shlibdeps"),     For::Package, "dpkg-dev"),
    (Sign::Program("strip"),              For::Package, "binutils"),
    (Sign::Program("lintian"),            For::Package, "lintian"),
];

impl Sign {
    fn is_there(self) -> bool {
        match self {
            Sign::Program(name) => run::find_program(name).is_some(),
            Sign::File(path) => std::path::Path::new(path).exists(),
            Sign::Kernel => kernel::find(None).is_ok(),
            Sign::StaticBusybox => crate::vm::static_busybox().is_some(),
        }
    }
}

/// Makes sure that what `uses` need is installed: installs it as root, else fails with the line to
/// run.
pub(crate) fn ensure(uses: &[For]) -> Result<()> {
    let missing: Vec<&str> = NEEDS
        .iter()
        .filter(|(sign, usage, _)| uses.contains(usage) && !sign.is_there())
        .map(|&(_, _, package)| package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let arguments = apt_arguments(&missing, &installed_version("qemu-utils"), &codename());
    let line = format!("apt-get {}", arguments.join(" "));
    if run::find_program("apt-get").is_none() {
        bail!("these Debian packages, or what this system calls them, are missing: {missing:?}");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("packages are missing; run\n\n    sudo {line}\n");
    }
    apt::run(&missing, &arguments)?;
    let still: Vec<String> = NEEDS
        .iter()
        .filter(|(sign, usage, _)| uses.contains(usage) && !sign.is_there())
        .map(|(sign, _, package)| format!("{sign:?} of package {package}"))
        .collect();
    if !still.is_empty() {
        bail!("apt-get succeeded, but these are still missing: {}", still.join(", "));
    }
    Ok(())
}

/// Makes sure that the kernel is installed that is wanted, if one is: Debian's newest whose version begins so.
pub(crate) fn kernel(wanted: Option<&str>) -> Result<()> {
    let Some(wanted) = wanted.filter(|wanted| kernel::find(Some(wanted)).is_err()) else {
        return Ok(());
    };
    let names = run::output(Command::new("apt-cache").args(["pkgnames", "linux-image-"]))?;
    let releases: Vec<String> = releases(&names, wanted).map(str::to_owned).collect();
    let Some(release) = kernel::newest(releases.iter()) else {
        bail!(
            "there is no package linux-image-{wanted}*-amd64: apt-get update, or another version"
        );
    };
    let package = format!("linux-image-{release}");
    let arguments = apt_arguments(&[&package], "", "");
    if !rustix::process::geteuid().is_root() {
        bail!("the kernel is missing; run\n\n    sudo apt-get {}\n", arguments.join(" "));
    }
    apt::run(&[&package], &arguments)?;
    kernel::find(Some(wanted)).map(drop)
}

/// Kernels for PCs of a version, among names of packages: not those for a cloud, of real time, or unsigned.
fn releases<'a>(names: &'a str, wanted: &str) -> impl Iterator<Item = &'a str> {
    let releases = names.lines().filter_map(|name| name.strip_prefix("linux-image-"));
    releases.filter(move |release| {
        let (version, flavour) = release.split_once('-').unwrap_or((release, ""));
        let numbered = flavour.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-');
        kernel::is_meant(wanted, version) && numbered == "amd64" && version.contains('.')
    })
}

/// The subcommand `install`.
pub(crate) fn main() -> Result<ExitCode> {
    ensure(ALL)?;
    println!("everything is there");
    Ok(ExitCode::SUCCESS)
}

/// Arguments of apt-get. QEMU's packages must be of one version: a qemu-utils from backports would
/// keep the release's qemu-system-x86 out, so the release's is asked for, downgrading it.
fn apt_arguments(missing: &[&str], qemu_utils: &str, codename: &str) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["install", "-y", "-qq", "--no-install-recommends"].map(String::from).into();
    let pin = missing.contains(&"qemu-system-x86") && qemu_utils.contains("~bpo");
    if pin && !codename.is_empty() {
        arguments.push("--allow-downgrades".into());
        arguments.push(format!("qemu-utils/{codename}"));
    }
    let mut packages = missing.to_vec();
    packages.dedup();
    arguments.extend(packages.into_iter().map(String::from));
    arguments
}

fn installed_version(package: &str) -> String {
    run::output(Command::new("dpkg-query").args(["-W", "-f", "${Version}", package]))
        .unwrap_or_default()
}

fn codename() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .unwrap_or_default()
        .trim_matches('"')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_of_a_version_are_those_for_pcs() {
        let names = "linux-image-6.12.107+deb12-amd64\nlinux-image-6.12.107+deb12-rt-amd64\n\
                     linux-image-6.12.107+deb12-amd64-dbg\nlinux-image-6.1.0-56-amd64\n\
                     linux-image-6.12-amd64-dbg\nlinux-image-amd64\nlinux-image-6.12.9+deb12-amd64\n";
        let found: Vec<_> = releases(names, "6.12").collect();
        assert_eq!(found, ["6.12.107+deb12-amd64", "6.12.9+deb12-amd64"]);
        assert_eq!(releases(names, "6.1").collect::<Vec<_>>(), ["6.1.0-56-amd64"]);
    }

    #[test]
    fn a_backported_qemu_utils_is_brought_back_to_the_release() {
        let missing = ["qemu-system-x86", "kmod"];
        let line = apt_arguments(&missing, "1:10.0~bpo12+1", "bookworm").join(" ");
        assert!(line.ends_with("--allow-downgrades qemu-utils/bookworm qemu-system-x86 kmod"));
    }

    #[test]
    fn nothing_is_downgraded_otherwise() {
        for (missing, version) in [
            ("qemu-system-x86", "1:7.2+dfsg-7"),
            ("fio", "1:10.0~bpo12+1"),
            ("qemu-system-x86", ""),
        ] {
            let line = apt_arguments(&[missing], version, "bookworm").join(" ");
            assert_eq!(line, format!("install -y -qq --no-install-recommends {missing}"));
        }
    }

    #[test]
    fn what_is_there_is_told_from_what_is_not() {
        assert!(Sign::Program("sh").is_there());
        assert!(!Sign::Program("no-such-program").is_there());
        assert!(!Sign::File("/no/such/file").is_there());
    }
}
