// SPDX-License-Identifier: Apache-2.0
//! `glfs`, and the file of the brick as what another client reads.
use std::cell::Cell;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use block::{ErrorClass, OpenOptions, Store};

use crate::model::compare;
use crate::servers::{Gluster, gluster, gluster_alone};
use crate::{MIB, open, read, refused, run, write};

#[test]
fn what_is_done_to_a_file_is_what_the_brick_has() {
    let volume = gluster();
    // Another file each time: clients remember those that they know.
    let number = Cell::new(0);
    let name = || format!("random{}", number.get());
    let make = |size| {
        number.set(number.get() + 1);
        volume.create(&name(), size);
        volume.config(&name())
    };
    compare(6, make, || std::fs::read(volume.brick(&name())).unwrap());
}

#[test]
fn what_is_acknowledged_is_with_the_brick_at_once() {
    let volume = gluster();
    volume.create("acknowledged", MIB);
    run(async {
        let store = open(&volume.config("acknowledged")).await.unwrap();
        for turn in 1..=20u8 {
            write(&store, turn, u64::from(turn) * 4096, 4096).await.unwrap();
            let there = std::fs::read(volume.brick("acknowledged")).unwrap();
            let at = usize::from(turn) * 4096;
            assert_eq!(there[at..at + 4096], [turn; 4096]);
        }
        // What another host writes is read.
        std::fs::write(volume.brick("acknowledged"), vec![0x77; MIB as usize]).unwrap();
        assert_eq!(read(&store, 4096, 4096).await, [0x77; 4096]);
    });
}

#[test]
fn a_file_grows_with_its_device_and_keeps_its_content_when_that_shrinks() {
    let volume = gluster();
    volume.create("device", 8 * MIB);
    let size = || std::fs::metadata(volume.brick("device")).unwrap().len();
    run(async {
        let store = open(&volume.config("device")).await.unwrap();
        write(&store, 5, 6 * MIB, 4096).await.unwrap();
        store.resize(2 * MIB).await.unwrap();
        assert_eq!((store.facts().size, size()), (2 * MIB, 8 * MIB));
        store.resize(20 * MIB).await.unwrap();
        assert_eq!((store.facts().size, size()), (20 * MIB, 20 * MIB));
        assert_eq!(read(&store, 6 * MIB, 4096).await, [5; 4096]);
        // What is closed opens itself again: its successor may not have come.
        store.close().await.unwrap();
        write(&store, 6, 20 * MIB - 512, 512).await.unwrap();
    });
    let wanted = OpenOptions { size: Some(21 * MIB), ..OpenOptions::default() };
    let e = run(async { block::open(&volume.config("device"), &wanted).await.unwrap_err() });
    assert!(e.to_string().contains("less than the 22020096 bytes of the device"), "{e}");
}

#[test]
fn all_files_of_a_volume_share_a_connection() {
    let volume = gluster();
    for number in 0..8 {
        volume.create(&format!("many{number}"), MIB);
    }
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    run(async {
        let mut stores = vec![open(&volume.config("many0")).await.unwrap()];
        let before = threads();
        for number in 1..8 {
            stores.push(open(&volume.config(&format!("many{number}"))).await.unwrap());
        }
        // A connection has eight of its own at least; other tests run beside this.
        assert!(threads() < before + 7 * 4, "{before} threads, then {}", threads());
        for (number, store) in (0u8..).zip(&stores) {
            write(store, number + 1, 0, 4096).await.unwrap();
        }
        for (number, store) in (0u8..).zip(&stores) {
            assert_eq!(read(store, 0, 4096).await, vec![number + 1; 4096]);
        }
    });
}

#[test]
fn a_server_is_reached_by_each_of_its_transports() {
    let volume = gluster();
    volume.create("transports", MIB);
    let tcp = volume.config("transports");
    let socket = volume.config("transports").split('@').next().unwrap().to_owned();
    let socket = format!("{socket}@unix:{}:/transports", volume.socket().display());
    let named = |name: &str| tcp.replace('@', &format!("@{name}:"));
    run(async {
        let by_tcp = open(&tcp).await.unwrap();
        for (byte, config) in (1..).zip([socket, named("tcp"), named("rdma")]) {
            let store = open(&config).await.unwrap();
            write(&store, byte, 0, 4096).await.unwrap();
            assert_eq!(read(&by_tcp, 0, 4096).await, [byte; 4096], "{config}");
        }
    });
}

#[test]
fn what_cannot_be_opened_is_told() {
    let volume = gluster();
    let at = volume.config("x").replace("glfs/vol@", "").replace("/x", "");
    for (config, text) in [
        ("glfs/vol".to_owned(), "it has to be glfs/VOLUME@[tcp:|rdma:]HOST[:PORT]/PATH"),
        ("glfs/@h/x".to_owned(), "the volume is missing"),
        ("glfs/vol@/x".to_owned(), "the host is missing"),
        ("glfs/vol@h/".to_owned(), "the path is missing"),
        ("glfs/vol@h:0/x".to_owned(), "\"0\" is no port"),
        ("glfs/vol@rdma:h:0/x".to_owned(), "\"0\" is no port"),
        ("glfs/vol@rdma:/x".to_owned(), "the host is missing"),
        ("glfs/vol@unix:/socket/x".to_owned(), "does not end the socket by a colon"),
        ("glfs/vol@unix:/socket:/".to_owned(), "the path is missing"),
        ("glfs/vol@unix:/none/such:/x".to_owned(), "find the socket /none/such: No such file"),
        (volume.config("nonesuch"), "open /nonesuch: No such file"),
        (volume.config("."), "open /.: Is a directory"),
        (format!("glfs/nonesuch@{at}/x"), "connect to the volume \"nonesuch\""),
        (format!("glfs/vol@{at}:1/x"), "connect to the volume \"vol\""),
    ] {
        let said = refused(&config);
        assert!(said.contains(text), "{config}: {said}");
    }
}

#[test]
fn without_its_brick_an_operation_waits_and_then_fails_until_the_brick_is_back() {
    let volume = gluster_alone();
    let volume: &Gluster = &volume;
    volume.create("killed", MIB);
    let (start, started) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            started.recv().unwrap();
            thread::sleep(Duration::from_secs(1));
            volume.start_brick();
        });
        run(async {
            let store = open(&volume.config("killed")).await.unwrap();
            write(&store, 1, 0, 4096).await.unwrap();
            store.flush().await.unwrap();
            volume.kill_brick();
            let begin = Instant::now();
            let e = write(&store, 2, 4096, 4096).await.unwrap_err();
            assert_eq!(e.class(), ErrorClass::Connection, "{e}");
            assert!(begin.elapsed() > Duration::from_secs(14), "{:?}", begin.elapsed());
            // The next ones wait, too, and are done when the brick is back.
            start.send(()).unwrap();
            store.flush().await.unwrap();
            write(&store, 3, 4096, 4096).await.unwrap();
            assert_eq!(read(&store, 0, 4096).await, [1; 4096]);
            assert_eq!(read(&store, 4096, 4096).await, [3; 4096]);
        });
    });
}
