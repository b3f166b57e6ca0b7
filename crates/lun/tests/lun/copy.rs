// SPDX-License-Identifier: Apache-2.0
//! EXTENDED COPY inside one logical unit and between two, and RECEIVE COPY RESULTS.
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use lun::peers::{CopyPeer, CopyPeers, PeerError, PeerReply, PeerRequest};
use lun::{Config, Identity, Lun};
use scsi::sense::Sense;

use crate::support::*;

const OTHER: &str = "ffffffff-0000-4000-8000-000000000001";

/// The other logical unit, as if its thread answered after a while.
struct Other {
    lun: Lun<Memory>,
}

impl CopyPeer for Other {
    fn call(
        &self,
        request: PeerRequest,
    ) -> Pin<Box<dyn Future<Output = Result<PeerReply, PeerError>> + '_>> {
        Box::pin(async move {
            pause(2).await;
            self.lun.serve_peer(request).await
        })
    }
}

/// All the others: one, by its designator.
struct Others(Rc<Other>);

impl CopyPeers for Others {
    fn find(&self, naa: &[u8; 16]) -> Option<Rc<dyn CopyPeer>> {
        (*naa == self.0.lun.identity().naa()).then(|| self.0.clone() as Rc<dyn CopyPeer>)
    }
}

fn pair(here: Memory, there: Memory, block_size: u32) -> (Lun<Memory>, Rc<Other>) {
    let config = Config { block_size, identity: Identity::new(OTHER), ..config() };
    let other = Rc::new(Other { lun: Lun::new(there, config).unwrap() });
    (lun(here).with_peers(Rc::new(Others(other.clone()))), other)
}

/// (source CSCD, destination CSCD, blocks, source LBA, destination LBA)
type Segment = (u16, u16, u16, u64, u64);

fn copy_list(parties: &[([u8; 16], u32)], segments: &[Segment]) -> Vec<u8> {
    let mut list = vec![0; 16];
    list[0] = 7;
    list[2..4].copy_from_slice(&(32 * parties.len() as u16).to_be_bytes());
    list[8..12].copy_from_slice(&(28 * segments.len() as u32).to_be_bytes());
    for (naa, block_size) in parties {
        list.extend([0xe4, 0, 0, 0, 1, 3, 0, 16]);
        list.extend(naa);
        list.extend([0; 4]);
        list.extend(block_size.to_be_bytes());
    }
    for (source, destination, blocks, from, to) in segments {
        list.extend([0x02, 0, 0, 24]);
        list.extend(source.to_be_bytes());
        list.extend(destination.to_be_bytes());
        list.extend([0; 2]);
        list.extend(blocks.to_be_bytes());
        list.extend(from.to_be_bytes());
        list.extend(to.to_be_bytes());
    }
    list
}

fn copy_cdb(list: &[u8]) -> [u8; 16] {
    cdb16(0x83, 0, 0, list.len() as u32)
}

fn here(lun: &Lun<Memory>) -> ([u8; 16], u32) {
    (lun.identity().naa(), lun.block_size())
}

#[test]
fn blocks_are_copied_inside_a_logical_unit() {
    let lun = lun(Memory::new(64).patterned());
    let mut list = copy_list(&[here(&lun)], &[(0, 0, 4, 8, 32), (0, 0, 0, 0, 0), (0, 0, 1, 0, 63)]);
    good(&lun, &copy_cdb(&list), &mut list);
    assert_eq!(lun.store().block(32), [pattern(8); BS]);
    assert_eq!(lun.store().block(35), [pattern(11); BS]);
    assert_eq!(lun.store().block(36), [pattern(36); BS]);
    assert_eq!(lun.store().block(63), [pattern(0); BS]);
}

#[test]
fn a_destination_that_overlaps_its_source_gets_what_the_source_was() {
    for (from, to) in [(0u64, 700u64), (700, 0), (0, 5000), (3, 3), (0, 1), (1, 0)] {
        let lun = lun(Memory::new(16384).patterned());
        let mut list = copy_list(&[here(&lun)], &[(0, 0, 9001, from, to)]);
        good(&lun, &copy_cdb(&list), &mut list);
        for i in 0..9001 {
            let block = lun.store().block((to + i) as usize);
            assert_eq!(block, [pattern(from + i); BS], "{from} to {to}, block {i}");
        }
    }
}

#[test]
fn blocks_are_copied_to_and_from_another_logical_unit() {
    let (lun, other) = pair(Memory::new(8192).patterned(), Memory::new(8192), 4096);
    let there = here(&other.lun);
    // 4096 blocks of 512 bytes are 2 MiB: more than one piece.
    let segments = [(0, 1, 4096, 16, 1), (1, 0, 1, 1, 8)];
    let mut list = copy_list(&[here(&lun), there], &segments);
    good(&lun, &copy_cdb(&list), &mut list);
    for i in 0..4096 {
        assert_eq!(other.lun.store().block(8 + i), [pattern(16 + i as u64); BS], "{i}");
    }
    assert_eq!(lun.store().block(8), [pattern(16); BS]);
    assert_eq!(lun.store().block(15), [pattern(23); BS]);

    let status = read_data(&lun, &cdb_results(0x00, 7), 64);
    let bytes = 4096 * 512 + 4096u32;
    assert_eq!(status[4..8], [1, 0, 2, 0]);
    assert_eq!(status[8..12], bytes.to_be_bytes());
}

fn cdb_results(action: u8, list_id: u8) -> [u8; 16] {
    let mut cdb = cdb16(0x84, action, 0, 64);
    cdb[2] = list_id;
    cdb
}

#[test]
fn a_list_with_anything_wrong_copies_nothing() {
    let (lun, other) = pair(Memory::new(64).patterned(), Memory::new(64), 4096);
    let (a, b) = (here(&lun), here(&other.lun));
    let cases = [
        (copy_list(&[a], &[(0, 0, 1, 0, 1), (0, 0, 2, 63, 0)]), (0xa, 0, 0)),
        (copy_list(&[a], &[(0, 0, 1, 0, 1), (0, 0, 2, 0, u64::MAX)]), (0xa, 0, 0)),
        (copy_list(&[a, b], &[(0, 1, 7, 0, 0)]), (0xa, 0x26, 0x0d)),
        (copy_list(&[a, b], &[(0, 1, 8, 0, 8)]), (0xa, 0, 0)),
        (copy_list(&[a, ([9; 16], 512)], &[(0, 0, 1, 0, 1), (0, 1, 1, 0, 1)]), (0xa, 0x0d, 2)),
        (copy_list(&[a], &[(0, 0, 1, 0, 1), (0, 1, 1, 0, 1)]), (0xa, 0x08, 4)),
        (copy_list(&[a], &[(0xffff, 0, 1, 0, 1)]), (0xa, 0x08, 4)),
        // This one is not read as far as its segments.
        (copy_list(&[(a.0, 4096)], &[(0, 0, 1, 0, 1)]), (5, 0x26, 0)),
    ];
    for (list, expected) in &cases {
        let refused = sense(&lun, &copy_cdb(list), &mut list.clone());
        assert_eq!(triple(refused), *expected);
        let unknown = sense(&lun, &cdb_results(0x00, 7), &mut [0; 64]);
        assert_eq!(triple(unknown), (5, 0x24, 0));
    }
    let list = copy_list(&[a], &[(0, 0, 1, 0, 1)]);
    let cut = sense(&lun, &copy_cdb(&list), &mut list[..40].to_vec());
    assert_eq!(cut, Sense::PARAMETER_LIST_LENGTH_ERROR);
    assert_eq!(lun.store().take_ops(), []);
    assert_eq!(other.lun.store().take_ops(), []);
}

#[test]
fn a_list_without_segments_copies_nothing_and_is_good() {
    let lun = lun(Memory::new(64).patterned());
    let parties = [here(&lun), ([9; 16], 512)];
    for count in 0..=2 {
        let mut list = copy_list(&parties[..count], &[]);
        good(&lun, &copy_cdb(&list), &mut list);
        let status = read_data(&lun, &cdb_results(0x00, 7), 64);
        assert_eq!(status[4..], [1, 0, 0, 0, 0, 0, 0, 0]);
    }
    good(&lun, &copy_cdb(&[]), &mut []);
    assert_eq!(lun.store().take_ops(), []);
}

#[test]
fn a_null_device_cannot_be_copied_from() {
    let lun = lun(Memory::new(64).patterned());
    let mut list = copy_list(&[here(&lun)], &[(0, 0, 1, 0, 1)]);
    // LU ID TYPE means nothing in an identification descriptor; NUL does.
    list[17] = 0xc0;
    good(&lun, &copy_cdb(&list), &mut list);
    lun.store().take_ops();
    list[17] = 0x20;
    let refused = sense(&lun, &copy_cdb(&list), &mut list);
    assert_eq!(refused, Sense::UNREACHABLE_COPY_TARGET.in_list(17, Some(5)));
    assert_eq!(lun.store().take_ops(), []);
}

#[test]
fn only_the_logical_units_that_a_segment_names_have_to_be_there() {
    let lun = lun(Memory::new(64).patterned());
    let mut list = copy_list(&[([9; 16], 512), here(&lun)], &[(1, 1, 1, 0, 1)]);
    good(&lun, &copy_cdb(&list), &mut list);
    assert_eq!(lun.store().block(1), [pattern(0); BS]);
}

#[test]
fn the_status_of_a_copy_is_told_once_and_never_of_one_that_was_not_asked_for() {
    let lun = lun(Memory::new(64).patterned());
    let unknown = |list_id| {
        let refused = sense(&lun, &cdb_results(0x00, list_id), &mut [0; 64]);
        assert_eq!(refused, Sense::cdb_field(2, Some(7)));
    };
    unknown(7);
    let mut list = copy_list(&[here(&lun)], &[(0, 0, 1, 0, 1)]);
    good(&lun, &copy_cdb(&list), &mut list);
    unknown(6);
    assert_eq!(read_data(&lun, &cdb_results(0x00, 7), 64)[4], 1);
    unknown(7);
}

#[test]
fn a_list_with_too_many_descriptors_or_bytes_is_refused() {
    let lun = lun(Memory::new(64).patterned());
    let too_long = (5, 0x1a, 0);
    for (parties, segments, expected) in
        [(17, 1, (5, 0x26, 6)), (1, 257, (5, 0x26, 8)), (16, 257, too_long), (17, 257, too_long)]
    {
        let parties = vec![here(&lun); parties];
        let mut list = copy_list(&parties, &vec![(0, 0, 1, 0, 1); segments]);
        let refused = sense(&lun, &copy_cdb(&list), &mut list);
        assert_eq!(triple(refused), expected);
    }
    assert_eq!(lun.store().take_ops(), []);
}

#[test]
fn a_copy_that_fails_in_the_middle_says_how_far_it_came() {
    let (lun, other) = pair(Memory::new(8192).patterned(), Memory::new(8192), 512);
    other.lun.store().fail(|op| matches!(op, Op::Write(0x10_0000.., ..)).then_some(5));
    let mut list =
        copy_list(&[here(&lun), here(&other.lun)], &[(0, 1, 8, 0, 0), (0, 1, 8, 0, 4096)]);
    let failed = sense(&lun, &copy_cdb(&list), &mut list);
    assert_eq!(failed, Sense::COPY_THIRD_PARTY_DEVICE_FAILURE);
    let status = read_data(&lun, &cdb_results(0x00, 7), 64);
    assert_eq!(status[4..7], [2, 0, 1]);
    assert_eq!(status[8..12], (8 * 512u32).to_be_bytes());
}

#[test]
fn a_copy_to_a_full_disk_says_that_it_is_full() {
    let lun = lun(Memory::new(64).patterned());
    lun.store().fail(|op| matches!(op, Op::Write(..)).then_some(28));
    let mut list = copy_list(&[here(&lun)], &[(0, 0, 8, 0, 8)]);
    let failed = sense(&lun, &copy_cdb(&list), &mut list);
    assert_eq!(failed, Sense::SPACE_ALLOCATION_FAILED_WRITE_PROTECT);
}

#[test]
fn a_copy_to_a_read_only_logical_unit_is_refused() {
    let there = Memory::new(64).with(|facts| facts.read_only = true);
    let (lun, other) = pair(Memory::new(64), there, 512);
    let mut list = copy_list(&[here(&lun), here(&other.lun)], &[(0, 1, 8, 0, 0)]);
    assert_eq!(sense(&lun, &copy_cdb(&list), &mut list), Sense::COPY_DESTINATION_WRITE_PROTECTED);
}

#[test]
fn two_logical_units_can_copy_from_each_other_at_once() {
    let lun = lun(Memory::new(8192).patterned());
    lun.store().delay.set(2);
    let list = copy_list(&[here(&lun)], &[(0, 0, 2500, 0, 4000), (0, 0, 2500, 4000, 0)]);
    let mut tasks = Tasks::new();
    for _ in 0..10 {
        tasks.spawn(async {
            let mut data = list.clone();
            let data = sgl::Sgl::from_slice(&mut data);
            assert_eq!(lun.execute(&copy_cdb(&list), &data).await, done(0));
        });
        tasks.spawn(async {
            let cdb = cdb10(0x2e, 0x02, 4000, 100);
            let mut data = vec![1; 100 * BS];
            assert_eq!(lun.execute(&cdb, &sgl::Sgl::from_slice(&mut data)).await, done(0));
        });
    }
    tasks.run();
}

#[test]
fn a_peer_serves_whole_blocks_inside_its_capacity_alone() {
    let lun = lun(Memory::new(64));
    for (lba, len) in [(64, 512), (0, 100), (u64::MAX, 512), (0, (1 << 20) + 512)] {
        let request = PeerRequest::Read { lba, buffer: vec![0; len] };
        assert_eq!(block_on(lun.serve_peer(request)).unwrap_err(), PeerError::Failed);
        let request = PeerRequest::Write { lba, buffer: vec![0; len] };
        assert_eq!(block_on(lun.serve_peer(request)).unwrap_err(), PeerError::Failed);
    }
    assert_eq!(lun.store().take_ops(), []);
}

#[test]
fn operating_parameters_are_told() {
    let lun = lun(Memory::new(64));
    let data = read_data(&lun, &cdb_results(0x03, 0), 64);
    assert_eq!(u32::from_be_bytes(data[..4].try_into().unwrap()) as usize, data.len() - 4);
    assert_eq!(read_data(&lun, &cdb_results(0x04, 7), 64), [0; 4]);
}
