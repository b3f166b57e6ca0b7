// SPDX-License-Identifier: Apache-2.0
//! A session: what one client has made of its machine.
//!
//! A session serves a sysroot, on which the client mounts filesystems, or with `-r` the machine it runs on. It
//! keeps what calls share: names of devices, optional groups, and one value per area of whatever type the area
//! needs ([`Session::state`]). When it ends, however it ends, programs that are still running are
//! killed, everything below the sysroot is unmounted, and what was made of the disks is taken down
//! ([`Made`]).

use crate::augeas;
use crate::btrfs::scrubs::Scrubs;
use crate::config::Config;
use crate::devices::{Device, Devices};
use crate::features::Features;
use crate::flush::Flushes;
use crate::lvm;
use crate::mountable::Mountable;
use crate::teardown::{Made, layers};
use crate::udev::Udev;
use guest_error::{Context, Errno, Error, Result};
use guest_fs::paths::{Entry, GuestPath, Root, Sysroot};
use rustix::fs::{Mode, OFlags};
use std::any::{Any, TypeId};
use std::cell::{Cell, OnceCell};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::Path;

/// One client's session.
#[derive(Debug)]
pub(crate) struct Session {
    config: Config,
    sysroot: Sysroot,
    /// The sysroot, while calls need it one after the other.
    root: OnceCell<Root>,
    /// Whether that was found to have a filesystem on it.
    rooted: Cell<bool>,
    devices: Devices,
    udev: Udev,
    features: Features,
    flushes: Flushes,
    made: Made,
    state: HashMap<TypeId, Box<dyn Any>>,
    quitting: bool,
    ended: bool,
}

impl Session {
    /// A session in which nothing has been done yet.
    pub(crate) fn new(config: Config) -> Self {
        Self {
            sysroot: Sysroot::new(&config.sysroot),
            root: OnceCell::new(),
            rooted: Cell::new(false),
            devices: Devices::new(!config.serves_machine()),
            udev: Udev::default(),
            features: Features::new(config.host_access),
            flushes: Flushes::default(),
            made: Made::default(),
            state: HashMap::new(),
            quitting: false,
            ended: false,
            config,
        }
    }

    /// What it was asked to be.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Where filesystems are mounted.
    pub(crate) fn sysroot(&self) -> &Sysroot {
        &self.sysroot
    }

    /// Names of devices.
    pub(crate) fn devices(&mut self) -> &mut Devices {
        &mut self.devices
    }

    /// Waiting for udev.
    pub(crate) fn udev(&mut self) -> &mut Udev {
        &mut self.udev
    }

    /// Which optional groups there are.
    pub(crate) fn features(&mut self) -> &mut Features {
        &mut self.features
    }

    /// Flushing, and what came of it before.
    pub(crate) fn flushes(&mut self) -> &mut Flushes {
        &mut self.flushes
    }

    /// Does what makes devices of the disks (LUKS, LVM, md ...), and takes note of them.
    pub(crate) fn noting<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.config.own_machine {
            return work(self);
        }
        let before = layers(self.settled_devices());
        let done = work(self);
        self.settled_devices();
        self.made.note(&before, &mut self.devices);
        done
    }

    /// Flushes what is mounted in the sysroot there, and in directories below.
    pub(crate) fn flush_mounts(&mut self, at: &Path) -> Result<()> {
        // Some of the machine's own filesystems may never answer: they are left to sync(2).
        if self.config.serves_machine() {
            return Ok(());
        }
        self.flushes.mounts(&self.sysroot, &mut self.devices, at)
    }

    /// Flushes everything that the session can have written to.
    pub(crate) fn flush_all(&mut self) -> Result<()> {
        let flushed = self.flush_mounts(Path::new("/"));
        let devices = if self.config.serves_machine() { Ok(()) } else { self.flush_devices() };
        // Everything else. sync(2) reports no errors.
        rustix::fs::sync();
        // Data of a filesystem that was unmounted since is lost as well.
        flushed.and(devices).and(self.flushes.any())
    }

    fn flush_devices(&mut self) -> Result<()> {
        self.settled_devices();
        self.flushes.devices(&mut self.devices)
    }

    /// What an area keeps from call to call: its own type, made when first asked for, dropped at the end
    /// of the session, before filesystems are unmounted.
    pub(crate) fn state<T: Default + 'static>(&mut self) -> &mut T {
        let slot = self.state.entry(TypeId::of::<T>());
        let slot = slot.or_insert_with(|| Box::<T>::default());
        match slot.downcast_mut::<T>() {
            Some(state) => state,
            // The key is the type's own.
            None => unreachable!("state of another type under a type's id"),
        }
    }

    /// The sysroot, open until [`Session::release_root`].
    pub(crate) fn root(&self) -> Result<&Root> {
        if let Some(root) = self.root.get() {
            return Ok(root);
        }
        let root = self.sysroot.open()?;
        Ok(self.root.get_or_init(|| root))
    }

    /// Lets go of the sysroot: while it is open it cannot be unmounted, and what is mounted on it is not
    /// seen. It stays open from one call on files to the next, and no longer.
    pub(crate) fn release_root(&mut self) {
        self.root.take();
        self.rooted.set(false);
    }

    /// An error unless a filesystem is mounted on the sysroot, or on a directory of `mkmountpoint`.
    pub(crate) fn need_root(&self) -> Result<()> {
        if self.rooted.get()
            || self.config.serves_machine()
            || self.root()?.is_mount()?
            || !crate::mounts::below(&self.sysroot)?.is_empty()
        {
            self.rooted.set(true);
            return Ok(());
        }
        let message = "you must call 'mount' first to mount the root filesystem";
        Err(Error::new(Errno::EINVAL, message))
    }

    /// Opens a file of the guest, its last component followed unless `flags` have `NOFOLLOW`; a file
    /// that is made gets mode 0666 less the umask. A FIFO that the guest has there is not waited for.
    pub(crate) fn open(&self, path: GuestPath<'_>, flags: OFlags) -> Result<File> {
        let mode = Mode::from_raw_mode(0o666);
        // O_PATH opens nothing that could wait, and openat2 refuses it with what makes no sense.
        let wait = if flags.contains(OFlags::PATH) { OFlags::empty() } else { OFlags::NONBLOCK };
        let flags = flags | wait;
        self.root()?.open(path.as_os_str(), flags, mode).map(File::from).on(path)
    }

    /// The directory and name of a path, to do something to the name.
    pub(crate) fn entry(&self, path: GuestPath<'_>) -> Result<Entry> {
        self.root()?.entry(path.as_os_str()).on(path)
    }

    /// The device of this name; waits for udev if anything changed or the device is not there. `ENODEV` means that there
    /// could be one: it is the name of a volume that is not active.
    pub(crate) fn device(&mut self, argument: &str, name: &OsStr) -> Result<Device> {
        if self.udev.settle() {
            self.devices.forget();
        }
        match self.devices.find(argument, name) {
            Err(e)
                if e.errno() == Errno::ENOENT && name.as_encoded_bytes().starts_with(b"/dev/") =>
            {
                self.devices.forget();
                self.udev.changed();
                self.udev.settle();
                let found = self.devices.find(argument, name);
                found.map_err(|e| lvm::without_device(self, name).unwrap_or(e))
            }
            found => found,
        }
    }

    /// The mountable of this name.
    pub(crate) fn mountable(&mut self, argument: &str, name: &OsStr) -> Result<Mountable> {
        if self.udev.settle() {
            self.devices.forget();
        }
        match Mountable::find(&mut self.devices, argument, name) {
            Err(e) if matches!(e.errno(), Errno::ENOENT | Errno::EINVAL) => {
                self.devices.forget();
                self.udev.changed();
                self.udev.settle();
                let found = Mountable::find(&mut self.devices, argument, name);
                found.map_err(|e| lvm::without_device(self, name).unwrap_or(e))
            }
            found => found,
        }
    }

    /// Whole disks, after waiting for udev if anything changed.
    pub(crate) fn settled_devices(&mut self) -> &mut Devices {
        if self.udev.settle() {
            self.devices.forget();
        }
        &mut self.devices
    }

    /// The client's name for a device of this machine.
    pub(crate) fn client_name(&mut self, device: &Path) -> OsString {
        self.devices.to_client(device)
    }

    /// Flushes and unmounts everything below the sysroot; the tree of augeas, which is of files there, is closed, and
    /// nothing is scrubbed any more.
    pub(crate) fn unmount_all(&mut self) -> Result<()> {
        self.state::<augeas::State>().close();
        self.state::<Scrubs>().cancel_all();
        self.release_root();
        let flushed = self.flush_mounts(Path::new("/"));
        crate::mounts::unmount_all(&self.sysroot).and(flushed)
    }

    /// Ends the session after this call, without a reply.
    pub(crate) fn quit(&mut self) {
        self.quitting = true;
    }

    /// Whether the session is to end.
    pub(crate) fn quitting(&self) -> bool {
        self.quitting
    }

    /// Ends the session: kills what runs, unmounts what is mounted, takes down what was made of the disks. Yields the
    /// first error.
    pub(crate) fn end(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        self.state.clear();
        self.release_root();
        if self.config.serves_machine() {
            return Ok(());
        }
        crate::children::kill_all();
        let flushed = self.flush_mounts(Path::new("/"));
        let unmounted = crate::mounts::unmount_all(&self.sysroot);
        unmounted.and(flushed).and(self.take_down())
    }

    /// Takes down what was made of the disks. What is still there is logged; the first one is the error.
    pub(crate) fn take_down(&mut self) -> Result<()> {
        if self.config.serves_machine() {
            return Ok(());
        }
        self.settled_devices();
        let taken_down = self.made.take_down(&mut self.devices, self.config.own_machine);
        if !matches!(taken_down, Ok(false)) {
            self.udev.changed();
        }
        taken_down.map(drop)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Err(e) = self.end() {
            tracing::error!(error = %e, "ending the session");
        }
    }
}
