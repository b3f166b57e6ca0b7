// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to find the functions of libgfapi.
//!
//! The table of what is called of it, by the C interface of Gluster 6 and newer (symbol version
//! GFAPI_6.0: callbacks and `glfs_ftruncate` get the file's attributes from before and after).
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};

use run_time_library::{Loaded, Missing, functions};

/// `glfs_t`, `glfs_fd_t`: a pointer of the library's.
pub(crate) type Handle = *mut c_void;
/// What is called when an operation has ended: the file, the result (errno is set where it is -1),
/// attributes from before and after, and what was given with it.
pub(crate) type Callback =
    unsafe extern "C" fn(Handle, isize, *mut c_void, *mut c_void, *mut c_void);

functions! {
    /// Functions of libgfapi.
    Gfapi, "libgfapi.so.0", "libgfapi0":
    glfs_new(*const c_char) -> Handle;
    glfs_set_volfile_server(Handle, *const c_char, *const c_char, c_int) -> c_int;
    glfs_set_xlator_option(Handle, *const c_char, *const c_char, *const c_char) -> c_int;
    glfs_set_logging(Handle, *const c_char, c_int) -> c_int;
    glfs_init(Handle) -> c_int;
    glfs_fini(Handle) -> c_int;
    glfs_open(Handle, *const c_char, c_int) -> Handle;
    glfs_close(Handle) -> c_int;
    glfs_fstat(Handle, *mut libc::stat) -> c_int;
    glfs_lseek(Handle, libc::off_t, c_int) -> libc::off_t;
    glfs_ftruncate(Handle, libc::off_t, *mut c_void, *mut c_void) -> c_int;
    glfs_preadv_async(
        Handle, *const libc::iovec, c_int, libc::off_t, c_int, Callback, *mut c_void
    ) -> c_int;
    glfs_pwritev_async(
        Handle, *const libc::iovec, c_int, libc::off_t, c_int, Callback, *mut c_void
    ) -> c_int;
    glfs_fdatasync_async(Handle, Callback, *mut c_void) -> c_int;
    glfs_discard_async(Handle, libc::off_t, usize, Callback, *mut c_void) -> c_int;
    glfs_zerofill_async(Handle, libc::off_t, libc::off_t, Callback, *mut c_void) -> c_int;
}

/// The library.
pub(crate) fn gfapi() -> Result<&'static Gfapi, Missing> {
    static GFAPI: Loaded<Gfapi> = Loaded::new();
    GFAPI.get(Gfapi::load)
}
