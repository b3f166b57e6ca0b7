// SPDX-License-Identifier: Apache-2.0
//! The ring against a kernel that lies: what concerns one command fails that command, what makes
//! the ring unreadable is an error until it is reset, and nothing else happens.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

use proptest::prelude::*;
use tcmu::mailbox::{OP_CMD, OP_PAD, OP_TMR};
use tcmu::{Entry, Error, Response, Ring};
use tcmu_sim::{Data, Kernel, Options};

const TEST_UNIT_READY: [u8; 6] = [0; 6];

fn pair() -> (Kernel, Ring) {
    let (kernel, parts) = Kernel::new(&Options::default()).unwrap();
    let mut ring = parts.ring().unwrap();
    ring.set_out_of_order(true);
    (kernel, ring)
}

/// An entry of a command of no data, with room for four iovecs, that says `changes` (offset and
/// bytes); the CDB is READ (10) at 112.
fn entry(id: u16, at: usize, changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut entry = vec![0; 128];
    entry[..4].copy_from_slice(&(128 | OP_CMD).to_ne_bytes());
    entry[4..6].copy_from_slice(&id.to_ne_bytes());
    entry[24..32].copy_from_slice(&(at as u64 + 112).to_ne_bytes());
    entry[112] = 0x28;
    for (offset, bytes) in changes {
        entry[*offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    entry
}

/// Sends a malformed command, and sees that it alone fails and that a good one after it is served.
#[track_caller]
fn fails_alone(changes: &[(usize, &[u8])]) {
    let (mut kernel, mut ring) = pair();
    let at = kernel.ring_offset() + kernel.head() as usize;
    kernel.send_raw(&entry(77, at, changes), Some(77)).unwrap();
    let good = kernel.send(&TEST_UNIT_READY, Data::None).unwrap();
    match ring.next().unwrap() {
        Some(Entry::Command(command)) => assert_eq!(command.id(), good),
        other => panic!("{other:?}"),
    }
    assert!(ring.next().unwrap().is_none());
    ring.complete(good, &Response::GOOD).unwrap();
    ring.kick().unwrap();
    let completions = kernel.take_completions().unwrap();
    assert_eq!((completions[0].id, completions[0].status), (77, 2));
    let sense = &completions[0].sense;
    assert_eq!((sense[0], sense[2], sense[12], sense[13]), (0x70, 4, 0x44, 0));
    assert_eq!((completions[1].id, completions[1].status), (good, 0));
}

const ONE: [u8; 4] = 1u32.to_ne_bytes();
const TWO: [u8; 4] = 2u32.to_ne_bytes();

fn iovec(base: usize, len: usize) -> Vec<u8> {
    [base.to_ne_bytes(), len.to_ne_bytes()].concat()
}

#[test]
fn a_well_formed_raw_entry_is_served() {
    let (mut kernel, mut ring) = pair();
    let data = iovec(64 << 10, 4096);
    kernel.send_raw(&entry(7, 128, &[(8, &ONE), (48, &data)]), Some(7)).unwrap();
    let Some(Entry::Command(command)) = ring.next().unwrap() else { panic!("not served") };
    assert_eq!((command.cdb().len(), command.data().len()), (10, 4096));
}

#[test]
fn data_outside_of_the_data_area_fail_their_command() {
    let memory = (64 << 10) + 256 * 4096;
    for (base, len) in [
        (0, 512),
        (64, 4),
        ((64 << 10) - 1, 512),
        (memory, 1),
        (memory - 1, 2),
        (usize::MAX, 2),
        (64 << 10, usize::MAX),
        (64 << 10, memory),
    ] {
        fails_alone(&[(8, &ONE), (48, &iovec(base, len))]);
    }
}

#[test]
fn data_longer_than_the_data_area_fail_their_command() {
    let all = iovec(64 << 10, 256 * 4096);
    fails_alone(&[(8, &TWO), (48, &all), (64, &all)]);
}

#[test]
fn counts_beyond_the_entry_fail_their_command() {
    for at in [8, 12, 16] {
        fails_alone(&[(at, &6u32.to_ne_bytes())]);
        fails_alone(&[(at, &u32::MAX.to_ne_bytes())]);
    }
    fails_alone(&[(8, &u32::MAX.to_ne_bytes()), (12, &[0xff; 4]), (16, &[0xff; 4])]);
}

#[test]
fn a_cdb_outside_of_the_ring_fails_its_command() {
    let end = 64 << 10;
    for offset in [0, 127, end, end + 4096, end - 4, u64::MAX, u64::MAX - 8, 1 << 32] {
        fails_alone(&[(24, &offset.to_ne_bytes())]);
    }
}

#[test]
fn a_variable_length_cdb_that_does_not_fit_the_ring_fails_its_command() {
    // Its opcode is in the ring's last bytes.
    let (mut kernel, mut ring) = pair();
    let end = 64usize << 10;
    kernel.memory().write(end - 8, &[0x7f, 0, 0, 0, 0, 0, 0, 200]).unwrap();
    let off = (end as u64 - 8).to_ne_bytes();
    kernel.send_raw(&entry(9, 128, &[(24, &off)]), Some(9)).unwrap();
    assert!(ring.next().unwrap().is_none());
    ring.kick().unwrap();
    assert_eq!(kernel.take_completions().unwrap()[0].status, 2);
}

/// Sends raw bytes that make the ring unreadable; it says so, and keeps saying so.
#[track_caller]
fn breaks(entry: &[u8], reason: &str) {
    let (mut kernel, mut ring) = pair();
    let before = kernel.send(&TEST_UNIT_READY, Data::None).unwrap();
    assert!(matches!(ring.next(), Ok(Some(_))));
    kernel.send_raw(entry, None).unwrap();
    for _ in 0..2 {
        let error = ring.next().unwrap_err();
        assert!(matches!(error, Error::Broken(_)), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
    // What was in flight can still be completed.
    ring.complete(before, &Response::GOOD).unwrap();
    ring.kick().unwrap();
    assert_eq!(kernel.take_completions().unwrap().len(), 1);
}

fn with_len_op(len_op: u32) -> Vec<u8> {
    let mut entry = vec![0; 128];
    entry[..4].copy_from_slice(&len_op.to_ne_bytes());
    entry[4..6].copy_from_slice(&99u16.to_ne_bytes());
    entry
}

#[test]
fn an_entry_of_no_length_breaks_the_ring() {
    breaks(&with_len_op(OP_PAD), "0 bytes long");
    breaks(&with_len_op(OP_CMD), "0 bytes long");
}

#[test]
fn an_entry_beyond_the_head_breaks_the_ring() {
    breaks(&with_len_op(136 | OP_PAD), "there are 128");
    breaks(&with_len_op(0xffff_fff8 | OP_TMR), "there are 128");
}

#[test]
fn a_command_without_room_for_a_response_breaks_the_ring() {
    breaks(&with_len_op(104 | OP_CMD), "no room for a response");
}

#[test]
fn a_command_that_comes_twice_breaks_the_ring() {
    let mut entry = with_len_op(128 | OP_CMD);
    entry[4..6].copy_from_slice(&1u16.to_ne_bytes());
    breaks(&entry, "came twice");
}

#[test]
fn a_head_that_is_nowhere_breaks_the_ring() {
    for head in [4, 65_408, 65_409, u32::MAX] {
        let (mut kernel, mut ring) = pair();
        kernel.set_head(head);
        assert!(matches!(ring.next(), Err(Error::Broken(_))), "{head}");
    }
}

#[test]
fn a_head_that_overruns_the_tail_breaks_the_ring() {
    let (mut kernel, mut ring) = pair();
    let id = kernel.send(&TEST_UNIT_READY, Data::None).unwrap();
    assert!(ring.next().unwrap().is_some());
    let pad = (65_408 - kernel.head()) | OP_PAD;
    kernel.memory().write(128 + kernel.head() as usize, &pad.to_ne_bytes()).unwrap();
    kernel.set_head(0);
    let error = ring.next().unwrap_err().to_string();
    assert!(error.contains("overrun"), "{error}");
    ring.complete(id, &Response::GOOD).unwrap();
}

#[test]
fn an_unknown_operation_is_marked_and_passed_over() {
    let (mut kernel, mut ring) = pair();
    kernel.send_raw(&with_len_op(128 | 5), Some(99)).unwrap();
    let good = kernel.send(&TEST_UNIT_READY, Data::None).unwrap();
    assert!(matches!(ring.next().unwrap(), Some(Entry::Command(c)) if c.id() == good));
    ring.complete(good, &Response::GOOD).unwrap();
    ring.kick().unwrap();
    let completions = kernel.take_completions().unwrap();
    assert_eq!((completions[0].id, completions[0].unknown_op), (99, true));
    assert_eq!((completions[1].id, completions[1].unknown_op), (good, false));
}

#[test]
fn a_malformed_task_management_entry_is_passed_over() {
    for (len, count) in [(24u32, 0u32), (32, 1), (40, 5), (40, u32::MAX)] {
        let (mut kernel, mut ring) = pair();
        let mut bytes = vec![0; len as usize];
        bytes[..4].copy_from_slice(&(len | OP_TMR).to_ne_bytes());
        bytes[12..16].copy_from_slice(&count.to_ne_bytes());
        kernel.send_raw(&bytes, None).unwrap();
        kernel.send(&TEST_UNIT_READY, Data::None).unwrap();
        assert!(matches!(ring.next().unwrap(), Some(Entry::Command(_))));
    }
}

#[test]
fn a_mailbox_that_makes_no_sense_is_refused() {
    for (at, bytes, reason) in [
        (0, &3u16.to_ne_bytes()[..], "version 3"),
        (4, &0u32.to_ne_bytes(), "a ring of"),
        (4, &132u32.to_ne_bytes(), "a ring of"),
        (4, &u32::MAX.to_ne_bytes(), "a ring of"),
        (8, &0u32.to_ne_bytes(), "a ring of"),
        (8, &u32::MAX.to_ne_bytes(), "a ring of"),
        (8, &0xffff_fff8u32.to_ne_bytes(), "a ring of"),
    ] {
        let (kernel, parts) = Kernel::new(&Options::default()).unwrap();
        kernel.memory().write(at, bytes).unwrap();
        let error = parts.ring().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn a_tail_that_is_nowhere_makes_a_broken_ring() {
    let (kernel, parts) = Kernel::new(&Options::default()).unwrap();
    kernel.memory().set_tail(65_408);
    let mut ring = parts.ring().unwrap();
    assert!(matches!(ring.next(), Err(Error::Broken(_))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    /// The entry point of the fuzz target `ring_entries`, with bytes that are rather like entries.
    #[test]
    fn random_bytes_neither_panic_nor_hang(
        bytes in prop::collection::vec(
            prop_oneof![3 => Just(0u8), 2 => any::<u8>(), 2 => prop_oneof![
                Just(OP_CMD as u8), Just(128), Just(129), Just(112), Just(0x28), Just(0x7f)]],
            0..600,
        ),
        in_order: bool,
    ) {
        tcmu_sim::feed_ring(&bytes, in_order);
    }

    /// Well-formed entries of which some bytes are changed.
    #[test]
    fn damaged_entries_neither_panic_nor_hang(
        damage in prop::collection::vec((0usize..1024, any::<u8>()), 1..12),
        in_order: bool,
    ) {
        let mut bytes = Vec::new();
        for n in 0..8u16 {
            let at = 128 + bytes.len();
            let data = iovec(64 << 10, 4096);
            bytes.extend(entry(n + 1, at, &[(8, &ONE), (48, &data)]));
        }
        for (at, byte) in damage {
            bytes[at] = byte;
        }
        tcmu_sim::feed_ring(&bytes, in_order);
    }
}
