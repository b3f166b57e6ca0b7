// SPDX-License-Identifier: Apache-2.0
//! The kernel's TCM-User interface (`linux/target_core_user.h`, mailbox version 2): everything that
//! passes between the kernel's target and a daemon that serves its logical units.
//!
//! - [`uio`] finds the devices that wait to be served, [`netlink`] reports when one is added,
//!   removed or changed, [`configfs`] reads and sets their attributes, [`module`] loads the kernel
//!   module.
//! - [`Ring`] is one device's shared memory: [`Entry`]s come out of it, [`Response`]s go in.
//!   [`mapping`] holds the memory, [`mailbox`] its layout.
//!
//! Nothing here knows SCSI beyond the length of a CDB, and nothing here blocks except
//! [`module::Module::load`] and writes to configfs. The kernel is trusted with its own memory, but
//! its numbers are checked: a wrong one costs a command or a device, never the process.
//!
//! # The life of a served device
//! ```no_run
//! # fn main() -> Result<(), tcmu::Error> {
//! use tcmu::{Configfs, Entry, Response, Ring, uio::Sysfs};
//!
//! for device in Sysfs::default().scan()? {
//!     let configfs = Configfs::default().device(device.name.hba, &device.name.name)?;
//!     let mut ring = Ring::open(&device)?;
//!     if configfs.can_reset_ring() {
//!         if ring.has_leftovers() {
//!             ring.reset(&configfs)?; // a predecessor died: initiators retry its commands
//!         }
//!         ring.set_out_of_order(true);
//!     }
//!     loop {
//!         while let Some(entry) = ring.next()? {
//!             if let Entry::Command(command) = entry {
//!                 ring.complete(command.id(), &Response::BUSY)?;
//!             }
//!         }
//!         ring.kick()?;
//!         # break;
//!         // poll `ring` for reading, then:
//!         ring.acknowledge()?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```

pub mod configfs;
mod error;
pub mod mailbox;
pub mod mapping;
pub mod module;
pub mod netlink;
pub mod ring;
pub mod uio;

pub use configfs::Configfs;
pub use error::Error;
pub use netlink::Netlink;
pub use ring::{Command, Entry, Response, Ring, Tmr, TmrKind};
pub use uio::{DeviceName, UioDevice};
