// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to look into the plugins that tests compile.
//!
//! What the tests share: a compiler of plugins, a device without a kernel.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Once;
use std::time::{Duration, Instant};

use block::Store;
use io_engine::{Backend, Engine, Started, TaskSet};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use sgl::Sgl;
use tcmu_plugin::{Isolation, OpenError, PluginDevice, Plugins, Setup};
use tcmu_sim::Tree;
use tempfile::TempDir;

pub(crate) const SIZE: u64 = 1 << 20;

/// A directory with plugins.
pub(crate) struct Built(TempDir);

impl Built {
    pub(crate) fn new() -> Built {
        static KEPT: Once = Once::new();
        KEPT.call_once(|| assert!(tcmu_abi::keep() + tcmu_plugin::keep() > 50));
        Built(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Compiles a plugin of `tests/plugins`.
    pub(crate) fn add(&self, source: &str, name: &str, arguments: &[&str]) -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let source = root.join("tests/plugins").join(source);
        let file = self.path().join(name);
        let mut cc = Command::new("cc");
        cc.args(["-std=gnu11", "-Wall", "-Wextra", "-O1", "-fPIC", "-shared", "-pthread", "-o"]);
        cc.arg(&file).arg("-I").arg(root.join("../libtcmu/include"));
        let out = cc.args(arguments).arg(&source).output();
        let out = out.expect("install gcc and libc6-dev: this test compiles plugins");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success() && said.is_empty(), "{}: {said}", source.display());
        file
    }

    /// The plugins, loaded.
    pub(crate) fn load(&self) -> Plugins {
        Plugins::load(self.path(), &["file", "qcow"])
    }

    /// The plugins, each in a process of its own.
    pub(crate) fn isolate(&self) -> Plugins {
        Plugins::load_isolated(self.path(), &["file"], &isolation())
    }

    /// The processes of its plugins.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap() {
            let path = entry.unwrap().path();
            let arguments = std::fs::read(path.join("cmdline")).unwrap_or_default();
            let arguments = String::from_utf8_lossy(&arguments).into_owned();
            let name = path.file_name().unwrap().to_str().unwrap();
            if let Ok(pid) = name.parse()
                && arguments.starts_with("tcmu-plugin\0")
                && arguments.contains(self.path().to_str().unwrap())
            {
                found.push(pid);
            }
        }
        found
    }
}

/// How the tests start processes of plugins.
pub(crate) fn isolation() -> Isolation {
    Isolation::new(env!("CARGO_BIN_EXE_plugin-process"), Vec::new())
}

/// The plugin that does everything right, and a file for its devices.
pub(crate) struct Right {
    pub(crate) built: Built,
    pub(crate) plugins: Plugins,
    pub(crate) file: PathBuf,
    library: Library,
}

/// How often the plugin has done what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Counts {
    pub(crate) opened: i32,
    pub(crate) closed: i32,
    pub(crate) locked: i32,
    pub(crate) unlocked: i32,
    pub(crate) unmapped: i32,
    pub(crate) same: i32,
    pub(crate) compared: i32,
    pub(crate) flushed: i32,
    pub(crate) events: i32,
    pub(crate) log_dirs: i32,
}

/// What the plugin has found behind `tcmu_dev_get_private` when it last looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Known {
    pub(crate) lock_lost: u64,
    pub(crate) conn_lost: u64,
    pub(crate) timed_out: u64,
    pub(crate) lock_state: u64,
}

impl Right {
    pub(crate) fn new() -> Right {
        let built = Built::new();
        let path = built.add("handler_right.c", "handler_right.so", &[]);
        let plugins = built.load();
        assert_eq!(plugins.handlers().len(), 6);
        let file = built.path().join("disk.img");
        std::fs::write(&file, vec![0; usize::try_from(SIZE).unwrap()]).unwrap();
        // SAFETY: it is loaded already; this adds a reference.
        let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) }.unwrap();
        Right { built, plugins, file, library }
    }

    pub(crate) fn counts(&self) -> Counts {
        // SAFETY: the plugin has a variable of this name and layout.
        unsafe { self.library.get::<*mut Counts>(b"right_counts\0").unwrap().read_volatile() }
    }

    pub(crate) fn known(&self) -> Known {
        // SAFETY: the plugin has a variable of this name and layout.
        unsafe { self.library.get::<*mut Known>(b"right_known\0").unwrap().read_volatile() }
    }

    /// Sets a variable of the plugin.
    pub(crate) fn set(&self, variable: &str, value: i32) {
        // SAFETY: the plugin has variables of these names, of type int.
        unsafe { self.library.get::<*mut i32>(variable.as_bytes()).unwrap().write_volatile(value) };
    }

    /// A variable of the plugin.
    pub(crate) fn get(&self, variable: &str) -> i32 {
        // SAFETY: the plugin has variables of these names, of type int.
        unsafe { self.library.get::<*mut i32>(variable.as_bytes()).unwrap().read_volatile() }
    }

    /// A device of a subtype.
    pub(crate) async fn device(&self, subtype: &str) -> Rc<PluginDevice> {
        self.open(subtype).await.unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) async fn open(&self, subtype: &str) -> Result<Rc<PluginDevice>, OpenError> {
        open(&self.plugins, &format!("{subtype}/{}", self.file.display()), SIZE, 512).await
    }
}

/// Has a plugin open a device.
pub(crate) async fn open(
    plugins: &Plugins,
    config: &str,
    size: u64,
    block_size: u32,
) -> Result<Rc<PluginDevice>, OpenError> {
    thread_local! {
        static TREES: RefCell<Vec<Tree>> = const { RefCell::new(Vec::new()) };
    }
    let tree = Tree::new().unwrap();
    let name = tcmu::DeviceName { hba: 0, name: "a".into(), config: config.into() };
    tree.add_device(0, &name, SIZE).unwrap();
    let info = format!(
        "Status: ACTIVATED  Max Queue Depth: 0  SectorSize: {block_size}  HwMaxSectors: 128\n        Config: {config}  Size: {size}"
    );
    tree.put("target/core/user_0/a/info", &info).unwrap();
    tree.put("target/core/user_0/a/attrib/hw_block_size", &block_size.to_string()).unwrap();
    tree.put("target/core/user_0/a/wwn/vpd_unit_serial", "T10 VPD Unit Serial Number: 1234")
        .unwrap();
    let handler = plugins.find(config.split('/').next().unwrap()).expect("a handler").clone();
    let setup = Setup {
        name: "user_0/a".into(),
        uio: tree.sysfs().device(0).unwrap().unwrap(),
        config: config.into(),
        configfs: tree.configfs().device(0, "a").unwrap(),
        size,
        block_size,
        max_transfer: 1 << 20,
        write_cache: true,
        patience: Duration::from_secs(3),
    };
    // Handlers look into configfs whenever they like.
    TREES.with_borrow_mut(|trees| trees.push(tree));
    PluginDevice::open(handler, setup).await
}

/// Memory with these bytes.
pub(crate) fn memory(bytes: &[u8]) -> Sgl<'static> {
    let list = Sgl::zeroed(bytes.len());
    list.write_at(0, bytes);
    list
}

/// What is in memory.
pub(crate) fn bytes(list: &Sgl<'_>) -> Vec<u8> {
    let mut bytes = vec![0; list.len()];
    list.read_at(0, &mut bytes);
    bytes
}

/// Bytes that tell where they belong.
pub(crate) fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from((n + seed) % 251).unwrap()).collect()
}

/// Writes so many blocks, all at once, and reads each back.
pub(crate) async fn read_back_side_by_side(device: &Rc<PluginDevice>, blocks: usize) {
    let mut tasks = TaskSet::new();
    let mut done = 0;
    for n in 0..blocks {
        let device = device.clone();
        let task = async move {
            let (block, offset) = (pattern(512, n), n as u64 * 512);
            device.store().write(&memory(&block), offset, false).await.unwrap();
            let back = Sgl::zeroed(512);
            device.store().read(&back, offset).await.unwrap();
            assert_eq!(bytes(&back), block);
        };
        done += usize::from(matches!(tasks.push(task), Started::Done(())));
    }
    while done < blocks {
        tasks.next().await;
        done += 1;
    }
}

/// Makes a qcow2 image of [`SIZE`] bytes that Debian's handler can open.
pub(crate) fn qcow2_image(path: &Path) {
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-o", "compat=0.10"])
        .args([path.to_str().unwrap(), &SIZE.to_string()])
        .status();
    assert!(made.expect("install qemu-utils: this test runs qemu-img").success());
}

/// Runs a test in an engine.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    Engine::new(Backend::Auto).unwrap().block_on(test).unwrap()
}

/// Waits until something is so, for some seconds at most.
pub(crate) async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < end, "{what}");
        io_engine::sleep(Duration::from_millis(2)).await;
    }
}
