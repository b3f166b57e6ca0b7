// SPDX-License-Identifier: Apache-2.0
//! What an I/O costs (512 bytes, so that the copy does not count); run it under callgrind, `strace -c` or `time`:
//!
//! ```text
//! io_cost read|write|tasks|cold|sync COUNT uring|pool [FILE]
//! ```
//!
//! `read` and `write` stay in the page cache, `tasks` reads from a `TaskSet`, `cold` reads at
//! random, 32 at a time, what the cache has been told to forget, `sync` is 32 fdatasync at a time.
//! FILE (default: a temporary one) is overwritten.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "an example")]
use std::rc::Rc;
use std::time::Instant;

use io_engine::{Backend, Engine, File, Started, TaskSet};
use sgl::Sgl;

const LEN: usize = 512;
const BLOCK: u64 = 4096;
const BLOCKS: u64 = 16384;

async fn read(file: &File, block: u64) {
    let mut buf = [0u8; LEN];
    file.read_at(&Sgl::from_slice(&mut buf), block * BLOCK).await.unwrap();
}

async fn write(file: &File, block: u64) {
    let mut buf = [1u8; LEN];
    file.write_at(&Sgl::from_slice(&mut buf), block * BLOCK, false).await.unwrap();
}

/// At most `depth` at a time.
async fn run<F: Future<Output = ()>>(count: u64, depth: usize, make: impl Fn(u64) -> F) {
    let mut set = TaskSet::new();
    for i in 0..count {
        if let Started::Running(_) = set.push(make(i))
            && set.len() == depth
        {
            set.next().await;
        }
    }
    while !set.is_empty() {
        set.next().await;
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, mode, count, backend, path @ ..] = &args[..] else {
        println!("usage: io_cost read|write|tasks|cold|sync COUNT uring|pool [FILE]");
        return;
    };
    let count: u64 = count.parse().unwrap();
    let backend = if backend == "pool" { Backend::Pool } else { Backend::IoUring };
    let file = match path {
        [path, ..] => {
            let mut options = std::fs::File::options();
            options.read(true).write(true).create(true).truncate(true).open(path).unwrap()
        }
        [] => tempfile::tempfile().unwrap(),
    };
    let file = Rc::new(File::from(file));
    let work = async {
        for block in 0..BLOCKS {
            write(&file, block).await;
        }
        file.sync(false).await.unwrap();
        if mode == "cold" {
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        }
        let begin = Instant::now();
        match mode.as_str() {
            "read" => {
                for i in 0..count {
                    read(&file, i % BLOCKS).await;
                }
            }
            "write" => {
                for i in 0..count {
                    write(&file, i % BLOCKS).await;
                }
            }
            "tasks" => run(count, 32, |i| read(&file, i % BLOCKS)).await,
            // A stride that shares no factor with the number of blocks visits all of them.
            "cold" => run(count, 32, |i| read(&file, i * 7919 % BLOCKS)).await,
            "sync" => run(count, 32, |_| async { file.sync(true).await.unwrap() }).await,
            other => println!("unknown mode {other}"),
        }
        begin.elapsed()
    };
    let took = Engine::new(backend).unwrap().block_on(work).unwrap();
    println!("{mode}: {} ns each", took.as_nanos() / u128::from(count.max(1)));
}
