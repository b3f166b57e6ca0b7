// SPDX-License-Identifier: Apache-2.0
//! The functions of the C interface that need no more than a [`Device`](crate::Device) or nothing at
//! all.
//!
//! What a C program passes is as its headers say: pointers are valid or, where a device is meant,
//! null; a CDB is as long as its opcode says; a list of pieces is as long as its count. These
//! functions cannot check that. A panic in one of them ends the process: `extern "C"` lets none
//! through to C.

pub mod cdb;
pub mod cfgfs;
pub mod device;
pub mod iovec;
pub mod log;
pub mod sense;
pub mod thread;
