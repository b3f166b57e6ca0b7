// SPDX-License-Identifier: Apache-2.0
//! The anti-forensic splitter (specification 2.4): a key spread over so many bytes that it is gone
//! when any part of them is.
use zeroize::Zeroizing;

use crate::digest::Digest;

fn xor(into: &mut [u8], other: &[u8]) {
    into.iter_mut().zip(other).for_each(|(a, b)| *a ^= b);
}

/// What all stripes but the last make of themselves.
fn fold(stripes: &[u8], key_len: usize, digest: Digest) -> Zeroizing<Vec<u8>> {
    let mut folded = Zeroizing::new(vec![0; key_len]);
    for stripe in stripes.chunks_exact(key_len) {
        xor(&mut folded, stripe);
        digest.diffuse(&mut folded);
    }
    folded
}

/// The key of `split`, which is stripes of the key's length.
pub(crate) fn merge(split: &[u8], key_len: usize, digest: Digest) -> Zeroizing<Vec<u8>> {
    let (rest, last) = split.split_at(split.len().saturating_sub(key_len));
    let mut key = fold(rest, key_len, digest);
    xor(&mut key, last);
    key
}

/// Spreads `key` over `split`, which is filled with random bytes and a multiple of its length.
pub(crate) fn split(key: &[u8], split: &mut [u8], digest: Digest) {
    let (rest, last) = split.split_at_mut(split.len().saturating_sub(key.len()));
    last.copy_from_slice(&fold(rest, key.len(), digest));
    xor(last, key);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_merged_from_what_it_was_split_into_and_from_nothing_less() {
        for &(digest, _) in Digest::ALL {
            for key_len in [16, 32, 64] {
                let key: Vec<u8> = (1..).take(key_len).collect();
                let mut bytes: Vec<u8> = (0u8..=255).cycle().take(key_len * 40).collect();
                split(&key, &mut bytes, digest);
                assert_eq!(*merge(&bytes, key_len, digest), key);
                bytes[key_len * 20] ^= 1;
                assert_ne!(*merge(&bytes, key_len, digest), key);
            }
        }
    }
}
