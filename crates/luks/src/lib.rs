// SPDX-License-Identifier: Apache-2.0
//! LUKS versions 1 and 2, and the ciphers of sectors that they and qcow2 images use. No I/O: who has
//! the bytes of a header hands them in, and who has sectors has them changed in place.
//!
//! - [`Volume`]: the header of a device or file, of either version, read from a [`Source`]
//! - [`Header`]: one of version 1, parsed from bytes; in qcow2 images there is no other
//! - [`format()`]: a new header of version 1 with new keys
//! - [`SectorCipher`]: what all of them give, with a [`Secret`]
//!
//! Whatever is parsed may be hostile. Key derivation takes seconds, by design: it belongs on a thread
//! that may block.
//!
//! The formats are the "LUKS On-Disk Format Specification", version 1.2.3, and the "LUKS2 On-Disk
//! Format Specification", version 1.1, of the cryptsetup project.

mod block_cipher;
mod cbc;
mod cipher;
mod digest;
mod format;
pub mod fuzz;
mod header;
mod kdf;
mod secret;
mod sector;
mod split;
mod twofish;
mod v2;
mod volume;
mod xts;

pub use block_cipher::Algorithm;
pub use cipher::{Cipher, Iv, Mode};
pub use digest::Digest;
pub use format::{Format, format};
pub use header::{HEADER_LEN, Header};
pub use kdf::MAX_ITERATIONS;
pub use secret::Secret;
pub use sector::{MAX_SECTOR, SECTOR, SectorCipher};
pub use volume::{Copies, Payload, Source, Volume};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No header, or a damaged one; the text names the field and its value.
    #[error("{0}")]
    Invalid(String),
    /// The header asks for something that this crate does not do.
    #[error("{0}")]
    Unsupported(String),
    /// No key slot opens with the passphrase.
    #[error(
        "the passphrase opens none of its {tried} key slots in use; give the one that it was \
         encrypted with{left_out}"
    )]
    WrongPassphrase {
        /// How many were tried.
        tried: usize,
        /// Which others were not, and why, if there are any.
        left_out: String,
    },
    /// There is no memory for Argon2, in KiB.
    #[error("there are no {0} KiB of memory, which its passphrase takes (Argon2)")]
    Memory(u64),
    /// The kernel gave no random numbers.
    #[error("there are no random numbers: {0}")]
    Random(String),
    /// The header cannot be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl Error {
    /// The error of a passphrase that opens none of so many slots.
    pub(crate) fn wrong_passphrase(tried: usize) -> Self {
        Error::WrongPassphrase { tried, left_out: String::new() }
    }
}
