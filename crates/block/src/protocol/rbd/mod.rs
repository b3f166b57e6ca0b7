// SPDX-License-Identifier: Apache-2.0
//! `rbd/POOL[/NAMESPACE]/IMAGE[@SNAPSHOT]`: an image in a Ceph cluster, through librbd.
//!
//! Its cache is off, so that what is acknowledged survives the death of the daemon; a flush is
//! librbd's. Discarding zeroes at any alignment, and gives up the space of what it can. Whoever
//! writes has the image's exclusive lock, where it has that feature: librbd takes it and gives it
//! away by itself, unless it is taken for target port groups (`lock`).
//!
//! Rule: **a write that was refused because this client is shut out is not tried again here.**
//! Another client may have the image since, and its initiator may have sent newer data there. The
//! write fails; what comes after it waits until the image has been opened again by a new client.
//!
//! A new size, of this client or another, is seen at once.
//!
//! - `client`: the open image, and the next one where the cluster shuts a client out
//! - `lock`: the exclusive lock, taken for a target port group; `take`: how it is taken from others;
//!   `asking`: who asks for it
//! - `service`: what the cluster's status says of this client
mod asking;
mod client;
mod lock;
mod service;
mod take;

use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use io_engine::unblock;
use rbd::{Compared, Options, Zero};
use sgl::Sgl;

use self::client::{Client, News};
use crate::exclusive::ExclusiveLock;
use crate::format::chain::Opening;
use crate::{
    AnyStore, BoxedStore, Config, Discard, Error, ErrorKind, Event, Facts, OpenOptions,
    Provisioning, Store,
};

/// What an OSD allocates at least, in bytes (bluestore_min_alloc_size of hard disks until Ceph 15);
/// the kernel's own client says the same.
const ALLOCATION: u32 = 64 << 10;
/// What librbd compares and writes in one step has to be inside of one of these, in bytes.
const SECTOR: u32 = 512;
/// Bytes of which is asked at a time where data is.
const MAPPED_STEP: u64 = 1 << 30;

/// What a configuration string names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    pool: String,
    namespace: Option<String>,
    image: String,
    snapshot: Option<String>,
    options: Options,
    read_only: bool,
    /// As whose daemon the cluster's status shows it.
    service: Option<&'static str>,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct RbdStore(Rc<Client>);

/// Whether a configuration string is right, and the libraries and files are there. Blocks.
pub(crate) fn check(config: &Config<'_>) -> Result<(), Error> {
    let target = Target::of(config, &OpenOptions::default())?;
    rbd::check().map_err(|e| target.failed(e, "load its libraries"))?;
    for path in [&target.options.conf, &target.options.keyring].into_iter().flatten() {
        std::fs::File::open(path).map_err(|e| Error::new(e, "open", path))?;
    }
    Ok(())
}

pub(crate) fn open<'a>(config: &'a Config<'a>, options: &'a OpenOptions) -> Opening<'a, AnyStore> {
    Box::pin(async move {
        let client = Client::open(Target::of(config, options)?).await?;
        let enlarge = |size| format!("rbd resize --size {size}B");
        let size = options.capacity(client.size.get(), &client.target.path(), enlarge)?;
        client.size.set(size);
        Ok(AnyStore::Boxed(BoxedStore::new(RbdStore(Rc::new(client)))))
    })
}

impl Target {
    fn of(config: &Config<'_>, options: &OpenOptions) -> Result<Self, Error> {
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
            read_only: options.read_only || snapshot.is_some(),
            service: options.service,
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

    fn writable(&self, what: &str) -> Result<(), Error> {
        if self.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, what, self.path()));
        }
        Ok(())
    }
}

impl RbdStore {
    async fn zero(&self, offset: u64, len: u64, zero: Zero, what: &str) -> Result<(), Error> {
        let RbdStore(client) = self;
        let image = client.image_to_change(what).await?;
        let done = client.end(&image, image.zero(offset, len, zero)).await;
        done.map_err(|e| client.error(e, &image, format_args!("{what} {len} bytes at {offset}")))
    }
}

impl Store for RbdStore {
    fn facts(&self) -> Facts {
        let RbdStore(client) = self;
        let (layout, read_only) = (client.layout.get(), client.target.read_only);
        Facts {
            size: client.size.get(),
            read_only,
            optimal_io: u32::try_from(layout.stripe_unit).unwrap_or(ALLOCATION),
            request_alignment: 1,
            shared: true,
            compare_and_write: Some(SECTOR),
            discard: (!read_only).then_some(Discard { granularity: ALLOCATION, zeroes: true }),
            write_zeroes: true,
        }
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        let RbdStore(client) = self;
        let image = client.image().await?;
        let doing = || format!("read {} bytes at {offset}", data.len());
        match client.end(&image, image.read(data, offset)).await {
            Ok(n) if n == data.len() => Ok(()),
            Ok(n) => {
                let text = format!("the image ends at {}: it was made smaller", offset + n as u64);
                let e = io::Error::new(io::ErrorKind::UnexpectedEof, text);
                Err(client.error(e, &image, doing()))
            }
            Err(e) => Err(client.error(e, &image, doing())),
        }
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64, fua: bool) -> Result<(), Error> {
        let RbdStore(client) = self;
        let image = client.image_to_change("write").await?;
        let mut written = client.end(&image, image.write(data, offset)).await;
        if fua && written.is_ok() {
            written = client.end(&image, image.flush()).await;
        }
        let doing = || format!("write {} bytes at {offset}", data.len());
        written.map_err(|e| client.error(e, &image, doing()))
    }

    async fn flush(&self) -> Result<(), Error> {
        let RbdStore(client) = self;
        let image = client.image().await?;
        let flushed = client.end(&image, image.flush()).await;
        flushed.map_err(|e| client.error(e, &image, "flush"))
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.zero(offset, len, Zero::Unmap, "discard").await
    }

    async fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> Result<(), Error> {
        let zero = if may_unmap { Zero::Unmap } else { Zero::Allocate };
        self.zero(offset, len, zero, "write zeroes to").await
    }

    async fn provisioning(&self, offset: u64, len: u64) -> Result<(Provisioning, u64), Error> {
        let RbdStore(client) = self;
        let image = client.image().await?;
        let len = len.min(MAPPED_STEP);
        let extents = unblock(move || image.extents(offset, len)).await;
        let extents = extents.map_err(|e| client.target.failed(e, "look for data"))?;
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
        let sector = u64::from(SECTOR);
        if half == 0 || offset / sector != (offset + half - 1) / sector {
            return None;
        }
        let RbdStore(client) = self;
        let image = match client.image_to_change("compare and write").await {
            Ok(image) => image,
            Err(e) => return Some(Err(e)),
        };
        let doing = || format!("compare and write {half} bytes at {offset}");
        Some(match client.end(&image, image.compare_and_write(data, offset)).await {
            Ok(Compared::Written) => Ok(None),
            Ok(Compared::Differs(at)) => Ok(Some(at)),
            Err(e) => Err(client.error(e, &image, doing())),
        })
    }

    async fn resize(&self, size: u64) -> Result<(), Error> {
        let RbdStore(client) = self;
        client.look_at_size().await?;
        if size > client.layout.get().size {
            let image = client.image_to_change("resize").await?;
            let resized = unblock(move || image.resize(size)).await;
            resized.map_err(|e| client.target.failed(e, "resize"))?;
            client.look_at_size().await?;
        }
        // A smaller capacity leaves the image as it is.
        client.size.set(size);
        Ok(())
    }

    async fn close(&self) -> Result<(), Error> {
        self.0.close().await
    }

    fn lock(&self) -> Option<Rc<dyn ExclusiveLock>> {
        self.0.lock.exists().then(|| self.0.clone() as Rc<dyn ExclusiveLock>)
    }

    async fn event(&self) -> Event {
        loop {
            let seen = match self.0.news().await {
                News::Changed => self.0.look_at_size().await,
                News::Resized => return Event::Resized,
                News::State => {
                    self.0.tell_state().await;
                    continue;
                }
                News::Fenced(error) => return Event::Lost(error),
            };
            match seen {
                Ok(true) => return Event::Resized,
                Ok(false) => {}
                Err(error) => return Event::Lost(error),
            }
        }
    }
}
