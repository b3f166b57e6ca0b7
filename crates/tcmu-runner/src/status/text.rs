// SPDX-License-Identifier: Apache-2.0
//! A report for people.
use std::fmt::Write;

use super::report::{Counts, Device, Lock, Owner, Report, State};
use crate::terminal::line;

/// What rows begin with.
const INDENT: &str = "  ";

/// All of it, with a line end.
pub(super) fn render(report: &Report) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "tcmu-runner {}, pid {}, running for {}: {}",
        line(&report.version),
        report.pid,
        span(report.uptime),
        match report.devices.len() {
            0 => "no devices".to_owned(),
            1 => "1 device".to_owned(),
            n => format!("{n} devices"),
        }
    );
    for device in &report.devices {
        text.push('\n');
        one(&mut text, device);
    }
    text
}

fn one(text: &mut String, device: &Device) {
    let facts = &device.facts;
    let size = facts.size.map_or("size unknown".to_owned(), bytes);
    let _ = writeln!(
        text,
        "{}  {}  {size}  {}",
        line(&facts.name),
        facts.state.name(),
        line(&facts.config)
    );
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{INDENT}{name:<9} {value}");
    };
    if let Some(reason) = &facts.reason {
        row("reason", line(reason));
    }
    if facts.is_changing {
        row("change", "under way".into());
    }
    for (n, file) in device.files.iter().enumerate() {
        row(if n == 0 { "files" } else { "" }, line(file));
    }
    if let Some(lock) = &device.lock {
        row("lock", lock_text(lock));
    }
    let commands = &device.commands;
    if facts.state == State::Serving || commands.done > 0 {
        let timed_out = match facts.timed_out {
            0 => String::new(),
            n => format!(", {n} took too long"),
        };
        row(
            "commands",
            format!(
                "{} done, {} failed, {} under way{timed_out}",
                commands.done, commands.failed, commands.under_way
            ),
        );
    }
    for (kind, counts) in device.operations.iter().filter(|(_, counts)| counts.count > 0) {
        row(&line(kind), counts_text(counts));
    }
    let errors: Vec<_> = device
        .errors
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(class, count)| format!("{count} {}", line(class)))
        .collect();
    if !errors.is_empty() {
        row("errors", errors.join(", "));
    }
}

fn lock_text(lock: &Lock) -> String {
    let owner = match lock.owner {
        Owner::Us => "this host has it",
        Owner::Other => "another host has it",
        Owner::Nobody => "nobody has it",
    };
    let group = lock.group.map(|group| format!(", for target port group {group}"));
    let changing = if lock.changing { ", it is changing hands" } else { "" };
    let losses = match lock.losses {
        0 => String::new(),
        n => format!(", it was taken away {n} times"),
    };
    format!("{owner}{}{changing}{losses}", group.unwrap_or_default())
}

fn counts_text(counts: &Counts) -> String {
    let waited = counts.count.saturating_sub(counts.immediate);
    let mut text = format!("{} ({})", counts.count, bytes(counts.bytes));
    let less = |share| counts.waited_less(share).map_or("longer".to_owned(), micros);
    match waited {
        0 => text.push_str(", none waited"),
        n => {
            let _ = write!(
                text,
                ", {n} waited: half of them less than {}, 99 % less than {}",
                less(50),
                less(99)
            );
        }
    }
    text
}

/// A number of bytes in the largest unit of which there is at least one.
fn bytes(n: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(bits, _)| n >> bits > 0);
    match unit {
        Some((bits, name)) => {
            // In hundredths, of which the last one is cut off.
            let hundredths = (u128::from(n) * 100) >> bits;
            format!("{}.{:02} {name}", hundredths / 100, hundredths % 100)
        }
        None => format!("{n} bytes"),
    }
}

fn micros(n: u64) -> String {
    match n {
        0..1_024 => format!("{n} µs"),
        1_024..1_048_576 => format!("{} ms", n / 1_024),
        _ => format!("{} s", n / 1_048_576),
    }
}

fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::report::sample;

    #[test]
    fn people_read_of_what_there_is_and_of_nothing_else() {
        let expected = "\
tcmu-runner 9.9, pid 7, running for 1 h 1 min: 2 devices

user_0/a  serving  1.50 GiB  qcow//srv/a.img
  files     /srv/a.img
            /srv/base.img
  lock      another host has it, for target port group 3, it was taken away 2 times
  commands  9 done, 1 failed, 2 under way, 4 took too long
  read      5 (20.00 KiB), none waited
  write     3 (512 bytes), 2 waited: half of them less than 128 µs, 99 % less than 4 ms
  errors    7 media

user_0/b  absent  size unknown  file//srv/b[2J.img
  reason    no such file
";
        assert_eq!(render(&sample()), expected);
    }

    #[test]
    fn a_number_of_bytes_is_in_its_largest_unit() {
        let texts = [(1023, "1023 bytes"), (1 << 20, "1.00 MiB"), (u64::MAX, "16777215.99 TiB")];
        for (n, text) in texts {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn a_span_has_two_units_at_most() {
        let texts = [(59, "59 s"), (60, "1 min"), (7_320, "2 h 2 min"), (90_000, "1 d 1 h")];
        for (seconds, text) in texts {
            assert_eq!(span(seconds), text);
        }
    }
}
