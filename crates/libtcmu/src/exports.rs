// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to export functions to C.
//!
//! `tcmulib_*`, and what Debian's library exports beside the interface. Pointers are as `libtcmu.h`
//! says; null pointers are answered, not followed.
#![allow(unsafe_code)]
#![allow(clippy::missing_safety_doc, reason = "the headers say what C passes")]

use std::ffi::{c_char, c_int, c_void};
use std::{ptr, slice};

use tcmu::module::Module;
use tcmu::uio::Sysfs;
use tcmu::{Configfs, Netlink};
use tcmu_abi::Device;
use tcmu_abi::exports::thread::uncancelled;
use tcmu_abi::layout::{tcmulib_cmd, tcmulib_handler};

use crate::context::{Context, Kernel};
use crate::queue::Queue;
use crate::{config, log};

/// What C knows a context by.
pub type Opaque = *mut c_void;

/// The context behind C's pointer.
///
/// # Safety
/// It comes from [`tcmulib_initialize`] and was not closed, or it is null.
unsafe fn context<'a>(context: Opaque) -> Option<&'a Context> {
    // SAFETY: as the caller promises.
    unsafe { context.cast::<Context>().as_ref() }
}

/// The commands of C's device.
///
/// # Safety
/// The device exists, or the pointer is null.
unsafe fn queue<'a>(device: *const Device) -> Option<&'a Queue> {
    // SAFETY: as the caller promises.
    unsafe { Device::from_ptr(device) }?.owner()
}

/// The kernel's side. Whoever waits for an answer of a program that has died is freed, unless it may
/// be another program's that lives.
fn kernel() -> Result<Kernel, tcmu::Error> {
    let netlink = Netlink::open()?;
    if !netlink.has_other_listeners()? {
        Module::default().reset_netlink()?;
    }
    Ok(Kernel { netlink, sysfs: Sysfs::default(), configfs: Configfs::default() })
}

/// Begins to serve; null if it cannot.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmulib_initialize(
    handlers: *mut tcmulib_handler,
    count: usize,
) -> Opaque {
    let handlers = match (handlers.is_null(), count) {
        (true, 0) => &[],
        (true, _) => {
            tracing::error!("tcmulib_initialize: there are no handlers");
            return ptr::null_mut();
        }
        // SAFETY: C code passes so many of them.
        (false, _) => unsafe { slice::from_raw_parts(handlers, count) },
    };
    let context = uncancelled(kernel).map_err(|error| error.to_string()).and_then(|kernel| {
        // SAFETY: the handlers are as the header says.
        unsafe { Context::new(handlers, kernel) }
    });
    match context {
        Ok(context) => Box::into_raw(context).cast(),
        Err(why) => {
            tracing::error!("tcmulib_initialize: {why}");
            ptr::null_mut()
        }
    }
}

/// Announces the handlers over D-Bus.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmulib_register(ctx: Opaque) {
    // SAFETY: C code passes a context, or null.
    if let Some(context) = unsafe { context(ctx) } {
        context.announce(None);
    }
}

/// The descriptor to poll, or -1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmulib_get_master_fd(ctx: Opaque) -> c_int {
    // SAFETY: C code passes a context, or null.
    unsafe { context(ctx) }.map_or(-1, Context::fd)
}

/// Handles what has come; 0, or -1 if the kernel cannot be listened to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmulib_master_fd_ready(ctx: Opaque) -> c_int {
    // SAFETY: C code passes a context, or null.
    let Some(context) = (unsafe { context(ctx) }) else { return -1 };
    match context.ready() {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("{error}");
            -1
        }
    }
}

/// Ends; `removed` is called for each device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmulib_close(ctx: Opaque) {
    if ctx.is_null() {
        return;
    }
    // SAFETY: it comes from `tcmulib_initialize`, and C code does not use it any more.
    let context = unsafe { Box::from_raw(ctx.cast::<Context>()) };
    context.end();
}

/// Takes the kernel's signal that commands are there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmulib_processing_start(dev: *mut Device) {
    // SAFETY: C code passes a device that exists, or null.
    if let Some(queue) = unsafe { queue(dev) } {
        queue.start();
    }
}

/// The next command, with `hm_cmd_size` bytes of C's own; null if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmulib_get_next_command(
    dev: *mut Device,
    hm_cmd_size: c_int,
) -> *mut tcmulib_cmd {
    let private_len = usize::try_from(hm_cmd_size).unwrap_or(0);
    // SAFETY: C code passes a device that exists, or null.
    unsafe { queue(dev) }.map_or(ptr::null_mut(), |queue| queue.next(private_len))
}

/// Ends a command.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmulib_command_complete(
    dev: *mut Device,
    cmd: *mut tcmulib_cmd,
    status: c_int,
) {
    // SAFETY: C code passes a device that exists, or null.
    if let Some(queue) = unsafe { queue(dev) } {
        queue.complete(cmd, status);
    }
}

/// Tells the kernel of what was completed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmulib_processing_complete(dev: *mut Device) {
    // SAFETY: C code passes a device that exists, or null.
    if let Some(queue) = unsafe { queue(dev) } {
        queue.finish();
    }
}

/// Begins to log to a file in a directory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_setup_log(directory: *mut c_char) -> c_int {
    // SAFETY: C code passes text, or null.
    let directory = unsafe { log::path(directory) };
    uncancelled(|| log::open(directory))
}

/// Ends that.
#[unsafe(no_mangle)]
pub extern "C" fn tcmu_destroy_log() {
    log::close();
}

/// Goes on to log in another directory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_resetup_log_file(_: Opaque, directory: *mut c_char) -> c_int {
    // SAFETY: C code passes text, or null.
    let directory = unsafe { log::path(directory) };
    uncancelled(|| log::open(directory))
}

/// Writes the time to `buffer`, which has room for 24 bytes with the NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn time_string_now(buffer: *mut c_char) -> c_int {
    if buffer.is_null() {
        return -libc::EINVAL;
    }
    let time = log::time();
    // SAFETY: C code passes room for it.
    unsafe {
        buffer.copy_from_nonoverlapping(time.as_ptr().cast(), time.len());
        buffer.add(time.len()).write(0);
    }
    0
}

/// Copies text, at most `size` bytes with the NUL; returns the length of the source.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strlcpy(target: *mut c_char, source: *const c_char, size: usize) -> usize {
    // SAFETY: C code passes text and room for so many bytes.
    unsafe {
        let len = libc::strlen(source);
        if size > 0 {
            let copied = len.min(size - 1);
            target.copy_from_nonoverlapping(source, copied);
            target.add(copied).write(0);
        }
        len
    }
}

/// A configuration that nothing was read of yet.
#[unsafe(no_mangle)]
pub extern "C" fn tcmu_initialize_config() -> Opaque {
    Box::into_raw(Box::<config::Config>::default()).cast()
}

/// Frees it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_free_config(cfg: Opaque) {
    if !cfg.is_null() {
        // SAFETY: it comes from `tcmu_initialize_config` and is not used any more.
        drop(unsafe { Box::from_raw(cfg.cast::<config::Config>()) });
    }
}

/// Reads `tcmu.conf` and applies it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_load_config(cfg: Opaque) -> c_int {
    // SAFETY: it comes from `tcmu_initialize_config`, or is null.
    let config = unsafe { cfg.cast::<config::Config>().as_ref() };
    config.map_or(-libc::EINVAL, |config| uncancelled(|| config.load()))
}

/// Reads `tcmu.conf` again whenever it changes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_watch_config(cfg: Opaque) -> c_int {
    // SAFETY: it comes from `tcmu_initialize_config`, or is null.
    let config = unsafe { cfg.cast::<config::Config>().as_ref() };
    config.map_or(-libc::EINVAL, |config| uncancelled(|| config.watch()))
}

/// Ends that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_unwatch_config(cfg: Opaque) {
    // SAFETY: it comes from `tcmu_initialize_config`, or is null.
    if let Some(config) = unsafe { cfg.cast::<config::Config>().as_ref() } {
        config.unwatch();
    }
}
