// SPDX-License-Identifier: Apache-2.0
//! LUKS version 1, and the ciphers of sectors that it and qcow2 images use. No I/O: who has the
//! bytes of a header hands them in, and who has sectors has them changed in place.
//!
//! - [`Header`]: parsed from bytes that may be hostile, [unlocked](Header::unlock) with a [`Secret`].
//! - [`format()`]: a new header with new keys.
//! - [`SectorCipher`]: what both give.
//!
//! Key derivation takes seconds, by design: it belongs on a thread that may block.
//!
//! The format is the "LUKS On-Disk Format Specification", version 1.2.3, of the cryptsetup project.

mod block_cipher;
mod cipher;
mod digest;
mod format;
pub mod fuzz;
mod header;
mod secret;
mod split;

pub use block_cipher::Algorithm;
pub use cipher::{Cipher, Iv, Mode, SECTOR, SectorCipher};
pub use digest::Digest;
pub use format::{Format, format};
pub use header::{HEADER_LEN, Header, MAX_ITERATIONS};
pub use secret::Secret;

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
        "the passphrase opens none of its {0} key slots in use; give the one that it was encrypted with"
    )]
    WrongPassphrase(usize),
    /// The kernel gave no random numbers.
    #[error("there are no random numbers: {0}")]
    Random(String),
}
