// SPDX-License-Identifier: Apache-2.0
//! In the process of a plugin: a device that the daemon serves and a handler here has. Its threads
//! read commands from the device's socket and call the handler, which completes them as ever.
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tcmu::{Configfs, DeviceName};
use tcmu_abi::{Device, DeviceConfig};

use super::relay::{Relay, Uplink};
use super::slots::{Geometry, Slots};
use super::socket::Socket;
use super::wire::{Command, DeviceSetup, decode};
use crate::calls::Gate;
use crate::device::Shared;
use crate::handler::Handler;
use crate::memory::Spare;
use crate::place::{self, Place};
use crate::pool::spawn;
use crate::status::Status;

/// The longest command in bytes, with the longest CDB.
const COMMAND_LEN: usize = 1024;

/// A device.
pub(super) struct Served {
    pub(super) shared: Arc<Shared>,
    spare: Mutex<Spare>,
    /// While it is open.
    socket: Mutex<Option<Arc<Socket>>>,
}

impl Served {
    /// A device that is not open yet.
    pub(super) fn new(
        uplink: &Arc<Uplink>,
        id: u32,
        handler: Arc<Handler>,
        setup: &DeviceSetup,
    ) -> Result<Arc<Served>, i32> {
        let configfs = Configfs::new(&setup.configfs).device(setup.hba, &setup.device);
        let name = DeviceName {
            hba: setup.hba,
            name: setup.device.clone(),
            config: setup.first_config.clone(),
        };
        let minor = setup.minor;
        let configfs = configfs.map_err(|error| {
            tracing::error!("{error}");
            libc::EINVAL
        })?;
        let abi = Device::new(DeviceConfig { name, minor, configfs });
        abi.set_cfgstring(&setup.config);
        setup.properties.apply(abi.properties());
        let place = Place::Hosted(Relay::new(uplink.clone(), id));
        let shared = Shared::new(setup.name.clone(), handler, abi, place);
        Ok(Arc::new(Served { shared, spare: Mutex::default(), socket: Mutex::default() }))
    }

    fn relay(&self) -> Option<&Relay> {
        match &self.shared.place {
            Place::Hosted(relay) => Some(relay),
            Place::Here | Place::Away(_) => None,
        }
    }

    /// Tells the daemon of properties that the handler has changed.
    pub(super) fn tell_properties(&self) {
        if let Some(relay) = self.relay() {
            relay.properties(self.shared.abi.properties());
        }
    }

    /// Has the handler open it, and its threads wait for commands.
    pub(super) fn open(
        self: &Arc<Self>,
        again: bool,
        geometry: Geometry,
        fds: Vec<OwnedFd>,
    ) -> Result<(), i32> {
        let [socket, memory] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| libc::EBADF)?;
        let slots = Slots::map(memory, geometry).map_err(|error| {
            tracing::error!("{}: memory for commands: {error}", self.shared.name);
            libc::ENOMEM
        })?;
        place::remember(&self.shared);
        self.shared.open(again)?;
        self.shared.calls.begin();
        let (socket, slots) = (Arc::new(Socket::new(socket)), Arc::new(slots));
        *self.socket() = Some(socket.clone());
        for _ in 0..self.shared.handler.threads().max(1) {
            let (served, socket, slots) = (self.clone(), socket.clone(), slots.clone());
            let started = spawn("device", move || served.work(&socket, &slots));
            if let Err(error) = started {
                tracing::error!("{}: cannot start a thread: {error}", self.shared.name);
                self.close();
                return Err(libc::EAGAIN);
            }
        }
        Ok(())
    }

    fn socket(&self) -> MutexGuard<'_, Option<Arc<Socket>>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the handler close it, once it has completed everything.
    pub(super) fn close(&self) {
        let socket = self.socket().take();
        let Some(socket) = socket else { return };
        self.shared.calls.set_gate(Gate::Suspended);
        socket.shut();
        self.shared.calls.wait_idle();
        self.shared.close(false);
    }

    /// Executes commands, until the device is closed.
    fn work(self: &Arc<Self>, socket: &Socket, slots: &Arc<Slots>) {
        let mut buffer = vec![0; COMMAND_LEN];
        loop {
            let packet = match socket.receive(&mut buffer) {
                Ok(Some(packet)) => packet,
                Ok(None) => return,
                Err(error) => {
                    tracing::error!("{}: commands: {error}", self.shared.name);
                    return;
                }
            };
            let fds = packet.fds;
            match decode::<Command>(packet.bytes) {
                Some(command) => self.execute(&command, fds, slots),
                None => tracing::error!("{}: a command that is none", self.shared.name),
            }
        }
    }

    fn execute(self: &Arc<Self>, command: &Command, fds: Vec<OwnedFd>, slots: &Arc<Slots>) {
        let refuse = |status| {
            if let Some(relay) = self.relay() {
                relay.completed(command.key, status, None);
            }
        };
        let memory = match command.slot {
            Some(_) => Ok(slots.clone()),
            None => own_memory(fds, command.len),
        };
        let memory = match memory {
            Ok(memory) => memory,
            Err(error) => {
                tracing::error!("{}: memory for a command: {error}", self.shared.name);
                return refuse(Status::NO_RESOURCE);
            }
        };
        let len = usize::try_from(command.len).unwrap_or(usize::MAX);
        let Some(data) = memory.view(command.slot.unwrap_or(0), len) else {
            return refuse(Status::INVALID_CDB);
        };
        let (mut block, arguments) = self.spare().take(command.id, &command.cdb, &data);
        let (served, key, theirs) = (self.clone(), command.key, memory.clone());
        let report = move |status: Status| {
            // It is the handler's until now.
            drop(theirs);
            let sense = (status != Status::OK).then(|| block.sense().to_vec());
            served.spare().put(block);
            if let Some(relay) = served.relay() {
                relay.properties(served.shared.abi.properties());
                relay.completed(key, status, sense);
            }
        };
        let shared = &self.shared;
        match shared.calls.enter_for(arguments, Box::new(report)) {
            Ok(()) => {
                let operation = command.operation;
                shared.calls.run(&shared.handler, shared.pointer(), arguments, operation);
            }
            Err(status) => refuse(status),
        }
    }

    fn spare(&self) -> MutexGuard<'_, Spare> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The memory that comes with a command.
fn own_memory(fds: Vec<OwnedFd>, len: u32) -> io::Result<Arc<Slots>> {
    let fd = fds.into_iter().next().ok_or(io::ErrorKind::InvalidInput)?;
    Slots::map(fd, Geometry::single(len)).map(Arc::new)
}
