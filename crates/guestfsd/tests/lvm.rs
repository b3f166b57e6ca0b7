// SPDX-License-Identifier: Apache-2.0
//! LVM of a session beside that of its machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

mod common;

use common::{Daemon, LoopDevice};
use std::os::unix::fs::FileExt;
use std::process::Command;

/// Has LVM do something to a device of this machine, and keep nothing.
fn lvm(command: &str, device: &LoopDevice) -> String {
    let filter = format!("devices/filter=[\"a|^{}$|\",\"r|.*|\"]", device.path.display());
    let settings = format!("{filter} backup/backup=0 backup/archive=0 devices/hints=\"none\"");
    let mut tool = Command::new("lvm");
    tool.args([command, "--config", &settings]).arg(&device.path).env("PATH", "/usr/sbin:/sbin");
    let out = tool.output().unwrap_or_else(|e| panic!("lvm: {e}: please install it (lvm2)"));
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn volumes_on_devices_that_are_not_the_sessions_are_not_seen() {
    let device = LoopDevice::with_filesystem(&["true"], 16);
    let name = device.name().to_owned();
    lvm("pvcreate", &device);
    assert!(lvm("pvs", &device).contains(&name));
    let mut daemon = Daemon::isolated();
    let client = &mut daemon.client;
    assert!(!client.pvs().unwrap().iter().any(|found| *found == *name));
    assert!(!client.pvs_full().unwrap().iter().any(|found| found.pv_name == *name));
    // It can still be asked about by name.
    assert_eq!(client.pvuuid(&name).unwrap().len(), 38);
}

#[test]
fn a_label_that_lies_ends_its_call_only() {
    let device = LoopDevice::with_filesystem(&["true"], 1);
    let mut label = [0xff; 512];
    label[..8].copy_from_slice(b"LABELONE");
    std::fs::OpenOptions::new()
        .write(true)
        .open(&device.path)
        .unwrap()
        .write_at(&label, 512)
        .unwrap();
    let mut daemon = Daemon::isolated();
    let client = &mut daemon.client;
    let e = client.pvuuid(device.name()).unwrap_err();
    assert!(e.to_string().contains("not a physical volume"), "{e}");
    client.pvs().unwrap();
    client.ping_daemon().unwrap();
}
