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

/// What there is to take down.
#[derive(Debug)]
pub(crate) enum Made {
    /// All that lies on the disks: nobody else uses the machine.
    Everything,
    /// What calls of the session have made.
    Noted(Vec<Layer>),
}

impl Made {
    /// Nothing yet.
    pub(crate) fn new(own_machine: bool) -> Self {
        if own_machine { Self::Everything } else { Self::Noted(Vec::new()) }
    }

    /// What lies on the disks, where that has to be known before and after a call that makes devices.
    pub(crate) fn layers(&self, devices: &mut Devices) -> Vec<Layer> {
        match self {
            Self::Everything => Vec::new(),
            Self::Noted(_) => ::teardown::above(&directories(devices)),
        }
    }

    /// Takes note of what lies on the disks that did not before.
    pub(crate) fn note(&mut self, before: &[Layer], devices: &mut Devices) {
        let now = self.layers(devices);
        if let Self::Noted(noted) = self {
            noted.extend(now.into_iter().filter(|layer| !before.contains(layer)));
        }
    }

    /// Takes it down; says whether there was anything. What is still there is logged; the first one is the error.
    pub(crate) fn take_down(&mut self, devices: &mut Devices) -> Result<bool> {
        let disks = directories(devices);
        if ::teardown::above(&disks).is_empty() {
            return Ok(false);
        }
        let left = ::teardown::take_down(&disks, |layer| match &*self {
            Self::Everything => true,
            Self::Noted(noted) => noted.contains(layer),
        });
        for device in &left {
            tracing::error!("{device}");
        }
        match left.first() {
            None => Ok(true),
            Some(device) => Err(Error::new(Errno::EBUSY, device.to_string())),
        }
    }
}

/// Where sysfs has the client's disks.
fn directories(devices: &mut Devices) -> Vec<PathBuf> {
    let directory = |disk: &PathBuf| {
        let name = disk.file_name()?;
        std::fs::canonicalize(Path::new("/sys/class/block").join(name)).ok()
    };
    devices.disks().iter().filter_map(directory).collect()
}
