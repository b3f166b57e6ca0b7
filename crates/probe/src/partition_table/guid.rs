// SPDX-License-Identifier: Apache-2.0
//! GUIDs as GPT has them: UUIDs whose first three groups are little-endian on disk, and which are shown in capitals.

use std::fmt;
use uuid::Uuid;

/// A GUID of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Guid(pub Uuid);

/// Characters of a UUID with its dashes: other ways to write one are not taken.
const LEN: usize = 36;

impl Guid {
    /// From its text, in upper or lower case.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == LEN).then(|| Uuid::try_parse(text).ok().map(Self)).flatten()
    }

    /// From a table.
    pub fn from_disk(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes_le(bytes))
    }

    /// As it is in a table.
    pub fn to_disk(self) -> [u8; 16] {
        self.0.to_bytes_le()
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}", self.0.hyphenated())
    }
}
