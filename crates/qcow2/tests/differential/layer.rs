// SPDX-License-Identifier: Apache-2.0
//! What an image of these tests lies on: a file, or as backing store another image.
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;

use io_engine::File;
use qcow2::{Error, Extent, Image, Mapping, Options, Parts, Storage};
use sgl::Sgl;

pub(crate) enum Layer {
    File(File),
    Image(Image<Layer>),
}

impl Layer {
    pub(crate) fn file(path: &Path, read_only: bool) -> Self {
        let file = std::fs::OpenOptions::new().read(true).write(!read_only).open(path);
        Layer::File(File::new(OwnedFd::from(file.unwrap())))
    }

    /// A qcow2 image that lies on nothing else, to be read.
    pub(crate) async fn image(path: &Path) -> Self {
        let parts = Parts { storage: Layer::file(path, true), data_file: None, backing: None };
        let options = Options { read_only: true, ..Options::default() };
        Layer::Image(Image::open(parts, &options).await.unwrap())
    }
}

/// A call of an image, which ends the recursion of images on images.
type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + 'a>>;

fn to_io(error: Error) -> io::Error {
    io::Error::other(error.to_string())
}

impl Storage for Layer {
    async fn length(&self) -> io::Result<u64> {
        match self {
            Layer::File(file) => file.length().await,
            Layer::Image(image) => Ok(image.size()),
        }
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        match self {
            Layer::File(file) => file.read(data, offset).await,
            Layer::Image(image) => {
                let call: Call<'_, ()> = Box::pin(image.read(data, offset));
                call.await.map_err(to_io)
            }
        }
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        match self {
            Layer::File(file) => file.write(data, offset).await,
            Layer::Image(_) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        }
    }

    async fn zero(&self, offset: u64, len: u64, punch: bool) -> io::Result<()> {
        match self {
            Layer::File(file) => file.zero(offset, len, punch).await,
            Layer::Image(_) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        }
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        match self {
            Layer::File(file) => Storage::set_len(file, len).await,
            Layer::Image(_) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        }
    }

    async fn sync(&self) -> io::Result<()> {
        match self {
            Layer::File(file) => Storage::sync(file).await,
            Layer::Image(_) => Ok(()),
        }
    }

    async fn map(&self, offset: u64, len: u64) -> io::Result<(Extent, u64)> {
        match self {
            Layer::File(file) => file.map(offset, len).await,
            Layer::Image(image) => {
                let call: Call<'_, (Mapping, u64)> = Box::pin(image.map(offset, len));
                let (mapping, len) = call.await.map_err(to_io)?;
                let data = matches!(mapping, Mapping::Data { .. } | Mapping::Compressed);
                Ok((if data { Extent::Data } else { Extent::Zero }, len))
            }
        }
    }
}
