// SPDX-License-Identifier: Apache-2.0
//! An image on a store with an exclusive lock, which several hosts have open, of which one at a time
//! uses it.
//!
//! An image keeps tables in memory, which are right as long as nobody else changes it. So:
//!
//! - It is opened when the lock has been taken, and closed before it is given back. Until it is opened
//!   for the first time, it is enough to have looked at what it is.
//! - An image that was open when the lock was lost is dropped, with all that it still has to do, before
//!   the lock is taken again: what it has acknowledged is in the store, and the store changes nothing
//!   without the lock ([`ExclusiveLock::acquire`]).
//! - What was under way when the lock was lost has failed, whatever it says: others may have changed what
//!   it has read.
//!
//! While nobody takes the lock for a target port group, it is taken here, for none, and given to
//! whoever asks.
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use sgl::Sgl;

use crate::exclusive::{ExclusiveLock, Later, LockError, LockView};
use crate::format::chain;
use crate::range_lock::RangeLock;
use crate::{
    Access, AnyStore, BoxedStore, Error, ErrorClass, ErrorKind, Event, Facts, Held, OpenOptions,
    Provisioning, Store,
};

/// The group that every device has: the lock is taken for it where it is taken for none.
const NO_GROUP: u16 = 0;

/// See the module's text.
#[derive(Debug)]
struct Shared {
    below: BoxedStore,
    lock: Rc<dyn ExclusiveLock>,
    path: PathBuf,
    formats: &'static [&'static str],
    options: OpenOptions,
    facts: RefCell<Facts>,
    /// The lock is taken for target port groups.
    managed: Cell<bool>,
    /// Held by operations, and alone by who opens or closes the image, or changes the lock.
    door: RangeLock,
    opened: RefCell<Option<Opened>>,
    /// Who lets the image do its own work.
    keeper: RefCell<Option<Waker>>,
}

/// The image, as it was opened once.
#[derive(Clone, Debug)]
struct Opened {
    /// Operations share it as long as they are inside the door.
    image: Rc<AnyStore>,
    /// [`LockView::losses`] then.
    losses: u32,
}

/// The store that is made of it.
#[derive(Debug)]
struct SharedStore(Rc<Shared>);

/// Opens an image on a store that other hosts may have open, too.
///
/// # Errors
/// [`ErrorKind::Unsupported`]: the store has no lock.
pub(crate) async fn open(
    below: BoxedStore,
    path: &Path,
    formats: &'static [&'static str],
    options: &OpenOptions,
) -> Result<AnyStore, Error> {
    let Some(lock) = below.lock() else {
        let text = "other hosts may be using it, and what it lies on has no exclusive lock; `rbd \
                    feature enable IMAGE exclusive-lock` gives it one";
        return Err(Error::new(ErrorKind::Unsupported(text.into()), "open", path));
    };
    let shared = Shared {
        facts: RefCell::new(below.facts()),
        below,
        lock,
        path: path.to_owned(),
        formats,
        options: OpenOptions { predecessor: None, ..options.clone() },
        managed: Cell::default(),
        door: RangeLock::default(),
        opened: RefCell::default(),
        keeper: RefCell::default(),
    };
    let facts = shared.look(options.size).await?;
    *shared.facts.borrow_mut() = facts;
    Ok(AnyStore::Boxed(BoxedStore::new(SharedStore(Rc::new(shared)))))
}

impl Shared {
    /// What the image lies on, which stays open when the image is closed.
    fn below(&self) -> AnyStore {
        AnyStore::Boxed(self.below.clone())
    }

    /// What the image is that another host may be using, for a disk of `size` bytes.
    async fn look(&self, size: Option<u64>) -> Result<Facts, Error> {
        let options = OpenOptions { size, ..self.options.clone() };
        let looking = chain::look_on(self.below(), &self.path, self.formats, &options);
        let facts = match Box::pin(looking).await? {
            AnyStore::Qcow(image) => image.facts_once_open(),
            other => other.facts(),
        };
        // As of the store below: others may change it between two operations.
        let compare_and_write = self.below.facts().compare_and_write.map(|_| 0);
        Ok(Facts { compare_and_write, ..facts })
    }

    /// The image, if it is open and what it has in memory is right.
    fn right(&self) -> Option<Opened> {
        let view = self.lock.view();
        let opened = self.opened.borrow().clone();
        opened.filter(|opened| view.ours && view.losses == opened.losses)
    }

    /// An operation on the image.
    async fn on_image<T>(
        &self,
        what: &str,
        operation: impl AsyncFnOnce(&AnyStore) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (inside, opened) = loop {
            let inside = self.door.lock(0..1, Access::Read).await;
            match self.right() {
                Some(opened) => break (inside, opened),
                None if self.managed.get() => return Err(self.fenced(what)),
                None => drop(inside),
            }
            self.acquire_for_none(what).await?;
        };
        let done = operation(&opened.image).await;
        let still_right = self.right().is_some();
        drop((opened, inside));
        if still_right { done } else { Err(self.fenced(what)) }
    }

    /// The error of what would need the lock.
    fn fenced(&self, what: &str) -> Error {
        self.error(libc::ESHUTDOWN, format!("{what} (another client has its lock)"))
    }

    fn error(&self, errno: i32, operation: String) -> Error {
        Error::new(io::Error::from_raw_os_error(errno), operation, &self.path)
    }

    /// Opens the image, if it is not open. The lock is this host's, and the door closed.
    async fn open_image(&self, group: u16) -> Result<(), Error> {
        if self.right().is_some() {
            return Ok(());
        }
        let losses = self.lock.view().losses;
        let size = Some(self.facts.borrow().size);
        let options = OpenOptions { size, ..self.options.clone() };
        let opening = chain::open_on(self.below(), &self.path, self.formats, &options);
        match Box::pin(opening).await {
            Ok(image) => {
                let opened = Opened { image: Rc::new(image), losses };
                *self.opened.borrow_mut() = Some(opened);
                if let Some(keeper) = &*self.keeper.borrow() {
                    keeper.wake_by_ref();
                }
                Ok(())
            }
            Err(error) => {
                let _ = self.lock.release(group).await;
                Err(error)
            }
        }
    }

    /// Drops an image that is not right any more, with what it still has to do. The door is closed, so
    /// that nobody else has a share of it.
    fn drop_wrong(&self) {
        if self.right().is_none() {
            let wrong = self.opened.take();
            drop(wrong);
        }
    }

    /// Brings the image to the store, and lets go of it.
    async fn put_away(&self) -> Result<(), Error> {
        let closed = match (self.right(), self.is_open()) {
            (Some(opened), _) => opened.image.close().await,
            (None, true) => Err(self.fenced("close")),
            (None, false) => Ok(()),
        };
        let opened = self.opened.take();
        drop(opened);
        closed
    }

    fn is_open(&self) -> bool {
        self.opened.borrow().is_some()
    }

    async fn acquire(&self, group: u16) -> Result<(), LockError> {
        let _alone = self.door.lock(0..1, Access::Alone).await;
        self.managed.set(true);
        self.drop_wrong();
        self.lock.acquire(group).await?;
        self.open_image(group).await.map_err(|error| match error.class() {
            ErrorClass::Fenced => LockError::Busy(error.to_string()),
            _ => LockError::Refused(error.to_string()),
        })
    }

    /// Takes the lock for an operation, where nobody takes it for groups.
    async fn acquire_for_none(&self, what: &str) -> Result<(), Error> {
        let _alone = self.door.lock(0..1, Access::Alone).await;
        if self.managed.get() {
            return Err(self.fenced(what));
        }
        self.drop_wrong();
        self.lock.acquire(NO_GROUP).await.map_err(|error| {
            let errno = match error {
                LockError::Busy(_) | LockError::Changing => libc::EBUSY,
                LockError::Fenced => libc::ESHUTDOWN,
                LockError::Refused(_) => libc::ENOLINK,
            };
            self.error(errno, format!("{what}, for which its lock was not to be had ({error})"))
        })?;
        self.open_image(NO_GROUP).await
    }

    /// Closes the image and gives the lock back, if it is held for this group.
    async fn release(&self, group: u16) -> Result<(), LockError> {
        let _alone = self.door.lock(0..1, Access::Alone).await;
        self.release_alone(group).await
    }

    async fn release_alone(&self, group: u16) -> Result<(), LockError> {
        let view = self.lock.view();
        if view.ours && view.group == Some(group) {
            // What it has acknowledged is in the store.
            self.put_away().await.unwrap_or_else(|error| tracing::warn!("{error}"));
        }
        self.lock.release(group).await
    }

    async fn leave(&self) {
        if !self.managed.get() {
            return;
        }
        let _alone = self.door.lock(0..1, Access::Alone).await;
        let view = self.lock.view();
        if let Some(group) = view.group.filter(|_| view.ours)
            && let Err(error) = self.release_alone(group).await
        {
            tracing::warn!("{}: {error}", self.path.display());
        }
        self.managed.set(false);
    }

    /// Waits until a lock is asked for that is held for a group; one that is held for none is given.
    async fn asked(&self) {
        loop {
            self.lock.asked().await;
            // Who opens the image has it in a moment.
            let open = self.door.lock(0..1, Access::Read).await;
            drop(open);
            if self.managed.get() {
                return;
            }
            if let Err(error) = self.release(NO_GROUP).await {
                tracing::warn!("{}: {error}", self.path.display());
            }
        }
    }
}

impl ExclusiveLock for Shared {
    /// Held for no group, or without an image that is right, it is yet to be taken.
    fn view(&self) -> LockView {
        let view = self.lock.view();
        let ours = view.ours && self.managed.get() && self.right().is_some();
        LockView { ours, group: view.group.filter(|&group| group != NO_GROUP), ..view }
    }

    fn look(&self) -> Later<'_, ()> {
        self.lock.look()
    }

    fn acquire(&self, group: u16) -> Later<'_, Result<(), LockError>> {
        Box::pin(self.acquire(group))
    }

    fn release(&self, group: u16) -> Later<'_, Result<(), LockError>> {
        Box::pin(self.release(group))
    }

    fn leave(&self) -> Later<'_, ()> {
        Box::pin(self.leave())
    }

    fn asked(&self) -> Later<'_, ()> {
        Box::pin(self.asked())
    }
}

impl Store for SharedStore {
    fn facts(&self) -> Facts {
        self.0.facts.borrow().clone()
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        self.0.on_image("read", async |image| image.read(data, offset).await).await
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64, fua: bool) -> Result<(), Error> {
        self.0.on_image("write", async |image| image.write(data, offset, fua).await).await
    }

    /// Without the image there is nothing to flush: it was flushed when it was closed, or has failed.
    async fn flush(&self) -> Result<(), Error> {
        if !self.0.is_open() {
            return Ok(());
        }
        self.0.on_image("flush", async |image| image.flush().await).await
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.0.on_image("discard", async |image| image.discard(offset, len).await).await
    }

    async fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> Result<(), Error> {
        let zero = async |image: &AnyStore| image.write_zeroes(offset, len, may_unmap).await;
        self.0.on_image("write zeroes", zero).await
    }

    async fn provisioning(&self, offset: u64, len: u64) -> Result<(Provisioning, u64), Error> {
        let look = async |image: &AnyStore| image.provisioning(offset, len).await;
        self.0.on_image("look for data", look).await
    }

    /// Where another host has the lock, and has resized it, that is seen.
    async fn resize(&self, size: u64) -> Result<(), Error> {
        let resize = async |image: &AnyStore| image.resize(size).await;
        match self.0.on_image("resize", resize).await {
            Err(error) if error.class() == ErrorClass::Fenced => {
                self.0.look(Some(size)).await.map_err(|_| error)?;
            }
            done => done?,
        }
        self.0.facts.borrow_mut().size = size;
        Ok(())
    }

    async fn close(&self) -> Result<(), Error> {
        let _alone = self.0.door.lock(0..1, Access::Alone).await;
        let was_open = self.0.is_open();
        let closed = self.0.put_away().await;
        match self.0.below.close().await {
            // Who has given the lock back has nothing to flush.
            Err(error) if !was_open && error.class() == ErrorClass::Fenced => closed,
            below => closed.and(below),
        }
    }

    fn held(&self) -> Held {
        match &*self.0.opened.borrow() {
            Some(opened) => opened.image.held(),
            None => self.0.below.held(),
        }
    }

    fn lock(&self) -> Option<Rc<dyn ExclusiveLock>> {
        Some(self.0.clone())
    }

    /// What happens to the store below. The image, which has a size of its own, does its own work
    /// meanwhile.
    async fn event(&self) -> Event {
        loop {
            let mut below = pin!(self.0.below.event());
            let event = poll_fn(|cx| {
                self.0.keeper.replace(Some(cx.waker().clone()));
                let opened = self.0.opened.borrow().clone();
                if let Some(opened) = opened {
                    // It has no events. Each poll is as good as a longer one.
                    let _: Poll<Event> = pin!(opened.image.event()).poll(cx);
                }
                below.as_mut().poll(cx)
            });
            match event.await {
                Event::Resized => {}
                event => return event,
            }
        }
    }
}
