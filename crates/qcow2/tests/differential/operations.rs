// SPDX-License-Identifier: Apache-2.0
//! One operation: drawn at random, told to `qemu-io`, done by our engine, and by a model, which is
//! the bytes that the guest sees.
use qcow2::Image;
use sgl::Sgl;

use crate::layer::Layer;

/// A generator of test data (SplitMix64): the same seed, the same test.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    /// Whole sectors inside of `size`, at most about `most` bytes: offset and length.
    pub(crate) fn range(&mut self, size: u64, most: u64) -> (u64, u64) {
        let sectors = size / 512;
        let at = self.below(sectors);
        let len = 1 + self.below((most / 512).max(1));
        (at * 512, len.min(sectors - at) * 512)
    }

    /// What can be on a disk: noise, text and holes.
    pub(crate) fn disk(&mut self, size: u64) -> Vec<u8> {
        let mut content = vec![0; usize::try_from(size).unwrap()];
        for _ in 0..12 {
            let (at, len) = self.range(size, size / 8);
            let (at, len) = (usize::try_from(at).unwrap(), usize::try_from(len).unwrap());
            let area = &mut content[at..at + len];
            if self.below(3) == 0 {
                area.fill_with(|| u8::try_from(self.below(256)).unwrap());
            } else {
                area.fill(u8::try_from(1 + self.below(255)).unwrap());
            }
        }
        content
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Write {
        at: u64,
        len: u64,
        byte: u8,
    },
    /// Of whole clusters, which are compressed.
    Compress {
        at: u64,
        len: u64,
        byte: u8,
    },
    Zero {
        at: u64,
        len: u64,
        unmap: bool,
    },
    Discard {
        at: u64,
        len: u64,
    },
    Read {
        at: u64,
        len: u64,
    },
    Flush,
    Resize {
        size: u64,
    },
}

/// What operations are drawn from. Where the engines differ, and may, none are drawn.
pub(crate) struct Limits {
    /// Bytes of a cluster.
    pub(crate) cluster: u64,
    /// Whether the size changes: with version 2, QEMU refuses that of an image that lies on
    /// another, and both do where there is a snapshot.
    pub(crate) resizes: bool,
    /// Whether there are discards: with version 2, which cannot say that a cluster is zero, QEMU
    /// gives up nothing in an image that lies on another; ours does past the end of the other.
    pub(crate) discards: bool,
    /// Whether what is discarded is whole clusters: ours gives up subclusters, too.
    pub(crate) whole_discards: bool,
    /// Whether what is written is whole clusters, and compressed.
    pub(crate) compresses: bool,
    /// Whether zeroes are written that keep their place: with version 2 ours writes them, and QEMU
    /// unmaps the clusters.
    pub(crate) keeps: bool,
}

impl Operation {
    pub(crate) fn draw(random: &mut Random, size: u64, limits: &Limits) -> Self {
        let (mut at, mut len) = random.range(size, 4 * limits.cluster.max(4096));
        let kind = random.below(24);
        let whole = match kind {
            0..8 => limits.compresses,
            13..17 => limits.whole_discards,
            _ => false,
        };
        if whole || random.below(3) == 0 {
            let end = (at + len).next_multiple_of(limits.cluster).min(size);
            at -= at % limits.cluster;
            len = end - at;
        }
        match kind {
            0..8 => {
                let byte = u8::try_from(random.below(256)).unwrap();
                match limits.compresses {
                    true => Operation::Compress { at, len, byte },
                    false => Operation::Write { at, len, byte },
                }
            }
            8..13 => Operation::Zero { at, len, unmap: !limits.keeps || random.below(2) == 0 },
            13..17 if limits.discards => Operation::Discard { at, len },
            17 => Operation::Flush,
            18 if limits.resizes => {
                Operation::Resize { size: new_size(random, size, limits.cluster) }
            }
            _ => Operation::Read { at, len },
        }
    }

    /// As a command for `qemu-io`.
    pub(crate) fn command(self) -> String {
        match self {
            Operation::Write { at, len, byte } => format!("write -P {byte} {at} {len}"),
            // QEMU compresses only what has no place yet.
            Operation::Compress { at, len, byte } => {
                format!("discard {at} {len}\nwrite -c -P {byte} {at} {len}")
            }
            Operation::Zero { at, len, unmap } => {
                format!("write -z {} {at} {len}", if unmap { "-u" } else { "" })
            }
            Operation::Discard { at, len } => format!("discard {at} {len}"),
            Operation::Read { at, len } => format!("read {at} {len}"),
            Operation::Flush => "flush".into(),
            Operation::Resize { size } => format!("truncate {size}"),
        }
    }

    /// On an image of ours. What is read is compared with what the model has.
    pub(crate) async fn apply(self, image: &Image<Layer>, model: &[u8]) {
        let result = match self {
            Operation::Write { at, len, byte } | Operation::Compress { at, len, byte } => {
                let mut data = vec![byte; usize::try_from(len).unwrap()];
                image.write(&Sgl::from_slice(&mut data), at).await
            }
            Operation::Zero { at, len, unmap } => image.write_zeroes(at, len, unmap).await,
            Operation::Discard { at, len } => image.discard(at, len).await,
            Operation::Read { at, len } => {
                let mut data = vec![0xa5; usize::try_from(len).unwrap()];
                let result = image.read(&Sgl::from_slice(&mut data), at).await;
                assert!(data == model[span(at, len)], "{self:?}: it reads something else");
                result
            }
            Operation::Flush => image.flush().await,
            Operation::Resize { size } => image.resize(size).await,
        };
        result.unwrap_or_else(|error| panic!("{self:?}: {error}"));
    }

    /// On the model of an image that gives up whole granules when it discards.
    pub(crate) fn model(self, model: &mut Vec<u8>, granule: u64) {
        match self {
            Operation::Write { at, len, byte } | Operation::Compress { at, len, byte } => {
                model[span(at, len)].fill(byte);
            }
            Operation::Zero { at, len, .. } => model[span(at, len)].fill(0),
            Operation::Discard { at, len } => {
                let size = model.len() as u64;
                let first = at.next_multiple_of(granule).min(size);
                let end = if at + len == size { size } else { (at + len) / granule * granule };
                if first < end {
                    model[span(first, end - first)].fill(0);
                }
            }
            Operation::Resize { size } => model.resize(usize::try_from(size).unwrap(), 0),
            Operation::Read { .. } | Operation::Flush => {}
        }
    }
}

/// A larger size, or a smaller one that is a multiple of the cluster's: what is in the rest of a
/// cluster that was cut, QEMU shows when the image grows again, and ours clears it.
fn new_size(random: &mut Random, size: u64, cluster: u64) -> u64 {
    let more = random.below(2) == 0 || size < 4 * cluster;
    if more {
        return size + 512 * random.below(8 * cluster / 512);
    }
    cluster * (2 + random.below(size / cluster - 2))
}

fn span(at: u64, len: u64) -> std::ops::Range<usize> {
    usize::try_from(at).unwrap()..usize::try_from(at + len).unwrap()
}
