// SPDX-License-Identifier: Apache-2.0
//! Operations on an image, or on a raw file by the same engine, as `qemu-img bench` does them:
//! `COUNT` of `LEN` bytes each, `STEP` bytes apart and around at the end, `DEPTH` at a time. Prints
//! the seconds that they took, opening and closing not included. `cargo xtask bench block` runs it.
//!
//! ```text
//! bench raw|qcow2 read|write COUNT DEPTH LEN STEP PATH [DATA-FILE]
//! ```
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "an example")]
use std::os::fd::OwnedFd;
use std::time::Instant;

use io_engine::{Backend, Engine, File, Started, TaskSet};
use qcow2::{Image, Options, Parts, Storage};
use sgl::Sgl;

struct Job {
    count: u64,
    depth: usize,
    len: usize,
    step: u64,
}

/// Runs a job on something of `size` bytes; `make` begins an operation with a buffer at an offset.
/// Returns seconds.
async fn run<'a, F: Future<Output = ()>>(
    job: &Job,
    size: u64,
    buffers: &'a [Sgl<'static>],
    make: impl Fn(&'a Sgl<'static>, u64) -> F,
) -> f64 {
    let mut set = TaskSet::new();
    let start = Instant::now();
    let mut offset = 0;
    for buffer in buffers.iter().cycle().take(usize::try_from(job.count).unwrap()) {
        if let Started::Running(_) = set.push(make(buffer, offset))
            && set.len() == job.depth
        {
            set.next().await;
        }
        offset = (offset + job.step) % (size - job.len as u64 + 1) / 512 * 512;
    }
    while !set.is_empty() {
        set.next().await;
    }
    start.elapsed().as_secs_f64()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, format, kind, count, depth, len, step, path, data_file @ ..] = &args[..] else {
        println!("usage: bench raw|qcow2 read|write COUNT DEPTH LEN STEP PATH [DATA-FILE]");
        return;
    };
    let number = |text: &str| text.parse::<u64>().unwrap();
    let job = Job {
        count: number(count),
        depth: usize::try_from(number(depth)).unwrap(),
        len: usize::try_from(number(len)).unwrap(),
        step: number(step),
    };
    let write = kind == "write";
    // One buffer for each place, so that none is in use twice for long.
    let buffers: Vec<_> = (0..job.depth).map(|_| Sgl::zeroed(job.len)).collect();
    buffers.iter().for_each(|buffer| buffer.fill(0..job.len, 0x5a));
    let open = |path: &String| {
        let file = std::fs::File::options().read(true).write(write).open(path).unwrap();
        File::new(OwnedFd::from(file))
    };
    let file = open(path);
    let data_file = data_file.first().map(open);
    let seconds = Engine::new(Backend::Auto).unwrap().block_on(async move {
        if format == "raw" {
            let size = file.length().await.unwrap();
            return match write {
                true => {
                    run(&job, size, &buffers, async |b, at| {
                        Storage::write(&file, b, at).await.unwrap()
                    })
                    .await
                }
                false => {
                    run(&job, size, &buffers, async |b, at| {
                        Storage::read(&file, b, at).await.unwrap()
                    })
                    .await
                }
            };
        }
        let parts = Parts { storage: file, data_file, backing: None };
        let options = Options { read_only: !write, discard: true, ..Options::default() };
        let image = Image::open(parts, &options).await.unwrap();
        let size = image.size();
        let seconds = match write {
            true => {
                run(&job, size, &buffers, async |b, at| image.write(b, at).await.unwrap()).await
            }
            false => {
                run(&job, size, &buffers, async |b, at| image.read(b, at).await.unwrap()).await
            }
        };
        image.close().await.unwrap();
        seconds
    });
    println!("{:.6}", seconds.unwrap());
}
