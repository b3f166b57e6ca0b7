// SPDX-License-Identifier: Apache-2.0
//! The devices of User-Mode Linux, by what a guest's kernel puts in their rings.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use block::Locking;
use guestfs_novm::fuzz;
use guestfs_novm::image::{Image, Kind};
use guestfs_novm::vhost::Device;
use guestfs_novm::vhost::block::Block;
use guestfs_novm::vhost::console::Console;
use guestfs_novm::vhost::ring::{Memory, Ring};
use proptest::prelude::*;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryMmap};

/// What the device writes; more of the chain follows.
const WRITE: u16 = 2;
const NEXT: u16 = 1;
const ENTRIES: u16 = 256;
const MEMORY: usize = 8 << 20;
/// Where buffers are.
const DATA: u64 = 0x10_0000;
const STATUS: u64 = 0xf_0000;
const HEAD: u64 = 0xe_0000;

/// A guest with some rings.
struct Guest {
    memory: Memory,
    rings: Vec<Ring>,
    /// Descriptors and chains that were made available, for each ring.
    made: Vec<(u16, u16)>,
}

impl Guest {
    fn new(rings: u64) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        let memory = Memory::new(memory);
        let ring = |n: u64| {
            let mut ring = Ring::new(memory.clone()).unwrap();
            ring.set_size(ENTRIES.into()).unwrap();
            ring.set_addresses(n * 0x4000, n * 0x4000 + 0x2000, n * 0x4000 + 0x3000).unwrap();
            ring
        };
        let rings: Vec<_> = (0..rings).map(ring).collect();
        let made = vec![(0, 0); rings.len()];
        Guest { memory, rings, made }
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.memory().write_slice(bytes, GuestAddress(at)).unwrap();
    }

    fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.memory().read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    fn descriptor(&self, ring: usize, n: u16, address: u64, len: u32, flags: u16, next: u16) {
        let bytes = [
            &address.to_le_bytes()[..],
            &len.to_le_bytes(),
            &flags.to_le_bytes(),
            &next.to_le_bytes(),
        ];
        self.put(0x4000 * ring as u64 + 16 * u64::from(n), &bytes.concat());
    }

    /// Makes a chain available that begins at a descriptor.
    fn available(&mut self, ring: usize, head: u16) {
        let chains = &mut self.made[ring].1;
        let (slot, start) = (*chains % ENTRIES, 0x4000 * ring as u64 + 0x2000);
        *chains = chains.wrapping_add(1);
        let chains = *chains;
        self.put(start + 4 + 2 * u64::from(slot), &head.to_le_bytes());
        self.put(start + 2, &chains.to_le_bytes());
    }

    /// The same with a chain of these buffers: address, length, whether the device writes it.
    fn chain(&mut self, ring: usize, buffers: &[(u64, u32, bool)]) {
        let head = self.made[ring].0;
        for (i, (address, len, write)) in buffers.iter().enumerate() {
            let n = self.made[ring].0;
            let more = i + 1 < buffers.len();
            let flags = if *write { WRITE } else { 0 } | if more { NEXT } else { 0 };
            self.descriptor(ring, n, *address, *len, flags, n + 1);
            self.made[ring].0 += 1;
        }
        self.available(ring, head);
    }

    /// How many chains were given back, and the bytes written of the last.
    fn used(&self, ring: usize) -> (u16, u32) {
        let start = 0x4000 * ring as u64 + 0x3000;
        let count = u16::from_le_bytes(self.get(start + 2, 2).try_into().unwrap());
        let last = u64::from(count.wrapping_sub(1) % ENTRIES);
        (count, u32::from_le_bytes(self.get(start + 4 + 8 * last + 4, 4).try_into().unwrap()))
    }

    /// Has a disk serve a request of this type; its status and the bytes written.
    fn request(
        &mut self,
        block: &Block,
        kind: u32,
        sector: u64,
        data: &[(u64, u32, bool)],
    ) -> (u8, u32) {
        self.put(STATUS, &[0xee]);
        self.put(HEAD, &[&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat());
        let buffers = [&[(HEAD, 16, false)], data, &[(STATUS, 1, true)]].concat();
        self.chain(0, &buffers);
        block.serve(&self.rings).unwrap();
        (self.get(STATUS, 1)[0], self.used(0).1)
    }
}

const IN: u32 = 0;
const OUT: u32 = 1;
const OK: u8 = 0;
const ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

fn block(path: &Path, read_only: bool) -> Block {
    let locking = Locking::default();
    let image = Image {
        path: path.into(),
        server: None,
        sector: 512,
        kind: Kind::Raw,
        read_only,
        locking,
        probed: false,
        scratch: false,
    };
    Block::open(&image, None, Some("label")).unwrap()
}

fn disk(len: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(len).unwrap();
    file
}

#[test]
fn data_of_any_length_and_shape_is_written_and_read_back() {
    let file = disk(4 << 20);
    let block = block(file.path(), false);
    let mut guest = Guest::new(1);
    // More than the device copies at once, in pieces that fit nothing.
    let bytes: Vec<u8> = (0..2_500_096u32).map(|i| (i % 251) as u8).collect();
    guest.put(DATA, &bytes);
    let pieces =
        [(DATA, 7, false), (DATA + 7, 1_500_000, false), (DATA + 1_500_007, 1_000_089, false)];
    assert_eq!(guest.request(&block, OUT, 3, &pieces), (OK, 1));
    let there = std::fs::read(file.path()).unwrap();
    assert!(there[3 * 512..][..bytes.len()] == bytes);
    let back = DATA + 0x30_0000;
    let pieces = [(back, 2_000_000, true), (back + 2_000_000, 500_096, true)];
    assert_eq!(guest.request(&block, IN, 3, &pieces), (OK, 2_500_097));
    assert!(guest.get(back, bytes.len()) == bytes);
    assert_eq!(guest.request(&block, 8, 0, &[(back, 20, true)]), (OK, 21));
    assert_eq!(guest.get(back, 6), b"label\0");
    assert_eq!(guest.request(&block, 4, 0, &[]), (OK, 1));
    guest.put(DATA, &[&3u64.to_le_bytes()[..], &8u32.to_le_bytes(), &[0; 4]].concat());
    assert_eq!(guest.request(&block, 13, 0, &[(DATA, 16, false)]), (OK, 1));
    assert_eq!(guest.request(&block, IN, 3, &[(back, 4096, true)]), (OK, 4097));
    assert_eq!(guest.get(back, 4096), [0; 4096]);
    block.close().unwrap();
}

#[test]
fn what_is_not_on_the_disk_is_refused_and_nothing_of_it_done() {
    let file = disk(64 << 10);
    let writable = block(file.path(), false);
    let mut guest = Guest::new(1);
    guest.put(DATA, &[7; 4096]);
    for sector in [121, 128, u64::MAX / 512, u64::MAX] {
        assert_eq!(guest.request(&writable, OUT, sector, &[(DATA, 4096, false)]), (ERROR, 1));
        assert_eq!(guest.request(&writable, IN, sector, &[(DATA, 4096, true)]), (ERROR, 1));
    }
    assert_eq!(guest.request(&writable, 99, 0, &[]), (UNSUPPORTED, 1));
    // A range that ends behind the disk.
    guest.put(DATA, &[&127u64.to_le_bytes()[..], &2u32.to_le_bytes(), &[0; 4]].concat());
    assert_eq!(guest.request(&writable, 11, 0, &[(DATA, 16, false)]), (ERROR, 1));
    // The same memory again and again: more than the disk has, and never a buffer of that length.
    let much = vec![(DATA, 4 << 20, false); 60];
    assert_eq!(guest.request(&writable, OUT, 0, &much), (ERROR, 1));
    writable.close().unwrap();
    let read_only = block(file.path(), true);
    let mut guest = Guest::new(1);
    assert_eq!(guest.request(&read_only, OUT, 0, &[(DATA, 512, false)]), (ERROR, 1));
    read_only.close().unwrap();
    assert!(std::fs::read(file.path()).unwrap() == vec![0; 64 << 10]);
}

#[test]
fn a_request_that_is_none_is_given_back_and_the_next_one_served() {
    let file = disk(64 << 10);
    let block = block(file.path(), false);
    let mut guest = Guest::new(1);
    // Memory that is not there; no room for a status; a head that is too short; nothing at all.
    guest.chain(0, &[(HEAD, 16, false), (MEMORY as u64 - 1, 512, true), (STATUS, 1, true)]);
    guest.chain(0, &[(u64::MAX, 16, false), (STATUS, 1, true)]);
    guest.chain(0, &[(HEAD, 16, false)]);
    guest.chain(0, &[(HEAD, 15, false), (STATUS, 1, true)]);
    guest.chain(0, &[(0, 0, false)]);
    // A chain that goes round.
    let n = guest.made[0].0;
    guest.descriptor(0, n, HEAD, 1, NEXT, n);
    guest.made[0].0 += 1;
    guest.available(0, n);
    block.serve(&guest.rings).unwrap();
    assert_eq!(guest.used(0).0, 6);
    assert_eq!(guest.request(&block, IN, 0, &[(DATA, 512, true)]), (OK, 513));
    assert_eq!(guest.used(0).0, 7);
    block.close().unwrap();
}

#[test]
fn a_ring_that_names_more_than_it_has_ends_the_device() {
    let file = disk(64 << 10);
    let block = block(file.path(), false);
    let guest = Guest::new(1);
    guest.put(0x2002, &(ENTRIES + 1).to_le_bytes());
    assert!(block.serve(&guest.rings).is_err());
    // A chain that begins outside of the table cannot be given back.
    let mut guest = Guest::new(1);
    guest.available(0, ENTRIES + 7);
    assert!(block.serve(&guest.rings).is_err());
    block.close().unwrap();
}

const RX: usize = 0;
const TX: usize = 1;
const CONTROL_RX: usize = 2;
const CONTROL_TX: usize = 3;

fn console() -> (Console, UnixStream, Guest) {
    let (client, other) = UnixStream::pair().unwrap();
    (Console::new(client).unwrap(), other, Guest::new(6))
}

impl Guest {
    fn control(&mut self, event: u16, value: u16) {
        let message = [[0; 2], [0; 2], event.to_le_bytes(), value.to_le_bytes()].concat();
        self.put(HEAD, &message);
        self.chain(CONTROL_TX, &[(HEAD, 8, false)]);
    }
}

#[test]
fn a_port_appears_under_its_name_and_carries_bytes_both_ways() {
    let (console, mut client, mut guest) = console();
    for n in 0..4 {
        guest.chain(CONTROL_RX, &[(DATA + 64 * n, 64, true)]);
    }
    guest.control(0, 1);
    console.serve(&guest.rings).unwrap();
    assert_eq!(guest.get(DATA, 8), [0, 0, 0, 0, 1, 0, 1, 0]);
    guest.control(3, 1);
    console.serve(&guest.rings).unwrap();
    assert_eq!(guest.get(DATA + 64 + 8, 24), b"org.libguestfs.channel.0");
    assert_eq!(guest.get(DATA + 128, 8), [0, 0, 0, 0, 6, 0, 1, 0]);

    guest.put(DATA + 0x1000, b"from the guest");
    guest.chain(TX, &[(DATA + 0x1000, 4, false), (DATA + 0x1004, 10, false)]);
    client.write_all(b"from the client").unwrap();
    guest.chain(RX, &[(DATA + 0x2000, 4, true), (DATA + 0x3000, 2, true)]);
    console.serve(&guest.rings).unwrap();
    // The guest has not opened the port yet.
    assert_eq!((guest.used(TX).0, guest.used(RX).0), (1, 0));
    let mut got = [0; 14];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"from the guest");
    guest.control(6, 1);
    console.serve(&guest.rings).unwrap();
    assert_eq!(guest.used(RX), (1, 6));
    guest.chain(RX, &[(DATA + 0x2004, 60, true)]);
    console.serve(&guest.rings).unwrap();
    assert_eq!(guest.used(RX), (2, 9));
    assert_eq!(guest.get(DATA + 0x2000, 4), b"from");
    assert_eq!(guest.get(DATA + 0x3000, 2), b" t");
    assert_eq!(guest.get(DATA + 0x2004, 9), b"he client");

    drop(client);
    guest.chain(RX, &[(DATA + 0x2000, 64, true)]);
    console.serve(&guest.rings).unwrap();
    assert_eq!(guest.get(DATA + 192, 8), [0, 0, 0, 0, 6, 0, 0, 0], "the port is closed");
}

#[test]
fn a_guest_that_only_asks_or_only_sends_takes_no_memory() {
    let (console, _client, mut guest) = console();
    // Two answers each, and no buffer for them.
    for _ in 0..100 {
        guest.control(3, 1);
    }
    console.serve(&guest.rings).unwrap();
    assert!((32..=40).contains(&guest.used(CONTROL_TX).0), "{:?}", guest.used(CONTROL_TX));
    // Nobody reads: 1 MiB, and what one message and the socket's buffer hold.
    for _ in 0..100 {
        guest.chain(TX, &[(DATA, 1 << 20, false)]);
    }
    console.serve(&guest.rings).unwrap();
    assert!((1..=4).contains(&guest.used(TX).0), "{:?}", guest.used(TX));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// A short run of the fuzz target. Chains of small numbers are made likely.
    #[test]
    fn any_rings_are_served_or_refused(
        start in any::<[u8; 5]>(),
        descriptors in prop::collection::vec(
            (0..0x2000u64, 0..2000u32, 0..4u16, 0..20u16), 0..64),
        noise in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut input = start.to_vec();
        let mut memory = vec![0; 0x1000];
        for (i, (address, len, flags, next)) in descriptors.iter().enumerate() {
            let at = 0x400 * (i / 16) + 16 * (i % 16);
            memory[at..at + 8].copy_from_slice(&address.to_le_bytes());
            memory[at + 8..at + 12].copy_from_slice(&len.to_le_bytes());
            memory[at + 12..at + 14].copy_from_slice(&flags.to_le_bytes());
            memory[at + 14..at + 16].copy_from_slice(&next.to_le_bytes());
            memory[0x400 * (i / 16) + 0x104 + 2 * (i % 16)] = u8::try_from(i % 17).unwrap();
        }
        for (i, byte) in noise.iter().enumerate() {
            // Over all of it, but thinly.
            if byte % 4 == 0 {
                memory[i * 7 % 0x1000] ^= byte;
            }
        }
        input.extend(memory);
        if let Err(e) = fuzz::requests(&input) {
            // A ring that is none.
            prop_assert!(e.raw_os_error().is_none(), "{}", e);
        }
    }
}

#[test]
fn the_seeds_of_the_fuzz_target_are_served() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/virtqueues");
    let mut count = 0;
    for seed in std::fs::read_dir(&dir).unwrap() {
        fuzz::requests(&std::fs::read(seed.unwrap().path()).unwrap()).unwrap();
        count += 1;
    }
    assert!(count >= 3, "{}", dir.display());
}
