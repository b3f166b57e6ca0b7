// SPDX-License-Identifier: Apache-2.0
//! Bytes that are read from anywhere: of a file, of which some pages are kept, or of memory.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes kept at once, and how many such pages.
const PAGE: usize = 4096;
const PAGES: usize = 1024;

/// Where bytes are.
pub trait Source {
    /// Fills the buffer from this offset on; an error if there are fewer bytes.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// How many bytes there are.
    fn len(&self) -> io::Result<u64>;
    /// Whether there are none.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

impl Source for Vec<u8> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|at| self.get(at..)?.get(..buffer.len()));
        buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(Vec::len(self) as u64)
    }
}

impl Source for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// A file, with pages that were read lately.
#[derive(Debug)]
pub struct Cached {
    file: File,
    pages: RefCell<HashMap<u64, Box<[u8]>>>,
}

impl Cached {
    /// This file, of which nothing has been read yet.
    pub fn new(file: File) -> Self {
        Self { file, pages: RefCell::default() }
    }

    /// A page; at the end of the file, what there is of it.
    fn page(&self, offset: u64) -> io::Result<Box<[u8]>> {
        let mut page = vec![0; PAGE];
        let mut have = 0;
        while have < PAGE {
            match self.file.read_at(&mut page[have..], offset + have as u64) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        page.truncate(have);
        Ok(page.into_boxed_slice())
    }
}

impl Source for Cached {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if buffer.len() > PAGE {
            return FileExt::read_exact_at(&self.file, buffer, offset);
        }
        let mut pages = self.pages.borrow_mut();
        let (mut buffer, mut offset) = (buffer, offset);
        while !buffer.is_empty() {
            let within = offset % PAGE as u64;
            let begin = offset - within;
            if pages.len() >= PAGES && !pages.contains_key(&begin) {
                pages.clear();
            }
            let page = match pages.entry(begin) {
                std::collections::hash_map::Entry::Occupied(page) => page.into_mut(),
                std::collections::hash_map::Entry::Vacant(place) => place.insert(self.page(begin)?),
            };
            let within = usize::try_from(within).unwrap_or(PAGE);
            let from = page.get(within..).filter(|rest| !rest.is_empty());
            let from = from.ok_or(io::ErrorKind::UnexpectedEof)?;
            let n = from.len().min(buffer.len());
            let (now, later) = buffer.split_at_mut(n);
            now.copy_from_slice(&from[..n]);
            buffer = later;
            offset += n as u64;
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_reads_the_same_through_its_pages() {
        let bytes: Vec<u8> = (0..=250).cycle().take(3 * PAGE + 100).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let cached = Cached::new(file);
        assert_eq!(cached.len().unwrap(), Source::len(&bytes).unwrap());
        for (offset, len) in
            [(0, 1), (PAGE - 1, 2), (10, PAGE), (5, 2 * PAGE), (3 * PAGE, 100), (3 * PAGE, 101)]
        {
            let (mut a, mut b) = (vec![0; len], vec![0; len]);
            let (x, y) = (
                cached.read_exact_at(&mut a, offset as u64),
                bytes.read_exact_at(&mut b, offset as u64),
            );
            assert_eq!(x.is_ok(), y.is_ok(), "{offset} {len}");
            if x.is_ok() {
                assert_eq!(a, b, "{offset} {len}");
            }
        }
    }
}
