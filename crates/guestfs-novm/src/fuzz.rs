// SPDX-License-Identifier: Apache-2.0
//! What the fuzz target `virtqueues` runs: a guest's memory with rings in it, served by the devices
//! of User-Mode Linux.

use crate::image::{Image, Kind, SECTOR};
use crate::vhost::Device;
use crate::vhost::block::Block;
use crate::vhost::console::Console;
use crate::vhost::ring::{Memory, Ring};
use block::Locking;
use rustix::fs::MemfdFlags;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Bytes of the guest's memory.
const MEMORY: usize = 256 << 10;
/// Entries of each ring, and where its parts are: one ring each 1 KiB.
const ENTRIES: u16 = 16;
const AVAILABLE: u64 = 0x100;
const USED: u64 = 0x200;
const RING: u64 = 0x400;
const RINGS: u64 = 4;
/// Bytes of the disk.
const DISK: u64 = 64 * SECTOR;

/// A guest whose memory begins with these bytes; the first of them says which device it has, the
/// next how much each ring has available.
///
/// # Errors
/// What the host lacks for the run: nothing that the guest could cause.
pub fn requests(input: &[u8]) -> io::Result<()> {
    let Some(([choice, counts @ ..], bytes)) = input.split_first_chunk::<5>() else {
        return Ok(());
    };
    let regions = [(GuestAddress(0), MEMORY)];
    let memory = GuestMemoryMmap::from_ranges(&regions).map_err(io::Error::other)?;
    let bytes = bytes.get(..MEMORY).unwrap_or(bytes);
    memory.write_slice(bytes, GuestAddress(0)).map_err(io::Error::other)?;
    for (start, count) in (0..RINGS).map(|n| n * RING).zip(counts) {
        let available = u16::from(*count) % (ENTRIES + 1);
        let put = |n: u16, at| memory.write_obj(n.to_le(), GuestAddress(start + at));
        put(available, AVAILABLE + 2).map_err(io::Error::other)?;
        put(0, USED + 2).map_err(io::Error::other)?;
    }
    let memory = Memory::new(memory);
    let mut rings = Vec::new();
    for start in (0..RINGS).map(|n| n * RING) {
        let mut ring = Ring::new(memory.clone())?;
        ring.set_size(ENTRIES.into())?;
        ring.set_addresses(start, start + AVAILABLE, start + USED)?;
        rings.push(ring);
    }
    if choice & 1 == 0 { disk(&rings, choice & 2 != 0) } else { console(&rings) }
}

fn disk(rings: &[Ring], read_only: bool) -> io::Result<()> {
    let file = rustix::fs::memfd_create("disk", MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&file, DISK)?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let locking = Locking::default();
    let image = Image {
        path: path.into(),
        server: None,
        sector: 512,
        kind: Kind::Watched,
        read_only,
        locking,
        probed: false,
        scratch: false,
    };
    let block = Block::open(&image, None, Some("fuzz")).map_err(io::Error::other)?;
    block.serve(rings)?;
    for ring in rings {
        assert!(!ring.is_pending()?, "all requests are given back");
    }
    block.close().map_err(io::Error::other)?;
    let now = rustix::fs::fstat(&file)?.st_size;
    assert!(u64::try_from(now).is_ok_and(|now| now == DISK), "the disk has kept its size");
    Ok(())
}

fn console(rings: &[Ring]) -> io::Result<()> {
    let (client, other) = UnixStream::pair()?;
    let console = Console::new(client)?;
    io::Write::write_all(&mut &other, b"to the guest")?;
    console.serve(rings)?;
    // What the client has taken makes room for more.
    other.set_nonblocking(true)?;
    let mut bytes = vec![0; 1 << 16];
    while matches!(io::Read::read(&mut &other, &mut bytes), Ok(n) if n > 0) {}
    console.serve(rings)?;
    drop(other);
    console.serve(rings)
}
