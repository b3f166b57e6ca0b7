// SPDX-License-Identifier: Apache-2.0
//! Programs that change what is on a device.

use crate::devices::Device;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::Result;

/// Runs one; what is on the device may be something else then. Errors name it.
pub(super) fn change(s: &mut Session, device: &Device, tool: Tool) -> Result<()> {
    let done = tool.ok().map_err(|e| e.within(device));
    s.udev().changed();
    done
}
