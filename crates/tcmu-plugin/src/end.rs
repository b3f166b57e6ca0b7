// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to call atexit(3) and _exit(2).
//!
//! The end of a program that has loaded plugins. It is the program's own to choose: a plugin that
//! calls exit(3) is named, and its destructors, which may hang, are not run.
#![allow(unsafe_code)]

use std::path::Path;
use std::sync::OnceLock;

use crate::loader;

/// What is done when a plugin ends the program: it is told of the one that is being loaded, if any.
type Report = Box<dyn Fn(Option<&Path>) + Send + Sync>;

static REPORT: OnceLock<Report> = OnceLock::new();

/// Calls `report` if anything in this process calls exit(3); the process fails then. Where the
/// program ends by [`end`], that is a plugin: the one that is being loaded, if there is one. The
/// first call counts.
pub fn watch_exit(report: Report) {
    if REPORT.set(report).is_ok() {
        // SAFETY: the function is there for as long as the program is. That it cannot be registered
        // changes what is told, no more.
        unsafe { libc::atexit(exiting) };
    }
}

extern "C" fn exiting() {
    if let Some(report) = REPORT.get() {
        report(loader::being_loaded().as_deref());
    }
    end(libc::EXIT_FAILURE);
}

/// Ends the process with this status, without the destructors of libraries. What is buffered is not
/// written.
pub fn end(status: i32) -> ! {
    // SAFETY: it only ends the process.
    unsafe { libc::_exit(status) }
}
