// SPDX-License-Identifier: Apache-2.0
//! Reading archives piece by piece: one after the other, with zeroes in between.

use crate::cpio::{ALIGN, FIELDS, HEADER, MAGIC_CRC, MAGIC_NEWC, TRAILER};
use guest_error::{Errno, Error, Result};

/// Longest name of a member, with its NUL.
const MAX_NAME: u64 = 4096;

/// What a header says of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name without a leading `/` or `./`.
    pub name: Vec<u8>,
    /// Type and permissions.
    pub mode: u32,
    /// Bytes of its content.
    pub size: u64,
    /// What tells files apart: those of several names have one content, with the last of them.
    pub file: (u32, u32, u32),
    /// Names that it has.
    pub links: u32,
}

/// Receives what is in an archive.
pub trait Sink {
    /// A member; its content follows, if it has any.
    fn member(&mut self, member: Member) -> Result<()>;
    /// More of the last member's content.
    fn content(&mut self, bytes: &[u8]) -> Result<()>;
}

/// Reads archives.
pub struct Reader<'s> {
    sink: &'s mut dyn Sink,
    state: State,
    /// Bytes since the beginning of the archive.
    position: u64,
    /// Archives that have been read to their ends.
    archives: u64,
}

/// What comes next.
enum State {
    /// The beginning of an archive, perhaps after zeroes.
    Between,
    /// A header, of which these bytes are there.
    Header(Vec<u8>),
    /// A name, of which these bytes are there.
    Name {
        member: Member,
        len: u64,
        bytes: Vec<u8>,
    },
    Content(u64),
    /// Bytes to skip, and what comes after them.
    Padding(u64, Box<State>),
    /// Not an archive: the reader of a whole image continues here.
    Foreign,
}

impl<'s> Reader<'s> {
    /// Tells this sink what there is.
    pub fn new(sink: &'s mut dyn Sink) -> Self {
        Self { sink, state: State::Between, position: 0, archives: 0 }
    }

    /// Takes the next piece; returns how much of it belongs to archives. Less than all: what follows begins
    /// another thing, say a compressed archive.
    pub fn push(&mut self, piece: &[u8]) -> Result<usize> {
        let mut rest = piece;
        while !rest.is_empty() && !matches!(self.state, State::Foreign) {
            let state = std::mem::replace(&mut self.state, State::Foreign);
            let before = rest.len();
            let begins = matches!(state, State::Between);
            (self.state, rest) = self.step(state, rest)?;
            // Names and contents are aligned from the archive's beginning on.
            self.position = match begins {
                true => 0,
                false => self.position + (before - rest.len()) as u64,
            };
        }
        Ok(piece.len() - rest.len())
    }

    /// After what was no archive: archives go on.
    pub fn resume(&mut self) {
        self.state = State::Between;
    }

    /// There is no more.
    pub fn finish(self) -> Result<()> {
        match self.state {
            State::Between if self.archives > 0 => Ok(()),
            State::Between => Err(invalid("is empty")),
            _ => Err(invalid("ends in the middle of an archive")),
        }
    }

    fn step<'p>(&mut self, state: State, piece: &'p [u8]) -> Result<(State, &'p [u8])> {
        Ok(match state {
            State::Between => {
                let zeroes = piece.iter().take_while(|&&b| b == 0).count();
                let rest = &piece[zeroes..];
                match rest.first() {
                    None => (State::Between, rest),
                    Some(b'0') => (header_next(), rest),
                    Some(_) => (State::Foreign, rest),
                }
            }
            State::Header(mut bytes) => {
                let (head, rest) = take(piece, (HEADER - bytes.len()) as u64);
                bytes.extend_from_slice(head);
                if bytes.len() < HEADER {
                    return Ok((State::Header(bytes), rest));
                }
                let (member, len) = header(&bytes)?;
                (State::Name { member, len, bytes: Vec::new() }, rest)
            }
            State::Name { mut member, len, mut bytes } => {
                let (head, rest) = take(piece, len - bytes.len() as u64);
                bytes.extend_from_slice(head);
                if (bytes.len() as u64) < len {
                    return Ok((State::Name { member, len, bytes }, rest));
                }
                let padding = padding(HEADER as u64 + len);
                if bytes.split(|&b| b == 0).next() == Some(TRAILER) {
                    self.archives += 1;
                    return Ok((State::Between, rest));
                }
                let size = member.size;
                member.name = relative(&bytes).to_vec();
                self.sink.member(member)?;
                (pad(padding, if size == 0 { header_next() } else { State::Content(size) }), rest)
            }
            State::Content(left) => {
                let (head, rest) = take(piece, left);
                self.sink.content(head)?;
                let left = left - head.len() as u64;
                if left > 0 {
                    return Ok((State::Content(left), rest));
                }
                let end = self.position + (piece.len() - rest.len()) as u64;
                (pad(padding(end), header_next()), rest)
            }
            State::Padding(left, next) => {
                let (head, rest) = take(piece, left);
                (pad_boxed(left - head.len() as u64, next), rest)
            }
            State::Foreign => (State::Foreign, piece),
        })
    }
}

fn header_next() -> State {
    State::Header(Vec::new())
}

fn pad(n: u64, next: State) -> State {
    if n == 0 { next } else { State::Padding(n, Box::new(next)) }
}

fn pad_boxed(n: u64, next: Box<State>) -> State {
    if n == 0 { *next } else { State::Padding(n, next) }
}

fn padding(len: u64) -> u64 {
    len.next_multiple_of(ALIGN) - len
}

/// A header, and its name's length.
fn header(bytes: &[u8]) -> Result<(Member, u64)> {
    let (magic, digits) = bytes.split_at(MAGIC_NEWC.len());
    if magic != MAGIC_NEWC && magic != MAGIC_CRC {
        return Err(invalid("this is not a cpio archive of the newc format"));
    }
    let mut fields = [0; FIELDS];
    for (field, digits) in fields.iter_mut().zip(digits.chunks_exact(8)) {
        *field = std::str::from_utf8(digits)
            .ok()
            .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|d| u32::from_str_radix(d, 16).ok())
            .ok_or_else(|| invalid("a header is damaged"))?;
    }
    let [ino, mode, _uid, _gid, links, _mtime, size, major, minor, _, _, name, _check] = fields;
    let len = u64::from(name);
    if !(1..=MAX_NAME).contains(&len) {
        return Err(invalid("a member's name has an impossible length"));
    }
    let file = (major, minor, ino);
    Ok((Member { name: Vec::new(), mode, size: size.into(), file, links }, len))
}

/// A name up to its NUL, without what makes it look absolute.
fn relative(bytes: &[u8]) -> &[u8] {
    let mut name = bytes.split(|&b| b == 0).next().unwrap_or_default();
    loop {
        name = match name {
            [b'/', rest @ ..] | [b'.', b'/', rest @ ..] => rest,
            name => return name,
        };
    }
}

fn take(piece: &[u8], n: u64) -> (&[u8], &[u8]) {
    piece.split_at(usize::try_from(n).unwrap_or(usize::MAX).min(piece.len()))
}

fn invalid(what: &str) -> Error {
    Error::new(Errno::EINVAL, format!("initrd: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Found(Vec<(String, Vec<u8>)>);

    impl Sink for Found {
        fn member(&mut self, member: Member) -> Result<()> {
            self.0.push((String::from_utf8(member.name).unwrap(), Vec::new()));
            Ok(())
        }

        fn content(&mut self, bytes: &[u8]) -> Result<()> {
            self.0.last_mut().unwrap().1.extend_from_slice(bytes);
            Ok(())
        }
    }

    fn member(name: &str, content: &[u8]) -> Vec<u8> {
        crate::cpio::member(name, 0o100_644, content)
    }

    fn read(pieces: &[&[u8]]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut found = Found::default();
        let mut reader = Reader::new(&mut found);
        for piece in pieces {
            assert_eq!(reader.push(piece)?, piece.len());
        }
        reader.finish()?;
        Ok(found.0)
    }

    #[test]
    fn archives_in_a_row_are_read_in_pieces_of_any_length() {
        let first =
            [member("./a", b"one"), member("dir/b", b""), member("TRAILER!!!", b"")].concat();
        let second = [member("/c", b"12345"), member("TRAILER!!!", b"")].concat();
        let image = [&first[..], &[0; 398], &second, &[0; 512]].concat();
        let expected = [("a", &b"one"[..]), ("dir/b", b""), ("c", b"12345")];
        let expected: Vec<_> = expected.map(|(n, c)| (n.to_owned(), c.to_vec())).to_vec();
        for n in [1, 2, 3, 109, 110, 111, image.len()] {
            let pieces: Vec<&[u8]> = image.chunks(n).collect();
            assert_eq!(read(&pieces).unwrap(), expected, "{n}");
        }
    }

    #[test]
    fn what_follows_an_archive_is_left_to_others() {
        let image = [member("TRAILER!!!", b""), vec![0; 4], b"\x1f\x8b...".to_vec()].concat();
        let mut found = Found::default();
        let n = Reader::new(&mut found).push(&image).unwrap();
        assert_eq!(image[n..], b"\x1f\x8b..."[..]);
    }

    #[test]
    fn damage_is_an_error() {
        let whole = [member("a", b"content"), member("TRAILER!!!", b"")].concat();
        assert!(read(&[&whole]).is_ok());
        for n in [1, 100, 112, 120] {
            assert!(read(&[&whole[..n]]).is_err(), "{n}");
        }
        for (at, byte) in [(5, b'7'), (10, b'+'), (98, b'F'), (0, b'1')] {
            let mut damaged = whole.clone();
            damaged[at] = byte;
            let mut found = Found::default();
            let mut reader = Reader::new(&mut found);
            let read = reader.push(&damaged);
            assert!(read.is_err() || read.is_ok_and(|n| n < damaged.len()), "{at}");
        }
    }
}
