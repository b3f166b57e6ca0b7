// SPDX-License-Identifier: Apache-2.0
//! Calls of a plugin that does everything right.
use block::exclusive::{ExclusiveLock, LockError, LockView};
use block::{Disk, ErrorKind, Store, disk};
use sgl::Sgl;
use tcmu_plugin::{Operation, PluginStore, Scope, Status};

use crate::support::{Right, SIZE, bytes, memory, pattern, read_back_side_by_side, run, until};

async fn write_and_read_back(store: &PluginStore) {
    let pattern = pattern(8192, 0);
    store.write(&memory(&pattern), 4096, true).await.unwrap();
    let back = Sgl::zeroed(8192);
    store.read(&back, 4096).await.unwrap();
    assert_eq!(bytes(&back), pattern);
    // Memory that is merely borrowed.
    let (mut a, mut b) = (vec![7; 512], vec![9; 1024]);
    store.write(&Sgl::from_slices([&mut a[..], &mut b[..]]), 0, false).await.unwrap();
    let mut back = vec![0; 1536];
    store.read(&Sgl::from_slice(&mut back), 0).await.unwrap();
    assert_eq!((&back[..512], &back[512..]), (&a[..], &b[..]));
    store.flush().await.unwrap();
}

#[test]
fn a_handler_with_threads_reads_and_writes() {
    let right = Right::new();
    run(async {
        let device = right.device("psync").await;
        let store = device.store();
        write_and_read_back(&store).await;
        assert_eq!(right.counts().flushed, 2, "FUA is a flush");
        store.discard(0, 4096).await.unwrap();
        store.write_zeroes(8192, 4096, false).await.unwrap();
        assert_eq!((right.counts().unmapped, right.counts().same), (1, 1));
        let back = Sgl::zeroed(512);
        store.read(&back, 8192).await.unwrap();
        assert!(back.is_zero());
        store.close().await.unwrap();
        assert_eq!((right.counts().opened, right.counts().closed), (1, 1));
        store.close().await.unwrap();
        assert_eq!(right.counts().closed, 1, "it is closed once");
        let gone = store.read(&back, 0).await.unwrap_err();
        assert_eq!(gone.errno(), Some(libc::EBUSY), "nothing goes to it any more");
    });
}

#[test]
fn a_handler_unmaps_no_more_at_once_than_it_has_said() {
    let right = Right::new();
    run(async {
        let device = right.device("psync").await;
        let store = device.store();
        store.write(&memory(&[1; 65536]), 0, false).await.unwrap();
        // It has said 16 blocks.
        store.discard(4096, 3 * 8192 + 512).await.unwrap();
        assert_eq!(right.counts().unmapped, 4);
        let back = Sgl::zeroed(65536);
        store.read(&back, 0).await.unwrap();
        let bytes = bytes(&back);
        let end = 4096 + 3 * 8192 + 512;
        assert!(bytes[4096..end].iter().all(|&byte| byte == 0));
        assert!(bytes[..4096].iter().chain(&bytes[end..]).all(|&byte| byte == 1));
        store.close().await.unwrap();
    });
}

#[test]
fn a_handler_without_threads_completes_from_its_own() {
    let right = Right::new();
    run(async {
        let device = right.device("pasync").await;
        write_and_read_back(&device.store()).await;
        device.store().close().await.unwrap();
    });
}

#[test]
fn many_commands_are_under_way_at_once() {
    let right = Right::new();
    for subtype in ["psync", "pasync"] {
        run(async {
            let device = right.device(subtype).await;
            read_back_side_by_side(&device, 300).await;
            device.store().close().await.unwrap();
        });
    }
}

#[test]
fn a_disk_on_it_keeps_to_its_blocks_and_grows() {
    let right = Right::new();
    run(async {
        let device = right.device("psync").await;
        let disk = Disk::new(device.store(), "a", disk::Options::default());
        assert_eq!((disk.size(), disk.facts().request_alignment), (SIZE, 512));
        // Not aligned: whole blocks are read and written.
        disk.write(&memory(b"middle"), 700, false).await.unwrap();
        let back = Sgl::zeroed(6);
        disk.read(&back, 700).await.unwrap();
        assert_eq!(bytes(&back), b"middle");
        assert!(disk.resize(2 * SIZE).await.unwrap());
        disk.write(&memory(&[1; 512]), 2 * SIZE - 512, false).await.unwrap();
        assert_eq!(std::fs::metadata(&right.file).unwrap().len(), 2 * SIZE);
        disk.close().await.unwrap();
    });
}

#[test]
fn a_handler_that_tells_of_another_size_is_believed() {
    let right = Right::new();
    run(async {
        let device = right.device("pcmd").await;
        let disk = Disk::new(device.store(), "a", disk::Options::default());
        let cdb = [0xc2, 0, 0, 0, 0, 0];
        let grow = device.execute((1, &cdb), Operation::HandleCommand, &Sgl::empty()).await;
        assert_eq!(grow.status, Status::OK);
        assert!(matches!(disk.event().await, block::Event::Resized));
        assert_eq!(disk.size(), SIZE / 2 * 3);
        disk.close().await.unwrap();
    });
}

#[test]
fn compare_and_write_is_the_handlers_and_says_where_bytes_differ() {
    let right = Right::new();
    run(async {
        let device = right.device("psync").await;
        let store = device.store();
        let halves = |a: u8, b: u8| memory(&[[a; 512], [b; 512]].concat());
        let first = store.compare_and_write(&halves(0, 5), 512).await.unwrap().unwrap();
        assert_eq!(first, None);
        let list = halves(5, 6);
        list.write_at(300, &[1]);
        let differs = store.compare_and_write(&list, 512).await.unwrap().unwrap();
        assert_eq!(differs, Some(300));
        let back = Sgl::zeroed(512);
        store.read(&back, 512).await.unwrap();
        assert_eq!((bytes(&back), right.counts().compared), (vec![5; 512], 2));
        store.close().await.unwrap();
        let device = right.device("pasync").await;
        assert!(device.store().compare_and_write(&halves(5, 0), 512).await.is_none());
        device.store().close().await.unwrap();
    });
}

#[test]
fn a_handler_sees_every_cdb_and_has_sense_of_its_own() {
    let right = Right::new();
    run(async {
        let device = right.device("pcmd").await;
        let ask = |opcode: u8| {
            let device = device.clone();
            async move {
                let cdb = [opcode, 0, 0, 0, 0, 0];
                device.execute((3, &cdb), Operation::HandleCommand, &Sgl::empty()).await
            }
        };
        let own = ask(0xc0).await;
        let sense = own.sense.unwrap();
        let (code, key, asc, ascq) = (sense[0], sense[2], sense[12], sense[13]);
        assert_eq!(own.status, Status(2));
        assert_eq!((code, key, asc, ascq), (0x70, 0x0b, 0x12, 0x34));
        assert_eq!(ask(0xc1).await.status, Status::OK, "it was completed later");
        assert_eq!(ask(0x28).await.status, Status::NOT_HANDLED);
        device.store().close().await.unwrap();
    });
}

#[test]
fn a_handler_sees_that_a_command_of_its_has_taken_too_long() {
    let right = Right::new();
    run(async {
        let device = right.device("pcmd").await;
        let ends_when_overdue = {
            let device = device.clone();
            async move {
                let cdb = [0xc8, 0, 0, 0, 0, 0];
                device.execute((3, &cdb), Operation::HandleCommand, &Sgl::empty()).await.status
            }
        };
        let mut tasks = io_engine::TaskSet::new();
        assert!(matches!(tasks.push(ends_when_overdue), io_engine::Started::Running(_)));
        device.time_out(2);
        device.time_out(3);
        assert_eq!(tasks.next().await.1, Status::OK);
        device.time_out(3);
        device.store().close().await.unwrap();
    });
}

#[test]
fn compound_commands_of_a_passthrough_handler_are_checked_and_handed_on() {
    let right = Right::new();
    run(async {
        let device = right.device("ppass").await;
        let execute = |cdb: [u8; 16], buffer: Vec<u8>| {
            let device = device.clone();
            async move {
                let finished =
                    device.execute((3, &cdb), Operation::HandleCommand, &memory(&buffer)).await;
                (finished.status, finished.sense)
            }
        };
        // WRITE SAME (16), LBA and number of blocks.
        let same = |lba: u8, blocks: u8| {
            let mut cdb = [0; 16];
            (cdb[0], cdb[9], cdb[13]) = (0x93, lba, blocks);
            cdb
        };
        assert_eq!(execute(same(8, 4), vec![3; 512]).await.0, Status::OK);
        assert_eq!(execute(same(8, 4), vec![3; 100]).await.0, Status::INVALID_CDB);
        let mut past = same(0, 1);
        past[2] = 1;
        assert_eq!(execute(past, vec![3; 512]).await.0, Status::RANGE);
        assert_eq!(right.counts().same, 1);
        let image = std::fs::read(&right.file).unwrap();
        assert!(image[8 * 512..12 * 512].iter().all(|&byte| byte == 3) && image[12 * 512] == 0);
        // COMPARE AND WRITE.
        let mut cdb = same(8, 1);
        cdb[0] = 0x89;
        assert_eq!(execute(cdb, [[3; 512], [4; 512]].concat()).await.0, Status::OK);
        let (status, sense) = execute(cdb, [[3; 512], [4; 512]].concat()).await;
        assert_eq!((status, sense.unwrap()[0] & 0x80), (Status::MISCOMPARE, 0x80));
        assert_eq!(execute(cdb, vec![3; 512]).await.0, Status::INVALID_CDB);
        assert_eq!(execute([0x28; 16], Vec::new()).await.0, Status::NOT_HANDLED);
        device.store().close().await.unwrap();
    });
}

#[test]
fn a_handler_that_only_reads_is_read_only() {
    let right = Right::new();
    run(async {
        let device = right.device("pread").await;
        let disk = Disk::new(device.store(), "a", disk::Options::default());
        assert!(disk.read_only());
        let refused = disk.write(&memory(&[1; 512]), 0, false).await.unwrap_err();
        assert!(matches!(refused.kind, ErrorKind::ReadOnly));
        disk.close().await.unwrap();
    });
}

#[test]
fn another_file_is_taken_or_refused() {
    let right = Right::new();
    run(async {
        let device = right.device("psync").await;
        let other = right.built.path().join("other.img");
        std::fs::write(&other, vec![8; usize::try_from(SIZE).unwrap()]).unwrap();
        let refused = device.reconfigure("psync//no/such").await.unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOENT));
        let config = format!("psync/{};tcmur_cmd_time_out=7", other.display());
        device.reconfigure(&config).await.unwrap();
        device.set_write_cache(false).await.unwrap();
        let back = Sgl::zeroed(512);
        device.store().read(&back, 0).await.unwrap();
        assert_eq!(bytes(&back), vec![8; 512]);
        device.store().close().await.unwrap();
    });
}

#[test]
fn a_device_that_does_not_open_says_why() {
    let right = Right::new();
    std::fs::remove_file(&right.file).unwrap();
    let error = run(right.open("psync")).unwrap_err();
    assert_eq!(error.errno, libc::ENOENT);
    assert!(error.reason.contains("psync") && error.reason.contains("No such file"), "{error}");
}

#[test]
fn a_lock_is_taken_once_and_given_back() {
    let right = Right::new();
    run(async {
        let device = right.device("plock").await;
        device.acquire(7).await.unwrap();
        device.acquire(7).await.unwrap();
        assert_eq!(right.counts().locked, 1);
        device.acquire(9).await.unwrap();
        assert_eq!(right.counts().locked, 2, "another group's lock is another lock");
        device.store().close().await.unwrap();
        assert_eq!(right.counts().unlocked, 1);
    });
}

#[test]
fn a_lock_is_given_back_for_the_group_that_has_it_and_no_other() {
    let right = Right::new();
    run(async {
        let device = right.device("plock").await;
        assert_eq!(device.view(), LockView::default());
        device.acquire(7).await.unwrap();
        let held = LockView { group: Some(7), ours: true, ..LockView::default() };
        assert_eq!(device.view(), held);
        device.release(9).await.unwrap();
        assert_eq!((right.counts().unlocked, device.view()), (0, held));
        device.look().await;
        device.release(7).await.unwrap();
        device.release(7).await.unwrap();
        assert_eq!(right.counts().unlocked, 1);
        let told = LockView { group: Some(7), ..LockView::default() };
        assert_eq!(device.view(), told, "as the handler said before");
        device.look().await;
        assert_eq!(device.view(), LockView::default());
        right.set("right_lock_status", 13);
        let refused = LockError::Refused("status 13 of its handler".into());
        assert_eq!(device.acquire(7).await, Err(refused));
        assert!(!device.view().ours);
        right.set("right_lock_status", 0);
        device.store().close().await.unwrap();
        assert_eq!(right.counts().unlocked, 1, "what is not held is not given back");
    });
}

#[test]
fn changes_of_a_lock_that_come_together_are_made_one_after_the_other() {
    let right = Right::new();
    run(async {
        let device = right.device("plock").await;
        let mut tasks = io_engine::TaskSet::new();
        let mut running = 0;
        for tag in [7, 7, 8] {
            let device = device.clone();
            let task = tasks.push(async move { device.acquire(tag).await.unwrap() });
            running += usize::from(matches!(task, io_engine::Started::Running(_)));
        }
        for _ in 0..running {
            tasks.next().await;
        }
        assert_eq!(right.counts().locked, 2, "once for each group");
        assert_eq!(device.view().group, Some(8));
        device.store().close().await.unwrap();
    });
}

#[test]
fn a_lost_connection_is_made_again_while_commands_get_busy() {
    let right = Right::new();
    run(async {
        let device = right.device("plock").await;
        device.acquire(7).await.unwrap();
        right.set("right_fail_open", 1);
        let cdb = [0xc3, 0, 0, 0, 0, 0];
        let lost = device.execute((1, &cdb), Operation::HandleCommand, &Sgl::empty()).await;
        assert_eq!(lost.status, Status::OK);
        let scope = Scope::new(2, &[0x28; 10]);
        let store = device.store();
        let busy = scope.run(store.read(&Sgl::zeroed(512), 0)).await.unwrap_err();
        assert_eq!(busy.errno(), Some(libc::EBUSY));
        assert_eq!(scope.failure().unwrap().status, Status::BUSY);
        until("it is open again", || right.counts().opened == 2).await;
        until("the event was reported", || right.counts().events == 1).await;
        store.read(&Sgl::zeroed(512), 0).await.unwrap();
        device.acquire(7).await.unwrap();
        assert_eq!((right.counts().locked, right.counts().closed), (2, 1));
        let cdb = [0xc5, 0, 0, 0, 0, 0];
        device.execute((1, &cdb), Operation::HandleCommand, &Sgl::empty()).await;
        until("the event was reported", || right.counts().events == 2).await;
        assert_eq!(right.counts().opened, 2, "a command that took long does not close it");
        store.close().await.unwrap();
        assert_eq!(right.counts().closed, 2);
    });
}

#[test]
fn a_device_that_is_closed_while_it_is_opened_again_ends() {
    let right = Right::new();
    run(async {
        let device = right.device("plock").await;
        right.set("right_fail_open", 1000);
        let cdb = [0xc4, 0, 0, 0, 0, 0];
        device.execute((1, &cdb), Operation::HandleCommand, &Sgl::empty()).await;
        until("it is closed", || right.counts().closed == 1).await;
        device.store().close().await.unwrap();
        assert_eq!(right.counts().closed, 1, "it was not open any more");
    });
}

#[test]
fn a_command_that_nobody_awaits_keeps_its_memory_until_the_handler_is_done() {
    let right = Right::new();
    run(async {
        right.set("right_hold", 1);
        let device = right.device("pasync").await;
        {
            let store = device.store();
            let list = memory(&[6; 512]);
            let mut write = Box::pin(store.write(&list, 0, false));
            let poll = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(write.as_mut().poll(cx).is_ready())
            });
            assert!(!poll.await);
        }
        right.set("right_hold", 0);
        let back = Sgl::zeroed(512);
        device.store().read(&back, 0).await.unwrap();
        assert_eq!(bytes(&back), vec![6; 512], "it was written from its own memory");
        device.store().close().await.unwrap();
    });
}
