// SPDX-License-Identifier: Apache-2.0
//! Hostile headers: what the fuzzer in `fuzz/` feeds. A header is parsed, and unlocked where that
//! takes no time; it may be refused, and nothing else may happen.
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::v2::binary::{self, Copy};
use crate::{HEADER_LEN, Header, Secret, Source, Volume};

/// The most rounds of a hash, or KiB of memory written, that are worked through.
const MAX_COST: u64 = 2000;

struct Bytes(Vec<u8>);

impl Source for Bytes {
    async fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let there = self.0.get(start..).unwrap_or_default();
        let mut bytes = vec![0; len];
        bytes.iter_mut().zip(there).for_each(|(byte, there)| *byte = *there);
        Ok(bytes)
    }
}

fn secret() -> Secret {
    Secret::new(b"abc".to_vec())
}

/// A header with its key material, as a qcow2 image and as a device has it. Checksums are made right
/// first, so that what is behind them is reached.
pub fn header(bytes: &[u8]) {
    if let Ok(header) = Header::parse(bytes) {
        assert!((HEADER_LEN..=16 << 20).contains(&header.area_len()), "it is not long");
        if header.rounds() <= MAX_COST {
            let _ = header.unlock(bytes, &secret());
        }
    }
    volume(bytes.to_vec());
    let mut mended = bytes.to_vec();
    let size = binary::size(bytes, Copy::Primary).and_then(|size| usize::try_from(size).ok());
    if let Some(size) = size {
        mended.resize(mended.len().max(2 * size), 0);
        for copy in mended.chunks_mut(size).take(2) {
            binary::mend(copy);
        }
        volume(mended);
    }
}

fn volume(bytes: Vec<u8>) {
    let source = Bytes(bytes);
    let Some(Ok(volume)) = now(Volume::read(&source)) else { return };
    let areas = volume.areas();
    let total: u64 = areas.iter().map(|area| area.end - area.start).sum();
    assert!(total <= 16 << 20, "the areas are not long");
    let _ = (volume.payload(), volume.cipher(), volume.uuid(), volume.wrong_passphrase());
    if volume.cost() > MAX_COST {
        return;
    }
    for (index, area) in areas.into_iter().enumerate() {
        let len = usize::try_from(area.end - area.start).unwrap_or(0);
        if let Some(Ok(material)) = now(source.read(area.start, len)) {
            let _ = volume.try_slot(index, &material, &secret());
        }
    }
}

/// The result of a future that waits for nothing.
fn now<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
