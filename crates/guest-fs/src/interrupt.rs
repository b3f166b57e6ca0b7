// SPDX-License-Identifier: Apache-2.0
//! A request to end, which work that takes long looks at between its steps.
//!
//! It concerns the whole process and is never taken back: whoever installs signal handlers makes it.

use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Whether the process has been told to end.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// Tells it to. May be called by a signal handler.
pub fn request() {
    REQUESTED.store(true, Ordering::Relaxed);
}
