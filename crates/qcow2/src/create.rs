// SPDX-License-Identifier: Apache-2.0
//! A new image. In: options, as `qemu-img create` has them. Out: the same image on a storage.
//!
//! From the beginning of the file: header, refcount table, refcount blocks, encryption header,
//! L1 table, and with preallocation L2 tables and data.
//!
//! Rule: the header is written last, after a sync of all others. Before, the place of the header is
//! zero: what is half made is no image.
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use sgl::Sgl;
use zerocopy::IntoBytes;

use crate::error::Result;
use crate::layout::entry::COPIED;
use crate::layout::header::{
    Backing, CLUSTER_BITS, Compression, Crypt, Header, MAX_BACKING_NAME, MAX_L1_BYTES,
    MAX_REFTABLE_BYTES, autoclear, compatible, extension, incompatible,
};
use crate::{Error, ErrorKind, Storage};

/// The most zeroes that are written at once, in bytes.
const STEP: usize = 1 << 20;
/// The smallest cluster that can have subclusters, as a power of two.
const EXTENDED_CLUSTER_BITS: u32 = 14;

/// What is allocated from the beginning, by QEMU's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preallocation {
    /// Nothing.
    #[default]
    Off,
    /// Each cluster has its place; the file is sparse.
    Metadata,
    /// That, and the file system has given the space.
    Falloc,
    /// That, and zeroes have been written there.
    Full,
}

/// An external data file as the header names it.
#[derive(Clone, Debug)]
pub struct DataFile {
    /// The name.
    pub name: OsString,
    /// Whether it can be used as a raw image: offsets are the guest's.
    pub raw: bool,
}

/// How an image is made.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// Virtual size in bytes, rounded up to sectors of 512.
    pub size: u64,
    /// 2 (`compat=0.10`) or 3 (`compat=1.1`).
    pub version: u32,
    /// Size of a cluster in bytes: a power of two from 512 to 2 MiB.
    pub cluster_size: u64,
    /// Bits of a refcount: a power of two from 1 to 64.
    pub refcount_bits: u32,
    /// Whether clusters have 32 subclusters each.
    pub extended_l2: bool,
    /// Whether refcounts may be written late.
    pub lazy_refcounts: bool,
    /// How clusters are compressed.
    pub compression: Compression,
    /// The backing file.
    pub backing: Option<Backing>,
    /// The external data file.
    pub data_file: Option<DataFile>,
    /// What is allocated.
    pub preallocation: Preallocation,
    /// The bytes of a LUKS header, with which the image is encrypted.
    pub luks: Option<Vec<u8>>,
}

impl CreateOptions {
    /// Those that QEMU has by default.
    pub fn new(size: u64) -> Self {
        CreateOptions {
            size,
            version: 3,
            cluster_size: 64 << 10,
            refcount_bits: 16,
            extended_l2: false,
            lazy_refcounts: false,
            compression: Compression::Deflate,
            backing: None,
            data_file: None,
            preallocation: Preallocation::Off,
            luks: None,
        }
    }

    /// Refuses what no image can have.
    fn check(&self, data_file: bool) -> Result<()> {
        let bits = self.cluster_size.trailing_zeros();
        if !self.cluster_size.is_power_of_two() || !CLUSTER_BITS.contains(&bits) {
            return refuse(format!(
                "the cluster size {} is no power of two between 512 and 2 MiB",
                self.cluster_size
            ));
        }
        if !self.refcount_bits.is_power_of_two() || self.refcount_bits > 64 {
            return refuse(format!(
                "refcounts of {} bits: the number has to be a power of two, at most 64",
                self.refcount_bits
            ));
        }
        let raw = self.data_file.as_ref().is_some_and(|file| file.raw);
        let preallocated = self.preallocation != Preallocation::Off;
        let backed = self.backing.is_some();
        let old = self.version == 2;
        let contradictions = [
            (!old && self.version != 3, "the version is neither 2 nor 3"),
            (old && self.refcount_bits != 16, "version 2 has refcounts of 16 bits only"),
            (old && self.extended_l2, "version 2 has no subclusters"),
            (old && self.lazy_refcounts, "version 2 has no lazy refcounts"),
            (old && self.compression != Compression::Deflate, "version 2 has deflate only"),
            (old && self.data_file.is_some(), "version 2 has no external data file"),
            (
                self.extended_l2 && bits < EXTENDED_CLUSTER_BITS,
                "subclusters need clusters of 16 KiB or more",
            ),
            (raw && backed, "a raw external data file and a backing file exclude each other"),
            (
                preallocated && backed && !self.extended_l2,
                "preallocation over a backing file needs subclusters",
            ),
            (preallocated && self.luks.is_some(), "an encrypted image cannot be preallocated"),
            (
                self.data_file.is_some() != data_file,
                "an external data file needs both a name and a storage",
            ),
        ];
        if let Some((_, text)) = contradictions.iter().find(|(wrong, _)| *wrong) {
            return refuse(*text);
        }
        let name = self.backing.as_ref().map_or(0, |backing| backing.name.len() as u64);
        if name > MAX_BACKING_NAME {
            return refuse(format!(
                "the backing file's name has {name} bytes, and may have {MAX_BACKING_NAME}"
            ));
        }
        Ok(())
    }

    fn header(&self, size: u64) -> Header {
        let mut header = Header::new(self.version, self.cluster_size.trailing_zeros(), size);
        header.refcount_order = self.refcount_bits.trailing_zeros();
        header.compression = self.compression;
        header.backing.clone_from(&self.backing);
        for (wanted, bit) in [
            (self.data_file.is_some(), incompatible::DATA_FILE),
            (self.compression != Compression::Deflate, incompatible::COMPRESSION_TYPE),
            (self.extended_l2, incompatible::EXTENDED_L2),
        ] {
            header.incompatible |= if wanted { bit } else { 0 };
        }
        if self.lazy_refcounts {
            header.compatible |= compatible::LAZY_REFCOUNTS;
        }
        if let Some(file) = &self.data_file {
            header.extensions.push((extension::DATA_FILE, file.name.clone().into_vec()));
            header.autoclear |= if file.raw { autoclear::RAW_DATA_FILE } else { 0 };
        }
        header
    }
}

fn refuse<T>(text: impl Into<String>) -> Result<T> {
    Err(ErrorKind::Unsupported(text.into()))
}

/// Where everything is, in clusters.
struct Plan {
    reftable: u64,
    blocks: u64,
    luks: u64,
    l1: u64,
    l2: u64,
    /// Clusters of the guest that have a place.
    mapped: u64,
    /// Those of them that are in this file.
    data: u64,
    total: u64,
}

impl Plan {
    fn new(header: &Header, luks: u64, preallocated: bool, data_file: bool) -> Result<Self> {
        let cluster = header.cluster_size();
        let entries = header.l1_entries_for(header.size);
        if entries.checked_mul(8).is_none_or(|bytes| bytes > MAX_L1_BYTES) {
            return refuse(format!(
                "the size of {} bytes needs an L1 table of more than {MAX_L1_BYTES} bytes; larger \
                 clusters than {cluster} bytes help",
                header.size
            ));
        }
        let mapped = if preallocated { header.size.div_ceil(cluster) } else { 0 };
        let mut plan = Plan {
            reftable: 1,
            blocks: 1,
            luks: luks.div_ceil(cluster),
            l1: (entries * 8).div_ceil(cluster),
            l2: if preallocated { entries } else { 0 },
            mapped,
            data: if data_file { 0 } else { mapped },
            total: 0,
        };
        let per_block = (cluster * 8) >> header.refcount_order;
        loop {
            plan.total = plan.data_start() + plan.data;
            let blocks = plan.total.div_ceil(per_block);
            let reftable = (blocks * 8).div_ceil(cluster);
            if reftable * cluster > MAX_REFTABLE_BYTES {
                return refuse(format!(
                    "a preallocated file of {} clusters of {cluster} bytes needs a refcount table \
                     of more than {MAX_REFTABLE_BYTES} bytes; larger clusters help",
                    plan.total
                ));
            }
            // Both only grow, so this ends.
            if blocks <= plan.blocks && reftable <= plan.reftable {
                return Ok(plan);
            }
            (plan.blocks, plan.reftable) = (blocks, reftable);
        }
    }

    fn luks_start(&self) -> u64 {
        1 + self.reftable + self.blocks
    }

    fn l1_start(&self) -> u64 {
        self.luks_start() + self.luks
    }

    fn l2_start(&self) -> u64 {
        self.l1_start() + self.l1
    }

    fn data_start(&self) -> u64 {
        self.l2_start() + self.l2
    }
}

/// Makes an image on `storage`, and its external data file on `data_file`. What was there is gone.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for options that contradict each other, before anything is written.
pub async fn create<S: Storage>(
    storage: &S,
    data_file: Option<&S>,
    options: &CreateOptions,
) -> std::result::Result<(), Error> {
    let made = make(storage, data_file, options).await;
    made.map_err(|kind| Error::new(kind, "create"))
}

async fn make<S: Storage>(
    storage: &S,
    data_file: Option<&S>,
    options: &CreateOptions,
) -> Result<()> {
    options.check(data_file.is_some())?;
    let Some(size) = options.size.checked_next_multiple_of(512) else {
        return refuse(format!("the size of {} bytes is too large", options.size));
    };
    let mut header = options.header(size);
    // Without it, zeroes of the raw file and of the image would not be the same thing.
    let raw = options.data_file.as_ref().is_some_and(|file| file.raw);
    let preallocated = raw || options.preallocation != Preallocation::Off;
    let luks = options.luks.as_ref().map_or(0, |luks| luks.len() as u64);
    let plan = Plan::new(&header, luks, preallocated, data_file.is_some())?;
    let first = encoded(&mut header, &plan, luks)?;

    empty(storage, plan.total * options.cluster_size).await?;
    if let Some(data_file) = data_file {
        empty(data_file, size).await?;
        fill(data_file, 0, size, options.preallocation).await?;
        data_file.sync().await?;
    } else {
        let start = plan.data_start() * options.cluster_size;
        let len = plan.data * options.cluster_size;
        fill(storage, start, len, options.preallocation).await?;
    }
    write_refcounts(storage, &header, &plan).await?;
    if let Some(luks) = &options.luks {
        write(storage, &mut luks.clone(), plan.luks_start() * options.cluster_size).await?;
    }
    if preallocated {
        write_mapping(storage, &header, &plan, data_file.is_some()).await?;
    }
    storage.sync().await?;
    write(storage, &mut first.clone(), 0).await?;
    storage.sync().await?;
    Ok(())
}

/// The first cluster.
fn encoded(header: &mut Header, plan: &Plan, luks: u64) -> Result<Vec<u8>> {
    let cluster = header.cluster_size();
    let narrow = |number: u64| {
        u32::try_from(number).map_err(|_| ErrorKind::Unsupported("it is too large".into()))
    };
    header.reftable_offset = cluster;
    header.reftable_clusters = narrow(plan.reftable)?;
    header.l1_entries = narrow(header.l1_entries_for(header.size))?;
    header.l1_offset = if plan.l1 > 0 { plan.l1_start() * cluster } else { 0 };
    if plan.luks > 0 {
        header.crypt = Crypt::Luks;
        let place = [plan.luks_start() * cluster, luks].map(u64::to_be_bytes).concat();
        header.extensions.push((extension::FULL_DISK_ENCRYPTION, place));
    }
    header.encode()
}

/// Makes `storage` `len` bytes of zeroes.
async fn empty<S: Storage>(storage: &S, len: u64) -> Result<()> {
    storage.set_len(0).await?;
    storage.set_len(len).await?;
    // A block device keeps its length, and what it holds.
    let kept = storage.length().await?.min(len);
    if kept > 0 {
        storage.zero(0, kept, true).await?;
    }
    Ok(())
}

/// Gives space to a range that reads as zeroes.
async fn fill<S: Storage>(storage: &S, start: u64, len: u64, how: Preallocation) -> Result<()> {
    match how {
        Preallocation::Off | Preallocation::Metadata => {}
        Preallocation::Falloc if len > 0 => storage.zero(start, len, false).await?,
        Preallocation::Falloc => {}
        Preallocation::Full => {
            let mut zeroes = vec![0; STEP];
            let mut done = 0;
            while done < len {
                let now = usize::try_from(len - done).unwrap_or(STEP).min(STEP);
                let part = zeroes.get_mut(..now).unwrap_or_default();
                write(storage, part, start + done).await?;
                done += now as u64;
            }
        }
    }
    Ok(())
}

/// The refcount table and its blocks: each cluster is referred to once.
async fn write_refcounts<S: Storage>(storage: &S, header: &Header, plan: &Plan) -> Result<()> {
    let cluster = header.cluster_size();
    let first = 1 + plan.reftable;
    let mut table: Vec<u64> =
        (0..plan.blocks).map(|block| ((first + block) * cluster).to_be()).collect();
    write(storage, table.as_mut_bytes(), cluster).await?;
    let per_block = (cluster * 8) >> header.refcount_order;
    for block in 0..plan.blocks {
        let used = plan.total.saturating_sub(block * per_block).min(per_block);
        let mut bytes = ones(used, header.refcount_order);
        write(storage, &mut bytes, (first + block) * cluster).await?;
    }
    Ok(())
}

/// So many refcounts of one, in the order of the format: big endian, and those smaller than a byte
/// from its lowest bits on.
fn ones(count: u64, order: u32) -> Vec<u8> {
    let bits = 1u64 << order;
    let mut bytes = vec![0u8; usize::try_from((count * bits).div_ceil(8)).unwrap_or(0)];
    for index in 0..count {
        let (at, shift) = match bits {
            1..=7 => (index * bits / 8, index * bits % 8),
            _ => ((index + 1) * bits / 8 - 1, 0),
        };
        let byte = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at));
        if let Some(byte) = byte {
            *byte |= 1 << shift;
        }
    }
    bytes
}

/// The L1 table and the L2 tables: each cluster of the guest has its place.
async fn write_mapping<S: Storage>(
    storage: &S,
    header: &Header,
    plan: &Plan,
    data_file: bool,
) -> Result<()> {
    let cluster = header.cluster_size();
    let place = |index: u64| (((plan.l2_start() + index) * cluster) | COPIED).to_be();
    let mut l1: Vec<u64> = (0..plan.l2).map(place).collect();
    write(storage, l1.as_mut_bytes(), plan.l1_start() * cluster).await?;
    let per_table = cluster / header.l2_entry_size();
    let words = usize::try_from(header.l2_entry_size() / 8).unwrap_or(1);
    let start = if data_file { 0 } else { plan.data_start() };
    for table in 0..plan.l2 {
        let first = table * per_table;
        let end = plan.mapped.min(first + per_table);
        // An extended entry has a bitmap after it. As with QEMU, no subcluster is allocated.
        let mut entries: Vec<u64> = (first..end)
            .flat_map(|index| {
                [(((start + index) * cluster) | COPIED).to_be(), 0].into_iter().take(words)
            })
            .collect();
        write(storage, entries.as_mut_bytes(), (plan.l2_start() + table) * cluster).await?;
    }
    Ok(())
}

async fn write<S: Storage>(storage: &S, bytes: &mut [u8], offset: u64) -> Result<()> {
    if !bytes.is_empty() {
        storage.write(&Sgl::from_slice(bytes), offset).await?;
    }
    Ok(())
}
