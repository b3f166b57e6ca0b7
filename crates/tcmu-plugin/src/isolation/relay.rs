// SPDX-License-Identifier: Apache-2.0
//! In the process of a plugin: what its handlers say, on its way to the daemon. [`Uplink`] is the
//! connection, and the log; [`Relay`] is a device's part of it.
use std::fmt::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tcmu_abi::log::{Level, Sink};
use tcmu_abi::{Device, Properties};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber, span};

use super::socket::Socket;
use super::wire::{FromPlugin, MAX_TEXT, Snapshot};
use crate::exports;
use crate::recovery::{CAUSES, Cause};
use crate::status::Status;

/// The connection to the daemon.
pub(crate) struct Uplink {
    socket: Socket,
    level: AtomicU8,
    directory: Mutex<PathBuf>,
}

impl Uplink {
    pub(crate) fn new(socket: Socket) -> Arc<Uplink> {
        let level = AtomicU8::new(Level::Info as u8);
        Arc::new(Uplink { socket, level, directory: Mutex::default() })
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Tells the daemon. One that is gone is not told: the process ends with it.
    pub(crate) fn tell(&self, message: &FromPlugin) {
        let _ = self.socket.send(message, &[], true);
    }

    /// So much is logged from now on, and plugins' own files go to this directory.
    pub(crate) fn set_log(&self, level: u8, directory: String) {
        self.level.store(level, Ordering::Relaxed);
        *self.directory() = directory.into();
        tracing::callsite::rebuild_interest_cache();
    }

    fn directory(&self) -> MutexGuard<'_, PathBuf> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Level {
        Level::from_number(self.level.load(Ordering::Relaxed).into())
    }
}

/// A text of at most [`MAX_TEXT`] bytes.
pub(super) fn cut(text: &str) -> String {
    let end = (0..=text.len().min(MAX_TEXT)).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}

/// The log of the process: the daemon's.
pub(crate) struct Log(pub(crate) Arc<Uplink>);

impl Sink for Log {
    fn level(&self) -> Level {
        self.0.current()
    }

    fn set_level(&self, level: Level) {
        tracing::debug!("a plugin wants the log level {level:?}: tcmu.conf decides");
    }

    fn directory(&self) -> PathBuf {
        self.0.directory().clone()
    }

    fn log(&self, level: Level, device: Option<&Device>, function: &str, line: i32, text: &str) {
        let device = device.and_then(|device| exports::relayed(device.as_ptr()));
        let (function, text) = (cut(function), cut(text));
        self.0.tell(&FromPlugin::Line { level: level as u8, device, function, line, text });
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What is an error to us is told even where only what is critical is logged: the daemon
        // decides.
        Level::of(*metadata.level()) <= self.0.current().max(Level::Error)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0.current().filter())
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let level = Level::of(*event.metadata().level()) as u8;
        self.0.tell(&FromPlugin::Own { level, text: cut(&text.0) });
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// The message of an event.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a String does not fail.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

/// What the daemon is told of one device.
pub(crate) struct Relay {
    uplink: Arc<Uplink>,
    id: u32,
    /// The properties that the daemon knows of.
    sent: Mutex<Option<Snapshot>>,
}

impl Relay {
    pub(crate) fn new(uplink: Arc<Uplink>, id: u32) -> Relay {
        Relay { uplink, id, sent: Mutex::default() }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Tells of properties that the handler has changed. The daemon knows them before what follows.
    pub(crate) fn properties(&self, properties: &Properties) {
        // Held while it is sent, so that the last one to arrive is the last one taken.
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = Snapshot::of(properties);
        if sent.as_ref() != Some(&snapshot) {
            let message = FromPlugin::Properties { device: self.id, snapshot: snapshot.clone() };
            self.uplink.tell(&message);
            *sent = Some(snapshot);
        }
    }

    pub(crate) fn completed(&self, key: u64, status: Status, sense: Option<Vec<u8>>) {
        let (device, Status(status)) = (self.id, status);
        self.uplink.tell(&FromPlugin::Completed { device, key, status, sense });
    }

    pub(crate) fn resized(&self, size: u64) {
        self.uplink.tell(&FromPlugin::Resized { device: self.id, size });
    }

    pub(crate) fn lost(&self, cause: Cause) {
        let event = CAUSES.iter().position(|(known, _)| *known == cause);
        if let Some(event) = event.and_then(|event| u8::try_from(event).ok()) {
            self.uplink.tell(&FromPlugin::Lost { device: self.id, event });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::decode;
    use super::*;

    fn uplink() -> (Arc<Uplink>, Socket) {
        let (ours, theirs) = Socket::pair().unwrap();
        (Uplink::new(ours), theirs)
    }

    fn next(daemon: &Socket) -> Option<FromPlugin> {
        let mut buffer = vec![0; 1 << 16];
        let len = daemon.receive_now(&mut buffer).unwrap()?;
        Some(decode(&buffer[..len]).unwrap())
    }

    #[test]
    fn properties_are_told_when_they_have_changed() {
        let (uplink, daemon) = uplink();
        let (relay, properties) = (Relay::new(uplink, 5), Properties::default());
        for size in [10, 10, 20] {
            properties.set_num_lbas(size);
            relay.properties(&properties);
        }
        for size in [10, 20] {
            let Some(FromPlugin::Properties { device: 5, snapshot }) = next(&daemon) else {
                panic!("no properties")
            };
            assert_eq!(snapshot.num_lbas, size);
        }
        assert_eq!(next(&daemon), None);
    }

    #[test]
    fn lines_have_bounds_and_levels() {
        let (uplink, daemon) = uplink();
        uplink.set_log(Level::Warning as u8, "/logs".into());
        let log = Log(uplink.clone());
        assert_eq!((log.level(), log.directory()), (Level::Warning, "/logs".into()));
        log.log(Level::Error, None, "f", 3, &"ä".repeat(MAX_TEXT));
        let Some(FromPlugin::Line { level: 1, device: None, text, line: 3, .. }) = next(&daemon)
        else {
            panic!("no line")
        };
        assert_eq!(text, "ä".repeat(MAX_TEXT / 2));
        tracing::subscriber::with_default(Log(uplink), || {
            tracing::warn!("so {}", "it is");
            tracing::info!("not this");
        });
        assert_eq!(next(&daemon), Some(FromPlugin::Own { level: 2, text: "so it is".into() }));
        assert_eq!(next(&daemon), None);
    }
}
