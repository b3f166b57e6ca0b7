// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to call functions of plugins.
//!
//! A [`Handler`]: the table of functions that a plugin has registered, copied, its strings checked.
//! The functions stay where they are: a library is never unloaded.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::fmt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;

use tcmu_abi::Device;
use tcmu_abi::check::{check_config, text};
use tcmu_abi::layout::{
    CFG_DEV_CFGSTR, CFG_DEV_SIZE, CFG_WRITE_CACHE, tcmulib_cfg_data, tcmulib_cfg_info,
    tcmur_handler,
};

use crate::facts::{MAX_SUBTYPE, function, functions};
use crate::isolation::host::Host;
use crate::isolation::wire::Facts;
use crate::loader::Refusal;
use crate::memory::Arguments;
use crate::operation::{Change, Operation};
use crate::status::Status;

/// Length of what is said of a subtype, in bytes, as for handlers on D-Bus.
const MAX_DESCRIPTION: usize = 16 << 10;

/// A handler of a plugin.
pub struct Handler {
    /// Without functions where the plugin is in a process of its own.
    raw: tcmur_handler,
    facts: Facts,
    file: PathBuf,
    away: Option<Away>,
}

/// The process that a handler is in, and its number there.
#[derive(Clone)]
pub(crate) struct Away {
    pub(crate) host: Arc<Host>,
    pub(crate) handler: u16,
}

// SAFETY: the table is never written to; its pointers are to the plugin's code and to what belongs
// to the plugin, which is called from several threads by what the interface says.
unsafe impl Send for Handler {}
// SAFETY: as above.
unsafe impl Sync for Handler {}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handler({} of {})", self.facts.subtype, self.file.display())
    }
}

impl Handler {
    /// Copies what a plugin hands over.
    ///
    /// # Safety
    /// `raw` is null, or points to the plugin's table, whose strings are null or C strings.
    pub(crate) unsafe fn copy(raw: *const tcmur_handler, file: &Path) -> Result<Handler, Refusal> {
        if raw.is_null() {
            return Err(Refusal::NoTable);
        }
        // SAFETY: the caller says that a table is there; it is plain data.
        let raw = unsafe { ptr::read(raw) };
        // SAFETY: the caller says that they are strings. One byte more tells what is too long.
        let (name, subtype, description) = unsafe {
            (
                text(raw.name, MAX_DESCRIPTION).unwrap_or_default(),
                text(raw.subtype, MAX_SUBTYPE + 1).unwrap_or_default(),
                text(raw.cfg_desc, MAX_DESCRIPTION).unwrap_or_default(),
            )
        };
        let functions = functions(&raw);
        let facts = Facts { name, subtype, description, threads: raw.nr_threads, functions };
        facts.check()?;
        Ok(Handler { raw, facts, file: file.into(), away: None })
    }

    /// A handler in a process of its own, which says this of it.
    pub(crate) fn away(facts: Facts, file: &Path, away: Away) -> Result<Handler, Refusal> {
        facts.check()?;
        // SAFETY: plain data, for which all zeroes is a value: no functions, no strings.
        let raw = unsafe { std::mem::zeroed() };
        Ok(Handler { raw, facts, file: file.into(), away: Some(away) })
    }

    /// What there is to know of it.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Where it is, if it is in a process of its own.
    pub(crate) fn process(&self) -> Option<&Away> {
        self.away.as_ref()
    }

    fn has(&self, function: u32) -> bool {
        self.facts.has(function)
    }

    /// What configuration strings of it begin with.
    pub fn subtype(&self) -> &str {
        &self.facts.subtype
    }

    /// Its name for people.
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// What people read about its configuration strings.
    pub fn description(&self) -> &str {
        &self.facts.description
    }

    /// The library that it is in.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// How many threads of each device call it; none: the device's own thread does.
    pub(crate) fn threads(&self) -> usize {
        usize::try_from(self.facts.threads).unwrap_or(0)
    }

    /// Whether it sees every CDB first.
    pub fn handles_commands(&self) -> bool {
        self.has(function::HANDLE_COMMAND)
    }

    /// Whether it neither reads nor writes, so that every CDB is its own affair.
    pub fn is_passthrough(&self) -> bool {
        !self.has(function::READ)
    }

    /// Whether it has exclusive locks.
    pub fn locks(&self) -> bool {
        self.has(function::LOCK)
    }

    pub(crate) fn writes(&self) -> bool {
        self.has(function::WRITE)
    }

    pub(crate) fn flushes(&self) -> bool {
        self.has(function::FLUSH)
    }

    pub(crate) fn unmaps(&self) -> bool {
        self.has(function::UNMAP)
    }

    pub(crate) fn writes_same(&self) -> bool {
        self.has(function::WRITE_SAME)
    }

    /// Whether it compares and writes in one step.
    pub fn compares_and_writes(&self) -> bool {
        self.has(function::COMPARE_AND_WRITE)
    }

    pub(crate) fn reports_events(&self) -> bool {
        self.has(function::REPORT_EVENT)
    }

    /// Whether a configuration string would do, or why not. May block.
    pub fn check_config(&self, config: &str) -> Result<(), String> {
        if let Some(Away { host, handler }) = &self.away {
            return host.check_config(*handler, config);
        }
        // SAFETY: by the interface.
        self.raw.check_config.map_or(Ok(()), |check| unsafe { check_config(check, config) })
    }

    /// Called once, before all else.
    pub(crate) fn init(&self) -> Result<(), i32> {
        let Some(init) = self.raw.init else { return Ok(()) };
        // SAFETY: by the interface.
        match unsafe { init() } {
            0 => Ok(()),
            error => Err(error),
        }
    }

    /// Called once, after all else.
    pub(crate) fn destroy(&self) {
        if let Some(destroy) = self.raw.destroy {
            // SAFETY: by the interface; there are no devices any more.
            unsafe { destroy() };
        }
    }

    /// Whether it wants to know of another directory of log files.
    pub(crate) fn logs_to_files(&self) -> bool {
        self.has(function::UPDATE_LOG_DIR)
    }

    /// Tells it that the directory of log files is another one; false: it could not follow.
    pub(crate) fn update_log_dir(&self) -> bool {
        // SAFETY: by the interface.
        self.raw.update_logdir.is_none_or(|update| unsafe { update() })
    }

    /// Opens a device. May block, as may all that follows.
    pub(crate) fn open(&self, device: Pointer, again: bool) -> Result<(), i32> {
        let Some(open) = self.raw.open else { return Err(libc::ENOSYS) };
        // SAFETY: by the interface; the device outlives its handle.
        errno(unsafe { open(device.0, again) })
    }

    pub(crate) fn close(&self, device: Pointer) {
        if let Some(close) = self.raw.close {
            // SAFETY: by the interface; the device is open, and no command of it is under way.
            unsafe { close(device.0) };
        }
    }

    pub(crate) fn reconfigure(&self, device: Pointer, change: &Change) -> Result<(), i32> {
        let Some(reconfigure) = self.raw.reconfig else { return Err(libc::EOPNOTSUPP) };
        let (kind, data) = match change {
            Change::Config(config) => {
                let dev_cfgstring = config.as_ptr().cast_mut();
                (CFG_DEV_CFGSTR, tcmulib_cfg_data { dev_cfgstring })
            }
            &Change::Size(dev_size) => (CFG_DEV_SIZE, tcmulib_cfg_data { dev_size }),
            &Change::WriteCache(write_cache) => {
                // The other bytes of the value are zero.
                let mut data = tcmulib_cfg_data { dev_size: 0 };
                data.write_cache = write_cache;
                (CFG_WRITE_CACHE, data)
            }
        };
        let mut info = tcmulib_cfg_info { kind, data };
        // SAFETY: by the interface; the change outlives the call.
        errno(unsafe { reconfigure(device.0, &mut info) })
    }

    pub(crate) fn lock(&self, device: Pointer, tag: u16) -> Status {
        // SAFETY: by the interface.
        self.raw.lock.map_or(Status::OK, |lock| Status(unsafe { lock(device.0, tag) }))
    }

    pub(crate) fn unlock(&self, device: Pointer) -> Status {
        // SAFETY: by the interface.
        self.raw.unlock.map_or(Status::OK, |unlock| Status(unsafe { unlock(device.0) }))
    }

    /// Whether this host has the lock; `None`: the handler does not tell.
    pub(crate) fn lock_state(&self, device: Pointer) -> Option<LockState> {
        // SAFETY: by the interface.
        LockState::of(unsafe { self.raw.get_lock_state?(device.0) })
    }

    /// The group that the holder of the lock has locked it for.
    pub(crate) fn lock_tag(&self, device: Pointer) -> Option<u16> {
        let mut tag = NO_TAG;
        // SAFETY: by the interface; the place for the tag outlives the call.
        let status = Status(unsafe { self.raw.get_lock_tag?(device.0, &mut tag) });
        (status == Status::OK && tag != NO_TAG).then_some(tag)
    }

    pub(crate) fn report_event(&self, device: Pointer) -> i32 {
        // SAFETY: by the interface.
        self.raw.report_event.map_or(0, |report| unsafe { report(device.0) })
    }

    /// Calls the function of an operation.
    pub(crate) fn invoke(
        &self,
        device: Pointer,
        arguments: Arguments,
        operation: Operation,
    ) -> Status {
        let Arguments { command, iovecs, count, len, .. } = arguments;
        let h = &self.raw;
        let d = device.0;
        // SAFETY: by the interface: the command's memory is the handler's until the command is
        // completed, and stays as long as that takes.
        let status = unsafe {
            match operation {
                Operation::HandleCommand => h.handle_cmd.map(|f| f(d, command)),
                Operation::Read { offset } => {
                    h.read.map(|f| f(d, command, iovecs, count, len, signed(offset)))
                }
                Operation::Write { offset } => {
                    h.write.map(|f| f(d, command, iovecs, count, len, signed(offset)))
                }
                Operation::Flush => h.flush.map(|f| f(d, command)),
                Operation::Unmap { offset, len } => h.unmap.map(|f| f(d, command, offset, len)),
                Operation::WriteSame { offset, len } => {
                    h.writesame.map(|f| f(d, command, offset, len, iovecs, count))
                }
                Operation::CompareAndWrite { offset, len } => {
                    h.caw.map(|f| f(d, command, offset, len, iovecs, count))
                }
            }
        };
        status.map_or(Status::NOT_HANDLED, Status)
    }
}

/// The tag that is none.
const NO_TAG: u16 = u16::MAX;

/// Offsets are inside the size of a device, which fits.
fn signed(offset: u64) -> libc::off_t {
    libc::off_t::try_from(offset).unwrap_or(libc::off_t::MAX)
}

/// 0, or a negative errno; what is none of them is an error, too.
fn errno(result: c_int) -> Result<(), i32> {
    match result {
        0 => Ok(()),
        -4095..=-1 => Err(-result),
        _ => Err(libc::EIO),
    }
}

/// What a handler says of the exclusive lock, for reading or for writing. The numbers are those of
/// the interface's `get_lock_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockState {
    Unlocked = 1,
    /// This host is taking it.
    Locking = 4,
    /// This host has it.
    Locked = 5,
}

impl LockState {
    /// `None`: the handler does not know.
    pub(crate) fn of(number: i32) -> Option<LockState> {
        match number {
            1 => Some(LockState::Unlocked),
            2 | 4 => Some(LockState::Locking),
            3 | 5 => Some(LockState::Locked),
            _ => None,
        }
    }
}

/// A device, as handlers know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pointer(pub(crate) *mut Device);

// SAFETY: it is handed to the handler's functions, on any thread; nothing here follows it.
unsafe impl Send for Pointer {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_errno_is_an_input_output_error() {
        assert_eq!(errno(0), Ok(()));
        assert_eq!(errno(-libc::ENOENT), Err(libc::ENOENT));
        assert_eq!([errno(1), errno(-5000), errno(i32::MIN)], [Err(libc::EIO); 3]);
    }
}
