//! Stands in for the hypervisor that libguestfs starts, so that unmodified clients work with no virtual
//! machine: `guestfsd` runs in namespaces on this host, or in User-Mode Linux.
//!
//! # The way of a launch
//!
//! libguestfs asks QEMU what it can ([`probe`]), then starts it with drives and a socket ([`qemu`]).
//! Images are looked at ([`image`]); raw ones become loop devices ([`loopdev`]), others, and those
//! that NBD servers have ([`nbd`]), are served as raw files through FUSE first ([`export`]). In new namespaces a root of the host's programs is
//! made, with the disks under the client's names ([`machine`]), and there the daemon serves the
//! socket ([`instant`]).
//!
//! What cannot be served is refused where the client hears it ([`refusal`]).
//!
//! In the other mode ([`uml`]) the same root and devices are made in User-Mode Linux, by this program
//! as its process 1; disks and channel are virtio devices, by vhost-user ([`vhost`]).
//!
//! What comes in is the client's command line and, through it, images that may be hostile: what is
//! read of them here is their first bytes, partition tables ([`partitions`]), and what `backstore` reads.

pub mod cli;
mod client;
pub mod daemon;
pub mod disk;
pub mod error;
mod export;
pub mod image;
mod instant;
mod loopdev;
mod machine;
pub mod mode;
pub mod nbd;
mod probe;
pub mod qemu;
mod refusal;
mod report;
mod requirements;
pub mod sys;
pub mod uml;
pub mod vhost;
