// SPDX-License-Identifier: Apache-2.0
//! The outcome of a command, as the kernel takes it.
use scsi::block_device::BLOCK_DEVICE;
use scsi::sense::Status;
use tcmu::{Response, Ring};

use super::commands::{Done, Ending};

/// Hands the kernel the outcome of a command.
#[inline]
pub(super) fn respond(ring: &mut Ring, done: &Done) -> Result<(), tcmu::Error> {
    let id = done.command.id();
    let outcome = match &done.ending {
        Ending::Outcome(outcome) => outcome,
        Ending::Sense(sense) => {
            let status = Status::CheckCondition as u8;
            return ring.complete(id, &Response { status, sense: &sense[..], read_len: None });
        }
        Ending::Aborted => {
            let status = Status::TaskAborted as u8;
            return ring.complete(id, &Response { status, sense: &[], read_len: None });
        }
    };
    let status = outcome.status as u8;
    let Some(sense) = outcome.sense else {
        let data = done.command.data();
        let read_len = u32::try_from(outcome.read_len).unwrap_or(u32::MAX);
        // Zero means "all" to the kernel; so where there is no answer, none of what earlier
        // commands left in the data area may look like one.
        let read_len = (0 < read_len && outcome.read_len < data.len()).then_some(read_len);
        if outcome.read_len == 0 && !data.is_empty() && !writes(done.command.cdb()) {
            data.fill(0..data.len(), 0);
        }
        return ring.complete(id, &Response { status, sense: &[], read_len });
    };
    let sense = sense.fixed();
    ring.complete(id, &Response { status, sense: &sense, read_len: None })
}

/// Whether a command sends its data to the medium, as far as block devices have it.
fn writes(cdb: &[u8]) -> bool {
    BLOCK_DEVICE.opcodes.find(cdb).is_ok_and(|row| row.writes)
}
