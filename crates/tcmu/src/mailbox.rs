// SPDX-License-Identifier: Apache-2.0
//! The layout of the shared memory (`linux/target_core_user.h`): mailbox, then the command ring,
//! then the data area. All integers are in the machine's own byte order. Offsets in the mailbox
//! and in entries count from the start of the memory; head and tail count from the start of the
//! ring.

use std::mem::{offset_of, size_of};

use zerocopy::native_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The version of the mailbox that this crate speaks.
pub const VERSION: u16 = 2;
/// `TCMU_MAILBOX_FLAG_CAP_OOOC`: commands may be completed in any order.
pub const CAP_OOOC: u16 = 1 << 0;
/// `TCMU_MAILBOX_FLAG_CAP_READ_LEN`: a response may say how much data it carries.
pub const CAP_READ_LEN: u16 = 1 << 1;
/// `TCMU_MAILBOX_FLAG_CAP_TMR`: the kernel reports task management functions.
pub const CAP_TMR: u16 = 1 << 2;

/// `TCMU_OP_PAD`: skip the entry.
pub const OP_PAD: u32 = 0;
/// `TCMU_OP_CMD`: a SCSI command.
pub const OP_CMD: u32 = 1;
/// `TCMU_OP_TMR`: a task management function was done.
pub const OP_TMR: u32 = 2;
/// The bits of `len_op` that hold the operation; the others are the length in bytes.
pub const OP_MASK: u32 = 7;
/// Entries begin at, and their lengths are, multiples of this.
pub const ALIGN: u32 = 8;

/// `TCMU_UFLAG_UNKNOWN_OP`: we do not know the operation.
pub const UFLAG_UNKNOWN_OP: u8 = 1;
/// `TCMU_UFLAG_READ_LEN`: `read_len` of the response is valid.
pub const UFLAG_READ_LEN: u8 = 2;

/// `TCMU_SENSE_BUFFERSIZE`.
pub const SENSE_LEN: usize = 96;

/// `struct tcmu_mailbox`; head and tail are read and written on their own, as atomics.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Mailbox {
    /// 2.
    pub version: U16,
    /// `CAP_*`.
    pub flags: U16,
    /// Where the ring begins.
    pub cmdr_off: U32,
    /// Its length in bytes.
    pub cmdr_size: U32,
    /// Where the kernel puts the next entry; the kernel writes it.
    pub cmd_head: U32,
    /// To the cache line of its own.
    pub padding: [u8; 48],
    /// The first slot that is not completed; we write it.
    pub cmd_tail: U32,
}

/// `struct tcmu_cmd_entry_hdr`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct EntryHeader {
    /// Operation (low three bits) and length of the entry in bytes.
    pub len_op: U32,
    /// The kernel's name for the command.
    pub cmd_id: U16,
    /// Flags of the kernel; none is defined.
    pub kflags: u8,
    /// `UFLAG_*`.
    pub uflags: u8,
}

/// What follows the header of a command (`req`), before its iovecs.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CommandRequest {
    /// Pieces of the data.
    pub iov_cnt: U32,
    /// Pieces of the data-in buffer of a bidirectional command, after those.
    pub iov_bidi_cnt: U32,
    /// Pieces of protection information, after those.
    pub iov_dif_cnt: U32,
    /// Padding.
    pub padding: U32,
    /// Where the CDB is.
    pub cdb_off: U64,
    /// Reserved.
    pub reserved: [U64; 2],
}

/// `struct iovec` with an offset in place of the address.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Iovec {
    /// Where the piece begins.
    pub base: usize,
    /// Its length in bytes.
    pub len: usize,
}

/// What follows the header of a completed command (`rsp`), in place of the request.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CommandResponse {
    /// SAM-5 5.3.1.
    pub status: u8,
    /// Padding.
    pub padding: [u8; 3],
    /// How many bytes of data there are, with [`UFLAG_READ_LEN`].
    pub read_len: U32,
    /// Sense data, for CHECK CONDITION.
    pub sense: [u8; SENSE_LEN],
}

/// What follows the header of a TMR entry, before the ids of the commands that it concerns.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TmrRequest {
    /// `TCMU_TMR_*`.
    pub tmr_type: u8,
    /// Padding.
    pub padding: [u8; 3],
    /// How many ids (of two bytes each) follow.
    pub cmd_cnt: U32,
    /// Reserved.
    pub reserved: [U64; 2],
}

/// Length in bytes of an [`EntryHeader`]; the request or response follows.
pub const HEADER_LEN: usize = size_of::<EntryHeader>();
/// Where the iovecs begin in a command's entry.
pub const IOVECS_OFFSET: usize = HEADER_LEN + size_of::<CommandRequest>();
/// The least length of a command's entry: room for the response.
pub const COMMAND_MIN_LEN: usize = HEADER_LEN + size_of::<CommandResponse>();
/// Where the ids begin in a TMR entry, and its least length.
pub const TMR_IDS_OFFSET: usize = HEADER_LEN + size_of::<TmrRequest>();
/// Offset of `cmd_head` in the mailbox.
pub const HEAD_OFFSET: usize = offset_of!(Mailbox, cmd_head);
/// Offset of `cmd_tail` in the mailbox.
pub const TAIL_OFFSET: usize = offset_of!(Mailbox, cmd_tail);
/// `sizeof(struct tcmu_mailbox)`, with its padding to a cache line.
pub const MAILBOX_LEN: usize = 128;

// As the compiler of the kernel's header lays them out.
const _: () = {
    assert!(HEAD_OFFSET == 12 && TAIL_OFFSET == 64);
    assert!(size_of::<Mailbox>() <= MAILBOX_LEN);
    assert!(HEADER_LEN == 8 && offset_of!(EntryHeader, uflags) == 7);
    assert!(HEADER_LEN + offset_of!(CommandRequest, cdb_off) == 24 && IOVECS_OFFSET == 48);
    assert!(HEADER_LEN + offset_of!(CommandResponse, read_len) == 12);
    assert!(HEADER_LEN + offset_of!(CommandResponse, sense) == 16 && COMMAND_MIN_LEN == 112);
    assert!(HEADER_LEN + offset_of!(TmrRequest, cmd_cnt) == 12 && TMR_IDS_OFFSET == 32);
    assert!(size_of::<Iovec>() == size_of::<libc::iovec>());
};

/// Operation and length in bytes of an entry.
pub const fn split_len_op(len_op: u32) -> (u32, u32) {
    (len_op & OP_MASK, len_op & !OP_MASK)
}

/// Length of a CDB by its opcode (SPC-4 4.2.5.1); `byte7` is the additional length of a
/// variable-length CDB. Vendor-specific groups are taken as the kernel takes them, as 10 bytes.
pub const fn cdb_len(opcode: u8, byte7: u8) -> usize {
    match opcode >> 5 {
        0 => 6,
        3 if opcode == 0x7f => 8 + byte7 as usize,
        3 | 5 => 12,
        4 => 16,
        _ => 10,
    }
}
