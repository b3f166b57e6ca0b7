// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to find the functions of librados and librbd.
//!
//! The table of what is called of them, by the C interface of Ceph 16 (librados(3), librbd's
//! header). Loaded when the first cluster is connected to, and never unloaded: threads of them run.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};

use run_time_library::{Loaded, Missing, functions};

/// `rados_t`, `rados_ioctx_t`, `rbd_image_t`, `rbd_completion_t`: a pointer of the library's.
pub(crate) type Handle = *mut c_void;
/// What is called when an operation has ended: its completion, and what was given with it.
pub(crate) type Callback = unsafe extern "C" fn(Handle, *mut c_void);
/// What is called when an image has changed.
pub(crate) type Watcher = unsafe extern "C" fn(*mut c_void);
/// What is called with a message of another client: what was given with it, the message's number, the
/// watch's and the sender's, and the bytes.
pub(crate) type Heard = unsafe extern "C" fn(*mut c_void, u64, u64, u64, *mut c_void, usize);
/// What is called when a watch is gone: what was given with it, its number, and why.
pub(crate) type Lost = unsafe extern "C" fn(*mut c_void, u64, c_int);
/// What is called for a range: offset, length, whether there is data, and what was given with it.
pub(crate) type Extent = unsafe extern "C" fn(u64, usize, c_int, *mut c_void) -> c_int;

/// What `rbd_stat` fills in (`rbd_image_info_t`).
#[repr(C)]
pub(crate) struct Info {
    pub(crate) size: u64,
    /// Bytes of an object.
    pub(crate) object_size: u64,
    pub(crate) objects: u64,
    pub(crate) order: c_int,
    pub(crate) block_name_prefix: [c_char; 24],
    pub(crate) parent_pool: i64,
    pub(crate) parent_name: [c_char; 96],
}

functions! {
    /// Functions of librados.
    Rados, "librados.so.2", "librados2":
    rados_create(*mut Handle, *const c_char) -> c_int;
    rados_conf_read_file(Handle, *const c_char) -> c_int;
    rados_conf_parse_env(Handle, *const c_char) -> c_int;
    rados_conf_set(Handle, *const c_char, *const c_char) -> c_int;
    rados_connect(Handle) -> c_int;
    rados_shutdown(Handle);
    rados_ioctx_create(Handle, *const c_char, *mut Handle) -> c_int;
    rados_ioctx_set_namespace(Handle, *const c_char);
    rados_ioctx_destroy(Handle);
    rados_stat(Handle, *const c_char, *mut u64, *mut libc::time_t) -> c_int;
    rados_watch2(Handle, *const c_char, *mut u64, Heard, Lost, *mut c_void) -> c_int;
    rados_unwatch2(Handle, u64) -> c_int;
    rados_watch_flush(Handle) -> c_int;
    rados_notify2(
        Handle, *const c_char, *const c_char, c_int, u64, *mut *mut c_char, *mut usize
    ) -> c_int;
    rados_notify_ack(Handle, *const c_char, u64, u64, *const c_char, c_int) -> c_int;
    rados_service_register(Handle, *const c_char, *const c_char, *const c_char) -> c_int;
    rados_service_update_status(Handle, *const c_char) -> c_int;
}

functions! {
    /// Functions of librbd.
    Rbd, "librbd.so.1", "librbd1":
    rbd_open(Handle, *const c_char, *mut Handle, *const c_char) -> c_int;
    rbd_open_read_only(Handle, *const c_char, *mut Handle, *const c_char) -> c_int;
    rbd_close(Handle) -> c_int;
    rbd_stat(Handle, *mut Info, usize) -> c_int;
    rbd_get_id(Handle, *mut c_char, usize) -> c_int;
    rbd_get_stripe_unit(Handle, *mut u64) -> c_int;
    rbd_resize2(Handle, u64, bool, Option<Progress>, *mut c_void) -> c_int;
    rbd_update_watch(Handle, *mut u64, Watcher, *mut c_void) -> c_int;
    rbd_update_unwatch(Handle, u64) -> c_int;
    rbd_get_features(Handle, *mut u64) -> c_int;
    rbd_lock_acquire(Handle, c_int) -> c_int;
    rbd_lock_release(Handle) -> c_int;
    rbd_lock_break(Handle, c_int, *const c_char) -> c_int;
    rbd_lock_get_owners(Handle, *mut c_int, *mut *mut c_char, *mut usize) -> c_int;
    rbd_lock_get_owners_cleanup(*mut *mut c_char, usize);
    rbd_is_exclusive_lock_owner(Handle, *mut c_int) -> c_int;
    rbd_metadata_get(Handle, *const c_char, *mut c_char, *mut usize) -> c_int;
    rbd_metadata_set(Handle, *const c_char, *const c_char) -> c_int;
    rbd_diff_iterate2(Handle, *const c_char, u64, u64, u8, u8, Extent, *mut c_void) -> c_int;
    rbd_aio_create_completion(*mut c_void, Callback, *mut Handle) -> c_int;
    rbd_aio_get_return_value(Handle) -> isize;
    rbd_aio_release(Handle);
    rbd_aio_readv(Handle, *const libc::iovec, c_int, u64, Handle) -> c_int;
    rbd_aio_writev(Handle, *const libc::iovec, c_int, u64, Handle) -> c_int;
    rbd_aio_flush(Handle, Handle) -> c_int;
    rbd_aio_write_zeroes(Handle, u64, usize, Handle, c_int, c_int) -> c_int;
    rbd_aio_compare_and_write(
        Handle, u64, usize, *const c_char, *const c_char, Handle, *mut u64, c_int
    ) -> c_int;
}

/// Progress of a resize: done, all, and what was given with it; not 0 ends it.
pub(crate) type Progress = unsafe extern "C" fn(u64, u64, *mut c_void) -> c_int;

/// Both libraries.
#[derive(Debug)]
pub(crate) struct Libraries {
    pub(crate) rados: Rados,
    pub(crate) rbd: Rbd,
}

/// The libraries.
pub(crate) fn libraries() -> Result<&'static Libraries, Missing> {
    static LIBRARIES: Loaded<Libraries> = Loaded::new();
    // librbd needs librados, and would load it by itself.
    LIBRARIES.get(|| Ok(Libraries { rados: Rados::load()?, rbd: Rbd::load()? }))
}
