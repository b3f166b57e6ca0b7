// SPDX-License-Identifier: Apache-2.0
//! REPORT SUPPORTED OPERATION CODES (SPC-4 6.35), from an opcode table. In: the table, what
//! is asked, and which rows this device serves. Out: parameter data.

use crate::answer::Answer;
use crate::command::OpcodeReport;
use crate::opcodes::{Opcode, Table};
use crate::sense::Sense;

/// A command timeouts descriptor that names no time-out.
const NO_TIMEOUTS: [u8; 12] = [0x00, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The answer; `serves` tells which rows this device has (one without UNMAP leaves that out).
///
/// # Errors
/// INVALID FIELD IN CDB when an opcode with service actions is asked for without one, or the
/// reverse.
pub fn report(
    table: &Table,
    report: OpcodeReport,
    timeouts: bool,
    serves: impl Fn(&Opcode) -> bool,
) -> Result<Answer, Sense> {
    let served = |opcode| table.rows(opcode).iter().filter(|row| serves(row));
    match report {
        OpcodeReport::All => Ok(all(table.all().iter().filter(|row| serves(row)), timeouts)),
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

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "the numbers are small")]
mod tests {
    use super::*;
    use crate::block_device::BLOCK_DEVICE;

    static TABLE: &Table = &BLOCK_DEVICE.opcodes;

    fn ask(what: OpcodeReport, timeouts: bool) -> Result<Answer, Sense> {
        report(TABLE, what, timeouts, |_| true)
    }

    #[test]
    fn all_commands_are_listed_with_their_lengths() {
        let a = ask(OpcodeReport::All, false).unwrap();
        assert_eq!(a[..4], u32::to_be_bytes(8 * TABLE.all().len() as u32));
        for (row, entry) in TABLE.all().iter().zip(a[4..].chunks(8)) {
            let [0, action] = entry[2..4] else { panic!("{entry:?}") };
            assert_eq!((entry[0], action), (row.opcode, row.action.unwrap_or(0)));
            assert_eq!(entry[5], u8::from(row.action.is_some()));
            assert_eq!(usize::from(entry[7]), row.usage().len());
        }
        let a = ask(OpcodeReport::All, true).unwrap();
        assert_eq!(a.len(), 4 + 20 * TABLE.all().len());
        assert_eq!(a[4..16], [0, 0, 0, 0, 0, 2, 0, 6, 0, 10, 0, 0]);
    }

    #[test]
    fn what_the_device_does_not_serve_is_not_listed() {
        let no_unmap = |row: &Opcode| row.opcode != 0x42;
        let a = report(TABLE, OpcodeReport::All, false, no_unmap).unwrap();
        assert_eq!(a.len(), 4 + 8 * (TABLE.all().len() - 1));
        let a = report(TABLE, OpcodeReport::One { opcode: 0x42 }, false, no_unmap).unwrap();
        assert_eq!(a[..], [0, 1, 0, 0]);
    }

    #[test]
    fn one_command_comes_with_its_usage_data() {
        let a = ask(OpcodeReport::One { opcode: 0x12 }, false).unwrap();
        assert_eq!(a[..], [0, 3, 0, 6, 0x12, 1, 0xff, 0xff, 0xff, 0]);
        let a = ask(OpcodeReport::One { opcode: 0x12 }, true).unwrap();
        assert_eq!((a[1], a.len()), (0x83, 22));
        let a = ask(OpcodeReport::One { opcode: 0xff }, true).unwrap();
        assert_eq!(a[..], [0, 1, 0, 0]);
    }

    #[test]
    fn a_service_action_is_needed_where_there_are_some_and_refused_elsewhere() {
        let invalid = Err(Sense::cdb_field(2, Some(2)));
        assert_eq!(ask(OpcodeReport::One { opcode: 0x9e }, false), invalid);
        let service =
            |opcode, action, lenient| ask(OpcodeReport::Service { opcode, action, lenient }, false);
        assert_eq!(service(0x28, 0, false), invalid);
        assert_eq!(service(0x9e, 0x10, false).unwrap()[..6], [0, 3, 0, 16, 0x9e, 0x10]);
        assert_eq!(service(0x9e, 0x11, false).unwrap()[..], [0, 1, 0, 0]);
        // Reporting options 011b.
        assert_eq!(service(0x28, 0, true).unwrap()[1], 3);
        assert_eq!(service(0x28, 1, true).unwrap()[1], 1);
        assert_eq!(service(0x9e, 0x10, true).unwrap()[1], 3);
        assert_eq!(service(0x9e, 0x110, true).unwrap()[1], 1);
        assert_eq!(service(0xff, 0, true).unwrap()[1], 1);
        assert_eq!(service(0xff, 0, false).unwrap()[1], 1);
    }
}
