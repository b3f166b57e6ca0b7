// SPDX-License-Identifier: Apache-2.0
//! The opcode table of block devices, in the order of opcodes and service actions.

use crate::cdb::Cdb;
use crate::command::{ByteCheck, Command, CopyService, ModeRequest, OpcodeReport, PageControl};
use crate::opcodes::{Opcode, Reach, row};
use crate::sense::Sense;

/// Bits of byte 1 that held the LUN in SCSI-2; reserved since.
const LUN: u8 = 0xe0;
/// GROUP NUMBER: we keep no statistics of groups.
const GROUP: u8 = 0x3f;
/// RARC of byte 1 in READ: how hard to try when a block cannot be read; we always try the same.
const RARC: u8 = 0x04;
/// FUA_NV of byte 1 in READ, WRITE and COMPARE AND WRITE: obsolete.
const FUA_NV: u8 = 0x02;
/// RELADR of byte 1: obsolete.
const RELADR: u8 = 0x01;
/// SYNC_NV of byte 1 in SYNCHRONIZE CACHE: obsolete.
const SYNC_NV: u8 = 0x04;

/// Usage data of a 10-byte CDB with an LBA and a length.
const fn range10(opcode: u8, flags: u8) -> [u8; 10] {
    [opcode, flags, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0]
}

/// The same for 12 bytes.
const fn range12(opcode: u8, flags: u8) -> [u8; 12] {
    [opcode, flags, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]
}

/// The same for 16 bytes.
const fn range16(opcode: u8, flags: u8) -> [u8; 16] {
    const F: u8 = 0xff;
    [opcode, flags, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0]
}

const fn persistent_reserve_in(name: &'static str, action: u8) -> Opcode {
    let usage = [0x5e, action, 0, 0, 0, 0, 0, 0xff, 0xff, 0];
    row(name, usage, |c| {
        Ok(Command::PersistentReserveIn { action: c.byte(1) & 0x1f, alloc: c.len16(7) })
    })
    .action()
    .ignore(1, LUN)
    .reach(Reach::Standby)
}

const fn persistent_reserve_out(name: &'static str, action: u8) -> Opcode {
    let usage = [0x5f, action, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0];
    row(name, usage, |c| {
        Ok(Command::PersistentReserveOut {
            action: c.byte(1) & 0x1f,
            scope_type: c.byte(2),
            list_len: c.len32(5),
        })
    })
    .action()
    .ignore(1, LUN)
    .reach(Reach::Standby)
}

/// Every command that is supported, sorted by opcode and service action.
pub(super) const ROWS: &[Opcode] = &[
    row("TEST UNIT READY", [0x00, 0, 0, 0, 0, 0], |_| Ok(Command::TestUnitReady)).ignore(1, LUN),
    row("REQUEST SENSE", [0x03, 0x01, 0, 0, 0xff, 0], |c| {
        Ok(Command::RequestSense { descriptor: c.bit(1, 0), alloc: c.len8(4) })
    })
    .ignore(1, LUN)
    .reach(Reach::Offline),
    // Byte 2 is vendor specific; bytes 3 and 4 were INTERLEAVE, and FFMT asks for a faster format.
    row("FORMAT UNIT", [0x04, 0x3f, 0, 0, 0, 0], format_unit).ignore_bytes(2, 4).writes(),
    row("READ (6)", [0x08, 0x1f, 0xff, 0xff, 0xff, 0], |c| read(c.range6(), false, false))
        .ignore(1, LUN),
    row("WRITE (6)", [0x0a, 0x1f, 0xff, 0xff, 0xff, 0], |c| write(c.range6(), false, false))
        .ignore(1, LUN)
        .writes(),
    row("INQUIRY", [0x12, 0x01, 0xff, 0xff, 0xff, 0], inquiry).ignore(1, LUN).reach(Reach::Offline),
    row("MODE SELECT (6)", [0x15, 0x10, 0, 0, 0xff, 0], |c| mode_select(c, false, c.len8(4)))
        .ignore(1, LUN)
        .reach(Reach::Standby),
    row("RESERVE (6)", [0x16, 0, 0, 0, 0, 0], |_| Ok(Command::Reserve))
        .ignore(1, LUN)
        .ignore_bytes(2, 4),
    row("RELEASE (6)", [0x17, 0, 0, 0, 0, 0], |_| Ok(Command::Release))
        .ignore(1, LUN)
        .ignore(2, 0xff),
    row("MODE SENSE (6)", [0x1a, 0x08, 0xff, 0xff, 0xff, 0], |c| mode_sense(c, false, c.len8(4)))
        .ignore(1, LUN)
        .reach(Reach::Standby),
    row("START STOP UNIT", [0x1b, 0x01, 0, 0x0f, 0xf7, 0], |c| {
        Ok(Command::StartStop {
            immediate: c.bit(1, 0),
            power_condition: c.byte(4) >> 4,
            no_flush: c.bit(4, 2),
            load_eject: c.bit(4, 1),
            start: c.bit(4, 0),
        })
    })
    .ignore(1, LUN),
    // DEVOFFL and UNITOFFL permit what our self-test does not need.
    row("SEND DIAGNOSTIC", [0x1d, 0x04, 0, 0xff, 0xff, 0], send_diagnostic)
        .ignore(1, 0x13)
        .reach(Reach::Standby),
    row("PREVENT ALLOW MEDIUM REMOVAL", [0x1e, 0, 0, 0, 0x03, 0], |c| {
        Ok(Command::PreventAllow { prevent: c.byte(4) })
    })
    .ignore(1, LUN),
    // The LBA and PMI are obsolete.
    row("READ CAPACITY (10)", [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], |_| Ok(Command::ReadCapacity10))
        .ignore(1, LUN | RELADR)
        .ignore_bytes(2, 5)
        .ignore(8, 0x01)
        .reach(Reach::Standby),
    row("READ (10)", range10(0x28, 0x18), |c| read(c.range10(), c.bit(1, 4), c.bit(1, 3)))
        .ignore(1, RARC | FUA_NV | RELADR)
        .ignore(6, GROUP),
    row("WRITE (10)", range10(0x2a, 0x18), |c| write(c.range10(), c.bit(1, 4), c.bit(1, 3)))
        .ignore(1, FUA_NV | RELADR)
        .ignore(6, GROUP)
        .writes(),
    row("WRITE AND VERIFY (10)", range10(0x2e, 0x16), |c| write_and_verify(c, c.range10()))
        .ignore(1, RELADR)
        .ignore(6, GROUP)
        .writes(),
    row("VERIFY (10)", range10(0x2f, 0x16), |c| verify(c, c.range10()))
        .ignore(1, RELADR)
        .ignore(6, GROUP),
    row("PRE-FETCH (10)", range10(0x34, 0x02), |c| prefetch(c, c.range10()))
        .ignore(1, RELADR)
        .ignore(6, GROUP),
    row("SYNCHRONIZE CACHE (10)", range10(0x35, 0x02), |c| synchronize_cache(c, c.range10()))
        .ignore(1, LUN | SYNC_NV | RELADR)
        .ignore(6, GROUP),
    row("READ DEFECT DATA (10)", [0x37, 0, 0x1f, 0, 0, 0, 0, 0xff, 0xff, 0], |c| {
        read_defect_data(false, c.byte(2), c.len16(7))
    })
    .ignore(1, LUN),
    row("WRITE SAME (10)", range10(0x41, 0x08), |c| write_same(c, c.range10()))
        .ignore(6, GROUP)
        .writes(),
    row("UNMAP", [0x42, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0], |c| {
        Ok(Command::Unmap { list_len: c.len16(7) })
    })
    .ignore(6, GROUP)
    .writes(),
    row("LOG SENSE", [0x4d, 0, 0x3f, 0xff, 0, 0, 0, 0xff, 0xff, 0], |c| {
        Ok(Command::LogSense { page: c.byte(2) & 0x3f, subpage: c.byte(3), alloc: c.len16(7) })
    })
    .ignore(2, 0xc0)
    .reach(Reach::Standby),
    row("MODE SELECT (10)", [0x55, 0x10, 0, 0, 0, 0, 0, 0xff, 0xff, 0], |c| {
        mode_select(c, true, c.len16(7))
    })
    .ignore(1, LUN)
    .reach(Reach::Standby),
    // Identification and list of extents and third parties, which byte 1 would announce.
    row("RESERVE (10)", [0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0], |_| Ok(Command::Reserve))
        .ignore(1, LUN)
        .ignore_bytes(2, 3)
        .ignore_bytes(7, 8),
    row("RELEASE (10)", [0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0], |_| Ok(Command::Release))
        .ignore(1, LUN)
        .ignore_bytes(2, 3)
        .ignore_bytes(7, 8),
    row("MODE SENSE (10)", [0x5a, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0], |c| {
        mode_sense(c, true, c.len16(7))
    })
    .ignore(1, LUN)
    .reach(Reach::Standby),
    persistent_reserve_in("PERSISTENT RESERVE IN, READ KEYS", 0),
    persistent_reserve_in("PERSISTENT RESERVE IN, READ RESERVATION", 1),
    persistent_reserve_in("PERSISTENT RESERVE IN, REPORT CAPABILITIES", 2),
    persistent_reserve_in("PERSISTENT RESERVE IN, READ FULL STATUS", 3),
    persistent_reserve_out("PERSISTENT RESERVE OUT, REGISTER", 0),
    persistent_reserve_out("PERSISTENT RESERVE OUT, RESERVE", 1),
    persistent_reserve_out("PERSISTENT RESERVE OUT, RELEASE", 2),
    persistent_reserve_out("PERSISTENT RESERVE OUT, CLEAR", 3),
    persistent_reserve_out("PERSISTENT RESERVE OUT, PREEMPT", 4),
    persistent_reserve_out("PERSISTENT RESERVE OUT, PREEMPT AND ABORT", 5),
    persistent_reserve_out("PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY", 6),
    persistent_reserve_out("PERSISTENT RESERVE OUT, REGISTER AND MOVE", 7),
    row(
        "EXTENDED COPY (LID1)",
        [0x83, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0],
        |c| Ok(Command::ExtendedCopy { list_len: c.len32(10) }),
    )
    .action()
    .ignore(1, LUN),
    row(
        "RECEIVE COPY STATUS (LID1)",
        [0x84, 0x00, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0],
        |c| copy_results(c, CopyService::Status),
    )
    .action()
    .ignore(1, LUN),
    row(
        "RECEIVE COPY OPERATING PARAMETERS",
        [0x84, 0x03, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0],
        |c| copy_results(c, CopyService::OperatingParameters),
    )
    .action()
    .ignore(1, LUN)
    .ignore(2, 0xff),
    row(
        "RECEIVE COPY FAILURE DETAILS (LID1)",
        [0x84, 0x04, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0],
        |c| copy_results(c, CopyService::FailedSegment),
    )
    .action()
    .ignore(1, LUN),
    row("READ (16)", range16(0x88, 0x18), |c| read(c.range16(), c.bit(1, 4), c.bit(1, 3)))
        .ignore(1, RARC | FUA_NV)
        .ignore(14, GROUP),
    row(
        "COMPARE AND WRITE",
        [0x89, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0xff, 0, 0],
        |c| {
            let (dpo, fua) = (c.bit(1, 4), c.bit(1, 3));
            Ok(Command::CompareAndWrite { lba: c.be64(2), blocks: u64::from(c.byte(13)), dpo, fua })
        },
    )
    .ignore(1, FUA_NV)
    .ignore(14, GROUP)
    .writes(),
    row("WRITE (16)", range16(0x8a, 0x18), |c| write(c.range16(), c.bit(1, 4), c.bit(1, 3)))
        .ignore(1, FUA_NV)
        .ignore(14, GROUP)
        .writes(),
    row("WRITE AND VERIFY (16)", range16(0x8e, 0x16), |c| write_and_verify(c, c.range16()))
        .ignore(14, GROUP)
        .writes(),
    row("VERIFY (16)", range16(0x8f, 0x16), |c| verify(c, c.range16())).ignore(14, GROUP),
    row("PRE-FETCH (16)", range16(0x90, 0x02), |c| prefetch(c, c.range16())).ignore(14, GROUP),
    row("SYNCHRONIZE CACHE (16)", range16(0x91, 0x02), |c| synchronize_cache(c, c.range16()))
        .ignore(1, SYNC_NV)
        .ignore(14, GROUP),
    row("WRITE SAME (16)", range16(0x93, 0x09), |c| write_same(c, c.range16()))
        .ignore(14, GROUP)
        .writes(),
    // The LBA and PMI are obsolete.
    row(
        "READ CAPACITY (16)",
        [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0],
        |c| Ok(Command::ReadCapacity16 { alloc: c.len32(10) }),
    )
    .action()
    .ignore(1, LUN)
    .ignore_bytes(2, 9)
    .ignore(14, 0x01)
    .reach(Reach::Standby),
    row("GET LBA STATUS", range16(0x9e, 0x12), |c| {
        Ok(Command::GetLbaStatus { lba: c.be64(2), alloc: c.len32(10) })
    })
    .action()
    .ignore(1, LUN),
    row("REPORT LUNS", [0xa0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], |c| {
        // 10h and above list kinds of logical units that a target like ours does not have.
        Cdb::check(c.byte(2) <= 2, 2, 0xff)?;
        Ok(Command::ReportLuns { select: c.byte(2), alloc: c.len32(6) })
    })
    .ignore(1, LUN)
    .reach(Reach::Offline),
    row("REPORT TARGET PORT GROUPS", [0xa3, 0xea, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], |c| {
        // PARAMETER DATA FORMAT: length only, or extended header.
        Cdb::check(c.byte(1) >> 5 <= 1, 1, 0xe0)?;
        Ok(Command::ReportTargetPortGroups { extended: c.byte(1) >> 5 == 1, alloc: c.len32(6) })
    })
    .action()
    .reach(Reach::Transitioning),
    row(
        "REPORT SUPPORTED OPERATION CODES",
        [0xa3, 0x0c, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
        report_opcodes,
    )
    .action()
    .ignore(1, LUN)
    .reach(Reach::Standby),
    row(
        "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
        [0xa3, 0x0d, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0],
        |c| Ok(Command::ReportTmf { extended: c.bit(2, 7), alloc: c.len32(6) }),
    )
    .action()
    .ignore(1, LUN)
    .reach(Reach::Standby),
    row("SET TARGET PORT GROUPS", [0xa4, 0x0a, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], |c| {
        Ok(Command::SetTargetPortGroups { list_len: c.len32(6) })
    })
    .action()
    .ignore(1, LUN)
    .reach(Reach::Unavailable),
    row("READ (12)", range12(0xa8, 0x18), |c| read(c.range12(), c.bit(1, 4), c.bit(1, 3)))
        .ignore(1, RARC | FUA_NV | RELADR)
        .ignore(10, GROUP),
    row("WRITE (12)", range12(0xaa, 0x18), |c| write(c.range12(), c.bit(1, 4), c.bit(1, 3)))
        .ignore(1, FUA_NV | RELADR)
        .ignore(10, GROUP)
        .writes(),
    row("WRITE AND VERIFY (12)", range12(0xae, 0x16), |c| write_and_verify(c, c.range12()))
        .ignore(1, RELADR)
        .ignore(10, GROUP)
        .writes(),
    row("VERIFY (12)", range12(0xaf, 0x16), |c| verify(c, c.range12()))
        .ignore(1, RELADR)
        .ignore(10, GROUP),
    row("READ DEFECT DATA (12)", [0xb7, 0x1f, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0], |c| {
        read_defect_data(true, c.byte(1), c.len32(6))
    })
    .ignore_bytes(2, 5),
];

/// LBA and number of blocks.
type Range = (u64, u64);

fn read((lba, blocks): Range, dpo: bool, fua: bool) -> Result<Command, Sense> {
    Ok(Command::Read { lba, blocks, dpo, fua })
}

fn write((lba, blocks): Range, dpo: bool, fua: bool) -> Result<Command, Sense> {
    Ok(Command::Write { lba, blocks, dpo, fua })
}

/// BYTCHK in bits 2 and 1 of byte 1.
fn byte_check(c: &Cdb) -> Result<ByteCheck, Sense> {
    match c.byte(1) >> 1 & 3 {
        0 => Ok(ByteCheck::Medium),
        1 => Ok(ByteCheck::All),
        3 => Ok(ByteCheck::One),
        _ => Err(Sense::cdb_field(1, Some(2))),
    }
}

fn write_and_verify(c: &Cdb, (lba, blocks): Range) -> Result<Command, Sense> {
    let byte_check = byte_check(c)?;
    // One block for all (11b) is of VERIFY alone.
    Cdb::check(byte_check != ByteCheck::One, 1, 0x06)?;
    Ok(Command::WriteAndVerify { lba, blocks, dpo: c.bit(1, 4), byte_check })
}

fn verify(c: &Cdb, (lba, blocks): Range) -> Result<Command, Sense> {
    Ok(Command::Verify { lba, blocks, dpo: c.bit(1, 4), byte_check: byte_check(c)? })
}

fn prefetch(c: &Cdb, (lba, blocks): Range) -> Result<Command, Sense> {
    Ok(Command::Prefetch { lba, blocks, immediate: c.bit(1, 1) })
}

fn synchronize_cache(c: &Cdb, (lba, blocks): Range) -> Result<Command, Sense> {
    Ok(Command::SynchronizeCache { lba, blocks, immediate: c.bit(1, 1) })
}

fn write_same(c: &Cdb, (lba, blocks): Range) -> Result<Command, Sense> {
    let no_data = c.byte(0) == 0x93 && c.bit(1, 0);
    Ok(Command::WriteSame { lba, blocks, unmap: c.bit(1, 3), no_data })
}

fn format_unit(c: &Cdb) -> Result<Command, Sense> {
    Ok(Command::FormatUnit {
        long_list: c.bit(1, 5),
        format_data: c.bit(1, 4),
        complete_list: c.bit(1, 3),
        list_format: c.byte(1) & 7,
    })
}

fn inquiry(c: &Cdb) -> Result<Command, Sense> {
    let vpd = c.bit(1, 0);
    // A page code is for vital product data only (SPC-4 6.6.1).
    Cdb::check(vpd || c.byte(2) == 0, 2, 0xff)?;
    Ok(Command::Inquiry { page: vpd.then(|| c.byte(2)), alloc: c.len16(3) })
}

fn mode_sense(c: &Cdb, ten: bool, alloc: usize) -> Result<Command, Sense> {
    let control = match c.byte(2) >> 6 {
        0 => PageControl::Current,
        1 => PageControl::Changeable,
        2 => PageControl::Default,
        _ => return Err(Sense::SAVING_PARAMETERS_NOT_SUPPORTED),
    };
    let request = ModeRequest {
        ten,
        page: c.byte(2) & 0x3f,
        subpage: c.byte(3),
        control,
        no_descriptors: c.bit(1, 3),
        long_lba: ten && c.bit(1, 4),
    };
    Ok(Command::ModeSense { request, alloc })
}

fn mode_select(c: &Cdb, ten: bool, list_len: usize) -> Result<Command, Sense> {
    // Without PF the list would be in a vendor's format.
    Cdb::check(c.bit(1, 4) || list_len == 0, 1, 0x10)?;
    Ok(Command::ModeSelect { ten, list_len })
}

fn send_diagnostic(c: &Cdb) -> Result<Command, Sense> {
    // There are no diagnostic pages that could be sent.
    Cdb::check(c.be16(3) == 0, 3, 0xff)?;
    Ok(Command::SendDiagnostic { self_test: c.bit(1, 2) })
}

fn copy_results(c: &Cdb, service: CopyService) -> Result<Command, Sense> {
    // The operating parameters are those of no list; the byte is reserved, but initiators set it.
    let list_id = if service == CopyService::OperatingParameters { 0 } else { c.byte(2) };
    Ok(Command::ReceiveCopyResults { service, list_id, alloc: c.len32(10) })
}

fn report_opcodes(c: &Cdb) -> Result<Command, Sense> {
    let (opcode, action) = (c.byte(3), c.be16(4));
    let report = match c.byte(2) & 7 {
        0 => OpcodeReport::All,
        1 => OpcodeReport::One { opcode },
        2 => OpcodeReport::Service { opcode, action, lenient: false },
        3 => OpcodeReport::Service { opcode, action, lenient: true },
        _ => return Err(Sense::cdb_field(2, Some(2))),
    };
    Ok(Command::ReportOpcodes { report, timeouts: c.bit(2, 7), alloc: c.len32(6) })
}

/// `flags` are REQ_PLIST, REQ_GLIST and the format of the list.
fn read_defect_data(twelve: bool, flags: u8, alloc: usize) -> Result<Command, Sense> {
    Ok(Command::ReadDefectData {
        twelve,
        primary: flags & 0x10 != 0,
        grown: flags & 0x08 != 0,
        format: flags & 7,
        alloc,
    })
}
