// SPDX-License-Identifier: Apache-2.0
//! What is in files, as text: lines, words, strings, dumps.

use crate::session::Session;
use guest_error::{Context, Errno, Error, Result};
use guest_fs::paths::GuestPath;
use guestfs_api::frame::MAX_MESSAGE;
use rustix::fs::OFlags;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::FileExt;

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;
/// Lines that `head` and `tail` yield.
const LINES: i32 = 10;

/// Whether two files have the same content.
pub(crate) fn equal(s: &mut Session, file1: GuestPath<'_>, file2: GuestPath<'_>) -> Result<bool> {
    let (mut one, mut two) = (s.open(file1, OFlags::RDONLY)?, s.open(file2, OFlags::RDONLY)?);
    let (mut a, mut b) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let (n, m) =
            (read_full(&mut one, &mut a).on(file1)?, read_full(&mut two, &mut b).on(file2)?);
        if a[..n] != b[..m] {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file at its end.
pub(super) fn read_full(file: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut n = 0;
    while n < buffer.len() {
        match file.read(&mut buffer[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == ErrorKind::Interrupted && !guest_fs::interrupt::requested() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(n)
}

/// Number of newlines.
pub(crate) fn wc_l(s: &mut Session, path: GuestPath<'_>) -> Result<i32> {
    let mut lines = 0u64;
    each_piece(s, path, |piece| {
        // So few at once that their number is a byte: compiled to a few instructions for all of them.
        for few in piece.chunks(255) {
            lines += u64::from(few.iter().map(|&b| u8::from(b == b'\n')).sum::<u8>());
        }
        Ok(())
    })?;
    count(lines, path)
}

/// Number of words: what white space ends and something printable is in.
pub(crate) fn wc_w(s: &mut Session, path: GuestPath<'_>) -> Result<i32> {
    let (mut words, mut in_word) = (0u64, false);
    each_piece(s, path, |piece| {
        for &b in piece {
            if b.is_ascii_whitespace() || b == 0x0b {
                in_word = false;
            } else if b.is_ascii_graphic() {
                words += u64::from(!in_word);
                in_word = true;
            }
        }
        Ok(())
    })?;
    count(words, path)
}

/// Number of bytes.
pub(crate) fn wc_c(s: &mut Session, path: GuestPath<'_>) -> Result<i32> {
    let file = s.open(path, OFlags::RDONLY)?;
    let metadata = file.metadata().on(path)?;
    // Files of /proc and the like say 0.
    if metadata.is_file() && metadata.len() > 0 {
        return count(metadata.len(), path);
    }
    let mut bytes = 0u64;
    each_piece(s, path, |piece| {
        bytes += piece.len() as u64;
        Ok(())
    })?;
    count(bytes, path)
}

/// Gives a file to a function, piece by piece.
pub(super) fn each_piece(
    s: &Session,
    path: GuestPath<'_>,
    mut each: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut file = s.open(path, OFlags::RDONLY)?;
    let mut buffer = vec![0; PIECE];
    loop {
        match read_full(&mut file, &mut buffer).on(path)? {
            0 => return Ok(()),
            n => each(&buffer[..n])?,
        }
    }
}

fn count(n: u64, path: GuestPath<'_>) -> Result<i32> {
    i32::try_from(n).map_err(|_| {
        Error::new(Errno::EOVERFLOW, format!("{n} is more than this call can return")).within(path)
    })
}

/// Lines of a result, as many as fit into a reply. A line ends where it has a NUL: strings of the protocol
/// have none.
#[derive(Debug, Default)]
pub(super) struct Lines {
    lines: Vec<Vec<u8>>,
    /// Bytes that they take in the reply.
    size: usize,
}

impl Lines {
    /// Adds a line.
    pub(super) fn push(&mut self, line: &[u8], path: GuestPath<'_>) -> Result<()> {
        self.size += 4 + line.len().next_multiple_of(4);
        if self.size > MAX_MESSAGE {
            return Err(too_long().within(path));
        }
        let end = line.iter().position(|&b| b == 0).unwrap_or(line.len());
        self.lines.push(line[..end].to_vec());
        Ok(())
    }

    /// All of them.
    pub(super) fn into_vec(self) -> Vec<Vec<u8>> {
        self.lines
    }

    /// The lines of a text; a newline at its end begins no line.
    pub(super) fn of(text: &[u8], path: GuestPath<'_>) -> Result<Vec<Vec<u8>>> {
        let mut lines = Self::default();
        if !text.is_empty() {
            let text = text.strip_suffix(b"\n").unwrap_or(text);
            text.split(|&b| b == b'\n').try_for_each(|line| lines.push(line, path))?;
        }
        Ok(lines.into_vec())
    }
}

/// The limit that the protocol sets.
pub(super) fn too_long() -> Error {
    Error::new(Errno::EMSGSIZE, "result is longer than a reply can be (4 MiB)")
}

/// The first ten lines.
pub(crate) fn head(s: &mut Session, path: GuestPath<'_>) -> Result<Vec<Vec<u8>>> {
    head_n(s, LINES, path)
}

/// The first lines, so many; or with a negative number all but the last so many.
pub(crate) fn head_n(s: &mut Session, nrlines: i32, path: GuestPath<'_>) -> Result<Vec<Vec<u8>>> {
    let file = s.open(path, OFlags::RDONLY)?;
    if nrlines >= 0 {
        return take_lines(&mut BufReader::new(file), nrlines.unsigned_abs().into(), path);
    }
    let text = Text::of(file, path)?;
    let end = text.tail(nrlines.unsigned_abs().into()).on(path)?;
    Lines::of(&text.read(0, end, path)?, path)
}

fn take_lines(file: &mut impl BufRead, n: u64, path: GuestPath<'_>) -> Result<Vec<Vec<u8>>> {
    let mut lines = Lines::default();
    let mut line = Vec::new();
    for _ in 0..n {
        line.clear();
        let limit = (MAX_MESSAGE + 1) as u64;
        if file.take(limit).read_until(b'\n', &mut line).on(path)? == 0 {
            break;
        }
        lines.push(line.strip_suffix(b"\n").unwrap_or(&line), path)?;
    }
    Ok(lines.into_vec())
}

/// The last ten lines.
pub(crate) fn tail(s: &mut Session, path: GuestPath<'_>) -> Result<Vec<Vec<u8>>> {
    tail_n(s, LINES, path)
}

/// The last lines, so many; or with a negative number those from the one of that number on.
pub(crate) fn tail_n(s: &mut Session, nrlines: i32, path: GuestPath<'_>) -> Result<Vec<Vec<u8>>> {
    let file = s.open(path, OFlags::RDONLY)?;
    if nrlines >= 0 {
        let text = Text::of(file, path)?;
        let begin = text.tail(nrlines.unsigned_abs().into()).on(path)?;
        return Lines::of(&text.read(begin, text.len, path)?, path);
    }
    let mut file = BufReader::with_capacity(PIECE, file);
    for _ in 1..nrlines.unsigned_abs() {
        if file.skip_until(b'\n').on(path)? == 0 {
            break;
        }
    }
    take_lines(&mut file, u64::MAX, path)
}

/// A text that is looked at from its end.
struct Text {
    file: File,
    len: u64,
}

impl Text {
    /// The text of a file; what does not know its length (/proc) is read into memory first, as far as
    /// anybody would want it.
    fn of(mut file: File, path: GuestPath<'_>) -> Result<Self> {
        let metadata = file.metadata().on(path)?;
        if metadata.is_file() && metadata.len() > 0 {
            return Ok(Self { len: metadata.len(), file });
        }
        const MOST: u64 = 8 << 20;
        let name = c"guestfsd-text";
        let copy = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).on(path)?;
        let mut copy = File::from(copy);
        let len = std::io::copy(&mut (&mut file).take(MOST + 1), &mut copy).on(path)?;
        if len > MOST {
            let why = "says that it is empty, and has more content than can be read at once";
            return Err(Error::new(Errno::EFBIG, why).within(path));
        }
        Ok(Self { file: copy, len })
    }

    /// Where the last `n` lines begin.
    fn tail(&self, n: u64) -> std::io::Result<u64> {
        if n == 0 {
            return Ok(self.len);
        }
        let mut buffer = vec![0; PIECE];
        let (mut end, mut newlines) = (self.len, 0);
        while end > 0 {
            let begin = end.saturating_sub(PIECE as u64);
            let piece = &mut buffer[..usize::try_from(end - begin).unwrap_or(PIECE)];
            self.file.read_exact_at(piece, begin)?;
            for (i, _) in piece.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
                let after = begin + i as u64 + 1;
                // That at the end ends the last line.
                if after == self.len {
                    continue;
                }
                newlines += 1;
                if newlines == n {
                    return Ok(after);
                }
            }
            end = begin;
        }
        Ok(0)
    }

    fn read(&self, begin: u64, end: u64, path: GuestPath<'_>) -> Result<Vec<u8>> {
        let len = usize::try_from(end - begin).ok().filter(|n| *n <= MAX_MESSAGE);
        let mut text = vec![0; len.ok_or_else(|| too_long().within(path))?];
        self.file.read_exact_at(&mut text, begin).on(path)?;
        Ok(text)
    }
}

/// A dump in hexadecimal numbers and characters, as `hexdump -C` makes it: 16 bytes a line, lines that repeat
/// the one before as one `*`.
pub(crate) fn hexdump(s: &mut Session, path: GuestPath<'_>) -> Result<String> {
    let mut file = BufReader::with_capacity(PIECE, s.open(path, OFlags::RDONLY)?);
    let (mut row, mut before, mut repeats) = ([0; ROW], None, false);
    let (mut dump, mut offset) = (String::new(), 0u64);
    loop {
        let n = read_full(&mut file, &mut row).on(path)?;
        if n == 0 {
            break;
        }
        if n == ROW && before == Some(row) {
            if !repeats {
                dump.push_str("*\n");
            }
            repeats = true;
        } else {
            dump_row(&mut dump, offset, &row[..n]);
            (before, repeats) = (Some(row), false);
        }
        offset += n as u64;
        if dump.len() > MAX_MESSAGE {
            return Err(too_long().within(path));
        }
    }
    if offset > 0 {
        writeln!(dump, "{offset:08x}").ok(); // A String takes it.
    }
    Ok(dump)
}

/// Bytes of a dump's line.
const ROW: usize = 16;

fn dump_row(dump: &mut String, offset: u64, row: &[u8]) {
    write!(dump, "{offset:08x} ").ok(); // A String takes it.
    for i in 0..ROW {
        if i % 8 == 0 {
            dump.push(' ');
        }
        match row.get(i) {
            Some(byte) => write!(dump, "{byte:02x} ").unwrap_or_default(),
            None => dump.push_str("   "),
        }
    }
    dump.push_str(" |");
    let shown = |b: &u8| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '.' };
    dump.extend(row.iter().map(shown));
    dump.push_str("|\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn text(content: &str) -> Text {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        Text { len: content.len() as u64, file }
    }

    #[test]
    fn the_last_lines_are_found_from_the_end() {
        for (content, n, begin) in [
            ("a\nb\nc\n", 1, 4),
            ("a\nb\nc\n", 3, 0),
            ("a\nb\nc\n", 9, 0),
            ("a\nb\nc", 1, 4),
            ("\n\n\n", 2, 1),
            ("", 1, 0),
            ("a\n", 0, 2),
        ] {
            assert_eq!(text(content).tail(n).unwrap(), begin, "{content:?} {n}");
        }
        let long = "0123456789abcde\n".repeat(10_000);
        assert_eq!(text(&long).tail(9_000).unwrap(), 16_000);
    }

    #[test]
    fn lines_end_at_newlines_and_nuls_and_are_not_more_than_fit() {
        let path = GuestPath::new("path", std::ffi::OsStr::new("/x")).unwrap();
        assert!(Lines::of(b"", path).unwrap().is_empty());
        assert_eq!(Lines::of(b"a\n\nb\0c", path).unwrap(), [&b"a"[..], b"", b"b"]);
        assert_eq!(Lines::of(b"\n", path).unwrap(), [b""]);
        let e = Lines::of(&vec![b'\n'; MAX_MESSAGE / 2], path).unwrap_err();
        assert_eq!(e.errno(), Errno::EMSGSIZE);
        let endless = std::io::repeat(b'x');
        assert!(take_lines(&mut BufReader::new(endless), 1, path).is_err());
    }

    #[test]
    fn a_dumps_row_has_two_columns() {
        let mut dump = String::new();
        dump_row(&mut dump, 16, b"abcdefgh\x00");
        let expected = "00000010  61 62 63 64 65 66 67 68  00                       |abcdefgh.|\n";
        assert_eq!(dump, expected);
    }
}
