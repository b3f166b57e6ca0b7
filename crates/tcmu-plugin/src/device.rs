// SPDX-License-Identifier: Apache-2.0
//! An open device of a handler. [`PluginDevice`] is the end of the device's own thread: it hands
//! commands to the handler and awaits their statuses. [`Shared`] is what any thread has: what the
//! handler's calls find by the device's pointer, until the handler has closed the device.
use std::cell::RefCell;
use std::ffi::CString;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::ptr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use sgl::Sgl;
use tcmu_abi::Device;
use tcmu_abi::layout::{SENSE_LEN, tcmur_device};
use tcmu_abi::properties::Properties;

use crate::answer::Answer;
use crate::callers::Callers;
use crate::calls::{Calls, Completion, Gate};
use crate::handler::{Handler, Pointer};
use crate::isolation::remote::Remote;
use crate::lock::Lock;
use crate::memory::{Block, Spare};
use crate::operation::{Change, Operation};
use crate::place::{self, Place};
use crate::pool::{blocking, spawn};
use crate::recovery::Recovery;
use crate::setup::{OpenError, Setup};
use crate::status::Status;
use crate::{PluginStore, config};

/// What the device's own thread is to be told.
#[derive(Default)]
struct News {
    resized: bool,
    waker: Option<Waker>,
}

/// What any thread has of a device.
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) handler: Arc<Handler>,
    pub(crate) abi: Arc<Device>,
    pub(crate) place: Place,
    pub(crate) calls: Arc<Calls>,
    pub(crate) lock: Lock,
    pub(crate) recovery: Recovery,
    /// What handlers of the C daemon find behind `tcmu_dev_get_private`.
    pub(crate) known: Box<tcmur_device>,
    news: Mutex<News>,
}

impl Shared {
    pub(crate) fn new(
        name: String,
        handler: Arc<Handler>,
        abi: Arc<Device>,
        place: Place,
    ) -> Arc<Shared> {
        let known: Box<tcmur_device> = Box::default();
        abi.set_private(ptr::from_ref(known.as_ref()).cast_mut().cast());
        Arc::new(Shared {
            calls: Arc::new(Calls::new(&name)),
            name,
            handler,
            abi,
            place,
            lock: Lock::default(),
            recovery: Recovery::default(),
            known,
            news: Mutex::default(),
        })
    }

    /// The device, as the handler knows it.
    pub(crate) fn pointer(&self) -> Pointer {
        Pointer(self.abi.as_ptr())
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new size, in bytes, that the handler tells of.
    pub(crate) fn resized(&self, size: u64) {
        self.set_size(size);
        if let Place::Hosted(relay) = &self.place {
            relay.properties(self.abi.properties());
            return relay.resized(size);
        }
        let mut news = self.news();
        news.resized = true;
        let waker = news.waker.take();
        drop(news);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn set_size(&self, size: u64) {
        let properties = self.abi.properties();
        properties.set_num_lbas(size / u64::from(properties.block_size().max(1)));
    }

    /// Has the handler close the device, once it has completed everything.
    fn end(&self) {
        self.calls.wait_idle();
        if self.recovery.end() {
            self.lock.end(self);
            self.close(true);
        }
        place::forget(self);
    }
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// What the handler said.
    pub status: Status,
    /// What it left in the sense buffer, where it is not done.
    pub sense: Option<Box<[u8; SENSE_LEN]>>,
}

/// An open device, on its own thread.
pub struct PluginDevice {
    shared: Arc<Shared>,
    callers: Callers,
    spare: RefCell<Spare>,
    /// The memory of commands that nobody awaits any more, and that the handler may still have.
    lost: RefCell<Vec<(Block, Sgl<'static>)>>,
}

impl fmt::Debug for PluginDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PluginDevice({}, {:?})", self.shared.name, self.shared.handler)
    }
}

impl PluginDevice {
    /// Has a handler open a device.
    pub async fn open(handler: Arc<Handler>, setup: Setup) -> Result<Rc<Self>, OpenError> {
        let refused = |errno, reason: String| OpenError { errno, reason };
        let split = config::split(&setup.config);
        let (config, time_out) = split.map_err(|why| refused(libc::EINVAL, why))?;
        let abi = setup.device(&config);
        let place = match handler.process() {
            Some(away) => Place::Away(Box::new(Remote::new(away.clone(), &setup, time_out))),
            None => Place::Here,
        };
        let shared = Shared::new(setup.name.clone(), handler, abi, place);
        let no_thread = |e: io::Error| refused(libc::EAGAIN, format!("cannot start a thread: {e}"));
        let threads = match &shared.place {
            // Those of a process are its own.
            Place::Away(_) => 0,
            Place::Here | Place::Hosted(_) => shared.handler.threads(),
        };
        let parts = (&shared.handler, &shared.calls, shared.pointer());
        let callers = Callers::new(&shared.name, threads, parts).map_err(no_thread)?;
        callers.set_time_out(time_out);
        place::remember(&shared);
        let theirs = shared.clone();
        let opening = blocking("open", move || {
            let opened = theirs.open(false);
            match opened {
                Ok(()) => {
                    theirs.lock.look(&theirs);
                    theirs.calls.begin();
                    place::check(&theirs);
                }
                Err(_) => place::forget(&theirs),
            }
            opened
        });
        let opening = opening.map_err(|error| {
            place::forget(&shared);
            no_thread(error)
        })?;
        opening.await.map_err(|errno| {
            let error = io::Error::from_raw_os_error(errno);
            let (handler, file) = (shared.handler.subtype(), shared.handler.file().display());
            refused(
                errno,
                format!("the handler {handler} of {file} does not open {}: {error}", setup.config),
            )
        })?;
        let (spare, lost) = Default::default();
        Ok(Rc::new(PluginDevice { shared, callers, spare, lost }))
    }

    /// The device as a store.
    pub fn store(self: &Rc<Self>) -> PluginStore {
        PluginStore::new(self.clone())
    }

    /// Who serves it.
    pub fn handler(&self) -> &Handler {
        &self.shared.handler
    }

    pub(crate) fn name(&self) -> &str {
        &self.shared.name
    }

    /// What the handler has said of the device.
    pub(crate) fn properties(&self) -> &Properties {
        self.shared.abi.properties()
    }

    /// Of a block, in bytes.
    pub fn block_size(&self) -> u32 {
        self.properties().block_size()
    }

    /// Capacity in bytes.
    pub fn size(&self) -> u64 {
        self.properties().num_lbas().saturating_mul(self.block_size().into())
    }

    /// Has the handler execute a command with this id and CDB. Memory of `data` that is not shared
    /// is copied.
    pub async fn execute(
        &self,
        (id, cdb): (u16, &[u8]),
        operation: Operation,
        data: &Sgl<'_>,
    ) -> Finished {
        if let Place::Away(remote) = &self.shared.place {
            return remote.execute(&self.shared.calls, (id, cdb), operation, data).await;
        }
        if let Some(shared) = data.share() {
            return self.call((id, cdb), operation, shared).await;
        }
        let copy = Sgl::zeroed(data.len());
        data.copy_to(&copy);
        let view = copy.slice(0..copy.len()).share();
        let finished = self.call((id, cdb), operation, view.unwrap_or_else(Sgl::empty)).await;
        if matches!(operation, Operation::Read { .. } | Operation::HandleCommand) {
            copy.copy_to(data);
        }
        finished
    }

    async fn call(
        &self,
        (id, cdb): (u16, &[u8]),
        operation: Operation,
        data: Sgl<'static>,
    ) -> Finished {
        self.reclaim();
        let (block, arguments) = self.spare.borrow_mut().take(id, cdb, &data);
        let answer = match self.shared.calls.enter(arguments) {
            Ok(answer) => answer,
            Err(status) => {
                self.spare.borrow_mut().put(block);
                return Finished { status, sense: None };
            }
        };
        let mut out = Out { device: self, memory: Some((block, data)) };
        self.callers.call(cdb, arguments, operation);
        let Completion { status, .. } = answer.await;
        out.finish(status)
    }

    /// Lets the handler see that the command with this id has taken too long.
    pub fn time_out(&self, id: u16) {
        self.shared.calls.time_out(id);
    }

    /// Frees the memory of commands that nobody awaited and that have been completed since.
    fn reclaim(&self) {
        let mut lost = self.lost.borrow_mut();
        if !lost.is_empty() {
            lost.retain(|(block, _)| self.shared.calls.arguments(block.key()).is_some());
        }
    }

    /// Has the handler take another configuration string, subtype included. One that it has already
    /// it is not asked for: few handlers take any, and targetcli restores what was saved.
    pub async fn reconfigure(&self, config: &str) -> io::Result<()> {
        let (config, time_out) = config::split(config).map_err(io::Error::other)?;
        if let Place::Away(remote) = &self.shared.place {
            remote.set_time_out(time_out);
        }
        self.callers.set_time_out(time_out);
        if self.shared.abi.cfgstring() == config {
            return Ok(());
        }
        let change = CString::new(config.clone()).map_err(io::Error::other)?;
        self.change(Change::Config(change)).await?;
        self.shared.abi.set_cfgstring(&config);
        Ok(())
    }

    /// Has the handler take a write cache, or none. One that takes no changes has no say.
    pub async fn set_write_cache(&self, on: bool) -> io::Result<()> {
        match self.change(Change::WriteCache(on)).await {
            Err(error) if error.raw_os_error() != Some(libc::EOPNOTSUPP) => Err(error),
            _ => {
                self.properties().set_write_cache_enabled(on);
                Ok(())
            }
        }
    }

    /// Has the handler take another size, in bytes.
    pub(crate) async fn resize(&self, size: u64) -> io::Result<()> {
        self.change(Change::Size(size)).await?;
        self.shared.set_size(size);
        Ok(())
    }

    async fn change(&self, change: Change) -> io::Result<()> {
        let busy = || io::Error::from_raw_os_error(libc::EBUSY);
        let hold = self.shared.calls.hold().ok_or_else(busy)?;
        let theirs = self.shared.clone();
        let work = move || {
            let _hold = hold;
            theirs.reconfigure(&change)
        };
        blocking("reconfig", work)?.await.map_err(io::Error::from_raw_os_error)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Waits until the handler has told of another size.
    pub(crate) async fn resized(&self) {
        poll_fn(|cx| {
            let mut news = self.shared.news();
            if std::mem::take(&mut news.resized) {
                return Poll::Ready(());
            }
            news.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Gives up a device whose handler does not answer: it is neither closed nor opened again.
    pub fn abandon(&self) {
        self.shared.calls.set_gate(Gate::Closed);
    }

    /// Has the handler close the device, once it has completed everything. Nothing goes to it any
    /// more.
    pub(crate) async fn close(&self) -> io::Result<()> {
        if self.shared.calls.set_gate(Gate::Closed) == Gate::Closed {
            return Ok(());
        }
        let theirs = self.shared.clone();
        let closing: Answer<()> = blocking("close", move || theirs.end())?;
        closing.await;
        Ok(())
    }
}

impl Drop for PluginDevice {
    fn drop(&mut self) {
        self.reclaim();
        // What the handler still has stays until the process ends.
        self.lost.take().into_iter().for_each(std::mem::forget);
        if self.shared.calls.set_gate(Gate::Closed) == Gate::Closed {
            return;
        }
        let theirs = self.shared.clone();
        if let Err(error) = spawn("close", move || theirs.end()) {
            tracing::error!("{}: it is not closed: cannot start a thread: {error}", self.name());
        }
    }
}

/// A command that the handler has. Dropped before its completion, its memory stays.
struct Out<'a> {
    device: &'a PluginDevice,
    memory: Option<(Block, Sgl<'static>)>,
}

impl Out<'_> {
    fn finish(&mut self, status: Status) -> Finished {
        let Some((mut block, _)) = self.memory.take() else {
            return Finished { status, sense: None };
        };
        let sense = (status != Status::OK).then(|| Box::new(block.sense()));
        self.device.spare.borrow_mut().put(block);
        Finished { status, sense }
    }
}

impl Drop for Out<'_> {
    fn drop(&mut self) {
        self.device.lost.borrow_mut().extend(self.memory.take());
    }
}
