// SPDX-License-Identifier: Apache-2.0
//! What the fuzz targets `cdb` and `parameter_lists` run: whatever an initiator may send. What must
//! hold of the result is asserted here; `tests/hostile.rs` has a short run of the same.

use crate::block_device::BLOCK_DEVICE;
use crate::capacity::Capacity;
use crate::mode::Modes;
use crate::sense::Sense;
use crate::vpd::BlockLimits;
use crate::{alua, copy, format, unmap};

/// A CDB: a command, or sense that says what is wrong with it.
pub fn cdb(cdb: &[u8]) {
    let triple = |sense: Sense| (sense.key, sense.asc, sense.ascq);
    let table = &BLOCK_DEVICE.opcodes;
    let row = match table.find(cdb) {
        Ok(row) => row,
        Err(sense) => {
            let known = cdb.first().is_some_and(|opcode| !table.rows(*opcode).is_empty());
            let expected = if known {
                Sense::cdb_field(1, Some(4))
            } else {
                Sense::INVALID_COMMAND_OPERATION_CODE
            };
            assert_eq!(sense, expected, "an opcode or a service action that is not there");
            return;
        }
    };
    let len = row.usage().len();
    match table.decode(cdb) {
        Ok(command) => {
            assert_eq!(table.decode(&cdb[..len]), Ok(command), "what follows a CDB counts");
            // CONTROL: NACA alone is looked at.
            let mut naca = cdb[..len].to_vec();
            naca[len - 1] |= 0x04;
            assert!(table.decode(&naca).is_err(), "{}: NACA is not refused", row.name);
        }
        Err(sense) => {
            let refusals = [Sense::INVALID_FIELD_IN_CDB, Sense::SAVING_PARAMETERS_NOT_SUPPORTED];
            assert!(refusals.map(triple).contains(&triple(sense)), "{}: {sense}", row.name);
            match sense.field {
                Some(field) => assert!(
                    field.in_cdb && usize::from(field.byte) < len,
                    "{}: {sense}: no place in the CDB",
                    row.name
                ),
                None => assert!(
                    cdb.len() < len || triple(sense) != triple(Sense::INVALID_FIELD_IN_CDB),
                    "{}: a refusal without a place",
                    row.name
                ),
            }
        }
    }
}

/// A parameter list; the first byte says of which command.
pub fn parameter_list(input: &[u8]) {
    let Some((choice, list)) = input.split_first() else { return };
    let refused = match choice % 6 {
        0 => unmap_list(list),
        1 => copy_list(list),
        2 => mode_list(list, false),
        3 => mode_list(list, true),
        4 => alua::parse_set_groups(list).map(|set| assert!(set.len() <= list.len() / 4)),
        _ => format::immediate(list, choice & 0x80 != 0).map(drop),
    };
    if let Err(sense) = refused {
        assert_eq!(sense.key, 5, "{sense}: no ILLEGAL REQUEST");
        assert!([0x1a, 0x26].contains(&sense.asc), "{sense}: not of a parameter list");
        assert!(sense.field.is_none_or(|field| !field.in_cdb), "{sense}: not in the list");
    }
}

fn unmap_list(list: &[u8]) -> Result<(), Sense> {
    let limits = BlockLimits {
        max_unmap_blocks: 1 << 20,
        max_unmap_descriptors: 8,
        ..BlockLimits::default()
    };
    let ranges = unmap::parse(list, &limits)?;
    assert!(ranges.len() <= 8 && (list.is_empty() || 8 + 16 * ranges.len() <= list.len()));
    assert!(ranges.map(|range| u64::from(range.blocks)).sum::<u64>() <= 1 << 20);
    Ok(())
}

fn copy_list(list: &[u8]) -> Result<(), Sense> {
    let copy = copy::parse(list)?;
    let (cscds, segments) = (copy.cscds.len(), copy.segments.len());
    assert!(cscds <= usize::from(copy::MAX_CSCDS) && segments <= usize::from(copy::MAX_SEGMENTS));
    assert!(list.is_empty() || 16 + 32 * cscds + 28 * segments <= list.len());
    assert!(copy.cscds.iter().all(|cscd| cscd.designator().len() <= 20));
    Ok(())
}

fn mode_list(list: &[u8], ten: bool) -> Result<(), Sense> {
    let capacity =
        Capacity { blocks: 2048, block_size: 512, physical_exponent: 3, lowest_aligned: 0 };
    let before = Modes {
        write_cache: true,
        write_cache_default: true,
        write_protected: false,
        implicit_alua: true,
        capacity,
    };
    let after = BLOCK_DEVICE.modes.select(list, ten, &before)?;
    let only_the_cache = Modes { write_cache: after.write_cache, ..before };
    assert_eq!(after, only_the_cache, "what cannot be changed was");
    assert_eq!(BLOCK_DEVICE.modes.select(list, ten, &after), Ok(after), "the same list once more");
    Ok(())
}
