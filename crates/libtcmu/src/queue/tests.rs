// SPDX-License-Identifier: Apache-2.0
//! Commands on a ring whose other side stands in for the kernel.
use super::*;
use std::sync::Arc;
use tcmu::{Configfs, DeviceName};
use tcmu_sim::{Completion, Data, Kernel, Options, Tree};

fn queue() -> (Kernel, Queue) {
    queue_in(&Configfs::new("/nonexistent"))
}

fn queue_in(configfs: &Configfs) -> (Kernel, Queue) {
    let (kernel, parts) = Kernel::new(&Options::default()).unwrap();
    let configfs = configfs.device(0, "d").unwrap();
    let mut ring = parts.ring().unwrap();
    assert!(ring.set_out_of_order(true));
    (kernel, Queue::new(ring, configfs, HandlerPointer(ptr::null_mut())))
}

const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 5, 0, 0, 1, 0];

/// The completions by their commands' ids.
fn completions(kernel: &mut Kernel) -> Vec<Completion> {
    let mut all = kernel.take_completions().unwrap();
    all.sort_by_key(|completion| completion.id);
    all
}

/// A command that C has.
fn get<'a>(command: *mut tcmulib_cmd) -> &'a mut tcmulib_cmd {
    assert!(!command.is_null());
    // SAFETY: the tests look at it before they complete it.
    unsafe { &mut *command }
}

#[test]
fn a_command_has_its_cdb_its_data_and_room_of_the_holders_own() {
    let (mut kernel, queue) = queue();
    let id = kernel.send(&READ, Data::In(8192)).unwrap();
    queue.start();
    let command = queue.next(100);
    let c = get(command);
    assert_eq!(c.cmd_id, id);
    // SAFETY: a CDB of ten bytes, so many pieces, a hundred bytes.
    unsafe {
        assert_eq!(std::slice::from_raw_parts(c.cdb, 10), READ);
        let pieces = std::slice::from_raw_parts(c.iovec, c.iov_cnt);
        assert_eq!(pieces.iter().map(|piece| piece.iov_len).sum::<usize>(), 8192);
        for piece in pieces {
            piece.iov_base.cast::<u8>().write_bytes(9, piece.iov_len);
        }
        assert_eq!(std::slice::from_raw_parts(c.hm_private.cast::<u8>(), 100), [0; 100]);
        c.hm_private.cast::<u8>().write_bytes(1, 100);
    }
    assert!(queue.next(0).is_null());
    queue.complete(command, status::OK);
    queue.finish();
    let done = completions(&mut kernel);
    assert_eq!((done[0].id, done[0].status, &done[0].data[..]), (id, 0, &[9; 8192][..]));
    assert_eq!(queue.in_flight(), 0);
}

#[test]
fn without_room_of_its_own_a_command_has_no_pointer_to_it() {
    let (mut kernel, queue) = queue();
    kernel.send(&READ, Data::In(512)).unwrap();
    assert!(get(queue.next(0)).hm_private.is_null());
}

#[test]
fn commands_end_in_any_order_from_any_thread() {
    let (mut kernel, queue) = queue();
    for _ in 0..20 {
        kernel.send(&READ, Data::In(512)).unwrap();
    }
    let queue = Arc::new(queue);
    let commands: Vec<usize> = (0..20).map(|_| queue.next(16).addr()).collect();
    let halves = commands.chunks(10).map(<[usize]>::to_vec);
    let threads: Vec<_> = halves
        .map(|half| {
            let queue = queue.clone();
            std::thread::spawn(move || {
                for command in half.into_iter().rev() {
                    queue.complete(ptr::without_provenance_mut(command), status::OK);
                    queue.finish();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(completions(&mut kernel).len(), 20);
}

#[test]
fn a_command_that_is_completed_twice_or_was_never_given_is_refused() {
    let (mut kernel, queue) = queue();
    kernel.send(&READ, Data::In(512)).unwrap();
    kernel.send(&READ, Data::In(512)).unwrap();
    let (first, second) = (queue.next(0), queue.next(0));
    let mut mine = *get(second);
    queue.complete(first, status::OK);
    queue.complete(first, status::OK);
    queue.complete(&raw mut mine, status::OK);
    queue.complete(ptr::null_mut(), status::OK);
    assert_eq!(queue.in_flight(), 1);
    queue.complete(second, status::ASYNC_HANDLED);
    assert_eq!(queue.in_flight(), 1);
    queue.complete(second, status::BUSY);
    queue.finish();
    let statuses: Vec<u8> = completions(&mut kernel).iter().map(|c| c.status).collect();
    assert_eq!(statuses, [0, 8]);
}

#[test]
fn what_the_holder_makes_of_a_command_does_not_change_which_it_is() {
    let (mut kernel, queue) = queue();
    let id = kernel.send(&READ, Data::In(512)).unwrap();
    let command = queue.next(0);
    let c = get(command);
    (c.cmd_id, c.iov_cnt, c.cdb, c.iovec) = (77, 1000, ptr::null_mut(), ptr::null_mut());
    queue.complete(command, status::OK);
    queue.finish();
    assert_eq!(completions(&mut kernel)[0].id, id);
}

#[test]
fn statuses_become_sense_and_keep_what_was_set_of_it() {
    let (mut kernel, queue) = queue();
    for status in [status::MISCOMPARE, status::PASSTHROUGH_ERR, 99] {
        kernel.send(&READ, Data::In(512)).unwrap();
        let command = queue.next(0);
        let sense = get(command).sense_buf.as_mut_ptr();
        // SAFETY: a sense buffer.
        unsafe {
            if status == status::MISCOMPARE {
                tcmu_abi::exports::sense::tcmu_sense_set_info(sense, 0x200);
            } else {
                tcmu_abi::exports::sense::tcmu_sense_set_data(sense, 0x0b, 0x4b00);
            }
        }
        queue.complete(command, status);
    }
    queue.finish();
    let done = completions(&mut kernel);
    assert!(done.iter().all(|c| c.status == CHECK_CONDITION));
    let fields: Vec<_> =
        done.iter().map(|c| (c.sense[0], c.sense[2], c.sense[5], c.sense[12])).collect();
    assert_eq!(fields, [(0xf0, 0x0e, 2, 0x1d), (0x70, 0x0b, 0, 0x4b), (0x70, 4, 0, 0x44)]);
}

#[test]
fn a_flush_ends_what_nobody_has_taken() {
    let (mut kernel, queue) = queue();
    for _ in 0..3 {
        kernel.send(&READ, Data::In(512)).unwrap();
    }
    let taken = queue.next(0);
    Owner::flush_ring(&queue);
    assert_eq!(completions(&mut kernel).iter().filter(|c| c.status == 8).count(), 2);
    queue.complete(taken, status::OK);
    queue.finish();
    assert_eq!(completions(&mut kernel)[0].status, 0);
}

#[test]
fn a_ring_that_breaks_is_started_afresh_when_its_commands_are_done() {
    let tree = Tree::new().unwrap();
    let name = DeviceName { hba: 0, name: "d".into(), config: "a/b".into() };
    let files = tree.add_device(0, &name, 4096).unwrap();
    let (mut kernel, queue) = queue_in(&tree.configfs());
    kernel.send(&READ, Data::In(512)).unwrap();
    let command = queue.next(0);
    kernel.set_head(3);
    assert!(queue.next(0).is_null());
    queue.complete(command, status::OK);
    // The kernel's part of it, which the stand-in's files do not do.
    kernel.reset_ring();
    assert!(queue.next(0).is_null());
    let action = |name: &str| std::fs::read_to_string(files.join("action").join(name)).unwrap();
    assert!(action("reset_ring").starts_with('1') && action("block_dev").starts_with('0'));
    kernel.send(&READ, Data::In(512)).unwrap();
    assert!(!queue.next(0).is_null());
}
