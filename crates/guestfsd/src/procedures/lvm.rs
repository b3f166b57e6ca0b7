// SPDX-License-Identifier: Apache-2.0
//! LVM: physical volumes, groups, logical volumes, and which devices it sees.
//!
//! What the kernel's tables or a superblock say is answered from there; the program `lvm` ([`crate::lvm`]) is asked for
//! the rest, and makes all changes.

mod full;
mod groups;
mod metadata;
mod physical;
mod questions;
mod scan;
mod volumes;

pub(crate) use full::*;
pub(crate) use groups::*;
pub(crate) use metadata::*;
pub(crate) use physical::*;
pub(crate) use questions::*;
pub(crate) use scan::*;
pub(crate) use volumes::*;

use crate::lvm;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Error, Result};
use std::ffi::OsStr;

/// Runs a command that changes something; errors say what it was about.
fn change(s: &mut Session, command: Tool, what: impl AsRef<OsStr>) -> Result<()> {
    lvm::check_copies(s)?;
    change_named(s, command, what)
}

/// The same for a command that looks at groups alone that it names, and which are the session's.
fn change_named(s: &mut Session, command: Tool, what: impl AsRef<OsStr>) -> Result<()> {
    s.noting(|s| super::change::change(s, what, command))
}

/// A share of what is free, as `lvm` takes it.
fn percent_free(percent: i32) -> Result<String> {
    match percent {
        0..=100 => Ok(format!("{percent}%FREE")),
        _ => Err(Error::argument("percent", percent.to_string(), "must be from 0 to 100")),
    }
}
