// SPDX-License-Identifier: Apache-2.0
//! Behaviour of `file` and `ram`, with both backends of the engine.
use std::future::Future;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::process::Command;

use io_engine::{Backend, Engine, Started, TaskSet, ofd};
use proptest::prelude::*;
use rustix::fs::FileType;

use super::*;
use crate::{AnyStore, Discard, registry};

const K: u64 = 1024;

fn both<F: Future<Output = ()>>(test: impl Fn() -> F) {
    for backend in [Backend::IoUring, Backend::Pool] {
        Engine::new(backend).unwrap().block_on(test()).unwrap();
    }
}

fn image(size: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(size).unwrap();
    file
}

async fn open_path(path: &Path, options: OpenOptions) -> Result<AnyStore, Error> {
    registry::open(&format!("file/{}", path.display()), &options).await
}

async fn open_default(path: &Path) -> AnyStore {
    open_path(path, OpenOptions::default()).await.unwrap()
}

async fn bytes(store: &impl Store, offset: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0xee; len];
    store.read(&Sgl::from_slice(&mut buf), offset).await.unwrap();
    buf
}

async fn fill(store: &impl Store, offset: u64, len: usize, byte: u8) -> Result<(), Error> {
    let mut buf = vec![byte; len];
    store.write(&Sgl::from_slice(&mut buf), offset, false).await
}

#[test]
fn what_is_written_is_in_the_file() {
    both(|| async {
        let image = image(64 * K);
        let store = open_default(image.path()).await;
        fill(&store, 4 * K, 8192, 7).await.unwrap();
        let mut buf = [8; 512];
        store.write(&Sgl::from_slice(&mut buf), 512, true).await.unwrap();
        store.flush().await.unwrap();
        let content = std::fs::read(image.path()).unwrap();
        assert_eq!(content.len(), 64 * 1024);
        assert_eq!(&content[512..1024], &[8; 512]);
        assert!(content[4096..12288].iter().all(|&b| b == 7));
        store.close().await.unwrap();
    });
}

#[test]
fn a_discarded_range_takes_no_space_and_reads_as_zeroes() {
    both(|| async {
        let image = image(1024 * K);
        let store = open_default(image.path()).await;
        let facts = store.facts();
        let Some(Discard { granularity, zeroes: true }) = facts.discard else {
            panic!("{facts:?}: the temporary directory has to be on ext4, xfs, btrfs or tmpfs");
        };
        fill(&store, 0, 1 << 20, 1).await.unwrap();
        store.flush().await.unwrap();
        let full = image.as_file().metadata().unwrap().blocks();
        store.discard(256 * K, 512 * K).await.unwrap();
        assert_eq!(bytes(&store, 256 * K, 512 << 10).await, vec![0; 512 << 10]);
        let now = image.as_file().metadata().unwrap().blocks();
        assert!(now + 1024 <= full, "{full} -> {now} blocks");
        let there = |offset, len| store.provisioning(offset, len);
        assert_eq!(there(0, 1024 * K).await.unwrap(), (Provisioning::Mapped, 256 * K));
        let hole = there(300 * K, 1024 * K - 300 * K).await.unwrap();
        assert_eq!(hole, (Provisioning::Deallocated, 468 * K));
        assert_eq!(there(300 * K, 5).await.unwrap(), (Provisioning::Deallocated, 5));
        let unaligned = u64::from(granularity) + 100;
        store.discard(unaligned, 1000).await.unwrap();
        let around = bytes(&store, unaligned - 1, 1002).await;
        assert_eq!((around[0], around[1], around[1000], around[1001]), (1, 0, 0, 1));
    });
}

#[test]
fn zeroes_are_written_with_and_without_giving_up_space() {
    both(|| async {
        for size_known in [None, Some(512 * K)] {
            let image = image(512 * K);
            let options = OpenOptions { size: size_known, ..OpenOptions::default() };
            let store = open_path(image.path(), options).await.unwrap();
            for may_unmap in [false, true] {
                fill(&store, 0, 512 << 10, 3).await.unwrap();
                store.write_zeroes(1000, 300 * K, may_unmap).await.unwrap();
                let content = bytes(&store, 0, 512 << 10).await;
                let end = 1000 + (300 << 10);
                assert!(content[..1000].iter().all(|&b| b == 3));
                assert!(content[1000..end].iter().all(|&b| b == 0));
                assert!(content[end..].iter().all(|&b| b == 3));
            }
            assert_eq!(image.as_file().metadata().unwrap().len(), 512 * K);
        }
    });
}

#[test]
fn a_file_system_without_zero_range_gets_zeroes_written() {
    both(|| async {
        // A memfd's tmpfs has no FALLOC_FL_ZERO_RANGE.
        let options = OpenOptions { size: Some(1024 * K), ..OpenOptions::default() };
        let store = registry::open("ram/", &options).await.unwrap();
        fill(&store, 0, 1 << 20, 9).await.unwrap();
        store.write_zeroes(5, 700 * K, false).await.unwrap();
        let content = bytes(&store, 0, 1 << 20).await;
        let zeroes = content.iter().filter(|&&b| b == 0).count();
        assert_eq!((content[4], zeroes), (9, 700 << 10));
        let AnyStore::File(store) = store else { panic!() };
        assert!(!store.medium.zero.get(), "found out");
        assert!(store.facts().write_zeroes, "by holes still");
    });
}

#[test]
fn a_file_smaller_than_the_logical_unit_is_refused_and_a_larger_one_is_cut() {
    both(|| async {
        let image = image(64 * K);
        let options = |size| OpenOptions { size: Some(size), ..OpenOptions::default() };
        let e = open_path(image.path(), options(65 * K)).await.unwrap_err();
        assert!(e.to_string().contains("65536 bytes, which is less than the 66560 bytes"), "{e}");
        let store = open_path(image.path(), options(32 * K)).await.unwrap();
        assert_eq!(store.facts().size, 32 * K);
    });
}

#[test]
fn resizing_grows_the_file_and_never_cuts_it() {
    both(|| async {
        let image = image(64 * K);
        let store = open_default(image.path()).await;
        store.resize(100 * K).await.unwrap();
        assert_eq!(store.facts().size, 100 * K);
        assert_eq!(bytes(&store, 99 * K, 1024).await, [0; 1024]);
        fill(&store, 99 * K, 1024, 1).await.unwrap();
        store.resize(10 * K).await.unwrap();
        assert_eq!(store.facts().size, 10 * K);
        store.resize(100 * K).await.unwrap();
        assert_eq!(bytes(&store, 99 * K, 1024).await, [1; 1024]);
    });
}

#[test]
fn what_cannot_be_an_image_is_refused_by_check_and_by_open() {
    both(|| async {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, mode, 0).unwrap();
        for (path, text) in [
            (dir.path().join("missing"), "look up: No such file or directory (os error 2)"),
            (dir.path().to_owned(), "open: it is neither a regular file nor a block device"),
            (fifo, "open: it is neither a regular file nor a block device (Fifo)"),
            ("/dev/null".into(), "(CharacterDevice)"),
        ] {
            let opened = open_path(&path, OpenOptions::default()).await.unwrap_err().to_string();
            let checked =
                registry::check(&format!("file/{}", path.display()), &OpenOptions::default())
                    .unwrap_err();
            assert_eq!(opened, checked.to_string());
            assert!(opened.contains(text), "{opened}");
            assert!(opened.starts_with(&path.display().to_string()), "{opened}");
        }
        let e = registry::open("nosuch//x", &OpenOptions::default()).await.unwrap_err();
        assert!(e.to_string().contains("no subtype \"nosuch\"; there are file, "), "{e}");
    });
}

#[test]
fn an_image_that_may_not_be_written_is_opened_when_asked_for_read_only() {
    both(|| async {
        // Not writable for root either.
        let path = Path::new("/sys/kernel/uevent_seqnum");
        let e = open_path(path, OpenOptions::default()).await.unwrap_err();
        let text = "open for writing, which the daemon needs: Permission denied";
        assert!(e.to_string().contains(text), "{e}");
        assert_eq!(e.errno(), Some(libc::EACCES));
        let options = OpenOptions { read_only: true, ..OpenOptions::default() };
        let store = open_path(path, options).await.unwrap();
        assert!(store.facts().read_only && store.facts().discard.is_none());
        for e in [
            fill(&store, 0, 1, 0).await,
            store.discard(0, 1).await,
            store.write_zeroes(0, 1, true).await,
            store.resize(1 << 30).await,
        ] {
            assert!(matches!(e.unwrap_err().kind, ErrorKind::ReadOnly));
        }
        store.close().await.unwrap();
    });
}

#[test]
fn an_image_that_was_only_taken_to_be_raw_never_becomes_one_of_another_format() {
    both(|| async {
        let image = image(64 * K);
        let probed = OpenOptions { probed: true, ..OpenOptions::default() };
        let store = open_path(image.path(), probed).await.unwrap();
        let write = async |bytes: &[u8], offset| {
            store.write(&Sgl::from_slice(&mut bytes.to_vec()), offset, false).await
        };
        write(b"QFI", 0).await.unwrap();
        let mut forged = vec![0; 4096];
        forged[..4].copy_from_slice(b"QFI\xfb");
        for (bytes, offset) in [(&forged[..], 0), (&b"\xfb"[..], 3), (b"conectix", 0)] {
            let e = write(bytes, offset).await.unwrap_err();
            assert_eq!(e.errno(), Some(libc::EPERM), "{e}");
            assert!(e.to_string().contains("format=raw"), "{e}");
        }
        write(b"QEDx", 0).await.unwrap();
        for zeroed in [store.write_zeroes(3, 1, true).await, store.discard(3, 1).await] {
            assert!(matches!(zeroed.unwrap_err().kind, ErrorKind::Disguise("qed")));
        }
        assert_eq!(bytes(&store, 0, 4).await, b"QEDx");
        write(b"QFI\xfb", 512).await.unwrap();
        store.write_zeroes(0, 4096, true).await.unwrap();
        drop(store);
        // Its format is told.
        let store = open_default(image.path()).await;
        store.write(&Sgl::from_slice(&mut forged), 0, false).await.unwrap();
    });
}

#[test]
fn an_image_has_one_writer_and_is_free_again_when_that_goes() {
    let engine = Engine::new(Backend::Auto).unwrap();
    let one = async {
        let image = image(4 * K);
        let read_only = OpenOptions { read_only: true, ..OpenOptions::default() };
        let store = open_default(image.path()).await;
        for options in [OpenOptions::default(), read_only.clone()] {
            let e = open_path(image.path(), options).await.unwrap_err();
            assert!(
                e.to_string().contains("lock: it is in use by another program or device"),
                "{e}"
            );
            assert_eq!(e.errno(), Some(libc::EBUSY));
        }
        drop(store);
        // Two readers are fine, a writer beside them is not.
        let first = open_path(image.path(), read_only.clone()).await.unwrap();
        let second = open_path(image.path(), read_only).await.unwrap();
        open_path(image.path(), OpenOptions::default()).await.unwrap_err();
        drop((first, second));
        open_default(image.path()).await.close().await.unwrap();
    };
    engine.block_on(one).unwrap();
}

#[test]
fn an_image_that_is_soon_given_up_is_waited_for() {
    let engine = Engine::new(Backend::Auto).unwrap();
    let wait = async {
        let image = image(4 * K);
        let store = open_default(image.path()).await;
        let holder = std::thread::spawn({
            let AnyStore::File(FileStore { medium, .. }) = store else { panic!() };
            move || {
                std::thread::sleep(std::time::Duration::from_millis(300));
                drop(medium);
            }
        });
        open_default(image.path()).await;
        holder.join().unwrap();
    };
    engine.block_on(wait).unwrap();
}

/// The options of the one that takes the place of `store`.
fn after(store: &AnyStore) -> OpenOptions {
    OpenOptions { predecessor: Some(store.held()), ..OpenOptions::default() }
}

/// Whether another program could write the image; takes no lock.
fn is_free(image: &Path) -> bool {
    let file = std::fs::File::open(image).unwrap();
    ![100, 101, 103, 201, 203].iter().any(|&at| ofd::is_locked(file.as_fd(), at).unwrap())
}

#[test]
fn an_image_is_handed_to_its_successor_by_whatever_name() {
    both(|| async {
        let image = image(64 * K);
        let dir = tempfile::tempdir_in(image.path().parent().unwrap()).unwrap();
        let (soft, hard) = (dir.path().join("soft"), dir.path().join("hard"));
        std::os::unix::fs::symlink(image.path(), &soft).unwrap();
        std::fs::hard_link(image.path(), &hard).unwrap();
        let mut store = open_default(image.path()).await;
        for (round, path) in [image.path(), &soft, &hard, image.path()].into_iter().enumerate() {
            let byte = u8::try_from(round).unwrap() + 1;
            fill(&store, 0, 512, byte).await.unwrap();
            let successor = open_path(path, after(&store)).await.unwrap();
            assert!(successor.held().overlaps(&store.held()));
            store = successor;
            assert!(!is_free(image.path()));
            assert_eq!(bytes(&store, 0, 512).await, [byte; 512]);
        }
        // From writing to reading and back.
        let reading =
            |predecessor| OpenOptions { read_only: true, predecessor, ..OpenOptions::default() };
        store = open_path(image.path(), reading(Some(store.held()))).await.unwrap();
        let beside = open_path(image.path(), reading(None)).await.unwrap();
        let e = open_path(image.path(), after(&store)).await.unwrap_err();
        assert_eq!(e.errno(), Some(libc::EBUSY), "{e}");
        drop(beside);
        open_path(image.path(), reading(None)).await.expect("what was refused left no locks");
        store = open_path(image.path(), after(&store)).await.unwrap();
        fill(&store, 0, 512, 9).await.unwrap();
        drop(store);
        assert!(is_free(image.path()));
    });
}

#[test]
fn a_successor_that_does_not_open_leaves_the_image_locked() {
    both(|| async {
        let image = image(64 * K);
        for read_only in [false, true] {
            let options = OpenOptions { read_only, ..OpenOptions::default() };
            let store = open_path(image.path(), options).await.unwrap();
            let too_large = OpenOptions { size: Some(128 * K), ..after(&store) };
            open_path(image.path(), too_large).await.unwrap_err();
            assert!(!is_free(image.path()));
            assert_eq!(bytes(&store, 0, 512).await, [0; 512]);
        }
    });
}

#[test]
fn a_successor_does_not_wait_for_an_image_that_another_has() {
    both(|| async {
        let (mine, other) = (image(64 * K), image(64 * K));
        let (store, _other) = (open_default(mine.path()).await, open_default(other.path()).await);
        let began = std::time::Instant::now();
        let e = open_path(other.path(), after(&store)).await.unwrap_err();
        assert_eq!(e.errno(), Some(libc::EBUSY), "{e}");
        assert!(began.elapsed() < std::time::Duration::from_secs(1), "{:?}", began.elapsed());
    });
}

#[test]
fn an_image_can_be_read_beside_its_writer_without_locks() {
    both(|| async {
        let image = image(64 * K);
        let writer = open_default(image.path()).await;
        let unlocked =
            OpenOptions { read_only: true, locking: Locking::None, ..OpenOptions::default() };
        let reader = open_path(image.path(), unlocked.clone()).await.unwrap();
        fill(&writer, 0, 512, 3).await.unwrap();
        assert_eq!(bytes(&reader, 0, 512).await, [3; 512]);
        drop(writer);
        assert!(is_free(image.path()));
        open_default(image.path()).await;
    });
}

#[test]
fn qemu_img_refuses_an_image_that_is_served() {
    let engine = Engine::new(Backend::Auto).unwrap();
    let run = async {
        let image = image(64 * K);
        let qemu_img = |args: &[&str]| {
            let mut command = Command::new("qemu-img");
            command.args(args).arg(image.path());
            if args[0] == "resize" {
                command.arg("128K");
            }
            command.output().expect("install qemu-utils: this test runs qemu-img")
        };
        let store = open_default(image.path()).await;
        let refused = qemu_img(&["resize", "-f", "raw"]);
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && text.contains("lock"), "{text}");
        assert!(qemu_img(&["info", "-U"]).status.success());
        drop(store);
        assert!(qemu_img(&["resize", "-f", "raw"]).status.success());
    };
    engine.block_on(run).unwrap();
}

#[test]
fn errors_say_what_was_done_to_which_file() {
    both(|| async {
        let store = |path: &str| {
            let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
            let image = Image::memory(file.into(), 1 << 20);
            FileStore::from_image(image, Path::new(path), &OpenOptions::default()).unwrap()
        };
        let e = fill(&store("/dev/full"), 8, 16, 0).await.unwrap_err();
        assert_eq!(e.errno(), Some(libc::ENOSPC));
        assert_eq!(
            e.to_string(),
            "/dev/full: write 16 bytes at 8: No space left on device (os error 28)"
        );
        // Nothing is mapped at address 0.
        let broken = store("/proc/self/mem");
        let mut buf = [0; 16];
        let e = broken.read(&Sgl::from_slice(&mut buf), 0).await.unwrap_err();
        assert_eq!(e.errno(), Some(libc::EIO));
        assert!(
            e.to_string().starts_with("/proc/self/mem: read 16 bytes at 0: Input/output"),
            "{e}"
        );
    });
}

#[test]
fn a_file_that_was_cut_off_behind_our_back_is_an_error_not_zeroes() {
    both(|| async {
        let image = image(64 * K);
        let store = open_default(image.path()).await;
        image.as_file().set_len(10 * K).unwrap();
        let mut buf = [0; 1024];
        store.read(&Sgl::from_slice(&mut buf), 9 * K).await.unwrap();
        let e = store.read(&Sgl::from_slice(&mut buf), 9 * K + 512).await.unwrap_err();
        assert!(e.to_string().contains("the file ends at 10240: it was cut off"), "{e}");
    });
}

#[test]
fn commands_run_side_by_side_on_one_image() {
    both(|| async {
        let image = image(1024 * K);
        let store = open_default(image.path()).await;
        let store = &store;
        let mut set = TaskSet::new();
        let (mut running, mut finished) = (0, 0);
        for i in 0..256u64 {
            let started = set.push(async move {
                let byte = i.to_le_bytes()[0];
                let mut buf = vec![byte; 4096];
                store.write(&Sgl::from_slice(&mut buf), i * 4 * K, i % 3 == 0).await.unwrap();
                assert_eq!(bytes(store, i * 4 * K, 4096).await, buf);
                if i % 16 == 0 {
                    store.flush().await.unwrap();
                }
            });
            match started {
                Started::Done(()) => finished += 1,
                Started::Running(_) => running += 1,
            }
        }
        for _ in 0..running {
            set.next().await;
        }
        assert_eq!(finished + running, 256);
        let content = std::fs::read(image.path()).unwrap();
        for (i, block) in content.chunks(4096).enumerate() {
            assert!(block.iter().all(|&b| b == i.to_le_bytes()[0]), "block {i}");
        }
    });
}

#[test]
fn null_is_zeroes_of_any_size() {
    both(|| async {
        let options = OpenOptions { size: Some(1 << 40), ..OpenOptions::default() };
        let store = registry::open("null/", &options).await.unwrap();
        fill(&store, 1 << 39, 4096, 1).await.unwrap();
        assert_eq!(bytes(&store, 1 << 39, 4096).await, [0; 4096]);
        store.resize(1 << 41).await.unwrap();
        assert_eq!(store.facts().size, 1 << 41);
        registry::open("null/x", &options).await.unwrap_err();
    });
}

#[test]
fn ram_has_the_size_of_its_string_and_none_of_its_content_at_first() {
    both(|| async {
        let none = OpenOptions::default();
        let store = registry::open("ram//1T", &none).await.unwrap();
        assert_eq!(store.facts().size, 1 << 40);
        let nothing = store.provisioning(0, 1 << 40).await.unwrap();
        assert_eq!(nothing, (Provisioning::Deallocated, 1 << 40));
        fill(&store, (1 << 40) - 4096, 4096, 1).await.unwrap();
        let data = store.provisioning((1 << 40) - 4096, 4096).await.unwrap();
        assert_eq!(data, (Provisioning::Mapped, 4096));
        let e = registry::open("ram/", &none).await.unwrap_err();
        assert!(e.to_string().contains("it has no size"), "{e}");
        let small = OpenOptions { size: Some(2 * K), ..none };
        assert_eq!(registry::open("ram//4K", &small).await.unwrap().facts().size, 2 * K);
        registry::open("ram//1K", &small).await.unwrap_err();
    });
}

#[test]
fn memory_keeps_its_content_when_its_configuration_changes() {
    both(|| async {
        let mut store = registry::open("ram//4K", &OpenOptions::default()).await.unwrap();
        fill(&store, 1024, 512, 7).await.unwrap();
        for (config, size) in [("ram//4K;tcmur_cmd_time_out=3", 4 * K), ("ram//8K", 8 * K)] {
            store = registry::open(config, &after(&store)).await.unwrap();
            assert_eq!((store.facts().size, bytes(&store, 1024, 512).await), (size, vec![7; 512]));
        }
        assert_eq!(bytes(&store, 7 * K, 512).await, [0; 512]);
    });
}

/// Loop devices need root: `cargo test -p store -- --ignored`.
#[test]
#[ignore = "needs root and loop devices"]
fn a_block_device_is_served_as_a_file_is() {
    both(|| async {
        let image = image(1024 * K);
        let losetup = |args: &[&str]| {
            let output = Command::new("losetup").args(args).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let device = losetup(&["--find", "--show", image.path().to_str().unwrap()]);
        let store = open_default(Path::new(&device)).await;
        let facts = store.facts();
        assert_eq!(facts.size, 1024 * K);
        assert!(matches!(facts.discard, Some(Discard { zeroes: false, .. })), "{facts:?}");
        fill(&store, 0, 1 << 20, 5).await.unwrap();
        for may_unmap in [false, true] {
            store.write_zeroes(700, 100 * K, may_unmap).await.unwrap();
            let content = bytes(&store, 0, 200 << 10).await;
            assert!(content[..700].iter().all(|&b| b == 5));
            assert!(content[700..700 + (100 << 10)].iter().all(|&b| b == 0));
            assert!(content[700 + (100 << 10)..].iter().all(|&b| b == 5));
        }
        store.discard(100, 100).await.unwrap();
        assert_eq!(bytes(&store, 100, 100).await, [5; 100]);
        store.discard(256 * K, 512 * K).await.unwrap();
        store.flush().await.unwrap();
        assert_eq!(store.provisioning(0, 4096).await.unwrap(), (Provisioning::Mapped, 4096));
        let e = store.resize(2048 * K).await.unwrap_err();
        assert!(e.to_string().contains("the block device has 1048576 bytes"), "{e}");
        let e = open_path(Path::new(&device), OpenOptions::default()).await.unwrap_err();
        assert!(e.to_string().contains("it is in use"), "{e}");
        // The claim of a block device passes to a successor, and back after its end.
        let successor = open_path(Path::new(&device), after(&store)).await.unwrap();
        drop(store);
        fill(&successor, 0, 512, 6).await.unwrap();
        successor.flush().await.unwrap();
        let beside = std::fs::File::options();
        let excl = |mut options: std::fs::OpenOptions| {
            options.read(true).write(true).custom_flags(libc::O_EXCL).open(&device)
        };
        assert_eq!(excl(beside).unwrap_err().raw_os_error(), Some(libc::EBUSY));
        let other = open_path(image.path(), after(&successor)).await.unwrap();
        drop(successor);
        let store = open_path(Path::new(&device), after(&other)).await.unwrap();
        assert_eq!(bytes(&store, 0, 512).await, [6; 512]);
        drop(store);
        losetup(&["--detach", &device]);
    });
}

#[derive(Clone, Debug)]
enum Step {
    Write { offset: usize, len: usize, byte: u8, fua: bool },
    Read { offset: usize, len: usize },
    Discard { offset: usize, len: usize },
    Zero { offset: usize, len: usize, may_unmap: bool },
    Grow { by: usize },
    Flush,
}

const SIZE: usize = 96 * 1024;

fn step() -> impl Strategy<Value = Step> {
    let range = || (0..SIZE, 0..SIZE / 3);
    prop_oneof![
        4 => (range(), any::<u8>(), any::<bool>())
            .prop_map(|((offset, len), byte, fua)| Step::Write { offset, len, byte, fua }),
        3 => range().prop_map(|(offset, len)| Step::Read { offset, len }),
        2 => range().prop_map(|(offset, len)| Step::Discard { offset, len }),
        2 => (range(), any::<bool>())
            .prop_map(|((offset, len), may_unmap)| Step::Zero { offset, len, may_unmap }),
        1 => (1..5000usize).prop_map(|by| Step::Grow { by }),
        1 => Just(Step::Flush),
    ]
}

async fn follow(store: &impl Store, steps: &[Step]) {
    let mut model = vec![0u8; SIZE];
    for step in steps {
        let clip = |offset: usize, len: usize| offset..(offset + len).min(model.len());
        match *step {
            Step::Write { offset, len, byte, fua } => {
                let range = clip(offset, len);
                model[range.clone()].fill(byte);
                let mut buf = vec![byte; range.len()];
                let (half, rest) = buf.split_at_mut(range.len() / 2);
                let data = Sgl::from_slices([half, rest]);
                store.write(&data, offset as u64, fua).await.unwrap();
            }
            Step::Read { offset, len } => {
                let range = clip(offset, len);
                assert_eq!(bytes(store, offset as u64, range.len()).await, model[range]);
            }
            Step::Discard { offset, len } => {
                let range = clip(offset, len);
                store.discard(offset as u64, range.len().max(1) as u64).await.unwrap();
                model[offset..range.end.max(offset + 1)].fill(0);
            }
            Step::Zero { offset, len, may_unmap } => {
                let range = clip(offset, len);
                store.write_zeroes(offset as u64, range.len() as u64, may_unmap).await.unwrap();
                model[range].fill(0);
            }
            Step::Grow { by } => {
                store.resize((model.len() + by) as u64).await.unwrap();
                model.resize(model.len() + by, 0);
            }
            Step::Flush => store.flush().await.unwrap(),
        }
    }
    assert_eq!(bytes(store, 0, model.len()).await, model);
    // The answers of provisioning cover everything, and holes are zeroes.
    let (mut at, end) = (0, model.len() as u64);
    while at < end {
        let (kind, len) = store.provisioning(at, end - at).await.unwrap();
        assert!(len > 0 && at + len <= end);
        let range = usize::try_from(at).unwrap()..usize::try_from(at + len).unwrap();
        assert!(kind == Provisioning::Mapped || model[range].iter().all(|&b| b == 0));
        at += len;
    }
}

/// A worker of io_uring may hold the file for seconds after its last operation; the locks end all
/// the same.
#[test]
fn an_image_that_was_closed_can_be_opened_at_once() {
    both(|| async {
        let image = image(1 << 20);
        for round in 0..500 {
            let began = std::time::Instant::now();
            let store = open_default(image.path()).await;
            fill(&store, 0, 4096, 1).await.unwrap();
            store.flush().await.unwrap();
            drop(store);
            let place = Place::find(image.path()).unwrap();
            let first = super::open::open_once(&place, false, true, None).unwrap();
            assert!(first.is_some(), "round {round}, {:?} after it began", began.elapsed());
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn file_and_ram_behave_as_an_array_of_bytes(steps in prop::collection::vec(step(), 1..40)) {
        both(|| async {
            let image = image(SIZE as u64);
            follow(&open_default(image.path()).await, &steps).await;
            let ram = registry::open("ram//96K", &OpenOptions::default()).await.unwrap();
            follow(&ram, &steps).await;
        });
    }
}
