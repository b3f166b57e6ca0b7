// SPDX-License-Identifier: Apache-2.0
//! The table of snapshots (qcow2, "Snapshots"). In: where it is in the file. Out: its records; and
//! the bytes of a table with one more, or one less. What of a record is not known here, as later
//! versions may have added it, is kept as it is.
use std::time::Duration;

use sgl::Sgl;
use zerocopy::{FromZeros, IntoBytes};

use super::Snapshot;
use crate::error::Result;
use crate::layout::entry::OFFSET_MASK;
use crate::layout::header::MAX_SNAPSHOTS;
use crate::layout::snapshots::Head;
use crate::{ErrorKind, Storage};

/// The longest table in bytes (QEMU's limit).
const MAX_TABLE: u64 = 64 << 20;
/// The longest name in bytes (QEMU's limit).
const MAX_NAME: usize = 255;
/// How many snapshots an error names.
const NAMED: usize = 16;

/// A record of the table.
pub(crate) struct Record {
    pub(crate) snapshot: Snapshot,
    /// As in the file, without what fills it up to a multiple of 8.
    bytes: Vec<u8>,
}

/// All of a table.
pub(crate) struct Table {
    /// Offset in the file.
    pub(crate) offset: u64,
    pub(crate) records: Vec<Record>,
}

impl Record {
    /// The record at `at` of the file, the `index`-th. `size` is the disk's, where it tells none.
    async fn read(storage: &impl Storage, at: u64, index: u32, size: u64) -> Result<Self> {
        let mut head = Head::new_zeroed();
        storage.read(&Sgl::from_slice(head.as_mut_bytes()), at).await?;
        head.end(at, index).map_err(|(what, refusal)| refusal(what))?;
        let [extra, id, name] = head.rest();
        let mut rest = vec![0; extra + id + name];
        if !rest.is_empty() {
            let start = at + size_of::<Head>() as u64;
            storage.read(&Sgl::from_slice(&mut rest), start).await?;
        }
        let (extra, names) = rest.split_at(extra);
        let (id, name) = names.split_at(id);
        let field = |start: usize| {
            extra.get(start..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let snapshot = Snapshot {
            id: text(id),
            name: text(name),
            date: Duration::from_secs(head.seconds.get().into())
                + Duration::from_nanos(head.nanoseconds.get().into()),
            clock: Duration::from_nanos(head.clock.get()),
            // All ones where instructions were not counted.
            icount: field(16).filter(|count| *count != u64::MAX),
            vm_state_size: field(0).unwrap_or_else(|| head.vm_state_size.get().into()),
            disk_size: field(8).unwrap_or(size),
            l1_offset: head.l1_offset.get(),
            l1_entries: head.l1_entries.get(),
        };
        Ok(Record { snapshot, bytes: [head.as_bytes(), &rest].concat() })
    }

    /// The record of a new snapshot of a disk, without a virtual machine's state.
    pub(crate) fn new(snapshot: Snapshot) -> Result<Self> {
        let Snapshot { id, name, .. } = &snapshot;
        if name.len() > MAX_NAME || name.contains('\0') {
            return Err(ErrorKind::Unsupported(format!(
                "the name has {} bytes; it has to have at most {MAX_NAME}, and no NUL among them",
                name.len()
            )));
        }
        let Ok(seconds) = u32::try_from(snapshot.date.as_secs()) else {
            return Err(ErrorKind::Unsupported(format!(
                "the date, {} seconds after the beginning of 1970, does not fit in 32 bits",
                snapshot.date.as_secs()
            )));
        };
        let len = |text: &str| u16::try_from(text.len()).unwrap_or(u16::MAX).into();
        let icount = snapshot.icount.unwrap_or(u64::MAX);
        let extra = [snapshot.vm_state_size, snapshot.disk_size, icount].map(u64::to_be_bytes);
        let extra = extra.as_flattened();
        let head = Head {
            l1_offset: snapshot.l1_offset.into(),
            l1_entries: snapshot.l1_entries.into(),
            id_len: len(id),
            name_len: len(name),
            seconds: seconds.into(),
            nanoseconds: snapshot.date.subsec_nanos().into(),
            clock: 0.into(),
            vm_state_size: 0.into(),
            extra_len: u32::try_from(extra.len()).unwrap_or(u32::MAX).into(),
        };
        let bytes = [head.as_bytes(), extra, id.as_bytes(), name.as_bytes()].concat();
        Ok(Record { snapshot, bytes })
    }
}

impl Table {
    /// The table of `count` records at `offset`. `size` is that of the disk now.
    pub(crate) async fn read(
        storage: &impl Storage,
        offset: u64,
        count: u32,
        size: u64,
    ) -> Result<Self> {
        let mut table = Table { offset, records: Vec::new() };
        if count > 0 && offset & !OFFSET_MASK != 0 {
            return Err(ErrorKind::damaged(format_args!(
                "its table of snapshots is at {offset:#x}, where nothing can be"
            )));
        }
        let mut at = offset;
        for index in 0..count {
            if at - offset > MAX_TABLE {
                return Err(ErrorKind::damaged(format_args!(
                    "its table of {count} snapshots is longer than {MAX_TABLE} bytes"
                )));
            }
            let record = Record::read(storage, at, index, size).await?;
            at = (at + record.bytes.len() as u64).next_multiple_of(8);
            table.records.push(record);
        }
        Ok(table)
    }

    /// As it is in the file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for record in &self.records {
            bytes.extend_from_slice(&record.bytes);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        bytes
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> u64 {
        let lens = self.records.iter().map(|record| record.bytes.len().next_multiple_of(8) as u64);
        lens.sum()
    }

    /// The number of its records.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.records.len()).unwrap_or(u32::MAX)
    }

    /// Appends a record.
    pub(crate) fn push(&mut self, record: Record) -> Result<()> {
        if self.count() >= MAX_SNAPSHOTS || self.len() + record.bytes.len() as u64 > MAX_TABLE {
            return Err(ErrorKind::Unsupported(format!(
                "it has {} snapshots in a table of {} bytes, and at most {MAX_SNAPSHOTS} in \
                 {MAX_TABLE} bytes can be; delete some (`qemu-img snapshot -d ID PATH`)",
                self.count(),
                self.len()
            )));
        }
        self.records.push(record);
        Ok(())
    }

    /// The identifier of the next snapshot: one more than the highest number, as in QEMU.
    pub(crate) fn next_id(&self) -> Result<String> {
        let ids = self.records.iter().filter_map(|record| record.snapshot.id.parse::<u64>().ok());
        let next = ids.max().unwrap_or(0).checked_add(1);
        next.map(|id| id.to_string()).ok_or_else(|| {
            let text = format!("a snapshot has the highest identifier, {}, already", u64::MAX);
            ErrorKind::Unsupported(text)
        })
    }

    /// The index of the snapshot that has this identifier, or, if none has, this name: as QEMU looks
    /// for one that is applied or read.
    pub(crate) fn find(&self, wanted: &str) -> Result<usize> {
        let found = self.position(|s| s.id == wanted).or(self.position(|s| s.name == wanted));
        found.ok_or_else(|| ErrorKind::Unsupported(self.unknown(wanted)))
    }

    /// The index of the snapshot that has this name, or, if none has, this identifier: where QEMU
    /// deletes one, it looks for names.
    pub(crate) fn find_to_delete(&self, wanted: &str) -> Result<usize> {
        let named = self.position(|s| s.name == wanted);
        named.map_or_else(|| self.find(wanted), Ok)
    }

    fn position(&self, is: impl Fn(&Snapshot) -> bool) -> Option<usize> {
        self.records.iter().position(|record| is(&record.snapshot))
    }

    fn unknown(&self, wanted: &str) -> String {
        let names = self.records.iter().take(NAMED);
        let names = names.map(|record| {
            let Snapshot { id, name, .. } = &record.snapshot;
            format!("{} ({name:?})", id.escape_debug())
        });
        let names = names.collect::<Vec<_>>().join(", ");
        let more = self.records.len().saturating_sub(NAMED);
        let there = match (self.records.len(), more) {
            (0, _) => "it has none".into(),
            (_, 0) => format!("it has {names}"),
            _ => format!("it has {names}, and {more} more (`qemu-img snapshot -l PATH`)"),
        };
        format!("it has no snapshot with the identifier or name {wanted:?}; {there}")
    }
}
