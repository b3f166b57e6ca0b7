// SPDX-License-Identifier: Apache-2.0
//! Where guest data and tables may be in the image's file. In: the place that an entry names. Out:
//! nothing, or an error that marks the image as corrupt if it may be written to.
//!
//! Rule: **nothing is read from past the end of the file.** Whoever made the mapping had made the
//! file as long before, preallocated clusters too; so the file was cut off, or not wholly copied,
//! and what is missing is not zero. But a file may end inside of its last cluster, the rest of which
//! is zero.
use std::fmt::Display;

use crate::ErrorKind;
use crate::core::Core;
use crate::error::{Result, cut_off};
use crate::storage::Storage;

impl<S: Storage + 'static> Core<S> {
    /// Whether guest data may be read from a range of the image's file, as far as that is known
    /// without asking for its length.
    pub(crate) fn is_data(&self, host: u64, len: u64) -> bool {
        self.geo.data_file || self.is_covered(host, len) && self.overlapped(host, len).is_none()
    }

    /// As [`is_data`](Self::is_data), or what is wrong; `pos` is where it is for the guest.
    #[cold]
    pub(crate) async fn check_data(&self, host: u64, len: u64, pos: u64) -> Result<()> {
        let cluster = self.geo.cluster_size();
        let what = |pos: u64| format!("the cluster at {:#x}", pos & !(cluster - 1));
        if let Some(other) = self.overlapped(host, len) {
            return Err(ErrorKind::damaged(format_args!(
                "{} refers to {host:#x} in the file, where the {other} of the image is",
                what(pos)
            )));
        }
        // Of a run of clusters, the first that is missing.
        let there = self.storage.length().await?;
        let missing = there.next_multiple_of(cluster).max(host);
        if missing >= host.saturating_add(len) {
            return Ok(());
        }
        self.check_inside(missing, 1, what(pos + (missing - host))).await
    }

    /// Refuses what begins in a cluster past the end of the file, or reaches one.
    pub(crate) async fn check_inside(&self, host: u64, len: u64, what: impl Display) -> Result<()> {
        if self.is_covered(host, len) {
            return Ok(());
        }
        let last =
            host.saturating_add(len.saturating_sub(1)).max(host) & !(self.geo.cluster_size() - 1);
        let there = self.storage.length().await?;
        if last.max(host) < there {
            return Ok(());
        }
        Err(cut_off(format_args!(
            "{what} is at {host:#x} in the file, past its end: it has {there} bytes"
        )))
    }

    fn is_covered(&self, host: u64, len: u64) -> bool {
        host.saturating_add(len.saturating_sub(1)) >> self.geo.cluster_bits < self.end.get()
    }

    /// Which of the tables that are in memory wholly is in a range of the file.
    pub(crate) fn overlapped(&self, host: u64, len: u64) -> Option<&'static str> {
        let end = host.saturating_add(len);
        let overlaps = |offset: u64, len: u64| offset < end && host < offset.saturating_add(len);
        if host < self.geo.cluster_size() {
            return Some("header");
        }
        let l1 = self.l1.borrow();
        if overlaps(l1.offset, l1.len as u64 * 8) {
            return Some("L1 table");
        }
        let table = self.reftable.borrow();
        overlaps(table.offset, table.len as u64 * 8).then_some("refcount table")
    }
}
