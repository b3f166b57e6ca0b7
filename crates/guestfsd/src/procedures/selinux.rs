// SPDX-License-Identifier: Apache-2.0
//! SELinux: the daemon's context, and labels of the guest's files.

use crate::scratch::Scratch;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Context, Errno, Error, Result, shown};
use guest_fs::paths::{GuestPath, path_of, proc_path};
use guestfs_api::options;
use rustix::fs::OFlags;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

/// The context of what reads or writes it.
const CONTEXT: &str = "/proc/thread-self/attr/current";
/// Files beside a specification that belong to it. Those that are compiled do not: they are read without being checked.
const PARTS: [&str; 5] = ["", ".homedirs", ".local", ".subs", ".subs_dist"];
/// What a whole guest has from its kernel.
const KERNELS: [&str; 4] = ["/dev", "/proc", "/selinux", "/sys"];

/// The daemon's context.
pub(crate) fn getcon(_: &mut Session) -> Result<Vec<u8>> {
    need_selinux()?;
    let mut context = std::fs::read(CONTEXT).on("getcon")?;
    context.truncate(context.iter().position(|&b| b == 0).unwrap_or(context.len()));
    Ok(context)
}

/// Sets the daemon's context.
pub(crate) fn setcon(_: &mut Session, context: &OsStr) -> Result<()> {
    need_selinux()?;
    std::fs::write(CONTEXT, context.as_encoded_bytes()).on(context)
}

/// An error unless the kernel has SELinux: others have contexts of theirs in the same file.
fn need_selinux() -> Result<()> {
    let known = std::fs::read_to_string("/proc/filesystems").on("/proc/filesystems")?;
    if known.split_whitespace().any(|name| name == "selinuxfs") {
        return Ok(());
    }
    Err(Error::new(Errno::EINVAL, "SELinux is not enabled in this machine's kernel"))
}

/// Labels everything in a directory as a specification says.
pub(crate) fn selinux_relabel(
    s: &mut Session,
    specfile: &OsStr,
    path: GuestPath<'_>,
    options: &options::SelinuxRelabel,
) -> Result<()> {
    relabel(s, specfile, &[path], &[], options.force == Some(true))
}

/// Labels everything in some directories as a specification says, but for what is excluded.
pub(crate) fn setfiles(
    s: &mut Session,
    specfile: &OsStr,
    paths: &[GuestPath<'_>],
    options: &options::Setfiles<'_>,
) -> Result<()> {
    let excludes = options.excludes.as_deref().unwrap_or_default();
    let excludes: Vec<GuestPath<'_>> =
        excludes.iter().map(|path| GuestPath::new("excludes", path)).collect::<Result<_>>()?;
    relabel(s, specfile, paths, &excludes, options.force == Some(true))
}

fn relabel(
    s: &Session,
    specfile: &OsStr,
    paths: &[GuestPath<'_>],
    excludes: &[GuestPath<'_>],
    force: bool,
) -> Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    let specification = Specification::open(s, GuestPath::new("specfile", specfile)?)?;
    // Mounts are not asked whether they have labels: this kernel need not know of any. That some files could not be
    // labelled is an exit status of its own.
    let mut tool = Tool::on_guest(s.config(), "setfiles")?.args(["-m", "-C"]);
    if force {
        tool = tool.arg("-F");
    }
    if has_threads() {
        tool = tool.args(["-T", "0"]);
    }
    let kernels: Vec<GuestPath<'_>> =
        KERNELS.iter().filter_map(|path| GuestPath::new("", OsStr::new(path)).ok()).collect();
    for path in kernels.iter().chain(excludes) {
        // What is not there needs no exclusion.
        if let Ok(found) = real_path(s, *path) {
            tool = tool.arg("-e").arg(found);
        }
    }
    if !s.config().serves_machine() {
        tool = tool.arg("-r").arg(&s.config().sysroot);
    }
    let paths: Vec<PathBuf> =
        paths.iter().map(|path| real_path(s, *path)).collect::<Result<_>>()?;
    let output = tool.arg("--").arg(&specification.path).args(paths).run()?;
    let own = specification.path.to_string_lossy();
    match output.code {
        0 => Ok(()),
        // Some files could not be labelled: of a whole guest there always may be some. Or it is the specification.
        1 if !output.stderr.contains(&*own) => Ok(()),
        _ => {
            let said = output.failure().message().replace(&*own, &shown(specfile));
            Err(Error::new(Errno::EIO, said))
        }
    }
}

/// The path of what a path of the guest leads to. The program compares paths by their names, and follows no links below
/// this one.
fn real_path(s: &Session, path: GuestPath<'_>) -> Result<PathBuf> {
    path_of(s.open(path, OFlags::PATH)?).on(path)
}

/// Whether this version can work on several files at once (since 3.4).
fn has_threads() -> bool {
    Tool::new("setfiles").run().is_ok_and(|usage| usage.stderr.contains("FWT"))
}

/// A specification and its parts, of the guest, where a program finds them.
struct Specification {
    path: PathBuf,
    _files: Vec<File>,
    _directory: Scratch,
}

impl Specification {
    fn open(s: &Session, path: GuestPath<'_>) -> Result<Self> {
        let mut directory = Scratch::new()?;
        let mut files = Vec::new();
        for part in PARTS {
            let mut name = path.as_os_str().to_owned();
            name.push(part);
            let file = match s.open(GuestPath::new("specfile", &name)?, OFlags::RDONLY) {
                Err(e) if !part.is_empty() && e.errno() == Errno::ENOENT => continue,
                opened => opened?,
            };
            let mut own = OsString::from("file_contexts");
            own.push(part);
            directory.link(own, &proc_path(file.as_fd()))?;
            files.push(file);
        }
        let path = directory.path().join("file_contexts");
        Ok(Self { path, _files: files, _directory: directory })
    }
}
