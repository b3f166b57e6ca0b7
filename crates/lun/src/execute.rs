// SPDX-License-Identifier: Apache-2.0
//! Executes commands: what stands before each (unit attentions, the state of the port), and which
//! function it is that does what a command asks for.
use block::{Guard, Store};
use scsi::command::Command;
use scsi::opcodes::{Opcode, Reach};
use scsi::report;
use scsi::sense::{Sense, Status};
use sgl::Sgl;

use crate::alua::AccessState;
use crate::buffer::reply;
use crate::failure::{Answer, Failure};
use crate::unit::Lun;

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

/// What depends on target port groups or is used to check on a port: TEST UNIT READY, INQUIRY,
/// MODE SENSE, and those that report and set groups.
const ASK_PORTS: [u8; 6] = [0x00, 0x12, 0x1a, 0x5a, 0xa3, 0xa4];

impl<S: Store> Lun<S> {
    /// Executes one CDB. `data` is the command's buffer, data-in or data-out: the kernel does not
    /// say which. Its length may differ from what the CDB says: what fits is transferred.
    pub async fn execute(&self, cdb: &[u8], data: &Sgl<'_>) -> Outcome {
        self.answer(cdb, data).await.into()
    }

    async fn answer(&self, cdb: &[u8], data: &Sgl<'_>) -> Answer {
        if let Some(attention) = self.attention_before(cdb) {
            return Err(attention.into());
        }
        let row = self.device_type.opcodes.find(cdb)?;
        if ASK_PORTS.contains(&row.opcode) {
            Box::pin(self.refresh_access()).await;
        }
        let _access = self.pass(row).await?;
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

    /// Sees to it that this host has access to the medium where a command needs it, for as long as what
    /// is returned is kept. [`execute`](Self::execute) does so; who has a command executed elsewhere
    /// asks first. The error is how the command ends.
    pub async fn admit(&self, cdb: &[u8]) -> Result<Option<Guard<'_>>, Outcome> {
        let Ok(row) = self.device_type.opcodes.find(cdb) else { return Ok(None) };
        self.pass(row).await.map_err(|failure| Err(failure).into())
    }

    #[inline]
    async fn pass(&self, row: &Opcode) -> Result<Option<Guard<'_>>, Failure> {
        match &self.alua {
            Some(alua) if self.guarded && row.reach == Reach::Active => alua.admit().await,
            _ => Ok(None),
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
}
