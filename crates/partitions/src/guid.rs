//! GUIDs as GPT has them: the first three groups are little-endian.

use std::fmt;

/// A GUID as on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Guid(pub [u8; 16]);

/// Where the bytes of the text are on disk; groups end after the 4th, 6th, 8th and 10th.
const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

impl Guid {
    /// From its text, in upper or lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let groups: Vec<&str> = text.split('-').collect();
        if groups.iter().map(|g| g.len()).ne([8, 4, 4, 4, 12]) {
            return None;
        }
        let digits = groups.concat();
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 16];
        for (at, pair) in ORDER.iter().zip(digits.as_bytes().chunks(2)) {
            bytes[*at] = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// From a table.
    pub(crate) fn at(bytes: &[u8]) -> Self {
        let mut guid = [0; 16];
        guid.copy_from_slice(&bytes[..16]);
        Self(guid)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, at) in ORDER.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{:02X}", self.0[*at])?;
        }
        Ok(())
    }
}
