// SPDX-License-Identifier: Apache-2.0
//! Reading images whose tables say where each block is. A format says where one block is
//! ([`Layout`]); what is one piece in a file is read at once.
use std::io;
use std::ptr;
use std::rc::Rc;

use sgl::Sgl;

use super::Source;
use crate::Provisioning;

/// How many blocks one call puts together.
const MERGED: usize = 1024;

/// Where bytes of the disk are.
#[derive(Debug)]
pub(crate) enum Target<'a, S> {
    /// Nowhere: zeroes.
    Zero,
    /// At an offset of a source.
    Data { source: &'a S, offset: u64 },
    /// In a compressed block.
    Packed(Packed),
}

/// A place in a compressed block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed {
    /// The number of the source.
    pub(crate) which: usize,
    /// The number of the block.
    pub(crate) block: u64,
    /// Where the block is in the source.
    pub(crate) offset: u64,
    /// Where the bytes are in the block, once it is decompressed.
    pub(crate) skip: u64,
}

/// An image made of blocks.
#[allow(async_fn_in_trait, reason = "all of it runs on one thread")]
pub(crate) trait Layout {
    type Source: Source;

    /// Of the disk, in bytes.
    fn size(&self) -> u64;

    /// In bytes.
    fn block_size(&self) -> u64;

    /// Where the bytes at `offset`, which is less than the size, are, and for how many bytes that
    /// holds (at least 1).
    async fn locate(&self, offset: u64) -> io::Result<(Target<'_, Self::Source>, u64)>;

    /// The bytes of a compressed block.
    async fn unpack(&self, packed: Packed) -> io::Result<Rc<[u8]>>;
}

/// Where the bytes at `offset` are, and how many of at most `len` are in one piece.
async fn resolve<L: Layout>(
    image: &L,
    offset: u64,
    len: u64,
) -> io::Result<(Target<'_, L::Source>, u64)> {
    let (target, mut n) = image.locate(offset).await?;
    for _ in 0..MERGED {
        let at = offset.saturating_add(n);
        if n >= len || at >= image.size() {
            break;
        }
        let (next, more) = image.locate(at).await?;
        let follows = match (&target, &next) {
            (Target::Zero, Target::Zero) => true,
            (Target::Data { source, offset }, Target::Data { source: other, offset: next }) => {
                ptr::eq(*source, *other) && offset.checked_add(n) == Some(*next)
            }
            _ => false,
        };
        if !follows {
            break;
        }
        n = n.saturating_add(more);
    }
    Ok((target, n.min(len)))
}

/// Fills all of `data`; what lies past the end of the disk is zero.
pub(crate) async fn read<L: Layout>(image: &L, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < data.len() {
        let at = offset.saturating_add(done as u64);
        let left = image.size().saturating_sub(at).min((data.len() - done) as u64);
        if left == 0 {
            data.fill(done..data.len(), 0);
            break;
        }
        let (target, n) = resolve(image, at, left).await?;
        let n = usize::try_from(n).unwrap_or(usize::MAX).min(data.len() - done);
        let part = data.slice(done..done + n);
        match target {
            Target::Zero => part.fill(0..n, 0),
            Target::Data { source, offset } => source.read(&part, offset).await?,
            Target::Packed(packed) => {
                let block = image.unpack(packed).await?;
                let skip = usize::try_from(packed.skip).unwrap_or(usize::MAX);
                let bytes = block.get(skip..).unwrap_or_default();
                if part.write_at(0, bytes) < n {
                    return Err(super::damaged("a compressed block is too short"));
                }
            }
        }
        done += n;
    }
    Ok(())
}

/// Whether the bytes at `offset` take up space, and for how many of at most `len` that holds.
pub(crate) async fn map<L: Layout>(
    image: &L,
    offset: u64,
    len: u64,
) -> io::Result<(Provisioning, u64)> {
    if offset >= image.size() {
        return Ok((Provisioning::Deallocated, len.max(1)));
    }
    let left = len.min(image.size() - offset);
    let (target, n) = resolve(image, offset, left).await?;
    let kind = match target {
        Target::Zero => Provisioning::Deallocated,
        Target::Data { .. } | Target::Packed(_) => Provisioning::Mapped,
    };
    Ok((kind, n.max(1)))
}
