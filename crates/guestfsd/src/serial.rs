// SPDX-License-Identifier: Apache-2.0
//! Serial lines as channels: raw mode, so that every byte arrives as it was sent.

use guest_error::{Context, Result};
use rustix::termios::{OptionalActions, isatty, tcgetattr, tcsetattr};
use std::os::fd::AsFd;

/// Puts a terminal into raw mode; anything else stays as it is.
pub(crate) fn make_raw(channel: &impl AsFd, name: &str) -> Result<()> {
    if !isatty(channel) {
        return Ok(());
    }
    let mut settings = tcgetattr(channel).on(name)?;
    settings.make_raw();
    tcsetattr(channel, OptionalActions::Now, &settings).on(name)
}
