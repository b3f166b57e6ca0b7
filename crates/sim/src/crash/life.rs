// SPDX-License-Identifier: Apache-2.0
//! One life of a process: opens the target, does what is left of the list of operations, and tells
//! the model of each when it begins and how it ends.
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use io_engine::sim::{Knobs, World};
use io_engine::{Started, TaskSet, timeout};

use crate::crash::model::{Begun, Fate, Model, SAME, Value, ZERO, fill};
use crate::crash::target::{Fault, Machine, Target};
use crate::crash::workload::{Kind, Op, Record};

/// What all lives of a run share.
pub(crate) struct Life<'a> {
    pub(crate) record: &'a Record,
    pub(crate) model: &'a RefCell<Model>,
    pub(crate) machine: Machine,
    /// The next operation.
    pub(crate) cursor: &'a Cell<usize>,
    /// How many were acknowledged.
    pub(crate) operations: &'a Cell<u64>,
    /// How many operations on snapshots are under way.
    pub(crate) saving: &'a Cell<u64>,
    /// Whether the image was closed by its process, and nothing was done since.
    pub(crate) closed: &'a Cell<bool>,
}

/// A change of sectors that ends, uncertain, when it is dropped.
struct Change<'a> {
    model: &'a RefCell<Model>,
    range: Range<u64>,
    begun: Begun,
    fate: Option<Fate>,
}

impl<'a> Change<'a> {
    fn new(model: &'a RefCell<Model>, range: Range<u64>, value: Value) -> Self {
        let begun = model.borrow_mut().begin(range.clone(), value);
        Change { model, range, begun, fate: Some(Fate::Open) }
    }

    fn end(mut self, fate: Fate) {
        self.fate = Some(fate);
    }

    /// Nothing was changed.
    fn withdraw(mut self) {
        self.fate = None;
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        let (mut model, range) = (self.model.borrow_mut(), self.range.clone());
        match self.fate {
            Some(fate) => model.end(range, self.begun, fate),
            None => model.withdraw(range, self.begun),
        }
    }
}

/// A read that ends, without bytes, when it is dropped.
struct Reading<'a> {
    model: &'a RefCell<Model>,
    begun: Option<Begun>,
}

impl<'a> Reading<'a> {
    fn new(model: &'a RefCell<Model>) -> Self {
        Reading { model, begun: Some(model.borrow_mut().begin_read()) }
    }

    fn end(mut self, first: u64, bytes: &[u8]) -> Result<(), String> {
        match self.begun.take() {
            Some(begun) => self.model.borrow_mut().end_read(begun, first, bytes),
            None => Ok(()),
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if let Some(begun) = self.begun.take() {
            let _ = self.model.borrow_mut().end_read(begun, 0, &[]);
        }
    }
}

impl Life<'_> {
    /// What an operation that failed means.
    fn failed(&self, what: &dyn std::fmt::Display, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Failed(_) | Fault::Refused(_) if self.record.is_faulty() => Ok(()),
            Fault::Failed(why) | Fault::Refused(why) | Fault::Wrong(why) => {
                Err(format!("{what}: {why}"))
            }
            Fault::Miscompare => Err(format!("{what}: it does not find what is there")),
        }
    }

    /// How a change ended that was acknowledged.
    fn done(&self, durable: bool) -> Fate {
        if durable || !self.record.write_cache { Fate::Durable } else { Fate::Done }
    }

    fn bytes(&self, sectors: u64) -> usize {
        usize::try_from(sectors).unwrap_or(0) * self.record.unit
    }

    /// Ranges of sectors in bytes: where, and how long.
    fn place(&self, range: &Range<u64>) -> (u64, u64) {
        let unit = self.record.unit as u64;
        (range.start * unit, (range.end - range.start) * unit)
    }

    /// The content that sectors have of `value`.
    fn content(&self, range: &Range<u64>, value: impl Fn(u64) -> Value) -> Vec<u8> {
        let mut bytes = vec![0; self.bytes(range.end - range.start)];
        for (sector, bytes) in range.clone().zip(bytes.chunks_mut(self.record.unit)) {
            fill(self.record.seed, sector, value(sector), bytes);
        }
        bytes
    }

    async fn perform(&self, op: &Op, target: &impl Target) -> Result<(), String> {
        let unit = self.record.unit as u64;
        let size = target.size() / unit;
        let work = async {
            match &op.kind {
                Kind::Resize(sectors) => self.resize(*sectors, target).await,
                Kind::Map(sector) if *sector < size => target.map(sector * unit).await,
                Kind::Map(_) | Kind::Reopen => Ok(()),
                Kind::Snapshot(what, nth) => self.save(op.number, *what, *nth, target).await,
                Kind::Flush => {
                    let begun = self.model.borrow_mut().begin_flush();
                    target.flush().await?;
                    self.model.borrow_mut().flushed(begun);
                    Ok(())
                }
                Kind::Read(range)
                | Kind::Write(range, _)
                | Kind::Repeat(range)
                | Kind::CompareAndWrite(range, _)
                | Kind::Discard(range)
                | Kind::Zero(range, _) => {
                    let range = range.start.min(size)..range.end.min(size);
                    self.access(op, range, target).await
                }
            }
        };
        let result = match op.cancel {
            None => work.await,
            Some(after) => timeout(Duration::from_nanos(after), work).await.unwrap_or(Ok(())),
        };
        match result {
            Ok(()) => self.operations.set(self.operations.get() + 1),
            Err(fault) => self.failed(op, fault)?,
        }
        Ok(())
    }

    async fn resize(&self, sectors: u64, target: &impl Target) -> Result<(), Fault> {
        let begun = self.model.borrow_mut().begin_resize(sectors);
        let result = target.resize(sectors * self.record.unit as u64).await;
        let fate = if result.is_ok() { Fate::Done } else { Fate::Open };
        self.model.borrow_mut().end_resize(begun, fate);
        result
    }

    /// An operation on a range of sectors, which is inside the size.
    async fn access(&self, op: &Op, range: Range<u64>, target: &impl Target) -> Result<(), Fault> {
        let (offset, len) = self.place(&range);
        let change = |value| Change::new(self.model, range.clone(), value);
        match op.kind {
            Kind::Read(_) => {
                let mut bytes = vec![0; self.bytes(range.end - range.start)];
                let reading = Reading::new(self.model);
                target.read(&mut bytes, offset).await?;
                reading.end(range.start, &bytes).map_err(Fault::Wrong)
            }
            Kind::Write(_, durable) => {
                let mut bytes = self.content(&range, |_| op.number);
                let change = change(op.number);
                target.write(&mut bytes, offset, durable).await?;
                change.end(self.done(durable));
                Ok(())
            }
            Kind::Repeat(_) => {
                let value = op.number | SAME;
                let block = self.content(&(0..self.record.block), |_| value);
                let change = change(value);
                target.repeat(&block, offset, len).await?;
                change.end(self.done(false));
                Ok(())
            }
            Kind::CompareAndWrite(_, equal) => {
                self.compare_and_write(op.number, equal, range, target).await
            }
            Kind::Discard(_) => {
                let change = change(ZERO);
                if target.discard(offset, len).await? {
                    change.end(self.done(false));
                }
                Ok(())
            }
            Kind::Zero(_, unmap) => {
                let change = change(ZERO);
                target.zero(offset, len, unmap).await?;
                change.end(self.done(false));
                Ok(())
            }
            Kind::Flush | Kind::Map(_) | Kind::Resize(_) | Kind::Snapshot(..) | Kind::Reopen => {
                Ok(())
            }
        }
    }

    /// With what was written last, which others may change meanwhile, or with what nobody wrote.
    async fn compare_and_write(
        &self,
        number: u32,
        equal: bool,
        range: Range<u64>,
        target: &impl Target,
    ) -> Result<(), Fault> {
        let (offset, _) = self.place(&range);
        let nobody = number | SAME;
        let latest = |sector| self.model.borrow().latest(sector);
        let expect = |sector| if equal { latest(sector) } else { nobody };
        let expected: Vec<Value> = range.clone().map(expect).collect();
        let mut bytes = self.content(&range, expect);
        let len = bytes.len();
        bytes.extend(self.content(&range, |_| number));
        let reading = Reading::new(self.model);
        let change = Change::new(self.model, range.clone(), number);
        match target.compare_and_write(&bytes, offset).await {
            Ok(()) => {
                reading.end(range.start, &bytes[..len]).map_err(Fault::Wrong)?;
                change.end(self.done(false));
                Ok(())
            }
            Err(Fault::Miscompare) => {
                let begun = change.begun;
                let certain = self.model.borrow().is_certain(begun, range.start, &expected);
                change.withdraw();
                if certain { Err(Fault::Miscompare) } else { Ok(()) }
            }
            Err(fault) => Err(fault),
        }
    }

    /// The operations up to the end of the list, or to where the target is to be opened again;
    /// whether that was it.
    async fn operate<T: Target>(&self, target: &Rc<T>) -> Result<bool, String> {
        let (record, cursor) = (self.record, self.cursor);
        let mut set = TaskSet::new();
        let mut again = false;
        while let Some(op) = record.ops.get(cursor.get()) {
            cursor.set(cursor.get() + 1);
            while set.len() >= record.depth || (self.has_to_wait(op) && !set.is_empty()) {
                set.next().await.1?;
            }
            let alone = self.is_alone(op);
            if op.kind == Kind::Reopen {
                again = true;
                break;
            }
            let target = target.clone();
            match set.push(async move { self.perform(op, &*target).await }) {
                Started::Done(done) => done?,
                Started::Running(_) if alone => set.next().await.1?,
                Started::Running(_) => {}
            }
        }
        while !set.is_empty() {
            set.next().await.1?;
        }
        Ok(again)
    }

    /// See the module's text.
    ///
    /// # Errors
    /// A promise that was not kept.
    pub(crate) async fn run<T: Target>(&self, world: World) -> Result<(), String> {
        let record = self.record;
        loop {
            world.set_knobs(Knobs { inline: record.knobs.inline, ..Knobs::CALM });
            let target = Rc::new(T::open(&world, record, &self.machine).await?);
            self.saving.set(0);
            self.closed.set(false);
            world.set_knobs(record.knobs);
            let again = {
                let (mut work, mut house) =
                    (pin!(self.operate(&target)), pin!(target.keep_house()));
                poll_fn(|cx| {
                    if record.keeps_house
                        && let Poll::Ready(never) = house.as_mut().poll(cx)
                    {
                        match never {}
                    }
                    work.as_mut().poll(cx)
                })
                .await?
            };
            let begun = self.model.borrow_mut().begin_flush();
            match target.close().await {
                Ok(()) => {
                    self.model.borrow_mut().flushed(begun);
                    self.closed.set(true);
                }
                Err(fault) => self.failed(&"closing", fault)?,
            }
            // A sync that failed has lost pages: only a loss of power tells what is there.
            if !again || world.failed_syncs() > 0 {
                return Ok(());
            }
        }
    }
}
