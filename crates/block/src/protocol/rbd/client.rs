// SPDX-License-Identifier: Apache-2.0
//! An open image, and what becomes of it: a client that the cluster shuts out is given up, and a new
//! one takes its place.
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use io_engine::{Receiver, Sender, channel, timeout, unblock};
use rbd::{Cluster, Image, Layout, Pool};

use super::Target;
use super::lock::Lock;
use super::service::{self, Service, State};
use crate::protocol::reopened::Reopened;
use crate::{Error, ErrorClass};

/// After so long it is asked whether an operation will ever end.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a thread of the library, or an operation, tells of.
pub(super) enum News {
    /// The image has changed.
    Changed,
    /// Its size was seen to be another one.
    Resized,
    /// What the cluster's status says of this client has changed.
    State,
    /// This client is shut out.
    Fenced(Error),
}

/// See the module's text.
pub(super) struct Client {
    pub(super) target: Target,
    /// Given up where this client is shut out, or the store closed.
    image: Reopened<Image>,
    pub(super) layout: Cell<Layout>,
    /// Capacity in bytes.
    pub(super) size: Cell<u64>,
    pub(super) lock: Lock,
    service: Service,
    teller: Teller,
    receiver: RefCell<Receiver<News>>,
}

/// Who tells of news.
#[derive(Clone)]
struct Teller {
    sender: Sender<News>,
    /// A change is told of already: whoever hears of it looks at all of it.
    changed: Arc<AtomicBool>,
}

impl Teller {
    /// The image has changed.
    fn changed(&self) {
        if !self.changed.swap(true, Ordering::AcqRel) {
            let _ = self.sender.send(News::Changed);
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("target", &self.target).finish_non_exhaustive()
    }
}

/// Connects and opens an image, whose changes are told of.
async fn connect(target: &Target, teller: &Teller) -> Result<(Image, Layout), Error> {
    let (wanted, teller) = (target.clone(), teller.clone());
    let opened = unblock(move || {
        let cluster = Cluster::connect(&wanted.options)?;
        let pool = Pool::open(&cluster, &wanted.pool, wanted.namespace.as_deref())?;
        let read_only = wanted.read_only;
        let image = Image::open(&pool, &wanted.image, wanted.snapshot.as_deref(), read_only)?;
        if wanted.snapshot.is_none() {
            image.watch(move || teller.changed())?;
        }
        let layout = image.layout()?;
        service::register(&wanted, &cluster, &image);
        Ok((image, layout))
    });
    opened.await.map_err(|e: rbd::Error| target.failed(e, "open"))
}

impl Client {
    pub(super) async fn open(target: Target) -> Result<Self, Error> {
        let (sender, receiver) = channel();
        let teller = Teller { sender, changed: Arc::default() };
        let (image, layout) = connect(&target, &teller).await?;
        let features = image.clone();
        let has_lock = unblock(move || features.has_lock()).await;
        let has_lock = has_lock.map_err(|e| target.failed(e, "open"))? && !target.read_only;
        let client = Client {
            target,
            image: Reopened::new(image),
            layout: Cell::new(layout),
            size: Cell::new(layout.size),
            lock: Lock::new(has_lock),
            service: Service::default(),
            teller,
            receiver: RefCell::new(receiver),
        };
        client.state_changes();
        Ok(client)
    }

    /// The image, if it is open.
    pub(super) fn current(&self) -> Option<Image> {
        self.image.current()
    }

    /// The image, opened again where need be.
    pub(super) async fn image(&self) -> Result<Image, Error> {
        let open = async || {
            let (image, layout) = connect(&self.target, &self.teller).await?;
            tracing::info!("{}: it is open again, by a new client", self.target.path().display());
            self.state_changes();
            // What has changed meanwhile.
            if layout != self.layout.get() {
                self.teller.changed();
            }
            Ok(image)
        };
        self.image.get(open).await
    }

    /// The image, to be changed by `what`. Where this host needs the lock for that and has lost it,
    /// nothing takes it here: what is on its way may be older than what another host has written.
    pub(super) async fn image_to_change(&self, what: &str) -> Result<Image, Error> {
        self.target.writable(what)?;
        let image = self.image().await?;
        match self.lock.allows(&image) {
            true => Ok(image),
            false => Err(self.without_lock(what)),
        }
    }

    fn without_lock(&self, operation: &str) -> Error {
        let operation = format!("{operation} (another client has its lock)");
        let fenced = io::Error::from_raw_os_error(libc::ESHUTDOWN);
        Error::new(fenced, operation, self.target.path())
    }

    /// Whether this is the image that is open now.
    pub(super) fn is_current(&self, image: &Image) -> bool {
        self.current().is_some_and(|current| current.is(image))
    }

    /// An error of an operation, which may have shut this client out.
    #[cold]
    pub(super) fn error(
        &self,
        error: io::Error,
        image: &Image,
        operation: impl fmt::Display,
    ) -> Error {
        // So says the library to who lacks the lock and may not take it.
        let lacks_lock = error.raw_os_error() == Some(libc::EROFS) && !self.target.read_only;
        let error = match lacks_lock {
            true => self.without_lock(&operation.to_string()),
            false => Error::new(error, operation.to_string(), self.target.path()),
        };
        match error.class() {
            ErrorClass::Connection => self.service.count(|counts| &mut counts.connection_lost),
            ErrorClass::TimedOut => self.service.count(|counts| &mut counts.timed_out),
            _ => {}
        }
        self.state_changes();
        if error.class() == ErrorClass::Fenced && (!lacks_lock || self.lock.holds(image)) {
            self.fenced(&error, image);
        }
        error
    }

    /// Gives up the client that is shut out, unless another operation has done so.
    pub(super) fn fenced(&self, error: &Error, image: &Image) {
        if !self.is_current(image) {
            return;
        }
        self.drop_image();
        self.service.count(|counts| &mut counts.lock_lost);
        let told = io::Error::from_raw_os_error(error.errno().unwrap_or(libc::ESHUTDOWN));
        let operation = "the cluster shuts this client out, a new one takes its place";
        let told = Error::new(told, operation, self.target.path());
        let _ = self.teller.sender.send(News::Fenced(told));
    }

    /// The state that the cluster's status shows may be another one.
    pub(super) fn state_changes(&self) {
        if self.target.service.is_some() && !self.service.telling.replace(true) {
            let _ = self.teller.sender.send(News::State);
        }
    }

    /// Tells the cluster the state.
    pub(super) async fn tell_state(&self) {
        self.service.telling.set(false);
        // The next client tells its own.
        let Some(image) = self.current() else { return };
        let state = State { owner: self.lock.holds(&image), counts: self.service.counts() };
        let path = self.target.path();
        unblock(move || service::update(&path, image.pool().cluster(), state)).await;
    }

    /// Lets go of the image, with the lock that it has, without waiting for it.
    fn drop_image(&self) {
        let bell = self.lock.lost();
        let old = self.image.take();
        // It waits for all operations, also those that never end.
        std::thread::spawn(move || {
            drop(bell);
            if let Some(old) = old {
                old.close();
            }
        });
    }

    /// Awaits an operation. One that takes long may wait for a lock that this client, shut out, will
    /// never have. It is given up then, and its memory with it: the library has that for good. No OSD
    /// does anything for this client any more.
    pub(super) async fn end<T>(
        &self,
        image: &Image,
        operation: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let mut operation = Box::pin(operation);
        loop {
            if let Ok(result) = timeout(PATIENCE, operation.as_mut()).await {
                return result;
            }
            let asked = image.clone();
            let mut asked = pin!(unblock(move || asked.is_shut_out()));
            // A cluster that hangs does not answer the question either.
            let first = poll_fn(|cx| match operation.as_mut().poll(cx) {
                Poll::Ready(result) => Poll::Ready(Ok(result)),
                Poll::Pending => asked.as_mut().poll(cx).map(Err),
            });
            match first.await {
                Ok(result) => return result,
                Err(false) => {}
                Err(true) => {
                    mem::forget(operation);
                    return Err(io::Error::from_raw_os_error(libc::ESHUTDOWN));
                }
            }
        }
    }

    /// Looks at the size; whether it is another one.
    pub(super) async fn look_at_size(&self) -> Result<bool, Error> {
        let image = self.image().await?;
        let asked = image.clone();
        let layout = unblock(move || asked.layout()).await;
        let layout = layout.map_err(|e| self.target.failed(e, "read its size"))?;
        let changed = self.layout.replace(layout).size != layout.size;
        if changed {
            self.size.set(layout.size);
        }
        Ok(changed)
    }

    /// Looks at the size, and tells of another one.
    pub(super) async fn follow_size(&self) -> Result<(), Error> {
        if self.look_at_size().await? {
            let _ = self.teller.sender.send(News::Resized);
        }
        Ok(())
    }

    /// What has happened that nobody here has done.
    pub(super) async fn news(&self) -> News {
        match poll_fn(|cx| self.receiver.borrow_mut().poll_recv(cx)).await {
            Some(news) => {
                if let News::Changed = news {
                    self.teller.changed.store(false, Ordering::Release);
                }
                news
            }
            // This client has a sender.
            None => std::future::pending().await,
        }
    }

    /// Flushes and closes the image. The lock is given back, so that the next one need not wait for
    /// it.
    pub(super) async fn close(&self) -> Result<(), Error> {
        let Some(image) = self.image.take() else { return Ok(()) };
        let flushed = match self.target.read_only {
            true => Ok(()),
            false => {
                self.end(&image, image.flush()).await.map_err(|e| self.error(e, &image, "flush"))
            }
        };
        let bell = self.lock.closed();
        unblock(move || {
            image.close();
            drop(bell);
        })
        .await;
        flushed
    }
}
