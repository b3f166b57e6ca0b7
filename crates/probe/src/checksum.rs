// SPDX-License-Identifier: Apache-2.0
//! Checksums of superblocks. Bit by bit or by a small table: a superblock is at most 4 KiB.

const fn table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0u32;
    while i < 256 {
        let mut crc = i;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ polynomial } else { crc >> 1 };
            bit += 1;
        }
        table[i as usize] = crc;
        i += 1;
    }
    table
}

const CRC32: [u32; 256] = table(0xedb8_8320);
const CRC32C: [u32; 256] = table(0x82f6_3b78);

fn update(table: &[u32; 256], seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |crc, &b| table[usize::from(crc.to_le_bytes()[0] ^ b)] ^ (crc >> 8))
}

/// CRC-32 as LVM uses it: with this seed, not inverted.
pub(crate) fn crc32(seed: u32, bytes: &[u8]) -> u32 {
    update(&CRC32, seed, bytes)
}

/// CRC-32C, begun with all ones, not inverted at the end.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    update(&CRC32C, !0, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_values_of_the_algorithms_come_out() {
        assert_eq!(!crc32(!0, b"123456789"), 0xcbf4_3926);
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
    }
}
