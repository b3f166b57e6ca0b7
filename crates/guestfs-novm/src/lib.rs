// SPDX-License-Identifier: Apache-2.0
//! Stands in for the hypervisor that libguestfs starts, so that unmodified clients work with no virtual
//! machine: `guestfsd` runs in namespaces on this host, or in User-Mode Linux.
//!
//! # How a launch works
//!
//! libguestfs asks QEMU what it can (`probe`), then starts it with drives and a socket ([`qemu`]).
//! Images are looked at ([`image`], `overlay`); raw ones become loop devices (`loopdev`), others, and
//! those that NBD servers have ([`nbd`]), are served as raw files through FUSE first (`export`). In
//! new namespaces a root of the host's programs is made, with the disks under the client's names
//! (`machine`), and there the daemon serves the socket (`instant`).
//!
//! A session that cannot start, or ends before the daemon serves (`launched`), is refused with an error that the client
//! shows (`refusal`). One that breaks off later says on the client's standard error why, with the end of what its processes
//! wrote (`last_words`).
//!
//! In the other mode ([`uml`]) the same root and devices are made in User-Mode Linux, by this program
//! as its process 1; disks and channel are virtio devices, by vhost-user ([`vhost`]).
//!
//! Input is the client's command line and the images that it names, which may be hostile. This program reads
//! their first bytes and partition tables (`probe`); the rest is read by `block`.

pub mod cli;
mod client;
pub mod daemon;
pub mod disk;
pub mod error;
mod export;
#[doc(hidden)]
pub mod fuzz;
pub mod image;
mod instant;
mod last_words;
mod launched;
mod loopdev;
mod machine;
pub mod mode;
pub mod nbd;
mod overlay;
mod probe;
pub mod qemu;
mod refusal;
mod report;
mod requirements;
pub mod sys;
pub mod uml;
pub mod vhost;
