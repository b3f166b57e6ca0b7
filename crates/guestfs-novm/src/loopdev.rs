//! Loop devices: a file as a disk of the host's kernel, with partitions, until it is let go.

use crate::error::{Context, Error, Result};
use crate::sys;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;
const PARTSCAN: u32 = 8;
/// How often another process may be faster to take a device.
const ATTEMPTS: u32 = 100;
/// How long a device may take to appear in /dev, and to go once nobody has it open.
const PATIENCE: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_millis(2);

/// An attached loop device. It detaches itself when its last user is gone: this value, whoever has
/// mounted it, and what may have opened it meanwhile.
#[derive(Debug)]
pub struct Loop {
    number: u32,
    /// Open, or the device would detach itself.
    _device: OwnedFd,
}

impl Loop {
    /// Attaches a file; `name` is what losetup(8) shows.
    pub fn attach(file: impl AsFd, name: &Path, read_only: bool, sector: u32) -> Result<Self> {
        let control = open("/dev/loop-control".as_ref()).map_err(|e| {
            Error::Missing(format!(
                "/dev/loop-control: {e}: disks become loop devices here; load the module loop (in a \
                 container: give it /dev/loop-control and /dev/loop*), be root, or use --uml"
            ))
        })?;
        let flags = AUTOCLEAR | PARTSCAN | if read_only { READ_ONLY } else { 0 };
        let config = sys::LoopConfig {
            file: file.as_fd(),
            sector,
            flags,
            name: name.as_os_str().as_bytes(),
        };
        let mut attempts = 0;
        loop {
            let number = sys::loop_get_free(&control).on("a free loop device")?;
            let device = open_node(number)?;
            attempts += 1;
            match sys::loop_configure(&device, &config) {
                Ok(()) => return Ok(Self { number, _device: device }),
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && attempts < ATTEMPTS => {}
                Err(e) => {
                    return Err(e).on(format_args!("{}: /dev/loop{number}", name.display()));
                }
            }
        }
    }

    /// Its name in /sys/block.
    pub fn name(&self) -> String {
        format!("loop{}", self.number)
    }

    /// Lets go of devices and waits until they are detached. Yields what is still there, and in use
    /// by whom, as far as the kernel says.
    pub fn detach(loops: Vec<Self>) -> Vec<String> {
        let numbers: Vec<u32> = loops.iter().map(|l| l.number).collect();
        drop(loops);
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

fn open(path: &Path) -> std::result::Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a device that the kernel may just have made, and waits for who makes nodes. Where nobody does
/// (containers), it is made.
fn open_node(number: u32) -> Result<OwnedFd> {
    let path = PathBuf::from(format!("/dev/loop{number}"));
    let deadline = Instant::now() + PATIENCE / 30;
    loop {
        match open(&path) {
            Err(Errno::NOENT) if Instant::now() < deadline => std::thread::sleep(TICK),
            Err(Errno::NOENT) => {
                let device = rustix::fs::makedev(7, number);
                let kind = rustix::fs::FileType::BlockDevice;
                let mode = Mode::RUSR | Mode::WUSR;
                match rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, device) {
                    Ok(()) | Err(Errno::EXIST) => return open(&path).on(path.display()),
                    Err(e) => return Err(e).on(path.display()),
                }
            }
            opened => return opened.on(path.display()),
        }
    }
}
