// SPDX-License-Identifier: Apache-2.0
//! The fields of a header, as they lie in the first cluster.

use zerocopy::byteorder::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The part that versions 2 and 3 share.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct V2 {
    pub(super) magic: U32,
    pub(super) version: U32,
    pub(super) backing_offset: U64,
    pub(super) backing_len: U32,
    pub(super) cluster_bits: U32,
    pub(super) size: U64,
    pub(super) crypt_method: U32,
    pub(super) l1_entries: U32,
    pub(super) l1_offset: U64,
    pub(super) reftable_offset: U64,
    pub(super) reftable_clusters: U32,
    pub(super) snapshots: U32,
    pub(super) snapshots_offset: U64,
}

/// What version 3 adds.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct V3 {
    pub(super) incompatible: U64,
    pub(super) compatible: U64,
    pub(super) autoclear: U64,
    pub(super) refcount_order: U32,
    pub(super) header_length: U32,
}

/// What follows if the header is longer than 104 bytes.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Additional {
    pub(super) compression_type: u8,
    pub(super) padding: [u8; 7],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ExtensionHead {
    pub(super) kind: U32,
    pub(super) len: U32,
}

pub(super) const V2_LENGTH: usize = size_of::<V2>();
pub(super) const V3_LENGTH: usize = V2_LENGTH + size_of::<V3>();
/// Length of the header that is written for version 3.
pub(super) const FULL_LENGTH: usize = V3_LENGTH + size_of::<Additional>();
