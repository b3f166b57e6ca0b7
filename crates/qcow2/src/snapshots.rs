// SPDX-License-Identifier: Apache-2.0
//! Internal snapshots as their table tells of them (qcow2, "Snapshots"). In: a storage. Out: a list;
//! nothing is written.
use std::time::Duration;

use sgl::Sgl;

use crate::error::Result;
use crate::layout::header::Header;
use crate::{Error, ErrorKind, Storage};

/// Length of the fields that each entry has, in bytes.
const FIXED: usize = 40;
/// The most bytes of fields that later versions added (QEMU's limit).
const MAX_EXTRA: usize = 1024;
/// The longest table of snapshots in bytes (QEMU's limit).
const MAX_TABLE: u64 = 64 << 20;

/// A snapshot inside of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// What identifies it, mostly a number.
    pub id: String,
    /// Its name, which others may have as well.
    pub name: String,
    /// When it was made, since the beginning of 1970 (UTC).
    pub date: Duration,
    /// How long the virtual machine had run.
    pub clock: Duration,
    /// How many instructions it had executed, where they were counted.
    pub icount: Option<u64>,
    /// Bytes of the virtual machine's state; 0 if only the disk is saved.
    pub vm_state_size: u64,
    /// Virtual size of the disk in bytes.
    pub disk_size: u64,
    /// Offset of its L1 table in the file.
    pub l1_offset: u64,
    /// Number of entries of that.
    pub l1_entries: u32,
}

/// The snapshots of the image on `storage`, in the order of their table.
///
/// # Errors
/// [`ErrorKind::Invalid`] when the header or the table is damaged.
pub async fn list<S: Storage>(storage: &S) -> std::result::Result<Vec<Snapshot>, Error> {
    let header = Header::read(storage).await?;
    let read = read(storage, &header).await;
    read.map_err(|kind| Error::new(kind, "list the snapshots"))
}

async fn read<S: Storage>(storage: &S, header: &Header) -> Result<Vec<Snapshot>> {
    let mut found = Vec::new();
    let start = header.snapshots_offset;
    let mut at = start;
    for index in 0..header.snapshots {
        if at - start > MAX_TABLE {
            return Err(ErrorKind::damaged(format_args!(
                "its table of {} snapshots is longer than {MAX_TABLE} bytes",
                header.snapshots
            )));
        }
        let mut head = [0; FIXED];
        storage.read(&Sgl::from_slice(&mut head), at).await?;
        let (id, name) = (number(&head, 12, 2), number(&head, 14, 2));
        let extra = number(&head, 36, 4);
        let lengths = [extra, id, name].map(|len| usize::try_from(len).unwrap_or(usize::MAX));
        let [extra, id, name] = lengths;
        if extra > MAX_EXTRA {
            return Err(ErrorKind::damaged(format_args!(
                "the snapshot {index} has {extra} bytes of extra data"
            )));
        }
        let mut rest = vec![0; extra + id + name];
        if !rest.is_empty() {
            storage.read(&Sgl::from_slice(&mut rest), at + FIXED as u64).await?;
        }
        let (extra, names) = rest.split_at(extra);
        let (id, name) = names.split_at(id);
        let field = |start: usize| (extra.len() >= start + 8).then(|| number(extra, start, 8));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // QEMU writes all ones where instructions were not counted.
        let icount = field(16).filter(|count| *count != u64::MAX);
        found.push(Snapshot {
            id: text(id),
            name: text(name),
            date: Duration::from_secs(number(&head, 16, 4))
                + Duration::from_nanos(number(&head, 20, 4)),
            clock: Duration::from_nanos(number(&head, 24, 8)),
            icount,
            vm_state_size: field(0).unwrap_or_else(|| number(&head, 32, 4)),
            disk_size: field(8).unwrap_or(header.size),
            l1_offset: number(&head, 0, 8),
            l1_entries: u32::try_from(number(&head, 8, 4)).unwrap_or(0),
        });
        at = (at + (FIXED + rest.len()) as u64).next_multiple_of(8);
    }
    Ok(found)
}

/// A number in the order of big endian.
fn number(bytes: &[u8], start: usize, len: usize) -> u64 {
    let bytes = bytes.get(start..start + len).unwrap_or_default();
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
