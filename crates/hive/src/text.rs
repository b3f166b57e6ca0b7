// SPDX-License-Identifier: Apache-2.0
//! Names and texts: Latin-1 or UTF-16, compared as Windows does, in capital letters.

use std::cmp::Ordering;

/// A name in a cell.
pub(crate) fn name(bytes: &[u8], narrow: bool) -> String {
    if narrow { bytes.iter().map(|&b| char::from(b)).collect() } else { utf16(bytes) }
}

/// UTF-16, little-endian; what is not text becomes U+FFFD.
pub fn utf16(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]));
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// A name as it goes into a cell, and whether that is Latin-1.
pub(crate) fn encoded(name: &str) -> (Vec<u8>, bool) {
    match name.chars().map(|c| u8::try_from(c).ok()).collect() {
        Some(narrow) => (narrow, true),
        None => (name.encode_utf16().flat_map(u16::to_le_bytes).collect(), false),
    }
}

/// The capital letter of a letter, where it is one letter.
fn upper(c: char) -> char {
    let mut all = c.to_uppercase();
    match (all.next(), all.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

/// The order of keys in a list.
pub(crate) fn order(a: &str, b: &str) -> Ordering {
    fn units(text: &str) -> impl Iterator<Item = u16> {
        let wide = |c| {
            let mut buffer = [0; 2];
            let units = upper(c).encode_utf16(&mut buffer);
            let n = units.len();
            buffer.into_iter().take(n)
        };
        text.chars().flat_map(wide)
    }
    units(a).cmp(units(b))
}

/// Whether two names are the same.
pub(crate) fn same(a: &str, b: &str) -> bool {
    a.chars().map(upper).eq(b.chars().map(upper))
}

/// What a list of kind `lf` says of a name: its first four letters.
pub(crate) fn hint(name: &str) -> [u8; 4] {
    let mut letters = name.chars().map(|c| u8::try_from(c).unwrap_or(0));
    std::array::from_fn(|_| letters.next().unwrap_or(0))
}

/// What a list of kind `lh` says of a name.
pub(crate) fn hash(name: &str) -> [u8; 4] {
    let mut buffer = [0; 2];
    let mut hash = 0_u32;
    for c in name.chars() {
        for unit in upper(c).encode_utf16(&mut buffer) {
            hash = hash.wrapping_mul(37).wrapping_add(u32::from(*unit));
        }
    }
    hash.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_latin1_has_are_narrow() {
        assert_eq!(encoded("Käse"), (b"K\xe4se".to_vec(), true));
        assert_eq!(encoded("\u{20ac}"), (vec![0xac, 0x20], false));
        assert_eq!(name(b"K\xe4se", true), "Käse");
        assert_eq!(name(&[0xac, 0x20], false), "\u{20ac}");
    }

    #[test]
    fn case_does_not_matter_and_the_order_is_that_of_capital_letters() {
        assert!(same("Straße", "STRAßE") && same("é", "É") && !same("a", "ab"));
        assert_eq!(order("a_b", "aB"), Ordering::Greater);
        assert_eq!(order("a", "B"), Ordering::Less);
        assert_eq!(hash("ab"), hash("AB"));
        assert_eq!(hint("abcde"), *b"abcd");
    }
}
