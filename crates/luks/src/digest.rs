// SPDX-License-Identifier: Apache-2.0
//! The hashes that a header can name, and what is derived by them.
use pbkdf2::hmac::{Hmac, SimpleHmac};
use pbkdf2::pbkdf2;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// Makes the hashes and their table: a row each, with the name in a header, what computes it, and the HMAC
/// that takes it: only some can keep what they have computed of a key.
macro_rules! digests {
    ($($(#[$doc:meta])* $digest:ident $name:literal $hash:ty, $hmac:ident;)+) => {
        /// A hash: any that cryptsetup makes volumes with.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Digest {
            $($(#[$doc])* $digest,)+
        }

        impl Digest {
            /// Every one, with its name in a header.
            pub(crate) const ALL: &[(Digest, &str)] = &[$((Digest::$digest, $name)),+];

            /// PBKDF2 (RFC 8018) by HMAC.
            pub(crate) fn pbkdf2(
                self,
                password: &[u8],
                salt: &[u8],
                iterations: u32,
                out: &mut [u8],
            ) {
                let derived = match self {
                    $(Digest::$digest => pbkdf2::<$hmac<$hash>>(password, salt, iterations, out),)+
                };
                derived.expect("HMAC takes keys of any length");
            }

            /// The hash of the concatenation of `parts`.
            pub(crate) fn hash(self, parts: &[&[u8]]) -> Vec<u8> {
                match self {
                    $(Digest::$digest => hash::<$hash>(parts),)+
                }
            }

            /// Spreads every bit of `data` over a digest's length: block `n` becomes the hash of `n`
            /// and itself.
            pub(crate) fn diffuse(self, data: &mut [u8]) {
                match self {
                    $(Digest::$digest => diffuse::<$hash>(data),)+
                }
            }
        }
    };
}

digests! {
    /// SHA-1.
    Sha1 "sha1" Sha1, Hmac;
    /// SHA-224.
    Sha224 "sha224" sha2::Sha224, Hmac;
    /// SHA-256.
    Sha256 "sha256" Sha256, Hmac;
    /// SHA-384.
    Sha384 "sha384" sha2::Sha384, Hmac;
    /// SHA-512.
    Sha512 "sha512" sha2::Sha512, Hmac;
    /// SHA-512/224.
    Sha512_224 "sha512-224" sha2::Sha512_224, Hmac;
    /// SHA-512/256.
    Sha512_256 "sha512-256" sha2::Sha512_256, Hmac;
    /// SHA3-224.
    Sha3_224 "sha3-224" sha3::Sha3_224, SimpleHmac;
    /// SHA3-256.
    Sha3_256 "sha3-256" sha3::Sha3_256, SimpleHmac;
    /// SHA3-384.
    Sha3_384 "sha3-384" sha3::Sha3_384, SimpleHmac;
    /// SHA3-512.
    Sha3_512 "sha3-512" sha3::Sha3_512, SimpleHmac;
    /// BLAKE2b with 512 bits.
    Blake2b "blake2b-512" blake2::Blake2b512, SimpleHmac;
    /// BLAKE2s with 256 bits.
    Blake2s "blake2s-256" blake2::Blake2s256, SimpleHmac;
    /// Whirlpool.
    Whirlpool "whirlpool" whirlpool::Whirlpool, Hmac;
    /// RIPEMD-160.
    Ripemd160 "ripemd160" ripemd::Ripemd160, Hmac;
    /// SM3.
    Sm3 "sm3" sm3::Sm3, Hmac;
    /// MD5.
    Md5 "md5" md5::Md5, Hmac;
}

impl Digest {
    /// The name in a header.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(digest, _)| *digest == self).map_or("", |(_, name)| name)
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(digest, _)| *digest)
    }

    /// All names, for messages.
    pub(crate) fn names() -> String {
        Self::ALL.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
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
