// SPDX-License-Identifier: Apache-2.0
//! How sectors are encrypted, by the names that headers have for it.
use crate::block_cipher::Algorithm;

/// How the blocks of a sector are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each is combined with a tweak of its own.
    Xts,
    /// Each is combined with the one before.
    Cbc,
}

/// What a sector's number becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iv {
    /// Its low 32 bits, little endian.
    Plain,
    /// 64 bits, little endian.
    Plain64,
    /// These encrypted with the SHA-256 of the key.
    EssivSha256,
}

/// How sectors are encrypted, without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cipher {
    /// What blocks are encrypted with.
    pub algorithm: Algorithm,
    /// How blocks are joined.
    pub mode: Mode,
    /// What the first is combined with.
    pub iv: Iv,
}

pub(crate) const MODES: [(&str, Mode, Iv); 6] = [
    ("xts-plain64", Mode::Xts, Iv::Plain64),
    ("xts-plain", Mode::Xts, Iv::Plain),
    ("xts-essiv:sha256", Mode::Xts, Iv::EssivSha256),
    ("cbc-essiv:sha256", Mode::Cbc, Iv::EssivSha256),
    ("cbc-plain64", Mode::Cbc, Iv::Plain64),
    ("cbc-plain", Mode::Cbc, Iv::Plain),
];

impl Cipher {
    /// AES in XTS mode, as `cryptsetup` and `qemu-img` have it where nothing else is asked for.
    pub const AES_XTS: Self =
        Cipher { algorithm: Algorithm::Aes, mode: Mode::Xts, iv: Iv::Plain64 };

    /// The name of its mode in a header.
    pub fn mode_name(self) -> &'static str {
        let is_meant = |row: &&(&str, Mode, Iv)| (row.1, row.2) == (self.mode, self.iv);
        MODES.iter().find(is_meant).map_or("", |row| row.0)
    }

    /// With the mode of that name.
    pub(crate) fn of_mode_name(algorithm: Algorithm, name: &str) -> Option<Self> {
        let &(_, mode, iv) = MODES.iter().find(|row| row.0 == name)?;
        Some(Cipher { algorithm, mode, iv })
    }

    /// The one that is written so as a whole, such as `aes-xts-plain64`.
    pub fn of_name(name: &str) -> Option<Self> {
        let (algorithm, mode) = name.split_once('-')?;
        Self::of_mode_name(Algorithm::of_name(algorithm)?, mode)
    }

    /// All names, for messages.
    pub(crate) fn mode_names() -> String {
        MODES.map(|row| row.0).join(", ")
    }

    /// The lengths, in bytes, that its key may have.
    pub fn key_lens(self) -> &'static [usize] {
        match self.mode {
            Mode::Xts => &[32, 64],
            Mode::Cbc => &[16, 24, 32],
        }
    }
}

impl std::fmt::Display for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.algorithm.name(), self.mode_name())
    }
}
