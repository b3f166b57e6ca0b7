// SPDX-License-Identifier: Apache-2.0
//! What is tried: anything that holds blocks, as an open image does.
use std::cell::RefCell;
use std::rc::Rc;

use qcow2::{ErrorKind, Image, Mapping, Storage};
use sgl::Sgl;

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The target does not have this operation, or not with these numbers: nothing was changed.
    Unsupported,
    /// Anything else. What it was to change has its old or its new content.
    Failed(String),
}

/// The result of an operation.
pub type Outcome<T = ()> = Result<T, Failure>;

/// What the discard of whole granules does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// They read as zeroes.
    Zeroes,
    /// Each sector of them reads as zeroes or stays as it is.
    MayZero,
}

/// What a target promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What is discarded by itself, in bytes: the parts of a range that do not fill one stay.
    pub granule: u64,
    /// What a discard does.
    pub discard: Discard,
    /// Whether a shrink that does not finish may show the initial content of what it was removing.
    pub shrink_uncovers: bool,
    /// Whether writes and zeroes need not be whole sectors of 512 bytes.
    pub unaligned: bool,
    /// Whether its size changes.
    pub resizes: bool,
    /// Whether it has snapshots.
    pub snapshots: bool,
}

/// Something that holds blocks. Any number of operations run side by side, and their futures may
/// be dropped at any time, except for those of `reopen` and of the snapshots, which run alone.
#[allow(async_fn_in_trait, reason = "all of it runs on one thread")]
pub trait Target {
    /// What it promises.
    fn facts(&self) -> Facts;

    /// Its size in bytes, now.
    fn size(&self) -> u64;

    /// Fills `data` from `offset`.
    async fn read(&self, data: &Sgl<'_>, offset: u64) -> Outcome;

    /// Writes all of `data` at `offset`; with `through` it is on stable storage afterwards.
    async fn write(&self, data: &Sgl<'_>, offset: u64, through: bool) -> Outcome;

    /// Brings all that was acknowledged before to stable storage.
    async fn flush(&self) -> Outcome;

    /// See [`Facts::discard`].
    async fn discard(&self, offset: u64, len: u64) -> Outcome;

    /// Makes a range read as zeroes; with `unmap` its space may be given up.
    async fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Outcome;

    /// Whether it is known to read as zeroes at `offset`, and for how many of the next `len` bytes,
    /// at least one, the answer holds.
    async fn map(&self, offset: u64, len: u64) -> Outcome<(bool, u64)>;

    /// Changes the size; what is new reads as zeroes. One that was dropped goes on until the next
    /// operation ends, or never began.
    async fn resize(&self, size: u64) -> Outcome;

    /// Closes it in good order, which is a flush, too, and opens it again.
    async fn reopen(&self) -> Outcome;

    /// Keeps the present content under a name. Stable when it returns, as the others are.
    async fn create_snapshot(&self, _name: &str) -> Outcome {
        Err(Failure::Unsupported)
    }

    /// Makes the content that was kept the present one.
    async fn apply_snapshot(&self, _name: &str) -> Outcome {
        Err(Failure::Unsupported)
    }

    /// Gives up what was kept.
    async fn delete_snapshot(&self, _name: &str) -> Outcome {
        Err(Failure::Unsupported)
    }
}

/// A qcow2 image, with what opens it again.
pub struct ImageTarget<S: Storage + 'static, F> {
    image: RefCell<Rc<Image<S>>>,
    open: F,
}

impl<S: Storage + 'static, F: AsyncFn() -> Result<Image<S>, qcow2::Error>> ImageTarget<S, F> {
    /// Opens it.
    ///
    /// # Errors
    /// Those of `open`.
    pub async fn new(open: F) -> Result<Self, qcow2::Error> {
        let image = RefCell::new(Rc::new(open().await?));
        Ok(ImageTarget { image, open })
    }

    /// The image that is open.
    pub fn image(&self) -> Rc<Image<S>> {
        self.image.borrow().clone()
    }
}

fn failure(error: qcow2::Error) -> Failure {
    match &error.kind {
        ErrorKind::Unsupported(_) => Failure::Unsupported,
        _ => Failure::Failed(error.to_string()),
    }
}

impl<S: Storage + 'static, F: AsyncFn() -> Result<Image<S>, qcow2::Error>> Target
    for ImageTarget<S, F>
{
    fn facts(&self) -> Facts {
        let image = self.image.borrow();
        let header = image.header();
        let covered = header.version == 2 && header.backing.is_some();
        Facts {
            granule: image.granule_size(),
            discard: if covered { Discard::MayZero } else { Discard::Zeroes },
            shrink_uncovers: covered,
            unaligned: true,
            resizes: header.snapshots == 0,
            snapshots: false,
        }
    }

    fn size(&self) -> u64 {
        self.image.borrow().size()
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> Outcome {
        self.image().read(data, offset).await.map_err(failure)
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64, through: bool) -> Outcome {
        let image = self.image();
        image.write(data, offset).await.map_err(failure)?;
        if through {
            image.flush().await.map_err(|e| Failure::Failed(e.to_string()))?;
        }
        Ok(())
    }

    async fn flush(&self) -> Outcome {
        self.image().flush().await.map_err(failure)
    }

    async fn discard(&self, offset: u64, len: u64) -> Outcome {
        self.image().discard(offset, len).await.map_err(failure)
    }

    async fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Outcome {
        self.image().write_zeroes(offset, len, unmap).await.map_err(failure)
    }

    async fn map(&self, offset: u64, len: u64) -> Outcome<(bool, u64)> {
        let (mapping, len) = self.image().map(offset, len).await.map_err(failure)?;
        Ok((matches!(mapping, Mapping::Zero { .. }), len))
    }

    async fn resize(&self, size: u64) -> Outcome {
        self.image().resize(size).await.map_err(failure)
    }

    async fn reopen(&self) -> Outcome {
        self.image().close().await.map_err(failure)?;
        let image = (self.open)().await.map_err(failure)?;
        self.image.replace(Rc::new(image));
        Ok(())
    }
}
