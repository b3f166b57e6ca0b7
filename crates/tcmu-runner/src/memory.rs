// SPDX-License-Identifier: Apache-2.0
//! Keeps the process small: glibc gives each thread an arena of its own, up to eight per core, and
//! keeps what is freed there. Our threads allocate little and seldom, so they share two.
#![allow(unsafe_code)] // mallopt has no safe wrapper.

/// Sets the allocator up; to be called before the first thread starts.
pub fn prepare() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallopt` changes numbers of the allocator; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 << 10);
    }
}
