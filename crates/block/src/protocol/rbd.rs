// SPDX-License-Identifier: Apache-2.0
//! `rbd/POOL[/NAMESPACE]/IMAGE[@SNAPSHOT]`: an image in a Ceph cluster, through librbd.
//!
//! Its cache is off, so that what is acknowledged survives the death of the daemon; a flush is
//! librbd's. Discarding zeroes at any alignment, and gives up the space of what it can. Whoever
//! writes has the image's exclusive lock, where it has that feature: librbd takes it and gives it
//! away by itself.
//!
//! Rule: **a write that was refused because this client is shut out is not tried again here.**
//! Another client may have the image since, and its initiator may have sent newer data there. The
//! write fails; what comes after it waits until the image has been opened again by a new client.
//!
//! A new size, of this client or another, is seen at once.
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use io_engine::{Receiver, Sender, channel, timeout, unblock};
use rbd::{Cluster, Compared, Image, Layout, Options, Pool, Zero};
use sgl::Sgl;

use crate::format::chain::Opening;
use crate::range_lock::RangeLock;
use crate::{
    Access, AnyStore, BoxedStore, Config, Discard, Error, ErrorClass, ErrorKind, Event, Facts,
    OpenOptions, Provisioning, Store,
};

/// What an OSD allocates at least, in bytes (bluestore_min_alloc_size of hard disks until Ceph 15);
/// the kernel's own client says the same.
const ALLOCATION: u32 = 64 << 10;
/// What librbd compares and writes in one step has to be inside of one of these, in bytes.
const SECTOR: u64 = 512;
/// Bytes of which is asked at a time where data is.
const MAPPED_STEP: u64 = 1 << 30;

/// After so long it is asked whether an operation will ever end.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a configuration string names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    pool: String,
    namespace: Option<String>,
    image: String,
    snapshot: Option<String>,
    options: Options,
    read_only: bool,
}

/// What a thread of the library, or an operation, tells of.
enum News {
    /// The image has changed.
    Changed,
    /// This client is shut out.
    Fenced(Error),
}

/// See the module's text.
pub(crate) struct RbdStore {
    target: Target,
    /// `None`: this client was shut out, or the store closed. Whoever needs it opens it again.
    image: RefCell<Option<Image>>,
    /// Held while it is opened.
    opening: RangeLock,
    layout: Cell<Layout>,
    /// Capacity in bytes.
    size: Cell<u64>,
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

impl fmt::Debug for RbdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RbdStore").field("target", &self.target).finish_non_exhaustive()
    }
}

/// Whether a configuration string is right, and the libraries and files are there. Blocks.
pub(crate) fn check(config: &Config<'_>) -> Result<(), Error> {
    let target = Target::parse(config, false)?;
    rbd::check().map_err(|e| target.failed(e, "load its libraries"))?;
    for path in [&target.options.conf, &target.options.keyring].into_iter().flatten() {
        std::fs::File::open(path).map_err(|e| Error::new(e, "open", path))?;
    }
    Ok(())
}

pub(crate) fn open<'a>(config: &'a Config<'a>, options: &'a OpenOptions) -> Opening<'a, AnyStore> {
    Box::pin(async move {
        let target = Target::parse(config, options.read_only)?;
        let (sender, receiver) = channel();
        let teller = Teller { sender, changed: Arc::default() };
        let (image, layout) = connect(&target, &teller).await?;
        let enlarge = |size| format!("rbd resize --size {size}B");
        let size = options.capacity(layout.size, &target.path(), enlarge)?;
        Ok(AnyStore::Boxed(BoxedStore::new(RbdStore {
            target,
            image: RefCell::new(Some(image)),
            opening: RangeLock::default(),
            layout: Cell::new(layout),
            size: Cell::new(size),
            teller,
            receiver: RefCell::new(receiver),
        })))
    })
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
        Ok((image, layout))
    });
    opened.await.map_err(|e: rbd::Error| target.failed(e, "open"))
}

impl Target {
    fn parse(config: &Config<'_>, read_only: bool) -> Result<Self, Error> {
        let whole = || format!("{}/{}", config.subtype, config.rest);
        let invalid = |text: &str| Err(Error::invalid(text, "configuration string", whole()));
        let parts: Vec<&str> = config.rest.split('/').collect();
        let (pool, namespace, image) = match parts[..] {
            [pool, image] => (pool, None, image),
            [pool, namespace, image] => (pool, Some(namespace), image),
            _ => return invalid("it has to be rbd/POOL[/NAMESPACE]/IMAGE[@SNAPSHOT]"),
        };
        let (image, snapshot) = match image.split_once('@') {
            Some((image, snapshot)) => (image, Some(snapshot)),
            None => (image, None),
        };
        for (name, what) in [
            (Some(pool), "the pool is missing"),
            (namespace, "the namespace is empty"),
            (Some(image), "the image is missing"),
            (snapshot, "the snapshot is empty"),
        ] {
            if name.is_some_and(str::is_empty) {
                return invalid(&format!("{what}; it has to be rbd/POOL/IMAGE"));
            }
        }
        Ok(Target {
            pool: pool.to_owned(),
            namespace: namespace.map(str::to_owned),
            image: image.to_owned(),
            snapshot: snapshot.map(str::to_owned),
            options: config.image.rbd.clone(),
            read_only: read_only || snapshot.is_some(),
        })
    }

    /// As people name it, for messages.
    fn path(&self) -> PathBuf {
        let names = [Some(&self.pool), self.namespace.as_ref(), Some(&self.image)];
        let names: Vec<_> = names.into_iter().flatten().map(String::as_str).collect();
        let snapshot = self.snapshot.as_ref().map(|name| format!("@{name}"));
        format!("rbd/{}{}", names.join("/"), snapshot.unwrap_or_default()).into()
    }

    fn failed(&self, error: rbd::Error, operation: &str) -> Error {
        Error::of_library(error, operation, self.path())
    }
}

impl RbdStore {
    /// The image, opened again where need be.
    async fn image(&self) -> Result<Image, Error> {
        let current = || self.image.borrow().clone();
        if let Some(image) = current() {
            return Ok(image);
        }
        let _turn = self.opening.lock(0..1, Access::Alone).await;
        if let Some(image) = current() {
            return Ok(image);
        }
        let (image, layout) = connect(&self.target, &self.teller).await?;
        tracing::info!("{}: it is open again, by a new client", self.target.path().display());
        *self.image.borrow_mut() = Some(image.clone());
        // What has changed meanwhile.
        if layout != self.layout.get() {
            self.teller.changed();
        }
        Ok(image)
    }

    /// An error of an operation, which may have shut this client out.
    #[cold]
    fn error(&self, error: io::Error, image: &Image, operation: impl fmt::Display) -> Error {
        let error = Error::new(error, operation.to_string(), self.target.path());
        if error.class() == ErrorClass::Fenced {
            self.fenced(&error, image);
        }
        error
    }

    /// Gives up the client that is shut out, unless another operation has done so.
    fn fenced(&self, error: &Error, image: &Image) {
        let mut current = self.image.borrow_mut();
        if !current.as_ref().is_some_and(|current| current.is(image)) {
            return;
        }
        if let Some(old) = current.take() {
            // It waits for all operations, also those that never end.
            std::thread::spawn(move || old.close());
        }
        let told = io::Error::from_raw_os_error(error.errno().unwrap_or(libc::ESHUTDOWN));
        let operation = "the cluster shuts this client out, a new one takes its place";
        let _ =
            self.teller.sender.send(News::Fenced(Error::new(told, operation, self.target.path())));
    }

    /// Awaits an operation. One that takes long may wait for a lock that this client, shut out, will
    /// never have. It is given up then, and its memory with it: the library has that for good. No OSD
    /// does anything for this client any more.
    async fn end<T>(
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

    fn writable(&self, what: &str) -> Result<(), Error> {
        if self.target.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, what, self.target.path()));
        }
        Ok(())
    }

    async fn zero(&self, offset: u64, len: u64, zero: Zero, what: &str) -> Result<(), Error> {
        self.writable(what)?;
        let image = self.image().await?;
        let done = self.end(&image, image.zero(offset, len, zero)).await;
        done.map_err(|e| self.error(e, &image, format_args!("{what} {len} bytes at {offset}")))
    }

    /// Looks at the size; whether it is another one.
    async fn look(&self) -> Result<bool, Error> {
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
}

impl Store for RbdStore {
    fn facts(&self) -> Facts {
        let layout = self.layout.get();
        let read_only = self.target.read_only;
        Facts {
            size: self.size.get(),
            read_only,
            optimal_io: u32::try_from(layout.stripe_unit).unwrap_or(ALLOCATION),
            request_alignment: 1,
            shared: true,
            discard: (!read_only).then_some(Discard { granularity: ALLOCATION, zeroes: true }),
            write_zeroes: true,
        }
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        let image = self.image().await?;
        let doing = || format!("read {} bytes at {offset}", data.len());
        match self.end(&image, image.read(data, offset)).await {
            Ok(n) if n == data.len() => Ok(()),
            Ok(n) => {
                let text = format!("the image ends at {}: it was made smaller", offset + n as u64);
                let e = io::Error::new(io::ErrorKind::UnexpectedEof, text);
                Err(self.error(e, &image, doing()))
            }
            Err(e) => Err(self.error(e, &image, doing())),
        }
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64, fua: bool) -> Result<(), Error> {
        self.writable("write")?;
        let image = self.image().await?;
        let mut written = self.end(&image, image.write(data, offset)).await;
        if fua && written.is_ok() {
            written = self.end(&image, image.flush()).await;
        }
        let doing = || format!("write {} bytes at {offset}", data.len());
        written.map_err(|e| self.error(e, &image, doing()))
    }

    async fn flush(&self) -> Result<(), Error> {
        let image = self.image().await?;
        let flushed = self.end(&image, image.flush()).await;
        flushed.map_err(|e| self.error(e, &image, "flush"))
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.zero(offset, len, Zero::Unmap, "discard").await
    }

    async fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> Result<(), Error> {
        let zero = if may_unmap { Zero::Unmap } else { Zero::Allocate };
        self.zero(offset, len, zero, "write zeroes to").await
    }

    async fn provisioning(&self, offset: u64, len: u64) -> Result<(Provisioning, u64), Error> {
        let image = self.image().await?;
        let len = len.min(MAPPED_STEP);
        let extents = unblock(move || image.extents(offset, len)).await;
        let extents = extents.map_err(|e| self.target.failed(e, "look for data"))?;
        Ok(match extents.first() {
            None => (Provisioning::Deallocated, len),
            Some((at, _)) if *at > offset => (Provisioning::Deallocated, (at - offset).min(len)),
            Some((at, there)) => (Provisioning::Mapped, (at + there - offset).clamp(1, len)),
        })
    }

    async fn compare_and_write(
        &self,
        data: &Sgl<'_>,
        offset: u64,
    ) -> Option<Result<Option<u64>, Error>> {
        let half = data.len() as u64 / 2;
        if half == 0 || offset / SECTOR != (offset + half - 1) / SECTOR {
            return None;
        }
        if let Err(e) = self.writable("compare and write") {
            return Some(Err(e));
        }
        let image = match self.image().await {
            Ok(image) => image,
            Err(e) => return Some(Err(e)),
        };
        let doing = || format!("compare and write {half} bytes at {offset}");
        Some(match self.end(&image, image.compare_and_write(data, offset)).await {
            Ok(Compared::Written) => Ok(None),
            Ok(Compared::Differs(at)) => Ok(Some(at)),
            Err(e) => Err(self.error(e, &image, doing())),
        })
    }

    async fn resize(&self, size: u64) -> Result<(), Error> {
        self.look().await?;
        if size > self.layout.get().size {
            self.writable("resize")?;
            let image = self.image().await?;
            let resized = unblock(move || image.resize(size)).await;
            resized.map_err(|e| self.target.failed(e, "resize"))?;
            self.look().await?;
        }
        // A smaller capacity leaves the image as it is.
        self.size.set(size);
        Ok(())
    }

    async fn close(&self) -> Result<(), Error> {
        let Some(image) = self.image.borrow_mut().take() else { return Ok(()) };
        let flushed = match self.target.read_only {
            true => Ok(()),
            false => {
                self.end(&image, image.flush()).await.map_err(|e| self.error(e, &image, "flush"))
            }
        };
        // The lock is given back, so that the next one need not wait for it.
        unblock(move || image.close()).await;
        flushed
    }

    async fn event(&self) -> Event {
        loop {
            let news = poll_fn(|cx| self.receiver.borrow_mut().poll_recv(cx)).await;
            let seen = match news {
                Some(News::Changed) => {
                    self.teller.changed.store(false, Ordering::Release);
                    self.look().await
                }
                Some(News::Fenced(error)) => return Event::Lost(error),
                // This store has a sender.
                None => std::future::pending().await,
            };
            match seen {
                Ok(true) => return Event::Resized,
                Ok(false) => {}
                Err(error) => return Event::Lost(error),
            }
        }
    }
}
