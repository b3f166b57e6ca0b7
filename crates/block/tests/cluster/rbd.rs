// SPDX-License-Identifier: Apache-2.0
//! `rbd`, and Ceph's own tool as the other client.
use std::time::{Duration, Instant};

use block::{ErrorClass, Event, OpenOptions, Store};
use io_engine::timeout;
use sgl::Sgl;

use crate::model::compare;
use crate::servers::{Ceph, ceph};
use crate::{MIB, open, read, refused, run, write};

#[test]
fn what_is_done_to_an_image_is_what_another_client_reads() {
    let cluster = ceph();
    let make = |size| {
        cluster.create("random", &format!("{size}B"));
        cluster.config("random")
    };
    let content = || {
        let content = cluster.export("random");
        cluster.rbd(&["rm", "--no-progress", "random"]);
        content
    };
    compare(6, make, content);
}

#[test]
fn compare_and_write_says_where_in_the_buffer_the_difference_is() {
    let cluster = ceph();
    cluster.create("caw", "16M");
    run(async {
        let store = open(&cluster.config("caw")).await.unwrap();
        write(&store, 1, 8192, 512).await.unwrap();
        let attempt = async |old: &[u8], new: u8, offset| {
            let mut data = old.to_vec();
            data.extend(vec![new; old.len()]);
            store.compare_and_write(&Sgl::from_slice(&mut data), offset).await
        };
        let written = attempt(&[1; 512], 2, 8192).await;
        assert!(matches!(written, Some(Ok(None))), "{written:?}");
        assert_eq!(read(&store, 8192, 512).await, [2; 512]);
        let mut other = [2; 512];
        other[377] = 9;
        let written = attempt(&other, 3, 8192).await;
        assert!(matches!(written, Some(Ok(Some(377)))), "{written:?}");
        assert_eq!(read(&store, 8192, 512).await, [2; 512]);
        // The cluster cannot do more in one step.
        assert!(attempt(&[0; 1024], 3, 4096).await.is_none());
    });
}

#[test]
fn a_new_size_by_another_client_is_seen_at_once() {
    let cluster = ceph();
    cluster.create("sized", "8M");
    run(async {
        let store = open(&cluster.config("sized")).await.unwrap();
        for (size, wanted) in [("16M", 16 * MIB), ("4M", 4 * MIB), ("12M", 12 * MIB)] {
            cluster.rbd(&["resize", "--no-progress", "--allow-shrink", "--size", size, "sized"]);
            let event = timeout(Duration::from_secs(10), store.event()).await;
            assert!(matches!(event, Ok(Event::Resized)), "{event:?}");
            assert_eq!(store.facts().size, wanted);
            write(&store, 7, wanted - 4096, 4096).await.unwrap();
            assert_eq!(read(&store, wanted - 4096, 4096).await, [7; 4096]);
        }
    });
}

#[test]
fn an_image_grows_with_its_device_and_keeps_its_content_when_that_shrinks() {
    let cluster = ceph();
    cluster.create("device", "8M");
    let size = || {
        let info = cluster.rbd(&["info", "--format", "json", "device"]);
        let size = info.split("\"size\":").nth(1).unwrap().split(',').next().unwrap();
        size.parse::<u64>().unwrap()
    };
    run(async {
        let store = open(&cluster.config("device")).await.unwrap();
        write(&store, 5, 6 * MIB, 4096).await.unwrap();
        store.resize(2 * MIB).await.unwrap();
        assert_eq!((store.facts().size, size()), (2 * MIB, 8 * MIB));
        store.resize(20 * MIB).await.unwrap();
        assert_eq!((store.facts().size, size()), (20 * MIB, 20 * MIB));
        assert_eq!(read(&store, 6 * MIB, 4096).await, [5; 4096]);
        write(&store, 6, 20 * MIB - 512, 512).await.unwrap();
        store.close().await.unwrap();
    });
    let wanted = OpenOptions { size: Some(21 * MIB), ..OpenOptions::default() };
    let e = run(async { block::open(&cluster.config("device"), &wanted).await.unwrap_err() });
    assert!(e.to_string().contains("less than the 22020096 bytes of the device"), "{e}");
}

#[test]
fn a_snapshot_is_what_the_image_was_and_is_only_read() {
    let cluster = ceph();
    cluster.create("kept", "8M");
    run(async {
        let image = open(&cluster.config("kept")).await.unwrap();
        write(&image, 1, 0, 4096).await.unwrap();
        cluster.rbd(&["snap", "create", "--no-progress", "kept@first"]);
        write(&image, 2, 0, 4096).await.unwrap();
        let snapshot = open(&cluster.config("kept@first")).await.unwrap();
        assert_eq!(read(&snapshot, 0, 4096).await, [1; 4096]);
        assert_eq!(read(&image, 0, 4096).await, [2; 4096]);
        assert!(snapshot.facts().read_only);
        let e = write(&snapshot, 3, 0, 4096).await.unwrap_err();
        assert_eq!(e.class(), ErrorClass::ReadOnly);
        assert!(snapshot.discard(0, 4096).await.is_err());
    });
}

#[test]
fn two_clients_write_in_turns_and_closing_gives_the_lock_back() {
    let cluster = ceph();
    cluster.create("shared", "8M");
    run(async {
        let stores = [
            open(&cluster.config("shared")).await.unwrap(),
            open(&cluster.config("shared")).await.unwrap(),
        ];
        for turn in 0..6u8 {
            let (one, other) = (&stores[usize::from(turn % 2)], &stores[usize::from(1 - turn % 2)]);
            write(one, turn + 1, 4096 * u64::from(turn), 4096).await.unwrap();
            assert_eq!(read(other, 4096 * u64::from(turn), 4096).await, vec![turn + 1; 4096]);
        }
        stores[1].close().await.unwrap();
        let before = Instant::now();
        write(&stores[0], 9, 0, 512).await.unwrap();
        // An owner that has died keeps it for 30 seconds.
        assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
        // What is closed opens itself again: its successor may not have come.
        assert_eq!(read(&stores[1], 0, 512).await, [9; 512]);
    });
}

/// The address of the client that has an image open.
fn watcher(cluster: &Ceph, image: &str) -> String {
    let status = cluster.rbd(&["status", image]);
    let address = status.split("watcher=").nth(1).unwrap();
    address.split(' ').next().unwrap().to_owned()
}

#[test]
fn a_client_that_is_shut_out_fails_its_write_and_another_takes_its_place() {
    let cluster = ceph();
    cluster.create("fenced", "8M");
    run(async {
        let store = open(&cluster.config("fenced")).await.unwrap();
        write(&store, 1, 0, 8192).await.unwrap();
        let old = watcher(cluster, "fenced");
        cluster.run("ceph", &["osd", "blocklist", "add", &old]);
        // Until the client has the new map, its writes wait, or pass.
        let mut failed = None;
        for _ in 0..100 {
            failed = write(&store, 2, 4096, 4096).await.err();
            if failed.is_some() {
                break;
            }
            io_engine::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(failed.expect("it was never shut out").class(), ErrorClass::Fenced);
        let event = timeout(Duration::from_secs(10), store.event()).await;
        assert!(matches!(event, Ok(Event::Lost(_))), "{event:?}");
        write(&store, 3, 0, 4096).await.unwrap();
        assert_eq!(read(&store, 0, 4096).await, [3; 4096]);
        store.flush().await.unwrap();
        assert_ne!(watcher(cluster, "fenced"), old);
        // It has a watch of its own.
        cluster.rbd(&["resize", "--no-progress", "--size", "16M", "fenced"]);
        let event = timeout(Duration::from_secs(10), store.event()).await;
        assert!(matches!(event, Ok(Event::Resized)), "{event:?}");
        store.close().await.unwrap();
    });
    assert_eq!(cluster.export("fenced")[..4096], [3; 4096]);
}

#[test]
fn a_cluster_that_hangs_ends_an_operation_only_where_that_is_wanted() {
    let cluster = ceph();
    cluster.create("hung", "8M");
    run(async {
        let patient = open(&cluster.config("hung")).await.unwrap();
        let config = format!("{};osd_op_timeout=2", cluster.config("hung"));
        let strict = open(&config).await.unwrap();
        write(&patient, 1, 0, 4096).await.unwrap();
        cluster.signal_osd("-STOP");
        let before = Instant::now();
        let mut data = vec![0; 4096];
        let e = strict.read(&Sgl::from_slice(&mut data), 0).await;
        let took = before.elapsed();
        let again = || {
            std::thread::sleep(Duration::from_secs(3));
            cluster.signal_osd("-CONT");
        };
        std::thread::scope(|scope| {
            scope.spawn(again);
        });
        let e = e.unwrap_err();
        assert_eq!(e.class(), ErrorClass::TimedOut, "{e}");
        assert!(took > Duration::from_secs(1) && took < Duration::from_secs(20), "{took:?}");
        assert_eq!(read(&patient, 0, 4096).await, [1; 4096]);
        assert_eq!(read(&strict, 0, 4096).await, [1; 4096]);
    });
}

#[test]
fn namespaces_are_pools_of_their_own() {
    let cluster = ceph();
    cluster.rbd(&["namespace", "create", "rbd/ours"]);
    cluster.rbd(&["create", "--size", "8M", "rbd/ours/same"]);
    cluster.create("same", "4M");
    run(async {
        let config = format!("rbd/rbd/ours/same;conf={}", cluster.conf());
        assert_eq!(open(&config).await.unwrap().facts().size, 8 * MIB);
        assert_eq!(open(&cluster.config("same")).await.unwrap().facts().size, 4 * MIB);
    });
}

#[test]
fn what_cannot_be_opened_is_told() {
    let cluster = ceph();
    let conf = cluster.conf();
    for (config, text) in [
        ("rbd/rbd".to_owned(), "it has to be rbd/POOL[/NAMESPACE]/IMAGE[@SNAPSHOT]"),
        ("rbd//x".to_owned(), "the pool is missing"),
        ("rbd/rbd/".to_owned(), "the image is missing"),
        ("rbd/rbd/x@".to_owned(), "the snapshot is empty"),
        (cluster.config("nonesuch"), "rbd/rbd/nonesuch: open the image \"nonesuch\": No such file"),
        (format!("rbd/nonesuch/x;conf={conf}"), "open the pool \"nonesuch\": No such file"),
        ("rbd/rbd/x;conf=/nonesuch.conf".to_owned(), "read /nonesuch.conf: No such file"),
        (format!("rbd/rbd/x;conf={conf};id=nobody"), "connect to the cluster of "),
        (format!("rbd/rbd/x;conf={conf};keyring=/nonesuch"), "connect to the cluster of "),
    ] {
        let said = refused(&config);
        assert!(said.contains(text), "{config}: {said}");
    }
}
