// SPDX-License-Identifier: Apache-2.0
//! Whatever bytes come as a CDB or as a parameter list: a value or sense, never a panic.

use proptest::collection::vec;
use proptest::prelude::*;

use scsi::block_device::BLOCK_DEVICE;
use scsi::capacity::Capacity;
use scsi::command::OpcodeReport;
use scsi::mode::Modes;
use scsi::opcodes::{Opcode, Table};
use scsi::sense::Sense;
use scsi::vpd::BlockLimits;
use scsi::{alua, copy, format, rsoc, unmap};

static TABLE: &Table = &BLOCK_DEVICE.opcodes;

/// Keys of the sense that decoding and parsing may end with: ILLEGAL REQUEST.
fn illegal(sense: Sense) -> bool {
    sense.key == 0x5 && sense.fixed().len() == 18 && sense.descriptor()[0] == 0x72
}

fn modes() -> Modes {
    Modes {
        write_cache: true,
        write_cache_default: true,
        write_protected: false,
        implicit_alua: false,
        capacity: Capacity {
            blocks: 1 << 20,
            block_size: 512,
            physical_exponent: 0,
            lowest_aligned: 0,
        },
    }
}

/// A CDB of some row, with random bits where `bits` allows them.
fn cdb_of(row: &Opcode, bits: &[u8]) -> Vec<u8> {
    let mut cdb: Vec<u8> = row.usage().iter().zip(bits).map(|(mask, bits)| mask & bits).collect();
    cdb[0] = row.opcode;
    if let Some(action) = row.action {
        cdb[1] = cdb[1] & 0xe0 | action;
    }
    cdb
}

/// Bytes of which about half are small: lengths and counts that nearly fit.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..300).prop_map(|mut bytes| {
        bytes.iter_mut().filter(|b| **b & 1 != 0).for_each(|b| *b >>= 3);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(1024)
    })]

    #[test]
    fn any_bytes_decode_to_a_command_or_an_illegal_request(cdb in vec(any::<u8>(), 0..=32)) {
        if let Err(sense) = TABLE.decode(&cdb) {
            prop_assert!(illegal(sense), "{sense}");
        }
    }

    #[test]
    fn any_bytes_after_a_known_opcode_do_too(row in 0..TABLE.all().len(), mut cdb in bytes()) {
        if let [opcode, action, ..] = &mut cdb[..] {
            *opcode = TABLE.all()[row].opcode;
            *action = TABLE.all()[row].action.unwrap_or(*action);
        }
        if let Err(sense) = TABLE.decode(&cdb) {
            prop_assert!(illegal(sense), "{sense}");
        }
    }

    #[test]
    fn bits_that_the_table_allows_are_never_called_reserved(
        row in 0..TABLE.all().len(),
        bits in vec(any::<u8>(), 16),
    ) {
        let row = &TABLE.all()[row];
        let cdb = cdb_of(row, &bits);
        // A value may be refused, in a field that the row looks at.
        if let Err(sense) = TABLE.decode(&cdb)
            && let Some(field) = sense.field
        {
            prop_assert!(field.in_cdb);
            let byte = usize::from(field.byte);
            let mask = row.usage()[byte] | if row.name == "MODE SELECT (6)" { 0x10 } else { 0 };
            let bit = field.bit.map_or(0xff, |bit| 1 << bit);
            prop_assert!(mask & bit != 0, "{}: {sense}", row.name);
        }
    }

    #[test]
    fn any_question_about_opcodes_has_an_answer(
        opcode: u8, action: u16, lenient: bool, timeouts: bool, hidden: u8,
    ) {
        for what in [
            OpcodeReport::All,
            OpcodeReport::One { opcode },
            OpcodeReport::Service { opcode, action, lenient },
        ] {
            match rsoc::report(TABLE, what, timeouts, |row| row.opcode != hidden) {
                Ok(answer) => prop_assert!(answer.len() >= 4),
                Err(sense) => prop_assert!(illegal(sense)),
            }
        }
    }

    #[test]
    fn any_mode_select_list_changes_the_cache_or_nothing(list in bytes(), ten: bool) {
        match BLOCK_DEVICE.modes.select(&list, ten, &modes()) {
            Ok(after) => prop_assert_eq!(Modes { write_cache: true, ..after }, modes()),
            Err(sense) => prop_assert!(illegal(sense), "{}", sense),
        }
    }

    #[test]
    fn any_unmap_list_gives_ranges_within_the_limits(list in bytes()) {
        let limits = BlockLimits {
            max_unmap_blocks: 1 << 20,
            max_unmap_descriptors: 8,
            ..BlockLimits::default()
        };
        match unmap::parse(&list, &limits) {
            Ok(ranges) => {
                prop_assert!(ranges.len() <= 8);
                prop_assert!(ranges.map(|r| u64::from(r.blocks)).sum::<u64>() <= 1 << 20);
            }
            Err(sense) => prop_assert!(illegal(sense), "{}", sense),
        }
    }

    #[test]
    fn any_copy_list_is_refused_or_has_what_it_counts(
        mut list in bytes(), cscds in 0..4u8, segments in 0..4u8, shape: bool,
    ) {
        if shape && list.len() > 16 {
            // Lengths that fit, and descriptors of the right kind and length.
            list[1] &= 0x17;
            list[2..4].copy_from_slice(&[0, 32 * cscds]);
            list[8..12].copy_from_slice(&[0, 0, 0, 28 * segments]);
            list[12..16].fill(0);
            list.resize(300, 0);
            for i in 0..usize::from(cscds) {
                list[16 + 32 * i..][..2].copy_from_slice(&[0xe4, 0]);
            }
            for i in 0..segments {
                let at = 16 + 32 * usize::from(cscds) + 28 * usize::from(i);
                list[at..at + 7].copy_from_slice(&[2, 0, 0, 0x18, 0, i, 0]);
            }
        }
        match copy::parse(&list) {
            Ok(copy) => {
                let (cscds, segments) = (copy.cscds.len(), copy.segments.len());
                prop_assert!(list.is_empty() || 16 + 32 * cscds + 28 * segments <= list.len());
                for cscd in &copy.cscds {
                    prop_assert!(cscd.designator().len() <= 20);
                }
            }
            Err(sense) => prop_assert!(illegal(sense), "{}", sense),
        }
    }

    #[test]
    fn any_other_list_is_read_or_refused(list in bytes(), long: bool) {
        if let Err(sense) = alua::parse_set_groups(&list) {
            prop_assert!(illegal(sense), "{}", sense);
        }
        if let Err(sense) = format::immediate(&list, long) {
            prop_assert!(illegal(sense), "{}", sense);
        }
    }
}

#[test]
fn a_bit_that_is_not_looked_at_changes_nothing_or_is_refused_at_its_place() {
    for row in TABLE.all() {
        let clear = cdb_of(row, &[0; 16]);
        let before = TABLE.decode(&clear);
        for (byte, mask) in row.usage().iter().enumerate().skip(1) {
            let action = if byte == 1 && row.action.is_some() { 0x1f } else { 0 };
            for bit in (0..8).filter(|bit| (mask | action) & (1 << bit) == 0) {
                let mut cdb = clear.clone();
                cdb[byte] |= 1 << bit;
                let after = TABLE.decode(&cdb);
                let refused = Err(Sense::cdb_field(u16::try_from(byte).unwrap(), Some(bit)));
                assert!(after == before || after == refused, "{}: {after:?}", row.name);
            }
        }
    }
}

proptest! {
    #[test]
    fn what_the_fuzz_targets_assert_holds(mut input in bytes(), row in 0..TABLE.all().len()) {
        scsi::fuzz::cdb(&input);
        scsi::fuzz::parameter_list(&input);
        if let [opcode, action, ..] = &mut input[..] {
            *opcode = TABLE.all()[row].opcode;
            *action = TABLE.all()[row].action.unwrap_or(0);
        }
        scsi::fuzz::cdb(&input);
        input.resize(16, 0);
        scsi::fuzz::cdb(&cdb_of(&TABLE.all()[row], &input));
    }
}

#[test]
fn the_seeds_of_the_fuzz_targets_hold() {
    for (target, run) in
        [("cdb", scsi::fuzz::cdb as fn(&[u8])), ("parameter_lists", scsi::fuzz::parameter_list)]
    {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
        let seeds: Vec<_> = std::fs::read_dir(dir.join(target)).unwrap().collect();
        assert!(seeds.len() >= 8, "{target}");
        for seed in seeds {
            run(&std::fs::read(seed.unwrap().path()).unwrap());
        }
    }
}
