// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to make views of the data area that live as long as the mapping.
//!
//! What comes out of the ring and goes into it: commands, task management notices, responses.
#![allow(unsafe_code)]

use std::any::Any;
use std::mem::size_of;
use std::ptr::NonNull;
use std::rc::Rc;

use sgl::Sgl;
use smallvec::SmallVec;

use crate::mailbox::{CommandRequest, HEADER_LEN, IOVECS_OFFSET, Iovec, cdb_len};
use crate::mapping::Mapping;

/// An entry of the ring.
#[derive(Debug)]
pub enum Entry {
    /// A SCSI command, to be completed by its id.
    Command(Command),
    /// A notice of a task management function; it needs no answer.
    Tmr(Tmr),
}

/// A SCSI command. It is complete in itself: CDB copied, data valid as long as it exists.
#[derive(Debug)]
pub struct Command {
    id: u16,
    cdb: SmallVec<[u8; 16]>,
    /// Keeps the mapping that it is in.
    data: Sgl<'static>,
}

impl Command {
    /// The kernel's name for it, for [`crate::Ring::complete`].
    pub fn id(&self) -> u16 {
        self.id
    }

    /// The CDB, as long as its opcode says (SPC-4 4.2.5.1): 6 to 263 bytes.
    pub fn cdb(&self) -> &[u8] {
        &self.cdb
    }

    /// Its data-out or data-in buffer, in the shared data area. Its length is what the initiator
    /// gave, which may differ from what the CDB asks for.
    pub fn data(&self) -> &Sgl<'_> {
        &self.data
    }
}

/// What happened to commands that are, or were, in flight. The kernel has answered the initiator
/// already, or waits for the commands; they still need a completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tmr {
    /// Which function.
    pub kind: TmrKind,
    /// The commands concerned; may be empty.
    pub ids: SmallVec<[u16; 8]>,
}

/// Task management functions (SAM-5 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TmrKind {
    /// ABORT TASK.
    AbortTask,
    /// ABORT TASK SET.
    AbortTaskSet,
    /// CLEAR ACA.
    ClearAca,
    /// CLEAR TASK SET.
    ClearTaskSet,
    /// LOGICAL UNIT RESET.
    LunReset,
    /// TARGET WARM RESET.
    TargetWarmReset,
    /// TARGET COLD RESET.
    TargetColdReset,
    /// A PERSISTENT RESERVE OUT that aborts commands.
    LunResetByReservation,
    /// One that this crate does not know.
    Unknown(u8),
}

impl From<u8> for TmrKind {
    fn from(code: u8) -> Self {
        match code {
            1 => TmrKind::AbortTask,
            2 => TmrKind::AbortTaskSet,
            3 => TmrKind::ClearAca,
            4 => TmrKind::ClearTaskSet,
            5 => TmrKind::LunReset,
            6 => TmrKind::TargetWarmReset,
            7 => TmrKind::TargetColdReset,
            128 => TmrKind::LunResetByReservation,
            code => TmrKind::Unknown(code),
        }
    }
}

/// The answer to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// SAM-5 5.3.1.
    pub status: u8,
    /// Sense data, taken by the kernel with CHECK CONDITION (02h) only; what exceeds 96 bytes is
    /// cut off.
    pub sense: &'a [u8],
    /// How many bytes of the data-in buffer hold the answer, where that is fewer than all; the
    /// rest becomes a residual. The kernel takes 0 for "all". Without `CAP_READ_LEN` it has no
    /// effect: what is not part of the answer has to be cleared in any case.
    pub read_len: Option<u32>,
}

impl Response<'static> {
    /// GOOD.
    pub const GOOD: Self = Response { status: 0, sense: &[], read_len: None };
    /// BUSY: the initiator tries again.
    pub const BUSY: Self = Response { status: 0x08, sense: &[], read_len: None };
    /// CHECK CONDITION with HARDWARE ERROR, INTERNAL TARGET FAILURE.
    pub const INTERNAL_FAILURE: Self = Response {
        status: 0x02,
        sense: &[0x70, 0, 0x04, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x44, 0, 0, 0, 0, 0],
        read_len: None,
    };
}

/// Reads the command whose entry, of `len` bytes, is at `at` of the memory; the data area begins
/// at `data_off`. Or says what is wrong with it.
pub(super) fn read_command(
    map: &Rc<Mapping>,
    data_off: usize,
    at: usize,
    len: usize,
    id: u16,
) -> Result<Command, &'static str> {
    const OUTSIDE: &str = "it reaches out of the memory";
    let request: CommandRequest = map.get(at + HEADER_LEN).ok_or(OUTSIDE)?;
    let iovecs = request.iov_cnt.get() as usize;
    let room = (len - IOVECS_OFFSET) / size_of::<Iovec>();
    let all = [request.iov_cnt, request.iov_bidi_cnt, request.iov_dif_cnt];
    if all.iter().map(|count| u64::from(count.get())).sum::<u64>() > room as u64 {
        return Err("it has more iovecs than its entry has room for");
    }

    let mut pieces: SmallVec<[(NonNull<u8>, usize); 4]> = SmallVec::new();
    let mut left = map.len() - data_off;
    for n in 0..iovecs {
        let iovec: Iovec = map.get(at + IOVECS_OFFSET + n * size_of::<Iovec>()).ok_or(OUTSIDE)?;
        let Iovec { base, len } = iovec;
        left = left.checked_sub(len).ok_or("its data are longer than the data area")?;
        let piece = map.piece(base, len).filter(|_| base >= data_off);
        pieces.push((piece.ok_or("its data lie outside of the data area")?, len));
    }

    const BAD_CDB: &str = "its CDB lies outside of the ring";
    let cdb_off = usize::try_from(request.cdb_off.get()).map_err(|_| BAD_CDB)?;
    let ring = crate::mailbox::MAILBOX_LEN..data_off;
    let opcode_at = Some(cdb_off).filter(|at| ring.contains(at)).ok_or(BAD_CDB)?;
    let opcode: u8 = map.get(opcode_at).ok_or(BAD_CDB)?;
    let additional = if opcode == 0x7f { map.get(opcode_at + 7).ok_or(BAD_CDB)? } else { 0u8 };
    let mut cdb = SmallVec::from_elem(0, cdb_len(opcode, additional));
    if cdb.len() > data_off - cdb_off {
        return Err(BAD_CDB);
    }
    map.read(cdb_off, &mut cdb).ok_or(BAD_CDB)?;
    // The CDB was read again: what its length was taken from must be what the decoder sees.
    if let Some(first) = cdb.first_mut() {
        *first = opcode;
    }

    // SAFETY: the pieces lie in the mapping, which stays as long as the list's owner; nobody makes
    // references to its bytes.
    let data = unsafe { Sgl::from_raw(pieces, Some(Rc::clone(map) as Rc<dyn Any>)) };
    Ok(Command { id, cdb, data })
}
