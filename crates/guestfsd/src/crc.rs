//! The CRC that POSIX defines for cksum(1): polynomial 0x04C11DB7, most significant bit first, over the data and
//! then its length, complemented.

/// Bytes that one step takes.
const STEP: usize = 16;

/// `TABLES[k][b]`: what byte `b`, with `k` bytes after it, adds to the remainder.
static TABLES: [[u32; 256]; STEP] = tables();

const fn tables() -> [[u32; 256]; STEP] {
    let mut tables = [[0u32; 256]; STEP];
    let mut byte: u32 = 0;
    while byte < 256 {
        let mut crc = byte << 24;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc << 1) ^ if crc & 0x8000_0000 != 0 { 0x04C1_1DB7 } else { 0 };
            bit += 1;
        }
        tables[0][byte as usize] = crc;
        byte += 1;
    }
    let mut k = 1;
    while k < STEP {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[k - 1][byte];
            tables[k][byte] = (before << 8) ^ tables[0][(before >> 24) as usize];
            byte += 1;
        }
        k += 1;
    }
    tables
}

/// A CRC that is being computed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Crc {
    remainder: u32,
    len: u64,
}

impl Crc {
    /// Adds data.
    pub(crate) fn update(&mut self, data: &[u8]) {
        self.len += data.len() as u64;
        self.add(data);
    }

    /// The checksum of all that was added.
    pub(crate) fn finish(mut self) -> u32 {
        let len = self.len.to_le_bytes();
        let significant = len.iter().rposition(|&b| b != 0).map_or(0, |i| i + 1);
        self.add(&len[..significant]);
        !self.remainder
    }

    fn add(&mut self, data: &[u8]) {
        let mut crc = self.remainder;
        let (steps, rest) = data.as_chunks::<STEP>();
        for step in steps {
            let mut next = 0;
            let head = crc.to_be_bytes();
            for (i, &byte) in step.iter().enumerate() {
                let byte = if i < 4 { byte ^ head[i] } else { byte };
                next ^= TABLES[STEP - 1 - i][usize::from(byte)];
            }
            crc = next;
        }
        for &byte in rest {
            let [top, ..] = crc.to_be_bytes();
            crc = (crc << 8) ^ TABLES[0][usize::from(top ^ byte)];
        }
        self.remainder = crc;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crc(pieces: &[&[u8]]) -> u32 {
        let mut crc = Crc::default();
        pieces.iter().for_each(|p| crc.update(p));
        crc.finish()
    }

    #[test]
    fn checksums_are_those_of_cksum() {
        assert_eq!(crc(&[]), 4_294_967_295);
        assert_eq!(crc(&[b"a"]), 1_220_704_766);
        assert_eq!(crc(&[b"123456789"]), 930_766_865);
        let long: Vec<u8> = (0..=255u8).cycle().take(100_003).collect();
        let (head, tail) = long.split_at(777);
        assert_eq!(crc(&[head, tail]), crc(&[&long]));
    }
}
