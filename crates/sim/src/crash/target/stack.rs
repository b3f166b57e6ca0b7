// SPDX-License-Identifier: Apache-2.0
//! All that is between an initiator and the engine: a ring in shared memory whose other side is a
//! stand-in for the kernel, a logical unit, the block layer. In: operations, as SCSI commands. Out:
//! what their status and sense say.
//!
//! Each operation runs its own command: puts it in the ring, takes it out at the daemon's side,
//! has it executed, and takes its completion. One that is given up is aborted.
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use block::{Held, QcowStore};
use io_engine::sim::World;
use lun::{Config, Identity, Lun, Outcome};
use scsi::sense::Status;
use tcmu::{Command, Entry, Response, Ring};
use tcmu_sim::{Completion, Data, Error, Kernel, Options};

use super::disk::Disk;
use super::{Fault, Result, Target, open_image, text};
use crate::crash::workload::{Record, Saving};

/// The kernel's side of the ring, which outlives the process.
#[derive(Clone, Debug, Default)]
pub struct Machine(Rc<RefCell<Option<Kernel>>>);

/// Forces unit access.
const FUA: u8 = 1 << 3;
/// Of WRITE SAME.
const UNMAP: u8 = 1 << 3;
/// Of WRITE SAME: no data, zeroes.
const NO_DATA: u8 = 1 << 0;
/// Sense keys.
const UNIT_ATTENTION: u8 = 0x6;
const MISCOMPARE: u8 = 0xe;

/// See the module's text.
pub struct Stack {
    lun: Lun<QcowStore<Disk>>,
    machine: Machine,
    ring: RefCell<Ring>,
    /// What has come out of the ring, by id.
    arrived: RefCell<BTreeMap<u16, Command>>,
    completed: RefCell<BTreeMap<u16, Completion>>,
    /// Who waits for room in the ring.
    waiting: RefCell<Vec<Waker>>,
}

/// A command that is under way: it is aborted when this is dropped.
struct Running<'a> {
    stack: &'a Stack,
    id: u16,
    ended: bool,
}

impl Running<'_> {
    fn end(mut self, outcome: &Outcome, data: usize) -> Result<Completion> {
        self.ended = true;
        let sense = outcome.sense.map(|sense| sense.fixed());
        let read_len = u32::try_from(outcome.read_len).ok();
        let response = Response {
            status: outcome.status as u8,
            sense: sense.as_deref().unwrap_or_default(),
            read_len: read_len.filter(|&len| len > 0 && outcome.read_len < data),
        };
        self.stack.complete(self.id, &response)?;
        let completion = self.stack.completed.borrow_mut().remove(&self.id);
        completion.ok_or_else(|| Fault::Failed("its completion does not come".into()))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let status = Status::TaskAborted as u8;
            let _ = self.stack.complete(self.id, &Response { status, sense: &[], read_len: None });
            self.stack.completed.borrow_mut().remove(&self.id);
        }
    }
}

fn failed(e: &dyn std::error::Error) -> Fault {
    Fault::Failed(text(e))
}

impl Stack {
    fn with_kernel<T>(&self, f: impl FnOnce(&mut Kernel) -> T) -> Result<T> {
        let mut machine = self.machine.0.borrow_mut();
        let kernel = machine.as_mut();
        kernel.map(f).ok_or_else(|| Fault::Failed("there is no ring".into()))
    }

    fn complete(&self, id: u16, response: &Response<'_>) -> Result<()> {
        let mut ring = self.ring.borrow_mut();
        ring.complete(id, response).and_then(|()| ring.kick()).map_err(|e| failed(&e))?;
        let completions = self.with_kernel(Kernel::take_completions)?.map_err(|e| failed(&e))?;
        let mut completed = self.completed.borrow_mut();
        completed.extend(completions.into_iter().map(|completion| (completion.id, completion)));
        self.waiting.take().into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Sends a command when there is room; its id.
    async fn send(&self, cdb: &[u8], data: Data<'_>) -> Result<u16> {
        poll_fn(|cx| {
            let sent = self.with_kernel(|kernel| (kernel.send(cdb, data), kernel.in_flight()));
            match sent {
                Ok((Err(Error::Full), in_flight)) if in_flight > 0 => {
                    self.waiting.borrow_mut().push(cx.waker().clone());
                    Poll::Pending
                }
                Ok((sent, _)) => Poll::Ready(sent.map_err(|e| failed(&e))),
                Err(fault) => Poll::Ready(Err(fault)),
            }
        })
        .await
    }

    /// Takes a command out of the ring.
    fn take(&self, id: u16) -> Result<Command> {
        let mut arrived = self.arrived.borrow_mut();
        while let Some(entry) = self.ring.borrow_mut().next().map_err(|e| failed(&e))? {
            if let Entry::Command(command) = entry {
                arrived.insert(command.id(), command);
            }
        }
        arrived.remove(&id).ok_or_else(|| Fault::Failed(format!("command {id} is not there")))
    }

    /// One command, whatever its status.
    async fn once(&self, cdb: &[u8], data: Data<'_>) -> Result<Completion> {
        let id = self.send(cdb, data).await?;
        let running = Running { stack: self, id, ended: false };
        let command = self.take(id)?;
        let outcome = self.lun.execute(command.cdb(), command.data()).await;
        let len = command.data().len();
        drop(command);
        running.end(&outcome, len)
    }

    /// A command with GOOD status; what it has read. Unit attentions are taken note of.
    async fn command(&self, cdb: &[u8], data: Data<'_>) -> Result<Vec<u8>> {
        loop {
            let completion = self.once(cdb, data).await?;
            let [_, _, key, ..] = completion.sense;
            return match (completion.status, key & 0xf) {
                (0, _) => Ok(completion.data),
                (2, UNIT_ATTENTION) => continue,
                (2, MISCOMPARE) => Err(Fault::Miscompare),
                (status, _) => {
                    let sense = completion.sense.get(..18).unwrap_or_default();
                    Err(Fault::Failed(format!("{cdb:02x?}: status {status:#x}, {sense:02x?}")))
                }
            };
        }
    }

    /// A range of bytes in blocks.
    fn blocks(&self, offset: u64, len: u64) -> (u64, u32) {
        let size = u64::from(self.lun.block_size());
        (offset / size, u32::try_from(len / size).unwrap_or(u32::MAX))
    }

    /// READ, WRITE and WRITE SAME with 16 bytes, or their siblings with 10 at every other block.
    fn cdb(&self, short: u8, long: u8, flags: u8, offset: u64, len: u64) -> Vec<u8> {
        let (lba, blocks) = self.blocks(offset, len);
        match (u32::try_from(lba), u16::try_from(blocks)) {
            (Ok(lba), Ok(blocks)) if lba.is_multiple_of(2) => {
                let [a, b, c, d] = lba.to_be_bytes();
                let [x, y] = blocks.to_be_bytes();
                vec![short, flags, a, b, c, d, 0, x, y, 0]
            }
            _ => {
                let mut cdb = vec![long, flags];
                cdb.extend(lba.to_be_bytes());
                cdb.extend(blocks.to_be_bytes());
                cdb.extend([0, 0]);
                cdb
            }
        }
    }
}

impl Target for Stack {
    /// After the death of a process the kernel ends what was in the ring, and the next one opens it.
    async fn open(
        world: &World,
        record: &Record,
        machine: &Machine,
    ) -> std::result::Result<Self, String> {
        let image = open_image(world, record, false, None).await?;
        let store = QcowStore::new(image, "image".into(), Held::default());
        let block_size = u32::try_from(record.unit as u64 * record.block).unwrap_or(0);
        let config = Config {
            name: "simulated".into(),
            device_type: &scsi::block_device::BLOCK_DEVICE,
            block_size,
            max_transfer: 1 << 20,
            write_cache: record.write_cache,
            identity: Identity::new("simulated"),
        };
        let lun = Lun::new(store, config).map_err(|e| text(&e))?;
        let parts = match &mut *machine.0.borrow_mut() {
            Some(kernel) => {
                kernel.reset_ring();
                kernel.reopen()
            }
            none => {
                let options = Options { blocks: 1024, ..Options::default() };
                Kernel::new(&options).map(|(kernel, parts)| {
                    *none = Some(kernel);
                    parts
                })
            }
        };
        let mut ring = parts.map_err(|e| text(&e))?.ring().map_err(|e| text(&e))?;
        ring.set_out_of_order(true);
        Ok(Stack {
            lun,
            machine: machine.clone(),
            ring: RefCell::new(ring),
            arrived: RefCell::default(),
            completed: RefCell::default(),
            waiting: RefCell::default(),
        })
    }

    fn size(&self) -> u64 {
        self.lun.blocks() * u64::from(self.lun.block_size())
    }

    async fn read(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        let cdb = self.cdb(0x28, 0x88, 0, offset, bytes.len() as u64);
        let data = self.command(&cdb, Data::In(bytes.len())).await?;
        if data.len() != bytes.len() {
            let why = format!("{cdb:02x?}: {} bytes of {}", data.len(), bytes.len());
            return Err(Fault::Failed(why));
        }
        bytes.copy_from_slice(&data);
        Ok(())
    }

    async fn write(&self, bytes: &mut [u8], offset: u64, durable: bool) -> Result<()> {
        let flags = if durable { FUA } else { 0 };
        let cdb = self.cdb(0x2a, 0x8a, flags, offset, bytes.len() as u64);
        self.command(&cdb, Data::Out(bytes)).await.map(drop)
    }

    async fn repeat(&self, block: &[u8], offset: u64, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let cdb = self.cdb(0x41, 0x93, 0, offset, len);
        self.command(&cdb, Data::Out(block)).await.map(drop)
    }

    async fn compare_and_write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let (lba, blocks) = self.blocks(offset, bytes.len() as u64 / 2);
        let mut cdb = vec![0x89, 0];
        cdb.extend(lba.to_be_bytes());
        cdb.extend([0, 0, 0, u8::try_from(blocks).unwrap_or(u8::MAX), 0, 0]);
        self.command(&cdb, Data::Out(bytes)).await.map(drop)
    }

    async fn flush(&self) -> Result<()> {
        self.command(&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], Data::None).await.map(drop)
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<bool> {
        let Some(facts) = self.lun.disk().facts().discard else { return Ok(false) };
        let (lba, blocks) = self.blocks(offset, len);
        // In two parts, of which one may be empty.
        let mut list = vec![0, 38, 0, 32, 0, 0, 0, 0];
        for (lba, blocks) in [(lba, blocks / 2), (lba + u64::from(blocks / 2), blocks.div_ceil(2))]
        {
            list.extend(lba.to_be_bytes());
            list.extend(blocks.to_be_bytes());
            list.extend([0; 4]);
        }
        self.command(&[0x42, 0, 0, 0, 0, 0, 0, 0, 40, 0], Data::Out(&list)).await?;
        Ok(facts.zeroes)
    }

    async fn zero(&self, offset: u64, len: u64, unmap: bool) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let unmaps = unmap && self.lun.disk().facts().discard.is_some();
        let flags = if unmaps { UNMAP } else { 0 };
        let mut cdb = self.cdb(0x41, 0x93, flags, offset, len);
        if let [0x93, flags, ..] = &mut *cdb {
            *flags |= NO_DATA;
            return self.command(&cdb, Data::None).await.map(drop);
        }
        let block = vec![0; usize::try_from(self.lun.block_size()).unwrap_or(0)];
        self.command(&cdb, Data::Out(&block)).await.map(drop)
    }

    /// GET LBA STATUS.
    async fn map(&self, offset: u64) -> Result<()> {
        let (lba, _) = self.blocks(offset, 0);
        let mut cdb = vec![0x9e, 0x12];
        cdb.extend(lba.to_be_bytes());
        cdb.extend([0, 0, 0, 64, 0, 0]);
        self.command(&cdb, Data::In(64)).await.map(drop)
    }

    /// As a change of `dev_size` does.
    async fn resize(&self, size: u64) -> Result<()> {
        self.lun.resize(size).await.map_err(|e| failed(&e))
    }

    async fn snapshot(&self, _: Saving, _: &str) -> Result<()> {
        Err(Fault::Failed("a logical unit makes no snapshots".into()))
    }

    async fn keep_house(&self) -> Infallible {
        loop {
            self.lun.watch().await;
        }
    }

    /// As the daemon ends.
    async fn close(&self) -> Result<()> {
        self.lun.flush().await.map_err(|e| failed(&e))?;
        let closed = block::Store::close(self.lun.store()).await;
        closed.map_err(|e| failed(&e))
    }
}
