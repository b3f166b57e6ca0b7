// SPDX-License-Identifier: Apache-2.0
//! The ring against a stand-in for the kernel: what a well-behaved kernel does.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

use tcmu::mailbox::{CAP_OOOC, CAP_READ_LEN, CAP_TMR};
use tcmu::{Command, Entry, Error, Response, Ring, Tmr, TmrKind};
use tcmu_sim::{Completion, Data, Kernel, Options, Tree};

const TEST_UNIT_READY: [u8; 6] = [0; 6];
const READ_10: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0];
const WRITE_10: [u8; 10] = [0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0];

fn pair(options: &Options) -> (Kernel, Ring) {
    let (kernel, parts) = Kernel::new(options).unwrap();
    (kernel, parts.ring().unwrap())
}

fn out_of_order() -> (Kernel, Ring) {
    let (kernel, mut ring) = pair(&Options::default());
    assert!(ring.set_out_of_order(true));
    (kernel, ring)
}

fn next_command(ring: &mut Ring) -> Command {
    match ring.next().unwrap() {
        Some(Entry::Command(command)) => command,
        other => panic!("{other:?} in place of a command"),
    }
}

fn ids(completions: &[Completion]) -> Vec<u16> {
    completions.iter().map(|completion| completion.id).collect()
}

#[test]
fn a_command_arrives_with_its_cdb_and_data() {
    let (mut kernel, mut ring) = out_of_order();
    let bytes: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
    let id = kernel.send(&WRITE_10, Data::Out(&bytes)).unwrap();
    let command = next_command(&mut ring);
    assert_eq!((command.id(), command.cdb(), command.data().len()), (id, &WRITE_10[..], 10_000));
    assert_eq!(command.data().iovecs().len(), 3, "scattered blocks");
    let mut copy = vec![0; 10_000];
    command.data().read_at(0, &mut copy);
    assert!(copy == bytes);
    assert!(ring.next().unwrap().is_none());
}

#[test]
fn neighbouring_blocks_arrive_as_one_piece() {
    let (mut kernel, mut ring) = pair(&Options { scatter: false, ..Options::default() });
    kernel.send(&READ_10, Data::In(10_000)).unwrap();
    assert_eq!(next_command(&mut ring).data().iovecs().len(), 1);
}

#[test]
fn what_is_written_to_a_commands_data_reaches_the_initiator() {
    let (mut kernel, mut ring) = out_of_order();
    kernel.send(&READ_10, Data::In(9000)).unwrap();
    let command = next_command(&mut ring);
    command.data().fill(0..9000, 0xa5);
    ring.complete(command.id(), &Response::GOOD).unwrap();
    ring.kick().unwrap();
    let completions = kernel.take_completions().unwrap();
    assert_eq!(completions[0].status, 0);
    assert_eq!(completions[0].data, vec![0xa5; 9000]);
}

#[test]
fn cdbs_of_every_length_are_copied_whole() {
    let (mut kernel, mut ring) = out_of_order();
    let mut variable = vec![0x7f, 0, 0, 0, 0, 0, 0, 255];
    variable.extend((0..255).map(|n| n as u8));
    for cdb in [&[0x12, 0, 0, 0, 36, 0][..], &READ_10, &[0xa8; 12], &[0x88; 16], &variable] {
        kernel.send(cdb, Data::None).unwrap();
        let command = next_command(&mut ring);
        assert_eq!(command.cdb(), cdb);
        ring.complete(command.id(), &Response::GOOD).unwrap();
    }
}

#[test]
fn out_of_order_completions_reach_their_commands() {
    let (mut kernel, mut ring) = out_of_order();
    let sent: Vec<u16> =
        (0..5).map(|_| kernel.send(&TEST_UNIT_READY, Data::None).unwrap()).collect();
    while ring.next().unwrap().is_some() {}
    for &id in &[sent[3], sent[0], sent[4]] {
        ring.complete(id, &Response { status: id as u8, sense: &[], read_len: None }).unwrap();
    }
    ring.kick().unwrap();
    let completions = kernel.take_completions().unwrap();
    assert_eq!(ids(&completions), [sent[3], sent[0], sent[4]]);
    assert!(completions.iter().all(|c| u16::from(c.status) == c.id));
    assert_eq!((ring.in_flight(), kernel.in_flight()), (2, 2));
}

#[test]
fn in_order_completions_wait_for_earlier_commands() {
    let (mut kernel, mut ring) = pair(&Options::default());
    let sent: Vec<u16> =
        (0..4).map(|_| kernel.send(&TEST_UNIT_READY, Data::None).unwrap()).collect();
    while ring.next().unwrap().is_some() {}
    let sense = [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0];
    ring.complete(sent[2], &Response::BUSY).unwrap();
    ring.complete(sent[1], &Response { status: 2, sense: &sense, read_len: None }).unwrap();
    ring.kick().unwrap();
    assert_eq!(kernel.take_completions().unwrap(), [], "nothing before the first");
    assert_eq!(ring.in_flight(), 2);
    ring.complete(sent[0], &Response::GOOD).unwrap();
    ring.kick().unwrap();
    let completions = kernel.take_completions().unwrap();
    assert_eq!(ids(&completions), sent[..3]);
    assert_eq!(completions.iter().map(|c| c.status).collect::<Vec<_>>(), [0, 2, 8]);
    assert_eq!(completions[1].sense[..18], sense);
}

#[test]
fn without_the_capability_completion_stays_in_order() {
    let (mut kernel, mut ring) = pair(&Options { flags: 0, ..Options::default() });
    assert!(!ring.set_out_of_order(true));
    let first = kernel.send(&TEST_UNIT_READY, Data::None).unwrap();
    let second = kernel.send(&TEST_UNIT_READY, Data::None).unwrap();
    while ring.next().unwrap().is_some() {}
    ring.complete(second, &Response::GOOD).unwrap();
    ring.complete(first, &Response::GOOD).unwrap();
    ring.kick().unwrap();
    assert_eq!(ids(&kernel.take_completions().unwrap()), [first, second]);
}

#[test]
fn the_order_does_not_change_while_commands_are_in_flight() {
    let (mut kernel, mut ring) = pair(&Options::default());
    let id = kernel.send(&TEST_UNIT_READY, Data::None).unwrap();
    let _command = next_command(&mut ring);
    assert!(!ring.set_out_of_order(true));
    ring.complete(id, &Response::GOOD).unwrap();
    assert!(ring.set_out_of_order(true));
}

#[test]
fn many_laps_around_a_small_ring_lose_nothing() {
    for out_of_order in [false, true] {
        let (mut kernel, mut ring) =
            pair(&Options { ring_size: 1000, blocks: 16, ..Options::default() });
        ring.set_out_of_order(out_of_order);
        let (mut sent, mut done) = (0, 0);
        for round in 0..500usize {
            let mut commands = Vec::new();
            for n in 0..4 {
                match kernel.send(&READ_10, Data::In(4096 * ((round + n) % 4))) {
                    Ok(_) => sent += 1,
                    Err(tcmu_sim::Error::Full) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            if round % 3 == 0 {
                let _ = kernel.send_tmr(5, &[1, 2, 3]);
            }
            while let Some(entry) = ring.next().unwrap() {
                if let Entry::Command(command) = entry {
                    command.data().fill(0..usize::MAX, command.id() as u8);
                    commands.push(command);
                }
            }
            for command in commands.iter().rev() {
                ring.complete(command.id(), &Response::GOOD).unwrap();
            }
            ring.kick().unwrap();
            for completion in kernel.take_completions().unwrap() {
                assert!(completion.data.iter().all(|&byte| u16::from(byte) == completion.id));
                done += 1;
            }
        }
        assert_eq!((sent, ring.in_flight()), (done, 0));
        assert!(sent > 1000);
    }
}

#[test]
fn one_kick_is_sent_for_a_batch_and_none_for_nothing() {
    let (mut kernel, mut ring) = out_of_order();
    ring.kick().unwrap();
    assert_eq!(kernel.take_kicks(), 0);
    for _ in 0..8 {
        kernel.send(&TEST_UNIT_READY, Data::None).unwrap();
    }
    while let Some(Entry::Command(command)) = ring.next().unwrap() {
        ring.complete(command.id(), &Response::GOOD).unwrap();
    }
    ring.kick().unwrap();
    ring.kick().unwrap();
    assert_eq!(kernel.take_kicks(), 1);
}

#[test]
fn a_part_of_the_buffer_is_answered_as_a_residual() {
    let (mut kernel, mut ring) = out_of_order();
    kernel.send(&[0x12, 0, 0, 0, 255, 0], Data::In(255)).unwrap();
    let id = next_command(&mut ring).id();
    ring.complete(id, &Response { status: 0, sense: &[], read_len: Some(36) }).unwrap();
    ring.kick().unwrap();
    assert_eq!(kernel.take_completions().unwrap()[0].data.len(), 36);
}

#[test]
fn without_the_capability_no_length_is_answered() {
    let (mut kernel, mut ring) = pair(&Options { flags: CAP_OOOC, ..Options::default() });
    kernel.send(&[0x12, 0, 0, 0, 255, 0], Data::In(255)).unwrap();
    let id = next_command(&mut ring).id();
    ring.complete(id, &Response { status: 0, sense: &[], read_len: Some(36) }).unwrap();
    ring.kick().unwrap();
    assert_eq!(kernel.take_completions().unwrap()[0].data.len(), 255);
}

#[test]
fn sense_that_is_too_long_is_cut_off_and_stale_bytes_are_cleared() {
    let (mut kernel, mut ring) = out_of_order();
    kernel.send(&READ_10, Data::In(4096 * 4)).unwrap();
    kernel.send(&READ_10, Data::In(4096 * 4)).unwrap();
    let (long, short) = (next_command(&mut ring).id(), next_command(&mut ring).id());
    ring.complete(long, &Response { status: 2, sense: &[7; 500], read_len: None }).unwrap();
    ring.complete(short, &Response { status: 2, sense: &[1, 2], read_len: None }).unwrap();
    ring.kick().unwrap();
    let completions = kernel.take_completions().unwrap();
    assert_eq!(completions[0].sense, [7; 96]);
    assert_eq!(completions[1].sense[..2], [1, 2]);
    assert_eq!(completions[1].sense[2..], [0; 94]);
}

#[test]
fn a_task_management_function_is_told_and_passed_over() {
    let (mut kernel, mut ring) = out_of_order();
    assert_ne!(ring.flags() & CAP_TMR, 0);
    let before = kernel.send(&TEST_UNIT_READY, Data::None).unwrap();
    kernel.send_tmr(1, &[before, 700]).unwrap();
    kernel.send_tmr(5, &[]).unwrap();
    let after = kernel.send(&TEST_UNIT_READY, Data::None).unwrap();
    assert_eq!(next_command(&mut ring).id(), before);
    for (kind, ids) in [(TmrKind::AbortTask, vec![before, 700]), (TmrKind::LunReset, vec![])] {
        let expected = Tmr { kind, ids: ids.into() };
        assert!(matches!(ring.next().unwrap(), Some(Entry::Tmr(tmr)) if tmr == expected));
    }
    assert_eq!(next_command(&mut ring).id(), after);
    ring.complete(after, &Response::GOOD).unwrap();
    ring.complete(before, &Response::GOOD).unwrap();
    ring.kick().unwrap();
    assert_eq!(ids(&kernel.take_completions().unwrap()), [after, before]);
}

#[test]
fn completing_twice_or_what_never_came_is_an_error() {
    let (mut kernel, mut ring) = out_of_order();
    let id = kernel.send(&TEST_UNIT_READY, Data::None).unwrap();
    assert!(matches!(ring.complete(id, &Response::GOOD), Err(Error::UnknownCommand(_))));
    next_command(&mut ring);
    ring.complete(id, &Response::GOOD).unwrap();
    assert!(matches!(ring.complete(id, &Response::GOOD), Err(Error::UnknownCommand(_))));
    assert!(matches!(ring.complete(65535, &Response::GOOD), Err(Error::UnknownCommand(65535))));
    ring.kick().unwrap();
    assert_eq!(kernel.take_completions().unwrap().len(), 1);
}

#[test]
fn a_commands_data_outlive_the_ring() {
    let (mut kernel, mut ring) = out_of_order();
    kernel.send(&WRITE_10, Data::Out(&[3; 512])).unwrap();
    let command = next_command(&mut ring);
    drop(ring);
    let mut byte = [0];
    assert_eq!(command.data().read_at(511, &mut byte), 1);
    assert_eq!(byte, [3]);
}

#[test]
fn a_successor_goes_on_at_the_tail_of_an_ordered_ring() {
    let (mut kernel, mut ring) = pair(&Options::default());
    let sent: Vec<u16> =
        (0..3).map(|_| kernel.send(&TEST_UNIT_READY, Data::None).unwrap()).collect();
    while ring.next().unwrap().is_some() {}
    ring.complete(sent[2], &Response::GOOD).unwrap();
    ring.complete(sent[0], &Response::GOOD).unwrap();
    drop(ring); // it dies without a kick

    let mut ring = kernel.reopen().unwrap().ring().unwrap();
    assert!(ring.has_leftovers());
    assert_eq!(next_command(&mut ring).id(), sent[1]);
    assert_eq!(next_command(&mut ring).id(), sent[2], "its answer was not in the ring yet");
    ring.complete(sent[1], &Response::GOOD).unwrap();
    ring.complete(sent[2], &Response::GOOD).unwrap();
    ring.kick().unwrap();
    assert_eq!(ids(&kernel.take_completions().unwrap()), sent);
}

#[test]
fn going_on_at_the_tail_of_an_unordered_ring_would_break_it() {
    let (mut kernel, mut ring) = out_of_order();
    let sent: Vec<u16> =
        (0..3).map(|_| kernel.send(&TEST_UNIT_READY, Data::None).unwrap()).collect();
    while ring.next().unwrap().is_some() {}
    ring.complete(sent[2], &Response::GOOD).unwrap();
    ring.kick().unwrap();
    kernel.take_completions().unwrap();
    drop(ring);

    // The reason why such a ring is reset: command 3 is done, but its entry is still there.
    let mut ring = kernel.reopen().unwrap().ring().unwrap();
    while let Some(Entry::Command(command)) = ring.next().unwrap() {
        ring.complete(command.id(), &Response::GOOD).unwrap();
    }
    ring.kick().unwrap();
    let broken = kernel.take_completions();
    assert!(matches!(broken, Err(tcmu_sim::Error::Broken(id)) if id == sent[2]), "{broken:?}");
}

#[test]
fn a_reset_blocks_resets_unblocks_and_starts_afresh() {
    let (mut kernel, mut ring) = out_of_order();
    let tree = Tree::new().unwrap();
    let name = tcmu::DeviceName::parse("tcm-user/0/d/file//x").unwrap();
    let dir = tree.add_device(0, &name, 1 << 20).unwrap();
    let device = tree.configfs().device(0, "d").unwrap();
    kernel.send(&WRITE_10, Data::Out(&[1; 512])).unwrap();
    kernel.send(&TEST_UNIT_READY, Data::None).unwrap();
    let command = next_command(&mut ring);
    assert!(matches!(ring.reset(&device), Err(Error::CommandsInFlight(1))));
    assert_eq!(std::fs::read_to_string(dir.join("action/block_dev")).unwrap(), "\n", "untouched");
    drop(command);

    assert_eq!(kernel.reset_ring().len(), 2);
    ring.reset(&device).unwrap();
    assert_eq!(std::fs::read_to_string(dir.join("action/reset_ring")).unwrap(), "1");
    assert_eq!(std::fs::read_to_string(dir.join("action/block_dev")).unwrap(), "0");
    assert_eq!(ring.in_flight(), 0);
    assert!(!ring.has_leftovers());
    let id = kernel.send(&TEST_UNIT_READY, Data::None).unwrap();
    assert_eq!(next_command(&mut ring).id(), id);
}

#[test]
fn a_second_opener_of_a_device_is_told_that_it_is_busy() {
    let tree = Tree::new().unwrap();
    let name = tcmu::DeviceName::parse("tcm-user/0/d/file//x").unwrap();
    tree.add_device(4, &name, 1 << 20).unwrap();
    let devices = tree.sysfs().scan().unwrap();
    // Zeroes: a mailbox of version 0.
    let refused = Ring::open(&devices[0]).unwrap_err().to_string();
    assert!(refused.contains("version 0"), "{refused}");
    let (kernel, _parts) = Kernel::new(&Options::default()).unwrap();
    let mut mailbox = [0; 128];
    kernel.memory().read(0, &mut mailbox).unwrap();
    std::fs::write(&devices[0].path, [&mailbox[..], &[0; 1 << 17]].concat()).unwrap();
    let device = tcmu::UioDevice { size: 128 + (1 << 17), ..devices[0].clone() };
    let ring = Ring::open(&device).unwrap();
    assert_eq!(ring.flags() & CAP_READ_LEN, CAP_READ_LEN);
    assert!(matches!(Ring::open(&device), Err(Error::Busy(_))));
    drop(ring);
    Ring::open(&device).unwrap();
}

#[test]
fn a_daemon_in_another_thread_is_woken_and_answers() {
    let (mut kernel, parts) = Kernel::new(&Options::default()).unwrap();
    let daemon = std::thread::spawn(move || {
        let mut ring = parts.ring().unwrap();
        ring.set_out_of_order(true);
        let mut served = 0;
        while served < 1000 {
            while let Some(entry) = ring.next().unwrap() {
                let Entry::Command(command) = entry else { continue };
                command.data().fill(0..usize::MAX, 9);
                ring.complete(command.id(), &Response::GOOD).unwrap();
                served += 1;
            }
            ring.kick().unwrap();
            if served < 1000 {
                let mut fds = [rustix::event::PollFd::new(&ring, rustix::event::PollFlags::IN)];
                rustix::event::poll(&mut fds, None).unwrap();
                ring.acknowledge().unwrap();
            }
        }
    });
    let (mut sent, mut done) = (0, 0);
    while done < 1000 {
        while sent < 1000 && kernel.in_flight() < 16 {
            kernel.send(&READ_10, Data::In(4096)).unwrap();
            sent += 1;
        }
        assert!(kernel.wait(std::time::Duration::from_secs(10)).unwrap(), "the daemon is stuck");
        for completion in kernel.take_completions().unwrap() {
            assert!(completion.data == [9; 4096]);
            done += 1;
        }
    }
    daemon.join().unwrap();
}
