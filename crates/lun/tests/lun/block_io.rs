// SPDX-License-Identifier: Apache-2.0
//! READ, WRITE, VERIFY and SYNCHRONIZE CACHE.
use scsi::sense::{Sense, Status};

use crate::support::*;

#[test]
fn a_read_brings_the_blocks_and_says_how_many_bytes() {
    let lun = lun(Memory::new(16).patterned());
    let data = read_data(&lun, &cdb10(READ10, 0, 3, 2), 2 * BS);
    assert_eq!(data, [[pattern(3); BS], [pattern(4); BS]].concat());
    let six = read_data(&lun, &[0x08, 0, 0, 15, 1, 0], BS);
    assert_eq!(six, [pattern(15); BS]);
    let twelve = read_data(&lun, &[0xa8, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0], BS);
    assert_eq!(twelve, [pattern(9); BS]);
}

#[test]
fn a_buffer_shorter_than_the_transfer_gets_what_fits() {
    let lun = lun(Memory::new(16).patterned());
    assert_eq!(read_data(&lun, &cdb10(READ10, 0, 0, 4), 700).len(), 700);
    assert_eq!(read_data(&lun, &cdb10(READ10, 0, 0, 4), 0).len(), 0);
}

#[test]
fn a_buffer_longer_than_the_transfer_keeps_its_rest() {
    let lun = lun(Memory::new(16).patterned());
    assert_eq!(read_data(&lun, &cdb10(READ10, 0, 0, 1), 4 * BS).len(), BS);
    good(&lun, &cdb10(WRITE10, 0, 0, 1), &mut [9; 3 * BS]);
    assert_eq!(lun.store().block(0), [9; BS]);
    assert_eq!(lun.store().block(1), [pattern(1); BS]);
}

#[test]
fn a_write_with_a_short_buffer_tears_no_block() {
    let lun = lun(Memory::new(16).patterned());
    good(&lun, &cdb10(WRITE10, 0, 0, 3), &mut [9; BS + 100]);
    assert_eq!(lun.store().block(0), [9; BS]);
    assert_eq!(lun.store().block(1), [pattern(1); BS]);
}

#[test]
fn the_last_block_can_be_used_and_the_one_after_it_cannot() {
    let lun = lun(Memory::new(16).patterned());
    assert_eq!(read_data(&lun, &cdb16(READ16, 0, 15, 1), BS).len(), BS);
    for (lba, blocks) in [(16, 1), (15, 2), (17, 0), (u64::MAX, 1), (u64::MAX, 0), (1 << 63, 2)] {
        for opcode in [READ16, WRITE16, 0x8e, 0x8f, 0x90, 0x91, 0x93] {
            let mut data = [0; 4 * BS];
            let cdb = cdb16(opcode, 0, lba, blocks);
            assert_eq!(sense(&lun, &cdb, &mut data), Sense::LBA_OUT_OF_RANGE, "{lba}+{blocks}");
        }
    }
    assert!(lun.store().take_ops().iter().all(|op| matches!(op, Op::Read(7680, _))));
}

#[test]
fn a_transfer_of_no_blocks_does_nothing() {
    let lun = lun(Memory::new(16));
    for opcode in [READ10, WRITE10, 0x2e, 0x2f] {
        good(&lun, &cdb10(opcode, 0, 5, 0), &mut [1; BS]);
    }
    good(&lun, &cdb10(READ10, 0, 16, 0), &mut []);
    assert_eq!(lun.store().take_ops(), []);
}

#[test]
fn a_transfer_longer_than_page_b0_says_is_served_where_the_buffer_has_it() {
    const BLOCKS: usize = 6000;
    let lun = lun(Memory::new(BLOCKS).patterned());
    let page = read_data(&lun, &[0x12, 1, 0xb0, 0, 64, 0], 64);
    let max = u32::from_be_bytes(page[8..12].try_into().unwrap()) as usize;
    assert_eq!(max * BS, 64 << 10);
    // One block more than the page says, and several of the buffers that VERIFY reads through.
    for blocks in [max + 1, BLOCKS] {
        let short = blocks as u16;
        let old = read_data(&lun, &cdb10(READ10, 0, 0, short), blocks * BS);
        assert!((0..blocks).all(|i| old[i * BS..][..BS] == *lun.store().block(i)));
        for (opcode, flags) in [(WRITE10, 0), (0x2e, 0), (0x2e, 0x02)] {
            let mut new: Vec<u8> = (0..blocks * BS).map(|i| (i / 7) as u8 ^ opcode).collect();
            good(&lun, &cdb10(opcode, flags, 0, short), &mut new);
            assert_eq!(read_data(&lun, &cdb16(READ16, 0, 0, blocks as u32), new.len()), new);
            good(&lun, &cdb10(0x2f, 0x02, 0, short), &mut new);
            let last = new.len() - 1;
            new[last] ^= 1;
            let differs = Sense::MISCOMPARE_DURING_VERIFY.with_information(last as u64);
            assert_eq!(sense(&lun, &cdb10(0x2f, 0x02, 0, short), &mut new), differs);
        }
    }
}

#[test]
fn half_a_comparison_is_none() {
    let lun = lun(Memory::new(16).patterned());
    for (flags, len) in [(0x02, 2 * BS - 1), (0x02, 0), (0x06, BS - 1), (0x06, 0)] {
        let refused = sense(&lun, &cdb10(0x2f, flags, 2, 2), &mut vec![pattern(2); len]);
        assert_eq!(refused, Sense::INVALID_FIELD_IN_CDB, "{flags:02x} {len}");
    }
    assert_eq!(lun.store().take_ops(), []);
}

#[test]
fn a_write_is_durable_with_fua_or_without_a_write_cache() {
    let lun = lun(Memory::new(16));
    let write = |flags| {
        good(&lun, &cdb10(WRITE10, flags, 0, 1), &mut [1; BS]);
        lun.store().take_ops()
    };
    assert_eq!(write(0), [Op::Write(0, 512, false)]);
    assert_eq!(write(FUA), [Op::Write(0, 512, true)]);
    lun.set_write_cache(false);
    assert_eq!(sense(&lun, &TEST_UNIT_READY, &mut []), Sense::MODE_PARAMETERS_CHANGED);
    assert_eq!(write(0), [Op::Write(0, 512, true)]);
}

#[test]
fn a_read_only_medium_is_write_protected_for_every_command_that_writes() {
    let lun = lun(Memory::new(16).with(|facts| facts.read_only = true));
    let mut unmap = [0; 24];
    (unmap[1], unmap[3], unmap[19]) = (22, 16, 1);
    let mut format = [0; 16];
    format[0] = 0x04;
    for cdb in [
        cdb16(WRITE16, 0, 0, 1),
        cdb16(0x8e, 0, 0, 1),
        cdb16(0x93, 0, 0, 1),
        caw(0, 1),
        [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0],
        format,
    ] {
        let mut data = [0; 2 * BS];
        data[..24].copy_from_slice(&unmap);
        assert_eq!(sense(&lun, &cdb, &mut data), Sense::WRITE_PROTECTED, "{:02x}", cdb[0]);
    }
    assert_eq!(lun.store().take_ops(), []);
    let header = read_data(&lun, &[0x1a, 0, 0x3f, 0, 4, 0], 4);
    assert_eq!(header[2] & 0x80, 0x80, "WP");
}

#[test]
fn synchronize_cache_flushes_and_checks_its_range() {
    let lun = lun(Memory::new(16));
    for (lba, blocks) in [(0, 0), (4, 12), (16, 0)] {
        good(&lun, &cdb10(0x35, 0, lba, blocks), &mut []);
        assert_eq!(lun.store().take_ops(), [Op::Flush]);
    }
    assert_eq!(sense(&lun, &cdb10(0x35, 2, 4, 13), &mut []), Sense::LBA_OUT_OF_RANGE);
    lun.store().fail(|op| (op == Op::Flush).then_some(libc_eio()));
    assert_eq!(triple(sense(&lun, &cdb10(0x35, 0, 0, 0), &mut [])), (3, 0x0c, 0));
}

fn libc_eio() -> i32 {
    5
}

#[test]
fn verify_compares_all_or_one_block_and_tells_where_they_differ() {
    let lun = lun(Memory::new(16).patterned());
    let mut same = [[pattern(2); BS], [pattern(3); BS]].concat();
    good(&lun, &cdb10(0x2f, 0x02, 2, 2), &mut same);
    same[BS + 7] = 0;
    let differs = Sense::MISCOMPARE_DURING_VERIFY.with_information(BS as u64 + 7);
    assert_eq!(sense(&lun, &cdb10(0x2f, 0x02, 2, 2), &mut same), differs);
    // One block against each of two, of which the second is another.
    let differs = Sense::MISCOMPARE_DURING_VERIFY.with_information(BS as u64);
    assert_eq!(sense(&lun, &cdb10(0x2f, 0x06, 2, 2), &mut same[..BS]), differs);
    good(&lun, &cdb10(0x2f, 0x00, 0, 16), &mut []);
}

#[test]
fn verify_of_the_medium_finds_a_block_that_cannot_be_read() {
    let lun = lun(Memory::new(4096));
    let bad = 3000 * BS as u64;
    lun.store().fail(move |op| match op {
        Op::Read(at, len) if at <= bad && bad < at + len => Some(libc_eio()),
        _ => None,
    });
    let failed = sense(&lun, &cdb10(0x2f, 0, 0, 4096), &mut []);
    assert_eq!(triple(failed), (3, 0x11, 0));
    good(&lun, &cdb10(0x2f, 0, 3001, 1000), &mut []);
}

#[test]
fn write_and_verify_is_durable_and_reads_back() {
    let lun = lun(Memory::new(16));
    good(&lun, &cdb10(0x2e, 0x02, 4, 2), &mut [7; 2 * BS]);
    assert_eq!(lun.store().take_ops(), [Op::Write(2048, 1024, true), Op::Read(2048, 1024)]);
    assert_eq!(lun.store().block(5), [7; BS]);
}

#[test]
fn errors_of_the_store_become_sense_or_busy() {
    let lun = lun(Memory::new(16));
    let cases = [
        (5, (3, 0x11, 0), (3, 0x0c, 0)),       // EIO
        (28, (3, 0x11, 0), (7, 0x27, 7)),      // ENOSPC
        (30, (3, 0x11, 0), (7, 0x27, 0)),      // EROFS
        (22, (4, 0x44, 0), (4, 0x44, 0)),      // EINVAL
        (116, (2, 0x08, 0), (2, 0x08, 0)),     // ESTALE
        (107, (2, 0x08, 0), (2, 0x08, 0)),     // ENOTCONN: another path may do better
        (108, (2, 0x08, 0), (2, 0x08, 0)),     // ESHUTDOWN: the same
        (110, (0xb, 0x2e, 2), (0xb, 0x2e, 2)), // ETIMEDOUT
    ];
    for (errno, read, write) in cases {
        lun.store().fail(move |_| Some(errno));
        assert_eq!(triple(sense(&lun, &cdb10(READ10, 0, 3, 1), &mut [0; BS])), read);
        assert_eq!(triple(sense(&lun, &cdb10(WRITE10, 0, 3, 1), &mut [0; BS])), write);
    }
    lun.store().fail(|_| Some(5));
    let failed = sense(&lun, &cdb10(READ10, 0, 3, 1), &mut [0; BS]);
    assert_eq!(failed.information, Some(3));
    lun.store().fail(|_| Some(12)); // ENOMEM
    let busy = run(&lun, &cdb10(READ10, 0, 3, 1), &mut [0; BS]);
    assert_eq!((busy.status, busy.sense, busy.read_len), (Status::Busy, None, 0));
}
