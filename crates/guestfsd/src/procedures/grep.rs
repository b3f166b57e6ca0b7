// SPDX-License-Identifier: Apache-2.0
//! Lines that match, and what sort of file it is: by the programs grep, zgrep and file, which get descriptors.

use super::contents::{Lines, too_long};
use crate::mountable::DevOrPath;
use crate::session::Session;
use crate::tool::{Output, Tool};
use guest_error::{Context, Errno, Error, Result};
use guest_fs::paths::GuestPath;
use guestfs_api::options;
use rustix::fs::{FileType, OFlags};
use std::ffi::OsStr;
use std::fs::File;

/// Lines that match.
pub(crate) fn grep(
    s: &mut Session,
    regex: &OsStr,
    path: GuestPath<'_>,
    options: &options::Grep,
) -> Result<Vec<Vec<u8>>> {
    search(
        s,
        regex,
        path,
        How {
            extended: options.extended == Some(true),
            fixed: options.fixed == Some(true),
            insensitive: options.insensitive == Some(true),
            compressed: options.compressed == Some(true),
        },
    )
}

/// How to search.
#[derive(Clone, Copy, Debug, Default)]
struct How {
    extended: bool,
    fixed: bool,
    insensitive: bool,
    compressed: bool,
}

/// Procedures that are `grep` with options.
macro_rules! greps {
    ($($(#[$doc:meta])* $name:ident: $($option:ident)+;)*) => {
        $($(#[$doc])*
        pub(crate) fn $name(
            s: &mut Session,
            regex: &OsStr,
            path: GuestPath<'_>,
        ) -> Result<Vec<Vec<u8>>> {
            search(s, regex, path, How { $($option: true,)+ ..How::default() })
        })*
    };
}

greps! {
    /// Lines that match an extended regular expression.
    egrep: extended;
    /// Lines that have a string in them.
    fgrep: fixed;
    /// Lines that match, in capitals or not.
    grepi: insensitive;
    /// Lines that match an extended regular expression, in capitals or not.
    egrepi: extended insensitive;
    /// Lines that have a string in them, in capitals or not.
    fgrepi: fixed insensitive;
    /// Lines of a compressed file that match.
    zgrep: compressed;
    /// Lines of a compressed file that match an extended regular expression.
    zegrep: compressed extended;
    /// Lines of a compressed file that have a string in them.
    zfgrep: compressed fixed;
    /// Lines of a compressed file that match, in capitals or not.
    zgrepi: compressed insensitive;
    /// Lines of a compressed file that match an extended regular expression, in capitals or not.
    zegrepi: compressed extended insensitive;
    /// Lines of a compressed file that have a string in them, in capitals or not.
    zfgrepi: compressed fixed insensitive;
}

fn search(s: &Session, regex: &OsStr, path: GuestPath<'_>, how: How) -> Result<Vec<Vec<u8>>> {
    if how.extended && how.fixed {
        let why = "can't use 'extended' and 'fixed' flags at the same time";
        return Err(Error::argument("fixed", "true", why));
    }
    let file = readable(s.open(path, OFlags::RDONLY)?, path)?;
    let mut tool = Tool::new(if how.compressed { "zgrep" } else { "grep" });
    for (wanted, flag) in [(how.extended, "-E"), (how.fixed, "-F"), (how.insensitive, "-i")] {
        if wanted {
            tool = tool.arg(flag);
        }
    }
    let output = tool.arg("-e").arg(regex).arg("--").file(&file, path).run();
    let output = output.map_err(|e| if e.errno() == Errno::EFBIG { too_long() } else { e });
    match output.map_err(|e| e.within(path))? {
        // 1: nothing matches.
        Output { code: 0 | 1, stdout, .. } => Lines::of(&stdout, path),
        failed => Err(Error::new(Errno::EINVAL, failed.failure().message()).within(path)),
    }
}

/// A file that a program can read to its end: reading a FIFO of the guest would wait forever.
fn readable(file: File, path: GuestPath<'_>) -> Result<File> {
    match FileType::from_raw_mode(rustix::fs::fstat(&file).on(path)?.st_mode) {
        FileType::Directory => {
            Err(Error::new(Errno::EISDIR, Errno::EISDIR.describe()).within(path))
        }
        FileType::Fifo | FileType::Socket => {
            Err(Error::argument("path", path, "is neither a regular file nor a device"))
        }
        _ => Ok(file),
    }
}

/// What sort of file or device it is. A link is not followed, and devices of the guest are not read.
pub(crate) fn file(s: &mut Session, path: DevOrPath<'_>) -> Result<Vec<u8>> {
    let file = match &path {
        DevOrPath::Device(device) => device.open(OFlags::RDONLY)?,
        DevOrPath::Path(path) => {
            let stat = s.entry(*path)?.lstat().on(path)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => return Ok(b"directory".to_vec()),
                FileType::CharacterDevice => return Ok(b"character device".to_vec()),
                FileType::BlockDevice => return Ok(b"block device".to_vec()),
                FileType::Fifo => return Ok(b"FIFO".to_vec()),
                FileType::Symlink => return Ok(b"symbolic link".to_vec()),
                FileType::Socket => return Ok(b"socket".to_vec()),
                _ => readable(s.open(*path, OFlags::RDONLY | OFlags::NOFOLLOW)?, *path)?,
            }
        }
    };
    // Through the descriptor's link, into devices, and into what is compressed.
    describe(&["-b", "-s", "-L", "-z"], &file, &path).map_err(|e| e.within(&path))
}

fn describe(flags: &[&str], file: &File, name: impl AsRef<OsStr>) -> Result<Vec<u8>> {
    let mut text = Tool::new("file").args(flags).arg("--").file(file, name).output()?;
    while text.last() == Some(&b'\n') {
        text.pop();
    }
    Ok(text)
}

/// Programs that undo a compression.
const METHODS: [(&str, &str); 3] = [("gzip", "zcat"), ("compress", "zcat"), ("bzip2", "bzcat")];

/// What sort of file is in a compressed one.
pub(crate) fn zfile(s: &mut Session, meth: &OsStr, path: GuestPath<'_>) -> Result<Vec<u8>> {
    let found = METHODS.iter().find(|(name, _)| meth == *name);
    let &(_, program) = found.ok_or_else(|| {
        Error::argument("meth", meth, "unknown method, expecting gzip, compress or bzip2")
    })?;
    /// As much as anybody needs to know what it is.
    const HEAD: usize = 1 << 20;
    let file = readable(s.open(path, OFlags::RDONLY)?, path)?;
    let mut head = Vec::new();
    let unpack = Tool::new(program).args(["-f", "--"]).file(&file, path);
    let done = unpack.stream(&mut std::io::empty(), &mut |piece| {
        let n = piece.len().min(HEAD - head.len());
        head.extend_from_slice(&piece[..n]);
        if head.len() == HEAD { Err(Error::new(Errno::ECANCELED, "enough")) } else { Ok(()) }
    });
    match done {
        Ok(output) => drop(output.success().map_err(|e| e.within(path))?),
        Err(e) if e.errno() == Errno::ECANCELED => {}
        Err(e) => return Err(e.within(path)),
    }
    let mut text = Tool::new("file").args(["-b", "-"]).run_with(&mut &head[..], None);
    text = text.and_then(Output::success);
    let text = text.map_err(|e| e.within(path))?.stdout;
    Ok(text.trim_ascii_end().to_vec())
}
