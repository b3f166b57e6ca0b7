// SPDX-License-Identifier: Apache-2.0
//! What there is to know of a handler before one of its functions is called, in this process or in
//! another: its names, its threads, which functions it has. The interface is an optional function for
//! each thing that a handler can do.
use std::ffi::c_int;

use tcmu_abi::layout::tcmur_handler;

use crate::isolation::wire::Facts;
use crate::loader::Refusal;

/// Length of a subtype, in bytes, as for handlers on D-Bus.
pub(crate) const MAX_SUBTYPE: usize = 64;
/// More threads of a device than these are beyond reason.
const MAX_THREADS: c_int = 1024;

/// The functions, a bit each.
pub(crate) mod function {
    pub(crate) const OPEN: u32 = 1 << 0;
    pub(crate) const CLOSE: u32 = 1 << 1;
    pub(crate) const READ: u32 = 1 << 2;
    pub(crate) const WRITE: u32 = 1 << 3;
    pub(crate) const FLUSH: u32 = 1 << 4;
    pub(crate) const UNMAP: u32 = 1 << 5;
    pub(crate) const WRITE_SAME: u32 = 1 << 6;
    pub(crate) const COMPARE_AND_WRITE: u32 = 1 << 7;
    pub(crate) const HANDLE_COMMAND: u32 = 1 << 8;
    pub(crate) const REPORT_EVENT: u32 = 1 << 9;
    pub(crate) const LOCK: u32 = 1 << 10;
    pub(crate) const UNLOCK: u32 = 1 << 11;
    pub(crate) const UPDATE_LOG_DIR: u32 = 1 << 12;
}

/// The bits of the functions that a table has.
pub(crate) fn functions(raw: &tcmur_handler) -> u32 {
    let has = [
        (raw.open.is_some(), function::OPEN),
        (raw.close.is_some(), function::CLOSE),
        (raw.read.is_some(), function::READ),
        (raw.write.is_some(), function::WRITE),
        (raw.flush.is_some(), function::FLUSH),
        (raw.unmap.is_some(), function::UNMAP),
        (raw.writesame.is_some(), function::WRITE_SAME),
        (raw.caw.is_some(), function::COMPARE_AND_WRITE),
        (raw.handle_cmd.is_some(), function::HANDLE_COMMAND),
        (raw.report_event.is_some(), function::REPORT_EVENT),
        (raw.lock.is_some(), function::LOCK),
        (raw.unlock.is_some(), function::UNLOCK),
        (raw.update_logdir.is_some(), function::UPDATE_LOG_DIR),
    ];
    has.iter().filter(|(has, _)| *has).fold(0, |all, (_, bit)| all | bit)
}

/// Whether a name can be that of a D-Bus object, and stand before a slash.
fn is_subtype(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    name.len() <= MAX_SUBTYPE
        && name.bytes().all(plain)
        && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

impl Facts {
    /// Whether there is one of these functions.
    pub(crate) fn has(&self, functions: u32) -> bool {
        self.functions & functions != 0
    }

    /// Whether what a plugin says of a handler makes sense.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let subtype = self.subtype.clone();
        if !is_subtype(&subtype) {
            return Err(Refusal::Subtype(subtype));
        }
        let has = |functions| self.has(functions);
        let missing = [
            (!has(function::OPEN), "open"),
            (!has(function::CLOSE), "close"),
            (
                !has(function::READ | function::WRITE | function::HANDLE_COMMAND),
                "read, write and handle_cmd",
            ),
            (!has(function::READ) && has(function::WRITE), "read"),
            (has(function::LOCK) && !has(function::UNLOCK), "unlock"),
        ];
        if let Some((_, what)) = missing.into_iter().find(|(missing, _)| *missing) {
            return Err(Refusal::Missing { subtype, what });
        }
        if !(0..=MAX_THREADS).contains(&self.threads) {
            return Err(Refusal::Threads { subtype, threads: self.threads });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subtype_is_a_name_that_a_bus_takes() {
        for good in ["qcow", "fbo", "_x9", "A"] {
            assert!(is_subtype(good), "{good}");
        }
        let long = "x".repeat(MAX_SUBTYPE + 1);
        for bad in ["", "9x", "a/b", "a-b", "ä", long.as_str()] {
            assert!(!is_subtype(bad), "{bad}");
        }
    }
}
