// SPDX-License-Identifier: Apache-2.0
//! The CRC that POSIX defines for cksum(1): polynomial 0x04C11DB7, most significant bit first, over the data and
//! then its length, complemented.

use crc_fast::{CrcAlgorithm, Digest};

/// A CRC that is being computed.
#[derive(Clone, Debug)]
pub(crate) struct Crc {
    digest: Digest,
}

impl Default for Crc {
    fn default() -> Self {
        Self { digest: Digest::new(CrcAlgorithm::Crc32Cksum) }
    }
}

impl Crc {
    /// Adds data.
    pub(crate) fn update(&mut self, data: &[u8]) {
        self.digest.update(data);
    }

    /// Adds what was added to another.
    pub(crate) fn append(&mut self, other: &Self) {
        self.digest.combine(&other.digest);
    }

    /// The checksum of all that was added.
    pub(crate) fn finish(mut self) -> u32 {
        let len = self.digest.get_amount().to_le_bytes();
        let significant = len.iter().rposition(|&b| b != 0).map_or(0, |i| i + 1);
        self.digest.update(&len[..significant]);
        // It has 32 bits.
        u32::try_from(self.digest.finalize()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(data: &[u8]) -> Crc {
        let mut crc = Crc::default();
        crc.update(data);
        crc
    }

    #[test]
    fn checksums_are_those_of_cksum() {
        assert_eq!(of(b"").finish(), 4_294_967_295);
        assert_eq!(of(b"a").finish(), 1_220_704_766);
        assert_eq!(of(b"123456789").finish(), 930_766_865);
    }

    #[test]
    fn pieces_make_the_same_checksum_as_the_whole() {
        let long: Vec<u8> = (0..=255u8).cycle().take(100_003).collect();
        for at in [0, 1, 777, 65_536, 100_002, 100_003] {
            let (head, tail) = long.split_at(at);
            let mut by_update = of(head);
            by_update.update(tail);
            let mut by_append = of(head);
            by_append.append(&of(tail));
            let whole = of(&long).finish();
            assert_eq!((by_update.finish(), by_append.finish()), (whole, whole), "{at}");
        }
    }
}
