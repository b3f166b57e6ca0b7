// SPDX-License-Identifier: Apache-2.0
//! Bugs that are planted to show that they are found: in the engine, or in the files below it.

/// A bug that is planted below the engine, which then breaks its promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A sync of any file is none.
    NoSync,
    /// A sync of the image is none: what a data file holds is stable, how to find it is not.
    NoImageSync,
    /// A sync of the data file is none.
    NoDataSync,
    /// Writes are acknowledged before they are done.
    EarlyAcknowledgement,
    /// Of a write into more than one sector, the last one is missing.
    TornWrite,
    /// A hole is not punched.
    NoPunch,
}

/// A bug, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Below the engine.
    Storage(Bug),
    /// In the engine.
    Engine(qcow2::Bug),
}

impl Planted {
    /// All of them, by the names for the command line.
    pub const ALL: [(&str, Planted); 20] = [
        ("no-sync", Planted::Storage(Bug::NoSync)),
        ("no-image-sync", Planted::Storage(Bug::NoImageSync)),
        ("no-data-sync", Planted::Storage(Bug::NoDataSync)),
        ("early-acknowledgement", Planted::Storage(Bug::EarlyAcknowledgement)),
        ("torn-write", Planted::Storage(Bug::TornWrite)),
        ("no-punch", Planted::Storage(Bug::NoPunch)),
        ("mapping-before-refcount", Planted::Engine(qcow2::Bug::MappingBeforeRefcount)),
        ("reuse-before-unmapping", Planted::Engine(qcow2::Bug::ReuseBeforeUnmapping)),
        ("half-table", Planted::Engine(qcow2::Bug::HalfTable)),
        ("freed-under-read", Planted::Engine(qcow2::Bug::FreedUnderRead)),
        ("evicted-dirty", Planted::Engine(qcow2::Bug::EvictedDirty)),
        ("flush-skips-data-file", Planted::Engine(qcow2::Bug::FlushSkipsDataFile)),
        ("copy-without-barrier", Planted::Engine(qcow2::Bug::CopyWithoutBarrier)),
        ("size-before-zeroes", Planted::Engine(qcow2::Bug::SizeBeforeZeroes)),
        ("acknowledged-early", Planted::Engine(qcow2::Bug::AcknowledgedEarly)),
        ("snapshot-before-refcounts", Planted::Engine(qcow2::Bug::SnapshotBeforeRefcounts)),
        ("freed-before-apply", Planted::Engine(qcow2::Bug::FreedBeforeApply)),
        ("flags-kept", Planted::Engine(qcow2::Bug::FlagsKept)),
        ("bitmap-unmarked", Planted::Engine(qcow2::Bug::BitmapUnmarked)),
        ("packed-before-refcount", Planted::Engine(qcow2::Bug::PackedBeforeRefcount)),
    ];

    /// The bug of this name.
    pub fn named(name: &str) -> Option<Planted> {
        Planted::ALL.iter().find(|(other, _)| *other == name).map(|&(_, bug)| bug)
    }

    pub(crate) fn of_storage(self) -> Option<Bug> {
        match self {
            Planted::Storage(bug) => Some(bug),
            Planted::Engine(_) => None,
        }
    }

    pub(crate) fn of_engine(self) -> Option<qcow2::Bug> {
        match self {
            Planted::Storage(_) => None,
            Planted::Engine(bug) => Some(bug),
        }
    }
}
