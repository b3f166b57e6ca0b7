// SPDX-License-Identifier: Apache-2.0
//! The hashes that a header can name, and what is derived by them.
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};

/// A hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
    /// RIPEMD-160.
    Ripemd160,
}

const NAMES: [(Digest, &str); 4] = [
    (Digest::Sha1, "sha1"),
    (Digest::Sha256, "sha256"),
    (Digest::Sha512, "sha512"),
    (Digest::Ripemd160, "ripemd160"),
];

impl Digest {
    /// The name in a header.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(digest, _)| *digest == self).map_or("", |(_, name)| name)
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(_, known)| *known == name).map(|(digest, _)| *digest)
    }

    /// All names, for messages.
    pub(crate) fn names() -> String {
        NAMES.map(|(_, name)| name).join(", ")
    }

    /// PBKDF2 (RFC 8018) by HMAC.
    pub(crate) fn pbkdf2(self, password: &[u8], salt: &[u8], iterations: u32, out: &mut [u8]) {
        match self {
            Digest::Sha1 => pbkdf2::pbkdf2_hmac::<Sha1>(password, salt, iterations, out),
            Digest::Sha256 => pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, out),
            Digest::Sha512 => pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, out),
            Digest::Ripemd160 => {
                pbkdf2::pbkdf2_hmac::<ripemd::Ripemd160>(password, salt, iterations, out);
            }
        }
    }

    /// The hash of the concatenation of `parts`.
    pub(crate) fn hash(self, parts: &[&[u8]]) -> Vec<u8> {
        match self {
            Digest::Sha1 => hash::<Sha1>(parts),
            Digest::Sha256 => hash::<Sha256>(parts),
            Digest::Sha512 => hash::<Sha512>(parts),
            Digest::Ripemd160 => hash::<ripemd::Ripemd160>(parts),
        }
    }

    /// Spreads every bit of `data` over a digest's length: block `n` becomes the hash of `n` and
    /// itself.
    pub(crate) fn diffuse(self, data: &mut [u8]) {
        match self {
            Digest::Sha1 => diffuse::<Sha1>(data),
            Digest::Sha256 => diffuse::<Sha256>(data),
            Digest::Sha512 => diffuse::<Sha512>(data),
            Digest::Ripemd160 => diffuse::<ripemd::Ripemd160>(data),
        }
    }
}

fn hash<D: sha2::Digest>(parts: &[&[u8]]) -> Vec<u8> {
    let mut digest = D::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize().to_vec()
}

fn diffuse<D: sha2::Digest>(data: &mut [u8]) {
    for (number, block) in (0u32..).zip(data.chunks_mut(<D as sha2::Digest>::output_size())) {
        let hash = D::new().chain_update(number.to_be_bytes()).chain_update(&*block).finalize();
        block.iter_mut().zip(&hash).for_each(|(byte, new)| *byte = *new);
    }
}

/// SHA-256, for ESSIV.
pub(crate) fn sha256(data: &[u8]) -> [u8; 32] {
    Sha256::digest(data).into()
}
