// SPDX-License-Identifier: Apache-2.0
//! A report for Prometheus (text exposition format 0.0.4).
use std::fmt::Write;

use super::report::{Counts, Device, Owner, Report, State};

/// A metric of each device: its name, its type, what it is, and its values, each with labels beside
/// that of the device.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    values: fn(&Device) -> Vec<(String, u64)>,
}

const METRICS: &[Metric] = &[
    Metric {
        name: "device_state",
        kind: "gauge",
        help: "1 for the state that the device is in.",
        values: |device| {
            let is = |state| u64::from(device.facts.state == state);
            State::ALL.map(|state| (label("state", state.name()), is(state))).to_vec()
        },
    },
    Metric {
        name: "device_size_bytes",
        kind: "gauge",
        help: "Capacity of the device.",
        values: |device| device.facts.size.map(|size| (String::new(), size)).into_iter().collect(),
    },
    Metric {
        name: "commands_total",
        kind: "counter",
        help: "SCSI commands that were answered.",
        values: |device| vec![(String::new(), device.commands.done)],
    },
    Metric {
        name: "commands_failed_total",
        kind: "counter",
        help: "SCSI commands that failed, for whatever reason, or were aborted.",
        values: |device| vec![(String::new(), device.commands.failed)],
    },
    Metric {
        name: "commands_timed_out_total",
        kind: "counter",
        help: "SCSI commands that took longer than tcmur_cmd_time_out.",
        values: |device| vec![(String::new(), device.facts.timed_out)],
    },
    Metric {
        name: "commands_under_way",
        kind: "gauge",
        help: "SCSI commands that wait for the storage.",
        values: |device| vec![(String::new(), device.commands.under_way)],
    },
    Metric {
        name: "operations_total",
        kind: "counter",
        help: "Operations of the disk that succeeded.",
        values: |device| of_operations(device, |counts| counts.count),
    },
    Metric {
        name: "operation_bytes_total",
        kind: "counter",
        help: "Bytes that operations of the disk concerned.",
        values: |device| of_operations(device, |counts| counts.bytes),
    },
    Metric {
        name: "errors_total",
        kind: "counter",
        help: "Operations of the disk that failed.",
        values: |device| {
            let errors = device.errors.iter();
            errors.map(|(class, &count)| (label("class", class), count)).collect()
        },
    },
    Metric {
        name: "lock_held",
        kind: "gauge",
        help: "1 while this host has the exclusive lock of the device's storage.",
        values: |device| {
            let held = device.lock.map(|lock| u64::from(lock.owner == Owner::Us));
            held.map(|held| (String::new(), held)).into_iter().collect()
        },
    },
    Metric {
        name: "lock_losses_total",
        kind: "counter",
        help: "How often the exclusive lock was taken away from this host.",
        values: |device| {
            let losses = device.lock.map(|lock| (String::new(), lock.losses.into()));
            losses.into_iter().collect()
        },
    },
];

fn of_operations(device: &Device, value: fn(&Counts) -> u64) -> Vec<(String, u64)> {
    let operations = device.operations.iter();
    operations.map(|(kind, counts)| (label("operation", kind), value(counts))).collect()
}

/// The text.
pub(super) fn render(report: &Report) -> String {
    let mut text = String::new();
    let head = |text: &mut String, name: &str, kind: &str, help: &str| {
        let _ = writeln!(text, "# HELP tcmu_runner_{name} {help}");
        let _ = writeln!(text, "# TYPE tcmu_runner_{name} {kind}");
    };
    head(&mut text, "info", "gauge", "The version of the daemon.");
    let _ = writeln!(text, "tcmu_runner_info{{{}}} 1", label("version", &report.version));
    head(&mut text, "uptime_seconds", "gauge", "Since the daemon has started.");
    let _ = writeln!(text, "tcmu_runner_uptime_seconds {}", report.uptime);
    for metric in METRICS {
        head(&mut text, metric.name, metric.kind, metric.help);
        for device in &report.devices {
            for (labels, value) in (metric.values)(device) {
                let labels = labels_of(device, &labels);
                let _ = writeln!(text, "tcmu_runner_{}{{{labels}}} {value}", metric.name);
            }
        }
    }
    let help = "How long operations of the disk that succeeded have waited.";
    head(&mut text, "wait_seconds", "histogram", help);
    for device in &report.devices {
        for (kind, counts) in &device.operations {
            waits(&mut text, &labels_of(device, &label("operation", kind)), counts);
        }
    }
    text
}

/// A histogram of which those that did not wait are in the first bucket.
fn waits(text: &mut String, labels: &str, counts: &Counts) {
    let mut sum = counts.immediate;
    let ends = counts.waits.iter().zip(0..).take(counts.waits.len().saturating_sub(1));
    for (waits, n) in ends {
        sum += waits;
        let end = seconds(1 << n);
        let _ = writeln!(text, "tcmu_runner_wait_seconds_bucket{{{labels},le=\"{end}\"}} {sum}");
    }
    let all = counts.immediate + counts.waits.iter().sum::<u64>();
    let _ = writeln!(text, "tcmu_runner_wait_seconds_bucket{{{labels},le=\"+Inf\"}} {all}");
    let _ =
        writeln!(text, "tcmu_runner_wait_seconds_sum{{{labels}}} {}", seconds(counts.waited_us));
    let _ = writeln!(text, "tcmu_runner_wait_seconds_count{{{labels}}} {all}");
}

/// Microseconds as seconds.
fn seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

fn labels_of(device: &Device, more: &str) -> String {
    let name = label("device", &device.facts.name);
    if more.is_empty() { name } else { format!("{name},{more}") }
}

fn label(name: &str, value: &str) -> String {
    let mut text = format!("{name}=\"");
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_of_the_format_and_each_device_has_its_own() {
        let text = render(&crate::status::report::sample());
        let has = |line: &str| assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        has("# TYPE tcmu_runner_commands_total counter");
        has(r#"tcmu_runner_commands_total{device="user_0/a"} 9"#);
        has(r#"tcmu_runner_device_state{device="user_0/b",state="absent"} 1"#);
        has(r#"tcmu_runner_errors_total{device="user_0/a",class="media"} 7"#);
        has(r#"tcmu_runner_lock_held{device="user_0/a"} 0"#);
        let wait = r#"device="user_0/a",operation="write""#;
        has(&format!("tcmu_runner_wait_seconds_bucket{{{wait},le=\"0.000064\"}} 1"));
        has(&format!("tcmu_runner_wait_seconds_bucket{{{wait},le=\"0.000128\"}} 2"));
        has(&format!("tcmu_runner_wait_seconds_bucket{{{wait},le=\"+Inf\"}} 3"));
        has(&format!("tcmu_runner_wait_seconds_sum{{{wait}}} 0.002100"));
        has(&format!("tcmu_runner_wait_seconds_count{{{wait}}} 3"));
        assert!(!text.contains("lock_held{device=\"user_0/b\""), "it has none");
        assert!(!text.contains("srv"), "configuration strings are root's");
    }

    #[test]
    fn a_label_may_be_any_text() {
        assert_eq!(label("a", "x\"\\\ny"), r#"a="x\"\\\ny""#);
    }

    #[test]
    fn microseconds_are_decimal_seconds() {
        assert_eq!([seconds(1), seconds(1_048_576)], ["0.000001", "1.048576"]);
    }
}
