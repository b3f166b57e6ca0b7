// SPDX-License-Identifier: Apache-2.0
//! Life cycles against a kernel made of a socket pair, a folder for sysfs and configfs, and threads
//! that do what the test says.
use std::cell::{Cell, RefCell};
use std::fs;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use block::OpenWatch;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use tcmu::DeviceName;
use tcmu::netlink::wire;

use super::*;
use crate::events::{self, Receiver};

const FAMILY: u16 = 0x21;

/// What a stand-in thread was told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Start(DeviceKey, String),
    Request(Request, Token),
    Retry,
    Stop,
}

type Record = Rc<RefCell<Vec<Told>>>;

struct FakeThread(Record);

impl Thread for FakeThread {
    fn request(&self, request: Request, token: Token) {
        self.0.borrow_mut().push(Told::Request(request, token));
    }

    fn retry(&self) {
        self.0.borrow_mut().push(Told::Retry);
    }

    fn stop(&self, _: Duration) {
        self.0.borrow_mut().push(Told::Stop);
    }
}

/// The kernel's side, and the manager that it talks to.
struct World {
    root: tempfile::TempDir,
    socket: OwnedFd,
    manager: Manager,
    told: Record,
    /// Whether somebody else may serve what is not ours.
    others: Rc<Cell<bool>>,
    /// What follows the openings.
    watches: Rc<RefCell<Vec<Arc<OpenWatch>>>>,
    _events: Receiver,
}

impl World {
    fn new() -> World {
        let root = tempfile::tempdir().unwrap();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (socket, ours) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
                .unwrap();
        let (sender, receiver) = events::queue().unwrap();
        let others = Rc::new(Cell::new(false));
        let elsewhere = {
            let others = others.clone();
            Box::new(move |_: &Netlink, _: &str| Ok(others.get()))
        };
        let options = Options {
            sysfs: Sysfs::new(root.path().join("uio"), "/dev"),
            configfs: Configfs::new(root.path().join("target")),
            subtypes: vec!["file".into(), "qcow".into()],
            plugins: Arc::default(),
            elsewhere,
            backing_dirs: BackingDirs::default(),
            limits: Limits::default(),
            backend: io_engine::Backend::Auto,
        };
        let told = Record::default();
        let record = told.clone();
        let watches = Rc::new(RefCell::new(Vec::new()));
        let followed = watches.clone();
        let start: Start = Box::new(move |spec, _| {
            if spec.config.contains("nothread") {
                return Err(io::Error::from_raw_os_error(libc::EAGAIN));
            }
            record.borrow_mut().push(Told::Start(spec.key, spec.config.clone()));
            followed.borrow_mut().push(spec.watch.clone());
            Ok(Box::new(FakeThread(record.clone())))
        });
        let netlink = Netlink::from_stand_in(ours, FAMILY);
        let manager = Manager::new(options, netlink, sender, start);
        World { root, socket, manager, told, others, watches, _events: receiver }
    }

    /// Makes a device as the kernel shows it: UIO and configfs.
    fn make(&self, minor: u32, name: &str, config: &str) {
        let uio = self.root.path().join(format!("uio/uio{minor}"));
        fs::create_dir_all(uio.join("maps/map0")).unwrap();
        fs::write(uio.join("name"), format!("tcm-user/0/{name}/{config}\n")).unwrap();
        fs::write(uio.join("maps/map0/size"), "0x10000\n").unwrap();
        let device = self.root.path().join("target/core/user_0").join(name);
        fs::create_dir_all(device.join("attrib")).unwrap();
        for (attribute, value) in [
            ("dev_config", config),
            ("dev_size", "1048576"),
            ("emulate_write_cache", "0"),
            ("hw_block_size", "512"),
        ] {
            fs::write(device.join("attrib").join(attribute), format!("{value}\n")).unwrap();
        }
    }

    fn unmake(&self, minor: u32) {
        fs::remove_dir_all(self.root.path().join(format!("uio/uio{minor}"))).unwrap();
    }

    fn say(&mut self, kind: EventKind, minor: u32, name: &str, config: &str) {
        let device = DeviceName { hba: 0, name: name.into(), config: config.into() };
        let event = Event { kind, device, minor, device_id: Some(100 + minor) };
        let message = wire::event(FAMILY, &event);
        rustix::net::send(&self.socket, &message, SendFlags::empty()).unwrap();
        self.manager.on_netlink().unwrap();
    }

    /// The next answer to the kernel: device and status.
    fn answer(&self) -> Option<(u32, i32)> {
        let mut buffer = [0; 4096];
        let received = rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty());
        let (_, n) = received.ok()?;
        let reply = wire::parse_reply(&buffer[..n], FAMILY).unwrap();
        Some((reply.device_id, reply.status))
    }

    fn told(&self) -> Vec<Told> {
        std::mem::take(&mut self.told.borrow_mut())
    }

    /// Adds a device and has it opened.
    fn serving(&mut self, minor: u32, name: &str, config: &str) -> DeviceKey {
        self.make(minor, name, config);
        self.say(EventKind::Added, minor, name, config);
        let told = self.told();
        let Some(Told::Start(key, _)) = told.last() else { panic!("not started: {told:?}") };
        self.manager.on_device(DeviceEvent::Opened(*key));
        assert_eq!(self.answer(), Some((100 + minor, 0)));
        *key
    }

    fn reconfig(&mut self, config: Option<&str>, size: Option<u64>, write_cache: Option<bool>) {
        let config = config.map(Into::into);
        self.say(EventKind::Reconfig { config, size, write_cache }, 0, "a", "file//a");
    }

    fn token(&self) -> (Request, Token) {
        match self.told().pop() {
            Some(Told::Request(request, token)) => (request, token),
            other => panic!("no request but {other:?}"),
        }
    }
}

fn stopped(device: DeviceKey) -> DeviceEvent {
    DeviceEvent::Stopped { device, why: Stop::Asked }
}

#[test]
fn the_kernel_is_answered_when_the_device_has_opened_and_not_before() {
    let mut world = World::new();
    world.make(0, "a", "file//a");
    world.say(EventKind::Added, 0, "a", "file//a");
    assert_eq!(world.told(), [Told::Start(DeviceKey(1), "file//a".into())]);
    assert_eq!(world.answer(), None);
    world.manager.on_device(DeviceEvent::Opened(DeviceKey(1)));
    assert_eq!(world.answer(), Some((100, 0)));
    assert_eq!(world.answer(), None);
}

#[test]
fn an_open_that_fails_gives_its_errno_to_the_kernel_and_leaves_nothing() {
    let mut world = World::new();
    world.make(0, "a", "file//none");
    world.say(EventKind::Added, 0, "a", "file//none");
    let failed = DeviceEvent::OpenFailed {
        device: DeviceKey(1),
        errno: libc::ENOENT,
        reason: "none".into(),
    };
    world.manager.on_device(failed);
    assert_eq!(world.answer(), Some((100, -libc::ENOENT)));
    assert!(world.manager.is_empty());
    world.say(EventKind::Removed, 0, "a", "file//none");
    assert_eq!(world.answer(), Some((100, 0)));
}

#[test]
fn a_thread_that_cannot_start_is_a_failed_open() {
    let mut world = World::new();
    world.make(0, "a", "file//nothread");
    world.say(EventKind::Added, 0, "a", "file//nothread");
    assert_eq!(world.answer(), Some((100, -libc::EAGAIN)));
    assert!(world.manager.is_empty());
}

#[test]
fn a_device_without_its_uio_device_is_refused() {
    let mut world = World::new();
    world.say(EventKind::Added, 3, "a", "file//a");
    assert_eq!(world.answer(), Some((103, -libc::ENODEV)));
}

const KINDS: [EventKind; 3] = [
    EventKind::Added,
    EventKind::Reconfig { config: None, size: Some(1), write_cache: None },
    EventKind::Removed,
];

#[test]
fn a_device_of_an_unknown_subtype_is_refused_at_once_and_can_be_removed() {
    let mut world = World::new();
    world.make(0, "a", "rbd/pool/a");
    world.make(1, "b", "qcow//b");
    world.manager.scan();
    assert_eq!(world.told(), [Told::Start(DeviceKey(1), "qcow//b".into())]);
    for (kind, status) in KINDS.into_iter().zip([-libc::EOPNOTSUPP, -libc::EOPNOTSUPP, 0]) {
        world.say(kind, 0, "a", "rbd/pool/a");
        assert_eq!(world.answer(), Some((100, status)));
    }
    for config in ["nosuch", "", "/"] {
        world.say(EventKind::Added, 2, "c", config);
        assert_eq!(world.answer(), Some((102, -libc::EOPNOTSUPP)), "{config:?}");
    }
    assert_eq!(world.manager.deadline(), None);
    assert!(world.told().is_empty());
}

#[test]
fn a_device_that_others_may_serve_gets_no_answer_from_us() {
    let mut world = World::new();
    world.others.set(true);
    world.make(0, "a", "rbd/pool/a");
    world.manager.scan();
    for kind in KINDS {
        world.say(kind, 0, "a", "rbd/pool/a");
        world.manager.tick(world.manager.deadline().unwrap());
    }
    assert_eq!(world.answer(), None);
    assert!(world.told().is_empty());
}

#[test]
fn we_answer_when_the_last_who_could_is_gone() {
    for (kind, status) in KINDS.into_iter().zip([-libc::EOPNOTSUPP, -libc::EOPNOTSUPP, 0]) {
        let mut world = World::new();
        world.others.set(true);
        world.make(0, "a", "rbd/pool/a");
        world.say(kind, 0, "a", "rbd/pool/a");
        world.manager.tick(world.manager.deadline().unwrap());
        assert_eq!(world.answer(), None);
        world.others.set(false);
        let due = world.manager.deadline().unwrap();
        world.manager.tick(due - Duration::from_millis(1));
        assert_eq!(world.answer(), None);
        world.manager.tick(due);
        assert_eq!(world.answer(), Some((100, status)));
        assert_eq!((world.answer(), world.manager.deadline()), (None, None));
    }
}

#[test]
fn what_others_have_answered_is_not_answered_again() {
    let mut world = World::new();
    world.others.set(true);
    for (minor, name) in [(0, "enabled"), (1, "gone"), (2, "superseded")] {
        world.make(minor, name, "rbd/pool/a");
        world.say(EventKind::Added, minor, name, "rbd/pool/a");
    }
    let target = world.root.path().join("target/core/user_0");
    fs::write(target.join("enabled/enable"), "1\n").unwrap();
    world.unmake(1);
    world.say(EventKind::Removed, 2, "superseded", "rbd/pool/a");
    world.others.set(false);
    world.manager.tick(world.manager.deadline().unwrap());
    assert_eq!(world.answer(), Some((102, 0)));
    assert_eq!((world.answer(), world.manager.deadline()), (None, None));
}

#[test]
fn a_slow_open_holds_up_nobody_else() {
    let mut world = World::new();
    world.make(0, "slow", "file//slow");
    world.say(EventKind::Added, 0, "slow", "file//slow");
    world.serving(1, "quick", "file//quick");
    assert_eq!(world.answer(), None);
    assert_eq!(world.manager.len(), 2);
}

#[test]
fn an_open_that_comes_further_may_take_its_time_and_ends_when_the_device_does() {
    let mut world = World::new();
    world.make(0, "a", "file//a");
    world.say(EventKind::Added, 0, "a", "file//a");
    let watch = world.watches.borrow()[0].clone();
    for _ in 0..5 {
        watch.step().unwrap();
        let due = world.manager.deadline().unwrap();
        world.manager.tick(due);
        assert_eq!(world.answer(), None);
        assert_eq!(world.manager.deadline(), Some(due + Limits::default().open));
    }
    world.manager.tick(world.manager.deadline().unwrap());
    assert_eq!(world.answer(), Some((100, -libc::ETIMEDOUT)));
    assert_eq!(world.told().pop(), Some(Told::Stop));
    watch.step().unwrap_err();
}

#[test]
fn an_open_that_takes_too_long_is_reported_and_given_up() {
    let mut world = World::new();
    world.make(0, "a", "file//a");
    world.say(EventKind::Added, 0, "a", "file//a");
    let due = world.manager.deadline().unwrap();
    world.manager.tick(due - Duration::from_millis(1));
    assert_eq!(world.answer(), None);
    world.manager.tick(due);
    assert_eq!(world.answer(), Some((100, -libc::ETIMEDOUT)));
    assert_eq!(world.told().pop(), Some(Told::Stop));
    let due = world.manager.deadline().unwrap();
    world.manager.tick(due);
    assert!(world.manager.is_empty());
    // Late, and of no consequence.
    world.manager.on_device(DeviceEvent::Opened(DeviceKey(1)));
    world.manager.on_device(stopped(DeviceKey(1)));
    assert_eq!(world.answer(), None);
}

#[test]
fn devices_that_are_there_at_the_start_are_opened_without_an_answer() {
    let mut world = World::new();
    world.make(4, "a", "file//a");
    world.make(7, "b", "qcow//b");
    world.manager.scan();
    world.manager.scan();
    assert_eq!(world.told().len(), 2);
    assert_eq!(world.manager.deadline(), None, "they may take their time");
    world.manager.on_device(DeviceEvent::Opened(DeviceKey(1)));
    assert_eq!(world.answer(), None);
}

#[test]
fn a_device_found_by_the_scan_before_its_message_is_answered_once_and_opened_once() {
    let mut world = World::new();
    world.make(0, "a", "file//a");
    world.manager.scan();
    world.say(EventKind::Added, 0, "a", "file//a");
    assert_eq!(world.told().len(), 1);
    world.manager.on_device(DeviceEvent::Opened(DeviceKey(1)));
    assert_eq!(world.answer(), Some((100, 0)));
    world.say(EventKind::Added, 0, "a", "file//a");
    assert_eq!(world.answer(), Some((100, 0)));
    assert!(world.told().is_empty());
}

#[test]
fn removal_is_answered_when_the_thread_has_ended() {
    let mut world = World::new();
    let key = world.serving(0, "a", "file//a");
    world.say(EventKind::Removed, 0, "a", "file//a");
    assert_eq!(world.told(), [Told::Stop]);
    assert_eq!(world.answer(), None);
    world.manager.on_device(stopped(key));
    assert_eq!(world.answer(), Some((100, 0)));
    assert!(world.manager.is_empty());
}

#[test]
fn a_device_that_does_not_close_is_left_to_itself_and_its_minor_is_used_again() {
    let mut world = World::new();
    world.serving(0, "a", "file//a");
    world.say(EventKind::Removed, 0, "a", "file//a");
    let due = world.manager.deadline().unwrap();
    world.manager.tick(due);
    assert_eq!(world.answer(), Some((100, 0)));
    assert!(world.manager.is_empty());
    world.told();
    world.serving(0, "b", "file//b");
}

#[test]
fn removal_while_opening_answers_both() {
    let mut world = World::new();
    world.make(0, "a", "file//a");
    world.say(EventKind::Added, 0, "a", "file//a");
    world.say(EventKind::Removed, 0, "a", "file//a");
    world.manager.on_device(stopped(DeviceKey(1)));
    let mut answers = [world.answer().unwrap(), world.answer().unwrap()];
    answers.sort();
    assert_eq!(answers, [(100, -libc::ENODEV), (100, 0)]);
}

#[test]
fn unchanged_values_succeed_without_asking_the_device() {
    let mut world = World::new();
    world.serving(0, "a", "file//a");
    world.reconfig(Some("file//a\n"), None, None);
    world.reconfig(None, Some(1_048_576), None);
    world.reconfig(None, None, Some(true));
    for _ in 0..3 {
        assert_eq!(world.answer(), Some((100, 0)));
    }
    assert!(world.told().is_empty());
}

/// The image of a device cannot be opened yet.
fn absent(device: DeviceKey) -> DeviceEvent {
    let hold = Duration::from_secs(20);
    DeviceEvent::Absent { device, errno: libc::ENOENT, reason: "no such file".into(), hold }
}

#[test]
fn a_device_of_before_waits_for_its_image_and_is_tried_again() {
    let mut world = World::new();
    world.make(0, "a", "file//a");
    world.manager.scan();
    world.serving(1, "b", "file//b");
    world.told();
    world.manager.on_device(absent(DeviceKey(1)));
    assert_eq!(world.manager.deadline(), None, "however long it takes");
    world.manager.retry();
    assert_eq!(world.told(), [Told::Retry], "only the one that waits");
    // Another image may be asked for, nothing else.
    world.reconfig(None, Some(1), None);
    assert_eq!(world.answer(), Some((100, -libc::ENOENT)));
    world.reconfig(Some("file//there"), None, None);
    let (request, token) = world.token();
    assert_eq!(request, Request::Reconfigure("file//there".into()));
    world.manager.on_device(DeviceEvent::Reply { device: DeviceKey(1), token, result: Ok(()) });
    world.manager.on_device(DeviceEvent::Opened(DeviceKey(1)));
    assert_eq!(world.answer(), Some((100, 0)));
    world.manager.retry();
    assert!(world.told().is_empty());
}

#[test]
fn enabling_a_device_without_its_image_fails() {
    // The scan found it first; then its message is read, before or after the open has failed.
    for read_first in [true, false] {
        let mut world = World::new();
        world.make(0, "a", "file//a");
        world.manager.scan();
        if read_first {
            world.say(EventKind::Added, 0, "a", "file//a");
            world.manager.on_device(absent(DeviceKey(1)));
        } else {
            world.manager.on_device(absent(DeviceKey(1)));
            world.say(EventKind::Added, 0, "a", "file//a");
        }
        assert_eq!(world.answer(), Some((100, -libc::ENOENT)));
        assert_eq!(world.told().pop(), Some(Told::Stop));
        world.manager.on_device(stopped(DeviceKey(1)));
        assert!(world.manager.is_empty());
    }
}

#[test]
fn commands_wait_for_less_than_the_initiator_and_the_kernel_do() {
    let world = World::new();
    world.make(0, "a", "file//a");
    world.make(1, "b", "file/;tcmur_cmd_time_out=12;/b");
    let options = &world.manager.options;
    let hold = |minor, new| {
        let uio = options.sysfs.device(minor).unwrap().unwrap();
        served::spec(DeviceKey(9), &uio, options, new).unwrap().hold
    };
    let kernel = world.root.path().join("target/core/user_0/a/attrib/cmd_time_out");
    for (seconds, expected) in [("0", 20), ("30", 20), ("120", 20), ("6", 4)] {
        fs::write(&kernel, seconds).unwrap();
        assert_eq!(hold(0, false), Some(Duration::from_secs(expected)), "{seconds}");
    }
    assert_eq!(hold(1, false), Some(Duration::from_secs(8)));
    assert_eq!(hold(0, true), None, "enabling a device fails instead");
}

#[test]
fn a_write_cache_that_an_initiator_turns_off_is_off_in_configfs_too() {
    let mut world = World::new();
    let device = world.serving(0, "a", "file//a");
    let attribute = world.root.path().join("target/core/user_0/a/attrib/emulate_write_cache");
    let value = || fs::read_to_string(&attribute).unwrap().trim().to_owned();
    assert_eq!(value(), "1", "a new device has it");
    world.told();
    world.manager.on_device(DeviceEvent::WriteCacheSet { device, on: false });
    let until = Instant::now() + Duration::from_secs(10);
    while value() != "0" {
        assert!(Instant::now() < until, "the attribute is not set");
        std::thread::sleep(Duration::from_millis(5));
    }
    // What the kernel makes of it.
    world.reconfig(None, None, Some(false));
    assert_eq!(world.answer(), Some((100, 0)));
    assert!(world.told().is_empty());
}

#[test]
fn changes_are_asked_of_the_device_and_its_answer_is_passed_on() {
    let mut world = World::new();
    let device = world.serving(0, "a", "file//a");
    world.reconfig(None, Some(2 << 20), None);
    let (request, token) = world.token();
    assert_eq!(request, Request::Resize(2 << 20));
    assert_eq!(world.answer(), None);
    world.manager.on_device(DeviceEvent::Reply { device, token, result: Ok(()) });
    assert_eq!(world.answer(), Some((100, 0)));
    world.reconfig(None, Some(2 << 20), None);
    assert_eq!(world.answer(), Some((100, 0)), "it is the present value now");

    world.reconfig(None, None, Some(false));
    let (request, token) = world.token();
    assert_eq!(request, Request::SetWriteCache(false));
    let result = Err(io::Error::from_raw_os_error(libc::EIO));
    world.manager.on_device(DeviceEvent::Reply { device, token, result });
    assert_eq!(world.answer(), Some((100, -libc::EIO)));

    world.reconfig(Some("file//b"), None, None);
    assert_eq!(world.token().0, Request::Reconfigure("file//b".into()));
}

#[test]
fn a_change_of_subtype_or_of_a_device_that_is_not_open_is_refused() {
    let mut world = World::new();
    world.reconfig(None, Some(1), None);
    assert_eq!(world.answer(), Some((100, -libc::ENODEV)));
    world.serving(0, "a", "file//a");
    world.reconfig(Some("qcow//a"), None, None);
    assert_eq!(world.answer(), Some((100, -libc::EINVAL)));
}

#[test]
fn a_change_waits_for_the_open_and_fails_with_it() {
    let mut world = World::new();
    world.make(0, "a", "file//a");
    world.manager.scan();
    world.reconfig(None, Some(1), None);
    assert_eq!(world.answer(), None);
    let reason = "gone".into();
    let device = DeviceKey(1);
    world.manager.on_device(DeviceEvent::OpenFailed { device, errno: libc::ENOENT, reason });
    assert_eq!(world.answer(), Some((100, -libc::ENOENT)));
}

#[test]
fn a_change_that_takes_too_long_is_answered_and_its_late_end_is_not() {
    let mut world = World::new();
    let device = world.serving(0, "a", "file//a");
    world.reconfig(None, Some(4096), None);
    let (_, token) = world.token();
    let due = world.manager.deadline().unwrap();
    world.manager.tick(due);
    assert_eq!(world.answer(), Some((100, -libc::ETIMEDOUT)));
    world.manager.on_device(DeviceEvent::Reply { device, token, result: Ok(()) });
    assert_eq!(world.answer(), None);
    // What it has now is uncertain: even the old value is a change.
    world.reconfig(None, Some(1_048_576), None);
    assert_eq!(world.token().0, Request::Resize(1_048_576));
}

#[test]
fn a_device_that_never_opens_is_not_enabled_when_the_daemon_ends() {
    let mut world = World::new();
    world.make(0, "a", "file//a");
    world.say(EventKind::Added, 0, "a", "file//a");
    world.manager.shut_down();
    assert_eq!(world.answer(), None);
    let due = world.manager.deadline().unwrap();
    world.manager.tick(due);
    assert_eq!(world.answer(), Some((100, -libc::ETIMEDOUT)));
    assert!(world.manager.is_empty());
}

#[test]
fn a_panic_ends_one_device_and_whoever_waits_for_it_is_told() {
    let mut world = World::new();
    let bad = world.serving(0, "a", "file//a");
    world.serving(1, "b", "file//b");
    world.reconfig(None, Some(1), None);
    let why = Stop::Panicked("index out of bounds".into());
    world.manager.on_device(DeviceEvent::Stopped { device: bad, why });
    assert_eq!(world.answer(), Some((100, -libc::EIO)));
    assert_eq!(world.manager.len(), 1);
}

#[test]
fn lost_messages_lead_to_a_comparison_with_what_is_there() {
    let mut world = World::new();
    world.serving(0, "gone", "file//gone");
    world.unmake(0);
    world.make(1, "new", "file//new");
    world.manager.on_lost();
    assert_eq!(world.told(), [Told::Stop, Told::Start(DeviceKey(2), "file//new".into())]);
}

#[test]
fn shutdown_closes_all_devices_at_once_and_ends_in_time() {
    let mut world = World::new();
    let quick = world.serving(0, "a", "file//a");
    world.serving(1, "b", "file//b");
    world.told();
    world.manager.shut_down();
    assert_eq!(world.told(), [Told::Stop, Told::Stop]);
    world.make(2, "c", "file//c");
    world.say(EventKind::Added, 2, "c", "file//c");
    assert_eq!(world.answer(), Some((102, -libc::ESHUTDOWN)));
    world.manager.on_device(stopped(quick));
    assert_eq!(world.manager.len(), 1);
    let due = world.manager.deadline().unwrap();
    assert!(due <= Instant::now() + Limits::default().shutdown);
    world.manager.tick(due);
    assert!(world.manager.is_empty());
}

#[test]
fn the_thread_is_told_what_configfs_says() {
    let world = World::new();
    world.make(0, "a", "file/;tcmur_cmd_time_out=7;/a");
    let device = world.root.path().join("target/core/user_0/a");
    fs::create_dir_all(device.join("wwn")).unwrap();
    fs::write(device.join("wwn/vpd_unit_serial"), "T10 VPD Unit Serial Number: abc-1\n").unwrap();
    fs::write(device.join("attrib/emulate_write_cache"), "1\n").unwrap();
    let uio = world.manager.options.sysfs.device(0).unwrap().unwrap();
    let spec = served::spec(DeviceKey(9), &uio, &world.manager.options, true).unwrap();
    assert_eq!(spec.name, "user_0/a");
    assert_eq!((spec.block_size, spec.size, spec.write_cache), (512, 1 << 20, true));
    assert_eq!(spec.serial, "abc-1");
    assert_eq!(spec.cmd_time_out, Some(Duration::from_secs(7)));
    assert_eq!(spec.backing_dirs, Some(vec![]));
}

#[test]
fn a_new_device_gets_a_write_cache_and_one_that_was_there_keeps_its_setting() {
    let world = World::new();
    world.make(0, "a", "file//a");
    let attribute = world.root.path().join("target/core/user_0/a/attrib/emulate_write_cache");
    let uio = world.manager.options.sysfs.device(0).unwrap().unwrap();
    let spec = |new| served::spec(DeviceKey(9), &uio, &world.manager.options, new).unwrap();
    assert!(!spec(false).write_cache);
    assert_eq!(fs::read_to_string(&attribute).unwrap().trim(), "0");
    assert!(spec(true).write_cache);
    assert_eq!(fs::read_to_string(&attribute).unwrap().trim(), "1");
    assert!(spec(false).write_cache);
}

#[test]
fn the_kernel_waits_for_answers_about_a_device_of_before_unless_it_must_not() {
    let mut world = World::new();
    for (minor, name, supported) in [(0, "a", "0"), (1, "b", "-1"), (2, "c", "1")] {
        world.make(minor, name, "file//a");
        let attributes = world.root.path().join("target/core/user_0").join(name).join("attrib");
        fs::write(attributes.join("nl_reply_supported"), format!("{supported}\n")).unwrap();
    }
    world.manager.scan();
    let supported = ["a", "b", "c"].map(|name| {
        let device = world.root.path().join("target/core/user_0").join(name);
        fs::read_to_string(device.join("attrib/nl_reply_supported")).unwrap().trim().to_owned()
    });
    assert_eq!(supported, ["1", "-1", "1"]);
}
