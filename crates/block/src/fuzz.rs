// SPDX-License-Identifier: Apache-2.0
//! Hostile images: what the fuzzers in `fuzz/` feed, and shorter, the crate's own tests. An image in
//! memory is opened and read here and there; it may be refused, and nothing else may happen.
use std::ffi::OsStr;
use std::future::Future;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use io_engine::{Backend, Engine};
use rustix::fs::{MemfdFlags, memfd_create};
use sgl::Sgl;

use crate::format::read_only::{Image, Kind};
use crate::format::reader::Bytes;
use crate::format::vmdk::Opener;
use crate::{AnyStore, ErrorKind, Locking, OpenOptions, Store, open};

/// Every file that a descriptor names has the same content.
struct Same<'a>(&'a [u8]);

impl<'a> Opener for Same<'a> {
    type Source = Bytes<'a>;

    async fn open(&mut self, _: &OsStr) -> Result<Bytes<'a>, ErrorKind> {
        Ok(Bytes(self.0))
    }
}

/// The result of a future that waits for nothing.
fn now<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn open_and_read(kind: Kind, file: &[u8], extent: &[u8]) {
    let opened = now(Image::open(kind, Bytes(file), &mut Same(extent)));
    let Some(Ok(image)) = opened else { return };
    let size = image.size();
    let mut buffer = vec![0; 70 << 10];
    for offset in [0, size / 2, size.saturating_sub(4096), 0, 1 << 16, size.saturating_sub(1 << 20)]
    {
        let _ = now(image.read(&Sgl::from_slice(&mut buffer), offset));
        let _ = now(image.map(offset, 1 << 30));
    }
    let _ = image.optimal_io();
}

/// A VMDK: a sparse extent, or a descriptor whose files follow after a NUL byte.
pub fn vmdk(bytes: &[u8]) {
    open_and_read(Kind::Vmdk, bytes, bytes);
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        let (descriptor, extent) = bytes.split_at(end);
        open_and_read(Kind::Vmdk, descriptor, extent.get(1..).unwrap_or_default());
    }
}

/// A VHDX.
pub fn vhdx(bytes: &[u8]) {
    open_and_read(Kind::Vhdx, bytes, bytes);
}

/// A VHDX in pages: before each 4 KiB there is the number of the page, in 2 bytes, little-endian.
/// What is not there is zeroes. A VHDX of any use has some MiB.
pub fn vhdx_pages(bytes: &[u8]) {
    const PAGE: usize = 4096;
    let mut image = vec![0; 6 << 20];
    for record in bytes.chunks(2 + PAGE) {
        let Some((number, page)) = record.split_first_chunk() else { continue };
        let at = usize::from(u16::from_le_bytes(*number)) * PAGE % image.len();
        if let Some(place) = image.get_mut(at..at + page.len()) {
            place.copy_from_slice(page);
        }
    }
    vhdx(&image);
}

/// A VHD.
pub fn vpc(bytes: &[u8]) {
    open_and_read(Kind::Vpc, bytes, bytes);
}

/// A VDI.
pub fn vdi(bytes: &[u8]) {
    open_and_read(Kind::Vdi, bytes, bytes);
}

/// An .xz file.
pub fn xz(bytes: &[u8]) {
    open_and_read(Kind::Xz, bytes, bytes);
}

/// A zstd file.
pub fn zst(bytes: &[u8]) {
    open_and_read(Kind::Zst, bytes, bytes);
}

/// A gzip file.
pub fn gz(bytes: &[u8]) {
    open_and_read(Kind::Gz, bytes, bytes);
}

/// A qcow2 image, or one of version 1, in a file. It may name other files; none may be opened.
pub fn qcow(bytes: &[u8]) {
    let Ok(file) = memfd_create("image", MemfdFlags::CLOEXEC).map(std::fs::File::from) else {
        return;
    };
    let Ok(engine) = Engine::new(Backend::Pool) else { return };
    if file.write_all_at(bytes, 0).is_err() {
        return;
    }
    let config = format!("qcow//proc/self/fd/{}", file.as_raw_fd());
    let options = OpenOptions {
        read_only: true,
        allowed_backing_dirs: Some(Vec::new()),
        locking: Locking::None,
        ..OpenOptions::default()
    };
    let _ = engine.block_on(async {
        if let Ok(store) = open(&config, &options).await {
            read_store(&store).await;
        }
    });
}

async fn read_store(store: &AnyStore) {
    let size = store.facts().size;
    let mut buffer = vec![0; 70 << 10];
    for offset in [0, size / 2, size.saturating_sub(4096), 1 << 16, size.saturating_sub(1 << 20)] {
        let len = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let data = buffer.get_mut(..len.min(70 << 10)).unwrap_or_default();
        let _ = store.read(&Sgl::from_slice(data), offset).await;
        let _ = store.provisioning(offset, (len as u64).clamp(1, 1 << 30)).await;
    }
}
