// SPDX-License-Identifier: Apache-2.0
//! SCSI as a language: CDBs in, typed commands out; answers' layouts; sense data. Pure: no I/O, no
//! `unsafe`, no clock, no state.
//!
//! - [`device_type`]: what a logical unit can be, which is a table each of opcodes, pages of vital
//!   product data and mode pages; [`block_device`] is the type that there is.
//! - [`opcodes`]: the tables that decode CDBs, answer REPORT SUPPORTED OPERATION CODES and
//!   document what is supported; [`command`]: what a decoded CDB asks for.
//! - [`sense`]: status, the sense triples by name, and sense data.
//! - Answers, each an [`Answer`](answer::Answer): [`inquiry`], [`vpd`], [`capacity`], [`mode`],
//!   [`alua`], [`copy`], [`rsoc`], [`report`].
//! - Parameter lists from the initiator: [`mode`], [`alua`], [`copy`], [`unmap`], [`mod@format`].

pub mod alua;
pub mod answer;
pub mod block_device;
pub mod capacity;
mod cdb;
pub mod command;
pub mod copy;
pub mod device_type;
#[cfg(test)]
mod fixtures;
pub mod format;
#[doc(hidden)]
pub mod fuzz;
pub mod inquiry;
pub mod mode;
pub mod opcodes;
pub mod report;
pub mod rsoc;
pub mod sense;
pub mod unmap;
pub mod vpd;
