// SPDX-License-Identifier: Apache-2.0
//! Scrubs of a session: each reads and verifies all that is on the devices of a filesystem, on a thread for each
//! device, while the client goes on with other calls.
//!
//! What came of one is kept for as long as the session lasts, so that it can be asked for, and one that was cancelled
//! can go on from where it was. When the session ends, those that run are cancelled.

use super::ioctl::{filesystem_uuid, scrub};
use super::members;
use guest_error::{Context, Errno, Error, Result};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

pub(crate) use super::ioctl::scrub::Progress;

/// Time between looking whether something is so far.
const PERIOD: Duration = Duration::from_millis(1);

/// Scrubs of all filesystems, by UUID.
#[derive(Debug, Default)]
pub(crate) struct Scrubs {
    known: HashMap<[u8; 16], Scrub>,
}

/// The last scrub of a filesystem.
#[derive(Debug)]
struct Scrub {
    devices: Vec<OfDevice>,
    /// The filesystem, for as long as it is being scrubbed: then it can be unmounted.
    filesystem: Weak<File>,
    read_only: bool,
}

/// That of one device.
#[derive(Debug)]
struct OfDevice {
    number: u64,
    /// Of what was done before it was resumed.
    before: Progress,
    thread: Option<JoinHandle<()>>,
    outcome: Arc<Mutex<Option<Outcome>>>,
}

/// How it ended, and how far it came.
type Outcome = (rustix::io::Result<()>, Progress);

impl OfDevice {
    fn start(
        filesystem: &Arc<File>,
        number: u64,
        before: Progress,
        read_only: bool,
    ) -> Result<Self> {
        let outcome = Arc::new(Mutex::new(None));
        let (result, filesystem) = (Arc::clone(&outcome), Arc::clone(filesystem));
        let run = move || {
            let done = scrub::run(&*filesystem, number, before.last_physical, read_only);
            // Whoever sees that it has ended can unmount.
            drop(filesystem);
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
        };
        let thread = std::thread::Builder::new().name("scrub".into()).spawn(run).on("scrub")?;
        Ok(Self { number, before, thread: Some(thread), outcome })
    }

    fn outcome(&self) -> Option<Outcome> {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn was_cancelled(&self) -> bool {
        matches!(self.outcome(), Some((Err(rustix::io::Errno::CANCELED), _)))
    }

    /// All that was done so far.
    fn progress(&self, filesystem: &File) -> Progress {
        let now = match self.outcome() {
            Some((_, progress)) => progress,
            // It may be ending just now.
            None => scrub::progress(filesystem, self.number)
                .unwrap_or_else(|_| self.outcome().map(|(_, p)| p).unwrap_or_default()),
        };
        self.before.and(now)
    }
}

impl Scrub {
    fn is_running(&self) -> bool {
        self.devices.iter().any(|device| device.outcome().is_none())
    }

    /// Waits until it is on its way on all devices, or has ended there: what the kernel refuses at once is an error.
    fn check_start(&self, filesystem: &File) -> rustix::io::Result<()> {
        for device in &self.devices {
            while device.outcome().is_none() && scrub::progress(filesystem, device.number).is_err()
            {
                std::thread::sleep(PERIOD);
            }
            match device.outcome() {
                Some((Err(e), _)) if e != rustix::io::Errno::CANCELED => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// Has it end, and waits for that.
    fn cancel(&mut self) {
        while let Some(filesystem) = self.filesystem.upgrade().filter(|_| self.is_running()) {
            // Not running: it is about to begin, or to end.
            if scrub::cancel(&*filesystem).is_err() {
                std::thread::sleep(PERIOD);
            }
        }
        self.join();
    }

    fn join(&mut self) {
        for device in &mut self.devices {
            if let Some(thread) = device.thread.take() {
                // It has no way to panic, and its outcome is what counts.
                thread.join().ok();
            }
        }
    }
}

impl Drop for Scrub {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl Scrubs {
    /// Starts one on all devices of a filesystem.
    pub(crate) fn start(&mut self, filesystem: File, name: &OsStr, read_only: bool) -> Result<()> {
        let uuid = filesystem_uuid(&filesystem).on(name)?;
        if self.known.get(&uuid).is_some_and(Scrub::is_running) {
            return Err(Error::new(Errno::EINPROGRESS, "is being scrubbed already").within(name));
        }
        let numbers = members::numbers(&filesystem).on(name)?;
        let filesystem = Arc::new(filesystem);
        let mut scrub =
            Scrub { devices: Vec::new(), filesystem: Arc::downgrade(&filesystem), read_only };
        for (number, _) in numbers {
            let before = Progress::default();
            scrub.devices.push(OfDevice::start(&filesystem, number, before, read_only)?);
        }
        scrub.check_start(&filesystem).on(name)?;
        self.known.insert(uuid, scrub);
        Ok(())
    }

    /// Has one go on that was cancelled.
    pub(crate) fn resume(&mut self, filesystem: File, name: &OsStr) -> Result<()> {
        let uuid = filesystem_uuid(&filesystem).on(name)?;
        let scrub = self.known.get_mut(&uuid).filter(|scrub| {
            !scrub.is_running() && scrub.devices.iter().any(OfDevice::was_cancelled)
        });
        let scrub = scrub.ok_or_else(|| {
            Error::new(Errno::ENOTCONN, "there is no scrub to resume").within(name)
        })?;
        let filesystem = Arc::new(filesystem);
        scrub.filesystem = Arc::downgrade(&filesystem);
        for device in scrub.devices.iter_mut().filter(|device| device.was_cancelled()) {
            let before = device.progress(&filesystem);
            *device = OfDevice::start(&filesystem, device.number, before, scrub.read_only)?;
        }
        scrub.check_start(&filesystem).on(name)
    }

    /// Cancels one.
    pub(crate) fn cancel(&mut self, filesystem: &File, name: &OsStr) -> Result<()> {
        let uuid = filesystem_uuid(filesystem).on(name)?;
        match self.known.get_mut(&uuid).filter(|scrub| scrub.is_running()) {
            Some(scrub) => {
                scrub.cancel();
                Ok(())
            }
            // One that somebody else has started.
            None => scrub::cancel(filesystem).on(name),
        }
    }

    /// Cancels all: what is being scrubbed cannot be unmounted.
    pub(crate) fn cancel_all(&mut self) {
        self.known.values_mut().for_each(Scrub::cancel);
    }

    /// Waits for the end of one; what could not be corrected is an error.
    pub(crate) fn finish(&mut self, filesystem: &File, name: &OsStr) -> Result<()> {
        let uuid = filesystem_uuid(filesystem).on(name)?;
        let Some(scrub) = self.known.get_mut(&uuid) else { return Ok(()) };
        while scrub.is_running() {
            if guest_fs::interrupt::requested() {
                scrub.cancel();
                return Err(Error::new(Errno::EINTR, "the daemon was told to end"));
            }
            std::thread::sleep(PERIOD);
        }
        scrub.join();
        for device in &scrub.devices {
            if let Some((Err(e), _)) = device.outcome() {
                return Err(e).on(name);
            }
        }
        let errors: u64 =
            scrub.devices.iter().map(|d| d.progress(filesystem).uncorrectable_errors).sum();
        if errors > 0 {
            let why = format!("has {errors} errors that cannot be corrected");
            return Err(Error::new(Errno::EIO, why).within(name));
        }
        Ok(())
    }

    /// What the last one has done so far, on all devices.
    pub(crate) fn progress(&self, filesystem: &File, name: &OsStr) -> Result<Progress> {
        let uuid = filesystem_uuid(filesystem).on(name)?;
        let devices = self.known.get(&uuid).map_or(&[][..], |scrub| &scrub.devices);
        let all = devices.iter().map(|device| device.progress(filesystem));
        Ok(all.fold(Progress::default(), Progress::and))
    }
}
