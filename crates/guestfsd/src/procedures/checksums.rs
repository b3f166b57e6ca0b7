// SPDX-License-Identifier: Apache-2.0
//! Checksums of files, devices and trees.

use crate::crc::Crc;
use crate::devices::Device;
use crate::session::Session;
use crate::transfer::FileOut;
use guest_error::{Context, Error, Result, from_io};
use guest_fs::paths::GuestPath;
use guest_fs::tree::{Step, Walk};
use md5::Digest;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno as Raw;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

/// Bytes that are read at once.
const PIECE: usize = 128 << 10;
/// Bytes for which a thread of their own is worthwhile.
const LARGE: u64 = 4 << 20;

/// What a FIFO in the place of a file does not wait with.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK);

/// How a checksum is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Crc,
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// Names that clients give them.
const ALGORITHMS: [(&str, Algorithm); 7] = [
    ("crc", Algorithm::Crc),
    ("md5", Algorithm::Md5),
    ("sha1", Algorithm::Sha1),
    ("sha224", Algorithm::Sha224),
    ("sha256", Algorithm::Sha256),
    ("sha384", Algorithm::Sha384),
    ("sha512", Algorithm::Sha512),
];

/// Checksum of a file.
pub(crate) fn checksum(s: &mut Session, csumtype: &OsStr, path: GuestPath<'_>) -> Result<String> {
    let file = s.open(path, OFlags::RDONLY)?;
    Ok(sum(algorithm(csumtype)?, &file).on(path)?.0)
}

/// Checksum of all that is on a device.
pub(crate) fn checksum_device(_: &mut Session, csumtype: &OsStr, device: Device) -> Result<String> {
    let file = device.open(OFlags::RDONLY)?;
    Ok(sum(algorithm(csumtype)?, &file).on(&device)?.0)
}

/// Checksums of all regular files below a directory, as md5sum, ..., cksum write them.
pub(crate) fn checksums_out(
    s: &mut Session,
    csumtype: &OsStr,
    directory: GuestPath<'_>,
    sumsfile: &mut FileOut<'_>,
) -> Result<()> {
    let algorithm = algorithm(csumtype)?;
    let top = s.open(directory, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut walk = Walk::new(&top).on(directory)?;
    while let Some(step) = walk.step().on(directory)? {
        let entered = match (step, walk.kind()) {
            (Step::Found, FileType::Directory) => walk.enter(),
            (Step::Found, FileType::RegularFile) => match walk.open(READ | OFlags::NOFOLLOW) {
                Ok(fd) => {
                    let (sum, len) = sum(algorithm, &File::from(fd)).on(shown(&walk))?;
                    let line = line(algorithm, &sum, len, walk.path());
                    sumsfile.write_all(&line).map_err(|e| from_io(e, directory))?;
                    Ok(())
                }
                Err(e) => Err(e),
            },
            _ => Ok(()),
        };
        match entered {
            // Removed meanwhile, or replaced.
            Err(Raw::NOENT | Raw::NOTDIR | Raw::LOOP) => {}
            entered => entered.on(shown(&walk))?,
        }
    }
    Ok(())
}

fn shown(walk: &Walk) -> OsString {
    OsStr::from_bytes(walk.path()).to_owned()
}

fn algorithm(csumtype: &OsStr) -> Result<Algorithm> {
    let wanted = csumtype.as_bytes();
    let found = ALGORITHMS.iter().find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(wanted));
    found.map(|(_, algorithm)| *algorithm).ok_or_else(|| {
        let why = "unknown checksum type, expecting crc|md5|sha1|sha224|sha256|sha384|sha512";
        Error::argument("csumtype", csumtype, why)
    })
}

/// Checksum of a file, and how many bytes it has.
fn sum(algorithm: Algorithm, file: &File) -> std::io::Result<(String, u64)> {
    match algorithm {
        Algorithm::Crc => crc(file),
        Algorithm::Md5 => digest::<md5::Md5>(file),
        Algorithm::Sha1 => digest::<sha1::Sha1>(file),
        Algorithm::Sha224 => digest::<sha2::Sha224>(file),
        Algorithm::Sha256 => digest::<sha2::Sha256>(file),
        Algorithm::Sha384 => digest::<sha2::Sha384>(file),
        Algorithm::Sha512 => digest::<sha2::Sha512>(file),
    }
}

fn digest<D: Digest>(file: &File) -> std::io::Result<(String, u64)> {
    let mut digest = D::new();
    let len = pieces(file, |piece| digest.update(piece))?;
    let mut hex = String::new();
    for byte in digest.finalize().iter() {
        write!(hex, "{byte:02x}").ok(); // A String takes it.
    }
    Ok((hex, len))
}

/// Hands what there is to read to a function, piece by piece; returns how many bytes that were.
fn pieces(mut source: impl Read, mut each: impl FnMut(&[u8])) -> std::io::Result<u64> {
    let mut buffer = vec![0; PIECE];
    let mut len = 0;
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(len),
            Ok(n) => {
                each(&buffer[..n]);
                len += n as u64;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted && !guest_fs::interrupt::requested() => {}
            Err(e) => return Err(e),
        }
    }
}

/// A part of a file.
struct Part<'f> {
    file: &'f File,
    at: u64,
    end: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let len = out.len().min(left);
        let n = self.file.read_at(&mut out[..len], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// The CRC of a file. Unlike other checksums it can be made of parts: those of a large file are read at the
/// same time.
fn crc(file: &File) -> std::io::Result<(String, u64)> {
    fn of(source: impl Read) -> std::io::Result<(Crc, u64)> {
        let mut crc = Crc::default();
        let len = pieces(source, |piece| crc.update(piece))?;
        Ok((crc, len))
    }
    let half = file.metadata()?.len() / 2;
    let ((mut crc, first), (rest, second)) = std::thread::scope(|scope| {
        let last = move || of(Part { file, at: half, end: u64::MAX });
        let thread = std::thread::Builder::new();
        match (half >= LARGE).then(|| thread.spawn_scoped(scope, last)) {
            Some(Ok(thread)) => {
                let first = of(Part { file, at: 0, end: half })?;
                let rest =
                    thread.join().map_err(|_| std::io::Error::other("a thread failed"))??;
                Ok::<_, std::io::Error>((first, rest))
            }
            _ => Ok((of(file)?, Default::default())),
        }
    })?;
    crc.append(&rest);
    Ok((crc.finish().to_string(), first + second))
}

/// The line of one file. A name that would break it is escaped, as the programs do; cksum does not.
fn line(algorithm: Algorithm, sum: &str, len: u64, path: &[u8]) -> Vec<u8> {
    let mut line = Vec::new();
    if algorithm == Algorithm::Crc {
        line.extend_from_slice(format!("{sum} {len} ./").as_bytes());
        line.extend_from_slice(path);
        line.push(b'\n');
        return line;
    }
    if path.iter().any(|b| matches!(b, b'\n' | b'\r' | b'\\')) {
        line.push(b'\\');
    }
    line.extend_from_slice(format!("{sum}  ./").as_bytes());
    for &byte in path {
        match byte {
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            b'\\' => line.extend_from_slice(b"\\\\"),
            byte => line.push(byte),
        }
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standards() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        for (name, expected) in [
            ("crc", "1219131554"),
            ("md5", "900150983cd24fb0d6963f7d28e17f72"),
            ("SHA1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            ("sha224", "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"),
            ("sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ] {
            let algorithm = algorithm(OsStr::new(name)).unwrap();
            let (sum, len) = sum(algorithm, &File::open(file.path()).unwrap()).unwrap();
            assert_eq!((sum.as_str(), len), (expected, 3));
        }
        assert!(algorithm(OsStr::new("sha3")).is_err());
    }

    #[test]
    fn the_crc_of_a_large_file_is_that_of_its_halves_together() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..=250u8).cycle().take(3 * 1024 * 1024 * 3 + 7).collect();
        std::fs::write(file.path(), &content).unwrap();
        let mut whole = Crc::default();
        whole.update(&content);
        let (sum, len) = crc(&File::open(file.path()).unwrap()).unwrap();
        assert_eq!((sum, len), (whole.finish().to_string(), content.len() as u64));
    }

    #[test]
    fn a_name_that_would_break_the_line_is_escaped() {
        assert_eq!(line(Algorithm::Md5, "0", 1, b"a\nb\\"), b"\\0  ./a\\nb\\\\\n");
        assert_eq!(line(Algorithm::Md5, "0", 1, b"a b"), b"0  ./a b\n");
        assert_eq!(line(Algorithm::Crc, "0", 1, b"a\\b"), b"0 1 ./a\\b\n");
    }
}
