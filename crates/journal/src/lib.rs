// SPDX-License-Identifier: Apache-2.0
//! Journals of systemd: a reader of journal files.
//!
//! Files come in as sources of bytes ([`Journal::add`]); entries go out one after the other, in the order of time over
//! all files ([`Journal::next`], [`Journal::previous`]), each with its fields. What is read is described in systemd's
//! document "Journal File Format": a header; arrays of the offsets of entries, chained; entries, which lead to the data of
//! their fields, which may be compressed. Hash tables are not used: nothing is looked for by its content.
//!
//! A journal is the guest's and may be anything, or may not have been written to its end. Offsets, sizes and counts are
//! checked where they are read; entries and fields that make no sense are left out, as systemd's own reader does.

mod compression;
mod error;
mod file;
mod format;
#[doc(hidden)]
pub mod fuzz;
mod merge;
#[cfg(test)]
mod tests;

pub use error::{Error, Result};
pub use merge::Journal;
