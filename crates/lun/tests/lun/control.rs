// SPDX-License-Identifier: Apache-2.0
//! Unit attentions, mode pages, resize, and commands that read or change the logical unit itself.
use scsi::sense::Sense;
use sgl::Sgl;

use crate::support::*;

fn mode_select_caching(write_cache: bool) -> [u8; 24] {
    let mut list = [0; 24];
    (list[4], list[5], list[6]) = (0x08, 0x12, if write_cache { 4 } else { 0 });
    list
}

#[test]
fn a_resize_is_reported_once_and_then_holds() {
    let lun = lun(Memory::new(16));
    block_on(lun.resize(32 * 512)).unwrap();
    assert_eq!(
        sense(&lun, &cdb10(READ10, 0, 0, 1), &mut [0; BS]),
        Sense::CAPACITY_DATA_HAS_CHANGED
    );
    read_data(&lun, &cdb10(READ10, 0, 31, 1), BS);
    assert_eq!(read_data(&lun, &cdb10(0x25, 0, 0, 0), 8)[3], 31);
    block_on(lun.resize(8 * 512)).unwrap();
    sense(&lun, &TEST_UNIT_READY, &mut []);
    assert_eq!(sense(&lun, &cdb10(READ10, 0, 8, 1), &mut [0; BS]), Sense::LBA_OUT_OF_RANGE);
}

#[test]
fn a_resize_to_the_same_size_is_no_event() {
    let lun = lun(Memory::new(16));
    block_on(lun.resize(16 * 512)).unwrap();
    good(&lun, &TEST_UNIT_READY, &mut []);
}

#[test]
fn a_resize_that_fails_leaves_the_capacity() {
    let lun = lun(Memory::new(16));
    assert!(block_on(lun.resize(511)).is_err());
    lun.store().fail(|op| matches!(op, Op::Resize(_)).then_some(28));
    assert!(block_on(lun.resize(32 * 512)).is_err());
    assert_eq!(lun.blocks(), 16);
    good(&lun, &TEST_UNIT_READY, &mut []);
}

#[test]
fn a_resize_waits_for_the_commands_under_way() {
    let lun = lun(Memory::new(16));
    lun.store().delay.set(10);
    let mut tasks = Tasks::new();
    tasks.spawn(async {
        let cdb = cdb10(WRITE10, 0, 15, 1);
        assert_eq!(lun.execute(&cdb, &Sgl::from_slice(&mut [1; BS])).await, done(0));
    });
    tasks.spawn(async { lun.resize(8 * 512).await.unwrap() });
    tasks.run();
    assert_eq!(lun.blocks(), 8);
}

#[test]
fn a_command_that_waited_for_a_shrink_is_checked_again() {
    let lun = lun(Memory::new(16));
    lun.store().delay.set(10);
    let late =
        [cdb16(READ16, 0, 15, 1), cdb16(WRITE16, 0, 15, 1), cdb16(0x8f, 0, 15, 1), caw(15, 1)];
    let mut tasks = Tasks::new();
    tasks.spawn(async {
        let cdb = cdb10(WRITE10, 0, 15, 1);
        assert_eq!(lun.execute(&cdb, &Sgl::from_slice(&mut [1; BS])).await, done(0));
    });
    tasks.spawn(async { lun.resize(8 * 512).await.unwrap() });
    for cdb in &late {
        let lun = &lun;
        tasks.spawn(async move {
            pause(2).await;
            let outcome = lun.execute(cdb, &Sgl::from_slice(&mut [1; 2 * BS])).await;
            assert_eq!(outcome.sense, Some(Sense::LBA_OUT_OF_RANGE), "{:02x}", cdb[0]);
        });
    }
    tasks.run();
    let ops = lun.store().take_ops();
    assert_eq!(ops, [Op::Write(15 * 512, 512, false), Op::Resize(8 * 512)]);
}

#[test]
fn inquiry_and_its_like_leave_a_unit_attention_for_the_others() {
    let lun = lun(Memory::new(16));
    lun.raise_unit_attention(Sense::POWER_ON_OR_RESET);
    lun.raise_unit_attention(Sense::POWER_ON_OR_RESET);
    lun.raise_unit_attention(Sense::INQUIRY_DATA_HAS_CHANGED);
    read_data(&lun, &[0x12, 0, 0, 0, 36, 0], 36);
    read_data(&lun, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], 16);
    assert_eq!(sense(&lun, &[0xff], &mut []), Sense::POWER_ON_OR_RESET);
    let pending = read_data(&lun, &[0x03, 0, 0, 0, 252, 0], 252);
    assert_eq!((pending[2], pending[12], pending[13]), (6, 0x3f, 3));
    let none = read_data(&lun, &[0x03, 0, 0, 0, 252, 0], 252);
    assert_eq!((none[2], none[12], none[13]), (0, 0, 0));
    good(&lun, &TEST_UNIT_READY, &mut []);
}

#[test]
fn a_reset_forgets_what_was_to_be_reported() {
    let lun = lun(Memory::new(16));
    lun.raise_unit_attention(Sense::INQUIRY_DATA_HAS_CHANGED);
    lun.reset();
    good(&lun, &TEST_UNIT_READY, &mut []);
}

#[test]
fn mode_select_turns_the_write_cache_off_and_flushes_it() {
    let lun = lun(Memory::new(16));
    let cdb = [0x15, 0x10, 0, 0, 24, 0];
    good(&lun, &cdb, &mut mode_select_caching(false));
    assert_eq!(lun.store().take_ops(), [Op::Flush]);
    assert!(!lun.write_cache());
    let caching = |control: u8| read_data(&lun, &[0x1a, 8, control << 6 | 8, 0, 64, 0], 64)[6] & 4;
    assert_eq!([caching(0), caching(1), caching(2)], [0, 4, 4]);
    good(&lun, &cdb, &mut mode_select_caching(true));
    assert_eq!(lun.store().take_ops(), []);
    assert!(lun.write_cache());
    good(&lun, &TEST_UNIT_READY, &mut []);
}

#[test]
fn mode_select_with_a_list_that_is_cut_off_changes_nothing() {
    let lun = lun(Memory::new(16));
    let mut list = mode_select_caching(false);
    let refused = sense(&lun, &[0x15, 0x10, 0, 0, 24, 0], &mut list[..23]);
    assert_eq!(refused, Sense::PARAMETER_LIST_LENGTH_ERROR);
    assert!(lun.write_cache());
}

#[test]
fn a_stop_flushes_and_nothing_can_be_ejected() {
    let lun = lun(Memory::new(16));
    good(&lun, &[0x1b, 0, 0, 0, 0, 0], &mut []);
    assert_eq!(lun.store().take_ops(), [Op::Flush]);
    good(&lun, &[0x1b, 0, 0, 0, 1, 0], &mut []);
    good(&lun, &[0x1b, 0, 0, 0, 4, 0], &mut []);
    assert_eq!(lun.store().take_ops(), []);
    assert_eq!(triple(sense(&lun, &[0x1b, 0, 0, 0, 2, 0], &mut [])), (5, 0x24, 0));
}

#[test]
fn the_self_test_reads_the_medium() {
    let lun = lun(Memory::new(16));
    good(&lun, &[0x1d, 4, 0, 0, 0, 0], &mut []);
    assert_eq!(lun.store().take_ops(), [Op::Read(0, 512)]);
    lun.store().fail(|_| Some(5));
    assert_eq!(triple(sense(&lun, &[0x1d, 4, 0, 0, 0, 0], &mut [])), (3, 0x11, 0));
}

#[test]
fn the_answers_that_never_change_are_there() {
    let lun = lun(Memory::new(16));
    good(&lun, &[0x1e, 0, 0, 0, 1, 0], &mut []);
    assert_eq!(read_data(&lun, &[0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0], 4).len(), 4);
    assert_eq!(read_data(&lun, &[0x37, 0, 0x18, 0, 0, 0, 0, 0, 4, 0], 4)[1], 0x18);
    assert_eq!(read_data(&lun, &[0x4d, 0, 0x40, 0, 0, 0, 0, 0, 64, 0], 64).len(), 5);
    let all = read_data(&lun, &[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0], 4096);
    assert_eq!(u32::from_be_bytes(all[..4].try_into().unwrap()) as usize, all.len() - 4);
}

#[test]
fn reservations_that_nobody_keeps_are_not_granted() {
    let lun = lun(Memory::new(16));
    let mut prin = [0; 10];
    (prin[0], prin[8]) = (0x5e, 8);
    for cdb in [&prin[..], &[0x16, 0, 0, 0, 0, 0], &[0x17, 0, 0, 0, 0, 0]] {
        let refused = sense(&lun, cdb, &mut [0; 8]);
        assert_eq!(refused, Sense::INVALID_COMMAND_OPERATION_CODE);
    }
}

#[test]
fn opcodes_that_are_not_there_are_told_from_bad_fields() {
    let lun = lun(Memory::new(16));
    for cdb in [&[][..], &[0xff], &[0xc1, 0, 0, 0, 0, 0]] {
        assert_eq!(sense(&lun, cdb, &mut []), Sense::INVALID_COMMAND_OPERATION_CODE);
    }
    assert_eq!(triple(sense(&lun, &[0x28, 0, 0], &mut [])), (5, 0x24, 0));
    let protected = cdb10(READ10, 0x20, 0, 1);
    assert_eq!(sense(&lun, &protected, &mut [0; BS]), Sense::cdb_field(1, Some(5)));
}
