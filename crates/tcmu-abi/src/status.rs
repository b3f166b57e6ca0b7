// SPDX-License-Identifier: Apache-2.0
//! What C code answers a command with (`TCMU_STS_*`), and what the initiator gets for it.

/// The command is completed later, by a call.
pub const ASYNC_HANDLED: i32 = -2;
/// Not one that the handler knows.
pub const NOT_HANDLED: i32 = -1;
/// Done.
pub const OK: i32 = 0;
/// There is no memory or the like for it.
pub const NO_RESOURCE: i32 = 1;
/// The sense buffer tells why not.
pub const PASSTHROUGH_ERR: i32 = 2;
/// Not now.
pub const BUSY: i32 = 3;
/// Writing failed.
pub const WR_ERR: i32 = 4;
/// Reading failed.
pub const RD_ERR: i32 = 5;
/// What is there is not what was compared.
pub const MISCOMPARE: i32 = 6;
/// No such command.
pub const INVALID_CMD: i32 = 7;
/// A wrong field in the CDB.
pub const INVALID_CDB: i32 = 8;
/// A wrong field in the parameter list.
pub const INVALID_PARAM_LIST: i32 = 9;
/// A parameter list of a wrong length.
pub const INVALID_PARAM_LIST_LEN: i32 = 10;
/// It took too long.
pub const TIMEOUT: i32 = 11;
/// Another node has taken the storage.
pub const FENCED: i32 = 12;
/// The target has failed.
pub const HW_ERR: i32 = 13;
/// Beyond the end of the medium.
pub const RANGE: i32 = 14;
/// The medium is being formatted.
pub const FRMT_IN_PROGRESS: i32 = 15;
/// The capacity has changed.
pub const CAPACITY_CHANGED: i32 = 16;
/// Parameters cannot be saved.
pub const NOTSUPP_SAVE_PARAMS: i32 = 17;
/// The medium has a format that cannot be written.
pub const WR_ERR_INCOMPAT_FRMT: i32 = 18;
/// The ALUA state is changing.
pub const TRANSITION: i32 = 19;
/// An implicit change of the ALUA state failed.
pub const IMPL_TRANSITION_ERR: i32 = 20;
/// An explicit change of the ALUA state failed.
pub const EXPL_TRANSITION_ERR: i32 = 21;
/// Nobody has the lock.
pub const NO_LOCK_HOLDERS: i32 = 22;
/// EXTENDED COPY: an unknown segment descriptor.
pub const NOTSUPP_SEG_DESC_TYPE: i32 = 23;
/// EXTENDED COPY: an unknown target descriptor.
pub const NOTSUPP_TGT_DESC_TYPE: i32 = 24;
/// EXTENDED COPY: a device that cannot be reached.
pub const CP_TGT_DEV_NOTCONN: i32 = 25;
/// EXTENDED COPY: a device of a wrong type.
pub const INVALID_CP_TGT_DEV_TYPE: i32 = 26;
/// EXTENDED COPY: too many segment descriptors.
pub const TOO_MANY_SEG_DESC: i32 = 27;
/// EXTENDED COPY: too many target descriptors.
pub const TOO_MANY_TGT_DESC: i32 = 28;

/// What the initiator gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// GOOD.
    Good,
    /// BUSY.
    Busy,
    /// TASK SET FULL.
    TaskSetFull,
    /// CHECK CONDITION with this sense.
    Sense {
        /// Sense key.
        key: u8,
        /// Additional sense code (high byte) and its qualifier.
        asc_ascq: u16,
    },
    /// CHECK CONDITION with the command's sense buffer.
    SenseBuffer,
}

const NOT_READY: u8 = 0x02;
const MEDIUM_ERROR: u8 = 0x03;
const HARDWARE_ERROR: u8 = 0x04;
const ILLEGAL_REQUEST: u8 = 0x05;
const UNIT_ATTENTION: u8 = 0x06;
const COPY_ABORTED: u8 = 0x0a;
const MISCOMPARE_KEY: u8 = 0x0e;

/// Sense for the statuses that stand for sense, as initiators get it from the C library
/// (`tests/vm/libtcmu.sh` compares).
#[rustfmt::skip]
const SENSE: &[(i32, u8, u16)] = &[
    (NOT_HANDLED,             ILLEGAL_REQUEST, 0x2000),
    (WR_ERR,                  MEDIUM_ERROR,    0x0c00),
    (RD_ERR,                  MEDIUM_ERROR,    0x1100),
    (MISCOMPARE,              MISCOMPARE_KEY,  0x1d00),
    (INVALID_CMD,             ILLEGAL_REQUEST, 0x2000),
    (INVALID_CDB,             ILLEGAL_REQUEST, 0x2400),
    (INVALID_PARAM_LIST,      ILLEGAL_REQUEST, 0x2600),
    (INVALID_PARAM_LIST_LEN,  ILLEGAL_REQUEST, 0x1a00),
    (FENCED,                  NOT_READY,       0x040b),
    (HW_ERR,                  HARDWARE_ERROR,  0x4400),
    (RANGE,                   ILLEGAL_REQUEST, 0x2100),
    (FRMT_IN_PROGRESS,        NOT_READY,       0x0404),
    (CAPACITY_CHANGED,        UNIT_ATTENTION,  0x2a09),
    (NOTSUPP_SAVE_PARAMS,     ILLEGAL_REQUEST, 0x3900),
    (WR_ERR_INCOMPAT_FRMT,    ILLEGAL_REQUEST, 0x3005),
    (TRANSITION,              NOT_READY,       0x040a),
    (IMPL_TRANSITION_ERR,     UNIT_ATTENTION,  0x2a07),
    (EXPL_TRANSITION_ERR,     HARDWARE_ERROR,  0x670a),
    (NO_LOCK_HOLDERS,         HARDWARE_ERROR,  0x670a),
    (NOTSUPP_SEG_DESC_TYPE,   ILLEGAL_REQUEST, 0x2609),
    (NOTSUPP_TGT_DESC_TYPE,   ILLEGAL_REQUEST, 0x2607),
    (CP_TGT_DEV_NOTCONN,      COPY_ABORTED,    0x0d02),
    (INVALID_CP_TGT_DEV_TYPE, COPY_ABORTED,    0x0d03),
    (TOO_MANY_SEG_DESC,       ILLEGAL_REQUEST, 0x2608),
    (TOO_MANY_TGT_DESC,       ILLEGAL_REQUEST, 0x2606),
];

/// What the initiator gets for a status. One that there is not is the target's failure.
pub fn answer(status: i32) -> Answer {
    match status {
        OK => Answer::Good,
        BUSY | TIMEOUT => Answer::Busy,
        NO_RESOURCE => Answer::TaskSetFull,
        PASSTHROUGH_ERR => Answer::SenseBuffer,
        status => SENSE.iter().find(|row| row.0 == status).map_or(
            Answer::Sense { key: HARDWARE_ERROR, asc_ascq: 0x4400 },
            |&(_, key, asc_ascq)| Answer::Sense { key, asc_ascq },
        ),
    }
}
