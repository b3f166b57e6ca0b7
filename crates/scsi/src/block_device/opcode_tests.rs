// SPDX-License-Identifier: Apache-2.0
//! What the rows say, and what they accept.
#![allow(clippy::cast_possible_truncation, reason = "the numbers are small")]

use crate::alua::AccessState;
use crate::block_device::BLOCK_DEVICE;
use crate::command::{ByteCheck, Command, ModeRequest, PageControl};
use crate::opcodes::{Opcode, Table};
use crate::sense::Sense;

static TABLE: &Table = &BLOCK_DEVICE.opcodes;

/// A CDB of the row with all the bits that it looks at set.
fn full(row: &Opcode) -> Vec<u8> {
    row.usage().to_vec()
}

fn decode(cdb: &[u8]) -> Result<Command, Sense> {
    TABLE.decode(cdb)
}

#[test]
fn rows_are_sorted_and_found_by_their_opcode_and_action() {
    let key = |row: &Opcode| (row.opcode, row.action);
    assert!(TABLE.all().windows(2).all(|pair| key(&pair[0]) < key(&pair[1])));
    for row in TABLE.all() {
        assert_eq!(row.usage()[0], row.opcode, "{}", row.name);
        assert_eq!(TABLE.find(&full(row)).map(key), Ok(key(row)), "{}", row.name);
        if let Some(action) = row.action {
            assert_eq!(row.usage()[1] & 0x1f, action, "{}", row.name);
        }
    }
    let rows: usize = (0..=255).map(|opcode| TABLE.rows(opcode).len()).sum();
    assert_eq!(rows, TABLE.all().len());
}

#[test]
fn a_cdb_is_as_long_as_the_group_of_its_opcode_says() {
    for row in TABLE.all() {
        let len = match row.opcode >> 5 {
            0 => 6,
            1 | 2 => 10,
            4 => 16,
            5 => 12,
            _ => panic!("{}: no group", row.name),
        };
        assert_eq!(row.usage().len(), len, "{}", row.name);
    }
}

#[test]
fn a_cdb_that_is_too_short_is_an_invalid_field_and_a_longer_one_is_cut() {
    for row in TABLE.all() {
        let mut cdb = vec![0; row.usage().len()];
        cdb[0] = row.opcode;
        cdb[1] = row.action.unwrap_or(0);
        let decoded = row.decode(&cdb);
        for len in 2..cdb.len() {
            assert_eq!(decode(&cdb[..len]), Err(Sense::INVALID_FIELD_IN_CDB), "{}", row.name);
        }
        cdb.push(0xff);
        assert_eq!(decode(&cdb), decoded, "{}", row.name);
    }
    assert_eq!(decode(&[]), Err(Sense::INVALID_COMMAND_OPERATION_CODE));
}

#[test]
fn what_is_not_in_the_table_is_refused() {
    for opcode in [0x01, 0x7f, 0x85, 0x9f, 0xc0, 0xff] {
        assert_eq!(decode(&[opcode; 32]), Err(Sense::INVALID_COMMAND_OPERATION_CODE));
    }
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (0x9e, 0x11);
    assert_eq!(decode(&cdb), Err(Sense::cdb_field(1, Some(4))));
}

#[test]
fn a_reserved_bit_is_refused_with_its_place() {
    // READ CAPACITY (16) with a bit in byte 14.
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[14]) = (0x9e, 0x10, 0x22);
    assert_eq!(decode(&cdb), Err(Sense::cdb_field(14, Some(5))));
    assert_eq!(decode(&[0, 0, 0x80, 0, 0, 0]), Err(Sense::cdb_field(2, Some(7))));
}

#[test]
fn naca_is_refused_and_the_rest_of_control_ignored() {
    for row in TABLE.all() {
        let mut cdb = vec![0; row.usage().len()];
        cdb[0] = row.opcode;
        cdb[1] = row.action.unwrap_or(0);
        let decoded = row.decode(&cdb);
        let control = cdb.len() - 1;
        cdb[control] = 0xfb;
        assert_eq!(row.decode(&cdb), decoded, "{}", row.name);
        cdb[control] = 0x04;
        let naca = Sense::cdb_field(control as u16, Some(2));
        assert_eq!(row.decode(&cdb), Err(naca), "{}", row.name);
    }
}

#[test]
fn protection_information_is_refused() {
    for opcode in
        [0x28, 0x88, 0xa8, 0x2a, 0x8a, 0xaa, 0x2e, 0x8e, 0xae, 0x2f, 0x8f, 0xaf, 0x41, 0x93, 0x89]
    {
        let mut cdb = [0; 16];
        (cdb[0], cdb[1]) = (opcode, 0x20);
        assert_eq!(decode(&cdb), Err(Sense::cdb_field(1, Some(5))), "{opcode:02x}");
    }
}

#[test]
fn byte_check_10b_is_refused_and_11b_is_of_verify_alone() {
    for opcode in [0x2e, 0x8e, 0xae, 0x2f, 0x8f, 0xaf] {
        let mut cdb = [0; 16];
        (cdb[0], cdb[1]) = (opcode, 0x04);
        assert_eq!(decode(&cdb), Err(Sense::cdb_field(1, Some(2))), "{opcode:02x}");
    }
    let verify = Command::Verify { lba: 7, blocks: 2, dpo: true, byte_check: ByteCheck::One };
    assert_eq!(decode(&[0x2f, 0x16, 0, 0, 0, 7, 0, 0, 2, 0]), Ok(verify));
    let sense = Err(Sense::cdb_field(1, Some(2)));
    assert_eq!(decode(&[0x2e, 0x06, 0, 0, 0, 7, 0, 0, 2, 0]), sense);
}

#[test]
fn reads_of_all_sizes_find_their_range() {
    let read = |lba, blocks, dpo, fua| Ok(Command::Read { lba, blocks, dpo, fua });
    assert_eq!(decode(&[0x08, 0xff, 2, 3, 0, 0]), read(0x1f_0203, 256, false, false));
    assert_eq!(decode(&[0x08, 0x01, 2, 3, 9, 0]), read(0x01_0203, 9, false, false));
    assert_eq!(
        decode(&[0x28, 0x18, 0xff, 2, 3, 4, 0x1f, 6, 7, 0]),
        read(0xff02_0304, 0x0607, true, true)
    );
    assert_eq!(
        decode(&[0xa8, 0x08, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0]),
        read(0x0102_0304, 0x0506_0708, false, true)
    );
    assert_eq!(
        decode(&[0x88, 0x10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0]),
        read(0x0102_0304_0506_0708, 0x090a_0b0c, true, false)
    );
}

#[test]
fn write_same_16_alone_may_come_without_data() {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[13]) = (0x93, 0x09, 5);
    let all = Command::WriteSame { lba: 0, blocks: 5, unmap: true, no_data: true };
    assert_eq!(decode(&cdb), Ok(all));
    cdb[0] = 0x41;
    assert_eq!(decode(&cdb), Err(Sense::cdb_field(1, Some(0))));
    // ANCHOR, PBDATA, LBDATA.
    for bit in [4, 2, 1] {
        for opcode in [0x41, 0x93] {
            (cdb[0], cdb[1]) = (opcode, 1 << bit);
            assert_eq!(decode(&cdb), Err(Sense::cdb_field(1, Some(bit))));
        }
    }
}

#[test]
fn inquiry_takes_a_page_code_with_evpd_alone() {
    let inquiry = |page, alloc| Ok(Command::Inquiry { page, alloc });
    assert_eq!(decode(&[0x12, 0, 0, 1, 0, 0]), inquiry(None, 256));
    assert_eq!(decode(&[0x12, 1, 0x83, 0, 64, 0]), inquiry(Some(0x83), 64));
    assert_eq!(decode(&[0x12, 0, 0x83, 0, 64, 0]), Err(Sense::cdb_field(2, Some(7))));
    assert_eq!(decode(&[0x12, 2, 0, 0, 64, 0]), Err(Sense::cdb_field(1, Some(1))));
}

#[test]
fn mode_commands_refuse_saved_values() {
    let request = ModeRequest {
        ten: true,
        page: 0x0a,
        subpage: 1,
        control: PageControl::Changeable,
        no_descriptors: true,
        long_lba: true,
    };
    assert_eq!(
        decode(&[0x5a, 0x18, 0x4a, 1, 0, 0, 0, 1, 2, 0]),
        Ok(Command::ModeSense { request, alloc: 0x102 })
    );
    assert_eq!(decode(&[0x1a, 0, 0xff, 0, 4, 0]), Err(Sense::SAVING_PARAMETERS_NOT_SUPPORTED));
    assert_eq!(decode(&[0x15, 0x11, 0, 0, 4, 0]), Err(Sense::cdb_field(1, Some(0))));
    assert_eq!(decode(&[0x15, 0x00, 0, 0, 4, 0]), Err(Sense::cdb_field(1, Some(4))));
    assert_eq!(
        decode(&[0x15, 0x10, 0, 0, 4, 0]),
        Ok(Command::ModeSelect { ten: false, list_len: 4 })
    );
}

#[test]
fn what_real_initiators_send_is_accepted() {
    // As seen from Linux, Windows, ESXi and sg3-utils.
    let cdbs: &[&[u8]] = &[
        &[0x12, 0x20, 0, 0, 36, 0], // LUN in the CDB, before the SCSI level is known
        &[0x1a, 0, 0x3f, 0, 192, 0],
        &[0x1a, 0x08, 0x08, 0, 4, 0],
        &[0x5a, 0, 0x3f, 0xff, 0, 0, 0, 0x40, 0, 0],
        &[0x15, 0x10, 0, 0, 24, 0],
        &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x1b, 0, 0, 0, 1, 0],
        &[0x28, 0x08, 0, 0, 0, 0, 0x01, 0, 8, 0],
        &[0x93, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0],
        &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0],
        &[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0],
        &[0xa3, 0x2a, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0],
        &[0xa3, 0x0c, 0x83, 0x93, 0, 0, 0, 0, 2, 0, 0, 0],
        &[0x84, 0x03, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0],
        &[0x37, 0, 0x0d, 0, 0, 0, 0, 0, 4, 0],
        &[0x1d, 0x04, 0, 0, 0, 0],
        &[0x4d, 0, 0x40, 0, 0, 0, 0, 0, 252, 0],
        &[0x03, 0, 0, 0, 252, 0],
        &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0],
    ];
    for cdb in cdbs {
        assert!(decode(cdb).is_ok(), "{cdb:02x?}: {:?}", decode(cdb));
    }
}

#[test]
fn alua_states_stop_what_the_standard_does_not_list() {
    let check = |cdb: &[u8], state| TABLE.find(cdb).unwrap().check_access(state);
    let read = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    let (inquiry, rtpg, stpg) = ([0x12, 0], [0xa3, 0x0a], [0xa4, 0x0a]);
    assert_eq!(check(&read, AccessState::NonOptimized), Ok(()));
    assert_eq!(check(&read, AccessState::Standby), Err(Sense::LUN_NOT_READY_ALUA_STANDBY));
    assert_eq!(check(&stpg, AccessState::Unavailable), Ok(()));
    let transition = Err(Sense::LUN_NOT_READY_ALUA_TRANSITION);
    assert_eq!(check(&stpg, AccessState::Transitioning), transition);
    assert_eq!(check(&rtpg, AccessState::Transitioning), Ok(()));
    assert_eq!(check(&inquiry, AccessState::Offline), Ok(()));
    assert_eq!(check(&rtpg, AccessState::Offline), Err(Sense::LUN_NOT_READY_OFFLINE));
}

#[test]
fn what_writes_is_marked() {
    let writers: Vec<u8> = TABLE.all().iter().filter(|r| r.writes).map(|r| r.opcode).collect();
    assert_eq!(writers, [0x04, 0x0a, 0x2a, 0x2e, 0x41, 0x42, 0x89, 0x8a, 0x8e, 0x93, 0xaa, 0xae]);
}

#[test]
fn a_command_is_no_larger_than_a_range_and_its_flags() {
    assert!(size_of::<Command>() <= 24);
}

#[test]
fn the_documented_table_is_this_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/OPCODES.md");
    if std::env::var_os("UPDATE_OPCODES").is_some() {
        std::fs::write(path, TABLE.markdown()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert!(
        written == TABLE.markdown(),
        "{path} is stale; run UPDATE_OPCODES=1 cargo test -p scsi"
    );
}
