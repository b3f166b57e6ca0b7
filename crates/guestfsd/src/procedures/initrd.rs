//! Initramfs images of the guest: what is in them.
//!
//! An image is a row of cpio archives, of which those after the first compressed one are in its compressed stream:
//! what comes first and is not compressed is, as a rule, microcode.

use crate::cpio::read::{Member, Reader, Sink};
use crate::error::{Context, Error, Result};
use crate::paths::GuestPath;
use crate::session::Session;
use crate::tool::{self, Tool};
use guestfs_api::Errno;
use guestfs_api::frame::MAX_MESSAGE;
use rustix::fs::{FileType, OFlags};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;
/// Most bytes of a file, or of all names, that a reply has room for.
const MAX_REPLY: usize = MAX_MESSAGE - 4096;
/// How compressed streams begin, and what takes them apart (linux, lib/decompress.c).
const COMPRESSIONS: &[(&[u8], &str)] = &[
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    // What was LZMA alone once is known to xz as well.
    (b"\x5d\0\0", "xz"),
    (b"\x89LZO", "lzop"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
];
/// Bytes that tell them apart.
const MAGIC: usize = 6;

/// Names of what is in an image.
pub(crate) fn initrd_list(s: &mut Session, path: GuestPath<'_>) -> Result<Vec<Vec<u8>>> {
    let mut names = Names::default();
    read(s, path, &mut names)?;
    Ok(names.list)
}

/// A file of an image. Of several members of this name the last counts, as it does to the kernel.
pub(crate) fn initrd_cat(
    s: &mut Session,
    initrdpath: GuestPath<'_>,
    filename: &OsStr,
) -> Result<Vec<u8>> {
    let mut wanted = Wanted { name: filename.as_bytes(), found: Found::Nothing, taking: false };
    read(s, initrdpath, &mut wanted)?;
    let (errno, text) = match wanted.found {
        Found::Content(content) => return Ok(content),
        // Another name of the file was to have its content, and has none: it is empty.
        Found::Link(_) => return Ok(Vec::new()),
        Found::Nothing => (Errno::ENOENT, "No such file or directory"),
        Found::TooLong => (Errno::EFBIG, "is longer than a reply can be"),
        Found::Other(FileType::Directory) => (Errno::EISDIR, "is a directory"),
        Found::Other(FileType::Symlink) => (Errno::ENOENT, "is a symbolic link"),
        Found::Other(_) => (Errno::EINVAL, "is not a regular file"),
    };
    let what = [initrdpath.bytes(), b":", filename.as_bytes()].concat();
    Err(Error::new(errno, text).within(OsStr::from_bytes(&what)))
}

/// Gathers names.
#[derive(Default)]
struct Names {
    list: Vec<Vec<u8>>,
    len: usize,
}

impl Sink for Names {
    fn member(&mut self, member: Member) -> Result<()> {
        self.len += member.name.len() + 2 * size_of::<u32>();
        if self.len > MAX_REPLY {
            return Err(Error::new(Errno::EFBIG, "more names than a reply has room for"));
        }
        self.list.push(member.name);
        Ok(())
    }

    fn content(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Looks for one name.
struct Wanted<'n> {
    name: &'n [u8],
    found: Found,
    /// What comes is its content.
    taking: bool,
}

/// What the name is.
enum Found {
    Nothing,
    Content(Vec<u8>),
    /// One name of this file; the content comes with another.
    Link((u32, u32, u32)),
    TooLong,
    Other(FileType),
}

impl Sink for Wanted<'_> {
    fn member(&mut self, member: Member) -> Result<()> {
        let linked = matches!(self.found, Found::Link(file) if file == member.file);
        self.taking = false;
        if member.name != self.name && !(linked && member.size > 0) {
            return Ok(());
        }
        self.found = match FileType::from_raw_mode(member.mode) {
            FileType::RegularFile if member.size == 0 && member.links > 1 => {
                Found::Link(member.file)
            }
            FileType::RegularFile if member.size > MAX_REPLY as u64 => Found::TooLong,
            FileType::RegularFile => {
                self.taking = true;
                Found::Content(Vec::new())
            }
            other => Found::Other(other),
        };
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> Result<()> {
        if let Found::Content(content) = &mut self.found
            && self.taking
        {
            content.extend_from_slice(bytes);
        }
        Ok(())
    }
}

/// Reads an image from beginning to end.
fn read(s: &Session, path: GuestPath<'_>, sink: &mut dyn Sink) -> Result<()> {
    // Without NONBLOCK, opening a FIFO would wait for its other end.
    let mut file = s.open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let mut reader = Reader::new(sink);
    let mut buffer = vec![0; PIECE];
    let mut position = 0;
    loop {
        let n = file.read(&mut buffer).on(path)?;
        if n == 0 {
            return reader.finish().map_err(|e| e.within(path));
        }
        let taken = reader.push(&buffer[..n]).map_err(|e| e.within(path))?;
        position += taken as u64;
        if taken < n {
            file.seek(SeekFrom::Start(position)).on(path)?;
            reader.resume();
            return compressed(&mut file, reader, path);
        }
    }
}

/// Reads what is left of an image, which is compressed.
fn compressed(file: &mut File, mut reader: Reader<'_>, path: GuestPath<'_>) -> Result<()> {
    let mut magic = Vec::new();
    let begin = file.stream_position().on(path)?;
    file.by_ref().take(MAGIC as u64).read_to_end(&mut magic).on(path)?;
    file.seek(SeekFrom::Start(begin)).on(path)?;
    let Some((_, program)) = COMPRESSIONS.iter().find(|(m, _)| magic.starts_with(m)) else {
        let text = "initrd: neither a cpio archive nor compressed in a way that is known";
        return Err(Error::new(Errno::EINVAL, text).within(path));
    };
    if tool::find(program).is_none() {
        let text = format!("initrd: reading it needs the program '{program}', which is not there");
        return Err(Error::not_supported(text).within(path));
    }
    let mut foreign = false;
    let done = Tool::new(program).arg("-dc").stream(file, &mut |piece| {
        // What follows the archives within the stream counts for nothing, as it does to the kernel.
        if !foreign {
            foreign = reader.push(piece)? < piece.len();
        }
        Ok(())
    });
    let output = done.map_err(|e| e.within(path))?;
    if foreign {
        return Ok(());
    }
    reader.finish().map_err(|e| match output.success() {
        // Says more than that something is missing.
        Err(said) => said.within(path),
        Ok(_) => e.within(path),
    })
}
