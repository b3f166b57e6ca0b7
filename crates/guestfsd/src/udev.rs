// SPDX-License-Identifier: Apache-2.0
//! Waiting for udev, only when something changed.
//!
//! After a partition table or a device's contents were changed, udev makes and removes nodes and, to
//! look at the contents, opens the device for a moment: programs that want it for themselves would
//! find it busy. So what changes a device says so, and the next call that names or lists devices
//! waits; all other questions do not.
//!
//! Where something other than udev makes the nodes (guestfs-novm), there is a socket in its place, named by
//! `GUESTFSD_SETTLE`, which is hung up when all is up to date.

use crate::tool::Tool;
use std::cell::Cell;
use std::io::Read;
use std::os::unix::net::UnixStream;

/// The variable that names the socket to wait at in place of udev.
const VARIABLE: &str = "GUESTFSD_SETTLE";

/// What is known of udev.
#[derive(Debug, Default)]
pub(crate) struct Udev {
    changed: bool,
    present: Cell<Option<bool>>,
}

impl Udev {
    /// A device's contents or partitions may have changed.
    pub(crate) fn changed(&mut self) {
        self.changed = true;
    }

    /// Waits, if anything changed, until udev has seen to it. Returns whether it waited.
    pub(crate) fn settle(&mut self) -> bool {
        if !std::mem::take(&mut self.changed) {
            return false;
        }
        if let Some(socket) = std::env::var_os(VARIABLE) {
            let hung_up =
                UnixStream::connect(&socket).and_then(|mut s| s.read_to_end(&mut Vec::new()));
            if let Err(e) = hung_up {
                tracing::warn!(socket = %socket.to_string_lossy(), error = %e, "waiting for devices");
            }
            return true;
        }
        if !self.present() {
            return false;
        }
        if let Err(e) = Tool::new("udevadm").arg("settle").ok() {
            tracing::warn!(error = %e, "waiting for udev");
        }
        true
    }

    fn present(&self) -> bool {
        if let Some(present) = self.present.get() {
            return present;
        }
        let present = crate::tool::find("udevadm").is_some();
        self.present.set(Some(present));
        present
    }
}
