// SPDX-License-Identifier: Apache-2.0
//! The machine as the daemon sees it: a root, devices, and a process 1.
//!
//! The same for namespaces on this host and for User-Mode Linux. [`root`] makes a root directory of the
//! host's programs and nothing else of it, of copies of [`mounts`], [`dev`] its /dev, [`confine`] what
//! programs of the guest see, [`view`] shows disks under the names that the client gives them (/dev/sda,
//! in /sys and /proc/partitions too), and [`init`] starts the daemon and keeps all that up to date.

mod assemble;
mod confine;
pub(crate) mod dev;
pub(crate) mod init;
mod loops;
pub(crate) mod mdadm;
mod mounts;
pub(crate) mod root;
pub(crate) mod settle;
pub(crate) mod uevents;
pub(crate) mod view;

/// Whose kernel it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// The host's: what is done to it outlives the session, and programs of the guest are confined.
    Hosts,
    /// The session's own.
    Own,
}
