// SPDX-License-Identifier: Apache-2.0
//! What persistent bitmaps have to say: one that counts has the bit of every granule that content
//! was written to, or that has another content than at the beginning.
use super::{Model, identify};
use crate::crash::check::bitmaps::Bitmap;

impl Model {
    /// Judges a bitmap that was found together with a disk's content.
    ///
    /// # Errors
    /// What it does not tell.
    pub fn judge_bitmap(&self, bitmap: &Bitmap, bytes: &[u8]) -> Result<(), String> {
        if !bitmap.counts() || !bitmap.tracks() {
            return Ok(());
        }
        let sectors = self.sectors.len() as u64;
        for (sector, bytes) in (0..).zip(bytes.chunks(self.unit)) {
            let at = sector * self.unit as u64;
            if bitmap.has(at) {
                continue;
            }
            let then = self.changed.get(super::index(sector)).copied();
            let now = identify(self.seed, sector, sectors, bytes);
            // What is past the end at the beginning is new.
            if then.is_none_or(|(value, written)| written || now != Ok(value)) {
                return Err(format!(
                    "sector {sector} has changed, and the bitmap {:?} does not tell",
                    bitmap.name
                ));
            }
        }
        Ok(())
    }
}
