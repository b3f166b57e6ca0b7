// SPDX-License-Identifier: Apache-2.0
//! What a write leaves below, and what it does not: discards, sizes, operations side by side.
use std::os::unix::fs::MetadataExt as _;

use block::{Disk, Provisioning, Store as _, disk};
use sgl::Sgl;

use crate::common::{Dir, MIB, Random, TWO, all, on_engine, opened, read, write};

#[test]
fn discards_are_passed_on_only_where_that_is_asked_for() {
    let dir = Dir::new();
    let image = dir.volume("image", 24 * MIB, TWO);
    let blocks = || std::fs::metadata(&image).unwrap().blocks();
    on_engine(async {
        let store = opened(&dir.config(&image)).await;
        assert_eq!(store.facts().discard, None);
        write(&store, 0, &vec![7; 8 << 20]).await.unwrap();
        store.flush().await.unwrap();
        let told = store.discard(0, 8 * MIB).await.unwrap_err().to_string();
        assert!(told.contains(";discard=on"), "{told}");
        let before = blocks();
        store.close().await.unwrap();
        drop(store);
        let store = opened(&format!("{};discard=on", dir.config(&image))).await;
        assert!(!store.facts().discard.unwrap().zeroes);
        store.discard(0, 4 * MIB).await.unwrap();
        assert!(blocks() + 4 * 2048 <= before, "{before} {}", blocks());
        assert_eq!(store.provisioning(0, MIB).await.unwrap(), (Provisioning::Mapped, MIB));
        assert!(read(&store, 4 * MIB, 4 << 20).await.unwrap() == vec![7; 4 << 20]);
        // Zeroes are zeroes all the same.
        let disk = Disk::new(store, "image", disk::Options::default());
        disk.write_zeroes(0, 4 * MIB, true).await.unwrap();
        let mut bytes = vec![1; 4 << 20];
        disk.read(&Sgl::from_slice(&mut bytes), 0).await.unwrap();
        assert!(bytes == vec![0; 4 << 20]);
    });
}

#[test]
fn no_plain_byte_is_in_the_file() {
    let dir = Dir::new();
    let image = dir.volume("image", 20 * MIB, TWO);
    let mark = b"this is what nobody is to see";
    on_engine(async {
        let store = opened(&dir.config(&image)).await;
        let marks: Vec<u8> = mark.iter().copied().cycle().take(3 << 20).collect();
        write(&store, 0, &marks).await.unwrap();
        store.write_zeroes(3 * MIB, MIB, true).await.unwrap();
        assert!(read(&store, 3 * MIB, 1 << 20).await.unwrap() == vec![0; 1 << 20]);
        store.close().await.unwrap();
    });
    let bytes = std::fs::read(&image).unwrap();
    assert!(!bytes.windows(mark.len()).any(|window| window == mark));
    assert!(!bytes[16 << 20..].chunks(512).any(|sector| sector.iter().all(|byte| *byte == 0)));
}

#[test]
fn a_volume_grows_with_its_device_and_stays_as_long_when_the_disk_becomes_smaller() {
    let dir = Dir::new();
    let image = dir.volume("image", 20 * MIB, TWO);
    let len = || std::fs::metadata(&image).unwrap().len();
    on_engine(async {
        let store = opened(&dir.config(&image)).await;
        write(&store, 4 * MIB - 4096, &[7; 4096]).await.unwrap();
        store.resize(6 * MIB).await.unwrap();
        assert_eq!((store.facts().size, len()), (6 * MIB, 22 * MIB));
        write(&store, 6 * MIB - 4096, &[8; 4096]).await.unwrap();
        store.resize(MIB).await.unwrap();
        assert_eq!((store.facts().size, len()), (MIB, 22 * MIB));
        read(&store, MIB, 4096).await.unwrap_err();
        store.resize(6 * MIB).await.unwrap();
        assert!(read(&store, 4 * MIB - 4096, 4096).await.unwrap() == [7; 4096]);
        assert!(read(&store, 6 * MIB - 4096, 4096).await.unwrap() == [8; 4096]);
        store.resize(1000).await.unwrap_err();
    });
}

#[test]
fn writes_side_by_side_have_buffers_of_their_own() {
    let dir = Dir::new();
    let image = dir.volume("image", 24 * MIB, TWO);
    on_engine(async {
        let store = opened(&dir.config(&image)).await;
        let mut random = Random(6);
        let pieces: Vec<Vec<u8>> = (0..128).map(|_| random.bytes(64 << 10)).collect();
        let writes = (0u64..).zip(&pieces).map(|(n, piece)| write(&store, n * (64 << 10), piece));
        all(writes).await.unwrap();
        assert!(read(&store, 0, 8 << 20).await.unwrap() == pieces.concat());
    });
}
