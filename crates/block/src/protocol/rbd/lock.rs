// SPDX-License-Identifier: Apache-2.0
//! The exclusive lock of an image, taken for a target port group.
//!
//! - Who has it is asked for it (`rbd::Bell`), ends what it is doing, and gives it back. One that
//!   does not is shut out by the cluster before its lock is broken: nothing that it still sends is
//!   written after that.
//! - Which group it was taken for is in the image's metadata, in the words of the C daemon's handler,
//!   so that each shows the groups of the other's gateways. That handler answers no questions: it is
//!   shut out, as it does with others.
//! - A store that has lost the lock changes nothing until it has been taken again ([`Lock::allows`]).
use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use io_engine::{Receiver, channel, unblock};
use rbd::{Bell, Image};

use super::asking::{self, Asking, Us};
use super::client::Client;
use super::take::{self, Place};
use crate::exclusive::{ExclusiveLock, Later, LockError, LockView};
use crate::range_lock::RangeLock;
use crate::{Access, Error};

/// Where an image says for which group it is locked.
const TAG: &CStr = c"tcmu_rbd_locker_tag";

/// What is known of the lock of one image.
#[derive(Debug)]
pub(super) struct Lock {
    /// Whether the image has one.
    exists: bool,
    /// Held while it is taken, given back, or left.
    turn: RangeLock,
    /// It is taken for target port groups; else librbd takes it and gives it away by itself.
    managed: Cell<bool>,
    changing: Cell<bool>,
    held: RefCell<Option<Held>>,
    losses: Cell<u32>,
    told: Arc<Told>,
    /// Through it this client is asked for the lock.
    bell: RefCell<Option<Arc<Bell>>>,
    asking: Arc<Asking>,
    asked: RefCell<Receiver<()>>,
}

/// The lock that this host has.
#[derive(Debug)]
struct Held {
    group: u16,
    /// The client that has it, and its address.
    image: Image,
    owner: String,
}

/// What the cluster has said when it was last asked.
#[derive(Debug, Default)]
struct Told {
    holder: Mutex<Option<Holder>>,
    /// The cluster is being asked.
    asking: AtomicBool,
}

/// A client that has a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    /// Its address.
    owner: String,
    group: Option<u16>,
}

fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While it lives the lock is changing.
struct Changing<'a>(&'a Cell<bool>);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Lock {
    pub(super) fn new(exists: bool) -> Self {
        let (sender, asked) = channel();
        Lock {
            exists,
            turn: RangeLock::default(),
            managed: Cell::default(),
            changing: Cell::default(),
            held: RefCell::default(),
            losses: Cell::default(),
            told: Arc::default(),
            bell: RefCell::default(),
            asking: Arc::new(Asking::new(sender)),
            asked: RefCell::new(asked),
        }
    }

    pub(super) fn exists(&self) -> bool {
        self.exists
    }

    /// Whether a client may change its image.
    pub(super) fn allows(&self, image: &Image) -> bool {
        !self.managed.get() || self.holds(image)
    }

    /// Whether a client has the lock for a group.
    pub(super) fn holds(&self, image: &Image) -> bool {
        self.held.borrow().as_ref().is_some_and(|held| held.image.is(image))
    }

    /// The address under which a client has the lock.
    fn owner_of(&self, image: &Image) -> Option<String> {
        let held = self.held.borrow();
        held.as_ref().filter(|held| held.image.is(image)).map(|held| held.owner.clone())
    }

    /// The client is shut out, and its lock gone. What is returned blocks when it is dropped.
    pub(super) fn lost(&self) -> Option<Arc<Bell>> {
        if self.held.borrow().is_some() {
            self.losses.set(self.losses.get().wrapping_add(1));
        }
        self.closed()
    }

    /// The client ends; the same.
    pub(super) fn closed(&self) -> Option<Arc<Bell>> {
        *self.held.borrow_mut() = None;
        self.asking.now(Us::Without);
        self.bell.borrow_mut().take()
    }

    fn change(&self) -> Changing<'_> {
        self.changing.set(true);
        Changing(&self.changing)
    }

    fn group(&self) -> Option<u16> {
        self.held.borrow().as_ref().map(|held| held.group)
    }
}

/// What the image says of a lock that `owner` has: [`TAG`]'s value counts if that client wrote it.
fn tag_of(value: &str, owner: &str) -> Option<u16> {
    let (group, client) = value.strip_prefix("tcmu_tag=")?.split_once(",rbd_client=")?;
    if client == owner { group.parse().ok() } else { None }
}

fn holder(image: &Image) -> io::Result<Option<Holder>> {
    let Some(owner) = image.lock_owner()? else { return Ok(None) };
    let group = image.metadata(TAG)?.and_then(|value| tag_of(&value, &owner));
    Ok(Some(Holder { owner, group }))
}

/// An image, as one that the lock is taken of.
#[derive(Clone)]
struct Seat {
    image: Image,
    bell: Arc<Bell>,
    asking: Arc<Asking>,
}

impl Place for Seat {
    fn owner(&self) -> io::Result<Option<String>> {
        let owner = self.image.lock_owner()?;
        if owner.is_none() {
            self.asking.now(Us::Taking(None));
        }
        Ok(owner)
    }

    fn is_ours(&self) -> io::Result<bool> {
        self.image.has_taken_lock()
    }

    fn ask(&self, owner: &str) -> bool {
        self.asking.now(Us::Taking(Some(owner.to_owned())));
        self.bell.ring(&asking::message(owner), take::PATIENCE).unwrap_or_else(|error| {
            tracing::warn!("{owner} cannot be asked for its lock: {error}");
            true
        })
    }

    fn take(&self) -> io::Result<()> {
        self.image.take_lock()
    }

    fn break_lock(&self, owner: &str) -> io::Result<()> {
        tracing::warn!("{owner} has not given the lock back: it is shut out");
        self.image.break_lock(owner)
    }

    fn tell(&self, owner: &str, group: u16) -> io::Result<()> {
        self.image.set_metadata(TAG, &format!("tcmu_tag={group},rbd_client={owner}"))
    }
}

impl Client {
    /// The bell of an image, by which others ask for its lock.
    async fn bell(&self, image: &Image) -> Result<Arc<Bell>, Error> {
        let there = self.lock.bell.borrow().clone();
        if let Some(bell) = there.filter(|bell| bell.is_whole()) {
            return Ok(bell);
        }
        let (pool, name, asking) =
            (image.pool().clone(), self.target.image.clone(), self.lock.asking.clone());
        let watch =
            move || Bell::watch(&pool, &name, move |message, reply| asking.heard(message, reply));
        let bell = unblock(watch).await.map_err(|e| self.target.failed(e, "watch its lock"))?;
        let bell = Arc::new(bell);
        let old = self.lock.bell.borrow_mut().replace(bell.clone());
        unblock(move || drop(old)).await;
        Ok(bell)
    }

    async fn acquire(&self, group: u16) -> Result<(), LockError> {
        let lock = &self.lock;
        let _turn = lock.turn.lock(0..1, Access::Alone).await;
        lock.managed.set(true);
        if lock.group() == Some(group) {
            return Ok(());
        }
        let _changing = lock.change();
        let refused = |error: Error| LockError::Refused(error.to_string());
        let image = self.image().await.map_err(refused)?;
        let bell = self.bell(&image).await.map_err(refused)?;
        let seat = Seat { image: image.clone(), bell, asking: lock.asking.clone() };
        let owner = unblock(move || take::take(&seat, group)).await;
        if !self.is_current(&image) {
            lock.asking.now(Us::Without);
            return Err(LockError::Fenced);
        }
        let owner = owner.map_err(|error| self.not_taken(error, &image))?;
        tracing::info!("{}: has the lock for group {group}", self.target.path().display());
        *lock.held.borrow_mut() = Some(Held { group, image, owner: owner.clone() });
        *unpoisoned(&lock.told.holder) = Some(Holder { owner: owner.clone(), group: Some(group) });
        lock.asking.now(Us::With(owner));
        self.state_changes();
        // Who had it may have resized the image, and that may be told later.
        if let Err(error) = self.follow_size().await {
            tracing::warn!("{error}");
        }
        Ok(())
    }

    fn not_taken(&self, error: io::Error, image: &Image) -> LockError {
        self.lock.asking.now(Us::Without);
        let errno = error.raw_os_error();
        let error = Error::new(error, "take its lock", self.target.path());
        match errno {
            // A new client takes its place.
            Some(libc::ESHUTDOWN) => {
                self.fenced(&error, image);
                LockError::Busy(error.to_string())
            }
            Some(libc::EROFS | libc::EBUSY | libc::EAGAIN | libc::ETIMEDOUT) => {
                LockError::Busy(error.to_string())
            }
            _ => LockError::Refused(error.to_string()),
        }
    }

    async fn release(&self, group: u16) -> Result<(), LockError> {
        let lock = &self.lock;
        let _turn = lock.turn.lock(0..1, Access::Alone).await;
        if lock.group() != Some(group) {
            return Ok(());
        }
        let _changing = lock.change();
        let Some(Held { image, .. }) = lock.held.borrow_mut().take() else { return Ok(()) };
        let theirs = image.clone();
        let given = unblock(move || theirs.give_lock()).await;
        lock.asking.now(Us::Without);
        *unpoisoned(&lock.told.holder) = None;
        self.state_changes();
        match given {
            Ok(()) => {
                tracing::info!("{}: has given the lock back", self.target.path().display());
                Ok(())
            }
            Err(error) => {
                let doing = "give its lock back";
                Err(LockError::Refused(self.error(error, &image, doing).to_string()))
            }
        }
    }

    /// What the cluster says, of an image that is open.
    async fn look(&self) {
        let told = self.lock.told.clone();
        let Some(image) = self.current() else { return };
        if told.asking.swap(true, Ordering::AcqRel) {
            return;
        }
        let (asked, theirs) = (told.clone(), image.clone());
        let held = self.lock.owner_of(&image);
        let failed = unblock(move || {
            let seen = holder(&theirs).map(|holder| *unpoisoned(&asked.holder) = holder);
            asked.asking.store(false, Ordering::Release);
            seen.err()
        });
        match failed.await {
            Some(error) => {
                // One that is shut out hears it here first, if nobody writes.
                self.error(error, &image, "ask who has its lock");
            }
            None if held.is_some() && held == self.lock.owner_of(&image) => {
                let owner = unpoisoned(&told.holder).as_ref().map(|holder| holder.owner.clone());
                if owner != held {
                    let gone = io::Error::from_raw_os_error(libc::ESHUTDOWN);
                    self.error(gone, &image, "look at its lock, which is gone");
                }
            }
            None => {}
        }
    }
}

impl ExclusiveLock for Client {
    fn view(&self) -> LockView {
        let lock = &self.lock;
        let held = lock.group();
        let told = || unpoisoned(&lock.told.holder).as_ref().and_then(|holder| holder.group);
        LockView {
            group: held.or_else(told),
            ours: held.is_some(),
            changing: lock.changing.get(),
            losses: lock.losses.get(),
        }
    }

    fn look(&self) -> Later<'_, ()> {
        Box::pin(self.look())
    }

    fn acquire(&self, group: u16) -> Later<'_, Result<(), LockError>> {
        Box::pin(self.acquire(group))
    }

    fn release(&self, group: u16) -> Later<'_, Result<(), LockError>> {
        Box::pin(self.release(group))
    }

    fn leave(&self) -> Later<'_, ()> {
        Box::pin(async {
            if !self.lock.managed.get() {
                return;
            }
            let _turn = self.lock.turn.lock(0..1, Access::Alone).await;
            self.lock.managed.set(false);
            // librbd does by itself what it does only for a client that has never taken the lock.
            if let Err(error) = self.close().await {
                tracing::warn!("{error}");
            }
        })
    }

    fn asked(&self) -> Later<'_, ()> {
        Box::pin(async {
            loop {
                let asked = poll_fn(|cx| self.lock.asked.borrow_mut().poll_recv(cx)).await;
                match asked {
                    Some(()) if self.lock.asking.is_asked() => return,
                    Some(()) => {}
                    // This lock has a sender.
                    None => std::future::pending().await,
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_counts_for_the_client_that_wrote_it() {
        let owner = "127.0.0.1:0/4123";
        assert_eq!(tag_of("tcmu_tag=7,rbd_client=127.0.0.1:0/4123", owner), Some(7));
        for other in [
            "tcmu_tag=7,rbd_client=127.0.0.1:0/41234",
            "tcmu_tag=70000,rbd_client=127.0.0.1:0/4123",
            "tcmu_tag=-1,rbd_client=127.0.0.1:0/4123",
            "tcmu_tag=,rbd_client=127.0.0.1:0/4123",
            "tcmu_tag=7",
            "",
        ] {
            assert_eq!(tag_of(other, owner), None, "{other}");
        }
    }
}
