// SPDX-License-Identifier: Apache-2.0
//! One device: its thread, and the handle that the manager holds. A [`DeviceSpec`] goes in;
//! [`DeviceEvent`]s come out on the main loop's queue. The thread maps the ring, opens the
//! backstore and serves commands until it is told to stop; whatever blocks or panics in it, blocks
//! or ends this device alone.
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use tcmu_plugin::Handler;

use crate::events::Sender;

mod absent;
mod alua;
mod commands;
mod locked;
mod open;
mod peers;
mod plugin;
mod respond;
mod serve;
mod shown;
mod thread;

pub use shown::{Doing, Shown};

#[cfg(test)]
mod tests;

/// Of a device's thread, in bytes. Address space; what is not used costs nothing.
const STACK: usize = 1 << 20;

/// One opening of one device; never used twice in the life of the process, so that an event that
/// comes late is told from one of the device's successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceKey(pub u64);

/// What the manager found out about a device before its thread starts.
#[derive(Clone, Debug)]
pub struct DeviceSpec {
    /// The opening that events will name.
    pub key: DeviceKey,
    /// "user_0/disk0", as configfs and targetcli call it; for messages.
    pub name: String,
    /// The UIO device, which the ring is in.
    pub uio: tcmu::UioDevice,
    /// The device in configfs.
    pub configfs: tcmu::configfs::Device,
    /// The configuration string with its subtype ("qcow//srv/a.qcow2"), options included: that of
    /// configfs, which the UIO device's name repeats as it was at first.
    pub config: String,
    /// Block size in bytes.
    pub block_size: u32,
    /// Size in bytes, as configfs has it.
    pub size: u64,
    /// Whether the kernel tells initiators of a volatile write cache.
    pub write_cache: bool,
    /// The handler of a plugin that serves it; `None`: it is served here.
    pub plugin: Option<Arc<Handler>>,
    /// The unit serial number of VPD page 80h; empty where none is set.
    pub serial: String,
    /// After this a command counts as stuck; `None`: never.
    pub cmd_time_out: Option<Duration>,
    /// After this, a command that the plugin's own process has not answered has the process killed;
    /// `cmd_time_out` wins over it.
    pub patience: Duration,
    /// For how long a command may wait for an image that cannot be opened yet; `None`: not being
    /// able to open it is an error, which whoever enabled the device gets.
    pub hold: Option<Duration>,
    /// Directories that a backing file may lie in; `None`: any.
    pub backing_dirs: Option<Vec<PathBuf>>,
    /// Follows the opening of its image.
    pub watch: Arc<block::OpenWatch>,
    /// The most bytes of one READ or WRITE that the kernel sends.
    pub max_transfer: u32,
    /// What the thread shows of itself.
    pub shown: Arc<Shown>,
    /// How the thread does its I/O.
    pub backend: io_engine::Backend,
}

/// Tells answers to requests apart; chosen by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// What the manager asks of a running device; answered by [`DeviceEvent::Reply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Take this size, in bytes, or refuse.
    Resize(u64),
    /// Write back (true) or write through.
    SetWriteCache(bool),
    /// Take this configuration string, subtype included, or refuse.
    Reconfigure(String),
}

/// What a device tells the manager.
#[derive(Debug)]
pub enum DeviceEvent {
    /// It serves commands.
    Opened(DeviceKey),
    /// It could not be opened; its thread has ended and holds nothing.
    OpenFailed {
        /// The opening concerned.
        device: DeviceKey,
        /// What the kernel, and so who enabled the device, is told.
        errno: i32,
        /// The whole story, for the log.
        reason: String,
    },
    /// Its image cannot be opened yet; it is tried again, until [`DeviceEvent::Opened`].
    Absent {
        /// The opening concerned.
        device: DeviceKey,
        /// As in [`DeviceEvent::OpenFailed`].
        errno: i32,
        /// The whole story, for the log; sent when it changes.
        reason: String,
        /// For how long a command waits.
        hold: Duration,
    },
    /// The answer to a request.
    Reply {
        /// The opening concerned.
        device: DeviceKey,
        /// The request concerned.
        token: Token,
        /// Done, or why not.
        result: io::Result<()>,
    },
    /// An initiator has turned the volatile write cache on or off (MODE SELECT).
    WriteCacheSet {
        /// The opening concerned.
        device: DeviceKey,
        /// Write back (true) or write through.
        on: bool,
    },
    /// The thread has ended; nothing of the device is held any more.
    Stopped {
        /// The opening concerned.
        device: DeviceKey,
        /// Why it ended.
        why: Stop,
    },
    /// A command has been under way for longer than `cmd_time_out`.
    CommandTimedOut {
        /// The opening concerned.
        device: DeviceKey,
        /// The command's id in the ring.
        command: u16,
        /// The operation code.
        opcode: u8,
        /// How long it has been under way.
        after: Duration,
    },
}

/// Why a device's thread ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It was told to; the backstore is flushed and closed.
    Asked,
    /// It was told to, but the backstore did not close cleanly.
    Unclean(String),
    /// The ring or the UIO device failed.
    Failed(String),
    /// It panicked.
    Panicked(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Asked => f.write_str("closed"),
            Stop::Unclean(why) => write!(f, "closed, but not cleanly: {why}"),
            Stop::Failed(why) => write!(f, "failed: {why}"),
            Stop::Panicked(why) => write!(f, "panicked: {why}"),
        }
    }
}

/// What reaches a device's thread.
pub(crate) enum Control {
    /// From the manager.
    Request(Request, Token),
    /// An image that could not be opened may be there now.
    Retry,
    /// From another device, for a copy.
    Job(peers::Job),
    /// Finish what is under way within this time, close, end.
    Stop(Duration),
}

/// A running device. Dropping the handle lets go of the thread, not of the device: call
/// [`Device::stop`] and wait for [`DeviceEvent::Stopped`].
#[derive(Debug)]
pub struct Device {
    control: io_engine::Sender<Control>,
}

impl Device {
    /// Starts the thread of a device. [`DeviceEvent::Opened`] or [`DeviceEvent::OpenFailed`]
    /// follows; an error here means that there is no thread.
    pub fn start(spec: DeviceSpec, events: Sender) -> io::Result<Device> {
        let (control, receiver) = io_engine::channel();
        let name: String = spec.name.chars().rev().take(15).collect();
        // It may run a plugin's code.
        let stack = if spec.plugin.is_some() { tcmu_plugin::STACK } else { STACK };
        std::thread::Builder::new().name(name.chars().rev().collect()).stack_size(stack).spawn(
            {
                let control = (control.clone(), receiver);
                move || thread::run(&spec, control, &events)
            },
        )?;
        Ok(Device { control })
    }

    /// Hands over a request; the answer is a [`DeviceEvent::Reply`] with its token. There is none
    /// from a thread that has ended: [`DeviceEvent::Stopped`] tells of that.
    pub fn request(&self, request: Request, token: Token) {
        let _ = self.control.send(Control::Request(request, token));
    }

    /// Has a device whose image could not be opened try again.
    pub fn retry(&self) {
        let _ = self.control.send(Control::Retry);
    }

    /// Asks the thread to finish what is under way within `deadline`, flush, close and end.
    pub fn stop(&self, deadline: Duration) {
        let _ = self.control.send(Control::Stop(deadline));
    }
}
