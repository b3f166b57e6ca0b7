// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to export functions to C.
//!
//! What a device is and who serves it. Properties have a module of their own.
#![allow(unsafe_code)]
#![allow(clippy::missing_safety_doc, reason = "what C passes is told in the parent module")]

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use crate::Device;
use crate::layout::tcmulib_handler;

/// Looks at a device of C's; `T::default()` for a null pointer.
///
/// # Safety
/// The device exists, or the pointer is null.
unsafe fn with<T>(device: *const Device, none: T, look: impl FnOnce(&Device) -> T) -> T {
    // SAFETY: as the caller promises.
    unsafe { Device::from_ptr(device) }.map_or(none, look)
}

/// The handler's pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_dev_get_private(device: *mut Device) -> *mut c_void {
    // SAFETY: C code passes a device that exists, or null.
    unsafe { with(device, ptr::null_mut(), Device::private) }
}

/// Keeps the handler's pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_dev_set_private(device: *mut Device, private: *mut c_void) {
    // SAFETY: C code passes a device that exists, or null.
    unsafe { with(device, (), |device| device.set_private(private)) }
}

/// `uioN`, the device's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_dev_get_uio_name(device: *mut Device) -> *const c_char {
    // SAFETY: C code passes a device that exists, or null.
    unsafe { with(device, ptr::null(), |device| device.uio_name().as_ptr()) }
}

/// The descriptor of the ring; -1 if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_dev_get_fd(device: *mut Device) -> c_int {
    let fd = |device: &Device| device.served_by().map_or(-1, |owner| owner.fd());
    // SAFETY: C code passes a device that exists, or null.
    unsafe { with(device, -1, fd) }
}

/// The configuration string with the subtype, the device's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_dev_get_cfgstring(device: *mut Device) -> *mut c_char {
    // SAFETY: C code passes a device that exists, or null.
    unsafe { with(device, ptr::null_mut(), |device| device.cfgstring_ptr().cast_mut()) }
}

/// What was registered for the device's subtype.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_dev_get_handler(device: *mut Device) -> *mut tcmulib_handler {
    let handler = |device: &Device| device.served_by().map_or(ptr::null_mut(), |o| o.handler());
    // SAFETY: C code passes a device that exists, or null.
    unsafe { with(device, ptr::null_mut(), handler) }
}

/// The path of the memory that is shared with the kernel, malloc'ed, and where it is mapped; null
/// if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_dev_get_memory_info(
    device: *mut Device,
    base: *mut *mut c_void,
    len: *mut usize,
    offset: *mut libc::off_t,
) -> *mut c_char {
    // SAFETY: C code passes a device that exists, or null.
    let Some(device) = (unsafe { Device::from_ptr(device) }) else { return ptr::null_mut() };
    let Some(memory) = device.served_by().and_then(|owner| owner.memory()) else {
        return ptr::null_mut();
    };
    // SAFETY: C code passes places for the answers.
    unsafe {
        base.write(memory.base.as_ptr().cast());
        len.write(memory.len);
        offset.write(0);
    }
    super::cfgfs::malloced(&format!("/dev/{}", device.uio_name().to_string_lossy()))
}

/// Sets the granularity of UNMAP, and whether UNMAPs are split at it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_dev_set_opt_unmap_gran(device: *mut Device, len: u32, split: bool) {
    let set = |device: &Device| {
        device.properties().set_opt_unmap_gran(len);
        device.properties().set_split_unmaps(split);
    };
    // SAFETY: C code passes a device that exists, or null.
    unsafe { with(device, (), set) }
}

/// Blocks as bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_lba_to_byte(device: *mut Device, lba: u64) -> u64 {
    let bytes = |device: &Device| lba.wrapping_mul(device.properties().block_size().into());
    // SAFETY: C code passes a device that exists, or null.
    unsafe { with(device, 0, bytes) }
}

/// Bytes as blocks; the rest is left out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_byte_to_lba(device: *mut Device, bytes: u64) -> u64 {
    let blocks = |device: &Device| {
        bytes.checked_div(device.properties().block_size().into()).unwrap_or_default()
    };
    // SAFETY: C code passes a device that exists, or null.
    unsafe { with(device, 0, blocks) }
}

/// Answers what is in the ring and was not read yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_dev_flush_ring(device: *mut Device) {
    let flush = |device: &Device| device.served_by().map_or((), |owner| owner.flush_ring());
    // SAFETY: C code passes a device that exists, or null.
    unsafe { with(device, (), flush) }
}

/// Whether the kernel takes completions in any order.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_dev_oooc_supported(device: *mut Device) -> bool {
    let supported =
        |device: &Device| device.served_by().is_some_and(|owner| owner.completes_out_of_order());
    // SAFETY: C code passes a device that exists, or null.
    unsafe { with(device, false, supported) }
}
