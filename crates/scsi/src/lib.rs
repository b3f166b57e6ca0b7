//! SCSI as a language: CDBs in, typed commands out; answers' layouts; sense data. Pure: no I/O, no
//! `unsafe`, no clock, no state.
//!
//! - [`opcodes`]: the one table that decodes CDBs, answers REPORT SUPPORTED OPERATION CODES and
//!   documents what is supported; [`command`]: what a decoded CDB asks for.
//! - [`sense`]: the sense triples by name, and sense data.
//! - [`alua`]: target port groups.

pub mod alua;
mod cdb;
pub mod command;
pub mod opcodes;
pub mod sense;
