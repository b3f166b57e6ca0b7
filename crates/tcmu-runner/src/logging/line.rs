// SPDX-License-Identifier: Apache-2.0
//! One line of the log, and the two ways to write it: for a file, and for journald.
#![allow(unsafe_code)] // localtime_r has no safe wrapper.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::Event;
use tracing::field::{Field, Visit};

use super::Level;

/// One message, where it comes from and when.
#[derive(Clone, Debug)]
pub struct Line {
    pub(super) when: SystemTime,
    pub(super) level: Level,
    /// The name of the thread: a device's, or the daemon's.
    pub(super) thread: Cow<'static, str>,
    /// The last part of the module's path, and the line.
    pub(super) place: (&'static str, u32),
    pub(super) text: String,
}

impl Line {
    pub(super) fn new(when: SystemTime, level: Level, event: &Event<'_>) -> Line {
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        let module = metadata.module_path().unwrap_or_default();
        let place = module.rsplit("::").next().unwrap_or(module);
        let thread = match std::thread::current().name() {
            Some("main") | None => Cow::Borrowed("tcmu-runner"),
            Some(name) => Cow::Owned(name.to_owned()),
        };
        let text = text.message + &text.fields;
        Line { when, level, thread, place: (place, metadata.line().unwrap_or(0)), text }
    }

    /// For journald on stderr, which knows the time and the process.
    pub(super) fn for_journal(&self) -> String {
        // The one beyond syslog's last is of C's own.
        let priority = self.level.priority().min(7);
        format!("<{priority}>{}:{}: {}\n", self.place.0, self.place.1, self.text)
    }
}

/// The form of the C daemon's log file.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_local_time(f, self.when)?;
        let pid = std::process::id();
        let (place, line) = self.place;
        writeln!(f, " {pid}:{} [{}] {place}:{line}: {}", self.thread, self.level.label(), self.text)
    }
}

fn write_local_time(f: &mut fmt::Formatter<'_>, when: SystemTime) -> fmt::Result {
    let since = when.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = libc::time_t::try_from(since.as_secs()).unwrap_or(0);
    // SAFETY: `tm` is plain data, for which all zeroes is a value.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call.
    unsafe { libc::localtime_r(&seconds, &mut tm) };
    write!(
        f,
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:03}",
        tm.tm_year + 1900,
        tm.tm_mon + 1,
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec,
        since.subsec_millis()
    )
}

/// Collects an event's message and fields, without control characters: what a guest or a client
/// sends must not forge lines.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        if field.name() == "message" {
            let _ = Escaped(&mut self.message).write_fmt(value);
        } else {
            let mut out = Escaped(&mut self.fields);
            let _ = write!(out, ", {}={value}", field.name());
        }
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{value:?}"));
    }
}

struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            if c.is_control() { self.0.extend(c.escape_default()) } else { self.0.push(c) }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn line() -> Line {
        Line {
            when: UNIX_EPOCH + Duration::from_millis(1_767_323_045_678),
            level: Level::Warning,
            thread: "user_0/a".into(),
            place: ("manager", 42),
            text: "text".into(),
        }
    }

    #[test]
    fn a_line_of_the_file_has_the_form_of_the_c_daemon() {
        let text = line().to_string();
        let rest = format!(" {}:user_0/a [WARN] manager:42: text\n", std::process::id());
        let (time, end) = text.split_at(23);
        assert_eq!(end, rest);
        // The day and hour depend on the time zone of the machine.
        assert!(time.starts_with("2026-01-0"), "{time}");
        assert!(time.ends_with(":05.678"), "{time}");
        assert_eq!(time.replace(|c: char| c.is_ascii_digit(), "0"), "0000-00-00 00:00:00.000");
    }

    #[test]
    fn a_line_for_journald_carries_its_priority_alone() {
        assert_eq!(line().for_journal(), "<4>manager:42: text\n");
    }
}
