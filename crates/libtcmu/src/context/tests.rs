// SPDX-License-Identifier: Apache-2.0
//! Devices that come, change and go, with stand-ins for the kernel's files and its netlink.
use super::*;
use std::cell::RefCell;
use std::ffi::{CStr, c_char};
use std::time::Duration;

use tcmu::DeviceName;
use tcmu::mailbox::{CAP_OOOC, Mailbox, VERSION};
use tcmu_abi::check::text;
use tcmu_sim::{Peer, Tree};
use zerocopy::IntoBytes;

const MEMORY: usize = 1 << 20;
const TIME: Duration = Duration::from_secs(5);

thread_local! {
    /// What the callbacks were told: they are called in the test's thread.
    static TOLD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn tell(what: String) {
    TOLD.with_borrow_mut(|told| told.push(what));
}

fn told() -> Vec<String> {
    TOLD.take()
}

fn config_of(device: *mut Device) -> String {
    // SAFETY: callbacks get devices that exist.
    unsafe { Device::from_ptr(device) }.unwrap().cfgstring()
}

extern "C" fn added(device: *mut Device) -> c_int {
    let config = config_of(device);
    tell(format!("added {config}"));
    if config.ends_with("bad") { -libc::ENOMEDIUM } else { 0 }
}

extern "C" fn removed(device: *mut Device) {
    tell(format!("removed {}", config_of(device)));
}

extern "C" fn reconfig(device: *mut Device, change: *mut tcmulib_cfg_info) -> c_int {
    // SAFETY: the change is valid for the call, and its kind tells which value there is.
    let (kind, value) = unsafe {
        let change = change.read();
        let value = match change.kind {
            CFG_DEV_CFGSTR => text(change.data.dev_cfgstring, usize::MAX).unwrap(),
            CFG_DEV_SIZE => change.data.dev_size.to_string(),
            _ => change.data.write_cache.to_string(),
        };
        (change.kind, value)
    };
    tell(format!("reconfig {} {kind} {value}", config_of(device)));
    if value == "7" { -libc::ENOSPC } else { 0 }
}

unsafe extern "C" fn check(config: *const c_char, reason: *mut *mut c_char) -> bool {
    // SAFETY: text, and a place for text.
    unsafe {
        let config = text(config, usize::MAX).unwrap();
        if config.ends_with("bad") {
            reason.write(libc::strdup(c"it is bad".as_ptr()));
        }
        !config.ends_with("bad")
    }
}

fn handler(subtype: &'static CStr) -> tcmulib_handler {
    tcmulib_handler {
        name: c"a test".as_ptr(),
        subtype: subtype.as_ptr(),
        cfg_desc: ptr::null(),
        ctx: ptr::null_mut(),
        check_config: Some(check),
        reconfig: Some(reconfig),
        update_logdir: None,
        added: Some(added),
        removed: Some(removed),
        hm_private: ptr::without_provenance_mut(0x5a),
        connection: ptr::null_mut(),
    }
}

struct World {
    tree: Tree,
    peer: Peer,
    context: Box<Context>,
}

fn name(device: &str, config: &str) -> DeviceName {
    DeviceName { hba: 1, name: device.into(), config: config.into() }
}

/// A device with a mailbox in its memory.
fn add(tree: &Tree, minor: u32, name: &DeviceName) {
    tree.add_device(minor, name, MEMORY as u64).unwrap();
    let mailbox = Mailbox {
        version: VERSION.into(),
        flags: CAP_OOOC.into(),
        cmdr_off: 128.into(),
        cmdr_size: 65408.into(),
        cmd_head: 0.into(),
        padding: [0; 48],
        cmd_tail: 0.into(),
    };
    let mut memory = mailbox.as_bytes().to_vec();
    memory.resize(MEMORY, 0);
    std::fs::write(tree.path().join(format!("dev/uio{minor}")), memory).unwrap();
}

impl World {
    /// Serves the subtypes a and b, with these devices from the beginning.
    fn new(devices: &[(u32, DeviceName)]) -> World {
        let tree = Tree::new().unwrap();
        for (minor, name) in devices {
            add(&tree, *minor, name);
        }
        let (peer, netlink) = Peer::new().unwrap();
        let kernel = Kernel { netlink, sysfs: tree.sysfs(), configfs: tree.configfs() };
        // SAFETY: the handlers are as they should be.
        let context = unsafe { Context::new(&[handler(c"a"), handler(c"b")], kernel) }.unwrap();
        World { tree, peer, context }
    }

    /// Sends a message; returns the status that the kernel is answered.
    fn send(&self, kind: EventKind, device: &DeviceName, minor: u32) -> i32 {
        let device = device.clone();
        self.peer.send(&Event { kind, device, minor, device_id: Some(minor) }).unwrap();
        self.context.ready().unwrap();
        self.peer.reply(TIME).unwrap().expect("no answer").status
    }

    fn reconfig(&self, device: &DeviceName, size: Option<u64>, config: Option<&str>) -> i32 {
        let config = config.map(str::to_owned);
        self.send(EventKind::Reconfig { config, size, write_cache: None }, device, 4)
    }
}

#[test]
fn devices_that_are_there_are_reported_at_the_beginning() {
    let devices = [
        (2, name("x", "a/x")),
        (3, name("y", "other/y")),
        (5, name("z", "b/z")),
        (6, name("w", "a/bad")),
    ];
    let world = World::new(&devices);
    assert_eq!(told(), ["added a/x", "added b/z", "added a/bad"]);
    // One that was refused is not there; one that is there is not added again.
    assert_eq!(world.send(EventKind::Added, &devices[0].1, 2), 0);
    assert_eq!(world.send(EventKind::Removed, &devices[3].1, 6), 0);
    assert_eq!(told(), [""; 0]);
    world.context.end();
    assert_eq!(told(), ["removed a/x", "removed b/z"]);
}

#[test]
fn a_device_comes_changes_and_goes_by_the_kernels_messages() {
    let world = World::new(&[]);
    let disk = name("x", "b/x");
    add(&world.tree, 4, &disk);
    assert_eq!(world.send(EventKind::Added, &disk, 4), 0);
    assert_eq!(world.reconfig(&disk, Some(4096), None), 0);
    assert_eq!(world.reconfig(&disk, Some(7), None), -libc::ENOSPC);
    assert_eq!(world.reconfig(&disk, None, Some("b/new")), 0);
    assert_eq!(world.reconfig(&disk, Some(8192), None), 0);
    assert_eq!(world.send(EventKind::Removed, &disk, 4), 0);
    assert_eq!(world.reconfig(&disk, Some(4096), None), -libc::ENODEV);
    let wanted = [
        "added b/x",
        "reconfig b/x 1 4096",
        "reconfig b/x 1 7",
        "reconfig b/x 0 b/new",
        "reconfig b/new 1 8192",
        "removed b/new",
    ];
    assert_eq!(told(), wanted);
}

#[test]
fn what_cannot_be_opened_or_is_refused_fails_at_once() {
    let world = World::new(&[]);
    let (gone, bad, broken) = (name("x", "a/x"), name("y", "a/bad"), name("z", "a/z"));
    assert_eq!(world.send(EventKind::Added, &gone, 4), -libc::ENODEV);
    add(&world.tree, 5, &bad);
    assert_eq!(world.send(EventKind::Added, &bad, 5), -libc::ENOMEDIUM);
    world.tree.add_device(6, &broken, MEMORY as u64).unwrap();
    assert_eq!(world.send(EventKind::Added, &broken, 6), -libc::EIO);
    // A stand-in's netlink has no other listeners: nobody else can serve this one.
    assert_eq!(world.send(EventKind::Added, &name("w", "other/w"), 7), -libc::EOPNOTSUPP);
    assert_eq!(world.send(EventKind::Removed, &name("w", "other/w"), 7), 0);
    assert_eq!(told(), ["added a/bad"]);
}

#[test]
fn a_device_has_the_kernels_properties_and_its_handler() {
    let world = World::new(&[(4, name("x", "a/x"))]);
    let devices = lock(&world.context.devices);
    let device = &devices[&4];
    let properties = device.properties();
    assert_eq!((properties.block_size(), properties.num_lbas()), (512, 1 << 21));
    assert_eq!(properties.max_xfer_len(), 128);
    // SAFETY: the device exists, and its handler does.
    let handler = unsafe { *tcmu_abi::exports::device::tcmu_dev_get_handler(device.as_ptr()) };
    let context: *const Context = &*world.context;
    assert_eq!((handler.hm_private.addr(), handler.ctx.addr()), (0x5a, context.addr()));
}

#[test]
fn handlers_that_lack_something_are_refused() {
    let unnamed = tcmulib_handler { subtype: ptr::null(), ..handler(c"a") };
    let slashed = handler(c"a/b");
    let deaf = tcmulib_handler { added: None, ..handler(c"a") };
    for wrong in [unnamed, slashed, deaf] {
        let tree = Tree::new().unwrap();
        let (_peer, netlink) = Peer::new().unwrap();
        let kernel = Kernel { netlink, sysfs: tree.sysfs(), configfs: tree.configfs() };
        // SAFETY: what is there of the handler is as it should be.
        assert!(unsafe { Context::new(&[wrong], kernel) }.is_err());
    }
}

#[test]
fn questions_about_configurations_are_answered_when_the_program_looks() {
    let world = World::new(&[]);
    let ask = |subtype: &str, config: &str| world.context.checks.ask(subtype, config.into());
    let answers = [ask("a", "a/x"), ask("b", "b/bad"), ask("c", "c/x")];
    world.context.ready().unwrap();
    let verdicts = answers.map(zbus::block_on);
    assert_eq!(verdicts, [Ok(()), Err("it is bad".into()), Err("no such handler".into())]);
}
