// SPDX-License-Identifier: Apache-2.0
//! What was made of the session's disks (LUKS, LVM, md ...), and is to be there no more when it ends.
//!
//! On a machine of the client's own that is all that lies on its disks. On any other one, where other sessions and the
//! machine itself have devices too, it is what calls of this session have made ([`noting`]).

use crate::session::Session;
use ::teardown::{Layer, above};
use guest_error::{Errno, Error, Result};
use std::path::{Path, PathBuf};

/// What calls of the session have made, where that matters.
#[derive(Debug, Default)]
pub(crate) struct Made(Vec<Layer>);

/// Does what makes devices, and takes note of them.
pub(crate) fn noting<T>(
    s: &mut Session,
    work: impl FnOnce(&mut Session) -> Result<T>,
) -> Result<T> {
    if s.config().own_machine {
        return work(s);
    }
    let before = above(&disks(s));
    let done = work(s);
    let new = above(&disks(s)).into_iter().filter(|layer| !before.contains(layer));
    s.made().0.extend(new);
    done
}

/// Takes down what the session is to leave nothing of. What is still there is logged; the first one is the error.
pub(crate) fn take_down(s: &mut Session) -> Result<()> {
    if s.config().serves_machine() {
        return Ok(());
    }
    let (own_machine, disks) = (s.config().own_machine, disks(s));
    let made = std::mem::take(s.made());
    if above(&disks).is_empty() {
        return Ok(());
    }
    let left = ::teardown::take_down(&disks, |layer| own_machine || made.0.contains(layer));
    s.udev().changed();
    for device in &left {
        tracing::error!("{device}");
    }
    match left.first() {
        None => Ok(()),
        Some(device) => Err(Error::new(Errno::EBUSY, device.to_string())),
    }
}

/// Where sysfs has the client's disks.
fn disks(s: &mut Session) -> Vec<PathBuf> {
    let directory = |disk: &PathBuf| {
        let name = disk.file_name()?;
        std::fs::canonicalize(Path::new("/sys/class/block").join(name)).ok()
    };
    s.settled_devices().disks().iter().filter_map(directory).collect()
}
