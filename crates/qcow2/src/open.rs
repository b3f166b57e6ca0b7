// SPDX-License-Identifier: Apache-2.0
//! Opening. In: the storages, and an image all of whose bytes may be hostile. Out: a [`Core`], or
//! which field of which structure is wrong.
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::core::{Core, read_slice};
use crate::error::Result;
use crate::geometry::Geometry;
use crate::image::{Options, Parts};
use crate::layout::header::{self, Header};
use crate::slice::Cache;
use crate::storage::Storage;
use crate::sync::Syncs;
use crate::{ErrorKind, bitmaps, clean, crypt, scan, snapshots};

/// The most that caches take unless told otherwise, in bytes.
const MAX_CACHE: u64 = 32 << 20;
/// The least.
const MIN_CACHE: u64 = 64 << 10;

/// Opens an image; `header` is its.
pub(crate) async fn open<S: Storage + 'static>(
    parts: Parts<S>,
    header: Header,
    options: &Options,
) -> Result<Rc<Core<S>>> {
    let Parts { storage, data_file, backing } = parts;
    let header = match &options.snapshot {
        Some(wanted) => snapshots::select(&storage, &header, wanted, options.read_only).await?,
        None => header,
    };
    header.check_tables(storage.length().await?)?;
    check_features(&header, options)?;
    if header.needs(header::incompatible::DATA_FILE) != data_file.is_some() {
        return Err(ErrorKind::invalid(if data_file.is_some() {
            "it has no external data file, and one was given"
        } else {
            "its data is in an external data file, and none was given"
        }));
    }
    if header.backing.is_none() && backing.is_some() {
        return Err(ErrorKind::invalid("it has no backing file, and one was given"));
    }
    let secret = options.secret.as_ref();
    let encryption = crypt::open(&storage, &header, secret, options.read_only).await?;
    let dirty = header.needs(header::incompatible::DIRTY);
    let stale = !options.read_only && bitmaps::are_stale(&header);
    let open =
        !options.read_only && (dirty || stale || !clean::is_closed(&storage, &header).await?);
    let (header, sound) = if open {
        if let Some(file) = data_file.as_ref().filter(|_| !options.scratch) {
            file.sync().await?;
        }
        let sound = scan::scan(&storage, header, dirty, options.scratch).await?;
        // A repair may have changed it.
        (Header::read(&storage).await.map_err(|e| e.kind)?, sound)
    } else {
        (header, true)
    };
    let len = storage.length().await?;
    let geo = Geometry::of(&header);
    let head = Rc::new(read_slice(&storage, 0, geo.slice_size()).await?);
    let entries = usize::try_from(header.l1_entries).unwrap_or(usize::MAX);
    let l1 = Core::load_table(&storage, &geo, header.l1_offset, entries).await?;
    let bytes = u64::from(header.reftable_clusters) << header.cluster_bits;
    let entries = usize::try_from(bytes / 8).unwrap_or(usize::MAX);
    let reftable = Core::load_table(&storage, &geo, header.reftable_offset, entries).await?;
    let backing_len = match &backing {
        Some(backing) => backing.length().await?,
        None => 0,
    };
    let bitmaps = match options.read_only {
        true => None,
        false => bitmaps::load::load(&storage, &geo, &header).await?,
    };
    let slice_size = usize::try_from(geo.slice_size()).unwrap_or(4096);
    let core = Rc::new_cyclic(|me| Core {
        me: me.clone(),
        storage,
        data_file,
        backing,
        backing_len,
        geo,
        encryption,
        read_only: options.read_only,
        punch: options.discard,
        compress: options.compress,
        size: Cell::new(header.size),
        opened_len: len,
        end: Cell::new(len.div_ceil(geo.cluster_size())),
        head,
        l1: RefCell::new(l1),
        reftable: RefCell::new(reftable),
        metadata: RefCell::default(),
        cache: Cache::new(cache_limit(&header, options), slice_size),
        dirty: RefCell::default(),
        inflated: Default::default(),
        syncs: Syncs::new(options.scratch),
        gate: Default::default(),
        busy: Default::default(),
        busy_tables: Default::default(),
        reserve: Default::default(),
        pack: Default::default(),
        freed: Default::default(),
        jobs: Default::default(),
        writable: Cell::new(false),
        in_use: Cell::new(false),
        sound: Cell::new(sound),
        data_zeroed: Cell::new(0),
        #[cfg(feature = "planted")]
        planted: options.planted,
        broken: RefCell::default(),
        bitmaps,
        header,
    });
    if stale {
        core.forget_stale_bitmaps();
        core.flush().await?;
    }
    Ok(core)
}

fn check_features(header: &Header, options: &Options) -> Result<()> {
    if options.read_only {
        return Ok(());
    }
    header.check_writable()?;
    let data_file = header.needs(header::incompatible::DATA_FILE);
    if options.compress && (data_file || header.crypt != header::Crypt::None) {
        return Err(ErrorKind::Unsupported(format!(
            "{}, where nothing can be compressed; open it without compress=on",
            if data_file { "its data is in an external data file" } else { "it is encrypted" }
        )));
    }
    Ok(())
}

/// The bytes that the caches may take.
fn cache_limit(header: &Header, options: &Options) -> usize {
    let limit = options.cache_bytes.unwrap_or_else(|| {
        // All L2 tables, and as much again for what it takes to keep small slices and for refcounts.
        let clusters = header.size.div_ceil(header.cluster_size());
        let needed = clusters.saturating_mul(header.l2_entry_size()).saturating_mul(2);
        needed.clamp(MIN_CACHE, MAX_CACHE)
    });
    usize::try_from(limit).unwrap_or(usize::MAX)
}
