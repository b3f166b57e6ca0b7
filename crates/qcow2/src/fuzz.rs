// SPDX-License-Identifier: Apache-2.0
//! Hostile images: what the fuzzers in `fuzz/` feed, and shorter, the crate's own tests. An image
//! in memory is checked, opened, read, and written to; it may be refused. What an operation reports
//! as done must be so, and an image in which the check found no errors stays without.
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use sgl::Sgl;

use crate::layout::header::{Header, incompatible};
use crate::{Extent, Image, Options, Parts, Repair, Storage, check};

/// The longest that a storage can be, in bytes: what is written past it meets a full disk.
const MAX_LEN: usize = 8 << 20;
/// The bytes at the end of an image to be written that say what is done to it.
pub const SCRIPT: usize = 64;

/// A storage in memory.
struct Memory(RefCell<Vec<u8>>);

impl Memory {
    fn new(bytes: &[u8]) -> Self {
        Memory(RefCell::new(bytes.get(..MAX_LEN).unwrap_or(bytes).to_vec()))
    }

    /// The end of a range that can be written.
    fn end(offset: u64, len: u64) -> io::Result<usize> {
        let end = offset.checked_add(len).and_then(|end| usize::try_from(end).ok());
        end.filter(|end| *end <= MAX_LEN).ok_or_else(|| io::ErrorKind::StorageFull.into())
    }
}

impl Storage for Memory {
    async fn length(&self) -> io::Result<u64> {
        Ok(self.0.borrow().len() as u64)
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        let bytes = self.0.borrow();
        let there = usize::try_from(offset).ok().and_then(|start| bytes.get(start..));
        let there = there.unwrap_or_default();
        let there = there.get(..data.len()).unwrap_or(there);
        data.write_at(0, there);
        data.fill(there.len()..data.len(), 0);
        Ok(())
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        let end = Self::end(offset, data.len() as u64)?;
        let mut bytes = self.0.borrow_mut();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        if let Some(place) = bytes.get_mut(end - data.len()..end) {
            data.read_at(0, place);
        }
        Ok(())
    }

    async fn zero(&self, offset: u64, len: u64, _punch: bool) -> io::Result<()> {
        let end = Self::end(offset, len)?;
        let start = usize::try_from(offset).unwrap_or(end);
        match self.0.borrow_mut().get_mut(start..end) {
            Some(place) => place.fill(0),
            None => return Err(io::ErrorKind::InvalidInput.into()),
        }
        Ok(())
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        let len = Self::end(0, len)?;
        self.0.borrow_mut().resize(len, 0);
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    async fn map(&self, _offset: u64, len: u64) -> io::Result<(Extent, u64)> {
        Ok((Extent::Data, len))
    }
}

/// The result of a future that waits for nothing but itself.
fn now<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..1000 {
        let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(value) = polled {
            return Some(value);
        }
    }
    None
}

/// Opens an image whose other files, where it has them, have the same content.
fn open(bytes: &[u8], read_only: bool) -> Option<Image<Memory>> {
    let storage = Memory::new(bytes);
    let header = now(Header::read(&storage))?.ok()?;
    let data_file = header.needs(incompatible::DATA_FILE).then(|| Memory::new(bytes));
    let backing = header.backing.is_some().then(|| Memory::new(bytes));
    let parts = Parts { storage, data_file, backing };
    let options = Options { read_only, discard: true, ..Options::default() };
    let opened = now(Image::open(parts, &options));
    assert!(opened.is_some(), "opening it ends");
    opened?.ok()
}

/// Places in an image: offsets of up to 64 KiB in it.
fn places(image: &Image<Memory>) -> [u64; 6] {
    let size = image.size();
    [0, size / 2, size.saturating_sub(4096), 1 << 16, size.saturating_sub(1 << 20), size]
}

fn read_here_and_there(image: &Image<Memory>) {
    let size = image.size();
    let mut buffer = vec![0; 64 << 10];
    for offset in places(image) {
        let len = size.saturating_sub(offset).min(buffer.len() as u64);
        let data = buffer.get_mut(..usize::try_from(len).unwrap_or(0)).unwrap_or_default();
        let read = now(image.read(&Sgl::from_slice(data), offset));
        assert!(read.is_some(), "reading ends");
        let mut at = offset;
        for _ in 0..100 {
            let most = size.saturating_sub(at).min(1 << 30);
            let Some(Ok((_, len))) = now(image.map(at, most)) else { break };
            assert!((1..=most).contains(&len), "a map of {most} bytes at {at} has {len}");
            at += len;
        }
    }
}

/// An image that is checked and read.
pub fn read(bytes: &[u8]) {
    let storage = Memory::new(bytes);
    let _ = now(check(&storage, Repair::None));
    assert!(*storage.0.borrow() == *Memory::new(bytes).0.borrow(), "a check writes nothing");
    let _ = now(check(&storage, Repair::All));
    if let Some(image) = open(bytes, true) {
        read_here_and_there(&image);
        let same = *image.core.storage.0.borrow() == *Memory::new(bytes).0.borrow();
        assert!(same, "what is opened for reading is not written to");
    }
}

/// Errors that a check finds.
fn corruptions(storage: &Memory) -> Option<u64> {
    Some(now(check(storage, Repair::None))?.ok()?.corruptions)
}

/// Operations on an image, 5 bytes each: what, where, how long.
fn operate(image: &Image<Memory>, script: &[u8]) {
    for operation in script.as_chunks::<5>().0 {
        let [what, place, at, number, len] = operation.map(u64::from);
        let places = places(image);
        let place = places.get(usize::try_from(place).unwrap_or(0) % places.len()).copied();
        let offset = place.unwrap_or(0).saturating_add(at << 9 | number);
        let left = image.size().saturating_sub(offset);
        let len = (len << 8).min(left);
        let ended = match what % 7 {
            0..=2 => write(image, offset, len),
            3 => now(image.write_zeroes(offset, len, number & 1 == 0)).is_some(),
            4 => now(image.discard(offset, len)).is_some(),
            5 => now(image.flush()).is_some(),
            _ => {
                let size = image.size().min(1 << 40).saturating_sub(number << 9) + (at << 9);
                now(image.resize(size & !511)).is_some()
            }
        };
        assert!(ended, "operation {what} ends");
    }
}

/// Writes; what was written is read.
fn write(image: &Image<Memory>, offset: u64, len: u64) -> bool {
    let mut data = vec![0xd7; usize::try_from(len).unwrap_or(0)];
    let written = now(image.write(&Sgl::from_slice(&mut data), offset));
    if let Some(Ok(())) = written {
        let mut back = vec![0; data.len()];
        let read = now(image.read(&Sgl::from_slice(&mut back), offset));
        if let Some(Ok(())) = read {
            assert!(back == data, "{len} bytes at {offset} are read as they were written");
        }
    }
    written.is_some()
}

/// An image that is written to, as its last [`SCRIPT`] bytes say.
pub fn write_to(bytes: &[u8]) {
    let Some((bytes, script)) = bytes.split_last_chunk::<SCRIPT>() else { return };
    let clean = corruptions(&Memory::new(bytes)) == Some(0);
    let Some(image) = open(bytes, false) else { return };
    operate(&image, script);
    read_here_and_there(&image);
    let closed = now(image.close());
    assert!(closed.is_some(), "closing it ends");
    if clean {
        let after = corruptions(&image.core.storage);
        assert!(after.is_none_or(|after| after == 0), "{after:?} errors in it, and before none");
    }
}
