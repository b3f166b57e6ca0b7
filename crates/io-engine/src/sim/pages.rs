// SPDX-License-Identifier: Apache-2.0
//! The bytes of a file, sparse, in pages that copies share until one of them is written.
#![allow(clippy::cast_possible_truncation, reason = "offsets inside of a page, and its size")]

use std::collections::BTreeMap;
use std::rc::Rc;

/// Bytes of a page, as those of the kernel's page cache.
pub(crate) const PAGE: u64 = 4096;
/// Pages of a chunk: a copy of the whole costs one reference for each chunk.
const CHUNK: u64 = 64;

type Page = Rc<[u8; PAGE as usize]>;

#[derive(Clone)]
struct Chunk([Option<Page>; CHUNK as usize]);

/// See the module's text. What has no page reads as zeroes.
#[derive(Clone, Default)]
pub(crate) struct Pages {
    chunks: BTreeMap<u64, Rc<Chunk>>,
    count: u64,
}

/// Whether both are the same, which shared ones are.
fn same<T: ?Sized>(one: &Rc<T>, other: &Rc<T>, equal: impl Fn(&T, &T) -> bool) -> bool {
    Rc::ptr_eq(one, other) || equal(one, other)
}

impl PartialEq for Pages {
    fn eq(&self, other: &Self) -> bool {
        let pages = |one: &Option<Page>, other: &Option<Page>| match (one, other) {
            (Some(one), Some(other)) => same(one, other, |one, other| one == other),
            (None, None) => true,
            _ => false,
        };
        let chunks = |one: &Chunk, other: &Chunk| {
            one.0.iter().zip(&other.0).all(|(one, other)| pages(one, other))
        };
        self.count == other.count
            && self.chunks.len() == other.chunks.len()
            && self
                .chunks
                .iter()
                .zip(&other.chunks)
                .all(|((at, one), (other_at, other))| at == other_at && same(one, other, chunks))
    }
}

fn index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// The pieces of `start..end` that lie in one page each: page, and where in it.
fn pieces(start: u64, end: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut at = start;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let (page, from) = (at / PAGE, at % PAGE);
        let to = (end - page * PAGE).min(PAGE);
        at = page * PAGE + to;
        Some((page, index(from), index(to)))
    })
}

impl Pages {
    /// How many bytes the pages take.
    pub(crate) fn bytes(&self) -> u64 {
        self.count * PAGE
    }

    fn page(&self, page: u64) -> Option<&Page> {
        self.chunks.get(&(page / CHUNK))?.0[index(page % CHUNK)].as_ref()
    }

    pub(crate) fn has_page(&self, page: u64) -> bool {
        self.page(page).is_some()
    }

    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) {
        let mut rest = bytes;
        for (page, from, to) in pieces(offset, offset + rest.len() as u64) {
            let (piece, others) = rest.split_at_mut(to - from);
            match self.page(page) {
                Some(page) => piece.copy_from_slice(&page[from..to]),
                None => piece.fill(0),
            }
            rest = others;
        }
    }

    /// Brings `bytes`, which are those of `old`, to what is here.
    pub(crate) fn copy_changes(&self, old: &Pages, bytes: &mut [u8]) {
        let none = Rc::new(Chunk([const { None }; CHUNK as usize]));
        let mut numbers: Vec<u64> = self.chunks.keys().chain(old.chunks.keys()).copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers {
            let new = self.chunks.get(&number).unwrap_or(&none);
            let old = old.chunks.get(&number).unwrap_or(&none);
            if Rc::ptr_eq(new, old) {
                continue;
            }
            for (page, (new, old)) in (number * CHUNK..).zip(new.0.iter().zip(&old.0)) {
                let at = index(page * PAGE).min(bytes.len());
                let end = (at + index(PAGE)).min(bytes.len());
                match (new, old) {
                    (Some(new), Some(old)) if Rc::ptr_eq(new, old) => {}
                    (Some(new), _) => bytes[at..end].copy_from_slice(&new[..end - at]),
                    (None, Some(_)) => bytes[at..end].fill(0),
                    (None, None) => {}
                }
            }
        }
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut rest = bytes;
        for (page, from, to) in pieces(offset, offset + bytes.len() as u64) {
            let (piece, others) = rest.split_at(to - from);
            let chunk = self.chunks.entry(page / CHUNK);
            let chunk = chunk.or_insert_with(|| Rc::new(Chunk([const { None }; CHUNK as usize])));
            let slot = &mut Rc::make_mut(chunk).0[index(page % CHUNK)];
            if slot.is_none() {
                self.count += 1;
            }
            let page = slot.get_or_insert_with(|| Rc::new([0; PAGE as usize]));
            Rc::make_mut(page)[from..to].copy_from_slice(piece);
            rest = others;
        }
    }

    /// The pages that exist in `start..end` (in pages).
    fn existing(&self, start: u64, end: u64) -> Vec<u64> {
        let mut found = Vec::new();
        for (&number, chunk) in self.chunks.range(start / CHUNK..=end / CHUNK) {
            for (page, slot) in (number * CHUNK..).zip(&chunk.0) {
                if slot.is_some() && (start..end).contains(&page) {
                    found.push(page);
                }
            }
        }
        found
    }

    /// Makes a range zeroes; whole pages are given up.
    pub(crate) fn zero(&mut self, start: u64, end: u64) {
        for page in self.existing(start / PAGE, end.div_ceil(PAGE)) {
            let from = index(start.saturating_sub(page * PAGE));
            let to = index((end - page * PAGE).min(PAGE));
            let Some(chunk) = self.chunks.get_mut(&(page / CHUNK)) else { continue };
            let slot = &mut Rc::make_mut(chunk).0[index(page % CHUNK)];
            if to - from == index(PAGE) {
                *slot = None;
                self.count -= 1;
            } else if let Some(page) = slot {
                Rc::make_mut(page)[from..to].fill(0);
            }
        }
    }

    /// Calls `f` with the parts of `start..end` in which pages exist, a page at a time.
    pub(crate) fn parts(&self, start: u64, end: u64, mut f: impl FnMut(u64, u64)) {
        for page in self.existing(start / PAGE, end.div_ceil(PAGE)) {
            f(start.max(page * PAGE), end.min((page + 1) * PAGE));
        }
    }

    /// The first run of pages at or after `offset`, in bytes.
    pub(crate) fn run(&self, offset: u64) -> Option<(u64, u64)> {
        let mut first = None;
        for (&number, chunk) in self.chunks.range(offset / PAGE / CHUNK..) {
            for (page, slot) in (number * CHUNK..).zip(&chunk.0) {
                match (slot, first) {
                    (Some(_), None) if page >= offset / PAGE => first = Some((page, page + 1)),
                    (Some(_), Some((begin, end))) if end == page => {
                        first = Some((begin, page + 1));
                    }
                    (_, Some((begin, end))) if page >= end => {
                        return Some((offset.max(begin * PAGE), end * PAGE));
                    }
                    _ => {}
                }
            }
        }
        first.map(|(begin, end)| (offset.max(begin * PAGE), end * PAGE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_what_it_was_and_holes_are_found() {
        let mut pages = Pages::default();
        pages.write(PAGE - 1, &[1, 2, 3]);
        pages.write(100 * PAGE, &[9; 10]);
        let copy = pages.clone();
        pages.write(PAGE, &[7]);
        pages.zero(PAGE * 50, PAGE * 200);
        let mut read = [0; 4];
        copy.read(PAGE - 2, &mut read);
        assert_eq!(read, [0, 1, 2, 3]);
        pages.read(PAGE - 2, &mut read);
        assert_eq!(read, [0, 1, 7, 3]);
        assert_eq!((copy.bytes(), pages.bytes()), (3 * PAGE, 2 * PAGE));
        assert!(copy != pages && copy == copy.clone());
        let mut again = copy.clone();
        again.write(5, &[6]);
        assert!(again != copy);
        again.write(5, &[0]);
        assert!(again == copy);
        let mut bytes = vec![0; 101 * 4096];
        for (new, old) in [(&pages, &Pages::default()), (&copy, &pages), (&pages, &copy)] {
            new.copy_changes(old, &mut bytes);
            let mut wanted = vec![1; bytes.len()];
            new.read(0, &mut wanted);
            assert!(bytes == wanted);
        }
        assert_eq!(copy.run(5), Some((5, 2 * PAGE)));
        assert_eq!(copy.run(2 * PAGE), Some((100 * PAGE, 101 * PAGE)));
        assert_eq!(copy.run(101 * PAGE), None);
    }
}
