// SPDX-License-Identifier: Apache-2.0
//! Loop devices: a file as a disk of the host's kernel, with partitions, until it is detached.

use crate::error::{Context, Error, Result};
use crate::sys;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, makedev, mknodat, unlinkat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const CONTROL: &str = "/dev/loop-control";
/// Loop devices, in linux/major.h.
pub(crate) const MAJOR: u32 = 7;
/// Flags, in linux/loop.h.
const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;
const PARTSCAN: u32 = 8;
const DIRECT_IO: u32 = 16;
/// How often another process may be faster to take a device.
const ATTEMPTS: u32 = 100;
/// How long a device may take to go once nobody has it open.
const PATIENCE: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_millis(2);

/// How a file is attached.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct How {
    /// The device refuses writes.
    pub read_only: bool,
    /// Bytes of a sector; 0: 512.
    pub sector: u32,
    /// Past the page cache of the file, so that the device's errors are those of the file: others
    /// are EIO, whatever the file's are.
    pub direct: bool,
}

/// Where loop devices come from: the kernel's control device, and a directory that nobody else sees for the
/// nodes that opening one takes. So it does not depend on udev, and leaves no nodes in /dev.
#[derive(Debug)]
pub(crate) struct Control {
    control: OwnedFd,
    /// A tmpfs that is mounted nowhere.
    nodes: OwnedFd,
}

impl Control {
    /// Opens the host's control device.
    pub(crate) fn open() -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let control = rustix::fs::open(CONTROL, flags, Mode::empty()).map_err(|e| {
            Error::Missing(format!(
                "{CONTROL}: {e}: disks become loop devices here; load the module loop (in a \
                 container: give it {CONTROL} and block devices of major 7), be root, or use --uml"
            ))
        })?;
        let nodes = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|context| {
            fsconfig_create(context.as_fd())?;
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        });
        Ok(Self { control, nodes: nodes.on("a tmpfs for nodes of loop devices")? })
    }

    /// Attaches a file to a free device; `name` is what losetup(8) shows.
    pub(crate) fn attach(&self, file: impl AsFd, name: &Path, how: How) -> Result<Loop> {
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        let flags =
            AUTOCLEAR | PARTSCAN | flag(how.read_only, READ_ONLY) | flag(how.direct, DIRECT_IO);
        let config = sys::LoopConfig {
            file: file.as_fd(),
            sector: how.sector,
            flags,
            name: name.as_os_str().as_bytes(),
        };
        let mut attempts = 0;
        loop {
            let number = sys::loop_get_free(&self.control).on("a free loop device")?;
            let device = self.device(number).on(format_args!("/dev/loop{number}"))?;
            attempts += 1;
            match sys::loop_configure(&device, &config) {
                Ok(()) => return Ok(Loop { number, device }),
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && attempts < ATTEMPTS => {}
                Err(e) => {
                    return Err(e).on(format_args!("{}: /dev/loop{number}", name.display()));
                }
            }
        }
    }

    /// Opens a device.
    fn device(&self, number: u32) -> rustix::io::Result<OwnedFd> {
        let name = number.to_string();
        let mode = Mode::RUSR | Mode::WUSR;
        let kind = FileType::BlockDevice;
        mknodat(&self.nodes, &name, kind, mode, makedev(MAJOR, number))?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.nodes, &name, flags, Mode::empty());
        unlinkat(&self.nodes, &name, AtFlags::empty())?;
        opened
    }
}

/// An attached loop device. It detaches itself when its last user is gone: this value, a mount,
/// or another program that has opened it.
#[derive(Debug)]
pub(crate) struct Loop {
    number: u32,
    /// Open, or the device would detach itself.
    device: OwnedFd,
}

impl Loop {
    /// Its number.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Its name in /sys/block.
    pub(crate) fn name(&self) -> String {
        format!("loop{}", self.number)
    }

    /// Closes devices and waits until they are detached. Yields what is still there, and in use
    /// by whom, as far as the kernel says.
    pub(crate) fn detach(loops: Vec<Self>) -> Vec<String> {
        let numbers: Vec<u32> = loops.iter().map(|l| l.number).collect();
        for device in loops {
            // A program of the guest may have cleared the flag with LOOP_SET_STATUS64. An error means that
            // the device is detached already.
            sys::loop_clear(&device.device).ok();
        }
        let deadline = Instant::now() + PATIENCE;
        let mut left = Vec::new();
        for number in numbers {
            let dir = PathBuf::from(format!("/sys/block/loop{number}"));
            while dir.join("loop").exists() {
                if Instant::now() > deadline {
                    left.push(in_use(&dir, number));
                    break;
                }
                std::thread::sleep(TICK);
            }
        }
        left
    }
}

fn in_use(dir: &Path, number: u32) -> String {
    let partitions = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = partitions.map(|e| e.path().join("holders")).chain([dir.join("holders")]);
    let holders: Vec<String> = dirs
        .flat_map(|d| std::fs::read_dir(d).into_iter().flatten().flatten())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    if holders.is_empty() {
        format!("/dev/loop{number} is still open in another process (see losetup, fuser)")
    } else {
        format!("/dev/loop{number} is held by {} (see dmsetup, mdadm)", holders.join(", "))
    }
}
