// SPDX-License-Identifier: Apache-2.0
//! A logical unit: executes SCSI commands on what holds its blocks, a [`block::Disk`].
//!
//! In: a CDB and a view of the command's buffer. Out: status, sense, and how many bytes of data-in
//! are valid. What a command means is here: ranges of blocks, unit attentions, asymmetric access,
//! what is promised to initiators. The layout of CDBs and answers is `scsi`'s; atomicity, and the
//! emulation of what a store cannot do, are those of [`block::Disk`].
//!
//! A [`Lun`] lives on one thread. Commands run concurrently there, each as one future; dropping
//! the future aborts the command.
//!
//! What a logical unit is stands in `scsi`: a [`DeviceType`](scsi::device_type::DeviceType) has the
//! tables of its commands and of what it says of itself; here is how they are executed.
//!
//! - `unit`: the logical unit; `execute`: a command, from its CDB to its outcome
//! - `block_io`: READ, WRITE, VERIFY, SYNCHRONIZE CACHE: the data path
//! - `compare`, `provisioning`, `copy`: the compound commands; [`peers`]: copies between logical units
//! - `inquiry`, `control`, `ports`: what initiators ask about the logical unit, and set
//! - [`alua`]: asymmetric access; `attention`: unit attentions
//! - `buffer`, `failure`: what commands bring and take; errors to sense

pub mod alua;
mod attention;
mod block_io;
mod buffer;
mod compare;
mod control;
mod copy;
mod execute;
mod failure;
mod identity;
mod inquiry;
pub mod peers;
mod ports;
mod provisioning;
mod unit;

pub use execute::Outcome;
pub use failure::Failure;
pub use identity::Identity;
pub use unit::{Config, Error, Lun};
