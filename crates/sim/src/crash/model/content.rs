// SPDX-License-Identifier: Apache-2.0
//! The content of sectors, which says whose it is.

/// The most bytes of a sector.
pub const MAX_SECTOR: usize = 512;
/// Whose content a sector has: the number of an operation, perhaps with [`SAME`], or one of
/// [`ZERO`], [`INITIAL`], [`BELOW`] and [`BASE`].
pub type Value = u32;
/// Zeroes.
pub const ZERO: Value = 0;
/// What was there at the beginning.
pub const INITIAL: Value = 1;
/// What is in the image or file below, where that has content.
pub const BELOW: Value = 1 << 30;
/// What is below that.
pub const BASE: Value = BELOW + 1;
/// With this bit, the content is the same in all sectors.
pub const SAME: Value = 1 << 31;

fn word(seed: u64, sector: u64, value: Value) -> u64 {
    let sector = if value & SAME == 0 { sector } else { u64::MAX };
    let mixed = (seed ^ sector.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The lower half says who, the upper half proves it.
    (mixed & 0xffff_ffff_0000_0000) | u64::from(value)
}

/// The bytes of a sector of operation `value`.
pub fn fill(seed: u64, sector: u64, value: Value, bytes: &mut [u8]) {
    if value == ZERO {
        return bytes.fill(0);
    }
    let word = word(seed, sector, value);
    for (i, chunk) in (0u64..).zip(bytes.chunks_exact_mut(8)) {
        chunk.copy_from_slice(&word.wrapping_add(i << 24).to_le_bytes());
    }
}

/// Whether a sector has the content of operation `value`.
fn holds(seed: u64, sector: u64, value: Value, bytes: &[u8]) -> bool {
    let word = word(seed, sector, value);
    (0u64..)
        .zip(bytes.chunks_exact(8))
        .all(|(i, chunk)| chunk == word.wrapping_add(i << 24).to_le_bytes())
}

/// For people.
pub(super) fn name(value: Value) -> String {
    match value {
        ZERO => "zeroes".to_owned(),
        INITIAL => "the content from the beginning".to_owned(),
        BELOW | BASE => "what is below it".to_owned(),
        value => format!("content of operation {value}"),
    }
}

/// Whose content a sector has, which is that of `sector` or of another (up to `sectors`).
pub(super) fn identify(
    seed: u64,
    sector: u64,
    sectors: u64,
    bytes: &[u8],
) -> Result<Value, String> {
    let first = u64::from_le_bytes(bytes.first_chunk::<8>().copied().unwrap_or_default());
    if first == 0 && bytes == &[0; MAX_SECTOR][..bytes.len()] {
        return Ok(ZERO);
    }
    let value = u32::try_from(first & 0xffff_ffff).unwrap_or(0);
    if value != ZERO && holds(seed, sector, value, bytes) {
        return Ok(value);
    }
    match (0..sectors).find(|&other| value != ZERO && holds(seed, other, value, bytes)) {
        Some(other) => Err(format!("content of sector {other}, of operation {value}")),
        None => Err(format!("no content of anyone: it begins with {:02x?}", &bytes[..16])),
    }
}
