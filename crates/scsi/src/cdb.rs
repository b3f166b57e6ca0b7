// SPDX-License-Identifier: Apache-2.0
//! The fields of a CDB, by their place. In: the bytes that came. Out: numbers.

use crate::sense::Sense;

/// The first 16 bytes of a CDB, padded with zeroes: no offset below 16 is out of bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cdb([u8; Cdb::MAX]);

impl Cdb {
    /// Longest CDB that is decoded; variable length CDBs (7Fh) are not.
    pub(crate) const MAX: usize = 16;

    pub(crate) fn new(cdb: &[u8]) -> Self {
        let mut bytes = [0; Self::MAX];
        for (to, from) in bytes.iter_mut().zip(cdb) {
            *to = *from;
        }
        Cdb(bytes)
    }

    /// All bytes as one number, the first in the most significant place.
    pub(crate) fn bits(&self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    pub(crate) fn byte(&self, at: usize) -> u8 {
        self.0[at]
    }

    pub(crate) fn bit(&self, at: usize, bit: u8) -> bool {
        self.0[at] & (1 << bit) != 0
    }

    fn array<const LEN: usize>(&self, at: usize) -> [u8; LEN] {
        std::array::from_fn(|i| self.0[at + i])
    }

    pub(crate) fn be16(&self, at: usize) -> u16 {
        u16::from_be_bytes(self.array(at))
    }

    pub(crate) fn be32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.array(at))
    }

    pub(crate) fn be64(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.array(at))
    }

    /// A length in one, two or four bytes.
    pub(crate) fn len8(&self, at: usize) -> usize {
        usize::from(self.byte(at))
    }

    pub(crate) fn len16(&self, at: usize) -> usize {
        usize::from(self.be16(at))
    }

    pub(crate) fn len32(&self, at: usize) -> usize {
        self.be32(at) as usize
    }

    /// LBA and transfer length, in blocks, of a READ (6) or WRITE (6): 0 stands for 256 (SBC-4).
    pub(crate) fn range6(&self) -> (u64, u64) {
        let blocks = if self.0[4] == 0 { 256 } else { u64::from(self.0[4]) };
        (u64::from(self.be32(0) & 0x1f_ffff), blocks)
    }

    /// The same of a 10-byte CDB.
    pub(crate) fn range10(&self) -> (u64, u64) {
        (u64::from(self.be32(2)), u64::from(self.be16(7)))
    }

    /// The same of a 12-byte CDB.
    pub(crate) fn range12(&self) -> (u64, u64) {
        (u64::from(self.be32(2)), u64::from(self.be32(6)))
    }

    /// The same of a 16-byte CDB.
    pub(crate) fn range16(&self) -> (u64, u64) {
        (self.be64(2), u64::from(self.be32(10)))
    }

    /// INVALID FIELD IN CDB at the field of which `mask` are the bits within `byte`, when `ok` is
    /// false.
    pub(crate) fn check(ok: bool, byte: u16, mask: u8) -> Result<(), Sense> {
        if ok { Ok(()) } else { Err(Sense::cdb_field(byte, top_bit(mask))) }
    }
}

/// The number of the most significant bit that is set.
pub(crate) fn top_bit(mask: u8) -> Option<u8> {
    (0..8).rev().find(|bit| mask & (1 << bit) != 0)
}
