// SPDX-License-Identifier: Apache-2.0
//! A device of a handler as a [`Store`]: for handlers that read and write blocks. What a handler has
//! no function for, the disk above emulates.
//!
//! A store knows no commands, a handler wants them: who executes a command does so in a [`Scope`],
//! in which the store finds its CDB, and leaves what the handler said when it failed.
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;

use block::exclusive::ExclusiveLock;
use block::{Discard, Error, ErrorKind, Event, Facts, Provisioning, Store};
use sgl::Sgl;

use crate::device::{Finished, PluginDevice};
use crate::operation::Operation;
use crate::status::Status;

/// The best length of an I/O where nobody says more.
const OPTIMAL: u32 = 4096;

/// A command that is being executed on a store.
#[derive(Debug)]
pub struct Scope {
    id: u16,
    cdb: Box<[u8]>,
    failure: RefCell<Option<Finished>>,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Scope>>> = const { RefCell::new(None) };
}

impl Scope {
    /// The scope of a command.
    pub fn new(id: u16, cdb: &[u8]) -> Rc<Scope> {
        Rc::new(Scope { id, cdb: cdb.into(), failure: RefCell::default() })
    }

    /// Runs what executes the command.
    pub async fn run<T>(self: &Rc<Self>, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            let outer = CURRENT.replace(Some(self.clone()));
            let poll = work.as_mut().poll(cx);
            CURRENT.set(outer);
            poll
        })
        .await
    }

    /// What the handler said when it last failed.
    pub fn failure(&self) -> Option<Finished> {
        self.failure.take()
    }
}

/// A device of a handler.
#[derive(Clone, Debug)]
pub struct PluginStore {
    device: Rc<PluginDevice>,
}

impl PluginStore {
    pub(crate) fn new(device: Rc<PluginDevice>) -> Self {
        PluginStore { device }
    }

    /// The device itself.
    pub fn device(&self) -> &Rc<PluginDevice> {
        &self.device
    }

    fn error(&self, kind: ErrorKind, doing: String) -> Error {
        Error::new(kind, doing, self.device.name())
    }

    /// Has the handler execute an operation; the failure is left in the scope.
    async fn execute(
        &self,
        operation: Operation,
        data: &Sgl<'_>,
        doing: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        let scope = CURRENT.with_borrow(Option::clone);
        let command: (u16, &[u8]) = scope.as_ref().map_or((0, &[]), |scope| (scope.id, &scope.cdb));
        let finished = self.device.execute(command, operation, data).await;
        let status = finished.status;
        if status == Status::OK {
            return Ok(());
        }
        let kind = match status {
            Status::RANGE => ErrorKind::OutOfBounds { size: self.device.size() },
            status => status.kind(),
        };
        if let Some(scope) = scope {
            *scope.failure.borrow_mut() = Some(finished);
        }
        Err(self.error(kind, format!("{} ({status} of its handler)", doing())))
    }

    fn unsupported(&self, what: &str) -> Error {
        let text = format!("the handler {} cannot {what}", self.device.handler().subtype());
        self.error(ErrorKind::Unsupported(text), what.into())
    }

    async fn sync(&self) -> Result<(), Error> {
        if !self.device.handler().flushes() {
            return Ok(());
        }
        self.execute(Operation::Flush, &Sgl::empty(), || "flush".into()).await
    }
}

impl Store for PluginStore {
    fn facts(&self) -> Facts {
        let (handler, properties) = (self.device.handler(), self.device.properties());
        let block = self.device.block_size();
        let granularity = properties.opt_unmap_gran().max(1).saturating_mul(block);
        Facts {
            size: self.device.size(),
            read_only: !handler.writes() || properties.write_protect_enabled(),
            optimal_io: OPTIMAL.max(block),
            request_alignment: block,
            shared: handler.locks(),
            compare_and_write: None,
            discard: handler.unmaps().then_some(Discard { granularity, zeroes: false }),
            write_zeroes: handler.writes_same(),
        }
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        if self.device.handler().is_passthrough() {
            return Err(self.unsupported("read blocks"));
        }
        let doing = || format!("read {} bytes at {offset}", data.len());
        self.execute(Operation::Read { offset }, data, doing).await
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64, fua: bool) -> Result<(), Error> {
        if !self.device.handler().writes() {
            return Err(self.unsupported("write blocks"));
        }
        let doing = || format!("write {} bytes at {offset}", data.len());
        self.execute(Operation::Write { offset }, data, doing).await?;
        if fua { self.sync().await } else { Ok(()) }
    }

    async fn flush(&self) -> Result<(), Error> {
        self.sync().await
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        // In pieces of what the handler has said that it takes at once, if it has.
        let blocks = u64::from(self.device.properties().max_unmap_len());
        let most = if blocks == 0 { len } else { blocks * u64::from(self.device.block_size()) };
        let mut done = 0;
        while done < len {
            let (offset, len) = (offset + done, most.min(len - done));
            let doing = || format!("unmap {len} bytes at {offset}");
            self.execute(Operation::Unmap { offset, len }, &Sgl::empty(), doing).await?;
            done += len;
        }
        Ok(())
    }

    async fn write_zeroes(&self, offset: u64, len: u64, _may_unmap: bool) -> Result<(), Error> {
        let zeroes = Sgl::zeroed(usize::try_from(self.device.block_size()).unwrap_or_default());
        let doing = || format!("write zeroes to {len} bytes at {offset}");
        self.execute(Operation::WriteSame { offset, len }, &zeroes, doing).await
    }

    async fn provisioning(&self, _offset: u64, len: u64) -> Result<(Provisioning, u64), Error> {
        // The interface has no way to ask.
        Ok((Provisioning::Mapped, len))
    }

    async fn resize(&self, size: u64) -> Result<(), Error> {
        let result = self.device.resize(size).await;
        result.map_err(|error| self.error(error.into(), format!("resize to {size} bytes")))
    }

    async fn compare_and_write(
        &self,
        data: &Sgl<'_>,
        offset: u64,
    ) -> Option<Result<Option<u64>, Error>> {
        if !self.device.handler().compares_and_writes() {
            return None;
        }
        let len = data.len() as u64 / 2;
        let doing = || format!("compare and write {len} bytes at {offset}");
        // In a scope of its own, in which what differs is found.
        let outer = CURRENT.with_borrow(Option::clone);
        let (id, cdb) = outer.as_ref().map_or((0, &[][..]), |scope| (scope.id, &scope.cdb));
        let scope = Scope::new(id, cdb);
        let work = self.execute(Operation::CompareAndWrite { offset, len }, data, doing);
        let result = scope.run(work).await;
        let failure = scope.failure();
        if let Some(failure) = failure.as_ref().filter(|it| it.status == Status::MISCOMPARE) {
            let sense = failure.sense.as_deref().map_or(&[][..], |sense| &sense[..]);
            return Some(Ok(Some(information(sense))));
        }
        if let (Some(outer), Some(failure)) = (outer, failure) {
            *outer.failure.borrow_mut() = Some(failure);
        }
        Some(result.map(|()| None))
    }

    async fn close(&self) -> Result<(), Error> {
        let result = self.device.close().await;
        result.map_err(|error| self.error(error.into(), "close".into()))
    }

    fn lock(&self) -> Option<Rc<dyn ExclusiveLock>> {
        let locks = self.device.handler().locks();
        locks.then(|| self.device.clone() as Rc<dyn ExclusiveLock>)
    }

    async fn event(&self) -> Event {
        self.device.resized().await;
        Event::Resized
    }
}

/// INFORMATION of sense data in fixed format; 0 where there is none.
fn information(sense: &[u8]) -> u64 {
    match sense {
        [code, _, _, a, b, c, d, ..] if code & 0x80 != 0 => {
            u32::from_be_bytes([*a, *b, *c, *d]).into()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn information_counts_where_it_is_valid() {
        assert_eq!(information(&[0xf0, 0, 0x0e, 0, 0, 2, 1, 10]), 513);
        assert_eq!(information(&[0x70, 0, 0x0e, 0, 0, 2, 1, 10]), 0);
        assert_eq!(information(&[0xf0]), 0);
    }
}
