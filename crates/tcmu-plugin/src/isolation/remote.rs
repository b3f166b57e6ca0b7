// SPDX-License-Identifier: Apache-2.0
//! In the daemon: a device whose handler is in a process of its own. Its functions are calls of that
//! process, its commands go there through a [`Link`]; what is under way when the process ends is
//! BUSY, and the device is opened again in the next one.
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sgl::Sgl;
use tcmu_abi::Device;

use super::host::{CALL_TIME, Host};
use super::link::Link;
use super::slots::Geometry;
use super::wire::{Call, Command, DeviceSetup, Reply, Snapshot};
use crate::calls::Calls;
use crate::device::{Finished, Shared};
use crate::handler::{Away, LockState};
use crate::memory::MAX_CDB;
use crate::operation::{Change, Operation};
use crate::recovery::{self, Cause};
use crate::setup::Setup;
use crate::status::Status;

/// How long an opening waits for a process, if there is none: for the first time, and again.
const FIRST_TIME: Duration = Duration::from_secs(10);
const NEXT_TIME: Duration = Duration::from_secs(1);

/// The errno of an opening for which there was no process.
pub(crate) const NO_PROCESS: i32 = libc::ESRCH;

/// A device of a handler in another process.
pub(crate) struct Remote {
    away: Away,
    id: u32,
    setup: Setup,
    geometry: Geometry,
    /// After this a command that is not answered has the process killed.
    time_out: Mutex<Duration>,
    keys: AtomicUsize,
    link: Mutex<Option<Arc<Link>>>,
}

impl Remote {
    pub(crate) fn new(away: Away, setup: &Setup, time_out: Option<Duration>) -> Remote {
        let remote = Remote {
            id: away.host.next_device(),
            away,
            setup: setup.clone(),
            geometry: Geometry::for_transfers(setup.max_transfer),
            time_out: Mutex::default(),
            keys: AtomicUsize::new(1),
            link: Mutex::default(),
        };
        remote.set_time_out(time_out);
        remote
    }

    pub(crate) fn host(&self) -> &Arc<Host> {
        &self.away.host
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Takes the time that a configuration string gives a command, or the usual one.
    pub(crate) fn set_time_out(&self, time: Option<Duration>) {
        let time = time.unwrap_or(self.setup.patience);
        *self.time_out.lock().unwrap_or_else(PoisonError::into_inner) = time;
    }

    pub(crate) fn time_out(&self) -> Duration {
        *self.time_out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self) -> Option<Arc<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_link(&self, link: Option<Arc<Link>>) -> Option<Arc<Link>> {
        std::mem::replace(&mut *self.link.lock().unwrap_or_else(PoisonError::into_inner), link)
    }

    /// Whether the process of now has it open.
    pub(crate) fn is_open(&self) -> bool {
        self.link().is_some_and(|link| self.away.host.process() == Some(link.process()))
    }

    /// Has a function called; the errno of what kept it from that.
    fn call(&self, call: Call) -> Result<Reply, i32> {
        let Some(link) = self.link() else { return Err(libc::ENOTCONN) };
        self.away.host.call(link.process(), call, &[], Some(CALL_TIME)).map_err(|_| libc::ENOTCONN)
    }

    /// The same for functions that return 0 or an errno.
    fn change(&self, call: Call) -> Result<(), i32> {
        result(&self.call(call)?)
    }

    /// Opens the device. However long that takes, it holds up this device alone, so that nothing is
    /// killed for it.
    pub(crate) fn open(&self, abi: &Device, again: bool) -> Result<(), i32> {
        let host = &self.away.host;
        let time = if again { NEXT_TIME } else { FIRST_TIME };
        let process = host.wait_loaded(time).ok_or(NO_PROCESS)?;
        let (link, socket, memory) = Link::new(process, self.geometry).map_err(|error| {
            tracing::error!("{}: memory for commands: {error}", self.setup.name);
            libc::ENOMEM
        })?;
        let setup = Box::new(self.device_setup(abi));
        let call = Call::Open { device: self.id, handler: self.away.handler, again, setup };
        let reply = host.call(process, call, &[socket.as_fd(), memory.as_fd()], None);
        match reply.map(|reply| result(&reply)) {
            Ok(Ok(())) => {
                self.set_link(Some(link));
                Ok(())
            }
            Ok(Err(NO_PROCESS)) | Err(_) => Err(libc::EIO),
            Ok(Err(errno)) => Err(errno),
        }
    }

    fn device_setup(&self, abi: &Device) -> DeviceSetup {
        let name = &self.setup.uio.name;
        // ROOT/core/user_HBA/NAME
        let configfs = self.setup.configfs.path().ancestors().nth(3);
        let configfs = configfs.map(|root| root.to_string_lossy().into_owned());
        DeviceSetup {
            name: self.setup.name.clone(),
            minor: self.setup.uio.minor,
            hba: name.hba,
            device: name.name.clone(),
            first_config: name.config.clone(),
            config: abi.cfgstring(),
            configfs: configfs.unwrap_or_default(),
            properties: Snapshot::of(abi.properties()),
            slots: self.geometry.slots,
            slot_len: self.geometry.slot_len,
        }
    }

    /// Closes it, if the process of now has it open.
    pub(crate) fn close(&self, last: bool) {
        let Some(link) = self.set_link(None) else { return };
        let call = Call::Close { device: self.id, last };
        // Where the process has ended, there is nothing to close.
        let _ = self.away.host.call(link.process(), call, &[], Some(CALL_TIME));
        link.end();
    }

    pub(crate) fn reconfigure(&self, change: &Change) -> Result<(), i32> {
        let device = self.id;
        self.change(match change {
            Change::Config(config) => {
                Call::SetConfig { device, config: config.to_string_lossy().into_owned() }
            }
            &Change::Size(size) => Call::SetSize { device, size },
            &Change::WriteCache(on) => Call::SetWriteCache { device, on },
        })
    }

    pub(crate) fn lock(&self, tag: u16) -> Status {
        let reply = self.call(Call::Lock { device: self.id, tag });
        reply.map_or(Status::BUSY, |reply| Status(reply.result))
    }

    pub(crate) fn unlock(&self) -> Status {
        // With the process, the lock went.
        let reply = self.call(Call::Unlock { device: self.id });
        reply.map_or(Status::OK, |reply| Status(reply.result))
    }

    pub(crate) fn lock_state(&self) -> Option<LockState> {
        let reply = self.call(Call::LockState { device: self.id }).ok()?;
        LockState::of(reply.result)
    }

    pub(crate) fn lock_tag(&self) -> Option<u16> {
        let reply = self.call(Call::LockTag { device: self.id }).ok()?;
        if reply.result == 0 { u16::try_from(reply.value).ok() } else { None }
    }

    pub(crate) fn report_event(&self) -> i32 {
        let reply = self.call(Call::ReportEvent { device: self.id });
        reply.map_or_else(|errno| -errno, |reply| reply.result)
    }

    /// Has the process execute a command with this id and CDB.
    pub(crate) async fn execute(
        &self,
        calls: &Calls,
        (id, cdb): (u16, &[u8]),
        operation: Operation,
        data: &Sgl<'_>,
    ) -> Finished {
        let ended = |status| Finished { status, sense: None };
        let Some(link) = self.link() else { return ended(Status::BUSY) };
        let memory = match link.memory(data.len()).await {
            Ok(Some(memory)) => Arc::new(memory),
            Ok(None) => return ended(Status::BUSY),
            Err(error) => {
                tracing::error!("{}: memory for a command: {error}", self.setup.name);
                return ended(Status::NO_RESOURCE);
            }
        };
        let (Some(view), Ok(len)) = (memory.view(data.len()), u32::try_from(data.len())) else {
            return ended(Status::NO_RESOURCE);
        };
        if !matches!(operation, Operation::Read { .. }) {
            data.copy_to(&view);
        }
        let key = self.keys.fetch_add(1, Ordering::Relaxed);
        let answer = match calls.enter_away((key, id), memory.clone()) {
            Ok(answer) => answer,
            Err(status) => return ended(status),
        };
        let (slot, cdb) = (memory.slot(), cdb.iter().copied().take(MAX_CDB).collect());
        let command = Command { key: key as u64, operation, id, slot, len, cdb };
        if let Err(error) = link.send(&command, &memory) {
            // A process that has ended is noticed by its host; one that does not read is too slow.
            let slow = error.raw_os_error() == Some(libc::EAGAIN);
            calls.complete(key, if slow { Status::NO_RESOURCE } else { Status::BUSY });
        }
        let completion = answer.await;
        let answers = matches!(operation, Operation::Read { .. } | Operation::HandleCommand);
        if answers && completion.status == Status::OK {
            view.copy_to(data);
        }
        Finished { status: completion.status, sense: completion.sense }
    }
}

/// 0, or a negative errno.
fn result(reply: &Reply) -> Result<(), i32> {
    match reply.result {
        0 => Ok(()),
        -4095..=-1 => Err(-reply.result),
        _ => Err(libc::EIO),
    }
}

/// The process that had a device open has ended: what was under way is sent again by initiators, and
/// the device is opened in the next process.
pub(crate) fn process_ended(shared: &Arc<Shared>, remote: &Remote) {
    // Before the commands: none may come in between.
    recovery::begin(shared, Cause::ProcessEnded);
    if let Some(link) = remote.set_link(None) {
        link.end();
    }
    shared.calls.end_all(Status::BUSY);
}
