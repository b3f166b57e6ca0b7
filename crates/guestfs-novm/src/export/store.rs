// SPDX-License-Identifier: Apache-2.0
//! The image that is open: requests in, replies to FUSE out.

use crate::disk::Disk;
use crate::error::{Context, Result};
use crate::image::Image;
use fuser::{Errno, ReplyData, ReplyEmpty, ReplyWrite};
use io_engine::{Backend, Engine, Receiver, Sender, TaskSet, channel};
use sgl::Sgl;
use std::future::poll_fn;

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
    let engine = Engine::new(Backend::Auto).on("the engine of I/O")?;
    let served = engine.block_on(async {
        let disk = Disk::open(image).await?;
        let (requests, receiver) = channel();
        start(disk.size(), requests)?;
        serve(&disk, receiver).await;
        disk.close().await
    });
    served.on("the engine of I/O")?
}

/// Serves requests, many at a time, until all senders are gone.
async fn serve(disk: &Disk, mut requests: Receiver<Request>) {
    let mut running = TaskSet::new();
    loop {
        let next = poll_fn(|cx| {
            while running.poll_next(cx).is_ready() {}
            requests.poll_recv(cx)
        });
        let Some(request) = next.await else { break };
        running.push(answer(disk, request));
    }
    while !running.is_empty() {
        running.next().await;
    }
}

async fn answer(disk: &Disk, request: Request) {
    match request {
        Request::Read { offset, len, reply } => {
            let mut data = vec![0; len as usize];
            let read = disk.read(&Sgl::from_slice(&mut data), offset).await;
            match read {
                Ok(()) => reply.data(&data),
                Err(e) => reply.error(Errno::from_i32(e)),
            }
        }
        Request::Write { offset, mut data, reply } => {
            match disk.write(&Sgl::from_slice(&mut data), offset).await {
                // A request of FUSE has less than 4 GiB.
                Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
                Err(e) => reply.error(Errno::from_i32(e)),
            }
        }
        Request::Flush { reply } => empty(disk.flush().await, reply),
        Request::Zero { offset, len, may_unmap, reply } => {
            empty(disk.zero(offset, len, may_unmap).await, reply);
        }
    }
}

fn empty(result: std::result::Result<(), i32>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(Errno::from_i32(e)),
    }
}
