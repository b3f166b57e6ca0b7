// SPDX-License-Identifier: Apache-2.0
//! The engine alone.
use std::convert::Infallible;

use io_engine::sim::World;
use qcow2::{ErrorKind, Image, Options, Parts};
use sgl::Sgl;

use super::disk::Disk;
use super::{Fault, Machine, Result, Target, text};
use crate::crash::image::Below;
use crate::crash::planted::Planted;
use crate::crash::workload::{Record, Saving};

/// The name of the image's file.
pub(crate) const IMAGE: &str = "image";
/// That of its external data file.
pub(crate) const DATA: &str = "data";
/// That of what is below it.
pub(crate) const BACKING: &str = "backing";
/// That of what is below that.
pub(crate) const BASE: &str = "base";

/// An open image.
pub struct Engine(Image<Disk>);

impl From<qcow2::Error> for Fault {
    fn from(e: qcow2::Error) -> Self {
        match e.kind {
            ErrorKind::Unsupported(_) => Fault::Refused(text(&e)),
            _ => Fault::Failed(text(&e)),
        }
    }
}

/// Opens what is below the image of the world.
async fn open_below(world: &World, below: Below) -> std::result::Result<Option<Disk>, String> {
    let file = |name| world.open(name).map_err(|e| format!("{name}: {e}"));
    let file = |name| file(name).map(|file| Disk::new(file, None, false));
    match below {
        Below::Nothing => Ok(None),
        Below::Raw | Below::Base => Ok(Some(file(BACKING)?)),
        Below::Image => {
            let (storage, backing) = (file(BACKING)?, Some(file(BASE)?));
            let parts = Parts { storage, data_file: None, backing };
            let options = Options { read_only: true, ..Options::default() };
            let image = Image::open(parts, &options).await;
            let image = image.map_err(|e| format!("{BACKING}: {}", text(&e)))?;
            Ok(Some(Disk::image(image)))
        }
    }
}

/// Opens the image of the world, or a snapshot in it.
pub(crate) async fn open_image(
    world: &World,
    record: &Record,
    read_only: bool,
    snapshot: Option<String>,
) -> std::result::Result<Image<Disk>, String> {
    let file = |name, bug, is_data| match world.open(name) {
        Ok(file) => Ok(Disk::new(file, bug, is_data)),
        Err(e) => Err(format!("{name}: {e}")),
    };
    let bug = record.bug.and_then(Planted::of_storage);
    let parts = Parts {
        storage: file(IMAGE, bug, false)?,
        data_file: record.format.data_file.then(|| file(DATA, bug, true)).transpose()?,
        backing: open_below(world, record.format.below).await?,
    };
    let cache_bytes = (record.cache > 0).then_some(record.cache);
    let planted = record.bug.and_then(Planted::of_engine);
    let options = Options {
        read_only,
        cache_bytes,
        discard: record.discard,
        compress: record.compress,
        snapshot,
        planted,
        ..Options::default()
    };
    Image::open(parts, &options).await.map_err(|e| format!("opening: {}", text(&e)))
}

impl Target for Engine {
    async fn open(
        world: &World,
        record: &Record,
        _: &Machine,
    ) -> std::result::Result<Self, String> {
        Ok(Engine(open_image(world, record, false, None).await?))
    }

    fn size(&self) -> u64 {
        self.0.size()
    }

    async fn read(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        let data = Sgl::zeroed(bytes.len());
        self.0.read(&data, offset).await?;
        data.read_at(0, bytes);
        Ok(())
    }

    async fn write(&self, bytes: &mut [u8], offset: u64, durable: bool) -> Result<()> {
        // Memory of both kinds: such as can be shared with the kernel, and such as has to be copied.
        if (offset >> 9).is_multiple_of(2) {
            let data = Sgl::zeroed(bytes.len());
            data.write_at(0, bytes);
            self.0.write(&data, offset).await?;
        } else {
            self.0.write(&Sgl::from_slice(bytes), offset).await?;
        }
        if durable {
            self.0.flush().await?;
        }
        Ok(())
    }

    async fn repeat(&self, block: &[u8], offset: u64, len: u64) -> Result<()> {
        let count = usize::try_from(len).unwrap_or(0) / block.len();
        self.write(&mut block.repeat(count), offset, false).await
    }

    async fn compare_and_write(&self, _: &[u8], _: u64) -> Result<()> {
        Err(Fault::Failed("the engine does not compare".into()))
    }

    async fn flush(&self) -> Result<()> {
        Ok(self.0.flush().await?)
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<bool> {
        self.0.discard(offset, len).await?;
        Ok(false)
    }

    async fn zero(&self, offset: u64, len: u64, unmap: bool) -> Result<()> {
        Ok(self.0.write_zeroes(offset, len, unmap).await?)
    }

    async fn map(&self, offset: u64) -> Result<()> {
        self.0.map(offset, self.0.size() - offset).await?;
        Ok(())
    }

    async fn resize(&self, size: u64) -> Result<()> {
        Ok(self.0.resize(size).await?)
    }

    async fn snapshot(&self, what: Saving, name: &str) -> Result<()> {
        match what {
            Saving::Create => {
                let date = std::time::Duration::from_secs(1);
                self.0.create_snapshot(name, date).await.map(drop)?;
            }
            Saving::Apply => self.0.apply_snapshot(name).await?,
            Saving::Delete => self.0.delete_snapshot(name).await?,
        }
        Ok(())
    }

    async fn keep_house(&self) -> Infallible {
        self.0.keep_house().await
    }

    async fn close(&self) -> Result<()> {
        Ok(self.0.close().await?)
    }
}
