// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to export functions to C and to call those of pthreads.
//!
//! Threads of C programs: their names, their end. A thread that is cancelled while it is in a
//! function of ours would be unwound through frames that cannot be unwound, so what may be a
//! cancellation point runs in [`uncancelled`].
#![allow(unsafe_code)]
#![allow(clippy::missing_safety_doc, reason = "what C passes is told in the parent module")]

use std::ffi::{CStr, c_char, c_int};

use crate::Device;
use crate::device::c_string;

/// What the kernel keeps of a thread's name.
const NAME_LEN: usize = 15;
/// `PTHREAD_CANCEL_DISABLE`.
const CANCEL_DISABLE: c_int = 1;

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// Runs something during which the thread is not cancelled.
pub fn uncancelled<T>(run: impl FnOnce() -> T) -> T {
    struct Restore(c_int);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: the state is one that the function gave us.
            unsafe { pthread_setcancelstate(self.0, &mut 0) };
        }
    }
    let mut old = 0;
    // SAFETY: the place is valid. It fails for states that do not exist alone.
    unsafe { pthread_setcancelstate(CANCEL_DISABLE, &raw mut old) };
    let _restore = Restore(old);
    run()
}

/// Names the calling thread after a purpose and the device that it works for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_set_thread_name(prefix: *const c_char, device: *mut Device) {
    if prefix.is_null() {
        return;
    }
    // SAFETY: C code passes text, and a device that exists, or null.
    let (prefix, device) = unsafe { (CStr::from_ptr(prefix), Device::from_ptr(device)) };
    let prefix = prefix.to_string_lossy();
    let name = match device {
        Some(device) => format!("{prefix}-{}", device.uio_name().to_string_lossy()),
        None => prefix.into_owned(),
    };
    let end = (0..=NAME_LEN).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    let name = c_string(name.get(..end).unwrap_or(&name));
    // SAFETY: the text ends with a NUL.
    let result = unsafe { libc::pthread_setname_np(libc::pthread_self(), name.as_ptr()) };
    if result != 0 {
        let error = std::io::Error::from_raw_os_error(result);
        tracing::error!("cannot name a thread {name:?}: {error}");
    }
}

/// Cancels a thread and waits for its end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_thread_cancel(thread: libc::pthread_t) {
    // SAFETY: C code passes a thread that was not joined yet.
    let cancelled = unsafe { libc::pthread_cancel(thread) };
    // SAFETY: as above.
    let joined = unsafe { libc::pthread_join(thread, std::ptr::null_mut()) };
    for (what, result) in [("cancel", cancelled), ("join", joined)] {
        // One that has ended by itself cannot be cancelled any more.
        if result != 0 && (what, result) != ("cancel", libc::ESRCH) {
            let error = std::io::Error::from_raw_os_error(result);
            tracing::error!("cannot {what} a thread: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;

    extern "C" fn forever(_: *mut std::ffi::c_void) -> *mut std::ffi::c_void {
        loop {
            // SAFETY: nothing is asked of it.
            unsafe { libc::pause() };
        }
    }

    #[test]
    fn a_thread_that_never_ends_is_cancelled() {
        let mut thread = 0;
        // SAFETY: the function may run at any time, and nothing is passed to it.
        unsafe {
            let started =
                libc::pthread_create(&raw mut thread, ptr::null(), forever, ptr::null_mut());
            assert_eq!(started, 0);
            tcmu_thread_cancel(thread);
        }
    }

    #[test]
    fn a_thread_is_named_as_far_as_the_kernel_keeps_it() {
        std::thread::spawn(|| {
            for (prefix, name) in [(c"short", "short"), (c"0123456789012345678", "012345678901234")]
            {
                // SAFETY: text and no device.
                unsafe { tcmu_set_thread_name(prefix.as_ptr(), ptr::null_mut()) };
                let comm = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
                assert_eq!(comm.trim_end(), name);
            }
        })
        .join()
        .unwrap();
    }
}
