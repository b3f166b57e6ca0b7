// SPDX-License-Identifier: Apache-2.0
//! The program as scripts call it.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tcmu-runner")).args(args).output().unwrap()
}

#[test]
fn version_and_help_succeed_and_go_to_stdout() {
    let version = run(&["-V"]);
    assert!(version.status.success());
    let expected = format!("tcmu-runner {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&version.stdout), expected);
    let help = run(&["--help"]);
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("--tcmu-log-dir"));
}

#[test]
fn a_wrong_option_fails_with_1_and_says_which() {
    let bad = run(&["--bogus"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&bad.stderr).contains("--bogus"));
}

#[test]
fn check_reports_on_every_subject_and_agrees_with_its_status() {
    let check = run(&["check"]);
    let text = String::from_utf8_lossy(&check.stdout);
    for subject in ["user:", "kernel module:", "configfs:", "D-Bus policy:", "handlers: file"] {
        assert!(text.contains(subject), "{subject} is missing in {text}");
    }
    let faults = text.lines().filter(|line| line.starts_with("BAD")).count();
    assert_eq!(check.status.code(), Some(i32::from(faults > 0)), "{text}");
    assert_eq!(text.lines().filter(|line| line.trim_start().starts_with("->")).count(), faults);
}
