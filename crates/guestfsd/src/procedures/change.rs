// SPDX-License-Identifier: Apache-2.0
//! Programs that change what is on devices, or which devices there are.

use crate::session::Session;
use crate::tool::Tool;
use guest_error::Result;
use std::ffi::OsStr;

/// Runs one; errors say what it was about.
pub(super) fn change(s: &mut Session, what: impl AsRef<OsStr>, tool: Tool) -> Result<()> {
    let done = tool.ok().map_err(|e| e.within(what));
    // Also where it failed: it may have come half-way.
    s.udev().changed();
    done
}
