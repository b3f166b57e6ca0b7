// SPDX-License-Identifier: Apache-2.0
//! The table: medians of all sessions, ratios, and what is reached.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::client::Took;
use super::disk::Inputs;
use super::rows::{CHECKSUMS, LAUNCH, PING, ROWS, Row, Target};
use crate::bench::{median, sections};
use crate::run;

/// The launch is to take at most so many milliseconds.
const LAUNCH_MS: f64 = 40.0;
/// Peak resident memory is to be at most so many MB.
const MEMORY_MB: f64 = 12.0;
/// What bounds the launch.
const LAUNCH_BOUND: &str = "";
/// What bounds the memory.
const MEMORY_BOUND: &str = "";

/// What all sessions with one daemon took.
#[derive(Default)]
pub(crate) struct Sessions {
    rows: HashMap<String, Vec<Took>>,
    memory: Vec<u64>,
}

/// Medians of a call, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Each {
    wall: f64,
    client: f64,
    daemon: f64,
}

impl Sessions {
    /// Adds a session; its memory counts if it made all the calls.
    pub(crate) fn add(&mut self, output: &str, whole: bool) -> Result<()> {
        let (rows, memory) = super::parse(output)?;
        for (name, took) in rows {
            self.rows.entry(name).or_default().push(took);
        }
        if whole {
            self.memory.push(memory);
        }
        Ok(())
    }

    fn each(&self, name: &str) -> Option<Each> {
        let all = self.rows.get(name)?;
        let of = |time: fn(&Took) -> Duration| {
            median(all.iter().map(|t| time(t).as_secs_f64() / f64::from(t.calls)).collect())
        };
        Some(Each { wall: of(|t| t.wall), client: of(|t| t.client), daemon: of(|t| t.daemon) })
    }

    fn memory_mb(&self) -> Option<f64> {
        let all: Vec<f64> = self.memory.iter().map(|&kib| kib as f64 * 1024.0 / 1e6).collect();
        (!all.is_empty()).then(|| median(all))
    }
}

/// The section of BENCHMARKS.md.
pub(crate) fn text(stock: &Sessions, ours: &Sessions, dir: &Path) -> Result<String> {
    let inputs = Inputs::of(dir)?;
    let ping = ours.each(PING);
    let mut text = about()?;
    text += "\n| call | stock | ours | times | daemon CPU, stock | ours | share | client CPU, stock | ours | target | |\n";
    text += "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
    let mut short = String::new();
    let launch = (LAUNCH, Target::Milliseconds(LAUNCH_MS), LAUNCH_BOUND, None);
    let rows = ROWS.iter().map(|row: &Row| (row.name, row.target, row.bound, row.bytes));
    for (name, target, bound, bytes) in std::iter::once(launch).chain(rows) {
        let (Some(s), Some(o)) = (stock.each(name), ours.each(name)) else { continue };
        let reached = target.reached(s, o, ping);
        let rate = |each: Each| match bytes {
            Some(bytes) => format!("{:.0} MB/s", bytes(&inputs) as f64 / each.wall / 1e6),
            None => seconds(each.wall),
        };
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {:.1} | {} | {} | {:.0} % | {} | {} | {} | {} |",
            rate(s),
            rate(o),
            s.wall / o.wall,
            seconds(s.daemon),
            seconds(o.daemon),
            100.0 * o.daemon / s.daemon,
            seconds(s.client),
            seconds(o.client),
            target.words(),
            verdict(reached),
        );
        if reached == Some(false) {
            short += &sections::wrap(&format!("- {name}: {}", or_unknown(bound)));
            short.push('\n');
        }
    }
    if let (Some(s), Some(o)) = (stock.memory_mb(), ours.memory_mb()) {
        let good = o < MEMORY_MB;
        let _ = writeln!(
            text,
            "\nPeak resident memory of the daemon: stock {s:.1} MB, ours {o:.1} MB; target: under \
             {MEMORY_MB:.0} MB, {}.",
            verdict(Some(good))
        );
        if !good {
            short += &format!("- resident memory: {}\n", or_unknown(MEMORY_BOUND));
        }
    }
    if !short.is_empty() {
        let _ = write!(text, "\nWhat bounds the rows that fall short:\n\n{short}");
    }
    Ok(text)
}

fn or_unknown(bound: &str) -> &str {
    if bound.is_empty() { "not known: it reached its target when it was looked at" } else { bound }
}

pub(super) fn verdict(reached: Option<bool>) -> &'static str {
    match reached {
        Some(true) => "reached",
        Some(false) => "**short**",
        None => "",
    }
}

impl Target {
    /// Whether it is reached, if there is something to reach.
    fn reached(self, stock: Each, ours: Each, ping: Option<Each>) -> Option<bool> {
        let half = ours.daemon <= stock.daemon / 2.0;
        let times = |n: f64| ours.wall * n <= stock.wall;
        Some(match self {
            Target::None => return None,
            Target::Milliseconds(limit) => ours.wall * 1e3 < limit,
            Target::Pings(n) => ours.wall <= n * ping?.wall,
            Target::Times(n) => times(n),
            Target::TimesAtHalf(n) => times(n) && half,
            Target::ClientsAtHalf(n) => ours.wall <= n * ours.client && half,
            Target::Sha256(n) => times(if has_sha256() { n } else { CHECKSUMS }),
        })
    }

    fn words(self) -> String {
        match self {
            Target::None => String::new(),
            Target::Milliseconds(limit) => format!("under {limit} ms"),
            Target::Pings(n) => format!("at most {n} times `{PING}`"),
            Target::Times(n) => format!("{n} times"),
            Target::TimesAtHalf(n) => format!("{n} times, half of the CPU"),
            Target::ClientsAtHalf(n) => {
                format!("at most {n} times the client's CPU, half of the daemon's")
            }
            Target::Sha256(n) => Target::Times(if has_sha256() { n } else { CHECKSUMS }).words(),
        }
    }
}

/// Whether the CPU has instructions for SHA-256.
fn has_sha256() -> bool {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.split_whitespace().any(|flag| matches!(flag, "sha_ni" | "sha2"))
}

pub(super) fn seconds(s: f64) -> String {
    match s {
        s if s < 1e-3 => format!("{:.1} us", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// With what it was measured, and what the columns are.
fn about() -> Result<String> {
    let package = |name: &str| {
        let mut query = run::command("dpkg-query");
        let version = run::output(query.args(["-W", "-f", "${Version}", name]));
        version.unwrap_or_else(|_| "unknown".into())
    };
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut text = String::from("## guestfsd\n\nMeasured with `cargo xtask bench guestfs`:\n\n");
    for (what, version) in [
        ("kernel", kernel),
        ("libguestfs.so.0", package("libguestfs0")),
        ("stock", format!("guestfsd {}", package("guestfsd"))),
        ("ours, commit", sections::commit()),
        ("processor", sections::processor()),
    ] {
        let _ = writeln!(text, "- {what}: {version}");
    }
    text.push('\n');
    text += &sections::wrap(
        "Both daemons under guestfs-novm, with no VM; the same disk, whose image is in memory; \
         sessions alternate; medians of all sessions, for one call. The daemon's CPU time is that of \
         its threads and of the programs that it ran. The client is libguestfs itself, called from C's \
         side with nothing in between; its CPU time bounds how fast any daemon's calls can be.",
    );
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Each = Each { wall: 3e-3, client: 1e-4, daemon: 2e-3 };
    const FAST: Each = Each { wall: 1e-4, client: 9e-5, daemon: 1e-4 };

    #[test]
    fn a_target_is_reached_or_not() {
        for (target, reached) in [
            (Target::None, None),
            (Target::Milliseconds(0.2), Some(true)),
            (Target::Milliseconds(0.1), Some(false)),
            (Target::Pings(1.0), Some(true)),
            (Target::Pings(0.9), Some(false)),
            (Target::Times(29.0), Some(true)),
            (Target::Times(31.0), Some(false)),
            (Target::TimesAtHalf(2.0), Some(true)),
            (Target::ClientsAtHalf(1.2), Some(true)),
            (Target::ClientsAtHalf(1.1), Some(false)),
        ] {
            assert_eq!(target.reached(SLOW, FAST, Some(FAST)), reached, "{target:?}");
        }
        let busy = Each { daemon: 1.9e-3, ..FAST };
        assert_eq!(Target::TimesAtHalf(2.0).reached(SLOW, busy, None), Some(false));
        assert_eq!(Target::Pings(1.0).reached(SLOW, FAST, None), None);
    }

    #[test]
    fn figures_have_the_unit_that_fits() {
        let all = [5e-5, 0.0123, 2.0].map(seconds);
        assert_eq!(all, ["50.0 us", "12.30 ms", "2.00 s"]);
    }
}
