// SPDX-License-Identifier: Apache-2.0
//! What the manager keeps of one device: the phase of its life, and who waits for what.
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use block::{Config, OpenWatch};
use tcmu::netlink::{Event, EventKind};
use tcmu::{DeviceName, UioDevice};

use super::{Options, Thread};
use crate::device::{DeviceKey, DeviceSpec, Request, Shown, Token};
use crate::status::report::{self, State};

/// The most blocks of one command where the kernel does not tell: its default.
const MAX_SECTORS: u32 = 128;
/// What Linux gives a disk's command before it aborts it; other systems give it as much or more.
const INITIATOR_TIME_OUT: Duration = Duration::from_secs(30);

/// Where a device is in its life.
#[derive(Debug)]
pub(super) enum Phase {
    /// Its thread opens it.
    Opening {
        /// The message to answer; `None` when it was there before us.
        added: Option<Event>,
        /// When the waiting writer is told that it failed.
        until: Option<Instant>,
    },
    /// Its thread waits until its image can be opened; the errno with which that failed.
    Absent {
        errno: i32,
        /// The whole story.
        reason: String,
    },
    /// Its thread serves commands.
    Serving,
    /// Its thread flushes and ends.
    Closing {
        /// The messages to answer, and whether each is the removal.
        events: Vec<(Event, bool)>,
        /// When the thread is left to itself.
        until: Instant,
    },
}

/// A change under way.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) event: Event,
    pub(super) request: Request,
    pub(super) token: Token,
    pub(super) until: Instant,
}

/// How far a device's opening is.
pub(super) struct Progress {
    watch: Arc<OpenWatch>,
    /// The steps when this was last asked.
    seen: u64,
}

impl Progress {
    /// Whether it is further than when this was last asked.
    pub(super) fn has_come_further(&mut self) -> bool {
        let steps = self.watch.steps();
        std::mem::replace(&mut self.seen, steps) != steps
    }
}

/// One device.
pub(super) struct Served {
    pub(super) minor: u32,
    pub(super) name: DeviceName,
    /// For the log.
    pub(super) label: String,
    pub(super) thread: Option<Box<dyn Thread>>,
    pub(super) phase: Phase,
    pub(super) progress: Progress,
    pub(super) change: Option<Change>,
    /// Changes that wait for the device to open, or for the one before.
    pub(super) waiting: VecDeque<Event>,
    pub(super) config: String,
    /// `None`: not known for sure, so that every value is a change.
    size: Option<u64>,
    pub(super) write_cache: Option<bool>,
    block_size: u32,
    /// Of commands that the log was told of.
    pub(super) timed_out: u64,
    shown: Arc<Shown>,
}

/// What the thread needs to know of a device. A `new` one gets a write cache, and enabling it fails
/// if its image cannot be opened. One that existed before waits for its image.
pub(super) fn spec(
    key: DeviceKey,
    uio: &UioDevice,
    options: &Options,
    new: bool,
) -> Result<DeviceSpec, tcmu::Error> {
    let configfs = options.configfs.device(uio.name.hba, &uio.name.name)?;
    if !new && let Err(error) = answer_from_now_on(&configfs) {
        tracing::warn!(
            "user_{}/{}: the kernel takes every change of it for made: {error}",
            uio.name.hba,
            uio.name.name
        );
    }
    // The UIO name has the string with which the device was made; configfs has the one of now.
    let config = configfs.dev_config()?.filter(|config| !config.is_empty());
    let config = config.unwrap_or_else(|| uio.name.config.clone());
    let config = config.trim_end_matches('\n').to_owned();
    let block_size = configfs.hw_block_size()?.unwrap_or(512);
    let max_sectors = configfs.hw_max_sectors()?.unwrap_or(MAX_SECTORS);
    let plugin = options.plugins.find(uio.name.subtype()).cloned();
    let cmd_time_out = match &plugin {
        Some(_) => tcmu_plugin::config::split(&config).ok().and_then(|(_, time_out)| time_out),
        None => Config::parse(&config).ok().and_then(|config| config.command_timeout),
    };
    let kernel = configfs.cmd_time_out()?.filter(|&seconds| seconds > 0);
    let kernel = kernel.map(|seconds| Duration::from_secs(seconds.into()));
    let shortest = [cmd_time_out, kernel].into_iter().flatten().fold(INITIATOR_TIME_OUT, Ord::min);
    let patience = shortest * 2 / 3;
    Ok(DeviceSpec {
        key,
        name: format!("user_{}/{}", uio.name.hba, uio.name.name),
        uio: uio.clone(),
        block_size,
        max_transfer: max_sectors.saturating_mul(block_size),
        size: configfs.dev_size()?.unwrap_or(0),
        write_cache: write_cache(&configfs, new)?,
        plugin,
        serial: configfs.unit_serial()?.unwrap_or_default(),
        cmd_time_out,
        patience,
        hold: (!new).then_some(patience),
        backing_dirs: options.backing_dirs.get(),
        watch: Arc::default(),
        shown: Arc::default(),
        backend: options.backend,
        configfs,
        config,
    })
}

/// Has the kernel wait for answers about a device that was made while nobody was there to answer. It
/// would take a change for made that is refused here, and the device could not be opened again.
fn answer_from_now_on(configfs: &tcmu::configfs::Device) -> Result<(), tcmu::Error> {
    match configfs.nl_reply_supported()? {
        Some(0) => configfs.set_nl_reply_supported(),
        // It waits already, or an administrator has said that it must not.
        _ => Ok(()),
    }
}

/// Whether a device has a volatile write cache. The kernel makes every device without one. Tools
/// enable a device as they make it, so an administrator can only choose afterwards: a new device
/// gets a cache, as a disk has one, and initiators flush. Without it every write waits for stable
/// storage.
fn write_cache(configfs: &tcmu::configfs::Device, new: bool) -> Result<bool, tcmu::Error> {
    if configfs.emulate_write_cache()?.unwrap_or(false) {
        return Ok(true);
    }
    if !new {
        return Ok(false);
    }
    let set = configfs.set_emulate_write_cache(true);
    if let Err(error) = &set {
        tracing::warn!("no write cache, writes wait for stable storage: {error}");
    }
    Ok(set.is_ok())
}

impl Served {
    pub(super) fn new(uio: &UioDevice, spec: &DeviceSpec) -> Served {
        Served {
            minor: uio.minor,
            name: uio.name.clone(),
            label: spec.name.clone(),
            thread: None,
            phase: Phase::Serving,
            progress: Progress { watch: spec.watch.clone(), seen: 0 },
            change: None,
            waiting: VecDeque::new(),
            config: spec.config.clone(),
            size: Some(spec.size),
            write_cache: Some(spec.write_cache),
            block_size: spec.block_size,
            timed_out: 0,
            shown: spec.shown.clone(),
        }
    }

    /// How it does.
    pub(super) fn report(&self) -> report::Device {
        let state = match self.phase {
            Phase::Opening { .. } => State::Opening,
            Phase::Absent { .. } => State::Absent,
            Phase::Serving => State::Serving,
            Phase::Closing { .. } => State::Closing,
        };
        let reason = match &self.phase {
            Phase::Absent { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        report::Device::new(
            report::Facts {
                name: self.label.clone(),
                config: self.config.clone(),
                state,
                reason,
                size: self.size,
                block_size: self.block_size,
                write_cache: self.write_cache,
                is_changing: self.change.is_some(),
                timed_out: self.timed_out,
            },
            self.shown.doing(),
        )
    }

    /// Whether it is this device. Its configuration is part of the name and may have changed.
    pub(super) fn is(&self, minor: u32, name: &DeviceName) -> bool {
        self.minor == minor && self.name.hba == name.hba && self.name.name == name.name
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self.phase, Phase::Absent { .. })
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. })
    }

    /// Tells the thread to end; `removed` is answered when it has.
    pub(super) fn close(&mut self, removed: Option<Event>, until: Instant) {
        if let Phase::Closing { events, .. } = &mut self.phase {
            events.extend(removed.map(|event| (event, true)));
            return;
        }
        let mut events: Vec<_> = removed.into_iter().map(|event| (event, true)).collect();
        if matches!(self.phase, Phase::Opening { .. } | Phase::Absent { .. }) {
            self.progress.watch.give_up();
        }
        if let Phase::Opening { added, .. } = &mut self.phase {
            events.extend(added.take().map(|event| (event, false)));
        }
        self.phase = Phase::Closing { events, until };
        if let Some(thread) = &self.thread {
            // It ends a little before it is given up.
            let left = until.saturating_duration_since(Instant::now());
            thread.stop(left - left / 8);
        }
    }

    /// What a RECONFIG asks of the thread; `None`: nothing, for the value is the one it has.
    pub(super) fn wanted(&self, event: &Event) -> Result<Option<Request>, (i32, String)> {
        let EventKind::Reconfig { config, size, write_cache } = &event.kind else {
            return Ok(None);
        };
        if let Some(config) = config.as_deref().map(|config| config.trim_end_matches('\n'))
            && config != self.config
        {
            if config.split('/').next() != self.config.split('/').next() {
                let text = format!(
                    "its subtype cannot be changed: dev_config is {:?}, {config:?} was asked for",
                    self.config
                );
                return Err((libc::EINVAL, text));
            }
            return Ok(Some(Request::Reconfigure(config.to_owned())));
        }
        if let Phase::Absent { errno, .. } = self.phase
            && (size.is_some() || write_cache.is_some())
        {
            return Err((errno, "it cannot be changed while its image cannot be opened".into()));
        }
        if let Some(size) = size.filter(|&size| self.size != Some(size)) {
            return Ok(Some(Request::Resize(size)));
        }
        if let Some(on) = write_cache.filter(|&on| self.write_cache != Some(on)) {
            return Ok(Some(Request::SetWriteCache(on)));
        }
        Ok(None)
    }

    /// Notes a change that was made.
    pub(super) fn apply(&mut self, request: &Request) {
        match request {
            Request::Resize(size) => self.size = Some(*size),
            Request::SetWriteCache(on) => self.write_cache = Some(*on),
            Request::Reconfigure(config) => self.config.clone_from(config),
        }
    }

    /// A change was made after the kernel was told that it failed: until the next change, the
    /// kernel and the thread disagree.
    pub(super) fn changed_late(&mut self) {
        self.size = None;
        self.write_cache = None;
    }

    /// Nobody waits for an answer any more.
    pub(super) fn forget_events(&mut self) {
        self.waiting.clear();
        match &mut self.phase {
            Phase::Opening { added, .. } => *added = None,
            Phase::Closing { events, .. } => events.clear(),
            Phase::Absent { .. } | Phase::Serving => {}
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Opening { until, .. } => until,
            Phase::Absent { .. } | Phase::Serving => None,
            Phase::Closing { until, .. } => Some(until),
        };
        phase.into_iter().chain(self.change.as_ref().map(|change| change.until)).min()
    }

    /// All messages that still wait for an answer, and whether each is the removal.
    pub(super) fn into_events(self) -> Vec<(Event, bool)> {
        let mut all: Vec<_> = self.waiting.into_iter().map(|event| (event, false)).collect();
        all.extend(self.change.map(|change| (change.event, false)));
        match self.phase {
            Phase::Opening { added, .. } => all.extend(added.map(|event| (event, false))),
            Phase::Closing { events, .. } => all.extend(events),
            Phase::Absent { .. } | Phase::Serving => {}
        }
        all
    }
}
