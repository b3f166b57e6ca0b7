// SPDX-License-Identifier: Apache-2.0
//! Printable strings in files.

use super::contents::{Lines, each_piece, too_long};
use crate::session::Session;
use guest_error::{Error, Result};
use guest_fs::paths::GuestPath;
use guestfs_api::frame::MAX_MESSAGE;
use std::ffi::OsStr;

/// Fewest characters of a string.
const SHORTEST: usize = 4;

/// Encodings: how many bytes a character has, and whether the first of them is the highest.
const ENCODINGS: [(&str, usize, bool); 6] = [
    ("s", 1, true),
    ("S", 1, true),
    ("b", 2, true),
    ("l", 2, false),
    ("B", 4, true),
    ("L", 4, false),
];

/// Strings of ASCII.
pub(crate) fn strings(s: &mut Session, path: GuestPath<'_>) -> Result<Vec<Vec<u8>>> {
    strings_e(s, OsStr::new("s"), path)
}

/// Strings in an encoding.
pub(crate) fn strings_e(
    s: &mut Session,
    encoding: &OsStr,
    path: GuestPath<'_>,
) -> Result<Vec<Vec<u8>>> {
    let found = ENCODINGS.iter().find(|(name, ..)| encoding == *name);
    let &(name, width, big) = found.ok_or_else(|| {
        Error::argument("encoding", encoding, "invalid encoding, expecting s, S, b, l, B or L")
    })?;
    let mut finder = Finder { width, big, eight_bits: name == "S", ..Finder::default() };
    each_piece(s, path, |piece| finder.push(piece, path))?;
    finder.end_string(path)?;
    Ok(finder.found.into_vec())
}

/// Looks for strings in what comes piece by piece. A character may begin at any byte: after one that is not
/// printable, the search goes on at the next byte.
#[derive(Debug, Default)]
struct Finder {
    width: usize,
    big: bool,
    eight_bits: bool,
    /// Bytes that are no whole character yet.
    rest: Vec<u8>,
    string: Vec<u8>,
    found: Lines,
}

impl Finder {
    fn push(&mut self, piece: &[u8], path: GuestPath<'_>) -> Result<()> {
        let mut data = std::mem::take(&mut self.rest);
        data.extend_from_slice(piece);
        let mut at = 0;
        while let Some(bytes) = data.get(at..at + self.width) {
            match self.printable(bytes) {
                Some(byte) => {
                    if self.string.len() == MAX_MESSAGE {
                        return Err(too_long().within(path));
                    }
                    self.string.push(byte);
                    at += self.width;
                }
                None => {
                    self.end_string(path)?;
                    at += 1;
                }
            }
        }
        data.drain(..at);
        self.rest = data;
        Ok(())
    }

    /// The character of these bytes, if it is printable.
    fn printable(&self, bytes: &[u8]) -> Option<u8> {
        let (low, high) = match (self.big, bytes) {
            (true, [high @ .., low]) | (false, [low, high @ ..]) => (*low, high),
            _ => return None,
        };
        let printable = matches!(low, b'\t' | b' '..=b'~') || (self.eight_bits && low >= 0x80);
        (printable && high.iter().all(|&b| b == 0)).then_some(low)
    }

    fn end_string(&mut self, path: GuestPath<'_>) -> Result<()> {
        if self.string.len() >= SHORTEST {
            self.found.push(&self.string, path)?;
        }
        self.string.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(encoding: &str, data: &[u8]) -> Vec<String> {
        let path = GuestPath::new("path", OsStr::new("/x")).unwrap();
        let &(name, width, big) = ENCODINGS.iter().find(|(name, ..)| *name == encoding).unwrap();
        // However it is cut into pieces.
        let by_piece = [1, 3, data.len()].map(|n| {
            let mut finder = Finder { width, big, eight_bits: name == "S", ..Finder::default() };
            data.chunks(n).for_each(|piece| finder.push(piece, path).unwrap());
            finder.end_string(path).unwrap();
            finder.found.into_vec()
        });
        assert!(by_piece[0] == by_piece[1] && by_piece[1] == by_piece[2]);
        by_piece[0].iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect()
    }

    #[test]
    fn strings_of_every_encoding_are_found() {
        assert_eq!(find("s", b"\0abc\0abcd\x0be\tfgh\xe9ijkl"), ["abcd", "e\tfgh", "ijkl"]);
        assert_eq!(find("S", b"ab\xc3\xa9\0abc\x7f"), ["ab\u{e9}"]);
        assert_eq!(find("l", b"a\0b\0c\0d\0\0x\0y\0z\0w\0\0"), ["abcd", "xyzw"]);
        assert_eq!(find("b", b"zz\0a\0b\0c\0d\x01\0"), ["abcd"]);
        assert_eq!(find("L", b"a\0\0\0b\0\0\0c\0\0\0d\0\0\0"), ["abcd"]);
        assert_eq!(find("B", b"z\0\0\0a\0\0\0b\0\0\0c\0\0\0d"), ["abcd"]);
    }
}
