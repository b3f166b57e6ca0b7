// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to call the C program's callbacks.
//!
//! A program's handlers and their devices. In: the kernel's messages, the devices that are there at
//! the beginning, questions of D-Bus. Out: callbacks, whose results are the kernel's answers.
//!
//! Messages about subtypes that are not ours get no answer while somebody else listens to the kernel,
//! whose they may be; where nobody does, the kernel would wait forever, so they are refused.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::epoll;
use tcmu::netlink::{Event, EventKind, Incoming};
use tcmu::uio::Sysfs;
use tcmu::{Configfs, Netlink, Ring, UioDevice};
use tcmu_abi::layout::{
    CFG_DEV_CFGSTR, CFG_DEV_SIZE, CFG_WRITE_CACHE, tcmulib_cfg_data, tcmulib_cfg_info,
    tcmulib_handler,
};
use tcmu_abi::{Device, DeviceConfig};

use crate::checks::{Checks, Verdict};
use crate::dbus::Announced;
use crate::log;
use crate::queue::{HandlerPointer, Queue};

/// Where the kernel's side is.
pub(crate) struct Kernel {
    pub(crate) netlink: Netlink,
    pub(crate) sysfs: Sysfs,
    pub(crate) configfs: Configfs,
}

/// What `tcmulib_initialize` makes.
pub(crate) struct Context {
    handlers: Vec<Handler>,
    netlink: Mutex<Netlink>,
    sysfs: Sysfs,
    configfs: Configfs,
    /// By the minor of their UIO devices.
    devices: Mutex<BTreeMap<u32, Arc<Device>>>,
    /// Devices that are gone and whose commands C still has.
    unfinished: Mutex<Vec<Arc<Device>>>,
    checks: Arc<Checks>,
    /// Readable when there is a message or a question.
    ready: OwnedFd,
    /// The log's moves that the handlers know of.
    log_moves: AtomicU32,
    /// As long as handlers are announced over D-Bus.
    announced: Mutex<Option<Announced>>,
}

/// A handler of the program.
struct Handler {
    subtype: String,
    description: String,
    /// A copy of the program's structure, which devices refer to.
    c: HandlerPointer,
}

/// Text of C's; `None` for a null pointer.
///
/// # Safety
/// It ends with a NUL.
unsafe fn text(text: *const c_char) -> Option<String> {
    // SAFETY: as the caller promises.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

impl Handler {
    /// Takes one of the program's.
    ///
    /// # Safety
    /// Its strings end with a NUL; its functions are as they are declared.
    unsafe fn new(c: &tcmulib_handler) -> Result<Handler, String> {
        // SAFETY: as the caller promises.
        let (subtype, description) = unsafe { (text(c.subtype), text(c.cfg_desc)) };
        let subtype = subtype.filter(|subtype| !subtype.is_empty() && !subtype.contains('/'));
        let subtype = subtype.ok_or("a handler has no subtype, or one with a slash")?;
        if c.added.is_none() || c.removed.is_none() {
            return Err(format!("the handler {subtype} lacks the function added or removed"));
        }
        let description = description.unwrap_or_default();
        let c = HandlerPointer(Box::into_raw(Box::new(*c)));
        Ok(Handler { subtype, description, c })
    }

    /// The structure as it is now. The program may change what is its own.
    fn functions(&self) -> tcmulib_handler {
        // SAFETY: it was leaked by `new` and is freed when this is dropped.
        unsafe { self.c.0.read() }
    }

    fn check(&self, config: &str) -> Verdict {
        let Some(check) = self.functions().check_config else { return Ok(()) };
        let config = CString::new(config).map_err(|_| "it contains a NUL".to_owned())?;
        let mut reason: *mut c_char = ptr::null_mut();
        // SAFETY: as the program has declared it.
        let good = unsafe { check(config.as_ptr(), &raw mut reason) };
        // SAFETY: the reason is null or malloc'ed text.
        let why = unsafe { text(reason) };
        // SAFETY: as above; nothing else refers to it.
        unsafe { libc::free(reason.cast()) };
        if good { Ok(()) } else { Err(why.unwrap_or_else(|| "the handler gives no reason".into())) }
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        // SAFETY: it was leaked by `new`, and the devices that refer to it are gone.
        drop(unsafe { Box::from_raw(self.c.0) });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How messages name a device.
fn label(event: &Event) -> String {
    format!("user_{}/{}", event.device.hba, event.device.name)
}

impl Context {
    /// A context with the devices that are there already; the callbacks are called from within.
    ///
    /// # Safety
    /// The handlers are as `libtcmu.h` wants them, for as long as the context.
    pub(crate) unsafe fn new(
        handlers: &[tcmulib_handler],
        kernel: Kernel,
    ) -> Result<Box<Context>, String> {
        // SAFETY: as the caller promises.
        let handlers = handlers.iter().map(|c| unsafe { Handler::new(c) });
        let handlers = handlers.collect::<Result<Vec<_>, _>>()?;
        let Kernel { netlink, sysfs, configfs } = kernel;
        let ready = |checks: &Checks| -> io::Result<OwnedFd> {
            let ready = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            for fd in [netlink.as_fd(), checks.as_fd()] {
                let data = epoll::EventData::new_u64(0);
                epoll::add(&ready, fd, data, epoll::EventFlags::IN)?;
            }
            Ok(ready)
        };
        let failed = |error: io::Error| format!("cannot wait for events: {error}");
        let checks = Checks::new().map_err(failed)?;
        let ready = ready(&checks).map_err(failed)?;
        let context = Box::new(Context {
            handlers,
            netlink: Mutex::new(netlink),
            sysfs,
            configfs,
            devices: Mutex::default(),
            unfinished: Mutex::default(),
            checks: Arc::new(checks),
            ready,
            log_moves: AtomicU32::new(log::moves()),
            announced: Mutex::default(),
        });
        let this = ptr::from_ref::<Context>(&context).cast_mut();
        for handler in &context.handlers {
            // SAFETY: the copy is ours, and no device refers to it yet.
            unsafe { (*handler.c.0).ctx = this.cast() };
        }
        context.scan();
        Ok(context)
    }

    /// The descriptor that is readable when [`Context::ready`] has something to do.
    pub(crate) fn fd(&self) -> RawFd {
        self.ready.as_raw_fd()
    }

    /// Announces the handlers over D-Bus; `address`: of another bus than the system's.
    pub(crate) fn announce(&self, address: Option<String>) {
        let mut announced = lock(&self.announced);
        if announced.is_none() {
            let handlers =
                self.handlers.iter().map(|h| (h.subtype.clone(), h.description.clone())).collect();
            match Announced::start(address, handlers, self.checks.clone()) {
                Ok(started) => *announced = Some(started),
                Err(error) => tracing::error!("cannot start a thread for D-Bus: {error}"),
            }
        }
    }

    /// Handles what has come.
    pub(crate) fn ready(&self) -> Result<(), tcmu::Error> {
        let moves = log::moves();
        if self.log_moves.swap(moves, Ordering::Relaxed) != moves {
            for update in self.handlers.iter().filter_map(|h| h.functions().update_logdir) {
                // SAFETY: as the program has declared it.
                unsafe { update() };
            }
        }
        while let Some(check) = self.checks.next() {
            let handler = self.handlers.iter().find(|h| h.subtype == check.subtype);
            check.answer(handler.map_or(Err("no such handler".into()), |h| h.check(&check.config)));
        }
        loop {
            let incoming = lock(&self.netlink).receive()?;
            match incoming {
                Some(Incoming::Event(event)) => self.on_event(&event),
                Some(Incoming::Lost) => self.on_lost(),
                None => return Ok(()),
            }
        }
    }

    fn handler(&self, subtype: &str) -> Option<&Handler> {
        self.handlers.iter().find(|handler| handler.subtype == subtype)
    }

    fn on_event(&self, event: &Event) {
        let Some(handler) = self.handler(event.device.subtype()) else {
            return self.on_foreign(event);
        };
        let errno = match &event.kind {
            EventKind::Added => self.on_added(handler, event),
            EventKind::Removed => {
                if let Some(device) = self.take(event) {
                    self.close(&device);
                }
                0
            }
            EventKind::Reconfig { .. } => self.on_reconfig(handler, event),
        };
        self.reply(event, errno);
    }

    fn on_foreign(&self, event: &Event) {
        match lock(&self.netlink).has_other_listeners() {
            Ok(true) => {
                tracing::debug!("{}: {} is left to others", label(event), event.device.config);
                return;
            }
            Ok(false) => {}
            Err(error) => {
                tracing::error!("{}: no answer, others may serve it: {error}", label(event));
                return;
            }
        }
        if event.kind == EventKind::Removed {
            return self.reply(event, 0);
        }
        let subtype = event.device.subtype();
        tracing::error!("{}: there is no handler for the subtype {subtype:?}", label(event));
        self.reply(event, libc::EOPNOTSUPP);
    }

    /// The kernel dropped messages: nobody is to wait for an answer to them, and the devices are
    /// compared with those that are known.
    fn on_lost(&self) {
        tracing::error!("the kernel dropped netlink messages; scanning all devices again");
        if let Err(error) = tcmu::module::Module::default().reset_netlink() {
            tracing::error!("netlink cannot be reset: {error}");
        }
        self.scan();
    }

    fn reply(&self, event: &Event, errno: c_int) {
        if let Err(error) = lock(&self.netlink).reply(event, errno) {
            tracing::error!("{}: the kernel could not be answered: {error}", label(event));
        }
    }

    /// Adds the devices that are there and not known, removes those that are gone.
    fn scan(&self) {
        let found = match self.sysfs.scan() {
            Ok(found) => found,
            Err(error) => return tracing::error!("cannot look for devices: {error}"),
        };
        let mut gone = Vec::new();
        lock(&self.devices).retain(|minor, device| {
            let is_there =
                found.iter().any(|uio| uio.minor == *minor && is_same(device, &uio.name));
            if !is_there {
                gone.push(device.clone());
            }
            is_there
        });
        for device in gone {
            self.close(&device);
        }
        for uio in found {
            let known = lock(&self.devices).contains_key(&uio.minor);
            if let Some(handler) = self.handler(uio.name.subtype()).filter(|_| !known) {
                let _ = self.open(handler, uio);
            }
        }
    }

    /// The device of a message, taken out of the table.
    fn take(&self, event: &Event) -> Option<Arc<Device>> {
        let mut devices = lock(&self.devices);
        let device = devices.get(&event.minor)?;
        is_same(device, &event.device).then(|| devices.remove(&event.minor))?
    }

    fn on_added(&self, handler: &Handler, event: &Event) -> c_int {
        let known = lock(&self.devices).get(&event.minor).cloned();
        match known {
            // A scan found it before its message was read.
            Some(device) if is_same(&device, &event.device) => return 0,
            Some(device) => {
                lock(&self.devices).remove(&event.minor);
                self.close(&device);
            }
            None => {}
        }
        match self.sysfs.device(event.minor) {
            Ok(Some(uio)) => self.open(handler, uio).err().unwrap_or(0),
            Ok(None) => {
                tracing::error!("{}: its UIO device is not there", label(event));
                libc::ENODEV
            }
            Err(error) => {
                tracing::error!("{}: {error}", label(event));
                libc::EIO
            }
        }
    }

    /// Opens a device and gives it to its handler; an errno if that refuses it.
    fn open(&self, handler: &Handler, uio: UioDevice) -> Result<(), c_int> {
        let name = format!("user_{}/{}", uio.name.hba, uio.name.name);
        let device = self.device(handler, &uio).map_err(|error| {
            tracing::error!("{name}: {error}");
            if matches!(error, tcmu::Error::Busy(_)) { libc::EBUSY } else { libc::EIO }
        })?;
        // `removed` may be called as soon as `added` has returned, not earlier.
        let added = handler.functions().added.map_or(-libc::EINVAL, |added| {
            // SAFETY: as the program has declared it; the device stays until `removed`.
            unsafe { added(device.as_ptr()) }
        });
        if added != 0 {
            tracing::error!("{name}: the handler {} refuses it: {added}", handler.subtype);
            self.keep_if_unfinished(&device);
            return Err(added.saturating_abs());
        }
        lock(&self.devices).insert(uio.minor, device);
        Ok(())
    }

    fn device(&self, handler: &Handler, uio: &UioDevice) -> Result<Arc<Device>, tcmu::Error> {
        let configfs = self.configfs.device(uio.name.hba, &uio.name.name)?;
        let mut ring = Ring::open(uio)?;
        if configfs.can_reset_ring() {
            if ring.has_leftovers() {
                ring.reset(&configfs)?;
            }
            ring.set_out_of_order(true);
        }
        let (name, minor) = (uio.name.clone(), uio.minor);
        let device = Device::new(DeviceConfig { name, minor, configfs: configfs.clone() });
        let properties = device.properties();
        let block_size = configfs.hw_block_size()?.unwrap_or(0);
        properties.set_block_size(block_size);
        properties.set_max_xfer_len(configfs.hw_max_sectors()?.unwrap_or(0));
        let blocks = configfs.dev_size()?.unwrap_or(0).checked_div(block_size.into());
        properties.set_num_lbas(blocks.unwrap_or(0));
        properties.set_write_cache_enabled(configfs.emulate_write_cache()?.unwrap_or(false));
        // A device that was made just now has no owner yet.
        let _ = device.attach(Box::new(Queue::new(ring, configfs, handler.c)));
        Ok(device)
    }

    fn on_reconfig(&self, handler: &Handler, event: &Event) -> c_int {
        let device = lock(&self.devices).get(&event.minor).cloned();
        let Some(device) = device.filter(|device| is_same(device, &event.device)) else {
            tracing::error!("{}: cannot change it: it is not open", label(event));
            return libc::ENODEV;
        };
        let Some(reconfig) = handler.functions().reconfig else { return libc::EOPNOTSUPP };
        let EventKind::Reconfig { config, size, write_cache } = &event.kind else { return 0 };
        let text = config.as_deref().map(CString::new).transpose();
        let Ok(text) = text else { return libc::EINVAL };
        let changes = [
            text.as_ref().map(|text| tcmulib_cfg_info {
                kind: CFG_DEV_CFGSTR,
                data: tcmulib_cfg_data { dev_cfgstring: text.as_ptr().cast_mut() },
            }),
            size.map(|size| tcmulib_cfg_info {
                kind: CFG_DEV_SIZE,
                data: tcmulib_cfg_data { dev_size: size },
            }),
            write_cache.map(|on| tcmulib_cfg_info {
                kind: CFG_WRITE_CACHE,
                data: tcmulib_cfg_data { write_cache: on },
            }),
        ];
        for mut change in changes.into_iter().flatten() {
            // SAFETY: as the program has declared it; what it gets is valid for the call.
            let result = unsafe { reconfig(device.as_ptr(), &raw mut change) };
            if result != 0 {
                tracing::error!("{}: the handler refuses the change: {result}", label(event));
                return result.saturating_abs();
            }
        }
        if let Some(config) = config {
            device.set_cfgstring(config);
        }
        0
    }

    /// Takes a device away from its handler. It is not in the table any more.
    fn close(&self, device: &Arc<Device>) {
        let handler = self.handler(device.name().subtype());
        if let Some(removed) = handler.and_then(|handler| handler.functions().removed) {
            // SAFETY: as the program has declared it.
            unsafe { removed(device.as_ptr()) };
        }
        self.keep_if_unfinished(device);
    }

    /// A device whose commands C still has stays, though nothing will come of them: threads of the
    /// program may be about to complete them.
    fn keep_if_unfinished(&self, device: &Arc<Device>) {
        let commands = device.owner().map_or(0, Queue::in_flight);
        if commands > 0 {
            let name = device.configfs().path().display();
            tracing::error!("{name}: {commands} commands were not completed before it was removed");
            lock(&self.unfinished).push(device.clone());
        }
    }

    /// Calls `removed` for all devices.
    pub(crate) fn end(&self) {
        *lock(&self.announced) = None;
        let devices = mem::take(&mut *lock(&self.devices));
        for device in devices.into_values() {
            self.close(&device);
        }
        // Their commands are C's until the process ends.
        mem::take(&mut *lock(&self.unfinished)).into_iter().for_each(mem::forget);
    }
}

/// Whether it is the device of that name. A name's configuration string changes with the device.
fn is_same(device: &Device, name: &tcmu::DeviceName) -> bool {
    (device.name().hba, &device.name().name) == (name.hba, &name.name)
}

#[cfg(test)]
mod tests;
