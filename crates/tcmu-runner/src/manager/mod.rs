// SPDX-License-Identifier: Apache-2.0
//! The life of all devices. Events of the kernel (netlink), of the devices' threads and of the
//! clock go in; threads are started and stopped, and the kernel gets its answers. Nothing here
//! waits: a device that hangs while it opens, changes or closes only delays its own answer, and not
//! forever ([`Limits`]).
//!
//! Devices of subtypes that are not ours are left alone. If somebody else may serve them, the
//! kernel gets no answer from us; otherwise enabling them fails at once (module `foreign`).
mod foreign;
mod served;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tcmu::netlink::{Event, EventKind, Incoming};
use tcmu::uio::Sysfs;
use tcmu::{Configfs, Netlink, UioDevice};
use tcmu_plugin::Plugins;

use crate::backing_dirs::BackingDirs;
use crate::device::{Device, DeviceEvent, DeviceKey, DeviceSpec, Request, Stop, Token};
use crate::events::Sender;
use crate::status::report;
use foreign::Foreign;
use served::{Change, Phase, Served};

pub use foreign::Elsewhere;

/// A device's thread, as the manager knows it.
pub trait Thread {
    /// See [`Device::request`].
    fn request(&self, request: Request, token: Token);
    /// See [`Device::retry`].
    fn retry(&self);
    /// See [`Device::stop`].
    fn stop(&self, deadline: Duration);
}

impl Thread for Device {
    fn request(&self, request: Request, token: Token) {
        Device::request(self, request, token);
    }

    fn retry(&self) {
        Device::retry(self);
    }

    fn stop(&self, deadline: Duration) {
        Device::stop(self, deadline);
    }
}

/// Starts a device's thread: [`Device::start`], or a stand-in.
pub type Start = Box<dyn FnMut(DeviceSpec, Sender) -> io::Result<Box<dyn Thread>>>;

/// For the thread that sets an attribute, in bytes.
const ATTRIBUTE_STACK: usize = 256 << 10;

/// How long things may take before the kernel is told that they failed, or the thread is
/// abandoned.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From ADDED to its answer, while opening comes no further: somebody's write to `enable` waits.
    pub open: Duration,
    /// From RECONFIG to its answer: somebody's write to an attribute waits.
    pub change: Duration,
    /// From REMOVED to its answer: somebody's rmdir waits.
    pub close: Duration,
    /// For all devices at the daemon's end.
    pub shutdown: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Limits { open: seconds(60), change: seconds(60), close: seconds(15), shutdown: seconds(20) }
    }
}

/// What is the same for all devices.
pub struct Options {
    /// Where UIO devices are looked for.
    pub sysfs: Sysfs,
    /// The kernel's target.
    pub configfs: Configfs,
    /// The subtypes that are ours, those of plugins included.
    pub subtypes: Vec<String>,
    /// The plugins.
    pub plugins: Arc<Plugins>,
    /// Whether somebody else may serve a subtype that is not ours.
    pub elsewhere: Elsewhere,
    /// Where backing files may be.
    pub backing_dirs: BackingDirs,
    /// How long things may take.
    pub limits: Limits,
    /// How the threads do their I/O.
    pub backend: io_engine::Backend,
}

/// All devices.
pub struct Manager {
    options: Options,
    netlink: Netlink,
    events: Sender,
    start: Start,
    devices: BTreeMap<DeviceKey, Served>,
    foreign: Foreign,
    next_key: u64,
    next_token: u64,
    ending: Option<Instant>,
}

impl Manager {
    /// A manager with no devices yet; the kernel's messages queue up in `netlink`.
    pub fn new(options: Options, netlink: Netlink, events: Sender, start: Start) -> Manager {
        Manager {
            options,
            netlink,
            events,
            start,
            devices: BTreeMap::new(),
            foreign: Foreign::new(),
            next_key: 1,
            next_token: 1,
            ending: None,
        }
    }

    /// The descriptor that is readable when the kernel has something to say.
    pub fn netlink(&self) -> BorrowedFd<'_> {
        self.netlink.as_fd()
    }

    /// How many devices there are, those included that are opening or closing.
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// Opens the devices that are there and not yet known, and lets go of those that are gone.
    pub fn scan(&mut self) {
        let found = match self.options.sysfs.scan() {
            Ok(found) => found,
            Err(error) => {
                tracing::error!("cannot look for devices: {error}");
                return;
            }
        };
        let gone = |served: &&mut Served| !found.iter().any(|uio| served.is(uio.minor, &uio.name));
        let deadline = Instant::now() + self.options.limits.close;
        for served in self.devices.values_mut().filter(gone) {
            served.close(None, deadline);
        }
        for uio in found {
            let subtype = uio.name.subtype();
            if !self.is_ours(subtype) {
                if matches!((self.options.elsewhere)(&self.netlink, subtype), Ok(false)) {
                    let (hba, name) = (uio.name.hba, &uio.name.name);
                    tracing::warn!("user_{hba}/{name}: nobody serves it: {}", self.none(subtype));
                }
            } else if self.live(uio.minor).is_none() {
                self.open(&uio, None);
            }
        }
    }

    fn is_ours(&self, subtype: &str) -> bool {
        self.options.subtypes.iter().any(|ours| ours == subtype)
    }

    /// That there is no handler for a subtype, in words.
    fn none(&self, subtype: &str) -> String {
        let ours = self.options.subtypes.join(", ");
        format!("there is no handler for the subtype {subtype:?}; there are {ours}")
    }

    /// The device of a UIO minor, unless it is closing.
    fn live(&mut self, minor: u32) -> Option<(DeviceKey, &mut Served)> {
        let mut devices = self.devices.iter_mut();
        devices.find(|(_, s)| s.minor == minor && !s.is_closing()).map(|(&key, s)| (key, s))
    }

    /// Handles what the kernel has sent. Call it when [`Manager::netlink`] is readable.
    pub fn on_netlink(&mut self) -> Result<(), tcmu::Error> {
        while let Some(incoming) = self.netlink.receive()? {
            match incoming {
                Incoming::Event(event) => self.on_event(event),
                Incoming::Lost => self.on_lost(),
            }
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event) {
        if !self.is_ours(event.device.subtype()) {
            return self.on_foreign(event);
        }
        if self.ending.is_some() && event.kind != EventKind::Removed {
            return self.reply(&event, libc::ESHUTDOWN);
        }
        match event.kind {
            EventKind::Added => self.added(event),
            EventKind::Removed => self.removed(event),
            EventKind::Reconfig { .. } => match self.live(event.minor) {
                Some((key, served)) => {
                    served.waiting.push_back(event);
                    self.next_change(key);
                }
                None => {
                    tracing::error!("{}: cannot change it: it is not open", name(&event));
                    self.reply(&event, libc::ENODEV);
                }
            },
        }
    }

    /// A message about a device of a subtype that is not ours.
    fn on_foreign(&mut self, event: Event) {
        match (self.options.elsewhere)(&self.netlink, event.device.subtype()) {
            Ok(false) => return self.refuse(&event),
            Ok(true) => tracing::debug!("{}: left to others", event.device.config),
            Err(error) => tracing::error!(
                "{}: no answer to the kernel, as others may serve it: {error}",
                name(&event)
            ),
        }
        self.foreign.leave(event, Instant::now());
    }

    /// Answers for a device that nobody serves: it can be removed, nothing else.
    fn refuse(&mut self, event: &Event) {
        if event.kind == EventKind::Removed {
            return self.reply(event, 0);
        }
        let why = self.none(event.device.subtype());
        tracing::error!("{}: {} is refused: {why}", name(event), event.device.config);
        self.reply(event, libc::EOPNOTSUPP);
    }

    /// The kernel dropped messages. Who waits for an answer to one of them would wait forever, so
    /// all waits are ended; then the devices are compared with those that we know.
    fn on_lost(&mut self) {
        tracing::error!("the kernel dropped netlink messages; scanning all devices again");
        if let Err(error) = tcmu::module::Module::default().reset_netlink() {
            tracing::error!("netlink cannot be reset: {error}");
        }
        for served in self.devices.values_mut() {
            served.forget_events();
        }
        self.foreign.clear();
        self.scan();
    }

    fn reply(&mut self, event: &Event, errno: i32) {
        if let Err(error) = self.netlink.reply(event, errno) {
            tracing::error!("{}: the kernel could not be answered: {error}", name(event));
        }
    }

    fn added(&mut self, event: Event) {
        let close_until = Instant::now() + self.options.limits.close;
        if let Some((_, served)) = self.live(event.minor) {
            if served.is(event.minor, &event.device) {
                match &mut served.phase {
                    // Found by a scan before its message was read.
                    Phase::Opening { added, .. } => *added = Some(event),
                    &mut Phase::Absent { errno, .. } => {
                        served.close(None, close_until);
                        self.reply(&event, errno);
                    }
                    _ => self.reply(&event, 0),
                }
                return;
            }
            tracing::warn!("{}: it is gone, and the kernel did not say so", served.label);
            if let Some((_, served)) = self.live(event.minor) {
                served.close(None, close_until);
            }
        }
        match self.options.sysfs.device(event.minor) {
            Ok(Some(uio)) => self.open(&uio, Some(event)),
            Ok(None) => {
                tracing::error!("{}: its UIO device is not there", name(&event));
                self.reply(&event, libc::ENODEV);
            }
            Err(error) => {
                tracing::error!("{}: {error}", name(&event));
                self.reply(&event, libc::EIO);
            }
        }
    }

    fn open(&mut self, uio: &UioDevice, added: Option<Event>) {
        let key = DeviceKey(self.next_key);
        self.next_key += 1;
        let spec = served::spec(key, uio, &self.options, added.is_some());
        let started = spec.map_err(|error| (libc::EINVAL, error.to_string())).and_then(|spec| {
            let served = Served::new(uio, &spec);
            tracing::info!("{}: opening {}", served.label, served.config);
            if !spec.write_cache {
                tracing::info!(
                    "{}: emulate_write_cache is 0: every write waits for stable storage",
                    served.label
                );
            }
            let thread = (self.start)(spec, self.events.clone())
                .map_err(|error| (error.raw_os_error().unwrap_or(libc::EIO), error.to_string()))?;
            Ok((served, thread))
        });
        match started {
            Ok((mut served, thread)) => {
                served.thread = Some(thread);
                // Nobody waits for a device that was there already: it may take its time.
                let until = added.is_some().then(|| Instant::now() + self.options.limits.open);
                served.phase = Phase::Opening { added, until };
                self.devices.insert(key, served);
            }
            Err((errno, reason)) => {
                tracing::error!("{}/{}: cannot be opened: {reason}", uio.name.hba, uio.name.name);
                if let Some(event) = added {
                    self.reply(&event, errno);
                }
            }
        }
    }

    fn removed(&mut self, event: Event) {
        let until = Instant::now() + self.options.limits.close;
        match self.live(event.minor) {
            Some((_, served)) => {
                tracing::info!("{}: removed; closing", served.label);
                served.close(Some(event), until);
            }
            // It could not be opened, or has failed: there is nothing to close.
            None => self.reply(&event, 0),
        }
    }

    /// Starts the next change of a device that is asked for, if it can be done now.
    fn next_change(&mut self, key: DeviceKey) {
        loop {
            let Some(served) = self.devices.get_mut(&key) else { return };
            let takes_changes = matches!(served.phase, Phase::Serving | Phase::Absent { .. });
            if !takes_changes || served.change.is_some() {
                return;
            }
            let Some(event) = served.waiting.pop_front() else { return };
            match served.wanted(&event) {
                Ok(None) => {
                    tracing::debug!("{}: the new setting is the one it has", served.label);
                    self.reply(&event, 0);
                }
                Ok(Some(request)) => {
                    tracing::info!("{}: {request:?}", served.label);
                    let token = Token(self.next_token);
                    self.next_token += 1;
                    if let Some(thread) = &served.thread {
                        thread.request(request.clone(), token);
                    }
                    let until = Instant::now() + self.options.limits.change;
                    served.change = Some(Change { event, request, token, until });
                    return;
                }
                Err((errno, reason)) => {
                    tracing::error!("{}: {reason}", served.label);
                    self.reply(&event, errno);
                }
            }
        }
    }

    /// Handles an event of a device's thread.
    pub fn on_device(&mut self, event: DeviceEvent) {
        match event {
            DeviceEvent::Opened(key) => self.opened(key),
            DeviceEvent::OpenFailed { device, errno, reason } => {
                let errno = if errno == 0 { libc::EIO } else { errno };
                self.ended(device, errno, &format!("cannot be opened: {reason}"));
            }
            DeviceEvent::Absent { device, errno, reason, hold } => {
                self.absent(device, errno, &reason, hold);
            }
            DeviceEvent::Reply { device, token, result } => self.answered(device, token, result),
            DeviceEvent::WriteCacheSet { device, on } => self.write_cache_set(device, on),
            DeviceEvent::Stopped { device, why } => match why {
                Stop::Asked => self.ended(device, 0, ""),
                why => self.ended(device, libc::EIO, &why.to_string()),
            },
            DeviceEvent::CommandTimedOut { device, command, opcode, after } => {
                if let Some(served) = self.devices.get_mut(&device) {
                    served.timed_out += 1;
                    tracing::warn!(
                        "{}: command {command} (operation code {opcode:#04x}) has been under way \
                         for {:.1} s",
                        served.label,
                        after.as_secs_f64()
                    );
                }
            }
        }
    }

    fn opened(&mut self, key: DeviceKey) {
        let Some(served) = self.devices.get_mut(&key) else { return };
        let added = match &mut served.phase {
            Phase::Opening { added, .. } => added.take(),
            Phase::Absent { .. } => None,
            Phase::Serving | Phase::Closing { .. } => return,
        };
        served.phase = Phase::Serving;
        tracing::info!("{}: serving {}", served.label, served.config);
        if let Some(event) = added {
            self.reply(&event, 0);
        }
        self.next_change(key);
    }

    /// A device's image cannot be opened yet.
    fn absent(&mut self, key: DeviceKey, errno: i32, reason: &str, hold: Duration) {
        let Some(served) = self.devices.get_mut(&key) else { return };
        let added = match &mut served.phase {
            Phase::Opening { added, .. } => added.take(),
            Phase::Absent { .. } => None,
            Phase::Serving | Phase::Closing { .. } => return,
        };
        if let Some(event) = added {
            tracing::error!("{}: cannot be opened: {reason}", served.label);
            served.close(None, Instant::now() + self.options.limits.close);
            return self.reply(&event, errno);
        }
        tracing::error!(
            "{}: cannot be opened yet: {reason}. It is tried again: every 30 s, when something \
             changes in the image's directory or is mounted, and at SIGHUP. Meanwhile its commands \
             wait for {} s and are then answered \"becoming ready\"",
            served.label,
            hold.as_secs()
        );
        served.phase = Phase::Absent { errno, reason: reason.to_owned() };
        self.next_change(key);
    }

    /// Has devices whose image could not be opened try again.
    pub fn retry(&self) {
        for served in self.devices.values().filter(|served| served.is_absent()) {
            served.thread.iter().for_each(|thread| thread.retry());
        }
    }

    /// An initiator has set a device's write cache: the attribute says the same from now on, so
    /// that it stays so when the daemon is started again.
    fn write_cache_set(&mut self, key: DeviceKey, on: bool) {
        let Some(served) = self.devices.get_mut(&key) else { return };
        let label = served.label.clone();
        tracing::info!("{label}: an initiator has turned the write cache {}", on_off(on));
        // What the kernel asks for because of the attribute is what it has.
        served.write_cache = Some(on);
        let device = self.options.configfs.device(served.name.hba, &served.name.name);
        // The kernel holds up the writer until we have answered it.
        let set = move || {
            if let Err(error) = device.and_then(|device| device.set_emulate_write_cache(on)) {
                tracing::error!(
                    "{label}: the write cache is {} until the daemon is started again: {error}",
                    on_off(on)
                );
            }
        };
        let thread =
            std::thread::Builder::new().name("attribute".into()).stack_size(ATTRIBUTE_STACK);
        if let Err(error) = thread.spawn(set) {
            tracing::error!("{}: emulate_write_cache is not set: {error}", served.label);
        }
    }

    fn answered(&mut self, key: DeviceKey, token: Token, result: io::Result<()>) {
        let Some(served) = self.devices.get_mut(&key) else { return };
        let Some(change) = served.change.take_if(|change| change.token == token) else {
            tracing::warn!("{}: a change that took too long has ended: {result:?}", served.label);
            if result.is_ok() {
                served.changed_late();
            }
            return;
        };
        let errno = match result {
            Ok(()) => {
                served.apply(&change.request);
                0
            }
            Err(error) => {
                tracing::error!("{}: {:?} failed: {error}", served.label, change.request);
                error.raw_os_error().unwrap_or(libc::EOPNOTSUPP)
            }
        };
        self.reply(&change.event, errno);
        self.next_change(key);
    }

    /// A thread has ended: all who wait for the device get an answer.
    fn ended(&mut self, key: DeviceKey, errno: i32, reason: &str) {
        let Some(served) = self.devices.remove(&key) else { return };
        match (&served.phase, reason) {
            (Phase::Closing { .. }, "") => tracing::info!("{}: closed", served.label),
            (Phase::Closing { .. }, why) => tracing::warn!("{}: {why}", served.label),
            (Phase::Opening { .. } | Phase::Absent { .. }, why) => {
                tracing::error!("{}: {why}", served.label)
            }
            (Phase::Serving, why) => tracing::error!(
                "{}: {why}. Its initiators wait: restart the daemon, or remove the device",
                served.label
            ),
        }
        let errno = if errno == 0 { libc::ENODEV } else { errno };
        for (event, removal) in served.into_events() {
            self.reply(&event, if removal { 0 } else { errno });
        }
    }

    /// How all devices do.
    pub fn report(&self) -> Vec<report::Device> {
        self.devices.values().map(Served::report).collect()
    }

    /// When [`Manager::tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let devices = self.devices.values().filter_map(Served::deadline);
        devices.chain(self.ending).chain(self.foreign.deadline()).min()
    }

    /// Answers for what has taken too long.
    pub fn tick(&mut self, now: Instant) {
        for event in self.foreign.overdue(now, &self.options, &self.netlink) {
            self.refuse(&event);
        }
        let mut replies = Vec::new();
        let mut lost = Vec::new();
        for (&key, served) in &mut self.devices {
            if let Some(change) = served.change.take_if(|change| change.until <= now) {
                tracing::error!("{}: {:?} takes too long", served.label, change.request);
                replies.push((change.event, libc::ETIMEDOUT));
            }
            match &mut served.phase {
                Phase::Opening { until: Some(until), .. }
                    if *until <= now && served.progress.has_come_further() =>
                {
                    *until = now + self.options.limits.open;
                }
                Phase::Opening { added, until } if until.is_some_and(|at| at <= now) => {
                    tracing::error!(
                        "{}: opening takes too long: is its storage reachable?",
                        served.label
                    );
                    let added = added.take();
                    replies.extend(added.map(|event| (event, libc::ETIMEDOUT)));
                    served.close(None, now + self.options.limits.close);
                }
                Phase::Closing { until, .. } if *until <= now => lost.push(key),
                _ => {}
            }
        }
        for (event, errno) in replies {
            self.reply(&event, errno);
        }
        for key in lost {
            if let Some(served) = self.devices.remove(&key) {
                tracing::error!(
                    "{}: it does not close; its thread is abandoned until the storage answers",
                    served.label
                );
                for (event, removal) in served.into_events() {
                    self.reply(&event, if removal { 0 } else { libc::ETIMEDOUT });
                }
            }
        }
    }

    /// Flushes and closes all devices at the same time; the manager is done when it
    /// [`Manager::is_empty`], at the latest after [`Limits::shutdown`].
    pub fn shut_down(&mut self) {
        let until = Instant::now() + self.options.limits.shutdown;
        self.ending = Some(until);
        for served in self.devices.values_mut() {
            served.close(None, until);
        }
    }
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// A device of a message, for the log.
fn name(event: &Event) -> String {
    format!("user_{}/{}", event.device.hba, event.device.name)
}

#[cfg(test)]
mod tests;
