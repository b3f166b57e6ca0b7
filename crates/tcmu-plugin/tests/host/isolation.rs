// SPDX-License-Identifier: Apache-2.0
//! Plugins in processes of their own: they do what they do in the daemon, and when they fail, their
//! devices come back.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use block::exclusive::ExclusiveLock;
use block::{Disk, Store, disk};
use sgl::Sgl;
use tcmu_plugin::{Isolation, Operation, PluginDevice, Plugins, Status};

use crate::debian::debians;
use crate::support::{
    Built, SIZE, bytes, isolation, memory, open, pattern, qcow2_image, read_back_side_by_side, run,
    until,
};

/// Bytes that tell where they belong, and memory with them.
fn data(len: usize, seed: usize) -> (Vec<u8>, Sgl<'static>) {
    let pattern = pattern(len, seed);
    let list = memory(&pattern);
    (pattern, list)
}

/// A plugin of our own in a process, and a file for its devices.
struct Isolated {
    built: Built,
    plugins: Plugins,
    file: PathBuf,
}

impl Isolated {
    fn new(source: &str) -> Isolated {
        let built = Built::new();
        built.add(source, &format!("handler_{}.so", source.len()), &[]);
        let plugins = built.isolate();
        let file = built.path().join("disk.img");
        std::fs::write(&file, vec![0; usize::try_from(SIZE).unwrap()]).unwrap();
        Isolated { built, plugins, file }
    }

    async fn device(&self, subtype: &str) -> Rc<PluginDevice> {
        let config = format!("{subtype}/{}", self.file.display());
        open(&self.plugins, &config, SIZE, 512).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Has the frail plugin do something wrong at its next command.
    fn fault(&self, what: &str) {
        let temporary = self.built.path().join("temporary");
        std::fs::write(&temporary, what).unwrap();
        std::fs::rename(&temporary, self.beside("fault")).unwrap();
    }

    fn beside(&self, extension: &str) -> PathBuf {
        Path::new(&format!("{}.{extension}", self.file.display())).into()
    }
}

async fn command(device: &PluginDevice, operation: Operation, data: &Sgl<'_>) -> Status {
    device.execute((1, &[0x28; 10]), operation, data).await.status
}

/// Sends a command until it is not BUSY any more, as initiators do; how often it was.
async fn persist(device: &PluginDevice, operation: Operation, data: &Sgl<'_>) -> u32 {
    let end = Instant::now() + Duration::from_secs(30);
    let mut busy = 0;
    loop {
        match command(device, operation, data).await {
            Status::OK => return busy,
            Status::BUSY => busy += 1,
            other => panic!("{other}"),
        }
        assert!(Instant::now() < end, "it does not come back");
        io_engine::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn every_kind_of_handler_does_in_a_process_what_it_does_in_the_daemon() {
    let right = Isolated::new("handler_right.c");
    assert_eq!(right.plugins.handlers().len(), 6);
    assert_eq!(right.built.processes().len(), 1, "one process for the file");
    run(async {
        for subtype in ["psync", "pasync", "pcmd", "plock"] {
            let device = right.device(subtype).await;
            let store = device.store();
            // From a byte to more than a slot has room for; shared memory and borrowed.
            for (len, offset) in [(512, 0), (65536, 4096), (100 << 10, 8192), (768 << 10, 0)] {
                let (pattern, list) = data(len, offset);
                store.write(&list, offset as u64, true).await.unwrap();
                let mut back = vec![0; len];
                store.read(&Sgl::from_slice(&mut back), offset as u64).await.unwrap();
                assert!(back == pattern, "{subtype}: {len} bytes");
                let image = std::fs::read(&right.file).unwrap();
                assert!(image[offset..offset + len] == pattern, "{subtype}: {len} bytes");
            }
            store.flush().await.unwrap();
            store.close().await.unwrap();
            store.close().await.unwrap();
            let gone = store.read(&Sgl::zeroed(512), 0).await.unwrap_err();
            assert_eq!(gone.errno(), Some(libc::EBUSY), "nothing goes to it any more");
        }
    });
}

#[test]
fn more_commands_than_there_are_slots_are_all_done() {
    let right = Isolated::new("handler_right.c");
    for subtype in ["psync", "pasync"] {
        run(async {
            let device = right.device(subtype).await;
            read_back_side_by_side(&device, 300).await;
            device.store().close().await.unwrap();
        });
    }
}

#[test]
fn commands_sense_sizes_and_changes_pass_between_the_processes() {
    let right = Isolated::new("handler_right.c");
    run(async {
        let device = right.device("pcmd").await;
        let disk = Disk::new(device.store(), "a", disk::Options::default());
        let ask = |opcode: u8| {
            let device = device.clone();
            async move {
                let cdb = [opcode, 0, 0, 0, 0, 0];
                device.execute((1, &cdb), Operation::HandleCommand, &Sgl::empty()).await
            }
        };
        let own = ask(0xc0).await;
        let sense = own.sense.unwrap();
        assert_eq!((own.status, sense[0], sense[2], sense[12]), (Status(2), 0x70, 0x0b, 0x12));
        assert_eq!(ask(0xc1).await.status, Status::OK, "it was completed later");
        assert_eq!(ask(0x28).await.status, Status::NOT_HANDLED);
        assert_eq!(ask(0xc2).await.status, Status::OK);
        assert!(matches!(disk.event().await, block::Event::Resized));
        assert_eq!(disk.size(), SIZE / 2 * 3);
        assert!(disk.resize(2 * SIZE).await.unwrap());
        assert_eq!(std::fs::metadata(&right.file).unwrap().len(), 2 * SIZE);
        device.set_write_cache(false).await.unwrap();
        let refused = device.reconfigure("pcmd//no/such").await.unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOENT));
        let other = right.built.path().join("other.img");
        std::fs::write(&other, vec![8; usize::try_from(SIZE).unwrap()]).unwrap();
        device
            .reconfigure(&format!("pcmd/{};tcmur_cmd_time_out=7", other.display()))
            .await
            .unwrap();
        let back = Sgl::zeroed(512);
        device.store().read(&back, 0).await.unwrap();
        assert_eq!(bytes(&back), vec![8; 512]);
        disk.close().await.unwrap();
        // A changer, which answers everything itself.
        let device = right.device("ppass").await;
        let answer = Sgl::zeroed(96);
        let cdb = [0x12, 0, 0, 0, 96, 0];
        let inquiry = device.execute((1, &cdb), Operation::HandleCommand, &answer).await;
        assert_eq!((inquiry.status, bytes(&answer)[0]), (Status::OK, 8));
        assert_eq!(&bytes(&answer)[8..15], b"LUNETTE");
        let mut same = [0; 16];
        (same[0], same[9], same[13]) = (0x93, 8, 4);
        let block = Sgl::zeroed(512);
        block.fill(0..512, 3);
        let finished = device.execute((2, &same), Operation::HandleCommand, &block).await;
        assert_eq!(finished.status, Status::OK);
        assert_eq!(std::fs::read(&right.file).unwrap()[8 * 512..12 * 512], [3; 2048]);
        device.store().close().await.unwrap();
    });
    let handler = right.plugins.find("psync").unwrap();
    assert_eq!(handler.check_config("psync//no/such"), Err("no such file: /no/such".into()));
    assert_eq!(handler.check_config(&format!("psync/{}", right.file.display())), Ok(()));
    right.plugins.update_log_dir();
    right.plugins.log_changed();
}

#[test]
fn a_lock_is_taken_and_a_lost_connection_made_again_in_the_process() {
    let right = Isolated::new("handler_right.c");
    run(async {
        let device = right.device("plock").await;
        device.acquire(7).await.unwrap();
        for opcode in [0xc3, 0xc4] {
            let cdb = [opcode, 0, 0, 0, 0, 0];
            let lost = device.execute((1, &cdb), Operation::HandleCommand, &Sgl::empty()).await;
            assert_eq!(lost.status, Status::OK);
            persist(&device, Operation::Read { offset: 0 }, &Sgl::zeroed(512)).await;
            device.acquire(7).await.unwrap();
        }
        device.store().close().await.unwrap();
    });
    assert_eq!(right.built.processes().len(), 1, "it is the same process");
}

#[test]
fn a_plugin_that_crashes_is_started_again_and_its_devices_come_back() {
    let frail = Isolated::new("handler_frail.c");
    let right = Isolated::new("handler_right.c");
    run(async {
        let device = frail.device("frail").await;
        let other = right.device("psync").await;
        let first = frail.built.processes();
        let mut last = first.clone();
        for (n, fault) in ["segv", "abort", "exit", "beyond"].into_iter().enumerate() {
            let offset = 8192 * n as u64;
            let (before, list) = data(4096, n);
            assert_eq!(command(&device, Operation::Write { offset }, &list).await, Status::OK);
            frail.fault(fault);
            let (pattern, list) = data(4096, n + 1);
            let write = Operation::Write { offset: offset + 4096 };
            let failed = command(&device, write, &list).await;
            assert_eq!(failed, Status::BUSY, "{fault}: the initiator sends it again");
            assert_eq!(command(&other, Operation::Flush, &Sgl::empty()).await, Status::OK);
            persist(&device, write, &list).await;
            let back = Sgl::zeroed(8192);
            persist(&device, Operation::Read { offset }, &back).await;
            assert!(bytes(&back) == [before, pattern].concat(), "{fault}");
            let now = frail.built.processes();
            assert!(now.len() == 1 && now != last, "{fault}: {now:?} after {last:?}");
            last = now;
        }
        assert_eq!(right.built.processes().len(), 1);
        device.store().close().await.unwrap();
        other.store().close().await.unwrap();
    });
}

#[test]
fn all_commands_under_way_end_when_the_process_is_killed() {
    let frail = Isolated::new("handler_frail.c");
    run(async {
        let device = frail.device("frail").await;
        let mut tasks = io_engine::TaskSet::new();
        let mut left = 0;
        for n in 0..200u64 {
            let device = device.clone();
            let task = async move {
                let (pattern, list) = data(4096, usize::try_from(n).unwrap());
                let busy = persist(&device, Operation::Write { offset: n * 4096 }, &list).await;
                let back = Sgl::zeroed(4096);
                let more = persist(&device, Operation::Read { offset: n * 4096 }, &back).await;
                assert_eq!(bytes(&back), pattern);
                busy + more
            };
            if n == 50 {
                frail.fault("never");
            }
            if n == 150 {
                for pid in frail.built.processes() {
                    kill(pid);
                }
            }
            left += usize::from(!matches!(tasks.push(task), io_engine::Started::Done(_)));
        }
        let mut busy = 0;
        while left > 0 {
            busy += tasks.next().await.1;
            left -= 1;
        }
        assert!(busy > 0, "nothing was under way");
        device.store().close().await.unwrap();
    });
}

fn kill(pid: u32) {
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(killed.expect("install procps: this test runs kill").success());
}

#[test]
fn a_command_that_is_never_answered_ends_the_process_and_the_device_comes_back() {
    let frail = Isolated::new("handler_frail.c");
    run(async {
        let device = frail.device("frail").await;
        let before = frail.built.processes();
        frail.fault("never");
        let start = Instant::now();
        let read = Operation::Read { offset: 0 };
        assert_eq!(command(&device, read, &Sgl::zeroed(512)).await, Status::BUSY);
        assert!(start.elapsed() > Duration::from_secs(3), "it had its time");
        persist(&device, read, &Sgl::zeroed(512)).await;
        assert_ne!(frail.built.processes(), before);
        device.store().close().await.unwrap();
    });
}

#[test]
fn a_handler_sees_that_a_command_has_taken_too_long_before_its_process_is_killed() {
    let right = Isolated::new("handler_right.c");
    run(async {
        let device = right.device("pcmd").await;
        let before = right.built.processes();
        let cdb = [0xc8, 0, 0, 0, 0, 0];
        let ended = device.execute((1, &cdb), Operation::HandleCommand, &Sgl::empty()).await;
        assert_eq!(ended.status, Status::OK, "it has ended it when it saw that");
        assert_eq!(right.built.processes(), before);
        device.store().close().await.unwrap();
    });
}

#[test]
fn a_device_that_cannot_be_opened_again_is_busy_until_it_can() {
    let frail = Isolated::new("handler_frail.c");
    run(async {
        let device = frail.device("frail").await;
        std::fs::write(frail.beside("open"), "").unwrap();
        frail.built.processes().into_iter().for_each(kill);
        let read = Operation::Read { offset: 0 };
        let data = Sgl::zeroed(512);
        let end = Instant::now() + Duration::from_secs(20);
        while command(&device, read, &data).await != Status::BUSY {
            assert!(Instant::now() < end, "it goes on without a process");
        }
        io_engine::sleep(Duration::from_millis(300)).await;
        assert_eq!(command(&device, read, &data).await, Status::BUSY);
        std::fs::remove_file(frail.beside("open")).unwrap();
        persist(&device, read, &data).await;
        // While it cannot be opened, it can be closed.
        std::fs::write(frail.beside("open"), "").unwrap();
        frail.built.processes().into_iter().for_each(kill);
        while command(&device, read, &data).await != Status::BUSY {
            assert!(Instant::now() < end, "it goes on without a process");
        }
        device.store().close().await.unwrap();
    });
}

#[test]
fn a_device_that_does_not_open_in_a_process_says_why() {
    let frail = Isolated::new("handler_frail.c");
    std::fs::remove_file(&frail.file).unwrap();
    let config = format!("frail/{}", frail.file.display());
    let error = run(open(&frail.plugins, &config, SIZE, 512)).unwrap_err();
    assert_eq!(error.errno, libc::ENOENT);
    assert!(error.reason.contains("No such file"), "{error}");
}

#[test]
fn what_is_refused_in_a_process_leaves_the_others_as_they_are() {
    let built = Built::new();
    for case in 1..=17 {
        let name = format!("handler_a{case:02}.so");
        built.add("refused.c", &name, &[&format!("-DCASE={case}")]);
    }
    std::fs::write(built.path().join("handler_text.so"), "no library").unwrap();
    built.add("handler_right.c", "handler_right.so", &[]);
    built.add("handler_right.c", "handler_z.so", &[]);
    let plugins = built.isolate();
    let names: Vec<_> = plugins.handlers().iter().map(|handler| handler.subtype()).collect();
    assert_eq!(names, ["again", "psync", "pasync", "pcmd", "ppass", "plock", "pread"]);
    assert_eq!(built.processes().len(), 2, "those without a handler have no process");
    plugins.destroy();
    assert_eq!(built.processes(), [0; 0]);
}

#[test]
fn a_library_that_is_tried_is_told_of_and_leaves_no_process() {
    let built = Built::new();
    let right = built.add("handler_right.c", "handler_right.so", &[]);
    let [file, crash] = ["2", "15"].map(|case| {
        let name = format!("handler_{case}.so");
        built.add("refused.c", &name, &[&format!("-DCASE={case}")])
    });
    let text = built.path().join("handler_text.so");
    std::fs::write(&text, "no library").unwrap();
    let tried = |file: &Path| {
        let (plugins, refused) = Plugins::try_file(file, &["file"], &isolation());
        let names = plugins.handlers().iter().map(|handler| handler.subtype().to_owned());
        let refused: Vec<_> = refused.iter().map(ToString::to_string).collect();
        (names.collect::<Vec<_>>(), refused.join("; "))
    };
    let (names, refused) = tried(&right);
    let all = ["psync", "pasync", "pcmd", "ppass", "plock", "pread"].map(str::to_owned).to_vec();
    assert_eq!((names, refused), (all, String::new()));
    for (file, why) in
        [(file, "the subtype file is built in"), (crash, "signal: 6"), (text, "it does not load")]
    {
        let (names, refused) = tried(&file);
        assert!(names.is_empty() && refused.contains(why), "{refused}");
    }
    assert_eq!(built.processes(), [0; 0]);
}

#[test]
fn a_library_that_does_not_return_is_given_up() {
    let built = Built::new();
    let file = built.add("refused.c", "handler_hangs.so", &["-DCASE=18"]);
    let patience = Duration::from_secs(1);
    let isolation = Isolation { load_time: patience, output: false, ..isolation() };
    let (_, refused) = Plugins::try_file(&file, &[], &isolation);
    assert!(refused[0].to_string().contains("it is not loaded after 1 s"), "{refused:?}");
}

#[test]
fn what_is_no_process_of_a_plugin_is_not_used() {
    let built = Built::new();
    built.add("handler_right.c", "handler_right.so", &[]);
    for (program, arguments) in [
        ("/no/such/program", [].as_slice()),
        ("/bin/false", &[]),
        // It sends back what it is told.
        ("/bin/sh", &["-c", "cat <&0 >&0"]),
        // It closes the connection, and goes on.
        ("/bin/sh", &["-c", "exec sleep 1000 </dev/null"]),
    ] {
        let arguments = arguments.iter().map(Into::into).collect();
        let isolation = Isolation::new(program, arguments);
        let start = Instant::now();
        let plugins = Plugins::load_isolated(built.path(), &[], &isolation);
        assert!(plugins.handlers().is_empty(), "{program}");
        assert!(start.elapsed() < Duration::from_secs(20), "{program}");
    }
    assert_eq!(built.processes(), [0; 0]);
}

#[test]
fn processes_end_with_the_plugins_even_with_open_devices() {
    let frail = Isolated::new("handler_frail.c");
    run(async {
        let device = frail.device("frail").await;
        assert_eq!(frail.built.processes().len(), 1);
        frail.plugins.destroy();
        until("its process has ended", || frail.built.processes().is_empty()).await;
        let status = command(&device, Operation::Flush, &Sgl::empty()).await;
        assert_eq!(status, Status::BUSY);
        device.store().close().await.unwrap();
    });
}

#[test]
fn debians_plugins_work_in_processes_of_their_own() {
    let built = debians();
    let plugins = built.isolate();
    let subtypes: Vec<_> = plugins.handlers().iter().map(|handler| handler.subtype()).collect();
    assert_eq!(subtypes, ["fbo", "zbc", "qcow"]);
    assert_eq!(built.processes().len(), 3);
    let image = built.path().join("image");
    qcow2_image(&image);
    let zoned = built.path().join("zoned.raw");
    run(async {
        let config = format!("qcow/{}", image.display());
        let device = open(&plugins, &config, SIZE, 512).await.unwrap_or_else(|e| panic!("{e}"));
        let (pattern, list) = data(65536, 1);
        device.store().write(&list, 131_072, true).await.unwrap();
        let back = Sgl::zeroed(65536);
        device.store().read(&back, 131_072).await.unwrap();
        assert!(bytes(&back) == pattern);
        device.store().close().await.unwrap();

        let config = format!("zbc/model-HM/zsize-1/conv-1@{}", zoned.display());
        let device = open(&plugins, &config, 16 << 20, 512).await.unwrap_or_else(|e| panic!("{e}"));
        let answer = Sgl::zeroed(36);
        let cdb = [0x12, 0, 0, 0, 36, 0];
        let inquiry = device.execute((1, &cdb), Operation::HandleCommand, &answer).await;
        assert_eq!((inquiry.status, bytes(&answer)[0]), (Status::OK, 0x14));
        device.store().close().await.unwrap();
    });
}
