// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to take devices back from C's pointers.
//!
//! A [`Device`] is what C code has a pointer to: who it is, the properties that handlers set and
//! ask for, pointers of theirs. What serves it hangs its own state on it ([`Owner`]).
#![allow(unsafe_code)]

use std::any::Any;
use std::ffi::{CStr, CString, c_void};
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tcmu::{DeviceName, configfs};

use crate::layout::tcmulib_handler;
use crate::properties::Properties;

/// What serves a device: the state and the answers that are not the same everywhere.
pub trait Owner: Any + Send + Sync {
    /// The descriptor of the ring; -1: C code gets none.
    fn fd(&self) -> RawFd {
        -1
    }

    /// What `tcmu_dev_get_handler` answers.
    fn handler(&self) -> *mut tcmulib_handler {
        ptr::null_mut()
    }

    /// The memory that is shared with the kernel.
    fn memory(&self) -> Option<Memory> {
        None
    }

    /// Answers what is in the ring and was not read yet so that initiators send it again.
    fn flush_ring(&self) {}

    /// Whether the kernel takes completions in any order.
    fn completes_out_of_order(&self) -> bool {
        true
    }
}

/// Memory that is shared with the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Where it is mapped.
    pub base: NonNull<u8>,
    /// Its length in bytes.
    pub len: usize,
}

/// What a device is made of.
#[derive(Clone, Debug)]
pub struct DeviceConfig {
    /// Its name and configuration string.
    pub name: DeviceName,
    /// N of `uioN`.
    pub minor: u32,
    /// Its directory.
    pub configfs: configfs::Device,
}

/// A device.
pub struct Device {
    name: DeviceName,
    uio_name: CString,
    configfs: configfs::Device,
    cfgstrings: Mutex<Cfgstrings>,
    properties: Properties,
    private: AtomicPtr<c_void>,
    runner_private: AtomicPtr<c_void>,
    owner: OnceLock<Box<dyn Owner>>,
}

/// Configuration strings that C code may have pointers to. Each is there once, so that only an
/// administrator's changes add to them, and they stay as long as the device.
struct Cfgstrings {
    all: Vec<CString>,
    current: usize,
}

impl Device {
    /// A device that nobody serves yet.
    pub fn new(config: DeviceConfig) -> Arc<Device> {
        let DeviceConfig { name, minor, configfs } = config;
        let first = c_string(&name.config);
        Arc::new(Device {
            name,
            uio_name: c_string(&format!("uio{minor}")),
            configfs,
            cfgstrings: Mutex::new(Cfgstrings { all: vec![first], current: 0 }),
            properties: Properties::default(),
            private: AtomicPtr::default(),
            runner_private: AtomicPtr::default(),
            owner: OnceLock::new(),
        })
    }

    /// Hangs the owner's state on it; gives it back if there is one already.
    pub fn attach(&self, owner: Box<dyn Owner>) -> Result<(), Box<dyn Owner>> {
        self.owner.set(owner)
    }

    /// The owner's state, if it is a `T`.
    pub fn owner<T: Owner>(&self) -> Option<&T> {
        let owner: &dyn Any = self.served_by()?;
        owner.downcast_ref()
    }

    pub(crate) fn served_by(&self) -> Option<&dyn Owner> {
        self.owner.get().map(Box::as_ref)
    }

    /// What C code knows it by; valid as long as the device.
    pub fn as_ptr(&self) -> *mut Device {
        ptr::from_ref(self).cast_mut()
    }

    /// The device behind C's pointer; `None` for a null pointer.
    ///
    /// # Safety
    /// The pointer is null, or comes from [`Device::as_ptr`] of a device that exists for `'a`.
    pub unsafe fn from_ptr<'a>(device: *const Device) -> Option<&'a Device> {
        // SAFETY: as the caller promises. A device is only ever borrowed shared.
        unsafe { device.as_ref() }
    }

    /// As the kernel calls it, with the configuration string that it had at first.
    pub fn name(&self) -> &DeviceName {
        &self.name
    }

    /// `uioN`.
    pub fn uio_name(&self) -> &CStr {
        &self.uio_name
    }

    /// Its directory.
    pub fn configfs(&self) -> &configfs::Device {
        &self.configfs
    }

    /// What handlers set and ask for.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// The configuration string, with the subtype.
    pub fn cfgstring(&self) -> String {
        self.with_cfgstring(|current| current.to_string_lossy().into_owned())
    }

    /// Changes the configuration string. What C code has of earlier ones stays valid.
    pub fn set_cfgstring(&self, config: &str) {
        let config = c_string(config);
        let mut strings = self.cfgstrings.lock().unwrap_or_else(PoisonError::into_inner);
        let known = strings.all.iter().position(|known| *known == config);
        strings.current = known.unwrap_or_else(|| {
            strings.all.push(config);
            strings.all.len() - 1
        });
    }

    /// The configuration string for C code, valid as long as the device.
    pub fn cfgstring_ptr(&self) -> *const std::ffi::c_char {
        self.with_cfgstring(CStr::as_ptr)
    }

    fn with_cfgstring<T>(&self, look: impl FnOnce(&CStr) -> T) -> T {
        let strings = self.cfgstrings.lock().unwrap_or_else(PoisonError::into_inner);
        look(strings.all.get(strings.current).map_or(c"", CString::as_c_str))
    }

    /// The pointer that a handler keeps (`tcmu_dev_set_private`).
    pub fn private(&self) -> *mut c_void {
        self.private.load(Ordering::Acquire)
    }

    /// Keeps a handler's pointer.
    pub fn set_private(&self, private: *mut c_void) {
        self.private.store(private, Ordering::Release);
    }

    /// The pointer that a plugin keeps (`tcmur_dev_set_private`).
    pub fn runner_private(&self) -> *mut c_void {
        self.runner_private.load(Ordering::Acquire)
    }

    /// Keeps a plugin's pointer.
    pub fn set_runner_private(&self, private: *mut c_void) {
        self.runner_private.store(private, Ordering::Release);
    }
}

/// Text for C; what follows a NUL is cut off.
pub(crate) fn c_string(text: &str) -> CString {
    let text = text.split('\0').next().unwrap_or_default();
    CString::new(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Served(u32);
    impl Owner for Served {}
    struct Other;
    impl Owner for Other {}

    fn device() -> Arc<Device> {
        let name = DeviceName { hba: 3, name: "disk".into(), config: "file//a".into() };
        let configfs = tcmu::Configfs::new("/nonexistent").device(3, "disk").unwrap();
        Device::new(DeviceConfig { name, minor: 7, configfs })
    }

    #[test]
    fn a_configuration_string_that_c_code_has_stays_when_it_changes() {
        let device = device();
        let first = device.cfgstring_ptr();
        device.set_cfgstring("file//b");
        let second = device.cfgstring_ptr();
        for _ in 0..100 {
            device.set_cfgstring("file//a");
            assert_eq!(device.cfgstring_ptr(), first);
            device.set_cfgstring("file//b");
            assert_eq!(device.cfgstring_ptr(), second);
        }
        // SAFETY: the device exists.
        let texts = unsafe { (CStr::from_ptr(first), CStr::from_ptr(second)) };
        assert_eq!(texts, (c"file//a", c"file//b"));
        assert_eq!(device.cfgstring(), "file//b");
    }

    #[test]
    fn the_owner_finds_its_state_and_nobody_elses() {
        let device = device();
        assert!(device.owner::<Served>().is_none());
        assert!(device.attach(Box::new(Served(5))).is_ok());
        assert_eq!(device.owner::<Served>().unwrap().0, 5);
        assert!(device.owner::<Other>().is_none());
        assert!(device.attach(Box::new(Other)).is_err());
    }

    #[test]
    fn a_pointer_leads_back_to_its_device() {
        let device = device();
        // SAFETY: the device exists.
        let back = unsafe { Device::from_ptr(device.as_ptr()) }.unwrap();
        assert_eq!((back.uio_name(), back.name().hba), (c"uio7", 3));
        // SAFETY: a null pointer.
        assert!(unsafe { Device::from_ptr(ptr::null()) }.is_none());
    }
}
