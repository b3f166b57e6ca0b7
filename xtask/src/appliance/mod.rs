// SPDX-License-Identifier: Apache-2.0
//! A fixed appliance for libguestfs, as guestfs-internals(1) and libguestfs-make-fixed-appliance(1) describe
//! it: with `LIBGUESTFS_PATH` at its directory an unmodified client boots the host's own kernel in QEMU,
//! with a guestfsd of our choice.
//!
//! The root filesystem, with the files of the packages that guestfsd uses, is made once for the versions
//! of these packages and kept in the cache directory. The daemon is in the initramfs, which is
//! made each time.

mod packages;

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run;
use crate::vm::cpio::{self, Entry};
use crate::vm::kernel;

const INIT: &str = include_str!("init");
const DAEMON: &str = include_str!("daemon");
/// What disks, channel and root need before there is a root. With sd_mod first each disk gets its name when
/// it is found; else all are looked at at a time, and are named in any order.
const MODULES: [&str; 5] = ["sd_mod", "virtio_pci", "virtio_scsi", "virtio_console", "ext4"];
/// Modules that are in the root, by their directories: filesystems and what is below them.
const MODULE_DIRS: [&str; 10] = [
    "kernel/arch",
    "kernel/crypto",
    "kernel/drivers/block",
    "kernel/drivers/char",
    "kernel/drivers/md",
    "kernel/drivers/scsi",
    "kernel/drivers/virtio",
    "kernel/fs",
    "kernel/lib",
    "kernel/net/core",
];
/// Bytes of the root filesystem; a sparse file.
const ROOT_SIZE: u64 = 2 << 30;
/// Links of a merged /usr.
const LINKS: [&str; 5] = ["bin", "lib", "lib32", "lib64", "sbin"];
/// Directories that belong to no package, or are mounted on.
const DIRECTORIES: [&str; 8] = ["dev", "proc", "root", "run", "sys", "sysroot", "tmp", "var/tmp"];

/// Makes an appliance with this daemon in an empty directory; `more` packages are in it, too.
pub(crate) fn make(dir: &Path, daemon: &Path, more: &[&str]) -> Result<()> {
    let release = kernel::find(None)?;
    symlink(kernel::kernel(&release)?, dir.join("kernel"))?;
    symlink(root(&release, more)?, dir.join("root"))?;
    let mut entries = kernel::initramfs(&release, INIT, &MODULES)?;
    let content = fs::read(daemon).with_context(|| format!("cannot read {}", daemon.display()))?;
    entries.push(Entry::file("guestfsd", 0o755, content));
    entries.push(Entry::file("daemon", 0o755, DAEMON.into()));
    fs::write(dir.join("initrd"), cpio::archive(&entries))?;
    fs::write(dir.join("README.fixed"), "Made by cargo xtask.\n")?;
    Ok(())
}

/// The root filesystem, made when it is not there for these versions.
fn root(release: &str, more: &[&str]) -> Result<PathBuf> {
    let packages = packages::chosen(more)?;
    let tag = kernel::about(release, &(&packages, MODULE_DIRS))?;
    let cache = run::cache_dir()?;
    let image = cache.join(format!("appliance-{tag:016x}"));
    if image.exists() {
        return Ok(image);
    }
    println!("vm: making an appliance of {} packages, which are kept", packages.len());
    let work = tempfile::Builder::new().prefix("appliance.").tempdir_in(&cache)?;
    let tree = work.path().join("tree");
    fs::create_dir(&tree)?;
    fill(&tree, release, &packages::files(packages.keys())?)?;
    let new = work.path().join("root");
    fs::File::create(&new)?.set_len(ROOT_SIZE)?;
    let mut mkfs = run::command("mkfs.ext4");
    mkfs.args(["-q", "-F", "-m0", "-O", "^has_journal", "-E", "root_owner=0:0", "-d"]);
    run::run(mkfs.arg(&tree).arg(&new))?;
    // Those of other versions are of no use any more.
    for entry in fs::read_dir(&cache)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix("appliance-").is_some_and(|tag| tag.len() == 16) {
            fs::remove_file(entry.path()).ok();
        }
    }
    fs::rename(&new, &image)?;
    Ok(image)
}

/// Copies the host's files below `tree`.
fn fill(tree: &Path, release: &str, files: &BTreeSet<PathBuf>) -> Result<()> {
    for name in LINKS {
        if let Ok(target) = fs::read_link(Path::new("/").join(name)) {
            fs::create_dir_all(tree.join(&target))?;
            symlink(target, tree.join(name))?;
        }
    }
    for name in DIRECTORIES {
        fs::create_dir_all(tree.join(name))?;
    }
    for (source, directory) in [("passwd", "passwd.master"), ("group", "group.master")] {
        let from = Path::new("/usr/share/base-passwd").join(directory);
        fs::create_dir_all(tree.join("etc"))?;
        fs::copy(&from, tree.join("etc").join(source))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    // What is in / itself is made above, or a link of a merged /usr.
    let mut list: BTreeSet<PathBuf> = files.clone();
    let modules = PathBuf::from(format!("/lib/modules/{release}"));
    list.extend(fs::read_dir(&modules)?.flatten().map(|e| e.path()).filter(|p| p.is_file()));
    for dir in MODULE_DIRS {
        walk(&modules.join(dir), &mut list)?;
    }
    for file in list.iter().filter(|file| file.parent() != Some(Path::new("/"))) {
        copy(file, tree)?;
    }
    let mut ldconfig = run::command("ldconfig");
    run::run(ldconfig.arg("-r").arg(tree))
}

/// Copies a file, a link, or makes a directory of this name; what is not there, or only for others to
/// read, is left out.
fn copy(file: &Path, tree: &Path) -> Result<()> {
    let to = tree.join(file.strip_prefix("/").unwrap_or(file));
    let Ok(meta) = fs::symlink_metadata(file) else { return Ok(()) };
    if meta.is_dir() {
        return Ok(fs::create_dir_all(to)?);
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    let done = if meta.is_symlink() {
        fs::read_link(file).and_then(|target| symlink(target, &to))
    } else {
        fs::copy(file, &to).map(|_| ())
    };
    match done {
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Ok(()),
        // The same file by two names, one through a link of a merged /usr.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other.with_context(|| format!("cannot copy {}", file.display())),
    }
}

fn walk(dir: &Path, list: &mut BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), list)?;
        } else {
            list.insert(entry.path());
        }
    }
    Ok(())
}
