// SPDX-License-Identifier: Apache-2.0
//! An image of any of the formats that are only read.
use std::io;

use sgl::Sgl;

use crate::format::compressed::{self, Compressed, Gz, Xz, Zst};
use crate::format::probe::probe;
use crate::format::reader::{self, Layout as _, Source};
use crate::format::vdi::Vdi;
use crate::format::vhdx::Vhdx;
use crate::format::vmdk::{self, Vmdk};
use crate::format::vpc::Vpc;
use crate::{ErrorKind, Provisioning};

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Vmdk,
    Vhdx,
    Vpc,
    Vdi,
    Xz,
    Zst,
    Gz,
}

impl Kind {
    /// What an image of it is, in words.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Kind::Vmdk => "a VMDK image",
            Kind::Vhdx => "a VHDX image",
            Kind::Vpc => "a VHD image",
            Kind::Vdi => "a VDI image",
            Kind::Xz => "an .xz file",
            Kind::Zst => "a zstd file",
            Kind::Gz => "a gzip file",
        }
    }

    /// What helps where an image of it is damaged.
    fn remedy(self) -> &'static str {
        match self {
            Kind::Vmdk => {
                "`vmware-vdiskmanager -R` may repair it; if not, use another copy of the image"
            }
            Kind::Vhdx | Kind::Vpc | Kind::Vdi => {
                "nothing repairs that: use another copy of the image"
            }
            Kind::Xz => "fetch it again; `xz -t` tells whether it is whole",
            Kind::Zst => "fetch it again; `zstd -t` tells whether it is whole",
            Kind::Gz => "fetch it again; `gzip -t` tells whether it is whole",
        }
    }

    /// What is said of an image of it: where it is damaged, with what helps.
    pub(crate) fn error(self, error: ErrorKind) -> ErrorKind {
        use io::ErrorKind::{InvalidData, UnexpectedEof, Unsupported};
        let (what, remedy) = (self.what(), self.remedy());
        match error {
            ErrorKind::Invalid(text) => ErrorKind::Invalid(format!("{text}; {remedy}")),
            // What it says makes an image that can be served.
            ErrorKind::Unsupported(text) => ErrorKind::Invalid(text),
            ErrorKind::Io(e) if e.raw_os_error().is_none() => ErrorKind::Io(match e.kind() {
                InvalidData | UnexpectedEof => {
                    io::Error::new(e.kind(), format!("in {what}: {e}; {remedy}"))
                }
                Unsupported => io::Error::new(InvalidData, format!("in {what}: {e}")),
                _ => e,
            }),
            other => other,
        }
    }

    /// Whether an image may begin, or end, like this.
    pub(crate) fn begins_with(self, bytes: &[u8]) -> bool {
        let known = probe(bytes);
        match self {
            Kind::Vmdk => known == "vmdk",
            Kind::Vhdx => known == "vhdx",
            Kind::Vpc => known == "vpc",
            Kind::Vdi => known == "vdi",
            Kind::Xz => known == "xz",
            // The frame may come after others that are skipped.
            Kind::Zst => compressed::begins_zst(bytes),
            Kind::Gz => known == "gz",
        }
    }
}

/// An open image.
#[derive(Debug)]
pub(crate) enum Image<S> {
    Vmdk(Vmdk<S>),
    Vhdx(Vhdx<S>),
    Vpc(Vpc<S>),
    Vdi(Vdi<S>),
    Xz(Compressed<S, Xz>),
    Zst(Compressed<S, Zst>),
    Gz(Compressed<S, Gz>),
}

/// Evaluates one expression for images with tables, and another one for compressed files.
macro_rules! each {
    ($image:expr, $it:ident => $tables:expr, $compressed:expr) => {
        match $image {
            Image::Vmdk($it) => $tables,
            Image::Vhdx($it) => $tables,
            Image::Vpc($it) => $tables,
            Image::Vdi($it) => $tables,
            Image::Xz($it) => $compressed,
            Image::Zst($it) => $compressed,
            Image::Gz($it) => $compressed,
        }
    };
}

impl<S: Source> Image<S> {
    /// Opens the image in `source`; `opener` opens the other files that it names.
    pub(crate) async fn open(
        kind: Kind,
        source: S,
        opener: &mut impl vmdk::Opener<Source = S>,
    ) -> Result<Self, ErrorKind> {
        Ok(match kind {
            Kind::Vmdk => Image::Vmdk(Vmdk::open(source, opener).await?),
            Kind::Vhdx => Image::Vhdx(Vhdx::open(source).await?),
            Kind::Vpc => Image::Vpc(Vpc::open(source).await?),
            Kind::Vdi => Image::Vdi(Vdi::open(source).await?),
            Kind::Xz => Image::Xz(compressed::open_xz(source).await?),
            Kind::Zst => Image::Zst(compressed::open_zst(source).await?),
            Kind::Gz => Image::Gz(compressed::open_gz(source).await?),
        })
    }

    /// Of the disk, in bytes.
    pub(crate) fn size(&self) -> u64 {
        each!(self, image => image.size(), image.size())
    }

    /// Best alignment and length of an I/O, in bytes.
    pub(crate) fn optimal_io(&self) -> u32 {
        let best = each!(self, image => image.block_size(), image.optimal_io());
        u32::try_from(best).unwrap_or(u32::MAX).clamp(512, 1 << 20).next_power_of_two()
    }

    /// Fills all of `data`; what lies past the end of the disk is zero.
    pub(crate) async fn read(&self, data: &Sgl<'_>, offset: u64) -> io::Result<()> {
        each!(self, image => reader::read(image, data, offset).await, image.read(data, offset).await)
    }

    /// Whether there is data at `offset`, and for how many bytes (at least 1, at most `len`) that
    /// holds.
    pub(crate) async fn map(&self, offset: u64, len: u64) -> io::Result<(Provisioning, u64)> {
        // What is compressed does not say where zeroes are.
        each!(
            self,
            image => reader::map(image, offset, len).await,
            Ok((
                if offset < image.size() { Provisioning::Mapped } else { Provisioning::Deallocated },
                image.size().checked_sub(offset).filter(|n| *n > 0).unwrap_or(len).min(len).max(1),
            ))
        )
    }
}
