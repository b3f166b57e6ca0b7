// SPDX-License-Identifier: Apache-2.0
//! qcow version 1 images, for reading. Nobody makes them any more; `imago` does not know them.
//!
//! The format: a header; an L1 table of offsets of L2 tables; L2 tables of offsets of clusters, in
//! which bit 63 marks a compressed cluster (raw deflate).
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use sgl::Sgl;
use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::header::Backing;
use super::layered::Source;
use super::storage::Storage;
use crate::ErrorKind;

/// Entries of an L1 table: 32 MiB of them.
const MAX_L1_ENTRIES: u64 = 4 << 20;
const COMPRESSED: u64 = 1 << 63;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    magic: U32,
    version: U32,
    backing_offset: U64,
    backing_len: U32,
    mtime: U32,
    size: U64,
    cluster_bits: u8,
    l2_bits: u8,
    padding: U16,
    crypt_method: U32,
    l1_offset: U64,
}

/// What is needed of a header.
#[derive(Clone, Debug)]
pub(super) struct Header {
    /// Virtual size in bytes.
    pub(super) size: u64,
    pub(super) cluster_bits: u32,
    pub(super) backing: Option<Backing>,
    l2_bits: u32,
    l1_offset: u64,
}

impl Header {
    /// Reads and judges a header.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for whatever may not be opened, [`ErrorKind::Io`] when the file
    /// cannot be read.
    pub(super) fn read(file: &File, path: &Path) -> Result<Self, ErrorKind> {
        let invalid =
            |what: &str| Err(ErrorKind::Invalid(format!("{what}; {} is damaged", path.display())));
        let mut bytes = [0; size_of::<Raw>()];
        match file.read_exact_at(&mut bytes, 0) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return invalid("its header is too short");
            }
            result => result?,
        }
        let Ok(raw) = Raw::ref_from_bytes(&bytes) else {
            return invalid("its header is too short");
        };
        if raw.crypt_method.get() != 0 {
            return Err(ErrorKind::Invalid("it is encrypted, which is not supported".into()));
        }
        let (cluster_bits, l2_bits) = (u32::from(raw.cluster_bits), u32::from(raw.l2_bits));
        if !(9..=16).contains(&cluster_bits) || !(6..=13).contains(&l2_bits) {
            return invalid("its sizes of clusters or tables are wrong");
        }
        let size = raw.size.get();
        if size >> (cluster_bits + l2_bits) >= MAX_L1_ENTRIES {
            return invalid("its size is too large");
        }
        let (at, len) = (raw.backing_offset.get(), raw.backing_len.get());
        let backing = if at == 0 {
            None
        } else {
            let mut name = vec![0; len.min(1024) as usize];
            let read = file.read_exact_at(&mut name, at);
            let name = String::from_utf8(name).ok().filter(|name| !name.contains('\0'));
            match (read, name) {
                (Ok(()), Some(name)) if (1..=1023).contains(&len) => {
                    Some(Backing { name, format: None })
                }
                _ => return invalid("the name of its backing file is wrong"),
            }
        };
        Ok(Header { size, cluster_bits, backing, l2_bits, l1_offset: raw.l1_offset.get() })
    }

    fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }
}

/// An open image.
#[derive(Debug)]
pub(super) struct Qcow1 {
    storage: Storage,
    header: Header,
    backing: Source,
    /// The offset of the L2 table last used, and the table.
    l2: Mutex<(u64, Vec<u8>)>,
}

/// Where a cluster is.
enum Cluster {
    /// Not in this image.
    Unallocated,
    /// At this offset of the file.
    Plain(u64),
    /// At this offset, with at most so many bytes.
    Compressed(u64, u64),
}

impl Qcow1 {
    pub(super) fn new(storage: Storage, header: Header, backing: Source) -> Self {
        Qcow1 { storage, header, backing, l2: Mutex::default() }
    }

    /// Virtual size in bytes.
    pub(super) fn size(&self) -> u64 {
        self.header.size
    }

    /// In bytes; at most 64 KiB.
    pub(super) fn cluster_size(&self) -> u32 {
        1 << self.header.cluster_bits
    }

    /// Fills all of `data`; what lies past the end of the image is zero.
    pub(super) async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        let cluster_size = self.header.cluster_size();
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            if at >= self.header.size {
                data.fill(done..data.len(), 0);
                return Ok(());
            }
            let start = at % cluster_size;
            let most = (cluster_size - start).min(self.header.size - at);
            let n = usize::try_from(most).unwrap_or(usize::MAX).min(data.len() - done);
            let part = data.slice(done..done + n);
            match self.cluster(at).await? {
                Cluster::Unallocated => self.backing.read(&part, at).await?,
                Cluster::Plain(host) => self.storage.read(&part, host + start).await?,
                Cluster::Compressed(host, len) => {
                    let cluster = self.inflate(host, len).await?;
                    let from = usize::try_from(start).map_err(io::Error::other)?;
                    part.write_at(0, cluster.get(from..).unwrap_or_default());
                }
            }
            done += n;
        }
        Ok(())
    }

    /// Whether there is data at `offset`, and for how many bytes that holds (inside one cluster).
    pub(super) async fn is_mapped(&self, offset: u64) -> io::Result<(bool, u64)> {
        let cluster_size = self.header.cluster_size();
        let n = cluster_size - offset % cluster_size;
        Ok(match self.cluster(offset).await? {
            Cluster::Unallocated => (self.backing.is_some(), n),
            Cluster::Plain(_) | Cluster::Compressed(..) => (true, n),
        })
    }

    async fn cluster(&self, offset: u64) -> io::Result<Cluster> {
        let header = &self.header;
        let l1_index = offset >> (header.cluster_bits + header.l2_bits);
        let mut entry = [0; 8];
        let l1_entry = header.l1_offset.saturating_add(l1_index * 8);
        self.storage.read(&Sgl::from_slice(&mut entry), l1_entry).await?;
        let l2_offset = u64::from_be_bytes(entry);
        if l2_offset == 0 {
            return Ok(Cluster::Unallocated);
        }
        if l2_offset >> 62 != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an L1 entry is wrong"));
        }
        let cached = || self.l2.lock().unwrap_or_else(PoisonError::into_inner);
        let known = cached().0 == l2_offset;
        if !known {
            let mut table = vec![0; 8 << header.l2_bits];
            self.storage.read(&Sgl::from_slice(&mut table), l2_offset).await?;
            *cached() = (l2_offset, table);
        }
        let l2_index = (offset >> header.cluster_bits) & ((1 << header.l2_bits) - 1);
        let l2 = cached();
        let entry = usize::try_from(l2_index).ok().and_then(|i| l2.1.as_chunks::<8>().0.get(i));
        let entry = u64::from_be_bytes(entry.copied().unwrap_or_default());
        Ok(if entry == 0 {
            Cluster::Unallocated
        } else if entry & COMPRESSED != 0 {
            let bits = 63 - header.cluster_bits;
            let len = (entry >> bits) & (header.cluster_size() - 1);
            Cluster::Compressed(entry & ((1 << bits) - 1), len)
        } else {
            Cluster::Plain(entry & !(header.cluster_size() - 1))
        })
    }

    async fn inflate(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut packed = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        self.storage.read(&Sgl::from_slice(&mut packed), offset).await?;
        let mut cluster = vec![0; 1 << self.header.cluster_bits];
        let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let mut state = DecompressorOxide::new();
        let (status, _, n) = decompress(&mut state, &packed, &mut cluster, 0, flags);
        match status {
            TINFLStatus::Done | TINFLStatus::HasMoreOutput if n == cluster.len() => Ok(cluster),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the compressed cluster at {offset} is damaged"),
            )),
        }
    }
}
