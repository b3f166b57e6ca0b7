// SPDX-License-Identifier: Apache-2.0
//! The program as scripts call it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::path::Path;
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

/// Compiles a plugin of `tcmu-plugin`'s tests.
fn compile(source: &str, arguments: &[&str], library: &Path) {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tcmu-plugin/tests/plugins");
    let mut cc = Command::new("cc");
    cc.args(["-std=gnu11", "-O1", "-fPIC", "-shared", "-pthread", "-I"]);
    cc.arg(sources.join("../../../libtcmu/include")).args(arguments);
    let status = cc.arg("-o").arg(library).arg(sources.join(source)).status();
    assert!(status.expect("install gcc and libc6-dev: this test compiles plugins").success());
}

#[test]
fn check_tells_of_plugins_even_of_those_that_crash() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    compile("handler_right.c", &[], &file("handler_right.so"));
    compile("handler_right.c", &[], &file("handler_same.so"));
    compile("refused.c", &["-DCASE=15"], &file("handler_crash.so"));
    std::fs::write(file("handler_text.so"), "no library").unwrap();
    let check = run(&["--handler-path", dir.path().to_str().unwrap(), "check"]);
    let text = String::from_utf8_lossy(&check.stdout);
    for line in [
        format!("note  plugins: 4 in {}", dir.path().display()),
        "      handler_right.so: psync; pasync; pcmd; ppass; plock; pread".into(),
    ] {
        assert!(text.lines().any(|other| other == line), "{line:?} is missing in {text}");
    }
    for part in [
        "handler_same.so: psync is not used: handler_right.so",
        "handler_text.so: it is not used: it does not load",
        "handler_crash.so: it is not used: its process ",
        " has ended (signal: 6 (SIGABRT)",
    ] {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
}

#[test]
fn check_says_that_there_are_no_plugins_where_there_are_none() {
    let check = run(&["--handler-path", "/no/such/directory", "check"]);
    let text = String::from_utf8_lossy(&check.stdout);
    assert!(text.contains("note  plugins: none: /no/such/directory: No such file"), "{text}");
}
