// SPDX-License-Identifier: Apache-2.0
//! Counts metadata clusters in the file before something in the file refers to them.
//!
//! `imago` 0.2.6 writes L1 entries, entries of the refcount table and the position of the L1 table
//! at once, but the refcounts of the clusters that they point to only with the next flush. A
//! process that is killed between the two would leave an image whose metadata counts as free, and
//! is overwritten by a later allocation. These pointers are known by their size and place: nothing
//! else that `imago` writes has 8 bytes, or 72 at the beginning of the file. Before one goes to the
//! file, the refcount of its target is set there to 1 where it is 0, which is what `imago` has in
//! memory and writes later.
use std::io;

use imago::io_buffers::IoVector;
use sgl::Sgl;

use super::header::Header;
use super::storage::Storage;

/// Length of the part of the header that `imago` writes.
const HEADER_LENGTH: usize = 72;
/// The bits of an L1 entry, and of one of the refcount table, that are an offset.
const OFFSET_BITS: u64 = 0x00ff_ffff_ffff_fe00;

/// The properties of an image that are needed here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counting {
    cluster_bits: u32,
    /// log2 of the bits of a refcount.
    order: u32,
}

impl Counting {
    pub(super) fn new(header: &Header) -> Self {
        Counting { cluster_bits: header.cluster_bits, order: header.refcount_order() }
    }

    /// Must be called with everything that `imago` writes, before it is written.
    pub(super) async fn before_write(
        self,
        storage: &Storage,
        data: &IoVector<'_>,
        offset: u64,
    ) -> io::Result<()> {
        let len = data.len();
        if len != 8 && (offset != 0 || len != HEADER_LENGTH as u64) {
            return Ok(());
        }
        let mut bytes = [0; HEADER_LENGTH];
        let Some(written) = usize::try_from(len).ok().and_then(|len| bytes.get_mut(..len)) else {
            return Ok(());
        };
        data.copy_into_slice(written);
        let (numbers, _) = bytes.as_chunks::<8>();
        let number = |i: usize| numbers.get(i).map_or(0, |bytes| u64::from_be_bytes(*bytes));
        if len == 8 {
            return self.count(storage, number(0) & OFFSET_BITS, offset).await;
        }
        // Bytes 36 to 39: entries of the L1 table; 40 to 47: its offset.
        let l1_bytes = (number(4) & 0xffff_ffff) * 8;
        let clusters = l1_bytes.div_ceil(1 << self.cluster_bits);
        for i in 0..clusters {
            self.count(storage, number(5) + (i << self.cluster_bits), offset).await?;
        }
        Ok(())
    }

    /// Counts the cluster at `target`, to which a pointer at `place` is about to be written.
    async fn count(self, storage: &Storage, target: u64, place: u64) -> io::Result<()> {
        if target == 0 {
            return Ok(());
        }
        // Bytes 48 to 55: offset of the refcount table; 56 to 59: its clusters.
        let [table, clusters] = read_numbers(storage, 48).await?;
        let table_end = table + ((clusters >> 32) << self.cluster_bits);
        let cluster = target >> self.cluster_bits;
        // A block has 2^bits counts, each of 2^order bits.
        let bits = self.cluster_bits + 3 - self.order;
        let entry = table + (cluster >> bits) * 8;
        let [block] = if entry < table_end { read_numbers(storage, entry).await? } else { [0] };
        let block = block & OFFSET_BITS;
        if block == 0 {
            // A refcount block that counts itself is complete before it is entered.
            if place == entry {
                return Ok(());
            }
            return Err(io::Error::other(format!("no refcount block for the cluster at {target}")));
        }
        let bit = (cluster & ((1 << bits) - 1)) << self.order;
        let width = 1usize << self.order;
        let mut count = [0; 8];
        let count = count.get_mut(..width.div_ceil(8)).unwrap_or_default();
        storage.read(&Sgl::from_slice(count), block + bit / 8).await?;
        let Some(last) = count.last_mut() else {
            return Ok(());
        };
        if width < 8 {
            let shift = bit % 8;
            if (*last >> shift) & ((1 << width) - 1) != 0 {
                return Ok(());
            }
            *last |= 1 << shift;
        } else {
            if count.iter().any(|&byte| byte != 0) {
                return Ok(());
            }
            if let Some(last) = count.last_mut() {
                *last = 1;
            }
        }
        storage.write(&Sgl::from_slice(count), block + bit / 8, false).await
    }
}

/// Big-endian numbers of 64 bits.
async fn read_numbers<const N: usize>(storage: &Storage, offset: u64) -> io::Result<[u64; N]> {
    let mut numbers = [[0; 8]; N];
    storage.read(&Sgl::from_slice(numbers.as_flattened_mut()), offset).await?;
    Ok(numbers.map(u64::from_be_bytes))
}
