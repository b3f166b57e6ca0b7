// SPDX-License-Identifier: Apache-2.0
//! Compressed images that QEMU made, many of whose clusters are read at once.
use std::fs;

use io_engine::{Backend, Engine, File, Started, TaskSet};
use qcow2::{Image, Options, Parts};
use sgl::Sgl;

use crate::memory::qemu_img;

const SIZE: usize = 8 << 20;
const PIECE: usize = 16 << 10;

/// Threads of the engines' pool.
fn pool_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")));
    names.filter(|name| name.as_ref().is_ok_and(|name| name.trim() == "io-pool")).count()
}

#[test]
fn compressed_clusters_that_are_read_at_once_are_inflated_by_several_threads() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let words = (0..SIZE as u32 / 8).map(|at| format!("{:08}", at / 3 * 7));
    let content = words.collect::<String>().into_bytes();
    fs::write(path.join("raw"), &content).unwrap();
    for kind in ["zlib", "zstd"] {
        let how = format!("compression_type={kind}");
        let convert = ["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", &how, "raw", "image"];
        let (code, text) = qemu_img(path, &convert);
        assert_eq!(code, Some(0), "{text}");
        let storage = File::from(fs::File::open(path.join("image")).unwrap());
        let work = async {
            let parts = Parts { storage, data_file: None, backing: None };
            let options = Options { read_only: true, ..Options::default() };
            let image = Image::open(parts, &options).await.unwrap();
            let read = async |at: usize| {
                let data = Sgl::zeroed(PIECE);
                image.read(&data, at as u64).await.unwrap();
                let mut bytes = vec![0; PIECE];
                data.read_at(0, &mut bytes);
                assert_eq!(bytes, content[at..at + PIECE], "{kind} at {at}");
            };
            read(0).await;
            let mut set = TaskSet::new();
            for at in (0..SIZE).step_by(PIECE) {
                if let Started::Running(_) = set.push(read(at))
                    && set.len() == 64
                {
                    set.next().await;
                }
            }
            while !set.is_empty() {
                set.next().await;
            }
        };
        Engine::new(Backend::Auto).unwrap().block_on(work).unwrap();
        assert!(pool_threads() > 1, "{kind}: it was read by this thread alone");
    }
}
