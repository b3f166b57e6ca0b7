// SPDX-License-Identifier: Apache-2.0
//! What the formats that are only read are made of.
//!
//! - `source`: what an image lies on.
//! - `cache`: pieces of bytes that are kept in memory, slices of tables among them.
//! - `layout`: reading images whose tables say where each block is.
//!
//! Nothing in an image decides how much memory it takes: tables are read in slices, and what has to
//! be in memory as a whole has a limit.
mod cache;
mod layout;
mod source;

use crate::ErrorKind;
pub(super) use cache::{Cache, Tables};
pub(super) use layout::{Layout, Packed, Target, map, read};
pub(crate) use source::{Bytes, FileSource, Source};
pub(super) use source::{damaged, read_struct, read_vec};

/// Whether a checksum is right. Fuzzers, which cannot make one, need none.
pub(super) fn is_right<T: PartialEq>(sum: T, told: T) -> bool {
    sum == told || cfg!(fuzzing)
}

/// A refusal that needs no field.
pub(super) fn invalid_text(text: impl Into<String>) -> ErrorKind {
    ErrorKind::Invalid(text.into())
}

/// A refusal: which layer, which field, its value, and what is wrong with it.
pub(super) fn invalid(layer: &str, field: &str, value: u64, why: &str) -> ErrorKind {
    ErrorKind::Invalid(format!("{layer}: {field} is {value}: {why}"))
}
