// SPDX-License-Identifier: Apache-2.0
//! Images that `block` has to serve, as raw files: through FUSE, in a process of its own.
//!
//! The filesystem has one file, and is mounted nowhere: it exists as long as someone has the file
//! open. When the last user is gone (the loop device on it), so is the filesystem,
//! and the process that serves it flushes, closes the image and ends. Nothing needs to be cleaned
//! up, even after SIGKILL. That process must be another one than those that hold the loop device: one that
//! ends waits until its devices are flushed, which it could not serve any more.

mod fuse;
mod store;

use crate::error::{Context, Error, Result};
use crate::image::Image;
use crate::report;
use crate::sys::{self, ENDING, Fork};
use fuser::{Config, Session, SessionACL};
use io_engine::Signals;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};
use rustix::process::{Pid, WaitOptions, waitpid};
use std::io::{self, PipeReader, PipeWriter, Read, Write};

/// The name of the one file.
const NAME: &str = "disk";
/// What the server says when the image is open and the kernel's first question answered.
const OPENED: [u8; 1] = [b'\n'];
/// Longest message of the server.
const MAX_MESSAGE: u64 = 64 << 10;

/// An image that is served by a process of its own.
#[derive(Debug)]
pub(crate) struct Export {
    file: OwnedFd,
    server: Pid,
    ended: PipeReader,
}

impl Export {
    /// Starts serving an image.
    pub(crate) fn start(image: &Image) -> Result<Self> {
        let fuse = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| {
                Error::Missing(format!(
                    "/dev/fuse: {e}: images need FUSE that are not raw, or whose format is not \
                     given; load the module fuse, or give a raw image with its format: --format=raw"
                ))
            })?;
        // Before there is a server, whose reading of what is not mounted yet would fail. The
        // kernel's first question waits until it is read.
        let context = mount(&fuse).on("a FUSE filesystem")?;
        let (from_server, to_parent) = io::pipe().on("pipe")?;
        let server = match sys::fork().on("fork")? {
            Fork::Child => {
                drop(from_server);
                let status = i32::from(serve(image, fuse, to_parent).is_err());
                #[allow(clippy::exit, reason = "nothing of the parent's is to be run here")]
                std::process::exit(status);
            }
            Fork::Parent(pid) => pid,
        };
        drop((to_parent, fuse));
        let mut opened = [0];
        if !matches!((&from_server).read(&mut opened), Ok(1)) || opened != OPENED {
            waitpid(Some(server), WaitOptions::empty()).ok();
            let rest = message(&from_server);
            return Err(Error::Served(format!("{}{rest}", char::from(opened[0]))));
        }
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .on("a FUSE filesystem")?;
        let mode = if image.read_only { OFlags::RDONLY } else { OFlags::RDWR };
        let file = rustix::fs::openat(&mount, NAME, mode | OFlags::CLOEXEC, Mode::empty())
            .on("the file of FUSE")?;
        Ok(Self { file, server, ended: from_server })
    }

    /// The raw file.
    pub(crate) fn file(&self) -> impl AsFd + '_ {
        &self.file
    }

    /// Waits until the image is flushed and closed, which it is when nobody uses the file any more.
    pub(crate) fn close(self) -> Result<()> {
        let Self { file, server, ended } = self;
        drop(file);
        let said = message(&ended);
        waitpid(Some(server), WaitOptions::empty()).on("the server of an image")?;
        if said.is_empty() { Ok(()) } else { Err(Error::Served(said)) }
    }
}

/// Prepares the mount of what speaks through this descriptor.
fn mount(fuse: &OwnedFd) -> io::Result<OwnedFd> {
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [
        ("source", "guestfs-novm".to_owned()),
        ("fd", fuse.as_raw_fd().to_string()),
        ("rootmode", "40000".to_owned()),
        ("user_id", rustix::process::geteuid().as_raw().to_string()),
        ("group_id", rustix::process::getegid().as_raw().to_string()),
    ] {
        fsconfig_set_string(context.as_fd(), key, value.as_str())?;
    }
    fsconfig_create(context.as_fd())?;
    Ok(context)
}

/// What the server says before it ends.
fn message(pipe: &PipeReader) -> String {
    let mut text = Vec::new();
    // Half a message is better than none.
    pipe.take(MAX_MESSAGE).read_to_end(&mut text).ok();
    String::from_utf8_lossy(&text).into_owned()
}

/// The serving process: it runs until nobody uses the file, even if its parent ends before.
fn serve(image: &Image, fuse: OwnedFd, mut parent: PipeWriter) -> Result<()> {
    // Whatever else the parent has open is to end with the parent.
    let mut kept = vec![0, 1, 2, fuse.as_raw_fd(), parent.as_raw_fd()];
    kept.extend(report::client());
    sys::close_all_but(&kept).on("descriptors")?;
    rustix::process::setsid().on("setsid")?;
    let _unheard = Signals::block(ENDING).on("signals")?;
    let served = store::open_and_serve(image, |size, requests| {
        let files = fuse::Files::new(size, requests);
        let session = Session::from_fd(files, fuse, SessionACL::All, Config::default());
        let session = session.on("FUSE")?;
        parent.write_all(&OPENED).on("pipe")?;
        // Ends when the filesystem does, and drops the last sender of requests.
        std::thread::Builder::new().name("fuse".into()).spawn(|| session.run()).on("a thread")?;
        Ok(())
    });
    if let Err(e) = &served {
        write!(parent, "{e}").ok();
    }
    served
}
