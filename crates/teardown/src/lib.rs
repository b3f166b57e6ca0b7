// SPDX-License-Identifier: Apache-2.0
//! Takes down what was made of a session's disks: swap space, devices of the device mapper (LUKS, LVM, LDM) and
//! arrays of md, what was made last first.
//!
//! Directories of disks in sysfs go in, what could not be taken down comes out, each with what holds it. The
//! kernel's tables alone say what there is: it does not matter who made it, nor whether they are still alive. What
//! lies on other disks too is left alone.
//!
//! No program is run: the device mapper is told by ioctl, md through sysfs.

mod holders;
mod kernel;
mod layers;
mod mounts;
mod swaps;
mod watch;

pub use layers::{Kind, Layer, above};
pub use mounts::detach_below;
pub use swaps::{is_swapping, switch_off};
pub use watch::watched;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a device may be busy: udev looks at what is new for a moment.
const PATIENCE: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(20);

/// A device that could not be taken down.
#[derive(Debug)]
pub struct Left {
    /// It.
    pub layer: Layer,
    /// Why.
    pub error: io::Error,
    /// What holds it, as far as the kernel tells.
    pub holders: Vec<String>,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is still active: {}", self.layer, self.error)?;
        match &self.holders[..] {
            [] => Ok(()),
            holders => write!(f, "; held: {}", holders.join(", ")),
        }
    }
}

/// Takes down all that lies on these disks (directories of sysfs) and nothing else, as far as it `is_meant`. Yields
/// what is still there.
pub fn take_down(disks: &[PathBuf], is_meant: impl Fn(&Layer) -> bool) -> Vec<Left> {
    let layers = above(disks);
    let mut left = Vec::new();
    for layer in layers.into_iter().filter(is_meant) {
        let what = format!("taking down {layer}");
        match watched(&what, || remove(&layer)) {
            Ok(()) => tracing::info!(device = %layer, "taken down"),
            Err(error) => {
                let holders = holders::of(&layer);
                left.push(Left { layer, error, holders });
            }
        }
    }
    left
}

/// Takes down one, for which its users are waited for a moment.
fn remove(layer: &Layer) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match kernel::remove(layer) {
            // What lies on it goes no more: that was tried before.
            Err(e)
                if e.raw_os_error() == Some(libc::EBUSY)
                    && !layer.has_holders()
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(TICK);
            }
            // It is gone, by whatever way.
            Err(_) if !layer.is_there() => return Ok(()),
            done => return done,
        }
    }
}
