// SPDX-License-Identifier: Apache-2.0
//! A device whose ring is that of the simulated kernel.
use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use io_engine::{Backend, Engine};
use tcmu_sim::{Completion, Data, Kernel, Options, Tree};

use super::absent::{self, Opening};
use super::open::open_lun;
use super::serve::Server;
use super::*;
use crate::events::{self, Event, Receiver};

mod plugin;

const SIZE: u64 = 1 << 20;

fn read_10(lba: u32, blocks: u16) -> [u8; 10] {
    rw_10(0x28, lba, blocks)
}

fn write_10(lba: u32, blocks: u16) -> [u8; 10] {
    rw_10(0x2a, lba, blocks)
}

fn rw_10(opcode: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let (lba, blocks) = (lba.to_be_bytes(), blocks.to_be_bytes());
    [opcode, 0, lba[0], lba[1], lba[2], lba[3], 0, blocks[0], blocks[1], 0]
}

/// The kernel and the manager, as the device sees them.
struct World {
    kernel: Kernel,
    control: io_engine::Sender<Control>,
    events: Receiver,
}

impl World {
    /// Waits until `count` commands have ended.
    async fn completions(&mut self, count: usize) -> Vec<Completion> {
        let until = Instant::now() + Duration::from_secs(20);
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(self.kernel.take_completions().unwrap());
            assert!(Instant::now() < until, "{} of {count} commands ended", all.len());
            io_engine::sleep(Duration::from_micros(20)).await;
        }
        all
    }

    /// One command, from its sending to its end.
    async fn execute(&mut self, cdb: &[u8], data: Data<'_>) -> Completion {
        self.kernel.send(cdb, data).unwrap();
        self.kernel.notify();
        self.completions(1).await.remove(0)
    }

    /// A request and its answer.
    async fn request(&mut self, request: Request) -> io::Result<()> {
        assert!(self.control.send(Control::Request(request, Token(7))).is_ok());
        loop {
            for event in self.events.drain() {
                if let Event::Device(DeviceEvent::Reply { token, result, .. }) = event {
                    assert_eq!(token, Token(7));
                    return result;
                }
            }
            io_engine::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Serves a device of [`SIZE`] bytes with this configuration string while `test` runs, then stops
/// it; why it ended.
fn serve<F: Future<Output = ()>>(config: &str, test: impl FnOnce(World) -> F) -> Stop {
    run(config, None, test)
}

/// As [`serve`], where commands wait for `hold` for an image that is not there.
fn run<F: Future<Output = ()>>(
    config: &str,
    hold: Option<Duration>,
    test: impl FnOnce(World) -> F,
) -> Stop {
    run_with(config, |spec, _| spec.hold = hold, test)
}

/// As [`serve`], where the device is different from the usual.
fn run_with<F: Future<Output = ()>>(
    config: &str,
    different: impl FnOnce(&mut DeviceSpec, &Tree),
    test: impl FnOnce(World) -> F,
) -> Stop {
    let tree = Tree::new().unwrap();
    let name = tcmu::DeviceName { hba: 0, name: "a".into(), config: config.into() };
    tree.add_device(0, &name, SIZE).unwrap();
    let mut spec = DeviceSpec {
        key: DeviceKey(1),
        name: "user_0/a".into(),
        uio: tree.sysfs().device(0).unwrap().unwrap(),
        configfs: tree.configfs().device(0, "a").unwrap(),
        config: config.into(),
        block_size: 512,
        size: SIZE,
        write_cache: true,
        plugin: None,
        serial: String::new(),
        cmd_time_out: None,
        patience: Duration::from_secs(20),
        hold: None,
        backing_dirs: None,
        watch: Arc::default(),
        max_transfer: 1 << 20,
        shown: Arc::default(),
        backend: Backend::Auto,
    };
    different(&mut spec, &tree);
    let (spec, hold) = (spec.clone(), spec.hold);
    let (kernel, parts) = Kernel::new(&Options::default()).unwrap();
    let mut ring = parts.ring().unwrap();
    assert!(ring.set_out_of_order(true));
    let (control, control_end) = io_engine::channel();
    let (sender, events) = events::queue().unwrap();
    let world = World { kernel, control: control.clone(), events };
    let engine = Engine::new(Backend::Auto).unwrap();
    engine
        .block_on(async {
            let lun = open_lun(&spec, config, None).await;
            let serving = async {
                let opening = match (lun, hold) {
                    (Err(why), Some(hold)) => {
                        absent::wait(&spec, why, hold, ring, control_end, &sender).await
                    }
                    (lun, _) => Opening::Open(Box::new(Server {
                        spec: &spec,
                        lun: lun.unwrap().into(),
                        ring,
                        control: control_end,
                        events: &sender,
                        held: Vec::new(),
                    })),
                };
                match opening {
                    Opening::Open(server) => server.run().await,
                    Opening::Stopped(stop) => stop,
                }
            };
            let mut serving = pin!(serving);
            let mut test = pin!(test(world));
            let mut tested = false;
            poll_fn(|cx| {
                if !tested && test.as_mut().poll(cx).is_ready() {
                    tested = true;
                    assert!(control.send(Control::Stop(Duration::from_secs(5))).is_ok());
                }
                match serving.as_mut().poll(cx) {
                    Poll::Ready(stop) => {
                        assert!(tested, "the device ended: {stop}");
                        Poll::Ready(stop)
                    }
                    Poll::Pending => Poll::Pending,
                }
            })
            .await
        })
        .unwrap()
}

#[test]
fn what_was_written_is_read_back_and_the_device_closes_when_told() {
    let stop = serve("ram//1M", |mut world| async move {
        let data: Vec<u8> = (0..8192u32).map(|i| (i % 251) as u8).collect();
        assert_eq!(world.execute(&write_10(16, 16), Data::Out(&data)).await.status, 0);
        let read = world.execute(&read_10(16, 16), Data::In(8192)).await;
        assert_eq!((read.status, read.data), (0, data));
    });
    assert_eq!(stop, Stop::Asked);
}

#[test]
fn a_full_ring_of_commands_ends_with_each_answered_once() {
    serve("ram//1M", |mut world| async move {
        for round in 0..20 {
            let mut ids = std::collections::BTreeSet::new();
            while let Ok(id) = world.kernel.send(&read_10(round, 8), Data::In(4096)) {
                ids.insert(id);
            }
            assert!(ids.len() > 40, "{}", ids.len());
            world.kernel.notify();
            for completion in world.completions(ids.len()).await {
                assert_eq!(completion.status, 0);
                assert!(ids.remove(&completion.id));
            }
            assert!(ids.is_empty());
        }
    });
}

#[test]
fn a_command_that_is_refused_has_sense_and_no_data() {
    serve("ram//1M", |mut world| async move {
        let past_the_end = world.execute(&read_10(2048, 1), Data::In(512)).await;
        assert_eq!(past_the_end.status, 2);
        // Fixed format, ILLEGAL REQUEST, LOGICAL BLOCK ADDRESS OUT OF RANGE.
        let sense = past_the_end.sense;
        assert_eq!((sense[0] & 0x7f, sense[2], sense[12], sense[13]), (0x70, 5, 0x21, 0));
        assert!(past_the_end.data.is_empty());
        let unknown = world.execute(&[0xff; 16], Data::None).await;
        assert_eq!((unknown.status, unknown.sense[12]), (2, 0x20));
    });
}

#[test]
fn a_device_that_grows_says_so_once_and_has_its_new_blocks() {
    serve("ram//1M", |mut world| async move {
        world.request(Request::Resize(2 * SIZE)).await.unwrap();
        let attention = world.execute(&read_10(0, 1), Data::In(512)).await;
        assert_eq!((attention.status, attention.sense[2], attention.sense[12]), (2, 6, 0x2a));
        let last = u32::try_from(2 * SIZE / 512 - 1).unwrap();
        assert_eq!(world.execute(&read_10(last, 1), Data::In(512)).await.status, 0);
    });
}

#[test]
fn another_image_that_does_not_open_leaves_the_device_as_it_is() {
    serve("ram//1M", |mut world| async move {
        let data = [7; 512];
        assert_eq!(world.execute(&write_10(0, 1), Data::Out(&data)).await.status, 0);
        let refused = world.request(Request::Reconfigure("file//no/such/image".into())).await;
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert_eq!(world.execute(&read_10(0, 1), Data::In(512)).await.data, data);
    });
}

/// A file of [`SIZE`] bytes.
fn raw(path: &Path) {
    std::fs::File::create(path).unwrap().set_len(SIZE).unwrap();
}

/// A qcow2 image of [`SIZE`] bytes; on `below`, where there is one.
fn qcow2(path: &Path, below: Option<&Path>) {
    let mut command = std::process::Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2"]);
    if let Some(below) = below {
        command.args(["-u", "-F", "qcow2", "-b"]).arg(below);
    }
    let status = command.arg(path).arg(SIZE.to_string()).status();
    assert!(status.expect("install qemu-utils: this test runs qemu-img").success());
}

#[test]
fn a_device_takes_an_overlay_on_its_image_and_the_image_again() {
    let dir = tempfile::tempdir().unwrap();
    let (s0, s1) = (dir.path().join("s0"), dir.path().join("s1"));
    qcow2(&s0, None);
    qcow2(&s1, Some(&s0));
    let config = |image: &Path| format!("qcow/{}", image.display());
    let (c0, c1) = (config(&s0), config(&s1));
    let stop = serve(&c0.clone(), |mut world| async move {
        let (old, new) = ([1; 512], [2; 512]);
        assert_eq!(world.execute(&write_10(0, 1), Data::Out(&old)).await.status, 0);
        world.request(Request::Reconfigure(c1)).await.unwrap();
        assert_eq!(world.execute(&read_10(0, 1), Data::In(512)).await.data, old);
        assert_eq!(world.execute(&write_10(0, 1), Data::Out(&new)).await.status, 0);
        world.request(Request::Reconfigure(c0.clone())).await.unwrap();
        assert_eq!(world.execute(&read_10(0, 1), Data::In(512)).await.data, old);
        let timeout = format!("{c0};tcmur_cmd_time_out=5");
        world.request(Request::Reconfigure(timeout)).await.unwrap();
        assert_eq!(world.execute(&read_10(0, 1), Data::In(512)).await.data, old);
    });
    assert_eq!(stop, Stop::Asked);
}

#[test]
fn an_image_that_another_device_has_is_busy_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mine, other) = (dir.path().join("mine"), dir.path().join("other"));
    raw(&mine);
    raw(&other);
    let config = |image: &Path| format!("file/{}", image.display());
    let (mine, other) = (config(&mine), config(&other));
    serve(&other.clone(), |_other_world| async move {
        // On a thread of its own, as devices are.
        let served = std::thread::spawn(move || {
            serve(&mine, |mut world| async move {
                let began = Instant::now();
                let refused = world.request(Request::Reconfigure(other)).await.unwrap_err();
                assert_eq!(refused.raw_os_error(), Some(libc::EBUSY));
                assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
                assert_eq!(world.execute(&read_10(0, 1), Data::In(512)).await.status, 0);
            })
        });
        assert_eq!(served.join().unwrap(), Stop::Asked);
    });
}

/// The kernel itself reports the reset to each initiator.
#[test]
fn a_logical_unit_reset_clears_what_was_to_be_reported() {
    serve("ram//1M", |mut world| async move {
        world.request(Request::Resize(2 * SIZE)).await.unwrap();
        // LUN_RESET
        world.kernel.send_tmr(5, &[]).unwrap();
        world.kernel.notify();
        assert_eq!(world.execute(&read_10(0, 1), Data::In(512)).await.status, 0);
    });
}

#[test]
fn a_buffer_that_is_shorter_than_the_transfer_length_is_a_residual() {
    serve("ram//1M", |mut world| async move {
        assert_eq!(world.execute(&write_10(0, 1), Data::Out(&[1; 512])).await.status, 0);
        let short = world.execute(&read_10(0, 8), Data::In(512)).await;
        assert_eq!((short.status, short.data), (0, vec![1; 512]));
    });
}

const NOT_READY: [u8; 3] = [0x02, 0x04, 0x01];

/// Key, code and qualifier of the sense that a command ended with.
fn sense(completion: &Completion) -> [u8; 3] {
    let sense = &completion.sense;
    [sense[2] & 0x0f, sense[12], sense[13]]
}

#[test]
fn commands_wait_for_an_image_that_is_not_there_and_go_on_when_it_appears() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("later/disk.img");
    let config = format!("file/{}", image.display());
    let hold = Some(Duration::from_secs(60));
    let stop = run(&config, hold, |mut world| async move {
        world.kernel.send(&write_10(0, 1), Data::Out(&[7; 512])).unwrap();
        world.kernel.notify();
        io_engine::sleep(Duration::from_millis(300)).await;
        assert_eq!(world.kernel.take_completions().unwrap().len(), 0, "it waits");
        let start = Instant::now();
        // In steps, each of which is one change of the nearest directory that there is.
        std::fs::create_dir(image.parent().unwrap()).unwrap();
        io_engine::sleep(Duration::from_millis(1200)).await;
        raw(&dir.path().join("new"));
        std::fs::rename(dir.path().join("new"), &image).unwrap();
        assert_eq!(world.completions(1).await[0].status, 0);
        assert!(start.elapsed() < Duration::from_secs(5));
        assert_eq!(std::fs::read(&image).unwrap()[..512], [7; 512]);
        let read = world.execute(&read_10(0, 1), Data::In(512)).await;
        assert_eq!((read.status, &read.data[..]), (0, &[7; 512][..]));
        drop(dir);
    });
    assert_eq!(stop, Stop::Asked);
}

#[test]
fn a_command_that_has_waited_for_too_long_is_to_be_sent_again_and_the_change_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.img");
    let config = format!("file/{}", image.display());
    let hold = Duration::from_millis(700);
    let stop = run(&config, Some(hold), |mut world| async move {
        let start = Instant::now();
        let late = world.execute(&read_10(0, 1), Data::In(512)).await;
        assert!(start.elapsed() >= hold, "{:?}", start.elapsed());
        assert_eq!((late.status, sense(&late)), (2, NOT_READY));
        raw(&image);
        assert!(world.control.send(Control::Retry).is_ok());
        let told = world.execute(&read_10(0, 1), Data::In(512)).await;
        assert_eq!((told.status, sense(&told)), (2, [0x06, 0x28, 0x00]));
        assert_eq!(world.execute(&read_10(0, 1), Data::In(512)).await.status, 0);
        drop(dir);
    });
    assert_eq!(stop, Stop::Asked);
}

#[test]
fn a_device_without_its_image_says_who_it_is_and_that_it_is_not_ready_at_once() {
    let hold = Some(Duration::from_secs(60));
    let stop = run("file//no/such/image", hold, |mut world| async move {
        let start = Instant::now();
        let ready = world.execute(&[0; 6], Data::None).await;
        assert_eq!((ready.status, sense(&ready)), (2, NOT_READY));
        let inquiry = world.execute(&[0x12, 0, 0, 0, 96, 0], Data::In(96)).await;
        assert_eq!((inquiry.status, inquiry.data[0]), (0, 0), "a disk");
        let serial = world.execute(&[0x12, 1, 0x80, 0, 96, 0], Data::In(96)).await;
        assert_eq!((serial.status, serial.data[1]), (0, 0x80));
        assert!(start.elapsed() < Duration::from_secs(5));
        // What depends on the image waits; then the device is stopped.
        world.kernel.send(&[0x12, 1, 0xb0, 0, 96, 0], Data::In(96)).unwrap();
        world.kernel.notify();
        io_engine::sleep(Duration::from_millis(300)).await;
        assert_eq!(world.kernel.take_completions().unwrap().len(), 0);
        // The command is given back at the stop: the kernel has to be there until then.
        std::mem::forget(world);
    });
    assert_eq!(stop, Stop::Asked);
}

#[test]
fn a_device_without_its_image_takes_another_one_and_refuses_other_changes() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(SIZE).unwrap();
    let there = format!("file/{}", file.path().display());
    let hold = Some(Duration::from_secs(60));
    let stop = run("file//no/such/image", hold, |mut world| async move {
        let errno = |result: io::Result<()>| result.unwrap_err().raw_os_error();
        let resized = world.request(Request::Resize(SIZE * 2)).await;
        assert_eq!(errno(resized), Some(libc::ENODEV));
        let missing = world.request(Request::Reconfigure("file//nor/this".into())).await;
        assert_eq!(errno(missing), Some(libc::ENOENT));
        world.request(Request::Reconfigure(there)).await.unwrap();
        assert_eq!(world.execute(&read_10(0, 1), Data::In(512)).await.status, 0);
    });
    assert_eq!(stop, Stop::Asked);
}

#[test]
fn the_manager_is_told_when_an_initiator_turns_the_write_cache_off_and_not_of_its_own_request() {
    let stop = serve("ram//1M", |mut world| async move {
        let set = |world: &World| {
            let set = |event| match event {
                Event::Device(DeviceEvent::WriteCacheSet { on, .. }) => Some(on),
                _ => None,
            };
            world.events.drain().filter_map(set).collect::<Vec<_>>()
        };
        // MODE SELECT (6) with PF: a header and the caching page without WCE.
        let sensed = world.execute(&[0x1a, 8, 8, 0, 24, 0], Data::In(24)).await;
        assert_eq!((sensed.status, sensed.data[4] & 0x3f, sensed.data[6] & 4), (0, 8, 4));
        let mut list = sensed.data.clone();
        (list[0], list[2], list[4]) = (0, 0, list[4] & 0x3f);
        list[6] &= !4;
        let selected = world.execute(&[0x15, 0x10, 0, 0, 24, 0], Data::Out(&list)).await;
        assert_eq!(selected.status, 0);
        io_engine::sleep(Duration::from_millis(50)).await;
        assert_eq!(set(&world), [false]);
        world.request(Request::SetWriteCache(true)).await.unwrap();
        io_engine::sleep(Duration::from_millis(50)).await;
        assert_eq!(set(&world), [false; 0]);
    });
    assert_eq!(stop, Stop::Asked);
}

#[test]
fn a_name_that_the_kernel_has_cut_off_at_a_comma_is_hinted_at() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("disk,1.img"), "").unwrap();
    let config = format!("file/{}/disk", dir.path().display());
    let hold = Some(Duration::from_secs(60));
    let stop = run(&config, hold, |world| async move {
        io_engine::sleep(Duration::from_millis(50)).await;
        let reasons: Vec<_> = world
            .events
            .drain()
            .filter_map(|event| match event {
                Event::Device(DeviceEvent::Absent { reason, .. }) => Some(reason),
                _ => None,
            })
            .collect();
        assert_eq!(reasons.len(), 1);
        assert!(reasons[0].contains("disk,1.img: give it a name without a comma"), "{reasons:?}");
        drop(dir);
    });
    assert_eq!(stop, Stop::Asked);
}
