// SPDX-License-Identifier: Apache-2.0
//! Images in QEMU's qcow2 format, versions 2 and 3. The engine knows nothing of daemons, of SCSI,
//! or of where its bytes lie: that is a [`Storage`].
//!
//! - [`image`]: an open image; what survives a crash.
//! - [`mod@check`]: whether an image is consistent, and repairs.
//! - [`mod@create`]: a new one.
//! - [`snapshots`]: what is saved inside of an image; made, applied, deleted, read.
//! - [`storage`]: what an image lies on.
//! - [`layout`]: the bytes of the format: header, tables' entries; pure.
//! - [`compress`]: compressed clusters.
//! - [`error`]: what can be wrong.
//! - [`fuzz`]: what is done to hostile images to test all of these.
//!
//! The format is specified in QEMU's `docs/interop/qcow2.rst`.

mod bitmaps;
mod bounds;
mod busy;
pub mod check;
mod clean;
mod commit;
mod compare;
pub mod compress;
mod core;
mod counts;
pub mod create;
mod crypt;
mod data;
pub mod error;
mod extend;
mod free;
pub mod fuzz;
mod gate;
mod geometry;
pub mod image;
pub mod layout;
mod open;
mod pack;
#[cfg_attr(not(feature = "planted"), allow(dead_code, unreachable_pub))]
mod planted;
mod read;
mod refcounts;
mod references;
mod repair;
mod reserve;
mod resize;
mod scan;
mod sharing;
mod slice;
pub mod snapshots;
pub mod storage;
mod sync;
mod tables;
mod wait;
mod write;
mod write_compressed;
mod zero;

pub use check::{Repair, Report, check};
pub use create::{CreateOptions, create};
pub use error::{Error, ErrorKind};
pub use image::{Image, Options, Parts};
pub use layout::header::Header;
pub use luks::Secret;
#[cfg(feature = "planted")]
pub use planted::Bug;
pub use read::Mapping;
pub use slice::CacheStatistics;
pub use storage::{Extent, Storage};
