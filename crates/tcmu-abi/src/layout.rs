// SPDX-License-Identifier: Apache-2.0
//! The structures that C programs and we share, under their C names, as the C compiler lays them
//! out on 64-bit machines. Offsets are asserted below.
#![allow(non_camel_case_types, reason = "these are C's names")]

use std::ffi::{c_char, c_int, c_void};
use std::mem::offset_of;
use std::sync::atomic::{AtomicU8, AtomicU64};

use libc::iovec;

use crate::Device;

/// Length in bytes of a sense buffer.
pub const SENSE_LEN: usize = 96;

/// The device, which C programs know by a pointer only.
pub type tcmu_device = Device;

/// A SCSI command.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct tcmulib_cmd {
    /// The kernel's name for it.
    pub cmd_id: u16,
    /// As long as its opcode says.
    pub cdb: *mut u8,
    /// Its data; the holder may move the pieces on and back.
    pub iovec: *mut iovec,
    /// How many pieces.
    pub iov_cnt: usize,
    /// For status `PASSTHROUGH_ERR`.
    pub sense_buf: [u8; SENSE_LEN],
    /// What the holder keeps with the command.
    pub hm_private: *mut c_void,
}

/// `TCMULIB_CFG_DEV_CFGSTR`: a new configuration string.
pub const CFG_DEV_CFGSTR: u32 = 0;
/// `TCMULIB_CFG_DEV_SIZE`: a new capacity.
pub const CFG_DEV_SIZE: u32 = 1;
/// `TCMULIB_CFG_WRITE_CACHE`: a volatile write cache, or none.
pub const CFG_WRITE_CACHE: u32 = 2;

/// A change of a device that a handler is asked for.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct tcmulib_cfg_info {
    /// `CFG_*`: which value there is.
    pub kind: u32,
    /// The new value.
    pub data: tcmulib_cfg_data,
}

/// The value of a [`tcmulib_cfg_info`].
#[derive(Clone, Copy)]
#[repr(C)]
pub union tcmulib_cfg_data {
    /// In bytes.
    pub dev_size: u64,
    /// With the subtype.
    pub dev_cfgstring: *mut c_char,
    /// Whether it is on.
    pub write_cache: bool,
}

/// `bool (const char *cfgstring, char **reason)`; the reason is malloc'ed.
pub type CheckConfigFn = unsafe extern "C" fn(*const c_char, *mut *mut c_char) -> bool;
/// `int (dev, cfg)`: 0 or a negative errno.
pub type ReconfigFn = unsafe extern "C" fn(*mut tcmu_device, *mut tcmulib_cfg_info) -> c_int;
/// `void (dev)`.
pub type DeviceFn = unsafe extern "C" fn(*mut tcmu_device);
/// `int (dev)`.
pub type DeviceStatusFn = unsafe extern "C" fn(*mut tcmu_device) -> c_int;
/// `bool (void)`.
pub type UpdateLogdirFn = unsafe extern "C" fn() -> bool;

/// What a program that links with libtcmu serves.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct tcmulib_handler {
    /// For people.
    pub name: *const c_char,
    /// What configuration strings of its devices begin with.
    pub subtype: *const c_char,
    /// What people read about its configuration strings.
    pub cfg_desc: *const c_char,
    /// The library's.
    pub ctx: *mut c_void,
    /// Whether a configuration string makes sense.
    pub check_config: Option<CheckConfigFn>,
    /// Changes a device.
    pub reconfig: Option<ReconfigFn>,
    /// The directory of logs is another one.
    pub update_logdir: Option<UpdateLogdirFn>,
    /// A device is there: 0, or a negative errno, and it is gone again.
    pub added: Option<DeviceStatusFn>,
    /// A device is gone; it is not to be used after the return.
    pub removed: Option<DeviceFn>,
    /// The program's.
    pub hm_private: *mut c_void,
    /// The library's.
    pub connection: *mut c_void,
}

/// `struct list_node`: a link of a list of the C daemon, which we do not use.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct list_node {
    /// The next one.
    pub next: *mut list_node,
    /// The one before.
    pub prev: *mut list_node,
}

/// `void (dev, cmd, int status)`.
pub type DoneFn = unsafe extern "C" fn(*mut tcmu_device, *mut tcmur_cmd, c_int);

/// A command as a plugin sees it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct tcmur_cmd {
    /// CDB, data and sense buffer.
    pub lib_cmd: *mut tcmulib_cmd,
    /// Data of compound commands.
    pub iovec: *mut iovec,
    /// How many pieces.
    pub iov_cnt: usize,
    /// What `iovec` was made of.
    pub iov_base_copy: *mut c_void,
    /// The plugin's.
    pub cmd_state: *mut c_void,
    /// Bytes of `iovec` that are to be read or written.
    pub requested: usize,
    /// The C daemon's.
    pub cmds_list_entry: list_node,
    /// When it came.
    pub start_time: libc::timespec,
    /// Whether it has taken too long.
    pub timed_out: bool,
    /// What ends it.
    pub done: Option<DoneFn>,
}

/// `int (dev, cmd, iovec, iov_cnt, len, offset)`.
pub type ReadWriteFn = unsafe extern "C" fn(
    *mut tcmu_device,
    *mut tcmur_cmd,
    *mut iovec,
    usize,
    usize,
    libc::off_t,
) -> c_int;
/// `int (dev, cmd)`.
pub type CommandFn = unsafe extern "C" fn(*mut tcmu_device, *mut tcmur_cmd) -> c_int;
/// `int (dev, cmd, offset, len)`.
pub type UnmapFn = unsafe extern "C" fn(*mut tcmu_device, *mut tcmur_cmd, u64, u64) -> c_int;
/// `int (dev, cmd, offset, len, iovec, iov_cnt)`.
pub type RangeFn =
    unsafe extern "C" fn(*mut tcmu_device, *mut tcmur_cmd, u64, u64, *mut iovec, usize) -> c_int;

/// What a plugin registers.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct tcmur_handler {
    /// For people.
    pub name: *const c_char,
    /// What configuration strings of its devices begin with.
    pub subtype: *const c_char,
    /// What people read about its configuration strings.
    pub cfg_desc: *const c_char,
    /// The plugin's.
    pub opaque: *mut c_void,
    /// Whether a configuration string makes sense.
    pub check_config: Option<CheckConfigFn>,
    /// Changes a device.
    pub reconfig: Option<ReconfigFn>,
    /// `int (dev, bool reopen)`: 0 or a negative errno.
    pub open: Option<unsafe extern "C" fn(*mut tcmu_device, bool) -> c_int>,
    /// Ends what `open` began.
    pub close: Option<DeviceFn>,
    /// How many threads run the calls of a device; 0: they may not block.
    pub nr_threads: c_int,
    /// Sees every command first.
    pub handle_cmd: Option<CommandFn>,
    /// Reads.
    pub read: Option<ReadWriteFn>,
    /// Writes.
    pub write: Option<ReadWriteFn>,
    /// Makes what was written durable.
    pub flush: Option<CommandFn>,
    /// Discards.
    pub unmap: Option<UnmapFn>,
    /// Writes the same block over and over.
    pub writesame: Option<RangeFn>,
    /// Compares, then writes.
    pub caw: Option<RangeFn>,
    /// Events are there to be reported.
    pub report_event: Option<DeviceStatusFn>,
    /// Takes the lock for a tag.
    pub lock: Option<unsafe extern "C" fn(*mut tcmu_device, u16) -> c_int>,
    /// Gives the lock back.
    pub unlock: Option<DeviceStatusFn>,
    /// Tells the tag of who has the lock.
    pub get_lock_tag: Option<unsafe extern "C" fn(*mut tcmu_device, *mut u16) -> c_int>,
    /// Tells whether we have the lock.
    pub get_lock_state: Option<DeviceStatusFn>,
    /// The C daemon's: whether it came over D-Bus.
    pub is_dbus_handler: bool,
    /// The directory of logs is another one.
    pub update_logdir: Option<UpdateLogdirFn>,
    /// `int (void)`: 0, or the handler is refused.
    pub init: Option<unsafe extern "C" fn() -> c_int>,
    /// Ends what `init` began.
    pub destroy: Option<unsafe extern "C" fn()>,
}

/// What the C daemon keeps of a plugin's device, behind `tcmu_dev_get_private`. It is no part of the
/// interface, but Debian's handler_rbd.so reads these fields of it (as compiled in 1.5.4) whenever it
/// opens an image. All else is zero.
#[derive(Debug, Default)]
#[repr(C)]
pub struct tcmur_device {
    _before: [u64; 6],
    /// How often another host has taken the lock.
    pub lock_lost_cnt: AtomicU64,
    /// How often the storage could not be reached.
    pub conn_lost_cnt: AtomicU64,
    /// How often it has not answered in time.
    pub cmd_timed_out_cnt: AtomicU64,
    _between: [u8; 9],
    /// As the plugin's `get_lock_state` answers.
    pub lock_state: AtomicU8,
    _after: [[u8; 32]; 16],
}

/// Asserts size and offsets of a structure.
macro_rules! laid_out {
    ($type:ident, $size:literal: $($field:ident $offset:literal),* $(,)?) => {
        const _: () = {
            assert!(size_of::<$type>() == $size);
            $(assert!(offset_of!($type, $field) == $offset);)*
        };
    };
}

#[cfg(target_pointer_width = "64")]
mod asserted {
    use super::*;

    laid_out!(tcmulib_cmd, 136: cmd_id 0, cdb 8, iovec 16, iov_cnt 24, sense_buf 32, hm_private 128);
    laid_out!(tcmulib_cfg_info, 16: kind 0, data 8);
    laid_out!(tcmulib_handler, 88: name 0, subtype 8, cfg_desc 16, ctx 24, check_config 32,
        reconfig 40, update_logdir 48, added 56, removed 64, hm_private 72, connection 80);
    laid_out!(tcmur_cmd, 96: lib_cmd 0, iovec 8, iov_cnt 16, iov_base_copy 24, cmd_state 32,
        requested 40, cmds_list_entry 48, start_time 64, timed_out 80, done 88);
    laid_out!(tcmur_device, 600: lock_lost_cnt 48, conn_lost_cnt 56, cmd_timed_out_cnt 64,
        lock_state 81);
    laid_out!(tcmur_handler, 200: name 0, subtype 8, cfg_desc 16, opaque 24, check_config 32,
        reconfig 40, open 48, close 56, nr_threads 64, handle_cmd 72, read 80, write 88, flush 96,
        unmap 104, writesame 112, caw 120, report_event 128, lock 136, unlock 144,
        get_lock_tag 152, get_lock_state 160, is_dbus_handler 168, update_logdir 176, init 184,
        destroy 192);
}
