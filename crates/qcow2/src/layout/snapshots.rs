// SPDX-License-Identifier: Apache-2.0
//! What each record of the table of snapshots begins with (qcow2, "Snapshots"). In: its bytes. Out:
//! its fields, and how long the record is.
use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ErrorKind;
use crate::error::Refusal;

/// The most bytes of extra data (QEMU's limit).
const MAX_EXTRA: u32 = 1024;

/// The fields that each record has. Extra data, identifier and name follow.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Head {
    pub(crate) l1_offset: U64,
    pub(crate) l1_entries: U32,
    pub(crate) id_len: U16,
    pub(crate) name_len: U16,
    /// Since the beginning of 1970.
    pub(crate) seconds: U32,
    pub(crate) nanoseconds: U32,
    /// How long the virtual machine had run, in nanoseconds.
    pub(crate) clock: U64,
    /// Length of the machine's state in bytes, where the extra data has none.
    pub(crate) vm_state_size: U32,
    pub(crate) extra_len: U32,
}

impl Head {
    /// Length of what follows, in bytes: extra data, identifier, name.
    pub(crate) fn rest(&self) -> [usize; 3] {
        let extra = usize::try_from(self.extra_len.get()).unwrap_or(usize::MAX);
        [extra, self.id_len.get().into(), self.name_len.get().into()]
    }

    /// Where the next record begins, if this one, the `index`-th, is at `at`.
    ///
    /// # Errors
    /// What is wrong with the lengths, and what error that is.
    pub(crate) fn end(&self, at: u64, index: u32) -> Result<u64, (String, Refusal)> {
        if self.extra_len.get() > MAX_EXTRA {
            let extra = self.extra_len;
            let what = format!("the snapshot {index} has {extra} bytes of extra data");
            return Err((what, ErrorKind::unreadable));
        }
        if self.id_len.get() == 0 {
            // The number of records or a length in an earlier one is wrong: these bytes are no record.
            let what =
                format!("the snapshot {index}, whose record is at {at:#x}, has no identifier");
            return Err((what, ErrorKind::to_convert));
        }
        let rest = self.rest().iter().map(|len| *len as u64).sum::<u64>();
        let end = at.saturating_add(size_of::<Self>() as u64 + rest);
        Ok(end.checked_next_multiple_of(8).unwrap_or(u64::MAX))
    }
}
