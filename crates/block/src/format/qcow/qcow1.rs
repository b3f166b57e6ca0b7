// SPDX-License-Identifier: Apache-2.0
//! qcow version 1 images, for reading. Nobody makes them any more.
//!
//! The format: a header; an L1 table of offsets of L2 tables; L2 tables of offsets of clusters, in
//! which bit 63 marks a compressed cluster (raw deflate).
use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::fmt::Display;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use qcow2::Storage as _;
use sgl::Sgl;
use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::format::chain::{Format, Opening, Site, capacity};
use crate::lower::from_io;
use crate::{AnyStore, BoxedStore, Error, ErrorKind, Facts, Held, Lower, Provisioning, Store};

/// Version 1.
pub(crate) const QCOW: Format = Format { name: "qcow", writable: false, needs_secret: false, open };
/// Entries of an L1 table: 32 MiB of them.
const MAX_L1_ENTRIES: u64 = 4 << 20;
const COMPRESSED: u64 = 1 << 63;
/// "QFI\xfb".
const MAGIC: u32 = 0x5146_49fb;

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
struct Header {
    /// Virtual size in bytes.
    size: u64,
    cluster_bits: u32,
    /// The name of the backing file.
    backing: Option<OsString>,
    l2_bits: u32,
    l1_offset: u64,
}

impl Header {
    /// Reads and judges a header.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for whatever may not be opened, [`ErrorKind::Io`] when the file
    /// cannot be read.
    async fn read(storage: &Lower) -> Result<Self, ErrorKind> {
        let invalid = |what: String| {
            Err(ErrorKind::Invalid(format!(
                "{what}: nothing repairs that: use another copy of the image"
            )))
        };
        let mut bytes = [0; size_of::<Raw>()];
        storage.read(&Sgl::from_slice(&mut bytes), 0).await?;
        let raw = match Raw::ref_from_bytes(&bytes) {
            Ok(raw) if raw.magic.get() == MAGIC && raw.version.get() == 1 => raw,
            _ => {
                return Err(ErrorKind::Invalid(
                    "it is not a qcow image of version 1; `qemu-img info` tells what it is".into(),
                ));
            }
        };
        if raw.crypt_method.get() != 0 {
            return Err(ErrorKind::Invalid(
                "it is encrypted, which is not supported; `qemu-img convert -O qcow2`, with its \
                 passphrase, makes an image that is not"
                    .into(),
            ));
        }
        let (cluster_bits, l2_bits) = (u32::from(raw.cluster_bits), u32::from(raw.l2_bits));
        if !(9..=16).contains(&cluster_bits) || !(6..=13).contains(&l2_bits) {
            return invalid(format!(
                "its cluster_bits are {cluster_bits}, its l2_bits {l2_bits}; they can be 9 to 16, \
                 and 6 to 13"
            ));
        }
        let size = raw.size.get();
        if size >> (cluster_bits + l2_bits) >= MAX_L1_ENTRIES {
            return invalid(format!("its size of {size} bytes is too large"));
        }
        let (at, len) = (raw.backing_offset.get(), raw.backing_len.get());
        let backing = if at == 0 {
            None
        } else {
            if !(1..=1023).contains(&len) {
                return invalid(format!(
                    "its backing file's name has {len} bytes, 1 to 1023 can be"
                ));
            }
            let mut name = vec![0; len as usize];
            storage.read(&Sgl::from_slice(&mut name), at).await?;
            if name.contains(&0) {
                return invalid("its backing file's name is not valid text".into());
            }
            Some(OsString::from_vec(name))
        };
        Ok(Header { size, cluster_bits, backing, l2_bits, l1_offset: raw.l1_offset.get() })
    }

    fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }
}

/// The error of what is wrong in the image's tables or data.
fn damaged(what: impl Display) -> io::Error {
    let text = format!(
        "{what}; if there is no other copy, run `qemu-img convert --salvage -O qcow2` and use the \
         new image, in which what is missing is zero"
    );
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn open(storage: Lower, site: Site<'_>) -> Opening<'_, AnyStore> {
    Box::pin(async move {
        let header = Header::read(&storage).await;
        let header = header.map_err(|kind| Error::new(kind, "open", site.path()))?;
        if site.options().is_some_and(|options| options.image.snapshot.is_some()) {
            let text = "images of version 1 have no snapshots that can be served";
            return Err(Error::invalid(text, "open", site.path()));
        }
        let backing = match &header.backing {
            Some(name) => Some(site.backing(name, None).await?),
            None => None,
        };
        let size = capacity(header.size, &site)?;
        let len = storage.size().map_err(|e| Error::new(e, "find its length", site.path()))?;
        Ok(AnyStore::Boxed(BoxedStore::new(Qcow1 {
            path: site.path().to_owned(),
            size: Cell::new(size),
            held: site.held(),
            len,
            storage,
            header,
            backing,
            l2: RefCell::default(),
        })))
    })
}

/// An open image.
#[derive(Debug)]
struct Qcow1 {
    path: PathBuf,
    /// Capacity of the disk in bytes, at most that of the image.
    size: Cell<u64>,
    held: Held,
    /// Length of the file in bytes.
    len: u64,
    storage: Lower,
    header: Header,
    backing: Option<Lower>,
    /// The offset of the L2 table last used, and the table.
    l2: RefCell<(u64, Vec<u8>)>,
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
    /// Fills all of `data`; what lies past the end of the image is zero.
    async fn fill(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
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
            match (self.cluster(at).await?, &self.backing) {
                (Cluster::Unallocated, Some(backing)) => backing.read(&part, at).await?,
                (Cluster::Unallocated, None) => part.fill(0..n, 0),
                (Cluster::Plain(host), _) => self.read(&part, host, start).await?,
                (Cluster::Compressed(host, len), _) => {
                    let cluster = self.inflate(host, len).await?;
                    let from = usize::try_from(start).map_err(io::Error::other)?;
                    part.write_at(0, cluster.get(from..).unwrap_or_default());
                }
            }
            done += n;
        }
        Ok(())
    }

    /// Reads from the cluster or table at `host`. The last one may end at any sector; one that would
    /// begin past the end of the file is missing, since the file was cut off.
    async fn read(&self, data: &Sgl<'_>, host: u64, start: u64) -> io::Result<()> {
        if host >= self.len {
            return Err(damaged(format_args!(
                "it refers to a cluster at {host:#x}, and the file ends at {:#x}",
                self.len
            )));
        }
        self.storage.read(data, host + start).await
    }

    /// Whether there is data at `offset`, and for how many bytes that holds (inside one cluster).
    async fn find(&self, offset: u64) -> io::Result<(Provisioning, u64)> {
        let cluster_size = self.header.cluster_size();
        let n = cluster_size - offset % cluster_size;
        Ok(match (self.cluster(offset).await?, &self.backing) {
            (Cluster::Unallocated, None) => (Provisioning::Deallocated, n),
            (Cluster::Unallocated, Some(backing)) => match backing.map(offset, n).await? {
                (qcow2::Extent::Zero, n) => (Provisioning::Deallocated, n),
                (qcow2::Extent::Data, n) => (Provisioning::Mapped, n),
            },
            (Cluster::Plain(_) | Cluster::Compressed(..), _) => (Provisioning::Mapped, n),
        })
    }

    /// An error of this image, or of what is below it.
    fn error(&self, error: io::Error, operation: String) -> Error {
        from_io(error).unwrap_or_else(|e| Error::new(e, operation, &self.path))
    }

    fn read_only<T>(&self, operation: &str) -> Result<T, Error> {
        Err(Error::new(ErrorKind::ReadOnly, operation, &self.path))
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
            return Err(damaged(format_args!("the L1 entry {l1_index} is {l2_offset:#x}")));
        }
        let known = self.l2.borrow().0 == l2_offset;
        if !known {
            let mut table = vec![0; 8 << header.l2_bits];
            self.read(&Sgl::from_slice(&mut table), l2_offset, 0).await?;
            self.l2.replace((l2_offset, table));
        }
        let l2_index = (offset >> header.cluster_bits) & ((1 << header.l2_bits) - 1);
        let l2 = self.l2.borrow();
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
            _ => Err(damaged(format_args!(
                "the compressed cluster of {len} bytes at {offset:#x} is damaged"
            ))),
        }
    }
}

impl Store for Qcow1 {
    fn facts(&self) -> Facts {
        Facts {
            size: self.size.get(),
            read_only: true,
            optimal_io: 1 << self.header.cluster_bits,
            request_alignment: 1,
            shared: false,
            compare_and_write: None,
            discard: None,
            write_zeroes: false,
        }
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        let filled = self.fill(data, offset).await;
        filled.map_err(|e| self.error(e, format!("read {} bytes at {offset}", data.len())))
    }

    async fn write(&self, _data: &Sgl<'_>, _offset: u64, _fua: bool) -> Result<(), Error> {
        self.read_only("write")
    }

    async fn flush(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn discard(&self, _offset: u64, _len: u64) -> Result<(), Error> {
        self.read_only("discard")
    }

    async fn write_zeroes(&self, _offset: u64, _len: u64, _may_unmap: bool) -> Result<(), Error> {
        self.read_only("write zeroes")
    }

    async fn provisioning(&self, offset: u64, len: u64) -> Result<(Provisioning, u64), Error> {
        let found = self.find(offset).await;
        let (kind, n) = found.map_err(|e| self.error(e, format!("look for data at {offset}")))?;
        Ok((kind, n.clamp(1, len.max(1))))
    }

    async fn resize(&self, size: u64) -> Result<(), Error> {
        if size > self.header.size {
            return self.read_only("resize");
        }
        self.size.set(size);
        Ok(())
    }

    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }

    fn held(&self) -> Held {
        self.held.clone()
    }
}
