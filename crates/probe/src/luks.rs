// SPDX-License-Identifier: Apache-2.0
//! Whose header a LUKS device has, of which all is checked that can be without a key. Of version 1 the "LUKS On-Disk
//! Format Specification", of version 2 the "LUKS2 On-Disk Format Specification", both of the cryptsetup project.

use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const MAGIC: &[u8] = b"LUKS\xba\xbe";
/// What the second header of version 2 begins with, and where it may be.
const SECOND: &[u8] = b"SKUL\xba\xbe";
const SECOND_AT: [u64; 9] =
    [0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000];
/// Bytes of the binary header of version 2; that of version 1 is shorter.
const HEADER: usize = 4096;
/// Where the UUID is, and the checksum of version 2.
const UUID: std::ops::Range<usize> = 168..208;
const CHECKSUM: std::ops::Range<usize> = 448..512;
/// Hashes of version 1 that every cryptsetup has.
const HASHES: [&str; 5] = ["sha1", "sha256", "sha512", "ripemd160", "whirlpool"];
/// Key slots of version 1: where they begin, how many, bytes of each, and the values of their first word.
const SLOTS: (usize, usize, usize) = (208, 8, 48);
const SLOT_STATES: [u32; 2] = [0x00ac_71f3, 0x0000_dead];

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A sound header of this UUID.
    Uuid(String),
    /// None, nor a second one.
    Nothing,
    /// One that is damaged, or not known well enough: cryptsetup knows what to do about it.
    Unsure,
}

/// Looks at a device that is open.
pub fn read(file: &File) -> io::Result<Found> {
    find(&|at, bytes| read_whole(file, at, bytes))
}

/// Looks at what may be any bytes; `read` fills a piece from an offset and says whether that much is there.
fn find(read: &dyn Fn(u64, &mut [u8]) -> io::Result<bool>) -> io::Result<Found> {
    let mut header = [0; HEADER];
    let there = read(0, &mut header)?;
    if !there || !header.starts_with(MAGIC) {
        for at in SECOND_AT {
            let mut magic = [0; 6];
            if read(at, &mut magic)? && magic == SECOND {
                return Ok(Found::Unsure);
            }
        }
        return Ok(Found::Nothing);
    }
    let sound = match be(&header[6..8]) {
        1 => is_sound_1(&header),
        2 => is_sound_2(&header, read)?,
        _ => false,
    };
    let uuid = text(&header[UUID]).filter(|text| uuid::Uuid::try_parse(text).is_ok());
    Ok(uuid.filter(|_| sound).map_or(Found::Unsure, |uuid| Found::Uuid(uuid.to_owned())))
}

fn is_sound_1(header: &[u8]) -> bool {
    let (begin, number, bytes) = SLOTS;
    let mut slots = header[begin..begin + number * bytes].chunks(bytes);
    text(&header[72..104]).is_some_and(|hash| HASHES.contains(&hash))
        && text(&header[8..40]).is_some_and(|cipher| !cipher.is_empty())
        && slots.all(|slot| SLOT_STATES.iter().any(|state| u64::from(*state) == be(&slot[..4])))
}

/// The checksum is that of the header and the JSON that follows it, with zeroes in its own place.
fn is_sound_2(
    header: &[u8; HEADER],
    read: &dyn Fn(u64, &mut [u8]) -> io::Result<bool>,
) -> io::Result<bool> {
    let (size, offset) = (be(&header[8..16]), be(&header[256..264]));
    // The second one follows at once, so the sizes are its places.
    if !SECOND_AT.contains(&size) || offset != 0 || text(&header[72..104]) != Some("sha256") {
        return Ok(false);
    }
    let size = usize::try_from(size).unwrap_or(0);
    let mut all = vec![0; size];
    if !read(0, &mut all)? {
        return Ok(false);
    }
    all[CHECKSUM].fill(0);
    let sum = Sha256::digest(&all);
    Ok(header[CHECKSUM].starts_with(&sum))
}

/// A text that ends with a zero or its field.
fn text(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    std::str::from_utf8(&field[..end]).ok()
}

fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// Whether so many bytes are there.
fn read_whole(file: &File, at: u64, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact_at(bytes, at) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    const OWN: &str = "01234567-89ab-cdef-0123-456789abcdef";

    fn of(image: &[u8]) -> Found {
        let read = |at: u64, bytes: &mut [u8]| {
            let at = usize::try_from(at).unwrap();
            let there = image.get(at..at + bytes.len());
            Ok(there.map(|found| bytes.copy_from_slice(found)).is_some())
        };
        find(&read).unwrap()
    }

    /// What cryptsetup makes.
    fn formatted(version: &str) -> Vec<u8> {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(20 << 20).unwrap();
        let pbkdf = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
        let mut cryptsetup = Command::new("/usr/sbin/cryptsetup");
        cryptsetup.args(["-q", "luksFormat", "--type", version, "--uuid", OWN]).args(pbkdf);
        cryptsetup.args(["--key-file", "/etc/hostname"]).arg(image.path());
        let output = cryptsetup.output().expect("cryptsetup is needed (Debian: cryptsetup-bin)");
        assert!(output.status.success(), "{output:?}");
        std::fs::read(image.path()).unwrap()
    }

    #[test]
    fn headers_of_both_versions_have_their_uuid() {
        for version in ["luks1", "luks2"] {
            let mut image = formatted(version);
            assert_eq!(of(&image), Found::Uuid(OWN.to_owned()), "{version}");
            image.truncate(HEADER - 1);
            assert_eq!(of(&image), Found::Nothing, "{version}");
        }
    }

    #[test]
    fn a_damaged_header_is_left_to_cryptsetup() {
        for (version, at) in
            [("luks1", 208), ("luks1", 72), ("luks1", 168), ("luks2", 170), ("luks2", 5000)]
        {
            let mut image = formatted(version);
            image[at] ^= 0x21;
            assert_eq!(of(&image), Found::Unsure, "{version} {at}");
        }
        // The first header is gone, the second one is there.
        let mut image = formatted("luks2");
        image[..HEADER].fill(0);
        assert_eq!(of(&image), Found::Unsure);
        image[0x4000..0x4000 + HEADER].fill(0);
        assert_eq!(of(&image), Found::Nothing);
    }

    #[test]
    fn another_version_is_left_to_cryptsetup() {
        let mut image = formatted("luks1");
        image[7] = 3;
        assert_eq!(of(&image), Found::Unsure);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            version in 0u8..4,
            mut bytes in proptest::collection::vec(any::<u8>(), HEADER..HEADER + 8192),
        ) {
            prop_assert_eq!(of(&bytes), Found::Nothing);
            bytes[..6].copy_from_slice(MAGIC);
            bytes[6..8].copy_from_slice(&[0, version]);
            prop_assert_eq!(of(&bytes), Found::Unsure);
        }
    }
}
