// SPDX-License-Identifier: Apache-2.0
//! Images in QEMU's qcow2 format, versions 2 and 3. The engine knows nothing of daemons, of SCSI,
//! or of where its bytes lie: that is a [`Storage`].
//!
//! - [`storage`]: what an image lies on.
//! - [`layout`]: the bytes of the format: header, tables' entries; pure.
//! - [`error`]: what can be wrong.
//!
//! The format is specified in QEMU's `docs/interop/qcow2.rst`.

pub mod error;
pub mod layout;
pub mod storage;

pub use error::{Error, ErrorKind};
pub use layout::header::Header;
pub use storage::{Extent, Storage};
