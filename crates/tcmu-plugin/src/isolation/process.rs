// SPDX-License-Identifier: Apache-2.0
//! The process of a plugin: loads it, tells the daemon what it registers, and calls its functions as
//! the daemon asks. It ends with the daemon, however that ends.
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal,
};

use super::relay::{Log, Uplink, cut};
use super::served::Served;
use super::slots::Geometry;
use super::socket::Socket;
use super::supervise::NAME;
use super::wire::{Call, DeviceSetup, FromPlugin, MAX_MESSAGE, Reply, ToPlugin, decode};
use crate::handler::Handler;
use crate::loader::{Plugins, Refusal};
use crate::operation::Change;
use crate::place;
use crate::pool::spawn;
use crate::status::Status;

/// Descriptors below it are those that programs know by their numbers.
const FIRST_FD: i32 = 3;

/// What the process of a plugin's file runs. Its standard input is the socket of the daemon. It does
/// not return, unless there is no daemon.
///
/// # Errors
/// Why it cannot work.
pub fn run(file: &Path) -> Result<(), String> {
    let failed = |what: &str, error: &dyn std::fmt::Display| Err(format!("{what}: {error}"));
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return failed("the daemon's end would go unnoticed", &error);
    }
    let socket = match take_stdin() {
        Ok(socket) => socket,
        Err(error) => return failed("standard input", &error),
    };
    let _ = rustix::thread::set_name(&CString::new(NAME).unwrap_or_default());
    let mut buffer = vec![0; MAX_MESSAGE];
    let packet = match socket.receive(&mut buffer) {
        Ok(packet) => packet,
        Err(error) => return failed("only the daemon starts this", &error),
    };
    let Some(packet) = packet else { return Err("the daemon is gone".into()) };
    // Held for as long as the process runs.
    let _lock = packet.fds;
    let Some(ToPlugin::Load { daemon, built_in, taken, level, directory }) = decode(packet.bytes)
    else {
        return Err("only the daemon starts this".into());
    };
    // It may have ended before the kernel was asked to tell.
    if getppid().map(Pid::as_raw_pid) != i32::try_from(daemon).ok() {
        return Err("the daemon is gone".into());
    }
    let uplink = Uplink::new(socket);
    uplink.set_log(level, directory);
    // Nothing else has installed a log in this process.
    let _ = tracing::subscriber::set_global_default(Log(uplink.clone()));
    let _ = tcmu_abi::log::install(Box::new(Log(uplink.clone())));
    let (plugins, refused) = Plugins::load_file(file, &built_in, &taken);
    for refusal in refused {
        let (built_in, text) = match refusal {
            Refusal::BuiltIn(subtype) => (true, subtype),
            refusal => (false, cut(&refusal.to_string())),
        };
        uplink.tell(&FromPlugin::Refused { built_in, text });
    }
    for handler in plugins.handlers() {
        uplink.tell(&FromPlugin::Handler { facts: handler.facts().clone() });
    }
    uplink.tell(&FromPlugin::Loaded {});
    let process = Arc::new(Process { uplink, plugins, devices: Mutex::default() });
    process.listen(&mut buffer);
    // Without what a library or a thread of the plugin might do on the way.
    let _ = kill_process(getpid(), Signal::KILL);
    Ok(())
}

/// The socket, in whose place nothing is read from now on.
fn take_stdin() -> io::Result<Socket> {
    let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin().as_fd(), FIRST_FD)?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(Socket::new(socket))
}

struct Process {
    uplink: Arc<Uplink>,
    plugins: Plugins,
    devices: Mutex<BTreeMap<u32, Arc<Served>>>,
}

impl Process {
    fn devices(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Served>>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what the daemon asks for, each call on a thread of its own, until the daemon is gone.
    fn listen(self: &Arc<Self>, buffer: &mut [u8]) {
        loop {
            let packet = match self.uplink.socket().receive(buffer) {
                Ok(Some(packet)) => packet,
                Ok(None) => return,
                Err(error) => {
                    tracing::error!("{error}");
                    return;
                }
            };
            match decode(packet.bytes) {
                Some(ToPlugin::Call { number, call }) => self.start(number, call, packet.fds),
                Some(ToPlugin::Log { level, directory }) => self.uplink.set_log(level, directory),
                Some(ToPlugin::Overdue { device, id }) => {
                    if let Some(served) = self.devices().get(&device) {
                        served.shared.calls.time_out(id);
                    }
                }
                Some(ToPlugin::Load { .. }) | None => tracing::error!("the daemon sends nonsense"),
            }
        }
    }

    fn start(self: &Arc<Self>, number: u64, call: Call, fds: Vec<OwnedFd>) {
        let process = self.clone();
        let started = spawn("call", move || {
            let reply = process.call(call, fds);
            process.uplink.tell(&FromPlugin::Reply { number, reply });
        });
        if let Err(error) = started {
            tracing::error!("cannot start a thread: {error}");
            self.uplink.tell(&FromPlugin::Reply { number, reply: errno(Err(libc::EAGAIN)) });
        }
    }

    fn handler(&self, number: u16) -> Option<&Arc<Handler>> {
        self.plugins.handlers().get(usize::from(number))
    }

    fn call(&self, call: Call, fds: Vec<OwnedFd>) -> Reply {
        match call {
            Call::Open { device, handler, again, setup } => {
                errno(self.open((device, handler), again, &setup, fds))
            }
            Call::Close { device, last } => self.with(device, |served| {
                served.close();
                if last {
                    place::forget(&served.shared);
                    self.devices().remove(&device);
                }
                errno(Ok(()))
            }),
            Call::SetConfig { device, config } => self.with(device, |served| {
                let Ok(text) = CString::new(config.clone()) else {
                    return errno(Err(libc::EINVAL));
                };
                let changed = served.shared.reconfigure(&Change::Config(text));
                if changed.is_ok() {
                    served.shared.abi.set_cfgstring(&config);
                }
                errno(changed)
            }),
            Call::SetSize { device, size } => self.with(device, |served| {
                let changed = served.shared.reconfigure(&Change::Size(size));
                if changed.is_ok() {
                    served.shared.set_size(size);
                }
                errno(changed)
            }),
            Call::SetWriteCache { device, on } => self.with(device, |served| {
                let changed = served.shared.reconfigure(&Change::WriteCache(on));
                // A handler that takes no changes has no say.
                if matches!(changed, Ok(()) | Err(libc::EOPNOTSUPP)) {
                    served.shared.abi.properties().set_write_cache_enabled(on);
                }
                errno(changed)
            }),
            Call::Lock { device, tag } => self.with(device, |served| {
                let Status(result) = served.shared.take_lock(tag);
                value(result, 0)
            }),
            Call::Unlock { device } => self.with(device, |served| {
                let Status(result) = served.shared.return_lock();
                value(result, 0)
            }),
            Call::LockState { device } => self.with(device, |served| {
                value(served.shared.lock_state().map_or(0, |state| state as i32), 0)
            }),
            Call::LockTag { device } => self.with(device, |served| {
                let tag = served.shared.lock_tag();
                tag.map_or(errno(Err(libc::ENODATA)), |tag| value(0, tag.into()))
            }),
            Call::ReportEvent { device } => {
                self.with(device, |served| value(served.shared.report_event(), 0))
            }
            Call::CheckConfig { handler, config } => {
                let Some(handler) = self.handler(handler) else { return errno(Err(libc::EINVAL)) };
                let (result, text) = match handler.check_config(&config) {
                    Ok(()) => (0, String::new()),
                    Err(why) => (-libc::EINVAL, why),
                };
                Reply { result, value: 0, text }
            }
            Call::UpdateLogDir { handler } => {
                let follows = self.handler(handler).is_some_and(|handler| handler.update_log_dir());
                errno(if follows { Ok(()) } else { Err(libc::EIO) })
            }
            Call::Destroy {} => {
                self.plugins.destroy();
                errno(Ok(()))
            }
        }
    }

    /// What a function of a device returns; the daemon knows the device's properties before it.
    fn with(&self, device: u32, call: impl FnOnce(&Arc<Served>) -> Reply) -> Reply {
        let served = self.devices().get(&device).cloned();
        let Some(served) = served else { return errno(Err(libc::ENODEV)) };
        let reply = call(&served);
        served.tell_properties();
        reply
    }

    fn open(
        &self,
        (device, handler): (u32, u16),
        again: bool,
        setup: &DeviceSetup,
        fds: Vec<OwnedFd>,
    ) -> Result<(), i32> {
        let known = self.devices().get(&device).cloned();
        // What a handler keeps with a device that it has closed is there when it opens it again.
        let served = match known.clone() {
            Some(known) => known,
            None => {
                let handler = self.handler(handler).ok_or(libc::EINVAL)?.clone();
                Served::new(&self.uplink, device, handler, setup)?
            }
        };
        let geometry = Geometry { slots: setup.slots, slot_len: setup.slot_len };
        let opened = served.open(again, geometry, fds);
        match opened {
            Ok(()) => {
                served.tell_properties();
                self.devices().insert(device, served);
            }
            Err(_) if known.is_some() => {}
            Err(_) => place::forget(&served.shared),
        }
        opened
    }
}

/// What a function returns that succeeds or fails with an errno.
fn errno(result: Result<(), i32>) -> Reply {
    value(result.err().map_or(0, |errno| -errno), 0)
}

fn value(result: i32, value: u64) -> Reply {
    Reply { result, value, text: String::new() }
}
