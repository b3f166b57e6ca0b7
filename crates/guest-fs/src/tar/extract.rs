// SPDX-License-Identifier: Apache-2.0
//! Unpacking archives, fed piece by piece.
//!
//! A member's path loses what leads out of the directory (a leading `/`, everything up to the last `..`) and is
//! then resolved inside the sysroot. Modes and times of directories are set last, so that what is in them can be
//! made first. Symbolic links that may lead out of the directory (absolute, or with `..`) are made last as well:
//! no member of the archive goes through them.
//!
//! A member that cannot be made, or not be given all that it is to have, does not keep others from being unpacked:
//! the error comes at the end. Owners are left out on filesystems that have none.

use crate::paths::Root;
use crate::tar::Attributes;
use crate::tar::complete::write_all;
use crate::tar::extra::{Extra, records};
use crate::tar::fault::{invalid, unsigned};
use crate::tar::header::{BLOCK, Header, LINKNAME, NAME, PREFIX, SIZE, number};
use crate::tar::member::{Common, Meta, inside};
use crate::tar::place::Placer;
use crate::tar::sparse::Sparse;
use guest_error::{Context, Result};
use std::fs::File;

/// Most bytes of a pax header or of a long name.
const MAX_META: u64 = 1 << 20;

/// How to unpack.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What beside contents is set.
    pub attributes: Attributes,
    /// Where the archive has a directory and the guest a link to one, the link stays.
    pub keep_directory_links: bool,
}

/// Unpacks an archive into a directory.
pub struct Extractor<'r> {
    placer: Placer<'r>,
    common: Common,
    state: State,
    /// What the next member's header does not say itself.
    next: Extra,
    members: u64,
}

/// What comes next.
enum State {
    /// A header, of which these bytes are there.
    Header(Vec<u8>),
    /// More of a long name or a pax header of this kind.
    Meta { kind: u8, bytes: Vec<u8>, left: u64, padding: u64 },
    /// More of the map of a sparse file.
    Map { member: Box<Sparse>, text: Vec<u8>, left: u64, padding: u64 },
    /// A continuation of the map of a sparse file of the old GNU format.
    OldMap { member: Box<Sparse>, bytes: Vec<u8>, size: u64, padding: u64 },
    /// More of a file's content.
    Content { file: File, offset: u64, left: u64, padding: u64, meta: Box<Meta> },
    /// More of a sparse file's content: what is left of its pieces, the first being written.
    Pieces { member: Box<Sparse>, left: u64, padding: u64 },
    /// What nobody wants.
    Skip(u64),
    /// Two empty blocks have been read: what follows is padding.
    End,
}

impl<'r> Extractor<'r> {
    /// Unpacks into this directory of the guest.
    pub fn new(root: &'r Root, directory: &[u8], options: Options) -> Self {
        Self {
            placer: Placer::new(root, directory, options.keep_directory_links),
            common: Common::new(options.attributes),
            state: State::Header(Vec::new()),
            next: Extra::default(),
            members: 0,
        }
    }

    /// Takes the next piece of the archive.
    pub fn push(&mut self, mut piece: &[u8]) -> Result<()> {
        while !piece.is_empty() {
            let state = std::mem::replace(&mut self.state, State::End);
            (self.state, piece) = self.step(state, piece)?;
        }
        Ok(())
    }

    /// The archive is at its end, or (after an error) nothing more is read from it.
    pub fn finish(self, read: Result<()>) -> Result<()> {
        let ended = read.and_then(|()| self.check_end());
        self.placer.finish(ended)
    }

    fn check_end(&self) -> Result<()> {
        match &self.state {
            State::Header(bytes) if bytes.is_empty() => {}
            State::End => {}
            State::Skip(0) => {}
            _ => return Err(invalid("unexpected end of the archive")),
        }
        if self.members == 0 && matches!(self.state, State::Header(_)) {
            return Err(invalid("this does not look like a tar archive: it is empty"));
        }
        Ok(())
    }

    /// One step: as much of the piece as the state takes.
    fn step<'p>(&mut self, state: State, piece: &'p [u8]) -> Result<(State, &'p [u8])> {
        Ok(match state {
            State::Header(mut bytes) => {
                let (head, rest) = piece.split_at(piece.len().min(BLOCK - bytes.len()));
                bytes.extend_from_slice(head);
                match <[u8; BLOCK]>::try_from(bytes) {
                    Ok(block) => (self.header(Header(block))?, rest),
                    Err(bytes) => (State::Header(bytes), rest),
                }
            }
            State::Meta { kind, mut bytes, left, padding } => {
                let (head, rest) = take(piece, left);
                bytes.extend_from_slice(head);
                let left = left - head.len() as u64;
                if left > 0 {
                    return Ok((State::Meta { kind, bytes, left, padding }, rest));
                }
                self.meta(kind, &bytes)?;
                (skip(padding), rest)
            }
            State::Map { mut member, mut text, left, padding } => {
                let block = (BLOCK - text.len() % BLOCK) as u64;
                let (head, rest) = take(piece, block.min(left));
                text.extend_from_slice(head);
                let left = left - head.len() as u64;
                if text.len() as u64 > MAX_META {
                    return Err(invalid("map of a sparse file is too long"));
                }
                if text.len() % BLOCK != 0 && left > 0 {
                    return Ok((State::Map { member, text, left, padding }, rest));
                }
                match member.add_map(&text, left == 0)? {
                    true => (self.begin_pieces(member, left, padding)?, rest),
                    false => (State::Map { member, text, left, padding }, rest),
                }
            }
            State::OldMap { mut member, mut bytes, size, padding } => {
                let (head, rest) = take(piece, (BLOCK - bytes.len()) as u64);
                bytes.extend_from_slice(head);
                if bytes.len() < BLOCK {
                    return Ok((State::OldMap { member, bytes, size, padding }, rest));
                }
                match member.add_old_map(&bytes, 21, 504)? {
                    true => (State::OldMap { member, bytes: Vec::new(), size, padding }, rest),
                    false => (self.begin_pieces(member, size, padding)?, rest),
                }
            }
            State::Content { file, offset, left, padding, meta } => {
                let (head, rest) = take(piece, left);
                write_all(&file, head, offset).on(&meta.shown)?;
                let (offset, left) = (offset + head.len() as u64, left - head.len() as u64);
                if left > 0 {
                    return Ok((State::Content { file, offset, left, padding, meta }, rest));
                }
                self.placer.complete(&file, &meta)?;
                (skip(padding), rest)
            }
            State::Pieces { mut member, left, padding } => {
                let Some((offset, len)) = member.pieces.pop_front() else {
                    return Err(invalid("sparse file is longer than its map"));
                };
                let (head, rest) = take(piece, len.min(left));
                write_all(&member.file, head, offset).on(&member.meta.shown)?;
                let n = head.len() as u64;
                if n < len {
                    member.pieces.push_front((offset + n, len - n));
                }
                (self.pieces(member, left - n, padding)?, rest)
            }
            State::Skip(n) => {
                let (head, rest) = take(piece, n);
                (skip(n - head.len() as u64), rest)
            }
            State::End => (State::End, &[]),
        })
    }

    /// The map of a sparse file is complete: content comes.
    fn begin_pieces(&mut self, member: Box<Sparse>, left: u64, padding: u64) -> Result<State> {
        member.check()?;
        self.pieces(member, left, padding)
    }

    /// Goes on with a sparse file's content, or completes it.
    fn pieces(&mut self, mut member: Box<Sparse>, left: u64, padding: u64) -> Result<State> {
        if member.wants_content(left)? {
            return Ok(State::Pieces { member, left, padding });
        }
        rustix::fs::ftruncate(&member.file, member.size).on(&member.meta.shown)?;
        self.placer.complete(&member.file, &member.meta)?;
        Ok(skip(left + padding))
    }

    fn header(&mut self, header: Header) -> Result<State> {
        if header.is_zero() {
            return Ok(State::End);
        }
        if !header.checks() {
            return Err(invalid(match self.members {
                0 => "this does not look like a tar archive",
                _ => "header with a wrong checksum",
            }));
        }
        self.members += 1;
        let size = match self.next.size.or(self.common.global.size) {
            Some(size) if !matches!(header.kind(), b'x' | b'g' | b'L' | b'K') => size,
            _ => unsigned(header.number(SIZE), "size")?,
        };
        let padding =
            size.checked_next_multiple_of(BLOCK as u64).ok_or_else(|| invalid("size"))? - size;
        match header.kind() {
            kind @ (b'x' | b'X' | b'g' | b'L' | b'K') => {
                if size > MAX_META {
                    return Err(invalid("header or name is too long"));
                }
                if size == 0 {
                    return Ok(State::Header(Vec::new()));
                }
                Ok(State::Meta { kind, bytes: Vec::new(), left: size, padding })
            }
            // Labels of volumes and lists of directories: nothing to make.
            b'V' | b'M' | b'N' => {
                self.next = Extra::default();
                Ok(skip(size + padding))
            }
            kind => self.member(&header, kind, size, padding),
        }
    }

    /// A long name, or a pax header.
    fn meta(&mut self, kind: u8, bytes: &[u8]) -> Result<()> {
        let text = || bytes[..bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len())].to_vec();
        match kind {
            b'L' => self.next.path = Some(text()),
            b'K' => self.next.link = Some(text()),
            b'g' => records(bytes, &mut self.common.global)?,
            _ => records(bytes, &mut self.next)?,
        }
        Ok(())
    }

    fn member(&mut self, header: &Header, kind: u8, size: u64, padding: u64) -> Result<State> {
        let extra = std::mem::take(&mut self.next);
        let name = extra.sparse_name.clone().or_else(|| extra.path.clone());
        let name =
            name.or_else(|| self.common.global.path.clone()).unwrap_or_else(|| header_name(header));
        let meta = self.common.meta(header, &extra, &name)?;
        let path = inside(&name);
        let is_directory =
            kind == b'5' || kind == b'D' || (matches!(kind, b'0' | 0) && name.ends_with(b"/"));
        if !is_directory && path.is_empty() {
            return Err(invalid("member without a name"));
        }
        let link = || extra.link.clone().unwrap_or_else(|| header.text(LINKNAME).to_vec());
        let made = match kind {
            _ if is_directory => self.placer.directory(path, &meta),
            b'1' => self.placer.hard_link(path, &link(), &meta.shown),
            b'2' => self.placer.symbolic_link(path, &link(), meta),
            b'3' | b'4' | b'6' => self.placer.node(path, kind, header, &meta),
            // Regular files of all kinds; what is unknown is to be taken for one.
            _ => match self.placer.file(path, &meta) {
                Ok(file) => {
                    return self.begin_file(header, kind, extra, file, meta, size, padding);
                }
                // What is to be skipped would have to be read as a map.
                Err(e) if kind == b'S' => return Err(e),
                Err(e) => Err(e),
            },
        };
        self.placer.failures.defer(made)?;
        Ok(skip(size + padding))
    }

    #[allow(clippy::too_many_arguments)] // All of them are of the one member.
    fn begin_file(
        &mut self,
        header: &Header,
        kind: u8,
        extra: Extra,
        file: File,
        meta: Meta,
        size: u64,
        padding: u64,
    ) -> Result<State> {
        let sparse =
            |file, meta, size| Box::new(Sparse { file, meta, size, pieces: Default::default() });
        if kind == b'S' {
            // Old GNU format: four pieces here, more in blocks that follow (tar(5), "GNU tar archives").
            let real = unsigned(number(&header.0[483..495]), "size")?;
            let mut member = sparse(file, meta, real);
            return match member.add_old_map(&header.0[386..], 4, 96)? {
                true => Ok(State::OldMap { member, bytes: Vec::new(), size, padding }),
                false => self.begin_pieces(member, size, padding),
            };
        }
        if extra.sparse_major == Some(1) {
            let real = extra.sparse_size.ok_or_else(|| invalid("sparse file without its size"))?;
            let member = sparse(file, meta, real);
            return Ok(State::Map { member, text: Vec::new(), left: size, padding });
        }
        if let Some(real) = extra.sparse_size {
            let mut member = sparse(file, meta, real);
            member.pieces.extend(extra.sparse_map);
            return self.begin_pieces(member, size, padding);
        }
        if size == 0 {
            self.placer.complete(&file, &meta)?;
            return Ok(State::Header(Vec::new()));
        }
        Ok(State::Content { file, offset: 0, left: size, padding, meta: Box::new(meta) })
    }
}

/// The name that a header itself has.
fn header_name(header: &Header) -> Vec<u8> {
    let prefix = if header.is_posix() { header.text(PREFIX) } else { b"" };
    match prefix {
        [] => header.text(NAME).to_vec(),
        prefix => [prefix, b"/", header.text(NAME)].concat(),
    }
}

/// What to skip, or the next header.
fn skip(n: u64) -> State {
    if n == 0 { State::Header(Vec::new()) } else { State::Skip(n) }
}

/// At most this many bytes of a piece.
fn take(piece: &[u8], n: u64) -> (&[u8], &[u8]) {
    piece.split_at(usize::try_from(n).unwrap_or(usize::MAX).min(piece.len()))
}
