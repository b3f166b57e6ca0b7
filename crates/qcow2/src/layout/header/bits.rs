// SPDX-License-Identifier: Apache-2.0
//! Numbers of a header that have names: feature bits, and types of extensions.

/// Bits of [`super::Header::incompatible`].
pub mod incompatible {
    /// Refcounts may be wrong.
    pub const DIRTY: u64 = 1;
    /// A structure is damaged; it may only be read.
    pub const CORRUPT: u64 = 1 << 1;
    /// Data is in another file.
    pub const DATA_FILE: u64 = 1 << 2;
    /// There is a compression type other than deflate.
    pub const COMPRESSION_TYPE: u64 = 1 << 3;
    /// L2 entries have 16 bytes and tell of 32 subclusters.
    pub const EXTENDED_L2: u64 = 1 << 4;
    /// All that this crate knows.
    pub const KNOWN: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION_TYPE | EXTENDED_L2;
}

/// Bits of [`super::Header::compatible`].
pub mod compatible {
    /// Refcounts are written late, while the dirty bit is set.
    pub const LAZY_REFCOUNTS: u64 = 1;
}

/// Bits of [`super::Header::autoclear`].
pub mod autoclear {
    /// The bitmaps of the extension are consistent with the data.
    pub const BITMAPS: u64 = 1;
    /// The external data file can be used without the image: offsets are the guest's.
    pub const RAW_DATA_FILE: u64 = 1 << 1;
    /// Of this crate: the image was closed, and nobody has written to it since. The highest bit:
    /// the format gives them out from the lowest on.
    pub const CLEAN: u64 = 1 << 63;
}

/// Types of header extensions.
pub mod extension {
    /// Ends the list.
    pub const END: u32 = 0;
    /// The format of the backing file.
    pub const BACKING_FORMAT: u32 = 0xe279_2aca;
    /// Names of feature bits.
    pub const FEATURE_NAMES: u32 = 0x6803_f857;
    /// Persistent bitmaps.
    pub const BITMAPS: u32 = 0x2385_2875;
    /// Where the LUKS header is.
    pub const FULL_DISK_ENCRYPTION: u32 = 0x0537_be77;
    /// The name of the external data file.
    pub const DATA_FILE: u32 = 0x4441_5441;
    /// All that this crate knows.
    pub const KNOWN: &[u32] =
        &[BACKING_FORMAT, FEATURE_NAMES, BITMAPS, FULL_DISK_ENCRYPTION, DATA_FILE];
}
