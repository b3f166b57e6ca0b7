// SPDX-License-Identifier: Apache-2.0
//! The commands that read or change the logical unit itself rather than its blocks: mode pages,
//! start and stop, diagnostics, and what is supported.
use block::Store;
use scsi::command::{ModeRequest, OpcodeReport};
use scsi::mode::Modes;
use scsi::opcodes::Opcode;
use scsi::sense::Sense;
use scsi::{report, rsoc};
use sgl::Sgl;

use crate::buffer::{parameter_list, reply};
use crate::failure::{Answer, Doing};
use crate::unit::Lun;

/// The most bytes of a MODE SELECT parameter list: all pages together are far shorter.
const MAX_MODE_LIST: usize = 4096;
/// The most bytes of a FORMAT UNIT parameter list: a header.
const MAX_FORMAT_LIST: usize = 8;

impl<S: Store> Lun<S> {
    /// REQUEST SENSE: the oldest unit attention, which is thereby reported, or nothing.
    pub(crate) fn request_sense(&self, descriptor: bool, alloc: usize, data: &Sgl<'_>) -> Answer {
        let sense = self.attentions.take().unwrap_or(Sense::NO_SENSE);
        reply(data, &report::sense(&sense, descriptor), alloc)
    }

    fn modes(&self) -> Modes {
        Modes {
            write_cache: self.write_cache(),
            write_cache_default: self.write_cache_default,
            write_protected: self.disk.read_only(),
            implicit_alua: self.port_groups().implicit,
            capacity: self.capacity(),
        }
    }

    /// MODE SENSE.
    pub(crate) fn mode_sense(&self, request: &ModeRequest, alloc: usize, data: &Sgl<'_>) -> Answer {
        reply(data, &self.device_type.modes.sense(request, &self.modes())?, alloc)
    }

    /// MODE SELECT: WCE can be changed. What was in the cache when it is turned off is flushed
    /// before the status. No unit attention is raised: it would reach the one who did this.
    pub(crate) async fn mode_select(&self, ten: bool, list_len: usize, data: &Sgl<'_>) -> Answer {
        let list = parameter_list(data, list_len, MAX_MODE_LIST)?;
        let modes = self.device_type.modes.select(&list, ten, &self.modes())?;
        if self.disk.set_write_cache(modes.write_cache) && !modes.write_cache {
            self.flush_cache(0).await?;
        }
        Ok(0)
    }

    /// START STOP UNIT. There is nothing to spin up or to eject; a stop flushes.
    pub(crate) async fn start_stop(&self, start: bool, load_eject: bool, no_flush: bool) -> Answer {
        if load_eject {
            return Err(Sense::cdb_field(4, Some(1)).into());
        }
        if !start && !no_flush {
            self.flush_cache(0).await?;
        }
        Ok(0)
    }

    /// SEND DIAGNOSTIC: the self-test reads a block.
    pub(crate) async fn self_test(&self) -> Answer {
        let buffer = self.disk.buffer(u64::from(self.block_size())).await;
        match self.disk.read(&buffer.view(self.block_len()), 0).await {
            Ok(()) => Ok(0),
            Err(error) => Err(self.failed(&error, Doing::Read, 0)),
        }
    }

    /// FORMAT UNIT: the list first, if there is one.
    pub(crate) async fn format(
        &self,
        format_data: bool,
        list_format: u8,
        long_list: bool,
        data: &Sgl<'_>,
    ) -> Answer {
        if format_data {
            if list_format != 0 {
                return Err(Sense::cdb_field(1, Some(2)).into());
            }
            // The CDB does not tell how long the list is.
            let list = parameter_list(data, data.len().min(MAX_FORMAT_LIST), MAX_FORMAT_LIST)?;
            // With IMMED the status comes late, which SBC allows.
            scsi::format::immediate(&list, long_list)?;
        }
        self.format_unit().await
    }

    /// REPORT SUPPORTED OPERATION CODES.
    pub(crate) fn report_opcodes(
        &self,
        what: OpcodeReport,
        timeouts: bool,
        alloc: usize,
        data: &Sgl<'_>,
    ) -> Answer {
        let explicit = self.port_groups().explicit;
        let unmaps = self.max_unmap_blocks() > 0;
        let serves = |row: &Opcode| match row.opcode {
            UNMAP => unmaps,
            SET_TARGET_PORT_GROUPS => explicit,
            _ => true,
        };
        reply(data, &rsoc::report(&self.device_type.opcodes, what, timeouts, serves)?, alloc)
    }
}

/// The opcodes that not every logical unit serves. A4h has no other service action in our table.
const UNMAP: u8 = 0x42;
const SET_TARGET_PORT_GROUPS: u8 = 0xa4;
