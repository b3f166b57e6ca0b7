// SPDX-License-Identifier: Apache-2.0
//! Journals made by systemd-journal-remote, and what journalctl says of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

use guest_fs::source::Cached;
use journal::{Error, Journal};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const REMOTE: &str = "/lib/systemd/systemd-journal-remote";

/// Entries of a boot, in the format of exports; fields are long enough to be compressed, and some have line feeds.
fn export(boot: &str, first: u64, step: u64, count: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for i in 0..count {
        let (time, clock) = (1_700_000_000_000_000 + first + i * step, first + i * step + 1);
        write!(out, "__REALTIME_TIMESTAMP={time}\n__MONOTONIC_TIMESTAMP={clock}\n").unwrap();
        write!(out, "_BOOT_ID={boot}\nMESSAGE=entry {i} of {boot}\nPRIORITY=6\n").unwrap();
        writeln!(out, "LONG={}", format!("{i} and so on ").repeat(400)).unwrap();
        let binary = format!("two lines\nof {i}\0");
        out.extend(b"BINARY\n");
        out.extend((binary.len() as u64).to_le_bytes());
        out.extend(binary.as_bytes());
        out.extend(b"\n\n");
    }
    out
}

/// A journal file of these entries.
fn made(dir: &Path, name: &str, settings: &[(&str, &str)], export: &[u8]) -> PathBuf {
    let path = dir.join(name);
    let mut output = std::ffi::OsString::from("--output=");
    output.push(&path);
    let child = Command::new(REMOTE)
        .arg(output)
        .arg("-")
        .envs(settings.iter().copied())
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.expect("systemd-journal-remote is missing: install its package");
    child.stdin.take().unwrap().write_all(export).unwrap();
    assert!(child.wait().unwrap().success(), "{name}");
    path
}

/// The entries of files: time and fields.
type Entries = Vec<(u64, Vec<Vec<u8>>)>;

fn read(files: &[PathBuf]) -> Entries {
    let mut journal = Journal::default();
    for file in files {
        journal.add(Cached::new(File::open(file).unwrap())).unwrap();
    }
    let mut entries = Vec::new();
    while journal.next().unwrap() {
        let mut fields = Vec::new();
        let read = journal.fields(|field| {
            fields.push(field.to_vec());
            Ok::<(), Error>(())
        });
        read.unwrap();
        fields.sort();
        entries.push((journal.realtime().unwrap(), fields));
    }
    // Back again, the same entries come the other way round.
    let mut times: Vec<u64> = entries.iter().map(|(time, _)| *time).collect();
    times.pop();
    while journal.previous().unwrap() {
        assert_eq!(times.pop(), Some(journal.realtime().unwrap()));
    }
    assert!(times.is_empty());
    entries
}

/// The same as journalctl says it.
fn journalctl(files: &[PathBuf]) -> Entries {
    let mut command = Command::new("journalctl");
    command.args(["--output=export", "--all"]);
    for file in files {
        command.arg("--file").arg(file);
    }
    let output = command.output().expect("journalctl is missing: install systemd");
    assert!(output.status.success());
    let mut rest = &output.stdout[..];
    let (mut entries, mut time, mut fields) = (Vec::new(), 0, Vec::new());
    while let Some(end) = rest.iter().position(|b| *b == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.is_empty() {
            fields.sort();
            entries.push((time, std::mem::take(&mut fields)));
        } else if let Some(text) = line.strip_prefix(b"__REALTIME_TIMESTAMP=") {
            time = std::str::from_utf8(text).unwrap().parse().unwrap();
        } else if line.starts_with(b"__") {
        } else if line.contains(&b'=') {
            fields.push(line.to_vec());
        } else {
            let (len, after) = rest.split_first_chunk().unwrap();
            let len = usize::try_from(u64::from_le_bytes(*len)).unwrap();
            fields.push([line, b"=", &after[..len]].concat());
            rest = &after[len + 1..];
        }
    }
    entries
}

#[test]
fn files_of_all_kinds_hold_what_journalctl_says() {
    let dir = tempfile::tempdir().unwrap();
    let entries = export("0123456789abcdef0123456789abcdef", 0, 1_000_000, 300);
    for (name, settings) in [
        ("compact.journal", &[("SYSTEMD_JOURNAL_COMPACT", "1")][..]),
        ("regular.journal", &[("SYSTEMD_JOURNAL_COMPACT", "0")]),
        ("unkeyed.journal", &[("SYSTEMD_JOURNAL_KEYED_HASH", "0")]),
    ] {
        let file = [made(dir.path(), name, settings, &entries)];
        let read = read(&file);
        assert_eq!(read.len(), 300);
        assert_eq!(read, journalctl(&file), "{name}");
    }
}

#[test]
fn entries_of_several_files_are_in_the_order_of_journalctl() {
    let dir = tempfile::tempdir().unwrap();
    let boots = ["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"];
    let one = export(boots[0], 0, 1_000_000, 40);
    let files = [
        made(dir.path(), "one.journal", &[], &one),
        made(dir.path(), "two.journal", &[], &export(boots[1], 500_000, 700_000, 40)),
        made(dir.path(), "three.journal", &[], &export(boots[0], 20_250_000, 1_000_000, 40)),
    ];
    let read = read(&files);
    assert_eq!(read.len(), 120);
    assert_eq!(read, journalctl(&files));
    let copy = dir.path().join("copy.journal");
    fs::copy(&files[0], &copy).unwrap();
    let twice = [files[0].clone(), copy];
    assert_eq!(self::read(&twice).len(), 40);
}
