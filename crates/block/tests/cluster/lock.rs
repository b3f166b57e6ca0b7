// SPDX-License-Identifier: Apache-2.0
//! The exclusive lock of an image, between two clients that take it for their target port groups.
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use block::exclusive::{ExclusiveLock, LockView};
use block::{AnyStore, ErrorClass, Event, Store};
use io_engine::{sleep, timeout};
use sgl::Sgl;

use crate::servers::{Ceph, ceph};
use crate::{MIB, beside, open, read, run, write};

/// A client, and its lock.
async fn client(cluster: &Ceph, image: &str) -> (AnyStore, Rc<dyn ExclusiveLock>) {
    let store = open(&cluster.config(image)).await.unwrap();
    let lock = store.lock().expect("images have the feature");
    (store, lock)
}

/// What a device does that has the lock: it gives it to whoever asks. Ends with `work`.
pub(crate) async fn giving<T>(lock: &dyn ExclusiveLock, work: impl Future<Output = T>) -> T {
    let give = async {
        loop {
            lock.asked().await;
            let view = lock.view();
            lock.release(view.group.unwrap()).await.unwrap();
        }
    };
    beside(give, work).await
}

/// Addresses that the cluster shuts out.
pub(crate) fn shut_out(cluster: &Ceph) -> String {
    cluster.run("ceph", &["osd", "blocklist", "ls"])
}

/// The address of the client that has the lock, as Ceph's tool says it.
pub(crate) fn owner(cluster: &Ceph, image: &str) -> String {
    let locks = cluster.rbd(&["lock", "ls", image]);
    locks.split_whitespace().last().unwrap().to_owned()
}

#[test]
fn the_lock_moves_to_who_asks_and_nobody_is_shut_out() {
    let cluster = ceph();
    cluster.create("moved", "8M");
    run(async {
        let (a, of_a) = client(cluster, "moved").await;
        let (b, of_b) = client(cluster, "moved").await;
        of_a.acquire(7).await.unwrap();
        write(&a, 1, 0, 4096).await.unwrap();
        let first = owner(cluster, "moved");
        giving(&*of_a, of_b.acquire(8)).await.unwrap();
        assert_eq!(of_b.view(), LockView { group: Some(8), ours: true, ..LockView::default() });
        assert!(!of_a.view().ours && of_a.view().losses == 0);
        write(&b, 2, 0, 4096).await.unwrap();
        // What the first one still has is not written, and takes nothing.
        let late = write(&a, 1, 0, 4096).await.unwrap_err();
        assert_eq!(late.class(), ErrorClass::Fenced, "{late}");
        assert_eq!(read(&a, 0, 4096).await, [2; 4096]);
        // There and back, each time with what the other wrote.
        for turn in 3..7u8 {
            let mut turns = [(&a, &of_a, 7), (&b, &of_b, 8)];
            turns.rotate_left(usize::from(turn % 2 == 0));
            let [(store, lock, group), (other, others, _)] = turns;
            giving(&**others, lock.acquire(group)).await.unwrap();
            assert_eq!(read(store, 0, 4096).await, [turn - 1; 4096]);
            write(store, turn, 0, 4096).await.unwrap();
            assert!(write(other, 99, 0, 4096).await.is_err());
        }
        assert!(!shut_out(cluster).contains(&first), "{first} has given it back");
    });
}

#[test]
fn who_has_the_lock_is_seen_by_others_in_the_words_of_the_c_daemon() {
    let cluster = ceph();
    cluster.create("told", "8M");
    run(async {
        let (_a, of_a) = client(cluster, "told").await;
        let (b, of_b) = client(cluster, "told").await;
        of_b.look().await;
        assert_eq!(of_b.view(), LockView::default());
        of_a.acquire(4711).await.unwrap();
        let tag = cluster.rbd(&["image-meta", "get", "told", "tcmu_rbd_locker_tag"]);
        let own = owner(cluster, "told");
        assert_eq!(tag.trim_end(), format!("tcmu_tag=4711,rbd_client={own}"));
        of_b.look().await;
        let theirs = LockView { group: Some(4711), ..LockView::default() };
        assert_eq!(of_b.view(), theirs);
        // Another group of the same gateway.
        of_a.acquire(4712).await.unwrap();
        of_b.look().await;
        assert_eq!(of_b.view().group, Some(4712));
        of_a.release(4711).await.unwrap();
        assert!(of_a.view().ours, "it is not held for that one");
        of_a.release(4712).await.unwrap();
        of_b.look().await;
        assert_eq!((of_a.view().ours, of_b.view().group), (false, None));
        // A tag of somebody who does not have the lock counts for nothing.
        write(&b, 1, 0, 512).await.unwrap();
        of_a.look().await;
        assert_eq!(of_a.view().group, None);
    });
}

#[test]
fn an_owner_that_does_not_answer_is_shut_out_and_writes_nothing_any_more() {
    let cluster = ceph();
    cluster.create("silent", "8M");
    run(async {
        let (a, of_a) = client(cluster, "silent").await;
        let (b, of_b) = client(cluster, "silent").await;
        of_a.acquire(7).await.unwrap();
        write(&a, 1, 0, 8192).await.unwrap();
        let first = owner(cluster, "silent");
        of_b.acquire(8).await.unwrap();
        assert!(shut_out(cluster).contains(&first), "{first}");
        write(&b, 2, 0, 4096).await.unwrap();
        // It believes that it has the lock.
        assert!(of_a.view().ours);
        let late = write(&a, 3, 0, 8192).await.unwrap_err();
        assert_eq!(late.class(), ErrorClass::Fenced, "{late}");
        assert_eq!((of_a.view().ours, of_a.view().losses), (false, 1));
        let event = timeout(Duration::from_secs(10), a.event()).await;
        assert!(matches!(event, Ok(Event::Lost(_))), "{event:?}");
        // A new client is in its place, which may read, and takes the lock when it is told to.
        assert_eq!(read(&a, 0, 8192).await, [[2; 4096], [1; 4096]].concat());
        let refused = write(&a, 3, 0, 4096).await.unwrap_err();
        assert_eq!(refused.class(), ErrorClass::Fenced, "{refused}");
        giving(&*of_b, of_a.acquire(7)).await.unwrap();
        write(&a, 4, 0, 4096).await.unwrap();
        assert_eq!(read(&b, 0, 4096).await, [4; 4096]);
    });
}

/// A program of Ceph's that writes to an image, and that has the lock because it does.
struct Writer(Child);

impl Writer {
    fn start(cluster: &Ceph, image: &str) -> Self {
        let mut bench = Command::new("rbd");
        bench.args(["bench", "--io-type", "write", "--io-size", "4096", "--io-total", "64G"]);
        bench.args(["--rbd-cache", "false", image]).env("CEPH_CONF", cluster.conf());
        bench.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = bench.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // It counts what it has written.
        let writes = |line: &str| line.trim_start().starts_with(|c: char| c.is_ascii_digit());
        assert!(lines.any(|line| writes(&line.unwrap())), "rbd bench ended");
        std::thread::spawn(move || lines.for_each(drop));
        Writer(child)
    }

    fn signal(&self, signal: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_client_that_only_writes_gives_the_lock_at_once() {
    let cluster = ceph();
    cluster.create("written", "64M");
    let mut writer = Writer::start(cluster, "written");
    let first = owner(cluster, "written");
    run(async {
        let (store, lock) = client(cluster, "written").await;
        lock.acquire(8).await.unwrap();
        assert!(!shut_out(cluster).contains(&first), "{first}");
        let whole = vec![0x55; 64 * MIB as usize];
        store.write(&Sgl::from_slice(&mut whole.clone()), 0, false).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        assert!(read(&store, 0, whole.len()).await == whole, "it goes on writing");
        lock.release(8).await.unwrap();
    });
    drop(writer.0.kill());
}

#[test]
fn a_process_that_was_stopped_writes_nothing_when_it_goes_on() {
    let cluster = ceph();
    cluster.create("stopped", "64M");
    let mut writer = Writer::start(cluster, "stopped");
    let first = owner(cluster, "stopped");
    writer.signal("-STOP");
    run(async {
        let (store, lock) = client(cluster, "stopped").await;
        let since = Instant::now();
        lock.acquire(8).await.unwrap();
        // The cluster itself waits for half a minute.
        assert!(since.elapsed() < Duration::from_secs(25), "{:?}", since.elapsed());
        assert!(shut_out(cluster).contains(&first), "{first}");
        let whole = vec![0x55; 64 * MIB as usize];
        store.write(&Sgl::from_slice(&mut whole.clone()), 0, false).await.unwrap();
        writer.signal("-CONT");
        let until = Instant::now() + Duration::from_secs(60);
        while writer.0.try_wait().unwrap().is_none() && Instant::now() < until {
            sleep(Duration::from_millis(50)).await;
        }
        assert!(read(&store, 0, whole.len()).await == whole, "it has written");
        store.close().await.unwrap();
    });
}
