// SPDX-License-Identifier: Apache-2.0
//! What is in which package. Paths have no leading slash; `TRIPLET` in them stands for the name of the
//! architecture in multiarch directories.

/// A package.
pub(super) struct Package {
    pub(super) name: &'static str,
    /// Those of the workspace whose programs and libraries are in it.
    pub(super) crates: &'static [&'static str],
    pub(super) section: &'static str,
    /// One line.
    pub(super) synopsis: &'static str,
    /// Paragraphs.
    pub(super) description: &'static [&'static str],
    /// Fields of the control file; in a `Depends`, `LIBRARIES` stands for what the programs are linked
    /// with, and `VERSION` for the version of all of these packages.
    pub(super) fields: &'static [(&'static str, &'static str)],
    pub(super) files: &'static [File],
    /// Maintainer scripts, in dist/debian as `NAME.SCRIPT`.
    pub(super) scripts: &'static [&'static str],
    /// The content of `triggers`.
    pub(super) triggers: &'static str,
    /// Tags of lintian that do not count here, and why.
    pub(super) overrides: &'static [(&'static str, &'static str)],
}

/// Where a file comes from.
#[derive(Clone, Copy)]
pub(super) enum Origin {
    /// Cargo has built it: a program or a library.
    Built(&'static str),
    /// It is in the repository.
    Tree(&'static str),
    /// The same, and it is compressed.
    Page(&'static str),
    /// The same, with `@PREFIX@` and `@LIBDIR@` filled in.
    Template(&'static str),
    /// A symbolic link to this.
    Link(&'static str),
}

/// A file of a package, and where it goes. What is below etc is an administrator's to change.
pub(super) struct File(pub(super) Origin, pub(super) &'static str);

use Origin::{Built, Link, Page, Template, Tree};

/// Programs and libraries that rustc makes.
const STATIC: (&str, &str) =
    ("hardening-no-fortify-functions", "Rust checks bounds itself, and calls no such functions");

/// The same, of all packages.
pub(super) const OVERRIDES: &[(&str, &str)] =
    &[("initial-upload-closes-no-bugs", "it is not uploaded to Debian")];

pub(super) const PACKAGES: &[Package] = &[
    Package {
        name: "tcmu-runner",
        crates: &["tcmu-runner"],
        section: "admin",
        synopsis: "serves images as SCSI logical units of the kernel's target",
        description: &[
            "Images in, SCSI logical units of the Linux kernel's target (LIO) out, through TCM-User: \
             files and block devices, qcow2 images, LUKS volumes, images in Ceph clusters and on \
             Gluster volumes, images of other hypervisors, compressed ones.",
            "It takes the place of the daemon of the same name that is written in C: same command \
             line, configuration file, configuration strings, D-Bus names and plugins. Devices stay \
             as they are while one takes the place of the other.",
        ],
        fields: &[
            ("Depends", "LIBRARIES, kmod"),
            ("Pre-Depends", "init-system-helpers (>= 1.54~)"),
            ("Recommends", "dbus"),
            ("Suggests", "targetcli-fb, librbd1, libgfapi0, qemu-utils, cryptsetup-bin"),
        ],
        files: &[
            File(Built("tcmu-runner"), "usr/bin/tcmu-runner"),
            File(
                Tree("dist/systemd/tcmu-runner.service"),
                "lib/systemd/system/tcmu-runner.service",
            ),
            File(Tree("dist/dbus-1/tcmu-runner.conf"), "etc/dbus-1/system.d/tcmu-runner.conf"),
            File(
                Tree("dist/dbus-1/org.kernel.TCMUService1.service"),
                "usr/share/dbus-1/system-services/org.kernel.TCMUService1.service",
            ),
            File(
                Tree("dist/dbus-1/examples/tcmu-runner-listing.conf"),
                "usr/share/doc/tcmu-runner/examples/tcmu-runner-listing.conf",
            ),
            File(Tree("dist/logrotate/tcmu-runner"), "etc/logrotate.d/tcmu-runner"),
            File(Tree("dist/tcmu/tcmu.conf"), "etc/tcmu/tcmu.conf"),
            File(Page("dist/man/tcmu-runner.8"), "usr/share/man/man8/tcmu-runner.8.gz"),
            File(Page("dist/man/tcmu.conf.5"), "usr/share/man/man5/tcmu.conf.5.gz"),
            File(
                Tree("dist/completions/tcmu-runner.bash"),
                "usr/share/bash-completion/completions/tcmu-runner",
            ),
            File(
                Tree("dist/completions/_tcmu-runner"),
                "usr/share/zsh/vendor-completions/_tcmu-runner",
            ),
            File(
                Tree("dist/completions/tcmu-runner.fish"),
                "usr/share/fish/vendor_completions.d/tcmu-runner.fish",
            ),
        ],
        scripts: &["preinst", "postinst", "prerm", "postrm"],
        triggers: "",
        overrides: &[
            STATIC,
            (
                "dbus-policy-in-etc",
                "an administrator's changes to Debian's own, which is there, stay",
            ),
            (
                "maintainer-script-should-not-use-dpkg-maintscript-helper",
                "these are not made by debhelper, which would call it",
            ),
        ],
    },
    Package {
        name: "libtcmu2",
        crates: &["libtcmu"],
        section: "libs",
        synopsis: "library for programs that serve logical units of the kernel's target",
        description: &[
            "Programs in C that serve devices of the kernel's TCM-User in an event loop of their own. \
             It takes the place of the library of the same name that is written in C, but has none of \
             the functions for D-Bus that a generator has made for that one.",
        ],
        fields: &[
            ("Depends", "LIBRARIES"),
            ("Multi-Arch", "same"),
            // That of Debian takes functions for D-Bus from its library.
            ("Breaks", "tcmu-runner (<< 2:0~)"),
        ],
        files: &[
            File(Built("liblibtcmu.so"), "usr/lib/TRIPLET/libtcmu.so.2.2"),
            File(Link("libtcmu.so.2.2"), "usr/lib/TRIPLET/libtcmu.so.2"),
        ],
        scripts: &[],
        triggers: "activate-noawait ldconfig\n",
        overrides: &[STATIC, ("no-symbols-control-file", "no symbol is newer than the library")],
    },
    Package {
        name: "libtcmu-dev",
        crates: &[],
        section: "libdevel",
        synopsis: "headers for programs that serve logical units of the kernel's target",
        description: &[
            "What a program in C needs to be built with libtcmu, and a plugin for tcmu-runner: \
             headers, a file for pkg-config, an example.",
        ],
        fields: &[("Depends", "libtcmu2 (= VERSION)"), ("Multi-Arch", "same")],
        files: &[
            File(Link("libtcmu.so.2"), "usr/lib/TRIPLET/libtcmu.so"),
            File(Template("crates/libtcmu/libtcmu.pc.in"), "usr/lib/TRIPLET/pkgconfig/libtcmu.pc"),
            File(Tree("crates/libtcmu/include/libtcmu.h"), "usr/include/libtcmu.h"),
            File(Tree("crates/libtcmu/include/libtcmu_common.h"), "usr/include/libtcmu_common.h"),
            File(Tree("crates/libtcmu/include/libtcmu_log.h"), "usr/include/libtcmu_log.h"),
            File(Tree("crates/libtcmu/include/scsi_defs.h"), "usr/include/scsi_defs.h"),
            File(Tree("crates/libtcmu/include/tcmu-runner.h"), "usr/include/tcmu-runner.h"),
            File(
                Tree("crates/libtcmu/examples/consumer.c"),
                "usr/share/doc/libtcmu-dev/examples/consumer.c",
            ),
        ],
        scripts: &[],
        triggers: "",
        overrides: &[],
    },
    Package {
        name: "guestfsd",
        crates: &["guestfsd"],
        section: "admin",
        synopsis: "daemon behind libguestfs: files of disk images",
        description: &[
            "What libguestfs asks for the files, filesystems and volumes of a guest: all procedures of \
             its protocol, for unmodified clients, on a socket or over TLS.",
        ],
        fields: &[
            ("Depends", "LIBRARIES"),
            ("Recommends", "e2fsprogs"),
            (
                "Suggests",
                "guestfs-novm, lvm2, mdadm, cryptsetup-bin, btrfs-progs, xfsprogs, ntfs-3g, dosfstools",
            ),
        ],
        files: &[
            File(Built("guestfsd"), "usr/sbin/guestfsd"),
            File(Page("dist/man/guestfsd.8"), "usr/share/man/man8/guestfsd.8.gz"),
        ],
        scripts: &[],
        triggers: "",
        overrides: &[STATIC],
    },
    Package {
        name: "guestfs-novm",
        crates: &["guestfs-novm"],
        section: "admin",
        synopsis: "libguestfs without a virtual machine",
        description: &[
            "Runs guestfsd for guestfish, the virt-* tools and other clients of libguestfs in \
             namespaces of this host's kernel or in User-Mode Linux, with no virtual machine and no \
             appliance.",
        ],
        fields: &[
            ("Depends", "LIBRARIES, guestfsd (= VERSION), qemu-utils"),
            ("Recommends", "libguestfs-tools"),
            ("Suggests", "user-mode-linux"),
        ],
        files: &[
            File(Built("guestfs-novm"), "usr/bin/guestfs-novm"),
            File(Page("dist/man/guestfs-novm.1"), "usr/share/man/man1/guestfs-novm.1.gz"),
        ],
        scripts: &[],
        triggers: "",
        overrides: &[STATIC],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_file_is_in_two_packages_and_all_are_there() {
        let root = crate::run::root();
        let mut seen = BTreeSet::new();
        for package in PACKAGES {
            for File(from, to) in package.files {
                assert!(seen.insert(*to), "{to}");
                if let Tree(path) | Page(path) | Template(path) = from {
                    assert!(root.join(path).exists(), "{path}");
                }
            }
            for script in package.scripts {
                let path = format!("dist/debian/{}.{script}", package.name);
                assert!(root.join(&path).exists(), "{path}");
            }
        }
    }
}
