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
pub(super) use source::{damaged, read_struct, read_vec, unserved_io};

/// Whether a checksum is right. Fuzzers, which cannot make one, need none.
pub(super) fn is_right<T: PartialEq>(sum: T, told: T) -> bool {
    sum == told || cfg!(fuzzing)
}

/// A refusal of a damaged image that needs no field. Who opens the image says what helps.
pub(super) fn invalid_text(text: impl Into<String>) -> ErrorKind {
    ErrorKind::Invalid(text.into())
}

/// A refusal of an image that is as it should be, but of a kind that cannot be served; `text` says
/// what makes one of it that can. Who opens it makes [`ErrorKind::Invalid`] of this.
pub(super) fn unserved(text: impl Into<String>) -> ErrorKind {
    ErrorKind::Unsupported(text.into())
}

/// A refusal of something else than an image of a format.
pub(super) fn other(what: &str) -> ErrorKind {
    unserved(format!("it is not {what}; `file` tells what it is"))
}

/// A refusal of a damaged image: which layer, which field, its value, and what is wrong with it.
pub(super) fn invalid(layer: &str, field: &str, value: u64, why: &str) -> ErrorKind {
    ErrorKind::Invalid(format!("{layer}: {field} is {value}: {why}"))
}
