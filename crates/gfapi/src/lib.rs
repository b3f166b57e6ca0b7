// SPDX-License-Identifier: Apache-2.0
//! Files on Gluster volumes for one thread's `io-engine`, through libgfapi, which is loaded at run
//! time: the build does not need it.
//!
//! - `library`: the library's functions
//! - [`Volume`]: a connection to a volume, one for all files of it
//! - [`File`]: an open file; reads and writes as futures, with no copy
//!
//! Calls that block say so: run them with [`io_engine::unblock`]. A brick that hangs holds them up
//! for up to twice `network.ping-timeout` of the volume.
mod error;
mod file;
mod library;
mod volume;

pub use file::{Extent, File};
pub use run_time_library::Error;
pub use volume::{Address, Server, Volume};

/// Whether the library is on this machine, and why not: the error of every connection.
///
/// # Errors
/// [`Error::Library`].
pub fn check() -> Result<(), Error> {
    library::gfapi()?;
    Ok(())
}
