// SPDX-License-Identifier: Apache-2.0
//! Programs whose output is a file for the client.

use crate::devices::Device;
use crate::tool::Tool;
use crate::transfer::FileOut;
use guest_error::{Result, from_io};
use std::io::{Read, Write};

/// Sends what a program writes. Errors name the device.
pub(super) fn send(
    tool: Tool,
    input: &mut dyn Read,
    device: &Device,
    to: &mut FileOut<'_>,
) -> Result<()> {
    let output =
        tool.stream(input, &mut |piece| to.write_all(piece).map_err(|e| from_io(e, device)))?;
    output.success().map_err(|e| e.within(device)).map(drop)
}
