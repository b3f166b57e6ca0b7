// SPDX-License-Identifier: Apache-2.0
//! A virtio disk whose blocks an image has.
//!
//! Data is copied between the guest's memory and a buffer of at most `CHUNK` bytes, whatever a
//! request's length.

use super::Device;
use super::ring::Ring;
use crate::disk::Disk;
use crate::error::{Context, Result};
use crate::image::{Image, SECTOR};
use io_engine::{Backend, Engine};
use rustix::event::PollFlags;
use rustix::fd::BorrowedFd;
use sgl::Sgl;
use std::io::{self, Read, Write};
use virtio_queue::{Reader, Writer};

/// Features: most segments of a request, read-only, size of blocks, flush, discard, write zeroes.
const SEG_MAX: u64 = 1 << 2;
const RO: u64 = 1 << 5;
const BLK_SIZE: u64 = 1 << 6;
const FLUSH: u64 = 1 << 9;
const DISCARD: u64 = 1 << 13;
const WRITE_ZEROES: u64 = 1 << 14;
/// Segments of a request: what fits into UML's rings several times.
const SEGMENTS: u32 = 64;
/// Sectors of a discard: 1 GiB.
const MAX_DISCARD: u32 = 1 << 21;
/// Most bytes that are copied at once.
const CHUNK: usize = 1 << 20;
/// Most ranges of a discard.
const MAX_RANGES: usize = 64;
/// Bytes of a serial number.
const SERIAL: usize = 20;

/// Types of requests (virtio 1.2, 5.2.6).
mod kind {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
    pub(super) const DISCARD: u32 = 11;
    pub(super) const WRITE_ZEROES: u32 = 13;
}

const STATUS_OK: u8 = 0;
const STATUS_ERROR: u8 = 1;
const STATUS_UNSUPPORTED: u8 = 2;

/// The device, with its image, on a thread of its own.
#[derive(Debug)]
pub struct Block {
    engine: Engine,
    disk: Disk,
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
        Ok(Self { engine, disk, sector: sector.unwrap_or(512), serial })
    }

    /// Flushes and closes the image.
    ///
    /// # Errors
    /// What was acknowledged may not be on stable storage.
    pub fn close(self) -> Result<()> {
        self.engine.block_on(self.disk.close()).on("the engine of I/O")?
    }

    /// Serves a request; yields how many bytes were written to the guest's memory.
    fn answer(&self, reader: &mut Reader<'_>, mut writer: Writer<'_>) -> io::Result<usize> {
        // The last byte that may be written is the status.
        let Some(room) = writer.available_bytes().checked_sub(1) else { return Ok(0) };
        let mut status = writer.split_at(room).map_err(io::Error::other)?;
        let code = match self.request(reader, &mut writer) {
            Ok(()) => STATUS_OK,
            Err(libc::EOPNOTSUPP) => STATUS_UNSUPPORTED,
            Err(_) => STATUS_ERROR,
        };
        status.write_all(&[code])?;
        Ok(writer.bytes_written() + 1)
    }

    /// Does what a request asks for, or yields the errno.
    fn request(
        &self,
        reader: &mut Reader<'_>,
        writer: &mut Writer<'_>,
    ) -> std::result::Result<(), i32> {
        let mut head = [0; 16];
        reader.read_exact(&mut head).map_err(errno)?;
        let [kind, _, low, high] = words(&head);
        // What is beyond the last sector is refused below.
        let offset = (u64::from(high) << 32 | u64::from(low)).saturating_mul(SECTOR);
        let inside =
            |len: usize| offset.checked_add(len as u64).is_some_and(|end| end <= self.disk.size());
        match kind {
            kind::IN if inside(writer.available_bytes()) => self.read(writer, offset),
            kind::OUT if inside(reader.available_bytes()) => self.write(reader, offset),
            kind::IN | kind::OUT => Err(libc::EIO),
            kind::FLUSH => self.wait(self.disk.flush()),
            kind::GET_ID => {
                let len = writer.available_bytes().min(SERIAL);
                writer.write_all(&self.serial[..len]).map_err(errno)
            }
            kind::DISCARD | kind::WRITE_ZEROES => {
                for _ in 0..MAX_RANGES {
                    let mut range = [0; 16];
                    if reader.available_bytes() < range.len() {
                        break;
                    }
                    reader.read_exact(&mut range).map_err(errno)?;
                    let [low, high, count, flags] = words(&range);
                    let at = (u64::from(high) << 32 | u64::from(low)).saturating_mul(SECTOR);
                    let may_unmap = kind == kind::DISCARD || flags & 1 != 0;
                    self.wait(self.disk.zero(at, u64::from(count) * SECTOR, may_unmap))?;
                }
                Ok(())
            }
            _ => Err(libc::EOPNOTSUPP),
        }
    }

    fn read(&self, writer: &mut Writer<'_>, mut offset: u64) -> std::result::Result<(), i32> {
        let mut buffer = vec![0; writer.available_bytes().min(CHUNK)];
        while writer.available_bytes() > 0 {
            let n = writer.available_bytes().min(CHUNK);
            self.wait(self.disk.read(&Sgl::from_slice(&mut buffer[..n]), offset))?;
            writer.write_all(&buffer[..n]).map_err(errno)?;
            offset += n as u64;
        }
        Ok(())
    }

    fn write(&self, reader: &mut Reader<'_>, mut offset: u64) -> std::result::Result<(), i32> {
        let mut buffer = vec![0; reader.available_bytes().min(CHUNK)];
        while reader.available_bytes() > 0 {
            let n = reader.available_bytes().min(CHUNK);
            reader.read_exact(&mut buffer[..n]).map_err(errno)?;
            self.wait(self.disk.write(&Sgl::from_slice(&mut buffer[..n]), offset))?;
            offset += n as u64;
        }
        Ok(())
    }

    fn wait(
        &self,
        work: impl Future<Output = std::result::Result<(), i32>>,
    ) -> std::result::Result<(), i32> {
        self.engine.block_on(work).map_err(errno)?
    }
}

fn errno(e: io::Error) -> i32 {
    tracing::warn!("a disk of User-Mode Linux: {e}");
    e.raw_os_error().unwrap_or(libc::EIO)
}

/// Four numbers in the guest's order of bytes.
fn words(bytes: &[u8; 16]) -> [u32; 4] {
    std::array::from_fn(|i| u32::from_le_bytes(std::array::from_fn(|j| bytes[4 * i + j])))
}

impl Device for Block {
    fn queues(&self) -> usize {
        1
    }

    fn features(&self) -> u64 {
        let features = SEG_MAX | BLK_SIZE | FLUSH;
        if self.disk.read_only() { features | RO } else { features | DISCARD | WRITE_ZEROES }
    }

    fn config(&self) -> Vec<u8> {
        let mut config = vec![0; 60];
        let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &(self.disk.size() / SECTOR).to_le_bytes());
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

    fn wants(&self, _: &[Ring]) -> Option<(BorrowedFd<'_>, PollFlags)> {
        None
    }

    fn serve(&self, rings: &[Ring]) -> io::Result<()> {
        for ring in rings {
            while ring.serve_one(|reader, writer| self.answer(reader, writer))? {}
        }
        Ok(())
    }
}
