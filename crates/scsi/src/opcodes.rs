//! The opcode table: what it says of a command, and how a CDB finds its row. The rows drive
//! decoding, REPORT SUPPORTED OPERATION CODES, the checks of write protection and
//! ALUA state in `lun`, and the table in the documentation.

mod table;

use std::fmt::Write as _;

use crate::alua::AccessState;
use crate::cdb::{Cdb, top_bit};
use crate::command::Command;
use crate::sense::Sense;

pub use table::OPCODES;

/// One command that is supported: a row of [`OPCODES`].
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

/// For each opcode, the place of its first row in [`OPCODES`]; those without have `usize::MAX`.
static FIRST_ROW: [usize; 256] = first_rows();

const fn first_rows() -> [usize; 256] {
    let mut first = [usize::MAX; 256];
    let mut row = OPCODES.len();
    while row > 0 {
        row -= 1;
        first[OPCODES[row].opcode as usize] = row;
    }
    first
}

impl Opcode {
    /// The rows of an opcode: none, one without a service action, or one for each service action.
    pub fn rows(opcode: u8) -> &'static [Opcode] {
        let first = FIRST_ROW[usize::from(opcode)];
        let rows = OPCODES.get(first..).unwrap_or_default();
        let end = rows.iter().position(|row| row.opcode != opcode).unwrap_or(rows.len());
        &rows[..end]
    }

    /// CDB usage data (SPC-4 6.35.3), as long as the CDB: the opcode, the service action in its
    /// place, and for the rest a bit for each that is looked at.
    pub fn usage(&self) -> &[u8] {
        &self.usage[..self.len]
    }

    /// The row of a CDB.
    ///
    /// # Errors
    /// INVALID COMMAND OPERATION CODE; INVALID FIELD IN CDB for a service action that is not there.
    pub fn of(cdb: &[u8]) -> Result<&'static Opcode, Sense> {
        let Some(&opcode) = cdb.first() else {
            return Err(Sense::INVALID_COMMAND_OPERATION_CODE);
        };
        let action = cdb.get(1).map(|b| b & 0x1f);
        let rows = Opcode::rows(opcode);
        match rows.iter().find(|row| row.action.is_none() || row.action == action) {
            Some(row) => Ok(row),
            None if rows.is_empty() => Err(Sense::INVALID_COMMAND_OPERATION_CODE),
            None => Err(Sense::cdb_field(1, Some(4))),
        }
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

/// The table as Markdown, for the documentation.
pub fn markdown() -> String {
    let mut out = String::from(
        "| command | opcode | service action | CDB usage data | writes | served up to |\n\
         |---|---|---|---|---|---|\n",
    );
    for row in OPCODES {
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
