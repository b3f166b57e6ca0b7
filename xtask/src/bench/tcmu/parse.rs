// SPDX-License-Identifier: Apache-2.0
//! What the guest measured, as numbers.

use std::path::Path;

use anyhow::{Context, Result};

use crate::bench::median;

/// The jobs of fio, in the order in which they run: what, block size, queue depth.
pub(crate) const JOBS: [(&str, &str, u32); 12] = [
    ("randread", "4k", 1),
    ("randwrite", "4k", 1),
    ("read", "4k", 1),
    ("randread", "64k", 1),
    ("randwrite", "64k", 1),
    ("read", "64k", 1),
    ("randread", "4k", 32),
    ("randwrite", "4k", 32),
    ("read", "4k", 32),
    ("randread", "64k", 32),
    ("randwrite", "64k", 32),
    ("read", "64k", 32),
];

/// One job of fio on one daemon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Job {
    pub(crate) iops: f64,
    /// The daemon's CPU time for each I/O, in microseconds.
    pub(crate) cpu_us: f64,
}

/// All that one run of the guest measured.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// In the order of [`JOBS`].
    pub(crate) jobs: Vec<Job>,
    /// From the start to the first answer, in microseconds; the median of three.
    pub(crate) ready_us: f64,
    /// Resident memory without the shared data area, in KiB, by number of devices.
    pub(crate) memory: Vec<(u32, u64)>,
    pub(crate) about: About,
}

/// What the guest says of itself: kernel, fio, daemons.
#[derive(Clone, Debug, Default)]
pub(crate) struct About(Vec<(String, String)>);

/// What the jobs met: the disk, the image and its pages. A line each, a name and a number.
pub(crate) fn met(share: &Path) -> Result<Vec<(String, String)>> {
    let text = text(share, "met")?;
    let pairs = text.lines().filter_map(|line| line.split_once(": "));
    Ok(pairs.map(|(what, number)| (what.to_owned(), number.to_owned())).collect())
}

impl About {
    /// Reads the file of that name in what the guest left: a line each, a name and a version.
    pub(crate) fn read(share: &Path) -> Result<About> {
        let text = text(share, "about")?;
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        Ok(About(pairs.map(|(what, version)| (what.to_owned(), version.to_owned())).collect()))
    }

    /// The version of `what`.
    pub(crate) fn fact(&self, what: &str) -> &str {
        let found = self.0.iter().find(|(name, _)| name == what);
        found.map_or("unknown", |(_, version)| version.as_str())
    }
}

/// Reads the files that the guest left in its share.
pub(crate) fn measured(share: &Path, many: &[u32]) -> Result<Measured> {
    let text = |name: &str| text(share, name);
    let mut memory = Vec::new();
    for &devices in many {
        memory.push((devices, resident(&text(&format!("smaps-{devices}"))?)));
    }
    let ready_us = median_line(&text("ready")?).context("ready holds no numbers")?;
    Ok(Measured { jobs: jobs(share)?, ready_us, memory, about: About::read(share)? })
}

/// What fio and the daemon's cgroup say of each of [`JOBS`].
pub(crate) fn jobs(share: &Path) -> Result<Vec<Job>> {
    each_job(share, JOBS.iter().map(|(rw, bs, qd)| format!("{rw}-{bs}-{qd}")))
}

/// The same of jobs by name.
pub(crate) fn each_job(share: &Path, names: impl Iterator<Item = String>) -> Result<Vec<Job>> {
    names
        .map(|job| {
            let fio = text(share, &format!("fio-{job}.json"))?;
            let fio = self::fio(&fio).with_context(|| format!("fio {job}"))?;
            let cpu = number(share, &format!("cpu-{job}"))?;
            Ok(Job { iops: fio.iops, cpu_us: cpu / fio.ios })
        })
        .collect()
}

/// The only number of a file that the guest left.
pub(crate) fn number(share: &Path, name: &str) -> Result<f64> {
    let text = text(share, name)?;
    text.trim().parse().with_context(|| format!("{name} is no number: {text:?}"))
}

fn text(share: &Path, name: &str) -> Result<String> {
    std::fs::read_to_string(share.join(name))
        .with_context(|| format!("the VM left no {}", share.join(name).display()))
}

/// The median of numbers, one a line; none, if there is none.
fn median_line(text: &str) -> Option<f64> {
    let numbers: Vec<f64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    (!numbers.is_empty()).then(|| median(numbers))
}

/// What fio says of its one job.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Fio {
    iops: f64,
    ios: f64,
}

/// The report of `fio --output-format=json`; warnings of fio may stand before it.
fn fio(text: &str) -> Result<Fio> {
    let start = text.find('{').context("no report")?;
    let report: serde_json::Value = serde_json::from_str(&text[start..])?;
    let job = report["jobs"].get(0).context("no job")?;
    let (mut iops, mut ios) = (0.0, 0.0);
    for direction in ["read", "write"] {
        iops += job[direction]["iops"].as_f64().context("no iops")?;
        ios += job[direction]["total_ios"].as_f64().context("no total_ios")?;
    }
    anyhow::ensure!(ios > 0.0, "no I/O was done");
    Ok(Fio { iops, ios })
}

/// Resident memory in KiB of a /proc/PID/smaps, without the mappings of UIO devices: they are the
/// kernel's shared data area.
fn resident(smaps: &str) -> u64 {
    let mut shared_area = false;
    let mut total = 0;
    for line in smaps.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if first.contains('-') && !first.ends_with(':') {
            shared_area = line.contains("/dev/uio");
        } else if first == "Rss:" && !shared_area {
            total += line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fio_reports_are_read_behind_its_warnings() {
        let text = r#"fio: something is deprecated
            {"jobs": [{"read": {"iops": 100.5, "total_ios": 201},
                       "write": {"iops": 0.0, "total_ios": 0}}]}"#;
        assert_eq!(fio(text).unwrap(), Fio { iops: 100.5, ios: 201.0 });
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median_line("300\n100\n200\n"), Some(200.0));
        assert_eq!(median_line(""), None);
    }

    #[test]
    fn a_report_without_io_is_an_error() {
        let nothing = r#"{"jobs": [{"read": {"iops": 0, "total_ios": 0},
                                    "write": {"iops": 0, "total_ios": 0}}]}"#;
        assert!(fio(nothing).is_err());
        assert!(fio("{}").is_err());
        assert!(fio("fio: failed").is_err());
    }

    #[test]
    fn the_shared_data_area_is_left_out_of_the_memory() {
        let smaps = "55d0-55d1 r--p 00000000 08:01 1 /usr/bin/tcmu-runner\n\
                     Size:                  4 kB\nRss:                   4 kB\n\
                     7f00-7f99 rw-s 00000000 00:05 2 /dev/uio0\n\
                     Rss:                8192 kB\n\
                     VmFlags: rd wr sh\n\
                     7fa0-7fa1 rw-p 00000000 00:00 0 \nRss:                  16 kB\n";
        assert_eq!(resident(smaps), 20);
    }
}
