// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to call libc's functions for the time and for syslog(3).
//!
//! The program's log: lines of its own (`tcmu_err_message` and the like) and of ours (`tracing`). They
//! go to stderr until it asks for a file (`tcmu_setup_log`); then to the file, and what is odd or worse
//! to the system's log.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr, c_char, c_int};
use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tcmu_abi::Device;
use tcmu_abi::log::{self, Level, Sink};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

/// The log file's name.
const FILE: &str = "tcmu-runner.log";
/// Its directory when nobody says otherwise.
const DIRECTORY: &str = "/var/log";
/// Bytes of a time with its NUL.
pub(crate) const TIME_LEN: usize = 24;

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
/// How often the directory has changed.
static MOVES: AtomicU32 = AtomicU32::new(0);
static OUTPUT: Mutex<Output> = Mutex::new(Output { directory: None, file: None });

struct Output {
    directory: Option<PathBuf>,
    file: Option<File>,
}

fn output() -> MutexGuard<'static, Output> {
    OUTPUT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A path of C's; `None` for a null pointer.
///
/// # Safety
/// It ends with a NUL.
pub(crate) unsafe fn path(path: *const c_char) -> Option<PathBuf> {
    // SAFETY: as the caller promises.
    let bytes = || unsafe { CStr::from_ptr(path) }.to_bytes();
    (!path.is_null()).then(|| OsStr::from_bytes(bytes()).into())
}

/// Logs to the file in a directory from now on; 0 or a negative errno, and then as before.
pub(crate) fn open(directory: Option<PathBuf>) -> c_int {
    let directory = directory.unwrap_or_else(|| DIRECTORY.into());
    let path = directory.join(FILE);
    match OpenOptions::new().create(true).append(true).open(&path) {
        Ok(file) => {
            let mut output = output();
            if output.directory.as_ref().is_some_and(|old| *old != directory) {
                MOVES.fetch_add(1, Ordering::Relaxed);
            }
            *output = Output { directory: Some(directory), file: Some(file) };
            0
        }
        Err(error) => {
            tracing::error!("{}: {error}", path.display());
            -error.raw_os_error().unwrap_or(libc::EIO)
        }
    }
}

/// How often the directory has changed.
pub(crate) fn moves() -> u32 {
    MOVES.load(Ordering::Relaxed)
}

/// Logs to stderr from now on.
pub(crate) fn close() {
    output().file = None;
}

/// The local time, as a line begins: `2026-11-29 14:28:00.123`.
pub(crate) fn time() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = libc::time_t::try_from(since.as_secs()).unwrap_or(0);
    // SAFETY: `tm` is plain data, for which all zeroes is a value.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut tm) };
    let (year, month, day) = (tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday);
    let (hour, minute, second, ms) = (tm.tm_hour, tm.tm_min, tm.tm_sec, since.subsec_millis());
    let mut text =
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{ms:03}");
    text.truncate(TIME_LEN - 1);
    text
}

/// Where C's lines go.
struct Program;

impl Sink for Program {
    fn level(&self) -> Level {
        Level::from_number(LEVEL.load(Ordering::Relaxed).into())
    }

    fn set_level(&self, level: Level) {
        LEVEL.store(level as u8, Ordering::Relaxed);
    }

    fn directory(&self) -> PathBuf {
        output().directory.clone().unwrap_or_else(|| DIRECTORY.into())
    }

    fn log(&self, level: Level, device: Option<&Device>, function: &str, line: i32, text: &str) {
        let mut said = format!("{function}:{line}");
        if let Some(device) = device {
            let _ = write!(said, " {}", device.uio_name().to_string_lossy());
        }
        said.push_str(": ");
        // What an initiator sends must not forge lines.
        for c in text.chars() {
            if c.is_control() { said.extend(c.escape_default()) } else { said.push(c) }
        }
        let label = level.label();
        let whole = format!("{} {} [{label}] {said}\n", time(), std::process::id());
        let mut output = output();
        // There is nowhere to complain about a log that cannot be written.
        let _ = match &mut output.file {
            Some(file) => file.write_all(whole.as_bytes()),
            None => std::io::stderr().write_all(whole.as_bytes()),
        };
        let to_system = output.file.is_some() && level <= Level::Warning;
        drop(output);
        if let (true, Ok(said)) = (to_system, CString::new(said)) {
            let priority = c_int::try_from(level.priority()).unwrap_or(libc::LOG_ERR);
            // SAFETY: the format takes one string.
            unsafe { libc::syslog(priority | libc::LOG_USER, c"%s".as_ptr(), said.as_ptr()) };
        }
    }
}

/// Our own lines among the program's.
struct Bridge;

impl Subscriber for Bridge {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && !["zbus", "zruntime"].iter().any(|library| metadata.target().starts_with(library))
            && log::wanted(level(metadata))
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut text = Text::default();
        event.record(&mut text);
        let module = metadata.module_path().unwrap_or_default();
        let place = module.rsplit("::").next().unwrap_or(module);
        let line = metadata.line().and_then(|line| i32::try_from(line).ok());
        log::log(level(metadata), None, place, line.unwrap_or(0), &text.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn level(metadata: &Metadata<'_>) -> Level {
    match *metadata.level() {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warning,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::TRACE => Level::DebugScsiCmd,
    }
}

/// An event's message and fields.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, ", {name}={value:?}"),
        };
    }
}

/// Before the program's first line: it may log before it calls anything else.
extern "C" fn begin() {
    // Neither fails: nothing else in this library installs one.
    let _ = log::install(Box::new(Program));
    let _ = tracing::subscriber::set_global_default(Bridge);
}

#[used]
// SAFETY: the loader calls the functions of this section, which take no arguments that they look at.
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_to_the_file_up_to_the_level_and_cannot_be_forged() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(open(Some(dir.path().join("none"))), -libc::ENOENT);
        assert_eq!(open(Some(dir.path().into())), 0);
        log::log(Level::Error, None, "here", 7, "a\nb");
        log::log(Level::Debug, None, "here", 8, "too much");
        tracing::info!(n = 5, "of ours");
        close();
        log::log(Level::Error, None, "here", 9, "to stderr");
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        let lines: Vec<&str> =
            text.lines().filter_map(|line| line.split_once("] ")).map(|l| l.1).collect();
        assert_eq!(lines[0], "here:7: a\\nb", "{text}");
        assert!(lines[1].starts_with("tests:") && lines[1].ends_with(": of ours, n=5"), "{text}");
        assert_eq!(lines.len(), 2, "{text}");
    }

    #[test]
    fn a_time_has_the_length_that_c_makes_room_for() {
        assert_eq!(time().len(), TIME_LEN - 1);
    }
}
