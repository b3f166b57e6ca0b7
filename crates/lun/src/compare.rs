// SPDX-License-Identifier: Apache-2.0
//! COMPARE AND WRITE (SBC-4 5.3): the primitive that clusters build locks of.
use block::{Access, CHUNK, Store};
use scsi::sense::Sense;
use sgl::Sgl;

use crate::failure::{Answer, Doing, Failure};
use crate::unit::Lun;

impl<S: Store> Lun<S> {
    /// The most blocks that one COMPARE AND WRITE takes: the field of VPD page B0h has a byte. 0: it is
    /// not served. Where other hosts get at the medium, too, it is what the store does in one step.
    pub(crate) fn max_compare_and_write(&self) -> u8 {
        let in_one_step = self.disk.facts().compare_and_write.filter(|_| !self.is_alone());
        let most = in_one_step.map_or(CHUNK as u64, u64::from);
        u8::try_from(most >> self.block_shift).unwrap_or(u8::MAX)
    }

    /// Whether no other host gets at the medium while a command is let through here.
    fn is_alone(&self) -> bool {
        self.guarded && self.alua.as_ref().is_some_and(|alua| alua.is_alone())
    }

    /// The buffer holds what to compare with, then what to write. No other command of this
    /// logical unit sees or changes the blocks in between. A buffer of another length is an error:
    /// its halves would not be what the initiator takes them for.
    pub(crate) async fn compare_and_write(
        &self,
        lba: u64,
        blocks: u64,
        fua: bool,
        data: &Sgl<'_>,
    ) -> Answer {
        let range = self.extent(lba, blocks)?;
        match self.max_compare_and_write() {
            0 => return Err(Sense::INVALID_COMMAND_OPERATION_CODE.into()),
            most if blocks > u64::from(most) => return Err(Sense::INVALID_FIELD_IN_CDB.into()),
            _ => {}
        }
        self.writable()?;
        let len = usize::try_from(self.bytes(blocks)).unwrap_or(usize::MAX);
        if len.checked_mul(2) != Some(data.len()) {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        if blocks == 0 {
            return Ok(0);
        }
        let (verify, write) = (data.slice(0..len), data.slice(len..2 * len));
        let miscompare =
            |offset| Failure::Check(Sense::MISCOMPARE_DURING_VERIFY.with_information(offset));

        let buffer = self.disk.buffer(len as u64).await;
        let medium = buffer.view(len);
        let held = self.hold(&range, Access::Alone).await?;
        // Where other hosts have the store open, too, it has to do it by itself.
        match Box::pin(held.compare_and_write(data, self.bytes(lba), fua)).await {
            None => {}
            Some(Ok(None)) => return Ok(0),
            Some(Ok(Some(offset))) => return Err(miscompare(offset)),
            Some(Err(error)) => return Err(self.failed(&error, Doing::Write, lba)),
        }
        let read = held.read(&medium, self.bytes(lba)).await;
        read.map_err(|error| self.failed(&error, Doing::Read, lba))?;
        if let Some(offset) = medium.first_difference(&verify) {
            return Err(miscompare(offset as u64));
        }
        match held.write(&write, self.bytes(lba), fua).await {
            Ok(()) => Ok(0),
            Err(error) => Err(self.failed(&error, Doing::Write, lba)),
        }
    }
}
