// SPDX-License-Identifier: Apache-2.0
//! The logical unit itself: what it is made of, and what happens to it that is no command.
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use block::disk::Options;
use block::statistics::Statistics;
use block::{Disk, Event, Store};
use scsi::device_type::DeviceType;
use scsi::sense::Sense;

use crate::alua::{AccessState, Alua};
use crate::attention::Attentions;
use crate::failure::FailureLog;
use crate::identity::Identity;
use crate::peers::{CopyPeers, Results};

/// What a logical unit is told when it is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// How log lines call the device.
    pub name: String,
    /// What it is.
    pub device_type: &'static DeviceType,
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
    /// The block size is none that there is.
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

/// INQUIRY, REPORT LUNS and REQUEST SENSE, which are executed in spite of a unit attention.
const EXEMPT: [u8; 3] = [0x12, 0xa0, 0x03];

/// A logical unit on a store.
pub struct Lun<S: Store> {
    pub(crate) device_type: &'static DeviceType,
    pub(crate) disk: Disk<S>,
    pub(crate) name: String,
    pub(crate) identity: Identity,
    pub(crate) block_shift: u32,
    /// The most blocks of a READ or WRITE that VPD page B0h recommends.
    pub(crate) max_blocks: u64,
    /// Whether there was a write cache when the logical unit was made.
    pub(crate) write_cache_default: bool,
    /// Of the port that commands come through, as last seen.
    pub(crate) access: Cell<AccessState>,
    pub(crate) alua: Option<Box<dyn Alua>>,
    /// Whether `alua` lets commands through.
    pub(crate) guarded: bool,
    pub(crate) peers: Option<Rc<dyn CopyPeers>>,
    pub(crate) attentions: Attentions,
    pub(crate) copies: Results,
    pub(crate) failures: FailureLog,
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
            device_type: config.device_type,
            name: config.name,
            identity: config.identity,
            block_shift,
            max_blocks: u64::from(config.max_transfer >> block_shift).max(1),
            write_cache_default: config.write_cache,
            access: Cell::new(AccessState::Optimized),
            alua: None,
            guarded: false,
            peers: None,
            attentions: Attentions::default(),
            copies: Results::default(),
            failures: FailureLog::default(),
            disk,
        })
    }

    /// With the operations of its disk counted in what others look at, too.
    #[must_use]
    pub fn with_statistics(self, statistics: Arc<Statistics>) -> Self {
        Lun { disk: self.disk.with_statistics(statistics), ..self }
    }

    /// With asymmetric access as `alua` tells of it; without, there is one port group, active and
    /// optimized.
    pub fn with_alua(mut self, alua: Box<dyn Alua>) -> Self {
        self.guarded = alua.guards();
        self.alua = Some(alua);
        self.port_groups();
        self
    }

    /// With EXTENDED COPY from and to other logical units; without, only inside this one.
    pub fn with_peers(mut self, peers: Rc<dyn CopyPeers>) -> Self {
        self.peers = Some(peers);
        self
    }

    /// What it is.
    pub fn device_type(&self) -> &'static DeviceType {
        self.device_type
    }

    /// The disk below.
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

    /// Gives access to the medium away whenever another host asks for it. It never ends.
    pub async fn give_way(&self) {
        match &self.alua {
            Some(alua) => alua.give_way().await,
            None => std::future::pending().await,
        }
    }

    /// Whether it has to be told when all commands that came are answered ([`drained`](Self::drained)):
    /// until then those that need access to the medium are refused.
    #[inline]
    pub fn awaits_drain(&self) -> bool {
        self.guarded && self.alua.as_ref().is_some_and(|alua| alua.awaits_drain())
    }

    /// All commands that came are answered.
    pub fn drained(&self) {
        if let Some(alua) = &self.alua {
            alua.drained();
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

    /// Bytes of a number of blocks inside the capacity, or the offset of such a block.
    #[inline]
    pub(crate) fn bytes(&self, blocks: u64) -> u64 {
        blocks << self.block_shift
    }

    /// Block size in bytes, as a length in memory.
    #[inline]
    pub(crate) fn block_len(&self) -> usize {
        1 << self.block_shift
    }
}
