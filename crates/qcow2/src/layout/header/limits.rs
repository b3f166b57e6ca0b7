// SPDX-License-Identifier: Apache-2.0
//! What a header may say: features that are known, and sizes and places within the format's and
//! QEMU's limits. In: a [`Header`]. Out: what is wrong with it.

use super::bits::{extension, incompatible};
use super::{Compression, Header, MAX_L1_BYTES, MAX_REFTABLE_BYTES, MAX_SNAPSHOTS};
use crate::ErrorKind;
use crate::error::{Refusal, cut_off};

impl Header {
    /// Whether the header lets the image be written.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`].
    pub fn check_writable(&self) -> Result<(), ErrorKind> {
        if self.needs(incompatible::CORRUPT) {
            return Err(ErrorKind::damaged("it is marked as corrupt (incompatible feature bit 1)"));
        }
        Ok(())
    }

    pub(super) fn check_features(&self, extensions: &[(u32, Vec<u8>)]) -> Result<(), ErrorKind> {
        let unknown = self.incompatible & !incompatible::KNOWN;
        if unknown != 0 {
            let bit = unknown.trailing_zeros();
            let names = extensions.iter().find(|(kind, _)| *kind == extension::FEATURE_NAMES);
            let name = names.and_then(|(_, table)| {
                let entries = table.as_chunks::<48>().0;
                let entry = entries.iter().find(|e| e[0] == 0 && u32::from(e[1]) == bit)?;
                let text = entry[2..].split(|&byte| byte == 0).next()?;
                Some(String::from_utf8_lossy(text).escape_debug().to_string())
            });
            let name = name.map(|name| format!(" \"{name}\"")).unwrap_or_default();
            return Err(ErrorKind::unknown(format_args!(
                "it needs the feature{name} (incompatible feature bit {bit}), which is not \
                 supported"
            )));
        }
        let typed = self.needs(incompatible::COMPRESSION_TYPE);
        if typed != (self.compression != Compression::Deflate) {
            return Err(ErrorKind::unreadable(format_args!(
                "its compression type ({:?}) and its feature bit of that name contradict",
                self.compression
            )));
        }
        Ok(())
    }

    pub(super) fn check_limits(&self) -> Result<(), ErrorKind> {
        if self.refcount_order > 6 {
            return Err(ErrorKind::unreadable(format_args!(
                "its refcount order is {}, and has to be at most 6",
                self.refcount_order
            )));
        }
        if self.needs(incompatible::EXTENDED_L2) && self.cluster_bits < 14 {
            return Err(ErrorKind::unreadable(format_args!(
                "it has subclusters, and clusters of {} bytes, which is less than 16 KiB",
                self.cluster_size()
            )));
        }
        if self.snapshots > MAX_SNAPSHOTS {
            return Err(ErrorKind::unreadable(format_args!(
                "it claims to have {} snapshots; {MAX_SNAPSHOTS} is the most",
                self.snapshots
            )));
        }
        let needed = self.l1_entries_for(self.size);
        if u64::from(self.l1_entries) * 8 > MAX_L1_BYTES || needed * 8 > MAX_L1_BYTES {
            return Err(ErrorKind::unreadable(format_args!(
                "its size of {} bytes, or its L1 table of {} entries, is too large",
                self.size, self.l1_entries
            )));
        }
        if u64::from(self.l1_entries) < needed {
            return Err(ErrorKind::unreadable(format_args!(
                "its L1 table of {} entries is too small for its size of {} bytes",
                self.l1_entries, self.size
            )));
        }
        let tables = [
            ("L1 table", self.l1_offset),
            ("refcount table", self.reftable_offset),
            ("snapshot table", self.snapshots_offset),
        ];
        for (name, offset) in tables {
            if !offset.is_multiple_of(self.cluster_size()) {
                return Err(ErrorKind::unreadable(format_args!(
                    "its {name} at {offset:#x} is not aligned to a cluster"
                )));
            }
        }
        if self.l1_entries > 0 && self.l1_offset == 0 {
            return Err(ErrorKind::unreadable("its L1 table is at 0, the place of the header"));
        }
        if self.snapshots > 0 && self.snapshots_offset == 0 {
            return Err(ErrorKind::to_convert(
                "its snapshot table is at 0, the place of the header",
            ));
        }
        if self.reftable_clusters == 0 || self.reftable_offset == 0 {
            return Err(ErrorKind::damaged(format_args!(
                "its refcount table of {} clusters at {:#x} is none",
                self.reftable_clusters, self.reftable_offset
            )));
        }
        if u64::from(self.reftable_clusters) << self.cluster_bits > MAX_REFTABLE_BYTES {
            return Err(ErrorKind::unreadable(format_args!(
                "its refcount table of {} clusters is too large",
                self.reftable_clusters
            )));
        }
        Ok(())
    }

    /// Checks that the tables are inside of a file of `len` bytes. It may end inside its last
    /// table: what is missing is zero, as in QEMU. But no more may be missing than an honest image
    /// lacks.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`].
    pub fn check_tables(&self, len: u64) -> Result<(), ErrorKind> {
        let cluster = self.cluster_size();
        let needed = self.l1_entries_for(self.size) * 8;
        // Refcounts can be made anew.
        let reftable = u64::from(self.reftable_clusters) << self.cluster_bits;
        let l1 = u64::from(self.l1_entries) * 8;
        let tables: [(_, _, _, _, Refusal); 2] = [
            ("L1 table", self.l1_offset, l1, cluster.max(needed), cut_off),
            ("refcount table", self.reftable_offset, reftable, cluster, ErrorKind::damaged),
        ];
        for (name, offset, bytes, missing, wrong) in tables {
            match offset.checked_add(bytes) {
                Some(end) if end <= len => {}
                Some(end) if offset < len && end - len <= missing => {}
                _ => {
                    return Err(wrong(format!(
                        "its {name} of {bytes} bytes at {offset:#x} lies outside of the file, \
                         which has {len} bytes"
                    )));
                }
            }
        }
        Ok(())
    }
}
