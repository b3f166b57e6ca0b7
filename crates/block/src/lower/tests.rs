// SPDX-License-Identifier: Apache-2.0
//! A file and a store look the same from above.
use std::path::Path;

use io_engine::{Backend, Engine};
use qcow2::Storage as _;

use super::*;
use crate::protocol::file::{Place, open_image};
use crate::{OpenOptions, registry};

const K: u64 = 1024;

async fn file(path: &Path) -> Lower {
    let place = Place::find(path).unwrap();
    let image = open_image(&place, false, true, None).await.unwrap();
    Lower::file(Medium::new(image, false).unwrap())
}

async fn memory(size: u64) -> Lower {
    let options = OpenOptions { size: Some(size), ..OpenOptions::default() };
    Lower::store(registry::open("ram/", &options).await.unwrap(), Path::new("ram/"))
}

async fn read(lower: &Lower, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    lower.read(&Sgl::from_slice(&mut bytes), offset).await.unwrap();
    bytes
}

async fn fill(lower: &Lower, offset: u64, len: usize, byte: u8) {
    lower.write(&Sgl::from_slice(&mut vec![byte; len]), offset).await.unwrap();
}

/// Runs a test on a file and on a store, each with 64 KiB.
fn each(test: impl AsyncFn(&Lower)) {
    Engine::new(Backend::Auto)
        .unwrap()
        .block_on(async {
            let image = tempfile::NamedTempFile::new().unwrap();
            image.as_file().set_len(64 * K).unwrap();
            test(&file(image.path()).await).await;
            test(&memory(64 * K).await).await;
        })
        .unwrap();
}

#[test]
fn what_lies_past_the_end_reads_as_zeroes_and_is_made_by_writing() {
    each(async |lower| {
        assert_eq!(lower.length().await.unwrap(), 64 * K);
        assert_eq!(read(lower, 64 * K - 10, 100).await, [0; 100]);
        assert_eq!(read(lower, 1 << 40, 10).await, [0; 10]);
        assert_eq!(lower.map(1 << 40, 10).await.unwrap(), (Extent::Zero, 10));
        fill(lower, 100 * K, 1024, 7).await;
        assert_eq!(lower.length().await.unwrap(), 101 * K);
        assert_eq!(read(lower, 64 * K, 36 << 10).await, vec![0; 36 << 10]);
        assert_eq!(
            read(lower, 100 * K + 1000, 100).await[..25],
            [[7; 24].as_slice(), &[0]].concat()
        );
        lower.sync().await.unwrap();
    });
}

#[test]
fn what_was_cut_off_reads_as_zeroes_when_it_is_long_again() {
    each(async |lower| {
        fill(lower, 0, 64 << 10, 7).await;
        lower.set_len(10 * K).await.unwrap();
        assert_eq!(lower.length().await.unwrap(), 10 * K);
        assert_eq!(read(lower, 9 * K, 2048).await[1024..], [0; 1024]);
        lower.set_len(20 * K).await.unwrap();
        assert_eq!(read(lower, 9 * K, 11 << 10).await[1024..], [0; 10 << 10]);
        fill(lower, 40 * K, 1, 8).await;
        assert_eq!(read(lower, 20 * K, 20 << 10).await, vec![0; 20 << 10]);
    });
}

#[test]
fn zeroes_are_zeroes_whatever_the_storage_can() {
    each(async |lower| {
        for (len, punch) in [(1000, false), (40 * K, false), (1000, true), (40 * K, true)] {
            fill(lower, 0, 64 << 10, 7).await;
            lower.zero(100, len, punch).await.unwrap();
            let bytes = read(lower, 0, 64 << 10).await;
            let zeroes = bytes.iter().filter(|&&byte| byte == 0).count();
            assert_eq!((bytes[99], bytes[100], zeroes as u64), (7, 0, len), "{punch}");
        }
        let (extent, n) = lower.map(8 * K, 1024).await.unwrap();
        assert_eq!((extent, n), (Extent::Zero, 1024));
    });
}

#[test]
fn the_error_of_a_layer_below_comes_out_as_it_was() {
    let below = Error::new(rustix::io::Errno::NOSPC, "write", "/below");
    let error = to_io(below);
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    let below = from_io(error).unwrap();
    assert_eq!((below.errno(), &*below.path), (Some(libc::ENOSPC), Path::new("/below")));
    assert!(from_io(io::Error::from_raw_os_error(libc::EIO)).is_err());
}
