//! The image that is open: requests in, replies to FUSE out.

use crate::error::{Context, Error, Result};
use crate::image::{Image, Kind};
use backstore::{AnyBackstore, Backstore, ErrorKind, OpenOptions};
use fuser::{Errno, ReplyData, ReplyEmpty, ReplyWrite};
use io_engine::{Backend, Engine, Receiver, Sender, TaskSet, channel};
use sgl::Sgl;
use std::future::poll_fn;

/// Bytes of a sector: the size of what is served is a whole number of these.
const SECTOR: u64 = 512;

/// What FUSE asks for.
#[derive(Debug)]
pub(super) enum Request {
    Read { offset: u64, len: u32, reply: ReplyData },
    Write { offset: u64, data: Vec<u8>, reply: ReplyWrite },
    Flush { reply: ReplyEmpty },
    Zero { offset: u64, len: u64, may_unmap: bool, reply: ReplyEmpty },
}

/// Opens an image, has `start` started with its size and where requests go, and serves until
/// nobody sends them any more; then the image is flushed and closed.
pub(super) fn open_and_serve(
    image: &Image,
    start: impl FnOnce(u64, Sender<Request>) -> Result<()>,
) -> Result<()> {
    let path = image.path.to_str();
    let path = path.ok_or_else(|| Error::image(&image.path, "its name is not UTF-8"))?;
    let subtype = if image.kind == Kind::Qcow { "qcow" } else { "file" };
    let config = format!("{subtype}/{path}");
    let options = OpenOptions { read_only: image.read_only, ..OpenOptions::default() };
    let failed = |e: backstore::Error| Error::Usage(e.to_string());
    let engine = Engine::new(Backend::Auto).on("the engine of I/O")?;
    let served = engine.block_on(async {
        let store = backstore::open(&config, &options).await.map_err(failed)?;
        let size = store.facts().size.checked_next_multiple_of(SECTOR);
        let size = size.ok_or_else(|| Error::image(path, "it is too large"))?;
        let (requests, receiver) = channel();
        start(size, requests)?;
        serve(&store, receiver).await;
        let flushed = if options.read_only { Ok(()) } else { store.flush().await };
        flushed.and(store.close().await).map_err(failed)
    });
    served.on("the engine of I/O")?
}

/// Serves until there is nobody to serve, many requests at a time.
async fn serve(store: &AnyBackstore, mut requests: Receiver<Request>) {
    let mut running = TaskSet::new();
    loop {
        let next = poll_fn(|cx| {
            while running.poll_next(cx).is_ready() {}
            requests.poll_recv(cx)
        });
        let Some(request) = next.await else { break };
        running.push(answer(store, request));
    }
    while !running.is_empty() {
        running.next().await;
    }
}

async fn answer(store: &AnyBackstore, request: Request) {
    match request {
        Request::Read { offset, len, reply } => {
            let mut data = vec![0; len as usize];
            match read(store, &mut data, offset).await {
                Ok(()) => reply.data(&data),
                Err(e) => reply.error(errno(&e)),
            }
        }
        Request::Write { offset, mut data, reply } => match write(store, &mut data, offset).await {
            // A request of FUSE has less than 4 GiB.
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(e) => reply.error(errno(&e)),
        },
        Request::Flush { reply } => empty(store.flush().await, reply),
        Request::Zero { offset, len, may_unmap, reply } => {
            let there = store.facts().size.saturating_sub(offset).min(len);
            empty(store.write_zeroes(offset, there, may_unmap).await, reply);
        }
    }
}

/// What is behind the end of an image whose last sector is not whole reads as zeroes.
async fn read(
    store: &AnyBackstore,
    data: &mut [u8],
    offset: u64,
) -> std::result::Result<(), backstore::Error> {
    let there = usize::try_from(store.facts().size.saturating_sub(offset)).unwrap_or(usize::MAX);
    let there = there.min(data.len());
    if there == 0 {
        return Ok(());
    }
    store.read(&Sgl::from_slice(&mut data[..there]), offset).await
}

/// An image whose last sector is not whole grows when that is written.
async fn write(
    store: &AnyBackstore,
    data: &mut [u8],
    offset: u64,
) -> std::result::Result<(), backstore::Error> {
    let end = offset.saturating_add(data.len() as u64);
    if end > store.facts().size {
        store.resize(end).await?;
    }
    store.write(&Sgl::from_slice(data), offset, false).await
}

fn empty(result: std::result::Result<(), backstore::Error>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(&e)),
    }
}

fn errno(error: &backstore::Error) -> Errno {
    tracing::warn!("{error}");
    match &error.kind {
        ErrorKind::Io(e) => Errno::from_i32(e.raw_os_error().unwrap_or(libc::EIO)),
        ErrorKind::ReadOnly => Errno::EROFS,
        ErrorKind::Unsupported(_) => Errno::EOPNOTSUPP,
        ErrorKind::Invalid(_) => Errno::EIO,
    }
}
