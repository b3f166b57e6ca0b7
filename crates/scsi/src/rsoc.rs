//! REPORT SUPPORTED OPERATION CODES (SPC-4 6.35), from the opcode table. In: what is asked, and
//! which rows this device serves. Out: parameter data.

use crate::answer::Answer;
use crate::command::OpcodeReport;
use crate::opcodes::{OPCODES, Opcode};
use crate::sense::Sense;

/// A command timeouts descriptor that names no time-out.
const NO_TIMEOUTS: [u8; 12] = [0x00, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The answer; `serves` tells which rows this device has (one without UNMAP leaves that out).
///
/// # Errors
/// INVALID FIELD IN CDB when an opcode with service actions is asked for without one, or the
/// reverse.
pub fn report(
    report: OpcodeReport,
    timeouts: bool,
    serves: impl Fn(&Opcode) -> bool,
) -> Result<Answer, Sense> {
    let served = |opcode| Opcode::rows(opcode).iter().filter(|row| serves(row));
    match report {
        OpcodeReport::All => Ok(all(OPCODES.iter().filter(|row| serves(row)), timeouts)),
        OpcodeReport::One { opcode } => match served(opcode).next() {
            Some(row) if row.action.is_some() => Err(Sense::cdb_field(2, Some(2))),
            row => Ok(one(row, timeouts)),
        },
        OpcodeReport::Service { opcode, action, lenient } => {
            let plain = served(opcode).any(|row| row.action.is_none());
            if plain && !lenient {
                return Err(Sense::cdb_field(2, Some(2)));
            }
            let row = served(opcode).find(|row| row.action.map_or(0, u16::from) == action);
            Ok(one(row, timeouts))
        }
    }
}

fn all<'a>(rows: impl Iterator<Item = &'a Opcode>, timeouts: bool) -> Answer {
    let mut a = Answer::new();
    a.zeroes(4);
    for row in rows {
        a.bytes(&[row.opcode, 0]);
        a.be16(row.action.map_or(0, u16::from));
        // CTDP and SERVACTV.
        a.bytes(&[0, u8::from(timeouts) << 1 | u8::from(row.action.is_some())]);
        a.be16(cdb_length(row));
        if timeouts {
            a.bytes(&NO_TIMEOUTS);
        }
    }
    a.set_length32(0);
    a
}

fn one(row: Option<&Opcode>, timeouts: bool) -> Answer {
    let mut a = Answer::new();
    let Some(row) = row else {
        a.bytes(&[0, 0x01, 0, 0]); // not supported
        return a;
    };
    // CTDP; SUPPORT: as the standard says.
    a.bytes(&[0, u8::from(timeouts) << 7 | 0x03]);
    a.be16(cdb_length(row));
    a.bytes(row.usage());
    if timeouts {
        a.bytes(&NO_TIMEOUTS);
    }
    a
}

fn cdb_length(row: &Opcode) -> u16 {
    u16::try_from(row.usage().len()).unwrap_or(u16::MAX)
}
