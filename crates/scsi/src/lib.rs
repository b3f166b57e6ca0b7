// SPDX-License-Identifier: Apache-2.0
//! SCSI as a language: CDBs in, typed commands out; answers' layouts; sense data. Pure: no I/O, no
//! `unsafe`, no clock, no state.
//!
//! - [`opcodes`]: the one table that decodes CDBs, answers REPORT SUPPORTED OPERATION CODES and
//!   documents what is supported; [`command`]: what a decoded CDB asks for.
//! - [`sense`]: status, the sense triples by name, and sense data.
//! - Answers, each an [`Answer`](answer::Answer): [`inquiry`], [`vpd`], [`capacity`], [`mode`],
//!   [`alua`], [`copy`], [`rsoc`], [`report`].
//! - Parameter lists from the initiator: [`mode`], [`alua`], [`copy`], [`unmap`], [`mod@format`].

pub mod alua;
pub mod answer;
pub mod capacity;
mod cdb;
pub mod command;
pub mod copy;
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
