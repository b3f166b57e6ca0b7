// SPDX-License-Identifier: Apache-2.0
//! What was made of the session's disks (LUKS, LVM, md ...), and is to be there no more when it ends.
//!
//! On a machine of the client's own that is all that lies on its disks. On any other one, where other sessions and the
//! machine itself have devices too, it is what calls of this session have made
//! ([`Session::noting`](crate::session::Session::noting)).

use crate::devices::Devices;
use ::teardown::Layer;
use guest_error::{Errno, Error, Result};
use std::path::{Path, PathBuf};

/// What calls of the session have made, where that matters.
#[derive(Debug, Default)]
pub(crate) struct Made(Vec<Layer>);

impl Made {
    /// Takes note of what lies on the disks that did not before.
    pub(crate) fn note(&mut self, before: &[Layer], devices: &mut Devices) {
        self.0.extend(layers(devices).into_iter().filter(|layer| !before.contains(layer)));
    }

    /// Takes it down, or `everything` on the disks; says whether there was anything. What is still there is logged; the
    /// first one is the error.
    pub(crate) fn take_down(&self, devices: &mut Devices, everything: bool) -> Result<bool> {
        let disks = directories(devices);
        if ::teardown::above(&disks).is_empty() {
            return Ok(false);
        }
        let left = ::teardown::take_down(&disks, |layer| everything || self.0.contains(layer));
        for device in &left {
            tracing::error!("{device}");
        }
        match left.first() {
            None => Ok(true),
            Some(device) => Err(Error::new(Errno::EBUSY, device.to_string())),
        }
    }
}

/// What lies on the disks.
pub(crate) fn layers(devices: &mut Devices) -> Vec<Layer> {
    ::teardown::above(&directories(devices))
}

/// Where sysfs has the client's disks.
fn directories(devices: &mut Devices) -> Vec<PathBuf> {
    let directory = |disk: &PathBuf| {
        let name = disk.file_name()?;
        std::fs::canonicalize(Path::new("/sys/class/block").join(name)).ok()
    };
    devices.disks().iter().filter_map(directory).collect()
}
