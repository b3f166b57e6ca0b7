// SPDX-License-Identifier: Apache-2.0
//! Devices of plugins: those of `tcmu-plugin`'s tests, compiled here.
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use tcmu_plugin::Plugins;
use tempfile::TempDir;

use super::*;

/// A directory with our two plugins, loaded, and a file for a device.
struct Built {
    plugins: Plugins,
    image: PathBuf,
    _dir: TempDir,
}

impl Built {
    fn new() -> Built {
        assert!(tcmu_abi::keep() + tcmu_plugin::keep() > 50);
        let dir = tempfile::tempdir().unwrap();
        for name in ["handler_right", "handler_wrong"] {
            let sources =
                Path::new(env!("CARGO_MANIFEST_DIR")).join("../tcmu-plugin/tests/plugins");
            let mut cc = Command::new("cc");
            cc.arg("-I").arg(sources.join("../../../libtcmu/include"));
            cc.args(["-std=gnu11", "-O1", "-fPIC", "-shared", "-pthread", "-o"]);
            cc.arg(dir.path().join(format!("{name}.so"))).arg(sources.join(format!("{name}.c")));
            let status =
                cc.status().expect("install gcc and libc6-dev: this test compiles plugins");
            assert!(status.success());
        }
        let plugins = Plugins::load(dir.path(), &["file"]);
        let image = dir.path().join("image");
        raw(&image);
        Built { plugins, image, _dir: dir }
    }

    /// Serves a device of a subtype while `test` runs.
    fn serve<F: Future<Output = ()>>(&self, subtype: &str, test: impl FnOnce(World) -> F) -> Stop {
        self.serve_config(&format!("{subtype}/{}", self.image.display()), test)
    }

    fn serve_config<F: Future<Output = ()>>(
        &self,
        config: &str,
        test: impl FnOnce(World) -> F,
    ) -> Stop {
        self.serve_with(config, |_, _| (), test)
    }

    /// The same, where the device is different from the usual.
    fn serve_with<F: Future<Output = ()>>(
        &self,
        config: &str,
        different: impl FnOnce(&mut DeviceSpec, &Tree),
        test: impl FnOnce(World) -> F,
    ) -> Stop {
        let handler = self.plugins.find(config.split('/').next().unwrap()).cloned();
        assert!(handler.is_some());
        let different = |spec: &mut DeviceSpec, tree: &Tree| {
            spec.plugin = handler;
            different(spec, tree);
        };
        run_with(config, different, test)
    }

    /// Serves a device with a lock, whose only port is in the target port group 7, which has this
    /// kind of access.
    fn serve_locked<F: Future<Output = ()>>(
        &self,
        access: &str,
        test: impl FnOnce(World) -> F,
    ) -> Stop {
        let config = format!("plock/{}", self.image.display());
        let grouped = |_: &mut DeviceSpec, tree: &Tree| {
            let group = "target/core/user_0/a/alua/ours";
            for (file, content) in
                [("tg_pt_gp_id", "7"), ("alua_access_state", "0"), ("alua_access_type", access)]
            {
                tree.put(&format!("{group}/{file}"), content).unwrap();
            }
            let port = "target/loopback/naa.1/tpgt_1/lun/lun_0";
            tree.put(&format!("{port}/alua_tg_pt_gp"), "TG Port Alias: ours\n").unwrap();
            let device = tree.path().join("target/core/user_0/a");
            std::os::unix::fs::symlink(device, tree.path().join(port).join("a")).unwrap();
        };
        self.serve_with(&config, grouped, test)
    }
}

#[test]
fn a_plugins_device_reads_writes_and_closes_whatever_way_it_is_called() {
    let built = Built::new();
    for subtype in ["psync", "pasync", "pcmd", "plock"] {
        let stop = built.serve(subtype, |mut world| async move {
            let data: Vec<u8> = (0..8192u32).map(|i| (i % 251) as u8).collect();
            assert_eq!(world.execute(&write_10(16, 16), Data::Out(&data)).await.status, 0);
            let read = world.execute(&read_10(16, 16), Data::In(8192)).await;
            assert_eq!((read.status, read.data), (0, data));
            let past = world.execute(&read_10(2048, 1), Data::In(512)).await;
            assert_eq!((past.status, sense(&past)), (2, [5, 0x21, 0]));
        });
        assert_eq!(stop, Stop::Asked, "{subtype}");
    }
}

#[test]
fn a_ring_full_of_commands_ends_with_each_answered_once() {
    let built = Built::new();
    for subtype in ["psync", "pasync"] {
        built.serve(subtype, |mut world| async move {
            for round in 0..20 {
                let mut ids = std::collections::BTreeSet::new();
                while let Ok(id) = world.kernel.send(&read_10(round, 8), Data::In(4096)) {
                    ids.insert(id);
                }
                world.kernel.notify();
                for completion in world.completions(ids.len()).await {
                    assert!(completion.status == 0 && ids.remove(&completion.id));
                }
            }
        });
    }
}

#[test]
fn a_plugin_sees_a_cdb_first_and_leaves_the_rest_to_the_logical_unit() {
    let built = Built::new();
    built.serve("pcmd", |mut world| async move {
        let own = world.execute(&[0xc0, 0, 0, 0, 0, 0], Data::None).await;
        assert_eq!((own.status, sense(&own)), (2, [0x0b, 0x12, 0x34]));
        assert_eq!(world.execute(&[0xc1, 0, 0, 0, 0, 0], Data::None).await.status, 0);
        let unknown = world.execute(&[0xff; 16], Data::None).await;
        assert_eq!((unknown.status, sense(&unknown)), (2, [5, 0x20, 0]));
        let inquiry = world.execute(&[0x12, 0, 0, 0, 96, 0], Data::In(96)).await;
        assert_eq!((inquiry.status, inquiry.data[0]), (0, 0), "a disk, by the logical unit");
        // The plugin tells of another size.
        assert_eq!(world.execute(&[0xc2, 0, 0, 0, 0, 0], Data::None).await.status, 0);
        let attention = world.execute(&read_10(0, 1), Data::In(512)).await;
        assert_eq!(sense(&attention), [6, 0x2a, 0x09]);
        assert_eq!(world.execute(&read_10(3071, 1), Data::In(512)).await.status, 0);
    });
}

#[test]
fn a_plugin_sees_that_a_command_has_been_under_way_for_longer_than_the_device_allows() {
    let built = Built::new();
    let config = format!("pcmd/{}", built.image.display());
    let impatient = |spec: &mut DeviceSpec, _: &Tree| {
        spec.cmd_time_out = Some(Duration::from_secs(1));
    };
    built.serve_with(&config, impatient, |mut world| async move {
        assert_eq!(world.execute(&[0xc8, 0, 0, 0, 0, 0], Data::None).await.status, 0);
        let told = world.events.drain().any(|event| {
            matches!(event, Event::Device(DeviceEvent::CommandTimedOut { opcode: 0xc8, .. }))
        });
        assert!(told, "and so does the manager");
    });
}

#[test]
fn a_device_that_its_plugin_alone_answers_for_is_what_the_plugin_says() {
    let built = Built::new();
    let stop = built.serve("ppass", |mut world| async move {
        let inquiry = world.execute(&[0x12, 0, 0, 0, 96, 0], Data::In(96)).await;
        assert_eq!((inquiry.status, inquiry.data[0]), (0, 8), "a medium changer");
        assert_eq!(&inquiry.data[8..15], b"LUNETTE");
        assert!(inquiry.data[36..].iter().all(|&byte| byte == 0), "nothing of earlier commands");
        let read = world.execute(&read_10(0, 1), Data::In(512)).await;
        assert_eq!((read.status, sense(&read)), (2, [5, 0x20, 0]));
    });
    assert_eq!(stop, Stop::Asked);
}

#[test]
fn initiators_of_a_device_that_its_plugin_alone_answers_for_hear_of_changes() {
    let built = Built::new();
    built.serve("ppass", |mut world| async move {
        let world = &mut world;
        let ready = async |world: &mut World| {
            let ready = world.execute(&[0; 6], Data::None).await;
            (ready.status, if ready.status == 2 { sense(&ready) } else { [0; 3] })
        };
        assert_eq!(ready(world).await.0, 0);
        world.request(Request::Resize(2 * SIZE)).await.unwrap();
        let inquiry = world.execute(&[0x12, 0, 0, 0, 96, 0], Data::In(96)).await;
        assert_eq!(inquiry.status, 0, "INQUIRY goes on");
        assert_eq!(ready(world).await, (2, [6, 0x2a, 0x09]));
        assert_eq!(ready(world).await.0, 0, "once");
        world.request(Request::SetWriteCache(false)).await.unwrap();
        assert_eq!(ready(world).await, (2, [6, 0x2a, 0x01]));
        // The plugin tells of another size.
        assert_eq!(world.execute(&[0xc2, 0, 0, 0, 0, 0], Data::None).await.status, 0);
        assert_eq!(ready(world).await, (2, [6, 0x2a, 0x09]));
        assert_eq!(ready(world).await.0, 0);
    });
}

#[test]
fn a_miscompare_of_the_plugin_has_its_offset() {
    let built = Built::new();
    built.serve("psync", |mut world| async move {
        let mut cdb = [0; 16];
        (cdb[0], cdb[13]) = (0x89, 1);
        let mut data = [0; 1024];
        data[512..].fill(7);
        assert_eq!(world.execute(&cdb, Data::Out(&data)).await.status, 0);
        data[..512].fill(7);
        data[200] = 1;
        let differs = world.execute(&cdb, Data::Out(&data)).await;
        assert_eq!((differs.status, sense(&differs)), (2, [0x0e, 0x1d, 0]));
        assert_eq!(differs.sense[3..7], [0, 0, 0, 200]);
    });
}

#[test]
fn a_plugins_device_takes_a_size_a_write_cache_and_another_file() {
    let built = Built::new();
    let other = built.image.with_extension("other");
    std::fs::write(&other, vec![9; usize::try_from(SIZE).unwrap()]).unwrap();
    let config = format!("psync/{};tcmur_cmd_time_out=5", other.display());
    built.serve("psync", |mut world| async move {
        world.request(Request::Resize(2 * SIZE)).await.unwrap();
        let attention = world.execute(&read_10(0, 1), Data::In(512)).await;
        assert_eq!(sense(&attention), [6, 0x2a, 0x09]);
        assert_eq!(world.execute(&read_10(4095, 1), Data::In(512)).await.status, 0);
        world.request(Request::SetWriteCache(false)).await.unwrap();
        let attention = world.execute(&write_10(0, 1), Data::Out(&[1; 512])).await;
        assert_eq!(sense(&attention), [6, 0x2a, 0x01]);
        let refused = world.request(Request::Reconfigure("psync//no/such".into())).await;
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::ENOENT));
        world.request(Request::Reconfigure(config)).await.unwrap();
        assert_eq!(world.execute(&read_10(0, 1), Data::In(512)).await.data, vec![9; 512]);
    });
}

#[test]
fn a_device_of_a_plugin_that_fails_has_sense_that_says_so() {
    let built = Built::new();
    for (fault, expected) in
        [("garbage", [4, 0x44, 0]), ("nothandled", [5, 0x20, 0]), ("sense", [4, 0x44, 0])]
    {
        built.serve_config(&format!("wrong/{fault}"), |mut world| async move {
            let read = world.execute(&read_10(0, 1), Data::In(512)).await;
            assert_eq!((read.status, sense(&read)), (2, expected), "{fault}");
        });
    }
}

#[test]
fn a_command_that_never_ends_does_not_keep_the_device_from_ending() {
    let built = Built::new();
    let start = Instant::now();
    let stop = built.serve_config("wrong/forget", |world| async move {
        let mut world = world;
        world.kernel.send(&read_10(256, 1), Data::In(512)).unwrap();
        world.kernel.notify();
        io_engine::sleep(Duration::from_millis(100)).await;
        assert_eq!(world.kernel.take_completions().unwrap().len(), 0);
    });
    assert!(matches!(stop, Stop::Unclean(why) if why.contains("1 commands do not come back")));
    assert!(start.elapsed() < Duration::from_secs(15));
}

#[test]
fn commands_are_sent_again_while_a_plugin_opens_its_device_again() {
    let built = Built::new();
    let stop = built.serve("pcmd", |mut world| async move {
        assert_eq!(world.execute(&[0xc3, 0, 0, 0, 0, 0], Data::None).await.status, 0);
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let read = world.execute(&read_10(0, 1), Data::In(512)).await;
            match read.status {
                0 => break,
                busy => assert_eq!(busy, 8, "BUSY"),
            }
            assert!(Instant::now() < until);
            io_engine::sleep(Duration::from_millis(5)).await;
        }
    });
    assert_eq!(stop, Stop::Asked);
}

/// REPORT TARGET PORT GROUPS: the state of the first group.
async fn access(world: &mut World) -> u8 {
    let cdb = [0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0];
    let report = world.execute(&cdb, Data::In(64)).await;
    assert_eq!((report.status, &report.data[6..8]), (0, &[0, 7][..]));
    report.data[4] & 0x0f
}

/// SET TARGET PORT GROUPS of group 7.
async fn set_access(world: &mut World, state: u8) -> Completion {
    let cdb = [0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0];
    world.execute(&cdb, Data::Out(&[0, 0, 0, 0, state, 0, 0, 7])).await
}

/// READ of a block; status and sense.
async fn read(world: &mut World) -> (u8, [u8; 3]) {
    let read = world.execute(&read_10(0, 1), Data::In(512)).await;
    (read.status, if read.status == 2 { sense(&read) } else { [0; 3] })
}

#[test]
fn with_explicit_access_the_lock_goes_where_set_target_port_groups_says() {
    let built = Built::new();
    let stop = built.serve_locked("Explicit", |mut world| async move {
        let world = &mut world;
        let standby = (2, [2, 0x04, 0x0b]);
        assert_eq!((access(world).await, read(world).await), (2, standby));
        assert_eq!(set_access(world, 0).await.status, 0);
        assert_eq!((access(world).await, read(world).await.0), (0, 0));
        assert_eq!(set_access(world, 2).await.status, 0);
        assert_eq!((access(world).await, read(world).await), (2, standby));
        // A state that a lock cannot bring about, and a group that there is not.
        let refused = set_access(world, 1).await;
        assert_eq!((refused.status, sense(&refused)), (2, [5, 0x26, 0]));
        // The handler does not get the lock.
        assert_eq!(world.execute(&[0xc7, 13, 0, 0, 0, 0], Data::None).await.status, 0);
        let failed = set_access(world, 0).await;
        assert_eq!((failed.status, sense(&failed)), (2, [4, 0x67, 0x0a]));
        assert_eq!((access(world).await, read(world).await), (2, standby));
    });
    assert_eq!(stop, Stop::Asked);
}

#[test]
fn with_explicit_access_a_lost_lock_is_not_taken_again_by_itself() {
    let built = Built::new();
    built.serve_locked("Explicit", |mut world| async move {
        let world = &mut world;
        assert_eq!(set_access(world, 0).await.status, 0);
        assert_eq!(world.execute(&[0xc4, 0, 0, 0, 0, 0], Data::None).await.status, 0);
        assert_eq!(read(world).await, (2, [2, 0x04, 0x0b]));
        let until = Instant::now() + Duration::from_secs(20);
        while set_access(world, 0).await.status != 0 {
            assert!(Instant::now() < until, "it is open again");
            io_engine::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!((access(world).await, read(world).await.0), (0, 0));
    });
}

#[test]
fn with_implicit_access_a_command_takes_the_lock_or_says_that_the_transition_has_failed() {
    let built = Built::new();
    built.serve_locked("Implicit", |mut world| async move {
        let world = &mut world;
        assert_eq!(world.execute(&[0xc7, 13, 0, 0, 0, 0], Data::None).await.status, 0);
        assert_eq!(access(world).await, 0);
        assert_eq!(read(world).await, (2, [6, 0x2a, 0x07]));
        assert_eq!(world.execute(&[0xc7, 0, 0, 0, 0, 0], Data::None).await.status, 0);
        assert_eq!((read(world).await.0, access(world).await), (0, 0));
        let refused = set_access(world, 2).await;
        assert_eq!((refused.status, sense(&refused)), (2, [5, 0x20, 0]));
    });
}

#[test]
fn with_implicit_access_a_lost_lock_is_taken_again_by_what_comes_later() {
    let built = Built::new();
    built.serve_locked("Implicit", |mut world| async move {
        let world = &mut world;
        assert_eq!(read(world).await.0, 0);
        assert_eq!(world.execute(&[0xc4, 0, 0, 0, 0, 0], Data::None).await.status, 0);
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match read(world).await {
                (0, _) => break,
                // While it is opened again; then of what came before that was known.
                (8, _) | (2, [2, 0x04, 0x0b]) => assert!(Instant::now() < until),
                other => panic!("{other:?}"),
            }
            io_engine::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(access(world).await, 0);
    });
}

#[test]
fn a_handler_is_found_by_what_the_configuration_string_begins_with() {
    let built = Built::new();
    let plugins: Arc<Plugins> = Arc::new(built.plugins);
    assert!(plugins.find("psync").is_some() && plugins.find("file").is_none());
    let names: Vec<_> =
        crate::plugins::handlers(&plugins).into_iter().map(|handler| handler.subtype).collect();
    assert!(["file", "qcow", "psync", "wrong"].iter().all(|name| names.iter().any(|n| n == name)));
    let check = |config: &str| crate::plugins::check(&plugins, config);
    assert_eq!(check("file//x"), None);
    assert_eq!(check("psync//no/such"), Some(Err("no such file: /no/such".into())));
}
