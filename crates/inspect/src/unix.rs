// SPDX-License-Identifier: Apache-2.0
//! Linux, the BSDs, Hurd, MINIX and DOS: whether a filesystem is the root of one, and what its files say.

use super::guest::Guest;
use super::os::Os;
use super::release::{self, Release};
use super::{distros, fstab};
use std::ffi::OsString;

/// Programs whose architecture is the system's.
const PROGRAMS: &[&str] = &[
    "/bin/bash",
    "/bin/ls",
    "/bin/echo",
    "/bin/rm",
    "/bin/sh",
    "/usr/bin/bash",
    "/usr/bin/ls",
    "/bin/busybox",
    "/sbin/init",
    "/service/vm",
    "/hurd/null",
];

/// What a filesystem without Windows on it is.
#[derive(Debug)]
pub(super) enum Found {
    /// The root of this operating system, with what its fstab says.
    Root(Box<Os>, Vec<fstab::Entry>),
    /// What is mounted on /usr.
    Usr(Usr),
    /// Nothing of the kind.
    Nothing,
}

/// What the filesystem of /usr says of the system.
#[derive(Debug, Default)]
pub(super) struct Usr {
    pub(super) distro: Option<distros::Distro>,
    pub(super) arch: Option<&'static str>,
}

/// How a family is recognized and what is read of it.
struct Family {
    is_root: fn(&Guest<'_>) -> bool,
    describe: fn(&Guest<'_>) -> Os,
}

/// In this order: a Hurd looks like a Linux, too.
const FAMILIES: &[Family] = &[
    Family { is_root: is_freebsd, describe: freebsd },
    Family { is_root: is_netbsd, describe: netbsd },
    Family { is_root: is_openbsd, describe: openbsd },
    Family { is_root: is_hurd, describe: hurd },
    Family { is_root: is_minix, describe: minix },
    Family { is_root: is_linux, describe: linux },
    Family { is_root: is_dos, describe: dos },
];

/// Finds out what the mounted filesystem is.
pub(super) fn look(guest: &Guest<'_>) -> Found {
    if let Some(family) = FAMILIES.iter().find(|f| (f.is_root)(guest)) {
        let mut os = (family.describe)(guest);
        os.arch = os.arch.or_else(|| PROGRAMS.iter().find_map(|p| guest.architecture(p)));
        let text = guest.read("/etc/fstab").unwrap_or_default();
        return Found::Root(Box::new(os), fstab::parse(&text));
    }
    let usr = ["/bin", "/share", "/lib"].iter().all(|dir| guest.is_dir(dir));
    if usr && !guest.is_dir("/etc") {
        // Its own paths lack the `/usr`. Programs that are in /bin and /sbin are there as well if these are links
        // to directories of /usr.
        let own = |path: &'static str| path.strip_prefix("/usr").unwrap_or(path);
        let read = |path: &str| path.strip_prefix("/usr").and_then(|p| guest.read(p));
        return Found::Usr(Usr {
            distro: distros::identify(&read),
            arch: PROGRAMS.iter().find_map(|p| guest.architecture(own(p))),
        });
    }
    Found::Nothing
}

fn has_programs(guest: &Guest<'_>) -> bool {
    // A link to `usr/bin` leads nowhere while /usr is on a filesystem of its own.
    guest.is_dir("/bin") || guest.is_symlink("/bin")
}

fn is_linux(guest: &Guest<'_>) -> bool {
    guest.is_dir("/etc")
        && has_programs(guest)
        && (guest.is_file("/etc/fstab")
            || guest.is_file("/usr/lib/os-release")
            || guest.is_symlink("/etc/os-release")
            || guest.is_file("/etc/os-release")
            || guest.is_file("/etc/inittab"))
}

fn is_freebsd(guest: &Guest<'_>) -> bool {
    guest.is_file("/etc/freebsd-update.conf")
        || guest.is_file("/bin/freebsd-version")
        || (guest.is_file("/etc/fstab") && motd(guest).starts_with(b"FreeBSD"))
}

fn is_netbsd(guest: &Guest<'_>) -> bool {
    guest.is_file("/etc/fstab")
        && (guest.is_file("/netbsd")
            || guest.read("/etc/release").is_some_and(|text| text.starts_with(b"NetBSD")))
}

fn is_openbsd(guest: &Guest<'_>) -> bool {
    guest.is_file("/etc/fstab") && guest.is_file("/bsd")
}

fn is_hurd(guest: &Guest<'_>) -> bool {
    ["/hurd/console", "/hurd/hello", "/hurd/null"].iter().all(|f| guest.is_file(f))
}

fn is_minix(guest: &Guest<'_>) -> bool {
    guest.is_file("/service/vm") && guest.is_file("/etc/fstab") && guest.is_file("/etc/version")
}

fn is_dos(guest: &Guest<'_>) -> bool {
    let is_file = |path| guest.case_sensitive(path).is_some_and(|p| guest.is_file(p));
    is_file("/fdos/freedos.ss") || (is_file("/kernel.sys") && is_file("/command.com"))
}

fn motd(guest: &Guest<'_>) -> Vec<u8> {
    guest.read("/etc/motd").unwrap_or_default()
}

impl Os {
    /// Takes what a file says.
    pub(super) fn take(&mut self, release: Release) {
        self.product_name = release.product_name.or(self.product_name.take());
        self.product_variant = release.variant.or(self.product_variant.take());
        self.version = release.version.or(self.version);
        self.build_id = release.build_id.or(self.build_id.take());
    }

    /// Takes what is known of a Linux distribution.
    pub(super) fn take_distro(&mut self, distro: distros::Distro) {
        let distros::Distro { name, release } = distro;
        (self.package_format, self.package_management) =
            distros::packages(name, &release.like, release.version);
        self.distro = name;
        // The variant of a Linux is not returned: the documentation says that only Windows has one.
        self.take(Release { variant: None, ..release });
    }

    /// Takes what only the filesystem of /usr says.
    pub(super) fn take_usr(&mut self, usr: &Usr) {
        if self.distro.is_none()
            && let Some(distro) = &usr.distro
        {
            self.take_distro(distro.clone());
        }
        self.arch = self.arch.or(usr.arch);
    }

    fn of(kind: &'static str, distro: Option<&'static str>) -> Self {
        let (package_format, package_management) =
            distros::packages(distro.or(Some(kind)), &[], None);
        Self { kind, distro, package_format, package_management, ..Self::default() }
    }
}

fn linux(guest: &Guest<'_>) -> Os {
    let mut os = Os { kind: "linux", ..Os::default() };
    if let Some(distro) = distros::identify(&|path| guest.read(path)) {
        os.take_distro(distro);
    }
    os.hostname = first_of(guest, &["/etc/HOSTNAME", "/etc/hostname"])
        .or_else(|| variable(guest, "/etc/sysconfig/network", b"HOSTNAME"))
        .or_else(|| variable(guest, "/etc/conf.d/hostname", b"hostname"));
    os
}

fn freebsd(guest: &Guest<'_>) -> Os {
    let mut os = Os::of("freebsd", Some("freebsd"));
    // A script, which says so in a variable.
    let version = variable(guest, "/bin/freebsd-version", b"USERLAND_VERSION");
    match version {
        Some(version) => {
            let text = [b"FreeBSD ", version.as_encoded_bytes()].concat();
            os.take(release::one_line(&text));
        }
        None => os.take(release::one_line(&motd(guest))),
    }
    os.hostname = variable(guest, "/etc/rc.conf", b"hostname");
    os
}

fn netbsd(guest: &Guest<'_>) -> Os {
    let mut os = Os::of("netbsd", Some("netbsd"));
    os.take(release::one_line(&guest.read("/etc/release").unwrap_or_default()));
    os.hostname =
        variable(guest, "/etc/rc.conf", b"hostname").or_else(|| first_of(guest, &["/etc/myname"]));
    os
}

fn openbsd(guest: &Guest<'_>) -> Os {
    let mut os = Os::of("openbsd", Some("openbsd"));
    let motd = motd(guest);
    if motd.starts_with(b"OpenBSD") {
        let mut release = release::one_line(&motd);
        // `OpenBSD 5.4 (GENERIC.MP) #41: ...`: what was built when is not the product's name.
        let name = release::first_line(&motd).split(|&b| b == b'#').next();
        release.product_name = name.map(|n| release::line(n.trim_ascii()));
        os.take(release);
    }
    os.hostname = first_of(guest, &["/etc/myname"]);
    os
}

fn hurd(guest: &Guest<'_>) -> Os {
    let mut os = linux(guest);
    os.kind = "hurd";
    os
}

fn minix(guest: &Guest<'_>) -> Os {
    let mut os = Os::of("minix", None);
    let text = guest.read("/etc/version").unwrap_or_default();
    os.take(release::one_line(&text));
    os.hostname = first_of(guest, &["/etc/hostname.file"]);
    os
}

fn dos(guest: &Guest<'_>) -> Os {
    let freedos = guest.case_sensitive("/fdos").is_some();
    let distro = if freedos { "freedos" } else { "msdos" };
    let mut os = Os::of("dos", Some(distro));
    // FreeDOS runs on nothing else.
    os.arch = Some("i386");
    if freedos {
        os.product_name = Some("FreeDOS".into());
    }
    os
}

/// The first line of the first of these files that has one, comments left out.
fn first_of(guest: &Guest<'_>, files: &[&str]) -> Option<OsString> {
    files.iter().find_map(|file| {
        let text = guest.read(file)?;
        let mut lines = text.split(|&b| b == b'\n').map(<[u8]>::trim_ascii);
        lines.find(|l| !l.is_empty() && !l.starts_with(b"#")).map(release::line)
    })
}

/// A variable that is set in a file of the shell's.
fn variable(guest: &Guest<'_>, file: &str, name: &[u8]) -> Option<OsString> {
    let text = guest.read(file)?;
    let found = release::variables(&text).find(|(n, v)| *n == name && !v.is_empty());
    found.map(|(_, value)| release::line(&value))
}
