// SPDX-License-Identifier: Apache-2.0
//! Ceph's block images (RBD) for one thread's `io-engine`, through librbd and librados, which are
//! loaded at run time: the build needs neither.
//!
//! - `library`: the libraries' functions
//! - [`Cluster`]: a connection; options in, clear errors out
//! - [`Image`]: an open image; reads and writes as futures, with no copy; changes of others
//! - `lock`: its exclusive lock
//! - [`Bell`]: what its clients tell each other
//! - `service`: what the cluster's status says of a client
//! - `operation`: a future for what runs in the library, and the memory that it uses
//!
//! Calls that block say so: run them with [`io_engine::unblock`]. A cluster that is gone holds them
//! up as long as `osd_op_timeout` ([`Options`]) says.
mod bell;
mod cluster;
mod error;
mod image;
mod library;
mod lock;
mod operation;
mod service;

pub use bell::{Bell, Reply};
pub use cluster::{Cluster, Options, Pool};
pub use image::{Compared, Extents, Image, Layout, Zero};
pub use run_time_library::Error;
pub use service::Pairs;

/// Whether the libraries are on this machine, and why not: the error of every connection.
///
/// # Errors
/// [`Error::Library`].
pub fn check() -> Result<(), Error> {
    library::libraries()?;
    Ok(())
}
