// SPDX-License-Identifier: Apache-2.0
//! `snapshot=NAME` serves what was saved inside of an image.
use block::{ErrorKind, OpenOptions, Store, open};
use sgl::Sgl;

use crate::common::*;

#[test]
fn a_snapshot_is_served_read_only_by_identifier_or_name() {
    let dir = Dir::new();
    let image = dir.create("image", "", MIB);
    let path = image.to_str().unwrap();
    qemu_io(&image, &["write -P 1 0 1M"]);
    qemu_img(&["snapshot", "-c", "first", path]);
    qemu_img(&["resize", "-q", path, "3M"]);
    qemu_io(&image, &["write -P 2 0 3M"]);
    // An identifier counts before a name.
    qemu_img(&["snapshot", "-c", "1", path]);
    qemu_io(&image, &["write -P 3 0 3M"]);
    let before = std::fs::read(&image).unwrap();
    for (name, byte, size) in [("first", 1, MIB), ("1", 1, MIB), ("2", 2, 3 * MIB)] {
        let config = format!("{};snapshot={name}", config(&image));
        check_config(&config).unwrap();
        on_engine(async {
            let store = open(&config, &OpenOptions::default()).await.unwrap();
            let facts = store.facts();
            assert_eq!((facts.size, facts.read_only), (size, true), "{name}");
            let len = usize::try_from(size).unwrap();
            assert!(read(&store, 0, len).await.unwrap() == vec![byte; len], "{name}");
            let mut data = vec![9; 4096];
            let e = store.write(&Sgl::from_slice(&mut data), 0, false).await.unwrap_err();
            assert!(matches!(e.kind, ErrorKind::ReadOnly), "{e}");
            store.close().await.unwrap();
        });
    }
    assert!(std::fs::read(&image).unwrap() == before, "the image has changed");
}

#[test]
fn a_snapshot_that_is_not_there_is_refused_with_those_that_are() {
    let dir = Dir::new();
    let image = dir.create("image", "", MIB);
    qemu_img(&["snapshot", "-c", "monday", image.to_str().unwrap()]);
    let config = format!("{};snapshot=tuesday", config(&image));
    let text = "it has no snapshot with the identifier or name \"tuesday\"; it has 1 (\"monday\")";
    let e = check_config(&config).unwrap_err().to_string();
    assert!(e.contains(text), "{e}");
    let e = on_engine(async { open(&config, &OpenOptions::default()).await.map(drop) });
    let e = e.unwrap_err().to_string();
    assert!(e.contains(text), "{e}");
}
