// SPDX-License-Identifier: Apache-2.0
//! Loop devices for files of the guest (`mount_loop`): process 1 attaches them for the daemon, and shows a
//! node for as long as the device is this session's.
//!
//! The daemon connects, sends a byte (`r` or `w`) with the file's descriptor, and gets a line: the device's
//! path, or why there is none. Until it hangs up, this process has the device open. After that it is
//! this session's for as long as it is mounted here: once it is not, the kernel detaches it, the number may be
//! another session's the next moment, and the node goes. Programs of the guest see no such node at any
//! time: one that keeps a path to a node (`O_PATH`) could open what has the number later.

use super::dev;
use crate::error::{Context, Result};
use crate::loopdev::{Control, How, Loop, MAJOR};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, makedev};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Where the socket is.
const SOCKET: &str = "/run/guestfs-novm-loop.sock";
/// The variable that tells the daemon, and its value.
pub(super) const VARIABLE: (&str, &str) = ("GUESTFSD_LOOP", SOCKET);
/// Most who may have a device in the making: the daemon asks for one at a time.
const MAX_ASKING: usize = 16;
const MOUNTS: &str = "/proc/self/mountinfo";

/// Those who ask, and what is shown.
#[derive(Debug)]
pub(super) struct Loops {
    /// None: there are no loop devices here, and why.
    control: std::result::Result<Control, String>,
    listener: UnixListener,
    asking: Vec<Asking>,
    shown: BTreeSet<u32>,
    mounts: File,
}

#[derive(Debug)]
struct Asking {
    stream: UnixStream,
    device: Option<Loop>,
}

impl Loops {
    /// Listens, inside of the root.
    pub(super) fn listen(control: Result<Control>) -> Result<Self> {
        let listener = UnixListener::bind(SOCKET).on(SOCKET)?;
        listener.set_nonblocking(true).on(SOCKET)?;
        let mounts = File::open(MOUNTS).on(MOUNTS)?;
        let control = control.map_err(|e| e.to_string());
        Ok(Self { control, listener, asking: Vec::new(), shown: BTreeSet::new(), mounts })
    }

    /// What to wait for.
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        // The table of mounts has an event when it changes.
        let own =
            [PollFd::new(&self.listener, PollFlags::IN), PollFd::new(&self.mounts, PollFlags::PRI)];
        own.into_iter().chain(self.asking.iter().map(|a| PollFd::new(&a.stream, PollFlags::IN)))
    }

    /// Answers requests, and hides devices that no longer belong to this session.
    pub(super) fn serve(&mut self) -> Result<()> {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.asking.len() < MAX_ASKING && stream.set_nonblocking(true).is_ok() {
                self.asking.push(Asking { stream, device: None });
            }
        }
        for mut asking in std::mem::take(&mut self.asking) {
            match receive(&asking.stream) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.asking.push(asking),
                Ok(Some((file, read_only))) if asking.device.is_none() => {
                    let answer = match self.attach(&file, read_only) {
                        Ok(device) => {
                            let number = device.number();
                            asking.device = Some(device);
                            format!("/dev/loop{number}\n")
                        }
                        Err(text) => format!("{text}\n"),
                    };
                    // One line always fits into the socket's buffer; if not, the client does not read.
                    if asking.stream.write_all(answer.as_bytes()).is_ok() {
                        self.asking.push(asking);
                    }
                }
                // It has hung up, or breaks the protocol.
                _ => {}
            }
        }
        self.hide()
    }

    /// Attaches a file and shows the device.
    fn attach(&mut self, file: &OwnedFd, read_only: bool) -> std::result::Result<Loop, String> {
        let control = self.control.as_ref().map_err(String::clone)?;
        let name = Path::new("guestfs-novm: a file of a guest");
        let how = How { read_only, ..How::default() };
        let device = control.attach(file, name, how).map_err(|e| e.to_string())?;
        // In a kernel of the session's own they all have nodes that stay.
        if !Path::new(&node(device.number())).exists() {
            self.shown.insert(device.number());
            show(device.number()).map_err(|e| e.to_string())?;
        }
        Ok(device)
    }

    /// Hides devices that are neither in the making nor mounted.
    fn hide(&mut self) -> Result<()> {
        let open: BTreeSet<u32> =
            self.asking.iter().filter_map(|a| Some(a.device.as_ref()?.number())).collect();
        if self.shown.is_subset(&open) {
            return Ok(());
        }
        let table = fs::read_to_string(MOUNTS).on(MOUNTS)?;
        self.shown.retain(|number| {
            let kept = open.contains(number) || is_mounted(&table, *number);
            if !kept {
                // What is not there need not be removed.
                fs::remove_file(node(*number)).ok();
                fs::remove_file(link(*number)).ok();
            }
            kept
        });
        Ok(())
    }
}

/// What has been sent: a file, and whether it is to be read only. None at the end.
fn receive(stream: &UnixStream) -> io::Result<Option<(OwnedFd, bool)>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let n = recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?.bytes;
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    Ok(files.flatten().last().filter(|_| n == 1).map(|file| (file, byte == *b"r")))
}

fn node(number: u32) -> String {
    format!("/dev/loop{number}")
}

fn link(number: u32) -> String {
    format!("/sys/dev/block/{MAJOR}:{number}")
}

fn show(number: u32) -> Result<()> {
    let path = node(number);
    dev::node(path.as_ref(), FileType::BlockDevice, 0o660, makedev(MAJOR, number))?;
    let link = link(number);
    let target = format!("../../devices/virtual/block/loop{number}");
    fs::remove_file(&link).ok();
    symlink(target, &link).on(link)
}

/// Whether a table of mounts (proc_pid_mountinfo(5)) has a loop device. Filesystems with device numbers of
/// their own (btrfs) name it as their source.
fn is_mounted(table: &str, number: u32) -> bool {
    let device = format!("{MAJOR}:{number}");
    let path = node(number);
    table.lines().any(|line| {
        let mut fields = line.split(' ');
        fields.nth(2) == Some(&device) || fields.skip_while(|f| *f != "-").nth(2) == Some(&path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_device_is_found_by_number_or_source() {
        let table = "36 35 7:3 / /sysroot/a rw - ext4 /proc/self/fd/4 rw\n\
                     37 35 0:45 / /sysroot/b rw shared:2 - btrfs /dev/loop12 rw\n";
        assert!(is_mounted(table, 3) && is_mounted(table, 12));
        assert!(!is_mounted(table, 1) && !is_mounted(table, 36) && !is_mounted(table, 2));
    }
}
