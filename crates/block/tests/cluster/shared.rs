// SPDX-License-Identifier: Apache-2.0
//! Formats on an image of the cluster that two hosts have open, which pass its exclusive lock on.
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;

use block::exclusive::ExclusiveLock;
use block::{AnyStore, ErrorClass, OpenOptions, Store};
use sgl::Sgl;

use crate::lock::{giving, owner, shut_out};
use crate::servers::{Ceph, ceph};
use crate::{MIB, open, read, refused, run, write};

/// Of the disks, in bytes: more than the images have at first that they lie on.
const SIZE: u64 = 64 * MIB;

fn succeeds(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

/// Makes a qcow2 image in an image of the cluster that has less than the disk.
fn make_qcow2(cluster: &Ceph, name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image");
    let create = ["create", "-q", "-f", "qcow2"];
    succeeds(Command::new("qemu-img").args(create).arg(&file).arg(SIZE.to_string()));
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(4 * MIB).unwrap();
    cluster.rbd(&["import", "--no-progress", file.to_str().unwrap(), name]);
}

/// Makes a LUKS volume in an image of the cluster; `key` becomes the file with its passphrase.
fn make_luks(cluster: &Ceph, name: &str, key: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(key, "of both hosts").unwrap();
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let file = key.with_extension("volume");
    std::fs::File::create(&file).unwrap().set_len(16 * MIB + SIZE).unwrap();
    let quick = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
    let mut format = Command::new("cryptsetup");
    format.args(["luksFormat", "-q", "--sector-size", "4096"]).args(quick);
    succeeds(format.arg("--key-file").arg(key).arg(&file));
    cluster.rbd(&["import", "--no-progress", file.to_str().unwrap(), name]);
}

/// What `qemu-img` says of an image as it lies in the cluster: that it has no errors, and no clusters
/// that nothing uses if it was closed. Returns the disk.
fn checked(cluster: &Ceph, name: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (file, raw) = (dir.path().join("image"), dir.path().join("raw"));
    std::fs::write(&file, cluster.export(name)).unwrap();
    let said = succeeds(Command::new("qemu-img").args(["check", "-f", "qcow2"]).arg(&file));
    assert!(said.contains("No errors were found"), "{said}");
    let convert = ["convert", "-f", "qcow2", "-O", "raw"];
    succeeds(Command::new("qemu-img").args(convert).args([&file, &raw]));
    std::fs::read(raw).unwrap()
}

async fn host(config: &str) -> (AnyStore, Rc<dyn ExclusiveLock>) {
    let store = open(config).await.unwrap();
    let lock = store.lock().expect("it passes the lock on");
    (store, lock)
}

/// Where a turn writes: clusters, and parts of some.
fn place(turn: u8) -> u64 {
    u64::from(turn) * 3 * MIB + 45_056
}
const LEN: usize = 73_728;

/// Two hosts in turn, each of which reads what all wrote before it, and writes; what the other one still
/// has to write is refused, and what it reads is right or refused.
async fn take_turns(config: &str, reads_without: bool) {
    let (a, of_a) = host(config).await;
    let (b, of_b) = host(config).await;
    for turn in 0..8u8 {
        let mut hosts = [(&a, &of_a, 7), (&b, &of_b, 8)];
        hosts.rotate_left(usize::from(turn % 2 == 1));
        let [(store, lock, group), (other, others, _)] = hosts;
        giving(&**others, lock.acquire(group)).await.unwrap();
        let view = lock.view();
        assert_eq!((view.ours, view.group, view.losses), (true, Some(group), 0));
        for before in 0..turn {
            assert_eq!(read(store, place(before), LEN).await, [before + 1; LEN]);
        }
        write(store, turn + 1, place(turn), LEN).await.unwrap();
        // The other host has taken the lock for a group, too, but at first.
        if turn == 0 {
            continue;
        }
        let late = write(other, 99, place(turn), 4096).await.unwrap_err();
        assert_eq!(late.class(), ErrorClass::Fenced, "{late}");
        let mut data = vec![0; LEN];
        match other.read(&Sgl::from_slice(&mut data), place(turn)).await {
            Ok(()) => assert!(reads_without && data == [turn + 1; LEN]),
            Err(late) => assert!(!reads_without && late.class() == ErrorClass::Fenced, "{late}"),
        }
    }
    // The second one has the lock, and does not answer.
    of_a.acquire(7).await.unwrap();
    assert_eq!(read(&a, place(7), LEN).await, [8; LEN]);
    write(&a, 50, 0, 200_704).await.unwrap();
    // It believes that it has it.
    assert!(of_b.view().ours);
    let late = write(&b, 99, 0, 200_704).await.unwrap_err();
    assert_eq!(late.class(), ErrorClass::Fenced, "{late}");
    assert_eq!((of_b.view().ours, of_b.view().losses), (false, 1));
    let late = write(&b, 99, 4096, 4096).await.unwrap_err();
    assert_eq!(late.class(), ErrorClass::Fenced, "{late}");
    assert_eq!(read(&a, 0, 200_704).await, [50; 200_704]);
    giving(&*of_a, of_b.acquire(8)).await.unwrap();
    assert_eq!(read(&b, 0, 200_704).await, [50; 200_704]);
    write(&b, 51, 4096, 4096).await.unwrap();
    let closed = a.close().await;
    assert!(reads_without || closed.is_ok(), "{closed:?}");
    b.close().await.unwrap();
}

/// What a disk has after [`take_turns`].
fn has_all(disk: &[u8]) {
    assert_eq!(disk[..12_288], [[50; 4096], [51; 4096], [50; 4096]].concat());
    // The first turn wrote where the last host did.
    assert!(disk[12_288..200_704].iter().all(|&byte| byte == 50));
    for turn in 1..8 {
        let from = place(turn) as usize;
        assert!(disk[from..from + LEN].iter().all(|&byte| byte == turn + 1), "{turn}");
    }
}

#[test]
fn hosts_take_turns_on_a_qcow2_image_which_stays_whole() {
    let cluster = ceph();
    make_qcow2(cluster, "turns");
    run(take_turns(&format!("qcow/{}", cluster.config("turns")), false));
    has_all(&checked(cluster, "turns"));
}

#[test]
fn hosts_take_turns_on_a_luks_volume() {
    let cluster = ceph();
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    make_luks(cluster, "secret", &key);
    let config = format!("luks/{};secret-file={}", cluster.config("secret"), key.display());
    run(async {
        take_turns(&config, true).await;
        let (store, _) = host(&config).await;
        has_all(&read(&store, 0, SIZE as usize).await);
    });
}

#[test]
fn without_groups_the_lock_of_a_qcow2_image_goes_to_who_uses_it() {
    let cluster = ceph();
    make_qcow2(cluster, "groupless");
    let config = format!("qcow/{}", cluster.config("groupless"));
    run(async {
        let (a, of_a) = host(&config).await;
        let (b, of_b) = host(&config).await;
        write(&a, 1, 0, 70_000).await.unwrap();
        let first = owner(cluster, "groupless");
        assert!(!of_a.view().ours && of_a.view().group.is_none(), "it is held for no group");
        // It is given to whoever asks.
        assert_eq!(giving(&*of_a, read(&b, 0, 70_000)).await, [1; 70_000]);
        giving(&*of_a, write(&b, 2, 35_000, 70_000)).await.unwrap();
        let [left, right] = [[1; 35_000], [2; 35_000]];
        assert_eq!(giving(&*of_b, read(&a, 0, 70_000)).await, [left, right].concat());
        assert!(!shut_out(cluster).contains(&first), "{first}");
        // One that does not answer is shut out. The next use asks for the lock.
        assert_eq!(read(&b, 70_000, 35_000).await, [2; 35_000]);
        let late = write(&a, 3, 0, 70_000).await.unwrap_err();
        assert_eq!(late.class(), ErrorClass::Fenced, "{late}");
        giving(&*of_b, write(&a, 3, 0, 512)).await.unwrap();
        assert_eq!(giving(&*of_a, read(&b, 0, 512)).await, [3; 512]);
        // For a group it is held all the same.
        giving(&*of_b, of_a.acquire(7)).await.unwrap();
        assert_eq!(read(&a, 512, 512).await, [1; 512]);
        of_a.leave().await;
        write(&b, 4, 512, 512).await.unwrap();
        giving(&*of_b, a.resize(SIZE + MIB)).await.unwrap();
        a.close().await.unwrap();
        b.close().await.unwrap();
    });
    let disk = checked(cluster, "groupless");
    assert_eq!(
        (disk.len() as u64, &disk[..1024]),
        (SIZE + MIB, &[[3; 512], [4; 512]].concat()[..])
    );
}

#[test]
fn a_host_that_comes_later_changes_nothing_and_follows_the_size() {
    let cluster = ceph();
    make_qcow2(cluster, "later");
    let config = format!("qcow/{}", cluster.config("later"));
    run(async {
        let (a, of_a) = host(&config).await;
        of_a.acquire(7).await.unwrap();
        write(&a, 1, 0, 512).await.unwrap();
        let sized = OpenOptions { size: Some(SIZE), ..OpenOptions::default() };
        let b = block::open(&config, &sized).await.unwrap();
        assert_eq!(b.facts(), a.facts());
        assert!(!b.facts().read_only && b.facts().discard.is_some());
        let of_b = b.lock().unwrap();
        giving(&*of_a, of_b.acquire(8)).await.unwrap();
        giving(&*of_b, of_a.acquire(7)).await.unwrap();
        let early = b.resize(SIZE + MIB).await.unwrap_err();
        assert_eq!(early.class(), ErrorClass::Fenced, "{early}");
        a.resize(SIZE + MIB).await.unwrap();
        b.resize(SIZE + MIB).await.unwrap();
        assert_eq!(b.facts().size, SIZE + MIB);
        giving(&*of_a, of_b.acquire(8)).await.unwrap();
        write(&b, 2, SIZE, 512).await.unwrap();
        b.close().await.unwrap();
    });
    assert_eq!(checked(cluster, "later").len() as u64, SIZE + MIB);
}

#[test]
fn a_qcow2_image_where_there_is_no_lock_is_only_read() {
    let cluster = ceph();
    make_qcow2(cluster, "lockless");
    let features = ["object-map", "exclusive-lock"];
    cluster.rbd(&[&["feature", "disable", "lockless", "fast-diff"], &features[..]].concat());
    let config = format!("qcow/{}", cluster.config("lockless"));
    let said = refused(&config);
    assert!(said.contains("rbd feature enable IMAGE exclusive-lock"), "{said}");
    let read_only = OpenOptions { read_only: true, ..OpenOptions::default() };
    run(async { read(&block::open(&config, &read_only).await.unwrap(), 0, 512).await });
}
