// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` for memory that is shared with the kernel.
//!
//! A [`Mapping`] is the memory of one device, from its UIO descriptor or, in tests, from a memfd.
//! Reads and writes are bounds-checked copies; no reference to the memory is ever made, since the
//! other side changes it at any time. Head and tail are atomics: what the kernel wrote before it
//! moved the head is visible after [`Mapping::head`], what we wrote before [`Mapping::set_tail`]
//! is visible to the kernel with the new tail.
//!
//! Under `cfg(loom)` the mailbox and the ring are loom's cells and atomics, so that a model
//! checker sees every access.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use zerocopy::{FromBytes, Immutable, IntoBytes};

#[cfg(not(loom))]
pub use mapped::Mapping;
#[cfg(loom)]
pub use model::Mapping;

impl Mapping {
    /// Copies the structure at `offset` out; `None` outside of the memory.
    pub fn get<T: FromBytes + IntoBytes>(&self, offset: usize) -> Option<T> {
        let mut value = T::new_zeroed();
        self.read(offset, value.as_mut_bytes())?;
        Some(value)
    }

    /// Copies a structure in at `offset`; `None` (and nothing written) outside of the memory.
    pub fn put<T: IntoBytes + Immutable>(&self, offset: usize, value: &T) -> Option<()> {
        self.write(offset, value.as_bytes())
    }

    /// Whether `len` bytes at `offset` lie in the memory.
    fn holds(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len())
    }

    /// The address of `len` bytes at `offset`, if they lie in the memory.
    pub(crate) fn piece(&self, offset: usize, len: usize) -> Option<NonNull<u8>> {
        // SAFETY: inside of the memory.
        self.holds(offset, len).then(|| unsafe { self.base().add(offset) })
    }
}

#[cfg(not(loom))]
mod mapped {
    use std::ffi::c_void;
    use std::os::fd::AsFd;
    use std::ptr::{self, NonNull};
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

    use crate::Error;
    use crate::mailbox::{HEAD_OFFSET, MAILBOX_LEN, TAIL_OFFSET};

    /// Memory shared with the kernel, or with what stands in for it.
    #[derive(Debug)]
    pub struct Mapping {
        base: NonNull<u8>,
        len: usize,
    }

    // SAFETY: the memory is reached through copies and atomics alone; it may be from any thread.
    unsafe impl Send for Mapping {}

    impl Mapping {
        /// Maps `len` bytes of `fd`, shared. The size has to be exact for a UIO descriptor: the
        /// kernel refuses more, and less does not reach the whole data area.
        pub fn new(fd: impl AsFd, len: usize) -> Result<Self, Error> {
            if len < MAILBOX_LEN {
                return Err(Error::Mailbox(format!("{len} bytes of memory cannot hold it")));
            }
            // SAFETY: a fresh mapping at an address that the kernel chooses.
            let base = unsafe {
                mmap(
                    ptr::null_mut(),
                    len,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::SHARED,
                    fd.as_fd(),
                    0,
                )
            }
            .map_err(Error::channel("map the ring"))?;
            let base = NonNull::new(base.cast())
                .ok_or_else(|| Error::Mailbox("mapped at address 0".into()))?;
            Ok(Mapping { base, len })
        }

        /// Length in bytes.
        #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
        pub fn len(&self) -> usize {
            self.len
        }

        pub(super) fn base(&self) -> NonNull<u8> {
            self.base
        }

        /// Copies bytes at `offset` out; `None` outside of the memory.
        pub fn read(&self, offset: usize, bytes: &mut [u8]) -> Option<()> {
            let from = self.piece(offset, bytes.len())?;
            // SAFETY: `piece` checked the range; `bytes` is ours, so that they do not overlap.
            unsafe { ptr::copy_nonoverlapping(from.as_ptr(), bytes.as_mut_ptr(), bytes.len()) };
            Some(())
        }

        /// Copies bytes in at `offset`; `None` (and nothing written) outside of the memory.
        pub fn write(&self, offset: usize, bytes: &[u8]) -> Option<()> {
            let to = self.piece(offset, bytes.len())?;
            // SAFETY: `piece` checked the range; `bytes` is ours, so that they do not overlap.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
            Some(())
        }

        fn word(&self, offset: usize) -> &AtomicU32 {
            // SAFETY: in the mailbox, which `new` found room for; aligned, since a mapping begins
            // at a page; reached as an atomic only, by us and by the kernel.
            unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(offset).cast()) }
        }

        /// `cmd_head`; entries before it may be read afterwards.
        pub fn head(&self) -> u32 {
            self.word(HEAD_OFFSET).load(Ordering::Acquire)
        }

        /// `cmd_tail`; slots before it may be reused (by the kernel's side) afterwards.
        pub fn tail(&self) -> u32 {
            self.word(TAIL_OFFSET).load(Ordering::Acquire)
        }

        /// Publishes entries: the kernel's side does.
        pub fn set_head(&self, head: u32) {
            self.word(HEAD_OFFSET).store(head, Ordering::Release);
        }

        /// Publishes completions.
        pub fn set_tail(&self, tail: u32) {
            self.word(TAIL_OFFSET).store(tail, Ordering::Release);
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: mapped by `new`; nobody has a pointer into it without a borrow of `self`.
            let unmapped = unsafe { munmap(self.base.as_ptr().cast::<c_void>(), self.len) };
            if let Err(error) = unmapped {
                tracing::error!("unmap a ring: {error}");
            }
        }
    }
}

#[cfg(loom)]
mod model {
    use std::ptr::NonNull;
    use std::sync::Arc;

    use loom::cell::UnsafeCell;
    use loom::sync::atomic::{AtomicU32, Ordering};

    const WORD: usize = 8;

    /// Memory shared between two threads of a model: plain cells, of which the checker reports
    /// every race, and two atomics.
    #[derive(Clone, Debug)]
    pub struct Mapping(Arc<Shared>);

    #[derive(Debug)]
    struct Shared {
        words: Vec<UnsafeCell<[u8; WORD]>>,
        head: AtomicU32,
        tail: AtomicU32,
    }

    // SAFETY: loom checks the accesses to the cells.
    unsafe impl Send for Shared {}
    // SAFETY: as above.
    unsafe impl Sync for Shared {}

    impl Mapping {
        /// Memory of `len` bytes, a multiple of 8, all zero.
        pub fn for_model(len: usize) -> Self {
            Mapping(Arc::new(Shared {
                words: (0..len / WORD).map(|_| UnsafeCell::new([0; WORD])).collect(),
                head: AtomicU32::new(0),
                tail: AtomicU32::new(0),
            }))
        }

        /// Length in bytes.
        pub fn len(&self) -> usize {
            self.0.words.len() * WORD
        }

        pub(super) fn base(&self) -> NonNull<u8> {
            // The model's commands carry no data; `piece` of none is never looked at.
            NonNull::dangling()
        }

        /// Copies bytes at `offset` out; `None` outside of the memory.
        pub fn read(&self, offset: usize, bytes: &mut [u8]) -> Option<()> {
            self.holds(offset, bytes.len()).then_some(())?;
            for (at, byte) in (offset..).zip(bytes) {
                // SAFETY: loom panics when another thread writes at the same time.
                *byte = self.0.words[at / WORD].with(|word| unsafe { (*word)[at % WORD] });
            }
            Some(())
        }

        /// Copies bytes in at `offset`; `None` outside of the memory.
        pub fn write(&self, offset: usize, bytes: &[u8]) -> Option<()> {
            self.holds(offset, bytes.len()).then_some(())?;
            for (at, byte) in (offset..).zip(bytes) {
                // SAFETY: loom panics when another thread accesses it at the same time.
                self.0.words[at / WORD].with_mut(|word| unsafe { (*word)[at % WORD] = *byte });
            }
            Some(())
        }

        /// `cmd_head`.
        pub fn head(&self) -> u32 {
            self.0.head.load(Ordering::Acquire)
        }

        /// `cmd_tail`.
        pub fn tail(&self) -> u32 {
            self.0.tail.load(Ordering::Acquire)
        }

        /// Publishes entries.
        pub fn set_head(&self, head: u32) {
            self.0.head.store(head, Ordering::Release);
        }

        /// Publishes completions.
        pub fn set_tail(&self, tail: u32) {
            self.0.tail.store(tail, Ordering::Release);
        }
    }
}
