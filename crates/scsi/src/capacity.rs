// SPDX-License-Identifier: Apache-2.0
//! How large the medium is and which blocks of it take up space: READ CAPACITY (SBC-4)
//! and GET LBA STATUS (SBC-4). In: plain facts. Out: parameter data.

use zerocopy::big_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes};

use crate::answer::Answer;

/// Size and shape of the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Number of logical blocks.
    pub blocks: u64,
    /// Logical block length in bytes.
    pub block_size: u32,
    /// Logical blocks per physical block, as a power of two, 0 to 15.
    pub physical_exponent: u8,
    /// Lowest LBA that begins a physical block, at most 3FFFh.
    pub lowest_aligned: u16,
}

/// Logical block provisioning. READ CAPACITY (16) and the provisioning VPD page are both made from
/// it, and so agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Provisioning {
    /// Thin provisioned: blocks take up space when they are written.
    pub thin: bool,
    /// LBPU: UNMAP frees space.
    pub unmap: bool,
    /// LBPWS and LBPWS10: WRITE SAME with the UNMAP bit frees space.
    pub write_same_unmap: bool,
    /// LBPRZ: what was unmapped reads as zeroes.
    pub reads_zeroes: bool,
}

impl Provisioning {
    /// LBPME: provisioning is managed at all.
    pub fn managed(&self) -> bool {
        self.thin || self.unmap || self.write_same_unmap
    }
}

/// READ CAPACITY (10): the last LBA, or FFFFFFFFh where it takes READ CAPACITY (16).
pub fn read_capacity10(capacity: &Capacity) -> Answer {
    let last = capacity.blocks.saturating_sub(1);
    let mut a = Answer::new();
    a.be32(u32::try_from(last).unwrap_or(u32::MAX));
    a.be32(capacity.block_size);
    a
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct ReadCapacity16 {
    last_lba: U64,
    block_size: U32,
    /// P_TYPE and PROT_EN: no protection information.
    protection: u8,
    exponents: u8,
    /// LBPME, LBPRZ and the lowest aligned LBA.
    provisioning: [u8; 2],
    reserved: [u8; 16],
}

/// READ CAPACITY (16).
pub fn read_capacity16(capacity: &Capacity, provisioning: &Provisioning) -> Answer {
    let managed = provisioning.managed();
    let [high, low] = capacity.lowest_aligned.to_be_bytes();
    let flags = u8::from(managed) << 7 | u8::from(managed && provisioning.reads_zeroes) << 6;
    let mut a = Answer::new();
    a.layout(&ReadCapacity16 {
        last_lba: capacity.blocks.saturating_sub(1).into(),
        block_size: capacity.block_size.into(),
        protection: 0,
        exponents: capacity.physical_exponent & 0x0f,
        provisioning: [flags | high & 0x3f, low],
        reserved: [0; 16],
    });
    a
}

/// Provisioning of a run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LbaStatus {
    /// First LBA.
    pub lba: u64,
    /// Number of blocks, at least 1.
    pub blocks: u32,
    /// Whether they take up space; if not they are deallocated.
    pub mapped: bool,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct LbaStatusDescriptor {
    lba: U64,
    blocks: U32,
    /// 0: mapped (or unknown); 1: deallocated.
    status: u8,
    reserved: [u8; 3],
}

/// GET LBA STATUS. The first run begins at the LBA that was asked for; the others follow on.
pub fn lba_status(runs: &[LbaStatus]) -> Answer {
    let mut a = Answer::new();
    a.zeroes(8);
    for run in runs {
        a.layout(&LbaStatusDescriptor {
            lba: run.lba.into(),
            blocks: run.blocks.into(),
            status: u8::from(!run.mapped),
            reserved: [0; 3],
        });
    }
    a.set_length32(0);
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn read_capacity_10_tells_the_last_lba_or_points_at_16() {
        let small = fixtures::capacity();
        assert_eq!(read_capacity10(&small)[..], [0, 7, 0xff, 0xff, 0, 0, 2, 0]);
        let large = Capacity { blocks: 1 << 33, ..small };
        assert_eq!(read_capacity10(&large)[..4], [0xff; 4]);
        let just = Capacity { blocks: 1 << 32, ..small };
        assert_eq!(read_capacity10(&just)[..4], [0xff; 4]);
    }

    #[test]
    fn read_capacity_16_tells_provisioning_and_alignment() {
        let capacity = Capacity { blocks: 1 << 33, lowest_aligned: 0x0107, ..fixtures::capacity() };
        let a = read_capacity16(&capacity, &fixtures::provisioning());
        assert_eq!(a.len(), 32);
        assert_eq!(a[..8], 0x1_ffff_ffffu64.to_be_bytes());
        assert_eq!(a[8..16], [0, 0, 2, 0, 0, 3, 0xc1, 0x07]);
        let thick = Provisioning { reads_zeroes: true, ..Provisioning::default() };
        assert_eq!(read_capacity16(&capacity, &thick)[14], 0x01);
    }

    #[test]
    fn lba_status_lists_each_run() {
        let a = lba_status(&[
            LbaStatus { lba: 8, blocks: 8, mapped: true },
            LbaStatus { lba: 16, blocks: 1, mapped: false },
        ]);
        assert_eq!(a.len(), 40);
        assert_eq!(a[..8], [0, 0, 0, 36, 0, 0, 0, 0]);
        assert_eq!(a[8..24], [0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 0]);
        assert_eq!(a[24..40], [0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 1, 1, 0, 0, 0]);
    }
}
