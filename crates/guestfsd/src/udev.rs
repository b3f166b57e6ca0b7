//! Waiting for udev, only when something changed.
//!
//! After a partition table or a device's contents were changed, udev makes and removes nodes and, to
//! look at the contents, opens the device for a moment: programs that want it for themselves would
//! find it busy. So what changes a device says so, and the next call that names or lists devices
//! waits; all other questions do not.

use crate::tool::Tool;
use std::cell::Cell;

/// What is known of udev.
#[derive(Debug, Default)]
pub struct Udev {
    changed: bool,
    present: Cell<Option<bool>>,
}

impl Udev {
    /// A device's contents or partitions may have changed.
    pub fn changed(&mut self) {
        self.changed = true;
    }

    /// Waits, if anything changed, until udev has seen to it. Yields whether it waited.
    pub fn settle(&mut self) -> bool {
        if !std::mem::take(&mut self.changed) || !self.present() {
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
