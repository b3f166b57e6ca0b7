// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to export functions to plugins.
//!
//! What plugins call in the program that loads them. A device or a command that a plugin names is
//! looked up; a pointer that is none of them is said so in the log, and never followed. A panic
//! here ends the process: `extern "C"` lets none through to C.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use scsi::block_device::BLOCK_DEVICE;
use scsi::command::Command;
use tcmu_abi::Device;
use tcmu_abi::layout::{RangeFn, tcmur_cmd, tcmur_handler};

use crate::device::Shared;
use crate::handler::Pointer;
use crate::loader;
use crate::memory::Arguments;
use crate::operation::Operation;
use crate::place::Place;
use crate::recovery::{self, CAUSES, Cause};
use crate::status::Status;

/// The devices that handlers have, by their pointers. A device stays in it, and so in memory,
/// until its handler has closed it.
static DEVICES: RwLock<BTreeMap<usize, Arc<Shared>>> = RwLock::new(BTreeMap::new());

fn devices() -> RwLockReadGuard<'static, BTreeMap<usize, Arc<Shared>>> {
    DEVICES.read().unwrap_or_else(PoisonError::into_inner)
}

/// Lets a device be found by its pointer.
pub(crate) fn remember(shared: &Arc<Shared>) {
    let mut devices = DEVICES.write().unwrap_or_else(PoisonError::into_inner);
    devices.insert(shared.pointer().0 as usize, shared.clone());
}

/// Lets go of a device that no handler has.
pub(crate) fn forget(device: Pointer) {
    let mut devices = DEVICES.write().unwrap_or_else(PoisonError::into_inner);
    let gone = devices.remove(&(device.0 as usize));
    drop(devices);
    drop(gone);
}

/// Whether handlers have devices.
pub(crate) fn has_devices() -> bool {
    !devices().is_empty()
}

fn find(device: *mut Device, function: &str) -> Option<Arc<Shared>> {
    let found = devices().get(&(device as usize)).cloned();
    if found.is_none() {
        tracing::error!("a plugin calls {function} for a device that it does not have; ignored");
    }
    found
}

/// The number by which the daemon knows a device of a handler in this process.
pub(crate) fn relayed(device: *mut Device) -> Option<u32> {
    let found = devices().get(&(device as usize)).cloned();
    match &found?.place {
        Place::Hosted(relay) => Some(relay.id()),
        Place::Here | Place::Away(_) => None,
    }
}

fn complete(device: *mut Device, command: usize, status: c_int, function: &str) {
    if let Some(shared) = find(device, function) {
        shared.calls.complete(command, Status(status));
    }
}

/// Registers a handler; while its library is being loaded, and at no other time.
///
/// # Safety
/// `handler` is null, or points to a table whose strings are null or C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmur_register_handler(handler: *mut tcmur_handler) -> c_int {
    // SAFETY: the caller says so.
    unsafe { loader::register(handler) }
}

/// Completes a command with a status, from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn tcmur_cmd_complete(device: *mut Device, command: *mut c_void, status: c_int) {
    complete(device, command as usize, status, "tcmur_cmd_complete");
}

/// The same, as a command's own function `done`.
pub(crate) extern "C" fn done(device: *mut Device, command: *mut tcmur_cmd, status: c_int) {
    complete(device, command as usize, status, "done");
}

/// The pointer that a plugin keeps with a device.
#[unsafe(no_mangle)]
pub extern "C" fn tcmur_dev_get_private(device: *mut Device) -> *mut c_void {
    let found = find(device, "tcmur_dev_get_private");
    found.map_or(ptr::null_mut(), |shared| shared.abi.runner_private())
}

/// Keeps a plugin's pointer with a device.
#[unsafe(no_mangle)]
pub extern "C" fn tcmur_dev_set_private(device: *mut Device, private: *mut c_void) {
    if let Some(shared) = find(device, "tcmur_dev_set_private") {
        shared.abi.set_runner_private(private);
    }
}

/// Takes a new size, in bytes; initiators are told.
#[unsafe(no_mangle)]
pub extern "C" fn tcmur_dev_update_size(device: *mut Device, size: u64) {
    if let Some(shared) = find(device, "tcmur_dev_update_size") {
        shared.resized(size);
    }
}

fn notify(device: *mut Device, cause: Cause, function: &str) {
    if let Some(shared) = find(device, function) {
        recovery::begin(&shared, cause);
    }
}

/// Another host has the lock.
#[unsafe(no_mangle)]
pub extern "C" fn tcmu_notify_lock_lost(device: *mut Device) {
    notify(device, Cause::LockLost, "tcmu_notify_lock_lost");
}

/// The storage cannot be reached.
#[unsafe(no_mangle)]
pub extern "C" fn tcmu_notify_conn_lost(device: *mut Device) {
    notify(device, Cause::ConnectionLost, "tcmu_notify_conn_lost");
}

/// The storage has not answered a command in time.
#[unsafe(no_mangle)]
pub extern "C" fn tcmu_notify_cmd_timed_out(device: *mut Device) {
    notify(device, Cause::CommandTimedOut, "tcmu_notify_cmd_timed_out");
}

/// What a number of an event stands for.
#[unsafe(no_mangle)]
pub extern "C" fn tcmu_event_name(event: c_int) -> *const c_char {
    let row = usize::try_from(event).ok().and_then(|event| CAUSES.get(event));
    row.map_or(c"unknown event", |(_, text)| text).as_ptr()
}

/// Executes WRITE SAME for a handler that sees every CDB, with a function of its own.
#[unsafe(no_mangle)]
pub extern "C" fn tcmur_handle_writesame(
    device: *mut Device,
    command: *mut tcmur_cmd,
    function: Option<RangeFn>,
) -> c_int {
    compound(device, command, function, Compound::WriteSame).0
}

/// Executes COMPARE AND WRITE for a handler that sees every CDB, with a function of its own.
#[unsafe(no_mangle)]
pub extern "C" fn tcmur_handle_caw(
    device: *mut Device,
    command: *mut tcmur_cmd,
    function: Option<RangeFn>,
) -> c_int {
    compound(device, command, function, Compound::CompareAndWrite).0
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Compound {
    WriteSame,
    CompareAndWrite,
}

fn compound(
    device: *mut Device,
    command: *mut tcmur_cmd,
    function: Option<RangeFn>,
    which: Compound,
) -> Status {
    let Some(shared) = find(device, "tcmur_handle_writesame or tcmur_handle_caw") else {
        return Status::NOT_HANDLED;
    };
    let Some(arguments) = shared.calls.arguments(command as usize) else {
        tracing::error!("{}: the handler names a command that is not under way", shared.name);
        return Status::NOT_HANDLED;
    };
    let (offset, len) = match range(&shared, arguments, which) {
        Ok(range) => range,
        Err(status) => return status,
    };
    if len == 0 {
        return Status::OK;
    }
    let Arguments { command, iovecs, count, .. } = arguments;
    let status = match (function, which) {
        (Some(function), _) => {
            // SAFETY: the plugin's function, by the interface, with a command that is under way.
            Status(unsafe { function(device, command, offset, len, iovecs, count) })
        }
        (None, Compound::WriteSame) => {
            let operation = Operation::WriteSame { offset, len };
            shared.handler.invoke(shared.pointer(), arguments, operation)
        }
        (None, Compound::CompareAndWrite) => {
            let operation = Operation::CompareAndWrite { offset, len };
            shared.handler.invoke(shared.pointer(), arguments, operation)
        }
    };
    // Such a function of a handler without threads only begins what it returns 0 for.
    if status == Status::OK && shared.handler.threads() == 0 {
        return Status::ASYNC_HANDLED;
    }
    status
}

/// The range of a command, in bytes, if its CDB and buffer are right.
fn range(shared: &Shared, arguments: Arguments, which: Compound) -> Result<(u64, u64), Status> {
    // SAFETY: the command is under way: the handler is in the middle of it.
    let cdb = unsafe { arguments.cdb() };
    let command = BLOCK_DEVICE.opcodes.decode(&cdb).map_err(|_| Status::INVALID_CDB)?;
    let properties = shared.abi.properties();
    let capacity = properties.num_lbas();
    let block = u64::from(properties.block_size());
    let (lba, blocks, data) = match (command, which) {
        (Command::WriteSame { lba, blocks, no_data: false, .. }, Compound::WriteSame) => {
            (lba, if blocks == 0 { capacity.saturating_sub(lba) } else { blocks }, block)
        }
        (Command::CompareAndWrite { lba, blocks, .. }, Compound::CompareAndWrite) => {
            (lba, blocks, blocks.saturating_mul(2).saturating_mul(block))
        }
        _ => return Err(Status::INVALID_CDB),
    };
    if lba > capacity || blocks > capacity - lba {
        return Err(Status::RANGE);
    }
    if arguments.len as u64 != data {
        return Err(Status::INVALID_CDB);
    }
    match (lba.checked_mul(block), blocks.checked_mul(block)) {
        (Some(offset), Some(len)) => Ok((offset, len)),
        _ => Err(Status::RANGE),
    }
}
