// SPDX-License-Identifier: Apache-2.0
//! UNMAP, WRITE SAME, GET LBA STATUS, FORMAT UNIT, and what is promised about them.
use block::Discard;
use scsi::sense::Sense;

use crate::support::*;

const WRITE_SAME16: u8 = 0x93;
const UNMAP_BIT: u8 = 0x08;
const NDOB: u8 = 0x01;

fn unmap_list(ranges: &[(u64, u32)]) -> Vec<u8> {
    let len = 16 * ranges.len() as u16;
    let mut list = [(len + 6).to_be_bytes(), len.to_be_bytes(), [0; 2], [0; 2]].concat();
    for (lba, blocks) in ranges {
        list.extend(lba.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
    }
    list
}

fn unmap_cdb(list: &[u8]) -> [u8; 10] {
    cdb10(0x42, 0, 0, list.len() as u16)
}

fn without_discard(blocks: usize) -> Memory {
    Memory::new(blocks).patterned().with(|facts| {
        facts.discard = None;
        facts.write_zeroes = false;
    })
}

#[test]
fn unmap_gives_up_each_range() {
    let lun = lun(Memory::new(64).patterned());
    let mut list = unmap_list(&[(8, 8), (0, 0), (32, 1)]);
    good(&lun, &unmap_cdb(&list), &mut list);
    assert_eq!(lun.store().take_ops(), [Op::Discard(4096, 4096), Op::Discard(16384, 512)]);
    assert_eq!(lun.store().block(8), [0; BS]);
    assert_eq!(lun.store().block(7), [pattern(7); BS]);
}

#[test]
fn unmap_checks_all_of_the_list_before_it_gives_anything_up() {
    let lun = lun(Memory::new(64));
    let mut list = unmap_list(&[(0, 8), (60, 5)]);
    assert_eq!(sense(&lun, &unmap_cdb(&list), &mut list), Sense::LBA_OUT_OF_RANGE);
    let mut list = unmap_list(&[(0, 8), (u64::MAX, u32::MAX)]);
    assert_eq!(triple(sense(&lun, &unmap_cdb(&list), &mut list)).0, 5);
    let mut list = unmap_list(&vec![(0, 1); 257]);
    assert_eq!(triple(sense(&lun, &unmap_cdb(&list), &mut list)).0, 5);
    let mut list = unmap_list(&[(0, 8)]);
    let cut = sense(&lun, &unmap_cdb(&list), &mut list[..20]);
    assert_eq!(cut, Sense::PARAMETER_LIST_LENGTH_ERROR);
    assert_eq!(lun.store().take_ops(), []);
}

#[test]
fn as_many_descriptors_as_page_b0_says_can_be_unmapped() {
    let lun = lun(Memory::new(512));
    let ranges: Vec<_> = (0..256).map(|lba| (lba, 1)).collect();
    let mut list = unmap_list(&ranges);
    good(&lun, &unmap_cdb(&list), &mut list);
    assert_eq!(lun.store().take_ops().len(), 256);
}

#[test]
fn an_unmap_of_more_descriptors_or_blocks_than_page_b0_says_is_refused() {
    let lun = lun(Memory::new(3 << 20).with(|facts| facts.size = 3 << 29));
    let page = read_data(&lun, &[0x12, 1, 0xb0, 0, 64, 0], 64);
    let field = |at: usize| u32::from_be_bytes(page[at..at + 4].try_into().unwrap());
    let (blocks, descriptors) = (field(20), field(24));
    assert_eq!((blocks, descriptors), (1 << 20, 256));
    let mut most = unmap_list(&[(0, blocks - 1), (1 << 20, 1)]);
    good(&lun, &unmap_cdb(&most), &mut most);
    lun.store().take_ops();
    for ranges in [vec![(0, blocks + 1)], vec![(0, blocks), (1 << 20, 1)], vec![(0, 1); 257]] {
        let mut list = unmap_list(&ranges);
        let refused = sense(&lun, &unmap_cdb(&list), &mut list);
        assert_eq!(triple(refused), (5, 0x26, 0), "{} descriptors", ranges.len());
    }
    assert_eq!(lun.store().take_ops(), []);
}

#[test]
fn without_a_write_cache_what_was_unmapped_is_durable() {
    let lun = lun(Memory::new(64));
    lun.set_write_cache(false);
    sense(&lun, &TEST_UNIT_READY, &mut []);
    let mut list = unmap_list(&[(0, 8), (8, 8)]);
    good(&lun, &unmap_cdb(&list), &mut list);
    assert_eq!(lun.store().take_ops().last(), Some(&Op::Flush));
    good(&lun, &cdb16(WRITE_SAME16, NDOB, 0, 8), &mut []);
    assert_eq!(lun.store().take_ops(), [Op::WriteZeroes(0, 4096, false), Op::Flush]);
}

#[test]
fn a_store_that_cannot_discard_has_no_unmap_anywhere() {
    let lun = lun(without_discard(64));
    let mut list = unmap_list(&[(0, 8)]);
    let refused = sense(&lun, &unmap_cdb(&list), &mut list);
    assert_eq!(refused, Sense::INVALID_COMMAND_OPERATION_CODE);
    let refused = sense(&lun, &cdb16(WRITE_SAME16, UNMAP_BIT, 0, 1), &mut [0; BS]);
    assert_eq!(triple(refused), (5, 0x24, 0));
    let rsoc = [0xa3, 0x0c, 0x01, 0x42, 0, 0, 0, 0, 0, 64, 0, 0];
    assert_eq!(read_data(&lun, &rsoc, 64)[1] & 7, 1, "not supported");
}

/// For every store, VPD pages B0h and B2h, READ CAPACITY (16) and the commands agree.
#[test]
fn what_is_promised_of_provisioning_is_what_happens() {
    let discards = [
        None,
        Some(Discard { granularity: 4096, zeroes: false }),
        Some(Discard { granularity: 65536, zeroes: true }),
    ];
    for discard in discards {
        for write_zeroes in [false, true] {
            let lun = lun(Memory::new(256).patterned().with(|facts| {
                facts.discard = discard;
                facts.write_zeroes = write_zeroes;
            }));
            let b0 = read_data(&lun, &[0x12, 1, 0xb0, 0, 64, 0], 64);
            let b2 = read_data(&lun, &[0x12, 1, 0xb2, 0, 64, 0], 64);
            let mut rc16 = cdb16(0x9e, 0x10, 0, 32);
            rc16[13] = 32;
            let capacity = read_data(&lun, &rc16, 32);
            let (lbpme, lbprz) = (capacity[14] & 0x80 != 0, capacity[14] & 0x40 != 0);
            assert_eq!(b2[5] & 0x80 != 0, lbpme, "LBPU");
            assert_eq!(b2[5] & 0x60 != 0, lbpme, "LBPWS");
            assert_eq!(b2[5] & 0x04 != 0, lbprz, "LBPRZ");
            assert_eq!(b0[20..24] != [0; 4], lbpme, "maximum unmap LBA count");

            let mut list = unmap_list(&[(16, 16)]);
            let unmapped = run(&lun, &unmap_cdb(&list), &mut list);
            assert_eq!(unmapped == done(0), lbpme);
            if lbprz {
                assert_eq!(lun.store().block(20), [0; BS]);
            }
            let same = run(&lun, &cdb16(WRITE_SAME16, UNMAP_BIT, 64, 16), &mut [0; BS]);
            assert_eq!(same == done(0), lbpme);
            if lbpme {
                assert_eq!(lun.store().block(70), [0; BS], "WRITE SAME leaves zeroes");
            }
            let granularity = u32::from_be_bytes(b0[28..32].try_into().unwrap());
            assert_eq!(granularity as usize * BS, discard.map_or(0, |d| d.granularity as usize));
        }
    }
}

#[test]
fn write_same_of_zeroes_is_done_by_the_store() {
    let lun = lun(Memory::new(64).patterned());
    good(&lun, &cdb16(WRITE_SAME16, 0, 8, 8), &mut [0; BS]);
    assert_eq!(lun.store().take_ops(), [Op::WriteZeroes(4096, 4096, false)]);
    good(&lun, &cdb16(WRITE_SAME16, UNMAP_BIT | NDOB, 16, 8), &mut []);
    assert_eq!(lun.store().take_ops(), [Op::WriteZeroes(8192, 4096, true)]);
}

#[test]
fn write_same_of_anything_else_is_written_again_and_again() {
    let lun = lun(Memory::new(8192));
    let mut block: Vec<u8> = (0..BS).map(|i| i as u8).collect();
    // More than one piece, and a last piece that is shorter.
    good(&lun, &cdb16(WRITE_SAME16, 0, 1, 5000), &mut block);
    for lba in [1, 2, 2048, 2049, 4097, 5000] {
        assert_eq!(lun.store().block(lba), block, "{lba}");
    }
    assert_eq!(lun.store().block(0), [0; BS]);
    assert_eq!(lun.store().block(5001), [0; BS]);
    let ops = lun.store().take_ops();
    assert!(ops.iter().all(|op| matches!(op, Op::Write(_, len, false) if *len <= 1 << 20)));
}

#[test]
fn write_same_is_emulated_where_the_store_can_do_nothing() {
    let lun = lun(without_discard(64));
    good(&lun, &cdb10(0x41, 0, 8, 8), &mut [0; BS]);
    assert_eq!(lun.store().take_ops(), [Op::Write(4096, 4096, false)]);
    assert_eq!(lun.store().block(15), [0; BS]);
    assert_eq!(lun.store().block(16), [pattern(16); BS]);
}

#[test]
fn write_same_of_0_blocks_goes_to_the_end() {
    let lun = lun(Memory::new(64).patterned());
    good(&lun, &cdb16(WRITE_SAME16, 0, 60, 0), &mut [7; BS]);
    assert_eq!(lun.store().block(63), [7; BS]);
    assert_eq!(lun.store().block(59), [pattern(59); BS]);
    good(&lun, &cdb16(WRITE_SAME16, 0, 64, 0), &mut [7; BS]);
}

#[test]
fn write_same_with_anything_but_one_block_is_refused() {
    let lun = lun(Memory::new(64).patterned());
    for (flags, len) in [(0, 0), (0, BS - 1), (0, BS + 1), (0, 8 * BS), (NDOB, 1), (NDOB, BS)] {
        let cdb = cdb16(WRITE_SAME16, flags, 0, 8);
        let refused = sense(&lun, &cdb, &mut vec![0; len]);
        assert_eq!(refused, Sense::INVALID_FIELD_IN_CDB, "{flags} {len}");
    }
    assert_eq!(lun.store().take_ops(), []);
}

#[test]
fn write_same_longer_than_page_b0_says_is_refused() {
    // No zeroes on the cheap: 64 MiB at most.
    let lun = lun(without_discard((64 << 20) / BS + 1));
    let b0 = read_data(&lun, &[0x12, 1, 0xb0, 0, 64, 0], 64);
    let max = u64::from_be_bytes(b0[36..44].try_into().unwrap()) as u32;
    let refused = sense(&lun, &cdb16(WRITE_SAME16, 0, 0, max + 1), &mut [0; BS]);
    assert_eq!(triple(refused), (5, 0x24, 0));
    assert_eq!(triple(sense(&lun, &cdb16(WRITE_SAME16, 0, 0, 0), &mut [0; BS])), (5, 0x24, 0));
    good(&lun, &cdb16(WRITE_SAME16, 0, 0, max), &mut [0; BS]);
}

#[test]
fn lba_status_tells_mapped_from_deallocated() {
    let lun = lun(Memory::new(64));
    let mut list = unmap_list(&[(8, 8)]);
    good(&lun, &unmap_cdb(&list), &mut list);
    let status = read_data(&lun, &cdb16(0x9e, 0x12, 4, 200), 200);
    let expected = [(4, 4, 0), (8, 8, 1), (16, 48, 0)];
    assert_eq!(status.len(), 8 + 16 * expected.len());
    for (run, (lba, blocks, state)) in status[8..].chunks(16).zip(expected) {
        assert_eq!(run[..8], u64::to_be_bytes(lba));
        assert_eq!(run[8..12], u32::to_be_bytes(blocks));
        assert_eq!(run[12], state);
    }
    let cut = read_data(&lun, &cdb16(0x9e, 0x12, 4, 24), 200);
    assert_eq!(cut.len(), 24);
    let out = sense(&lun, &cdb16(0x9e, 0x12, 64, 200), &mut [0; 200]);
    assert_eq!(out, Sense::LBA_OUT_OF_RANGE);
}

#[test]
fn format_unit_gives_up_all_space_or_leaves_all_as_it_is() {
    let thin = lun(Memory::new(64).patterned());
    good(&thin, &[0x04, 0, 0, 0, 0, 0], &mut []);
    assert_eq!(thin.store().take_ops(), [Op::Discard(0, 64 * 512)]);

    let zeroing = lun(Memory::new(64).patterned().with(|facts| facts.discard = None));
    good(&zeroing, &[0x04, 0x10, 0, 0, 0, 0], &mut [0; 4]);
    assert_eq!(zeroing.store().take_ops(), [Op::WriteZeroes(0, 64 * 512, true)]);

    let thick = lun(without_discard(64));
    good(&thick, &[0x04, 0, 0, 0, 0, 0], &mut []);
    assert_eq!(thick.store().take_ops(), []);
}

#[test]
fn format_unit_with_a_pattern_or_a_defect_list_is_refused() {
    let lun = lun(Memory::new(64));
    for list in [[0, 0x08, 0, 0], [0, 0, 0, 8], [1, 0, 0, 0]] {
        let refused = sense(&lun, &[0x04, 0x10, 0, 0, 0, 0], &mut list.clone());
        assert_eq!(triple(refused), (5, 0x26, 0));
    }
    assert_eq!(lun.store().take_ops(), []);
}
