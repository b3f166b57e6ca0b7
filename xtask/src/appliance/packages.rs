// SPDX-License-Identifier: Apache-2.0
//! Which of the host's files belong into the appliance: those of some Debian packages and of what
//! these depend on, as dpkg knows them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::run;

/// What guestfsd uses: programs, and libraries that it loads; and udev, which names the disks.
/// Those that are not installed are left out, and guestfsd does without.
const WANTED: &[&str] = &[
    "acl",
    "attr",
    "augeas-lenses",
    "base-files",
    "base-passwd",
    "bash",
    "btrfs-progs",
    "bzip2",
    "coreutils",
    "cpio",
    "cryptsetup-bin",
    "dash",
    "diffutils",
    "dosfstools",
    "e2fsprogs",
    "extlinux",
    "f2fs-tools",
    "fdisk",
    "file",
    "findutils",
    "gdisk",
    "grep",
    "gzip",
    "kmod",
    "ldmtool",
    "libaugeas0",
    "libc-bin",
    "libcap2-bin",
    "libhivex0",
    "libmagic1",
    "librpm9",
    "lvm2",
    "lzop",
    "mdadm",
    "mount",
    "mtools",
    "netbase",
    "ntfs-3g",
    "parted",
    "policycoreutils",
    "procps",
    "rsync",
    "scrub",
    "sed",
    "squashfs-tools",
    "syslinux",
    "tar",
    "udev",
    "util-linux",
    "util-linux-extra",
    "xfsprogs",
    "xz-utils",
    "zerofree",
    "zstd",
];

/// What only installing and configuring packages needs, or booting a whole system.
const LEFT_OUT: &[&str] = &[
    "adduser",
    "debconf",
    "dpkg",
    "init-system-helpers",
    "lsb-base",
    "perl",
    "perl-base",
    "python3",
];

/// Directories that no program reads when it works.
const USELESS: &[&str] = &[
    "/usr/share/bash-completion/",
    "/usr/share/bug/",
    "/usr/share/doc/",
    "/usr/share/info/",
    "/usr/share/lintian/",
    "/usr/share/locale/",
    "/usr/share/man/",
    "/lib/udev/hwdb.d/",
    "/usr/lib/udev/hwdb.d/",
];

/// A package that is installed.
#[derive(Debug, Default)]
struct Package {
    version: String,
    /// Each of these names a package, or what a package provides.
    needs: Vec<String>,
}

/// All that are installed, and which package provides what.
#[derive(Debug, Default)]
struct Installed {
    packages: BTreeMap<String, Package>,
    provided: BTreeMap<String, String>,
}

/// The packages of an appliance with their versions, in order.
pub(super) fn chosen(more: &[&str]) -> Result<BTreeMap<String, String>> {
    let format =
        "${Package}\t${db:Status-Status}\t${Version}\t${Pre-Depends}, ${Depends}\t${Provides}\n";
    let text = run::output(Command::new("dpkg-query").args(["-W", "-f", format]))
        .context("the appliance is made of Debian packages")?;
    let installed = Installed::parse(&text);
    Ok(installed.closure(WANTED.iter().chain(more).copied()))
}

/// All files, links and directories of packages, but for documentation.
pub(super) fn files<'a>(packages: impl Iterator<Item = &'a String>) -> Result<BTreeSet<PathBuf>> {
    let text = run::output(Command::new("dpkg-query").arg("-L").args(packages))?;
    let wanted =
        |line: &&str| line.starts_with('/') && !USELESS.iter().any(|dir| line.starts_with(dir));
    Ok(text.lines().filter(wanted).map(PathBuf::from).collect())
}

impl Installed {
    fn parse(text: &str) -> Installed {
        let mut installed = Installed::default();
        for line in text.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [name, "installed", version, needs, provides] = fields[..] else { continue };
            for what in names(provides) {
                installed.provided.entry(what).or_insert_with(|| name.to_owned());
            }
            let package = Package { version: version.to_owned(), needs: names(needs).collect() };
            installed.packages.insert(name.to_owned(), package);
        }
        installed
    }

    fn closure<'a>(&self, wanted: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut ahead: Vec<&str> = wanted.collect();
        while let Some(name) = ahead.pop() {
            let name = self.provided.get(name).map_or(name, String::as_str);
            let Some(package) = self.packages.get(name) else { continue };
            if LEFT_OUT.contains(&name) || found.contains_key(name) {
                continue;
            }
            found.insert(name.to_owned(), package.version.clone());
            ahead.extend(package.needs.iter().map(String::as_str));
        }
        found
    }
}

/// The names in a list of relationships: "a (>= 1), b:any | c".
fn names(list: &str) -> impl Iterator<Item = String> {
    let first_word = |item: &str| {
        let name = item.trim().split([' ', '(', ':']).next().unwrap_or_default();
        (!name.is_empty()).then(|| name.to_owned())
    };
    list.split([',', '|']).filter_map(first_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_package_depends_on_comes_with_it() {
        let text = "a\tinstalled\t1\t, b (>= 2), c | d, perl-base\t\n\
                    b\tinstalled\t2\tlibx, e:any\t\nc\tdeinstall\t1\t\t\n\
                    d\tinstalled\t3\ta\t\nx1\tinstalled\t4\t, \tlibx (= 4), y\n\
                    e\tinstalled\t5\t\t\nperl-base\tinstalled\t6\t\t\nz\tinstalled\t7\t\t\n";
        let chosen = Installed::parse(text).closure(["a", "not-installed"].into_iter());
        let names: Vec<&str> = chosen.keys().map(String::as_str).collect();
        assert_eq!(names, ["a", "b", "d", "e", "x1"]);
        assert_eq!(chosen["x1"], "4");
    }
}
