// SPDX-License-Identifier: Apache-2.0
//! Bugs of the kind that engines like this one had, to show that the tests find them. They exist
//! with the feature `planted` alone, which no product has.
use crate::core::Core;
use crate::storage::Storage;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A mapping is used before the refcount of its cluster is on stable storage.
    MappingBeforeRefcount,
    /// A freed cluster is used again before its unmapping is on stable storage.
    ReuseBeforeUnmapping,
    /// Of a table's changed sectors one is not written.
    HalfTable,
    /// A cluster is freed while reads of it are in flight.
    FreedUnderRead,
    /// An L2 table leaves the cache while it differs from the file.
    EvictedDirty,
    /// A flush does not sync the external data file.
    FlushSkipsDataFile,
    /// A cluster that was copied is mapped before it is on stable storage.
    CopyWithoutBarrier,
    /// The size is written before what is new reads as zeroes.
    SizeBeforeZeroes,
    /// A write is acknowledged although the mapping that it relies on is not in the file.
    AcknowledgedEarly,
    /// The header refers to a snapshot before the refcounts of what it has are raised.
    SnapshotBeforeRefcounts,
    /// What the disk had is freed before the header refers to the snapshot that is applied.
    FreedBeforeApply,
    /// What a snapshot has keeps the flags that promise a single owner.
    FlagsKept,
    /// Guest data is written while the mark that a bitmap does not count is in memory alone.
    BitmapUnmarked,
    /// Compressed clusters are placed where the refcounts that they need are in memory alone.
    PackedBeforeRefcount,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 14] = [
        Bug::MappingBeforeRefcount,
        Bug::ReuseBeforeUnmapping,
        Bug::HalfTable,
        Bug::FreedUnderRead,
        Bug::EvictedDirty,
        Bug::FlushSkipsDataFile,
        Bug::CopyWithoutBarrier,
        Bug::SizeBeforeZeroes,
        Bug::AcknowledgedEarly,
        Bug::SnapshotBeforeRefcounts,
        Bug::FreedBeforeApply,
        Bug::FlagsKept,
        Bug::BitmapUnmarked,
        Bug::PackedBeforeRefcount,
    ];
}

impl<S: Storage + 'static> Core<S> {
    /// Whether the image has a bug.
    #[cfg(feature = "planted")]
    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.planted == Some(bug)
    }

    /// Whether the image has a bug: no.
    #[cfg(not(feature = "planted"))]
    #[allow(clippy::unused_self)]
    pub(crate) const fn has(&self, _: Bug) -> bool {
        false
    }
}
