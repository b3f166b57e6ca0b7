// SPDX-License-Identifier: Apache-2.0
//! Loading the bitmaps of an image that is to be written. In: the directory and tables, which may
//! be hostile. Out: [`Bitmaps`] in a bounded number of bytes.
use std::cell::{Cell, RefCell};

use sgl::Sgl;
use zerocopy::IntoBytes;

use super::dirty::Dirty;
use super::{Bitmaps, Kept, MAX_BYTES, Valid};
use crate::core::Core;
use crate::error::Result;
use crate::geometry::Geometry;
use crate::layout::bitmaps::{ALL_ONES, Bitmap, Directory};
use crate::layout::entry::OFFSET_MASK;
use crate::layout::header::Header;
use crate::storage::Storage;

/// The bitmaps that count. `None` where there are none, or they cannot be used; then they do not
/// count any more once the image is written to.
pub(crate) async fn load<S: Storage + 'static>(
    storage: &S,
    geo: &Geometry,
    header: &Header,
) -> Result<Option<Bitmaps>> {
    let (directory, found) = match list(storage, header).await? {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(None),
        Err(why) => {
            tracing::warn!("its bitmaps are lost once it is written to: {why}");
            return Ok(None);
        }
    };
    let words = usize::try_from(directory.len / 8).unwrap_or(0);
    let table = Core::load_table(storage, geo, directory.offset, words).await?;
    let mut bitmaps = Bitmaps { directory: table, kept: Vec::new(), valid: Vec::new() };
    let mut room = MAX_BYTES - 2 * directory.len;
    for bitmap in found.into_iter().filter(Bitmap::is_valid) {
        let place = usize::try_from(bitmap.place / 8).unwrap_or(usize::MAX);
        bitmaps.valid.push(Valid { place, tracks: bitmap.tracks() });
        match keep(storage, geo, header, &bitmap, &mut room).await? {
            Ok(kept) => bitmaps.kept.push(kept),
            Err(why) if bitmap.tracks() => tracing::warn!(
                "its bitmap {:?} is marked as in use, and does not count any more, once it is \
                 written to: {why}",
                bitmap.name
            ),
            Err(why) => tracing::debug!("its bitmap {:?} stays as it is: {why}", bitmap.name),
        }
    }
    Ok(Some(bitmaps))
}

/// A directory and what it lists, if there is one, or why it cannot be used.
type Listed = std::result::Result<Option<(Directory, Vec<Bitmap>)>, String>;

/// Reads the directory.
async fn list<S: Storage>(storage: &S, header: &Header) -> Result<Listed> {
    let directory = match Directory::of(header) {
        Ok(Some(directory)) => directory,
        Ok(None) => return Ok(Ok(None)),
        Err(why) => return Ok(Err(why)),
    };
    if directory.len > MAX_BYTES / 4 || !is_inside(storage, directory.offset, directory.len).await?
    {
        return Ok(Err(format!(
            "their directory of {} bytes at {:#x} is too long, or past the end of the file",
            directory.len, directory.offset
        )));
    }
    let mut bytes = vec![0; usize::try_from(directory.len).unwrap_or(0)];
    storage.read(&Sgl::from_slice(&mut bytes), directory.offset).await?;
    Ok(directory.bitmaps(&bytes, header).map(|bitmaps| Some((directory, bitmaps))))
}

/// Whether a range is inside of the file.
async fn is_inside<S: Storage>(storage: &S, offset: u64, len: u64) -> Result<bool> {
    let end = storage.length().await?;
    Ok(offset.checked_add(len).is_some_and(|range| range <= end))
}

/// Loads one bitmap, or says why it cannot be kept. `room` is how many bytes may be taken.
async fn keep<S: Storage>(
    storage: &S,
    geo: &Geometry,
    header: &Header,
    bitmap: &Bitmap,
    room: &mut u64,
) -> Result<std::result::Result<Kept, String>> {
    if !bitmap.is_known() {
        return Ok(Err("it has a type, flags, granularity or data that are not known".into()));
    }
    let granularity = u32::from(bitmap.granularity_bits);
    let mut dirty = Dirty::new(granularity, geo.cluster_bits);
    let parts = dirty.parts_for(header.size);
    if u64::from(bitmap.table_entries) != parts {
        let entries = bitmap.table_entries;
        return Ok(Err(format!("its table has {entries} entries, and should have {parts}")));
    }
    if !is_inside(storage, bitmap.table, bitmap.table_bytes()).await? {
        return Ok(Err(format!("its table at {:#x} is past the end of the file", bitmap.table)));
    }
    let bytes = dirty.bytes_for(header.size);
    if bytes > *room {
        return Ok(Err(format!(
            "it takes {bytes} bytes of memory, and all bitmaps of an image may take {MAX_BYTES}"
        )));
    }
    *room -= bytes;
    let mut entries = vec![0u64; usize::try_from(parts).unwrap_or(0)];
    if !entries.is_empty() {
        storage.read(&Sgl::from_slice(entries.as_mut_bytes()), bitmap.table).await?;
    }
    let end = storage.length().await?;
    dirty.resize(header.size);
    let size = usize::try_from(geo.cluster_size()).unwrap_or(0);
    for (number, entry) in entries.iter_mut().enumerate() {
        *entry = u64::from_be(*entry);
        let at = *entry & OFFSET_MASK;
        let bytes = if at == 0 && *entry == ALL_ONES {
            vec![0xff; size]
        } else if at == *entry && at & (geo.cluster_size() - 1) == 0 && at < end {
            if at == 0 {
                continue;
            }
            let mut bytes = vec![0; size];
            storage.read(&Sgl::from_slice(&mut bytes), at).await?;
            bytes
        } else {
            return Ok(Err(format!("the entry {number} of its table, {entry:#x}, is wrong")));
        };
        if bytes.iter().any(|byte| *byte != 0) {
            dirty.load(number, bytes.into());
        }
    }
    Ok(Ok(Kept {
        name: bitmap.name.clone(),
        place: usize::try_from(bitmap.place / 8).unwrap_or(usize::MAX),
        tracks: bitmap.tracks(),
        dirty: RefCell::new(dirty),
        table: Cell::new(bitmap.table),
        entries: RefCell::new(entries),
        unwritten: Cell::new(false),
        lost: Cell::new(false),
    }))
}
