//! Images that are not raw, as raw files: `backstore` behind FUSE.
//!
//! The filesystem has one file, [`NAME`], and is mounted nowhere: this process has its mount and the
//! file open, and gives the file to a loop device. When the last of them is closed it is gone, so
//! there is nothing to clean up, even after SIGKILL. One thread speaks FUSE, one serves the image.

mod fuse;
mod store;

use crate::error::{Context, Error, Result};
use crate::image::Image;
use fuser::{Config, Session, SessionACL};
use io_engine::Sender;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};
use std::thread::JoinHandle;
use store::Request;

/// The name of the one file.
const NAME: &str = "disk";

/// An image that is served.
#[derive(Debug)]
pub struct Export {
    file: OwnedFd,
    requests: Sender<Request>,
    store: JoinHandle<Result<()>>,
}

impl Export {
    /// Opens an image and serves it.
    pub fn start(image: &Image) -> Result<Self> {
        let (requests, size, store) = store::start(image)?;
        let fuse = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| {
                Error::Missing(format!(
                    "/dev/fuse: {e}: images that are not raw need FUSE; load the module fuse, or \
                     make a raw image: qemu-img convert -O raw"
                ))
            })?;
        let mount = mount(&fuse).on("a FUSE filesystem")?;
        let files = fuse::Files::new(size, image.read_only, requests.clone());
        Session::from_fd(files, fuse, SessionACL::All, Config::default())
            .and_then(|session| {
                std::thread::Builder::new().name("fuse".into()).spawn(|| session.run())
            })
            .on("FUSE")?;
        let mode = if image.read_only { OFlags::RDONLY } else { OFlags::RDWR };
        let file = rustix::fs::openat(&mount, NAME, mode | OFlags::CLOEXEC, Mode::empty())
            .on("the file of FUSE")?;
        Ok(Self { file, requests, store })
    }

    /// The raw file.
    pub fn file(&self) -> impl AsFd + '_ {
        &self.file
    }

    /// Ends serving: all is flushed, and the image marked clean. Whoever still uses the file gets
    /// errors.
    pub fn close(self) -> Result<()> {
        let Self { file, requests, store } = self;
        drop(file);
        // If it has ended, `join` says why.
        requests.send(Request::Stop).ok();
        store.join().unwrap_or_else(|_| {
            Err(std::io::Error::other("the thread panicked")).on("serving an image")
        })
    }
}

/// Mounts what speaks through this descriptor, nowhere.
fn mount(fuse: &OwnedFd) -> std::io::Result<OwnedFd> {
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let id = |number: u32| number.to_string();
    for (key, value) in [
        ("source", "guestfs-novm".to_owned()),
        ("fd", fuse.as_raw_fd().to_string()),
        ("rootmode", "40000".to_owned()),
        ("user_id", id(rustix::process::geteuid().as_raw())),
        ("group_id", id(rustix::process::getegid().as_raw())),
    ] {
        fsconfig_set_string(context.as_fd(), key, value.as_str())?;
    }
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}
