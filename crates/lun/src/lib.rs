// SPDX-License-Identifier: Apache-2.0
//! A logical unit: executes SCSI commands on a disk.
//!
//! In: a CDB and a view of the command's buffer. Out: status, sense, and how many bytes of data-in
//! are valid. What a command means is here: ranges of blocks, unit attentions, asymmetric access,
//! what is promised to initiators. The layout of CDBs and answers is `scsi`'s; atomicity, and the
//! emulation of what a store cannot do, are those of [`block::Disk`].
//!
//! A [`Lun`] lives on one thread. Commands run concurrently there, each as one future; dropping
//! the future aborts the command.
//!
//! - `block_io`: READ, WRITE, VERIFY, SYNCHRONIZE CACHE: the data path
//! - `compare`, `provisioning`, `copy`: the compound commands
//! - `inquiry`, `control`: what initiators ask about the logical unit
//! - [`alua`]: asymmetric access; `attention`: unit attentions
//! - `failure`: errors to sense

use std::cell::Cell;
use std::rc::Rc;

use block::{Disk, Event, Store};
use scsi::command::Command;
use scsi::opcodes::Opcode;
use scsi::report;
use scsi::sense::{Sense, Status};
use sgl::Sgl;

pub mod alua;
mod attention;
mod block_io;
mod compare;
mod control;
pub mod copy;
mod failure;
mod inquiry;
mod provisioning;

use alua::{AccessState, Alua};
use attention::Attentions;
use block::disk::Options;
use copy::CopyPeers;
use failure::{Answer, Failure, FailureLog};

pub use inquiry::Identity;

/// What a logical unit is told when it is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// How log lines call the device.
    pub name: String,
    /// Block size in bytes: a power of two from 512 to 65536.
    pub block_size: u32,
    /// The most bytes of one READ or WRITE that VPD page B0h recommends; at least one block. Longer
    /// ones are served.
    pub max_transfer: u32,
    /// Whether writes may stay in a volatile cache until a flush (WCE).
    pub write_cache: bool,
    /// Who the logical unit is.
    pub identity: Identity,
}

/// Why there is no logical unit.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The block size is none that a disk has.
    #[error("block size {0}: it has to be a power of two from 512 to 65536")]
    BlockSize(u32),
    /// The store is smaller than a block.
    #[error("size {size}: that is less than one block of {block_size} bytes")]
    TooSmall {
        /// Of the store, in bytes.
        size: u64,
        /// In bytes.
        block_size: u32,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] block::Error),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The SCSI status.
    pub status: Status,
    /// With CHECK CONDITION only.
    pub sense: Option<Sense>,
    /// How many bytes of data-in, from the start of the buffer, are the answer; 0 for commands
    /// that send data. What is behind them is stale and must not reach the initiator.
    pub read_len: usize,
}

impl From<Answer> for Outcome {
    #[inline]
    fn from(answer: Answer) -> Self {
        let (status, sense, read_len) = match answer {
            Ok(read_len) => (Status::Good, None, read_len),
            Err(Failure::Check(sense)) => (Status::CheckCondition, Some(sense), 0),
            Err(Failure::Busy) => (Status::Busy, None, 0),
        };
        Outcome { status, sense, read_len }
    }
}

/// INQUIRY, REPORT LUNS and REQUEST SENSE, which are executed in spite of a unit attention.
const EXEMPT: [u8; 3] = [0x12, 0xa0, 0x03];
/// What depends on target port groups or is used to check on a port: TEST UNIT READY, INQUIRY,
/// MODE SENSE, and those that report and set groups.
const ASK_PORTS: [u8; 6] = [0x00, 0x12, 0x1a, 0x5a, 0xa3, 0xa4];

/// A logical unit on a store.
pub struct Lun<S: Store> {
    disk: Disk<S>,
    name: String,
    identity: Identity,
    block_shift: u32,
    /// The most blocks of a READ or WRITE that VPD page B0h recommends.
    max_blocks: u64,
    /// Whether there was a write cache when the logical unit was made.
    write_cache_default: bool,
    /// Of the port that commands come through, as last seen.
    access: Cell<AccessState>,
    alua: Option<Box<dyn Alua>>,
    peers: Option<Rc<dyn CopyPeers>>,
    attentions: Attentions,
    copies: copy::Results,
    failures: FailureLog,
}

impl<S: Store> Lun<S> {
    /// A logical unit of an open store. A part of a block at its end is left alone.
    pub fn new(store: S, config: Config) -> Result<Self, Error> {
        let block_size = config.block_size;
        if !block_size.is_power_of_two() || !(512..=65536).contains(&block_size) {
            return Err(Error::BlockSize(block_size));
        }
        let block_shift = block_size.trailing_zeros();
        let options = Options { write_cache: config.write_cache, ..Options::default() };
        let disk = Disk::new(store, config.name.clone(), options);
        let size = disk.size();
        if size >> block_shift == 0 {
            return Err(Error::TooSmall { size, block_size });
        }
        Ok(Lun {
            name: config.name,
            identity: config.identity,
            block_shift,
            max_blocks: u64::from(config.max_transfer >> block_shift).max(1),
            write_cache_default: config.write_cache,
            access: Cell::new(AccessState::Optimized),
            alua: None,
            peers: None,
            attentions: Attentions::default(),
            copies: copy::Results::default(),
            failures: FailureLog::default(),
            disk,
        })
    }

    /// With asymmetric access as `alua` tells of it; without, there is one port group, active and
    /// optimized.
    pub fn with_alua(mut self, alua: Box<dyn Alua>) -> Self {
        self.alua = Some(alua);
        self.port_groups();
        self
    }

    /// With EXTENDED COPY from and to other logical units; without, only inside this one.
    pub fn with_peers(mut self, peers: Rc<dyn CopyPeers>) -> Self {
        self.peers = Some(peers);
        self
    }

    /// The disk.
    pub fn disk(&self) -> &Disk<S> {
        &self.disk
    }

    /// What holds its blocks.
    pub fn store(&self) -> &S {
        self.disk.store()
    }

    /// Block size in bytes.
    pub fn block_size(&self) -> u32 {
        1 << self.block_shift
    }

    /// Capacity in blocks.
    #[inline]
    pub fn blocks(&self) -> u64 {
        self.disk.size() >> self.block_shift
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether there is a volatile write cache.
    pub fn write_cache(&self) -> bool {
        self.disk.write_cache()
    }

    /// Turns the volatile write cache on or off; initiators are told if that is a change. Turning
    /// it off flushes nothing by itself: call [`flush`](Self::flush).
    pub fn set_write_cache(&self, on: bool) {
        if self.disk.set_write_cache(on) != on {
            self.attentions.raise(Sense::MODE_PARAMETERS_CHANGED);
        }
    }

    /// Brings everything acknowledged to stable storage.
    pub async fn flush(&self) -> Result<(), Error> {
        Ok(self.disk.flush().await?)
    }

    /// Takes a new capacity, in bytes, when no command is under way any more; initiators are told
    /// if that is a change. On an error the capacity is what the store says that it is.
    pub async fn resize(&self, size: u64) -> Result<(), Error> {
        let block_size = self.block_size();
        if size >> self.block_shift == 0 {
            return Err(Error::TooSmall { size, block_size });
        }
        let before = self.blocks();
        let result = self.disk.resize(size).await;
        self.tell_of_capacity(before);
        result?;
        Ok(())
    }

    /// Waits until something happens to the store that nobody here has done; initiators are told of
    /// a new capacity, and the log of the rest.
    pub async fn watch(&self) {
        let before = self.blocks();
        match self.disk.event().await {
            Event::Resized => {
                self.tell_of_capacity(before);
                tracing::info!("{}: it has {} blocks now", self.name, self.blocks());
            }
            Event::Lost(error) | Event::MediaError(error) => {
                tracing::error!("{}: {error}", self.name);
            }
        }
    }

    fn tell_of_capacity(&self, before: u64) {
        if self.blocks() != before {
            self.attentions.raise(Sense::CAPACITY_DATA_HAS_CHANGED);
        }
    }

    /// Has the next command report `condition`, a sense with key UNIT ATTENTION.
    pub fn raise_unit_attention(&self, condition: Sense) {
        self.attentions.raise(condition);
    }

    /// The unit attention with which a command ends instead of being executed, which is thereby
    /// reported. [`execute`](Self::execute) sees to it; who has a command executed elsewhere asks
    /// first.
    #[inline]
    pub fn attention_before(&self, cdb: &[u8]) -> Option<Sense> {
        if self.attentions.pending() && !EXEMPT.contains(cdb.first().unwrap_or(&0)) {
            return self.attentions.take();
        }
        None
    }

    /// A logical unit reset (SAM-5 6.3.3). The caller has dropped the commands under way. What was
    /// to be reported is superseded by the reset itself, which the kernel reports.
    pub fn reset(&self) {
        self.attentions.clear();
        self.copies.clear();
    }

    /// Executes one CDB. `data` is the command's buffer, data-in or data-out: the kernel does not
    /// say which. Its length may differ from what the CDB says: what fits is transferred.
    pub async fn execute(&self, cdb: &[u8], data: &Sgl<'_>) -> Outcome {
        self.answer(cdb, data).await.into()
    }

    async fn answer(&self, cdb: &[u8], data: &Sgl<'_>) -> Answer {
        if let Some(attention) = self.attention_before(cdb) {
            return Err(attention.into());
        }
        let row = Opcode::of(cdb)?;
        if ASK_PORTS.contains(&row.opcode) {
            Box::pin(self.refresh_access()).await;
        }
        let access = self.access.get();
        if access != AccessState::Optimized && row.check_access(access).is_err() {
            Box::pin(self.check_access_again(row)).await?;
        }
        match row.decode(cdb)? {
            Command::Read { lba, blocks, .. } => self.read(lba, blocks, data).await,
            Command::Write { lba, blocks, fua, .. } => self.write(lba, blocks, fua, data).await,
            // On the heap, so that the future of a READ is not as large as that of the others.
            command => Box::pin(self.execute_other(command, data)).await,
        }
    }

    /// Whether the port's state lets a command through after all. A refusal is never of an old
    /// state: else an initiator that sends nothing but reads would not see the port come back.
    #[cold]
    async fn check_access_again(&self, row: &Opcode) -> Result<(), Failure> {
        self.refresh_access().await;
        Ok(row.check_access(self.access.get())?)
    }

    /// Everything but READ and WRITE.
    async fn execute_other(&self, command: Command, data: &Sgl<'_>) -> Answer {
        match command {
            // Executed by the caller.
            Command::Read { lba, blocks, .. } => self.read(lba, blocks, data).await,
            Command::Write { lba, blocks, fua, .. } => self.write(lba, blocks, fua, data).await,
            Command::TestUnitReady => Ok(0),
            Command::WriteAndVerify { lba, blocks, byte_check, .. } => {
                self.write_and_verify(lba, blocks, byte_check, data).await
            }
            Command::Verify { lba, blocks, byte_check, .. } => {
                self.verify(lba, blocks, byte_check, data).await
            }
            Command::Prefetch { lba, blocks, .. } => self.prefetch(lba, blocks),
            Command::SynchronizeCache { lba, blocks, .. } => {
                self.synchronize_cache(lba, blocks).await
            }
            Command::CompareAndWrite { lba, blocks, fua, .. } => {
                self.compare_and_write(lba, blocks, fua, data).await
            }
            Command::Unmap { list_len } => self.unmap(list_len, data).await,
            Command::WriteSame { lba, blocks, unmap, no_data } => {
                self.write_same(lba, blocks, unmap, no_data, data).await
            }
            Command::GetLbaStatus { lba, alloc } => self.get_lba_status(lba, alloc, data).await,
            Command::FormatUnit { format_data, list_format, long_list, .. } => {
                self.format(format_data, list_format, long_list, data).await
            }
            Command::ExtendedCopy { list_len } => self.extended_copy(list_len, data).await,
            Command::ReceiveCopyResults { service, list_id, alloc } => {
                self.receive_copy_results(service, list_id, alloc, data)
            }
            Command::Inquiry { page, alloc } => self.inquiry(page, alloc, data),
            Command::ReadCapacity10 => self.read_capacity10(data),
            Command::ReadCapacity16 { alloc } => self.read_capacity16(alloc, data),
            Command::RequestSense { descriptor, alloc } => {
                self.request_sense(descriptor, alloc, data)
            }
            Command::ModeSense { request, alloc } => self.mode_sense(&request, alloc, data),
            Command::ModeSelect { ten, list_len } => self.mode_select(ten, list_len, data).await,
            Command::StartStop { start, load_eject, no_flush, .. } => {
                self.start_stop(start, load_eject, no_flush).await
            }
            Command::SendDiagnostic { self_test: true } => self.self_test().await,
            // The medium is not removable, so that removing it is prevented in any case.
            Command::SendDiagnostic { .. } | Command::PreventAllow { .. } => Ok(0),
            Command::ReportOpcodes { report, timeouts, alloc } => {
                self.report_opcodes(report, timeouts, alloc, data)
            }
            Command::ReportTmf { extended, alloc } => {
                reply(data, &report::task_management(extended), alloc)
            }
            Command::ReportTargetPortGroups { extended, alloc } => {
                self.report_target_port_groups(extended, alloc, data)
            }
            Command::SetTargetPortGroups { list_len } => {
                self.set_target_port_groups(list_len, data).await
            }
            Command::ReadDefectData { twelve, primary, grown, format, alloc } => {
                reply(data, &report::defect_data(twelve, primary, grown, format), alloc)
            }
            Command::ReportLuns { select, alloc } => reply(data, &report::luns(select), alloc),
            Command::LogSense { page, subpage, alloc } => {
                reply(data, &report::log_page(page, subpage)?, alloc)
            }
            // The kernel keeps reservations, unless it was told to pass them through; then nobody
            // does, and to say so is better than a reservation that does not hold.
            Command::PersistentReserveIn { .. }
            | Command::PersistentReserveOut { .. }
            | Command::Reserve
            | Command::Release => Err(Sense::INVALID_COMMAND_OPERATION_CODE.into()),
        }
    }

    /// Bytes of a number of blocks inside the capacity, or the offset of such a block.
    #[inline]
    fn bytes(&self, blocks: u64) -> u64 {
        blocks << self.block_shift
    }

    /// Block size in bytes, as a length in memory.
    #[inline]
    fn block_len(&self) -> usize {
        1 << self.block_shift
    }
}

/// All of a parameter list of `list_len` bytes. Lists longer than `max` are refused: no list that
/// is honest is so long.
fn parameter_list(data: &Sgl<'_>, list_len: usize, max: usize) -> Result<Vec<u8>, Failure> {
    if list_len > max || list_len > data.len() {
        return Err(Sense::PARAMETER_LIST_LENGTH_ERROR.into());
    }
    let mut list = vec![0; list_len];
    data.read_at(0, &mut list);
    Ok(list)
}

/// Sends an answer, of which the initiator takes `alloc` bytes at most.
fn reply(data: &Sgl<'_>, answer: &[u8], alloc: usize) -> Answer {
    Ok(data.write_at(0, answer.get(..alloc).unwrap_or(answer)))
}
