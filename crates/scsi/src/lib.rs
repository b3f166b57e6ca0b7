//! SCSI as a language: CDBs in, typed commands out; answers' layouts; sense data. Pure: no I/O, no
//! `unsafe`, no clock, no state.
//!
//! - [`command`]: what a decoded CDB asks for. Decoding walks the one opcode table that also
//!   answers REPORT SUPPORTED OPERATION CODES and documents what is supported.
//! - [`sense`]: the sense triples by name, and sense data in fixed format.

pub mod command;
pub mod sense;
