// SPDX-License-Identifier: Apache-2.0
//! What is open on a server, and is opened again by whoever needs it after it was closed or lost. Who
//! comes while it is being opened waits for it: it is opened once.
use std::cell::RefCell;

use crate::range_lock::RangeLock;
use crate::{Access, Error};

/// Something that is open, or was.
#[derive(Debug)]
pub(super) struct Reopened<T> {
    current: RefCell<Option<T>>,
    /// Held while it is opened.
    opening: RangeLock,
}

impl<T: Clone> Reopened<T> {
    /// What is open now.
    pub(super) fn new(open: T) -> Self {
        Reopened { current: RefCell::new(Some(open)), opening: RangeLock::default() }
    }

    /// What is open now, if anything is.
    pub(super) fn current(&self) -> Option<T> {
        self.current.borrow().clone()
    }

    /// What is open, or what `open` opens.
    pub(super) async fn get(
        &self,
        open: impl AsyncFnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let _turn = self.opening.lock(0..1, Access::Alone).await;
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let opened = open().await?;
        *self.current.borrow_mut() = Some(opened.clone());
        Ok(opened)
    }

    /// Gives up what is open.
    pub(super) fn take(&self) -> Option<T> {
        self.current.borrow_mut().take()
    }
}
