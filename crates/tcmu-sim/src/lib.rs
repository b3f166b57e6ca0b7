// SPDX-License-Identifier: Apache-2.0
//! A stand-in for the kernel's side of TCM-User, for tests and benchmarks on machines without the
//! module. It is never part of a product.
//!
//! - [`Kernel`] is the other side of a ring: same mailbox in a memfd, a socket in place of the UIO
//!   descriptor. It takes completions with the kernel's own checks, and can produce entries that
//!   the kernel never would.
//! - [`Tree`] is a folder with sysfs, configfs and module parameters as `tcmu` reads them.
//! - [`Peer`] is the other end of a netlink socket.
//! - [`Bus`] is a D-Bus of a test's own.
//!
//! ```
//! use tcmu::{Entry, Response};
//! use tcmu_sim::{Data, Kernel, Options};
//!
//! let (mut kernel, parts) = Kernel::new(&Options::default())?;
//! let mut ring = parts.ring()?;
//! kernel.send(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], Data::In(512))?;
//! let Some(Entry::Command(read)) = ring.next()? else { unreachable!() };
//! read.data().fill(0..512, 7);
//! ring.complete(read.id(), &Response::GOOD)?;
//! ring.kick()?;
//! assert_eq!(kernel.take_completions()?[0].data, [7; 512]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bus;
mod feed;
mod kernel;
mod peer;
mod tree;

pub use bus::Bus;
pub use feed::feed_ring;
pub use kernel::{Completion, Data, Error, Kernel, Options, Parts};
pub use peer::Peer;
pub use tree::Tree;
