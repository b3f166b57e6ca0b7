// SPDX-License-Identifier: Apache-2.0
//! A model of the ring between two processors: one thread is the kernel, which appends entries and
//! takes completions, the other is the real [`tcmu::Ring`]. loom tries every order of their memory
//! accesses, and fails on a read that races with a write, be it of an entry that the head has not
//! published or of a slot that the kernel reuses.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p tcmu --test loom --release`
#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "tests")]

use loom::thread;
use tcmu::mailbox::{CAP_OOOC, OP_CMD, OP_PAD};
use tcmu::mapping::Mapping;
use tcmu::{Entry, Response, Ring};

const RING: usize = 128;
const ENTRY: u32 = 120;
/// Two entries and a PAD of 16 bytes: the third command wraps.
const SIZE: u32 = 2 * ENTRY + 16;

/// The kernel's thread: what it does for a command, and for a completion.
struct Kernel {
    map: Mapping,
    head: u32,
    cleaned: u32,
}

impl Kernel {
    fn put(&self, offset: u32, bytes: &[u8]) {
        self.map.write(RING + offset as usize, bytes).unwrap();
    }

    /// Appends TEST UNIT READY, after a PAD if the end is near.
    fn send(&mut self, id: u16) {
        if SIZE - self.head < ENTRY {
            self.put(self.head, &((SIZE - self.head) | OP_PAD).to_ne_bytes());
            self.head = 0;
        }
        let cdb = (RING as u64 + u64::from(self.head) + 112).to_ne_bytes();
        self.put(self.head, &(ENTRY | OP_CMD).to_ne_bytes());
        self.put(self.head + 4, &[id.to_ne_bytes(), [0, 0]].concat());
        self.put(self.head + 8, &[0; 16]);
        self.put(self.head + 24, &cdb);
        self.put(self.head + 112, &[0; 8]);
        self.head = (self.head + ENTRY) % SIZE;
        self.map.set_head(self.head);
    }

    /// Ids and statuses up to the tail.
    fn take(&mut self) -> Vec<(u16, u8)> {
        let mut done = Vec::new();
        let tail = self.map.tail();
        while self.cleaned != tail {
            let at = RING + self.cleaned as usize;
            let len_op: u32 = self.map.get(at).unwrap();
            if len_op & 7 == OP_CMD {
                done.push((self.map.get(at + 4).unwrap(), self.map.get(at + 8).unwrap()));
            }
            self.cleaned = (self.cleaned + (len_op & !7)) % SIZE;
        }
        done
    }
}

/// A ring whose kernel sends `total` commands, at most two at a time, while `serve` serves it
/// until it has completed them all.
fn model(total: u16, serve: fn(&mut Ring, u16)) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let map = Mapping::for_model(RING + SIZE as usize);
        map.write(0, &2u16.to_ne_bytes()).unwrap();
        map.write(2, &CAP_OOOC.to_ne_bytes()).unwrap();
        map.write(4, &(RING as u32).to_ne_bytes()).unwrap();
        map.write(8, &SIZE.to_ne_bytes()).unwrap();
        let mut kernel = Kernel { map: map.clone(), head: 0, cleaned: 0 };
        let daemon = thread::spawn(move || {
            // Where the kernel is signalled does not matter here: it looks by itself.
            let (_read, write) = rustix::pipe::pipe().unwrap();
            let mut ring = Ring::from_parts(write, map).unwrap();
            serve(&mut ring, total);
        });
        let (mut sent, mut done) = (0, Vec::new());
        while done.len() < usize::from(total) {
            let before = done.len();
            while sent < total && usize::from(sent) - done.len() < 2 {
                // A command that wraps needs the whole ring.
                if SIZE - kernel.head < ENTRY && usize::from(sent) != done.len() {
                    break;
                }
                sent += 1;
                kernel.send(sent);
            }
            done.extend(kernel.take());
            if done.len() == before {
                thread::yield_now();
            }
        }
        daemon.join().unwrap();
        done.sort();
        let expected: Vec<_> = (1..=total).map(|id| (id, 0x40 + id as u8)).collect();
        assert_eq!(done, expected);
    });
}

fn answer(ring: &mut Ring, id: u16) {
    let status = 0x40 + id as u8;
    ring.complete(id, &Response { status, sense: &[], read_len: None }).unwrap();
}

fn next(ring: &mut Ring) -> u16 {
    loop {
        match ring.next().unwrap() {
            Some(Entry::Command(command)) => return command.id(),
            _ => {
                ring.kick().unwrap();
                thread::yield_now();
            }
        }
    }
}

#[test]
fn entries_and_completions_are_published_whole_across_a_wrap() {
    model(3, |ring, total| {
        ring.set_out_of_order(true);
        for _ in 0..total {
            let id = next(ring);
            answer(ring, id);
            ring.kick().unwrap();
        }
    });
}

#[test]
fn an_out_of_order_completion_in_anothers_slot_is_published_whole() {
    model(2, |ring, _| {
        ring.set_out_of_order(true);
        let (first, second) = (next(ring), next(ring));
        answer(ring, second);
        ring.kick().unwrap();
        answer(ring, first);
        ring.kick().unwrap();
    });
}

#[test]
fn in_order_completions_are_published_without_a_kick() {
    model(2, |ring, _| {
        let (first, second) = (next(ring), next(ring));
        answer(ring, second);
        answer(ring, first);
    });
}
