// SPDX-License-Identifier: Apache-2.0
//! What a read-only format lies on: bytes that are there as a whole and do not change.
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use qcow2::Storage as _;
use sgl::Sgl;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::{Lower, OpenWatch};

/// Bytes at offsets.
#[allow(async_fn_in_trait, reason = "all of it runs on one thread")]
pub(crate) trait Source {
    /// In bytes.
    fn len(&self) -> u64;

    /// Fills all of `data` from `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when some of it lies past the end.
    async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()>;
}

/// Reads `len` bytes at `offset`. Whoever calls it has bounded `len`.
pub(crate) async fn read_vec<S: Source>(
    source: &S,
    offset: u64,
    len: usize,
) -> io::Result<Vec<u8>> {
    // Not before it is known that they are there.
    if offset.checked_add(len as u64).is_none_or(|end| end > source.len()) {
        return Err(cut_off("it", len as u64, offset, source.len()));
    }
    let mut bytes = vec![0; len];
    source.read(&Sgl::from_slice(&mut bytes), offset).await?;
    Ok(bytes)
}

/// Reads a structure at `offset`.
pub(crate) async fn read_struct<T, S>(source: &S, offset: u64) -> io::Result<T>
where
    T: FromBytes + KnownLayout + Immutable,
    S: Source,
{
    let bytes = read_vec(source, offset, size_of::<T>()).await?;
    T::read_from_bytes(&bytes).map_err(|_| io::Error::other("a structure of the wrong size"))
}

/// The error of what lies past the end of `what`.
fn cut_off(what: &str, len: u64, offset: u64, end: u64) -> io::Error {
    let text = format!(
        "{len} bytes at {offset} are not there: {what} ends at {end}, where it was cut off, or it is \
         damaged"
    );
    io::Error::new(io::ErrorKind::UnexpectedEof, text)
}

/// As [`unserved`](super::unserved), of what is found while an image is read.
pub(crate) fn unserved_io(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, text.into())
}

/// The error of a damaged image, found while it is read.
pub(crate) fn damaged(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// A file or block device, or another store.
#[derive(Debug)]
pub(crate) struct FileSource {
    pub(crate) lower: Lower,
    /// In bytes.
    pub(crate) len: u64,
    /// For messages.
    pub(crate) path: PathBuf,
    /// Hears of each read.
    pub(crate) watch: Arc<OpenWatch>,
}

impl Source for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        let len = data.len() as u64;
        if offset.checked_add(len).is_some_and(|end| end <= self.len) {
            self.watch.step()?;
            return self.lower.read(data, offset).await;
        }
        Err(cut_off(&self.path.display().to_string(), len, offset, self.len))
    }
}

/// Bytes in memory.
#[derive(Debug)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl Source for Bytes<'_> {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        let bytes = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..));
        match bytes.and_then(|bytes| bytes.get(..data.len())) {
            Some(bytes) => {
                data.write_at(0, bytes);
                Ok(())
            }
            None => Err(cut_off("it", data.len() as u64, offset, self.len())),
        }
    }
}
