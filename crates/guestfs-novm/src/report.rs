//! Where errors go: to standard error, which libguestfs takes for the console of its appliance and
//! throws away unless it is verbose; so the one that ends a launch goes to the client's own, too.

use crate::error::Error;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Write};
use std::sync::OnceLock;

static CLIENT: OnceLock<File> = OnceLock::new();

/// From here on the process that started this one hears of errors, if what it has for standard error
/// can be opened again (a socket cannot).
pub(crate) fn to_parent_too() {
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    // Not waiting for whoever should read a pipe or look at a terminal.
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(format!("/proc/{parent}/fd/2"), flags, Mode::empty()) {
        CLIENT.set(file.into()).ok();
    }
}

/// Says it.
pub(crate) fn report(error: &Error) {
    let line = format!("guestfs-novm: {error}\n");
    io::stderr().write_all(line.as_bytes()).ok();
    if let Some(mut client) = CLIENT.get() {
        client.write_all(line.as_bytes()).ok();
    }
}
