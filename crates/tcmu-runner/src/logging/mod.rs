// SPDX-License-Identifier: Apache-2.0
//! The log: events of `tracing` in; lines in the C daemon's format out, to a file and to stderr.
//!
//! The caller only formats the line and puts it in a bounded queue. One thread writes, so that a
//! log directory that hangs, or a terminal that nobody reads, stops no device: what finds the queue
//! full is counted and dropped, and the count is logged once there is room again.
mod line;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};
use std::{io, thread};

use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

pub use line::Line;
pub use tcmu_abi::log::Level;
pub use writer::Style;

/// The name of the log file in its directory.
pub const FILE: &str = "tcmu-runner.log";
/// Lines that may wait for the writer.
const QUEUE: usize = 1024;
/// Events with this target are critical: what the operator must know at any level.
pub const CRIT: &str = "crit";

/// Logs at the level CRIT, which `tracing` does not have.
#[macro_export]
macro_rules! crit {
    ($($arg:tt)+) => { tracing::error!(target: $crate::logging::CRIT, $($arg)+) };
}

/// The level of an event.
fn level_of(metadata: &Metadata<'_>) -> Level {
    match *metadata.level() {
        tracing::Level::ERROR if metadata.target() == CRIT => Level::Crit,
        level => Level::of(level),
    }
}

/// What the writer's thread is told.
#[derive(Debug)]
enum Message {
    Line(Line),
    /// Write to this directory from now on.
    Directory(PathBuf),
    Reopen,
    /// Everything before this has been written.
    Flush(SyncSender<()>),
}

#[derive(Debug)]
struct Shared {
    level: AtomicU8,
    dropped: AtomicU64,
    queue: SyncSender<Message>,
}

/// The handle that the main thread controls the log with.
#[derive(Clone, Debug)]
pub struct Log(Arc<Shared>);

impl Log {
    /// Makes a log and starts its writer; no file until [`Log::set_directory`].
    pub fn start(level: Level, stderr: Option<Style>) -> io::Result<Log> {
        let (log, lines) = Log::unstarted(level);
        thread::Builder::new()
            .name("log".into())
            .stack_size(256 << 10)
            .spawn(move || writer::run(&lines, stderr))?;
        Ok(log)
    }

    fn unstarted(level: Level) -> (Log, Receiver<Message>) {
        let (queue, lines) = sync_channel(QUEUE);
        let shared = Shared { level: (level as u8).into(), dropped: 0.into(), queue };
        (Log(Arc::new(shared)), lines)
    }

    /// Makes this the log of the whole process. The first call wins.
    pub fn install(&self) {
        let _ = tracing::subscriber::set_global_default(self.clone());
    }

    /// How much is logged.
    pub fn level(&self) -> Level {
        Level::from_number(self.0.level.load(Ordering::Relaxed).into())
    }

    /// Changes how much is logged.
    pub fn set_level(&self, level: Level) {
        self.0.level.store(level as u8, Ordering::Relaxed);
        tracing::callsite::rebuild_interest_cache();
    }

    /// Logs to `directory`/[`FILE`] from now on. A directory that does not
    /// exist is made; one that cannot be used is reported on stderr and tried again later.
    pub fn set_directory(&self, directory: PathBuf) {
        self.tell(Message::Directory(directory));
    }

    /// Reopens the file, after logrotate has moved it.
    pub fn reopen(&self) {
        self.tell(Message::Reopen);
    }

    /// Waits until all lines so far are written, but not longer than `limit`.
    pub fn flush(&self, limit: Duration) {
        let (done, wait) = sync_channel(1);
        let _ = self.0.queue.try_send(Message::Flush(done));
        let _ = wait.recv_timeout(limit);
    }

    /// Control messages may find the queue full, too: then the writer hangs, and there is nothing
    /// to reopen.
    fn tell(&self, message: Message) {
        if self.0.queue.try_send(message).is_err() {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn put(&self, line: Line) {
        let shared = &self.0;
        let dropped = shared.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let text =
                format!("{dropped} messages were lost: the log could not be written in time");
            let note = Line { level: Level::Warning, text, ..line.clone() };
            if shared.queue.try_send(Message::Line(note)).is_err() {
                shared.dropped.fetch_add(dropped, Ordering::Relaxed);
            }
        }
        self.tell(Message::Line(line));
    }
}

impl Subscriber for Log {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        level_of(metadata) as u8 <= self.0.level.load(Ordering::Relaxed)
            && !(is_foreign(metadata.target()) && level_of(metadata) > Level::Warning)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level().filter())
    }

    fn event(&self, event: &Event<'_>) {
        self.put(Line::new(SystemTime::now(), level_of(event.metadata()), event));
    }

    // Spans carry nothing here: a line names its device itself.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Libraries whose own steps are of no interest when a device is debugged.
fn is_foreign(target: &str) -> bool {
    ["zbus", "zruntime"].iter().any(|library| target.starts_with(library))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tracing` keeps one maximum level for the process: tests that log take turns.
    pub(super) fn with_default<T>(log: Log, f: impl FnOnce() -> T) -> T {
        static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
        tracing::subscriber::with_default(log, f)
    }

    fn lines(log: &Receiver<Message>) -> Vec<String> {
        log.try_iter()
            .filter_map(|m| match m {
                Message::Line(line) => Some(format!("{}: {}", line.level.label(), line.text)),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_level_lets_itself_and_more_severe_ones_through() {
        let (log, queue) = Log::unstarted(Level::Warning);
        with_default(log.clone(), || {
            crit!("a");
            tracing::error!("b");
            tracing::warn!("c");
            tracing::info!("d");
            assert_eq!(lines(&queue), ["CRIT: a", "ERROR: b", "WARN: c"]);
            log.set_level(Level::Crit);
            crit!("e");
            tracing::error!("f");
            assert_eq!(lines(&queue), ["CRIT: e"]);
            log.set_level(Level::DebugScsiCmd);
            tracing::trace!("g");
            assert_eq!(lines(&queue), ["DEBUG_SCSI_CMD: g"]);
        });
    }

    #[test]
    fn a_full_queue_drops_lines_and_says_how_many() {
        let (log, queue) = Log::unstarted(Level::Info);
        with_default(log, || {
            for n in 0..QUEUE + 5 {
                tracing::info!("{n}");
            }
            assert_eq!(lines(&queue).len(), QUEUE);
            tracing::info!("after");
            let after = lines(&queue);
            assert!(after[0].starts_with("WARN: 5 messages were lost"), "{after:?}");
            assert_eq!(after[1], "INFO: after");
        });
    }

    #[test]
    fn fields_follow_the_message_and_line_ends_are_escaped() {
        let (log, queue) = Log::unstarted(Level::Info);
        with_default(log, || tracing::info!(device = "user_0/a", size = 4096, "resized\nCRIT: no"));
        assert_eq!(lines(&queue), ["INFO: resized\\nCRIT: no, device=user_0/a, size=4096"]);
    }

    #[test]
    fn every_level_has_its_number() {
        for n in 0..6 {
            assert_eq!(Level::from_number(n.into()) as u8, n);
        }
    }
}
