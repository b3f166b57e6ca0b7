// SPDX-License-Identifier: Apache-2.0
//! What handlers are asked for: operations of commands, and changes of devices.
use std::ffi::CString;

/// What a handler is asked to do with a command's memory. Offsets and lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Whatever the CDB says.
    HandleCommand,
    /// Fill the buffer from `offset`.
    Read {
        /// Where from.
        offset: u64,
    },
    /// Write the buffer at `offset`.
    Write {
        /// Where to.
        offset: u64,
    },
    /// Bring everything to stable storage.
    Flush,
    /// Give up the space of a range.
    Unmap {
        /// Its start.
        offset: u64,
        /// Its length.
        len: u64,
    },
    /// Write the buffer, a block, all over a range.
    WriteSame {
        /// Its start.
        offset: u64,
        /// Its length.
        len: u64,
    },
    /// Compare the first half of the buffer with what is at `offset`, then write the second.
    CompareAndWrite {
        /// Where.
        offset: u64,
        /// Of a half.
        len: u64,
    },
}

/// A change of a device that a handler is asked to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Another configuration string.
    Config(CString),
    /// Another size, in bytes.
    Size(u64),
    /// A write cache, or none.
    WriteCache(bool),
}
