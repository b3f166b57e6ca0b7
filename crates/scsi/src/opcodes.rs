// SPDX-License-Identifier: Apache-2.0
//! Opcode tables, of which each device type has one: what a row says of a command, and how a CDB
//! finds its row. The rows drive decoding, REPORT SUPPORTED OPERATION CODES, the checks of write
//! protection and ALUA state in `lun`, and the documentation.
//!
//! The usage data of a row has a bit for each that is looked at. Further bits are accepted where
//! initiators may set them and ignoring them is right (`ignore`). Any other bit is refused.

use std::fmt::Write as _;

use crate::alua::AccessState;
use crate::cdb::{Cdb, top_bit};
use crate::command::Command;
use crate::sense::Sense;

/// CONTROL: all but NACA, which asks for an ACA condition that we do not establish.
const CONTROL: u8 = !0x04;

/// One command that is supported: a row of a [`Table`].
#[derive(Debug)]
pub struct Opcode {
    /// The standard's name.
    pub name: &'static str,
    /// Operation code: byte 0 of the CDB.
    pub opcode: u8,
    /// Service action: bits 4 to 0 of byte 1.
    pub action: Option<u8>,
    /// Whether it changes the medium, and so is refused on a write-protected one. EXTENDED COPY,
    /// which may write elsewhere, is not marked.
    pub writes: bool,
    /// In which states of its target port group it is served.
    pub reach: Reach,
    usage: [u8; Cdb::MAX],
    /// Length of the CDB in bytes.
    len: usize,
    /// Bits that may be set: `usage`, and those that initiators set and that change nothing.
    accepted: u128,
    decode: fn(&Cdb) -> Result<Command, Sense>,
}

/// The least accessible ALUA state in which a command is served (SPC-4 5.15.2.4); it is served in
/// those that are more so, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Active (optimized, non-optimized or LBA dependent).
    Active,
    /// Standby.
    Standby,
    /// Unavailable.
    Unavailable,
    /// In transition between states.
    Transitioning,
    /// Offline.
    Offline,
}

/// The commands that a device type has, sorted by opcode and service action.
#[derive(Debug)]
pub struct Table {
    rows: &'static [Opcode],
    /// The rows of each opcode.
    by_opcode: [&'static [Opcode]; 256],
}

impl Table {
    /// A table of rows that are sorted by opcode and service action.
    pub(crate) const fn new(rows: &'static [Opcode]) -> Table {
        let mut by_opcode: [&'static [Opcode]; 256] = [&[]; 256];
        let mut start = 0;
        while start < rows.len() {
            let opcode = rows[start].opcode;
            let mut end = start + 1;
            while end < rows.len() && rows[end].opcode == opcode {
                end += 1;
            }
            by_opcode[opcode as usize] = rows.split_at(end).0.split_at(start).1;
            start = end;
        }
        Table { rows, by_opcode }
    }

    /// All rows.
    pub fn all(&self) -> &'static [Opcode] {
        self.rows
    }

    /// The rows of an opcode: none, one without a service action, or one for each service action.
    #[inline]
    pub fn rows(&self, opcode: u8) -> &'static [Opcode] {
        self.by_opcode[usize::from(opcode)]
    }

    /// The row of a CDB.
    ///
    /// # Errors
    /// INVALID COMMAND OPERATION CODE; INVALID FIELD IN CDB for a service action that is not there.
    pub fn find(&self, cdb: &[u8]) -> Result<&'static Opcode, Sense> {
        let Some(&opcode) = cdb.first() else {
            return Err(Sense::INVALID_COMMAND_OPERATION_CODE);
        };
        let action = cdb.get(1).map(|b| b & 0x1f);
        let rows = self.rows(opcode);
        match rows.iter().find(|row| row.action.is_none() || row.action == action) {
            Some(row) => Ok(row),
            None if rows.is_empty() => Err(Sense::INVALID_COMMAND_OPERATION_CODE),
            None => Err(Sense::cdb_field(1, Some(4))),
        }
    }

    /// Decodes a CDB. Bytes after the command's length are ignored.
    ///
    /// # Errors
    /// INVALID COMMAND OPERATION CODE for an opcode, INVALID FIELD IN CDB (with the place) for a
    /// service action, a field or a length that is not supported.
    pub fn decode(&self, cdb: &[u8]) -> Result<Command, Sense> {
        self.find(cdb)?.decode(cdb)
    }

    /// The table as Markdown.
    pub fn markdown(&self) -> String {
        let mut out = String::from(
            "| command | opcode | service action | CDB usage data | writes | served up to |\n\
             |---|---|---|---|---|---|\n",
        );
        for row in self.rows {
            let action = row.action.map_or(String::new(), |a| format!("{a:02X}h"));
            let usage: Vec<_> = row.usage().iter().map(|b| format!("{b:02x}")).collect();
            // Writing to a string cannot fail.
            let _ = writeln!(
                out,
                "| {} | {:02X}h | {action} | `{}` | {} | {:?} |",
                row.name,
                row.opcode,
                usage.join(" "),
                if row.writes { "yes" } else { "" },
                row.reach,
            );
        }
        out
    }
}

impl Opcode {
    /// CDB usage data (SPC-4 6.35.3), as long as the CDB: the opcode, the service action in its
    /// place, and for the rest a bit for each that is looked at.
    pub fn usage(&self) -> &[u8] {
        &self.usage[..self.len]
    }

    /// Decodes a CDB of this row.
    ///
    /// # Errors
    /// INVALID FIELD IN CDB for a CDB that is too short, a bit that is reserved or asks for what is
    /// not supported (protection information, NACA), or a value that is not.
    pub fn decode(&self, cdb: &[u8]) -> Result<Command, Sense> {
        let Some(cdb) = cdb.get(..self.len) else {
            return Err(Sense::INVALID_FIELD_IN_CDB);
        };
        let cdb = Cdb::new(cdb);
        let illegal = cdb.bits() & !self.accepted;
        if illegal != 0 {
            let wrong = (0u16..).zip(illegal.to_be_bytes()).find(|(_, bits)| *bits != 0);
            let (byte, bits) = wrong.unwrap_or_default();
            return Err(Sense::cdb_field(byte, top_bit(bits)));
        }
        (self.decode)(&cdb)
    }

    /// Whether it is served while the logical unit's target port group is in `state`.
    ///
    /// # Errors
    /// NOT READY with the qualifier of that state.
    pub fn check_access(&self, state: AccessState) -> Result<(), Sense> {
        let (needed, sense) = match state {
            AccessState::Optimized | AccessState::NonOptimized | AccessState::LbaDependent => {
                return Ok(());
            }
            AccessState::Standby => (Reach::Standby, Sense::LUN_NOT_READY_ALUA_STANDBY),
            AccessState::Unavailable => (Reach::Unavailable, Sense::LUN_NOT_READY_ALUA_UNAVAILABLE),
            AccessState::Transitioning => {
                (Reach::Transitioning, Sense::LUN_NOT_READY_ALUA_TRANSITION)
            }
            AccessState::Offline => (Reach::Offline, Sense::LUN_NOT_READY_OFFLINE),
        };
        if self.reach >= needed { Ok(()) } else { Err(sense) }
    }
}

/// A row without a service action.
pub(crate) const fn row<const LEN: usize>(
    name: &'static str,
    usage: [u8; LEN],
    decode: fn(&Cdb) -> Result<Command, Sense>,
) -> Opcode {
    let mut padded = [0; Cdb::MAX];
    let mut at = 0;
    while at < LEN {
        padded[at] = usage[at];
        at += 1;
    }
    Opcode {
        name,
        opcode: usage[0],
        action: None,
        writes: false,
        reach: Reach::Active,
        usage: padded,
        len: LEN,
        accepted: u128::from_be_bytes(padded) | bits(LEN - 1, CONTROL),
        decode,
    }
}

/// The bits of byte `at` in their place among a CDB's.
const fn bits(at: usize, mask: u8) -> u128 {
    (mask as u128) << (8 * (Cdb::MAX - 1 - at))
}

impl Opcode {
    /// The service action is in byte 1.
    pub(crate) const fn action(mut self) -> Self {
        self.action = Some(self.usage[1] & 0x1f);
        self
    }

    /// Bits of byte `at` may be set and change nothing.
    pub(crate) const fn ignore(mut self, at: usize, mask: u8) -> Self {
        self.accepted |= bits(at, mask);
        self
    }

    /// The same for whole bytes, from `first` to `last`.
    pub(crate) const fn ignore_bytes(mut self, first: usize, last: usize) -> Self {
        let mut at = first;
        while at <= last {
            self = self.ignore(at, 0xff);
            at += 1;
        }
        self
    }

    /// It changes the medium.
    pub(crate) const fn writes(mut self) -> Self {
        self.writes = true;
        self
    }

    /// It is served in target port groups of states up to this.
    pub(crate) const fn reach(mut self, reach: Reach) -> Self {
        self.reach = reach;
        self
    }
}
