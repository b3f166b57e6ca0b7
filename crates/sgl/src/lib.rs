// SPDX-License-Identifier: Apache-2.0
//! This crate uses `unsafe` to view memory that the kernel shares with us.
//!
//! A scatter-gather list is the memory of one command's data: a view of the kernel's shared data
//! area, or of a buffer of our own, handed from the ring (`tcmu`) through the logical unit (`lun`)
//! to the backstore and on to system calls. Nothing is copied on that way.
//!
//! The bytes of a list behave like `[Cell<u8>]`: any number of views of them may exist, and
//! reads and writes go through raw pointers, never through references to the bytes. A view can
//! therefore be sliced and written through `&self`; it is neither `Send` nor `Sync`.
//!
//! A list borrows its memory, or shares an owner of it, which keeps the memory as long as any view
//! of it exists ([`Sgl::share`]). Only the second may be given to the kernel for longer than a
//! system call: a borrow ends when a future is leaked, the kernel's access does not.
#![allow(unsafe_code)]

use std::any::Any;
use std::io::IoSliceMut;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use smallvec::SmallVec;

/// One contiguous piece of memory, laid out as `struct iovec`.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Segment(libc::iovec);

impl Segment {
    fn base(&self) -> *mut u8 {
        self.0.iov_base.cast()
    }

    fn len(&self) -> usize {
        self.0.iov_len
    }

    /// The part that begins at `start`, which is at most `self.len()`, and has at most `len` bytes.
    fn part(&self, start: usize, len: usize) -> Self {
        debug_assert!(start <= self.len());
        Segment(libc::iovec {
            iov_base: self.base().wrapping_add(start).cast(),
            iov_len: len.min(self.len() - start),
        })
    }

    /// Whether all of it is zero. Others may write to it at the same time, so that its bytes are
    /// read one word after the other and never referred to.
    fn is_zero(&self) -> bool {
        /// Words that are read between two looks at what they were.
        const WORDS: usize = 8;
        const WORD: usize = size_of::<u64>();
        let (mut at, mut left) = (self.base().cast_const(), self.len());
        let bytes = |at: *const u8, count: usize| {
            // SAFETY: the callers stay inside the segment, which is mapped and readable.
            (0..count).all(|i| unsafe { at.add(i).read_volatile() } == 0)
        };
        let head = at.align_offset(WORD).min(left);
        if !bytes(at, head) {
            return false;
        }
        at = at.wrapping_add(head);
        left -= head;
        while left >= WORDS * WORD {
            let words = at.cast::<u64>();
            // SAFETY: so many bytes are left of the segment, and `at` is aligned.
            let any = (0..WORDS).fold(0, |any, i| any | unsafe { words.add(i).read_volatile() });
            if any != 0 {
                return false;
            }
            at = at.wrapping_add(WORDS * WORD);
            left -= WORDS * WORD;
        }
        bytes(at, left)
    }
}

/// A view of the memory of one command's data, in zero or more pieces; its length is in bytes.
pub struct Sgl<'a> {
    segments: SmallVec<[Segment; 4]>,
    len: usize,
    /// Keeps the memory, where it is not borrowed.
    owner: Option<Rc<dyn Any>>,
    memory: PhantomData<&'a [std::cell::Cell<u8>]>,
}

/// Memory that was allocated for a list.
struct Allocation {
    base: NonNull<u8>,
    len: usize,
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: this is the boxed slice that `zeroed` took apart, and no view of it is left.
        drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(self.base.as_ptr(), self.len)) });
    }
}

impl Sgl<'static> {
    /// Zeroed memory of the list's own.
    pub fn zeroed(len: usize) -> Self {
        let base = NonNull::from(Box::leak(vec![0u8; len].into_boxed_slice())).cast();
        let mut list = Sgl::empty();
        list.push(base.as_ptr(), len);
        list.owner = Some(Rc::new(Allocation { base, len }));
        list
    }
}

impl<'a> Sgl<'a> {
    /// A list of no bytes.
    pub fn empty() -> Self {
        Sgl { segments: SmallVec::new(), len: 0, owner: None, memory: PhantomData }
    }

    /// A view of one buffer.
    pub fn from_slice(buf: &'a mut [u8]) -> Self {
        Self::from_slices([buf])
    }

    /// A view of several buffers, one after the other.
    pub fn from_slices(bufs: impl IntoIterator<Item = &'a mut [u8]>) -> Self {
        let mut list = Sgl::empty();
        for buf in bufs {
            list.push(buf.as_mut_ptr(), buf.len());
        }
        list
    }

    /// A view of raw memory: (base, length in bytes) of each piece.
    ///
    /// # Safety
    /// Each piece is mapped, readable and writable for `'a` and as long as `owner`, where there is
    /// one, exists. No reference to its bytes is used while this view or one made from it exists.
    pub unsafe fn from_raw(
        pieces: impl IntoIterator<Item = (NonNull<u8>, usize)>,
        owner: Option<Rc<dyn Any>>,
    ) -> Self {
        let mut list = Sgl::empty();
        list.owner = owner;
        for (base, len) in pieces {
            list.push(base.as_ptr(), len);
        }
        list
    }

    fn push(&mut self, base: *mut u8, len: usize) {
        if len > 0 {
            self.segments.push(Segment(libc::iovec { iov_base: base.cast(), iov_len: len }));
            self.len += len;
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The same memory for as long as the result exists, if the list does not merely borrow it.
    pub fn share(&self) -> Option<Sgl<'static>> {
        let owner = self.owner.clone()?;
        let segments = self.segments.clone();
        Some(Sgl { segments, len: self.len, owner: Some(owner), memory: PhantomData })
    }

    /// A view of `range`, in bytes; what of it lies past the end is left out.
    pub fn slice(&self, range: Range<usize>) -> Sgl<'a> {
        let mut out = Sgl::empty();
        out.owner.clone_from(&self.owner);
        self.each(range, |segment| {
            out.push(segment.base(), segment.len());
            true
        });
        out
    }

    /// Copies `bytes` into the list at `offset`; returns how many there was room for.
    pub fn write_at(&self, offset: usize, bytes: &[u8]) -> usize {
        let mut done = 0;
        self.each(offset..offset.saturating_add(bytes.len()), |segment| {
            // SAFETY: `each` yields at most `bytes.len()` bytes in all, inside mapped memory.
            unsafe {
                ptr::copy(bytes.as_ptr().add(done), segment.base(), segment.len());
            }
            done += segment.len();
            true
        });
        done
    }

    /// Copies from `offset` of the list into `bytes`; returns how many bytes there were.
    pub fn read_at(&self, offset: usize, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        self.each(offset..offset.saturating_add(bytes.len()), |segment| {
            // SAFETY: `each` yields at most `bytes.len()` bytes in all, inside mapped memory.
            unsafe {
                ptr::copy(segment.base(), bytes.as_mut_ptr().add(done), segment.len());
            }
            done += segment.len();
            true
        });
        done
    }

    /// Copies the bytes to the start of another list, as far as it has room.
    pub fn copy_to(&self, other: &Sgl<'_>) {
        let mut done = 0;
        self.each(0..other.len, |from| {
            let mut within = 0;
            other.each(done..done + from.len(), |to| {
                // SAFETY: `each` yields at most `from.len()` bytes in all, inside mapped memory.
                unsafe { ptr::copy(from.base().add(within), to.base(), to.len()) };
                within += to.len();
                true
            });
            done += from.len();
            true
        });
    }

    /// Sets the bytes of `range` to `byte`; what of it lies past the end is left out.
    pub fn fill(&self, range: Range<usize>, byte: u8) {
        self.each(range, |segment| {
            // SAFETY: the segment is mapped and writable.
            unsafe { ptr::write_bytes(segment.base(), byte, segment.len()) };
            true
        });
    }

    /// The offset of the first byte that differs from `other`, or, where one is a prefix of the
    /// other, the length of the shorter; `None` when they are equal.
    pub fn first_difference(&self, other: &Sgl<'_>) -> Option<usize> {
        let (mut here, mut there) = ([0; 4096], [0; 4096]);
        let mut offset = 0;
        loop {
            let n = self.read_at(offset, &mut here);
            let m = other.read_at(offset, &mut there);
            if let Some(at) = here.iter().zip(&there).take(n.min(m)).position(|(a, b)| a != b) {
                return Some(offset + at);
            }
            offset += n.min(m);
            if n != m {
                return Some(offset);
            }
            if n == 0 {
                return None;
            }
        }
    }

    /// Whether every byte is zero.
    pub fn is_zero(&self) -> bool {
        let mut zero = true;
        self.each(0..self.len, |segment| {
            zero = segment.is_zero();
            zero
        });
        zero
    }

    /// The pieces as the kernel's system calls take them.
    pub fn iovecs(&self) -> &[libc::iovec] {
        // SAFETY: `Segment` is a transparent wrapper of `iovec`.
        unsafe { std::slice::from_raw_parts(self.segments.as_ptr().cast(), self.segments.len()) }
    }

    /// The pieces for a library that writes to slices.
    ///
    /// # Safety
    /// Nobody else reads or writes the bytes while the slices are used.
    pub unsafe fn io_slices_mut(&self) -> impl Iterator<Item = IoSliceMut<'_>> {
        self.segments.iter().map(|s| {
            // SAFETY: the segment is mapped; the caller keeps others away.
            IoSliceMut::new(unsafe { std::slice::from_raw_parts_mut(s.base(), s.len()) })
        })
    }

    /// Calls `f` with the segments of `range` in order until it returns false.
    fn each(&self, range: Range<usize>, mut f: impl FnMut(Segment) -> bool) {
        let mut skip = range.start;
        let mut left = range.end.saturating_sub(range.start);
        for segment in &self.segments {
            if left == 0 {
                return;
            }
            if skip >= segment.len() {
                skip -= segment.len();
                continue;
            }
            let part = segment.part(skip, left);
            skip = 0;
            left -= part.len();
            if !f(part) {
                return;
            }
        }
    }
}

impl std::fmt::Debug for Sgl<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sgl({} bytes in {} pieces)", self.len, self.segments.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three<'a>(a: &'a mut [u8], b: &'a mut [u8], c: &'a mut [u8]) -> Sgl<'a> {
        Sgl::from_slices([a, b, c])
    }

    #[test]
    fn bytes_written_across_pieces_read_back() {
        let (mut a, mut b, mut c) = ([0; 3], [0; 1], [0; 4]);
        let list = three(&mut a, &mut b, &mut c);
        assert_eq!(list.write_at(1, &[1, 2, 3, 4]), 4);
        let mut back = [9; 8];
        assert_eq!(list.read_at(0, &mut back), 8);
        assert_eq!(back, [0, 1, 2, 3, 4, 0, 0, 0]);
    }

    #[test]
    fn copies_stop_at_the_end_of_the_list() {
        let mut a = [0; 4];
        let list = Sgl::from_slice(&mut a);
        assert_eq!(list.write_at(3, &[7, 7, 7]), 1);
        assert_eq!(list.write_at(4, &[7]), 0);
        assert_eq!(list.write_at(usize::MAX, &[7]), 0);
        assert_eq!(list.read_at(2, &mut [0; 9]), 2);
    }

    #[test]
    fn a_slice_shares_the_memory_of_its_list() {
        let (mut a, mut b, mut c) = ([0; 2], [0; 2], [0; 2]);
        let list = three(&mut a, &mut b, &mut c);
        let middle = list.slice(1..5);
        assert_eq!((middle.len(), middle.iovecs().len()), (4, 3));
        middle.fill(0..4, 5);
        let mut back = [0; 6];
        list.read_at(0, &mut back);
        assert_eq!(back, [0, 5, 5, 5, 5, 0]);
        assert_eq!(list.slice(4..99).len(), 2);
        assert!(list.slice(6..7).is_empty());
    }

    #[test]
    fn the_first_difference_is_found_in_any_piece() {
        let (mut a, mut b) = ([1; 5000], [1; 5000]);
        let mut c = [1; 10000];
        c[7777] = 2;
        let one = Sgl::from_slices([&mut a[..], &mut b[..]]);
        assert_eq!(one.first_difference(&Sgl::from_slice(&mut c)), Some(7777));
        let mut d = [1; 10000];
        assert_eq!(one.first_difference(&Sgl::from_slice(&mut d)), None);
        assert_eq!(one.first_difference(&Sgl::from_slice(&mut d[..6000])), Some(6000));
    }

    #[test]
    fn zero_is_told_from_nearly_zero() {
        let (mut a, mut b) = ([0; 512], [0; 512]);
        b[511] = 1;
        assert!(Sgl::from_slice(&mut a).is_zero());
        assert!(!Sgl::from_slices([&mut a[..], &mut b[..]]).is_zero());
        assert!(Sgl::empty().is_zero());
        // One byte at every place of a piece that begins and ends anywhere.
        for (start, end) in [(0, 200), (1, 199), (7, 72), (9, 17), (3, 5)] {
            for at in 0..200 {
                let mut bytes = [0; 200];
                bytes[at] = 0x80;
                let zero = !(start..end).contains(&at);
                assert_eq!(Sgl::from_slice(&mut bytes[start..end]).is_zero(), zero, "{at}");
            }
        }
    }

    #[test]
    fn owned_memory_is_kept_by_each_of_its_views() {
        let owner = Rc::new([9u8; 8]);
        let base = NonNull::from(&*owner).cast();
        // SAFETY: nobody refers to the array while the list is used; the owner keeps it. The list
        // is only read.
        let list = unsafe { Sgl::from_raw([(base, 8)], Some(owner.clone())) };
        let shared = list.slice(2..6).share().expect("it has an owner");
        assert_eq!(Rc::strong_count(&owner), 3);
        drop(list);
        assert_eq!(Rc::strong_count(&owner), 2);
        let mut back = [0; 5];
        assert_eq!(shared.read_at(0, &mut back), 4);
        assert_eq!(back, [9, 9, 9, 9, 0]);
        drop(shared);
        assert_eq!(Rc::strong_count(&owner), 1);
        assert!(Sgl::from_slice(&mut [0; 4]).share().is_none());

        let own = Sgl::zeroed(5);
        let view = own.slice(1..3);
        drop(own);
        view.write_at(0, &[1, 2, 3]);
        let mut back = [0; 3];
        assert_eq!((view.read_at(0, &mut back), back), (2, [1, 2, 0]));
        assert!(Sgl::zeroed(0).share().is_some_and(|list| list.is_empty()));
    }

    #[test]
    fn a_list_is_copied_to_another_of_other_pieces() {
        let (mut a, mut b, mut c) = ([1, 2, 3], [4], [5, 6, 7, 8]);
        let from = three(&mut a, &mut b, &mut c);
        let (mut d, mut e, mut f) = ([0; 2], [0; 5], [9; 3]);
        let to = three(&mut d, &mut e, &mut f);
        from.copy_to(&to);
        let mut back = [0; 10];
        to.read_at(0, &mut back);
        assert_eq!(back, [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]);
        from.copy_to(&to.slice(8..9));
        to.read_at(0, &mut back);
        assert_eq!(back[7..], [8, 1, 9]);
    }
}
