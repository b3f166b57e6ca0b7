// SPDX-License-Identifier: Apache-2.0
//! A store of any type behind a pointer: each call takes a boxed future, which does not count where
//! a network or another format lies behind it. Files and qcow2 images are variants of
//! [`AnyStore`](crate::AnyStore) by themselves.
use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use sgl::Sgl;

use crate::exclusive::ExclusiveLock;
use crate::{Error, Event, Facts, Held, Provisioning, Store};

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// [`Store`] as a trait that can be behind a pointer.
trait DynStore: fmt::Debug {
    fn facts(&self) -> Facts;
    fn held(&self) -> Held;
    fn lock(&self) -> Option<Rc<dyn ExclusiveLock>>;
    fn grows_by_noise(&self) -> bool;
    fn read<'a>(&'a self, data: &'a Sgl<'a>, offset: u64) -> Boxed<'a, Result<(), Error>>;
    fn write<'a>(
        &'a self,
        data: &'a Sgl<'a>,
        offset: u64,
        fua: bool,
    ) -> Boxed<'a, Result<(), Error>>;
    fn flush(&self) -> Boxed<'_, Result<(), Error>>;
    fn discard(&self, offset: u64, len: u64) -> Boxed<'_, Result<(), Error>>;
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Boxed<'_, Result<(), Error>>;
    fn provisioning(&self, offset: u64, len: u64) -> Boxed<'_, Result<(Provisioning, u64), Error>>;
    fn compare_and_write<'a>(
        &'a self,
        data: &'a Sgl<'a>,
        offset: u64,
    ) -> Boxed<'a, Option<Result<Option<u64>, Error>>>;
    fn resize(&self, size: u64) -> Boxed<'_, Result<(), Error>>;
    fn close(&self) -> Boxed<'_, Result<(), Error>>;
    fn event(&self) -> Boxed<'_, Event>;
    fn as_any(&self) -> &dyn Any;
}

impl<S: Store + fmt::Debug + 'static> DynStore for S {
    fn facts(&self) -> Facts {
        Store::facts(self)
    }

    fn held(&self) -> Held {
        Store::held(self)
    }

    fn lock(&self) -> Option<Rc<dyn ExclusiveLock>> {
        Store::lock(self)
    }

    fn grows_by_noise(&self) -> bool {
        Store::grows_by_noise(self)
    }

    fn read<'a>(&'a self, data: &'a Sgl<'a>, offset: u64) -> Boxed<'a, Result<(), Error>> {
        Box::pin(Store::read(self, data, offset))
    }

    fn write<'a>(
        &'a self,
        data: &'a Sgl<'a>,
        offset: u64,
        fua: bool,
    ) -> Boxed<'a, Result<(), Error>> {
        Box::pin(Store::write(self, data, offset, fua))
    }

    fn flush(&self) -> Boxed<'_, Result<(), Error>> {
        Box::pin(Store::flush(self))
    }

    fn discard(&self, offset: u64, len: u64) -> Boxed<'_, Result<(), Error>> {
        Box::pin(Store::discard(self, offset, len))
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Boxed<'_, Result<(), Error>> {
        Box::pin(Store::write_zeroes(self, offset, len, unmap))
    }

    fn provisioning(&self, offset: u64, len: u64) -> Boxed<'_, Result<(Provisioning, u64), Error>> {
        Box::pin(Store::provisioning(self, offset, len))
    }

    fn compare_and_write<'a>(
        &'a self,
        data: &'a Sgl<'a>,
        offset: u64,
    ) -> Boxed<'a, Option<Result<Option<u64>, Error>>> {
        Box::pin(Store::compare_and_write(self, data, offset))
    }

    fn resize(&self, size: u64) -> Boxed<'_, Result<(), Error>> {
        Box::pin(Store::resize(self, size))
    }

    fn close(&self) -> Boxed<'_, Result<(), Error>> {
        Box::pin(Store::close(self))
    }

    fn event(&self) -> Boxed<'_, Event> {
        Box::pin(Store::event(self))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A store of any type. Clones are the same store.
#[derive(Clone, Debug)]
pub struct BoxedStore(Rc<dyn DynStore>);

impl BoxedStore {
    /// Boxes a store.
    pub fn new(store: impl Store + fmt::Debug + 'static) -> Self {
        BoxedStore(Rc::new(store))
    }

    /// The store, if it is a `T`.
    pub(crate) fn downcast_ref<T: Store + 'static>(&self) -> Option<&T> {
        self.0.as_any().downcast_ref()
    }
}

impl Store for BoxedStore {
    fn facts(&self) -> Facts {
        self.0.facts()
    }

    fn held(&self) -> Held {
        self.0.held()
    }

    fn lock(&self) -> Option<Rc<dyn ExclusiveLock>> {
        self.0.lock()
    }

    fn grows_by_noise(&self) -> bool {
        self.0.grows_by_noise()
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        self.0.read(data, offset).await
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64, fua: bool) -> Result<(), Error> {
        self.0.write(data, offset, fua).await
    }

    async fn flush(&self) -> Result<(), Error> {
        self.0.flush().await
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.0.discard(offset, len).await
    }

    async fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> Result<(), Error> {
        self.0.write_zeroes(offset, len, may_unmap).await
    }

    async fn provisioning(&self, offset: u64, len: u64) -> Result<(Provisioning, u64), Error> {
        self.0.provisioning(offset, len).await
    }

    async fn compare_and_write(
        &self,
        data: &Sgl<'_>,
        offset: u64,
    ) -> Option<Result<Option<u64>, Error>> {
        self.0.compare_and_write(data, offset).await
    }

    async fn resize(&self, size: u64) -> Result<(), Error> {
        self.0.resize(size).await
    }

    async fn close(&self) -> Result<(), Error> {
        self.0.close().await
    }

    async fn event(&self) -> Event {
        self.0.event().await
    }
}
