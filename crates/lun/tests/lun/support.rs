// SPDX-License-Identifier: Apache-2.0
//! What the tests of the logical unit share: an executor that polls only what was woken, a
//! store in memory that fails, dawdles and lacks abilities on request, and CDBs.
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use block::{Discard, Error, Facts, Provisioning, Store};
use lun::{Config, Identity, Lun, Outcome};
use scsi::sense::{Sense, Status};
use sgl::Sgl;

/// Block size of the logical units of the tests, in bytes.
pub(crate) const BS: usize = 512;

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Task<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Futures that run together.
#[derive(Default)]
pub(crate) struct Tasks<'a> {
    tasks: Vec<(Arc<Flag>, Option<Task<'a>>)>,
}

impl<'a> Tasks<'a> {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a future; the returned index drops it with [`Tasks::drop_task`].
    pub(crate) fn spawn(&mut self, future: impl Future<Output = ()> + 'a) -> usize {
        self.tasks.push((Arc::new(Flag(AtomicBool::new(true))), Some(Box::pin(future))));
        self.tasks.len() - 1
    }

    pub(crate) fn drop_task(&mut self, index: usize) {
        self.tasks[index].1 = None;
    }

    /// Polls what was woken, once each in order; whether anything was.
    pub(crate) fn step(&mut self) -> bool {
        let mut any = false;
        for (flag, task) in &mut self.tasks {
            let Some(future) = task else { continue };
            if flag.0.swap(false, Ordering::Relaxed) {
                any = true;
                let waker = Waker::from(flag.clone());
                if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                    *task = None;
                }
            }
        }
        any
    }

    /// Runs until nobody has anything to do.
    pub(crate) fn run_until_idle(&mut self) {
        for _ in 0..1_000_000 {
            if !self.step() {
                return;
            }
        }
        panic!("the tasks poll for ever");
    }

    /// Runs all to their end.
    pub(crate) fn run(&mut self) {
        self.run_until_idle();
        let waiting = self.tasks.iter().filter(|(_, task)| task.is_some()).count();
        assert_eq!(waiting, 0, "tasks wait and nobody will wake them");
    }
}

/// Runs one future to its end.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let result = Cell::new(None);
    let mut tasks = Tasks::new();
    tasks.spawn(async { result.set(Some(future.await)) });
    tasks.run();
    drop(tasks);
    result.into_inner().expect("it has run")
}

/// Lets the other tasks run `times` times.
pub(crate) async fn pause(times: u32) {
    for _ in 0..times {
        let mut polled = false;
        std::future::poll_fn(|cx| {
            if polled {
                return Poll::Ready(());
            }
            polled = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// What the store was asked to do, with offset and length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Read(u64, u64),
    /// With whether it was to be on stable storage.
    Write(u64, u64, bool),
    Flush,
    Discard(u64, u64),
    /// With whether it could give up space.
    WriteZeroes(u64, u64, bool),
    Resize(u64),
}

/// Says with which errno an operation fails, if it does.
type Fault = Box<dyn Fn(Op) -> Option<i32>>;

/// A store in memory.
pub(crate) struct Memory {
    pub(crate) bytes: RefCell<Vec<u8>>,
    /// Which blocks of [`BS`] bytes take up space.
    pub(crate) mapped: RefCell<Vec<bool>>,
    pub(crate) facts: RefCell<Facts>,
    pub(crate) ops: RefCell<Vec<Op>>,
    /// The errno with which operations that `ops` would show fail, if the function says so.
    pub(crate) fault: RefCell<Option<Fault>>,
    /// How often others run before an operation takes effect, and again before it returns.
    pub(crate) delay: Cell<u32>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.facts.borrow().fmt(f)
    }
}

impl Memory {
    /// `blocks` blocks; discards to zeroes and writes zeroes.
    pub(crate) fn new(blocks: usize) -> Self {
        Memory {
            bytes: RefCell::new(vec![0; blocks * BS]),
            mapped: RefCell::new(vec![true; blocks]),
            facts: RefCell::new(Facts {
                size: (blocks * BS) as u64,
                read_only: false,
                optimal_io: 4096,
                request_alignment: 1,
                shared: false,
                compare_and_write: None,
                discard: Some(Discard { granularity: 4096, zeroes: true }),
                write_zeroes: true,
            }),
            ops: RefCell::default(),
            fault: RefCell::default(),
            delay: Cell::new(0),
        }
    }

    pub(crate) fn with(self, change: impl FnOnce(&mut Facts)) -> Self {
        change(&mut self.facts.borrow_mut());
        self
    }

    /// Every byte of a block is the block's number, modulo 251, plus 1.
    pub(crate) fn patterned(self) -> Self {
        for (i, byte) in self.bytes.borrow_mut().iter_mut().enumerate() {
            *byte = pattern((i / BS) as u64);
        }
        self
    }

    pub(crate) fn fail(&self, fault: impl Fn(Op) -> Option<i32> + 'static) {
        *self.fault.borrow_mut() = Some(Box::new(fault));
    }

    pub(crate) fn block(&self, lba: usize) -> Vec<u8> {
        self.bytes.borrow()[lba * BS..(lba + 1) * BS].to_vec()
    }

    pub(crate) fn take_ops(&self) -> Vec<Op> {
        self.ops.take()
    }

    async fn enter(&self, op: Op) -> Result<(), Error> {
        self.ops.borrow_mut().push(op);
        pause(self.delay.get()).await;
        if let Some(errno) = self.fault.borrow().as_ref().and_then(|fault| fault(op)) {
            let e = io::Error::from_raw_os_error(errno);
            return Err(Error::new(e, format!("{op:?}"), "memory"));
        }
        Ok(())
    }

    fn range(&self, offset: u64, len: u64) -> std::ops::Range<usize> {
        let (start, end) = (offset as usize, (offset + len) as usize);
        assert!(end <= self.bytes.borrow().len(), "{offset}+{len} is past the end");
        start..end
    }

    fn map(&self, offset: u64, len: u64, mapped: bool) {
        let range = self.range(offset, len);
        self.mapped.borrow_mut()[range.start / BS..range.end.div_ceil(BS)].fill(mapped);
    }
}

/// The byte that fills a block of a patterned store.
pub(crate) fn pattern(lba: u64) -> u8 {
    (lba % 251) as u8 + 1
}

impl Store for Memory {
    fn facts(&self) -> Facts {
        self.facts.borrow().clone()
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        self.enter(Op::Read(offset, data.len() as u64)).await?;
        let range = self.range(offset, data.len() as u64);
        data.write_at(0, &self.bytes.borrow()[range]);
        pause(self.delay.get()).await;
        Ok(())
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64, fua: bool) -> Result<(), Error> {
        self.enter(Op::Write(offset, data.len() as u64, fua)).await?;
        let range = self.range(offset, data.len() as u64);
        data.read_at(0, &mut self.bytes.borrow_mut()[range]);
        self.map(offset, data.len() as u64, true);
        pause(self.delay.get()).await;
        Ok(())
    }

    async fn flush(&self) -> Result<(), Error> {
        self.enter(Op::Flush).await
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        assert!(self.facts.borrow().discard.is_some(), "it cannot discard");
        self.enter(Op::Discard(offset, len)).await?;
        if self.facts.borrow().discard.is_some_and(|discard| discard.zeroes) {
            let range = self.range(offset, len);
            self.bytes.borrow_mut()[range].fill(0);
        }
        self.map(offset, len, false);
        Ok(())
    }

    async fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> Result<(), Error> {
        assert!(self.facts.borrow().write_zeroes, "it cannot write zeroes");
        self.enter(Op::WriteZeroes(offset, len, may_unmap)).await?;
        let range = self.range(offset, len);
        self.bytes.borrow_mut()[range].fill(0);
        self.map(offset, len, !may_unmap);
        Ok(())
    }

    async fn provisioning(&self, offset: u64, len: u64) -> Result<(Provisioning, u64), Error> {
        let range = self.range(offset, len);
        let mapped = self.mapped.borrow();
        let blocks = &mapped[range.start / BS..range.end.div_ceil(BS)];
        let same = blocks.iter().take_while(|&&m| m == blocks[0]).count() * BS;
        let kind = if blocks[0] { Provisioning::Mapped } else { Provisioning::Deallocated };
        Ok((kind, (same as u64).min(len)))
    }

    async fn resize(&self, size: u64) -> Result<(), Error> {
        self.enter(Op::Resize(size)).await?;
        self.bytes.borrow_mut().resize(size as usize, 0);
        self.mapped.borrow_mut().resize(size as usize / BS, false);
        self.facts.borrow_mut().size = size;
        Ok(())
    }

    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// A logical unit with a write cache on a store, and transfers of 64 KiB at most.
pub(crate) fn lun(memory: Memory) -> Lun<Memory> {
    Lun::new(memory, config()).expect("a logical unit")
}

pub(crate) fn config() -> Config {
    Config {
        name: "test".into(),
        device_type: &scsi::block_device::BLOCK_DEVICE,
        block_size: BS as u32,
        max_transfer: 64 << 10,
        write_cache: true,
        identity: Identity::new("3a0b5b32-6bd4-4a58-8a14-0d9ee1f0a1c7"),
    }
}

/// Executes a CDB with this buffer.
pub(crate) fn run(lun: &Lun<Memory>, cdb: &[u8], data: &mut [u8]) -> Outcome {
    block_on(lun.execute(cdb, &Sgl::from_slice(data)))
}

/// Executes a CDB that is to succeed; its data-in.
pub(crate) fn read_data(lun: &Lun<Memory>, cdb: &[u8], room: usize) -> Vec<u8> {
    let mut data = vec![0xee; room];
    let outcome = run(lun, cdb, &mut data);
    assert_eq!((outcome.status, outcome.sense), (Status::Good, None), "{cdb:02x?}");
    assert!(data[outcome.read_len..].iter().all(|&b| b == 0xee), "bytes behind the answer");
    data.truncate(outcome.read_len);
    data
}

/// Executes a CDB that is to succeed without data-in.
pub(crate) fn good(lun: &Lun<Memory>, cdb: &[u8], data: &mut [u8]) {
    assert_eq!(run(lun, cdb, data), done(0), "{cdb:02x?}");
}

/// The sense of a CDB that is to fail.
pub(crate) fn sense(lun: &Lun<Memory>, cdb: &[u8], data: &mut [u8]) -> Sense {
    let outcome = run(lun, cdb, data);
    assert_eq!((outcome.status, outcome.read_len), (Status::CheckCondition, 0), "{cdb:02x?}");
    outcome.sense.expect("sense")
}

/// Key, code and qualifier of a sense.
pub(crate) fn triple(sense: Sense) -> (u8, u8, u8) {
    (sense.key, sense.asc, sense.ascq)
}

/// GOOD with this much data-in.
pub(crate) fn done(read_len: usize) -> Outcome {
    Outcome { status: Status::Good, sense: None, read_len }
}

/// A 10-byte CDB of a range.
pub(crate) fn cdb10(opcode: u8, flags: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let mut cdb = [0; 10];
    (cdb[0], cdb[1]) = (opcode, flags);
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

/// A 16-byte CDB of a range.
pub(crate) fn cdb16(opcode: u8, flags: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (opcode, flags);
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

/// COMPARE AND WRITE.
pub(crate) fn caw(lba: u64, blocks: u8) -> [u8; 16] {
    let mut cdb = cdb16(0x89, 0, lba, 0);
    cdb[13] = blocks;
    cdb
}

pub(crate) const READ10: u8 = 0x28;
pub(crate) const WRITE10: u8 = 0x2a;
pub(crate) const READ16: u8 = 0x88;
pub(crate) const WRITE16: u8 = 0x8a;
pub(crate) const FUA: u8 = 0x08;
pub(crate) const TEST_UNIT_READY: [u8; 6] = [0; 6];
