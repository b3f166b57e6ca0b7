//! A virtio disk whose blocks an image has.

use super::Device;
use super::memory::{Memory, Piece, view};
use super::queue::{Chain, Queue, gather};
use crate::disk::{Disk, SECTOR};
use crate::error::{Context, Result};
use crate::image::Image;
use io_engine::{Backend, Engine};
use rustix::event::PollFlags;
use rustix::fd::BorrowedFd;
use std::io;

/// Features: most segments of a request, read-only, size of blocks, flush, discard, write zeroes.
const SEG_MAX: u64 = 1 << 2;
const RO: u64 = 1 << 5;
const BLK_SIZE: u64 = 1 << 6;
const FLUSH: u64 = 1 << 9;
const DISCARD: u64 = 1 << 13;
const WRITE_ZEROES: u64 = 1 << 14;
/// Segments of a request: what fits into UML's rings of 128 entries or so.
const SEGMENTS: u32 = 64;
/// Sectors of a discard: 1 GiB.
const MAX_DISCARD: u32 = 1 << 21;
/// Most bytes of a request that are not data.
const MAX_HEAD: usize = 16;
const MAX_RANGES: usize = 16 * 64;
/// Bytes of a serial number.
const SERIAL: usize = 20;

const STATUS_OK: u8 = 0;
const STATUS_ERROR: u8 = 1;
const STATUS_UNSUPPORTED: u8 = 2;

/// The device.
#[derive(Debug)]
pub struct Block {
    engine: Engine,
    disk: Option<Disk>,
    size: u64,
    read_only: bool,
    sector: u32,
    serial: [u8; SERIAL],
}

impl Block {
    /// Opens an image, in the thread that is going to be the device.
    pub fn open(image: &Image, sector: Option<u32>, label: Option<&str>) -> Result<Self> {
        let engine = Engine::new(Backend::Auto).on("the engine of I/O")?;
        let disk = engine.block_on(Disk::open(image)).on("the engine of I/O")??;
        let mut serial = [0; SERIAL];
        for (to, from) in serial.iter_mut().zip(label.unwrap_or_default().bytes()) {
            *to = from;
        }
        let (size, read_only) = (disk.size, disk.read_only);
        let sector = sector.unwrap_or(512);
        Ok(Self { engine, disk: Some(disk), size, read_only, sector, serial })
    }

    /// Flushes and closes the image.
    pub fn close(mut self) -> Result<()> {
        let Some(disk) = self.disk.take() else { return Ok(()) };
        self.engine.block_on(disk.close()).on("the engine of I/O")?
    }

    /// Serves a request; yields its status and how many bytes were written to the guest's memory
    /// besides.
    fn request(&self, memory: &Memory, chain: &Chain) -> io::Result<(u8, usize)> {
        let head = gather(&chain.readable, MAX_HEAD);
        let (kind, sector) = (super::word(&head, 0), super::long(&head, 8));
        let Some(disk) = &self.disk else { return Ok((STATUS_ERROR, 0)) };
        // What is beyond the last sector is refused below.
        let offset = sector.saturating_mul(SECTOR);
        let input = without_status(&chain.writable);
        let data = view(memory, &input);
        let done = |result: std::result::Result<(), i32>, written: usize| match result {
            Ok(()) => (STATUS_OK, written),
            Err(libc::EOPNOTSUPP) => (STATUS_UNSUPPORTED, 0),
            Err(_) => (STATUS_ERROR, 0),
        };
        let inside =
            |len: usize| offset.checked_add(len as u64).is_some_and(|end| end <= self.size);
        Ok(match kind {
            0 if inside(data.len()) => {
                done(self.engine.block_on(disk.read(&data, offset))?, data.len())
            }
            1 => {
                let output = view(memory, &without_head(&chain.readable));
                done(self.engine.block_on(disk.write(&output, offset))?, 0)
            }
            4 => done(self.engine.block_on(disk.flush())?, 0),
            8 => (STATUS_OK, data.write_at(0, &self.serial)),
            11 | 13 => {
                let all = gather(&chain.readable, MAX_HEAD + MAX_RANGES);
                let mut status = (STATUS_OK, 0);
                for range in all.get(MAX_HEAD..).unwrap_or_default().chunks_exact(16) {
                    let at = super::long(range, 0).saturating_mul(SECTOR);
                    let len = u64::from(super::word(range, 8)) * SECTOR;
                    let unmap = kind == 11 || super::word(range, 12) & 1 != 0;
                    status = done(self.engine.block_on(disk.zero(at, len, unmap))?, 0);
                    if status.0 != STATUS_OK {
                        break;
                    }
                }
                status
            }
            0 => (STATUS_ERROR, 0),
            _ => (STATUS_UNSUPPORTED, 0),
        })
    }
}

/// Where data is read to: the last byte of what may be written is the status.
fn without_status(pieces: &[Piece]) -> Vec<Piece> {
    let mut pieces = pieces.to_vec();
    if let Some(last) = pieces.last_mut() {
        *last = last.part(0, last.len.saturating_sub(1));
    }
    pieces
}

/// Where data is written from: behind the head.
fn without_head(pieces: &[Piece]) -> Vec<Piece> {
    let mut skip = MAX_HEAD;
    let rest = pieces.iter().map(|p| {
        let part = p.part(skip, usize::MAX);
        skip -= skip.min(p.len);
        part
    });
    rest.collect()
}

impl Device for Block {
    fn features(&self) -> u64 {
        let features = SEG_MAX | BLK_SIZE | FLUSH;
        if self.read_only { features | RO } else { features | DISCARD | WRITE_ZEROES }
    }

    fn queues(&self) -> usize {
        1
    }

    fn config(&self) -> Vec<u8> {
        let mut config = vec![0; 60];
        let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &(self.size / SECTOR).to_le_bytes());
        put(12, &SEGMENTS.to_le_bytes());
        put(20, &self.sector.to_le_bytes());
        // Discard: sectors, segments, alignment; write zeroes: sectors, segments, may unmap.
        put(36, &MAX_DISCARD.to_le_bytes());
        put(40, &1u32.to_le_bytes());
        put(44, &(self.sector / 512).to_le_bytes());
        put(48, &MAX_DISCARD.to_le_bytes());
        put(52, &1u32.to_le_bytes());
        put(56, &[1]);
        config
    }

    fn wants(&self, _: &Memory, _: &[Queue]) -> (Option<BorrowedFd<'_>>, PollFlags) {
        (None, PollFlags::empty())
    }

    fn serve(
        &mut self,
        memory: &Memory,
        queues: &mut [Queue],
        _: Option<usize>,
        _: PollFlags,
    ) -> io::Result<()> {
        let Some(queue) = queues.first_mut() else { return Ok(()) };
        while let Some(chain) = queue.pop(memory)? {
            let (status, written) = self.request(memory, &chain)?;
            if let Some(last) = chain.writable.last() {
                last.part(last.len.saturating_sub(1), 1).write(&[status]);
            }
            queue.push(memory, &chain, written + 1)?;
        }
        Ok(())
    }
}
