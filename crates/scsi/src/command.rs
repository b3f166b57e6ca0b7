// SPDX-License-Identifier: Apache-2.0
//! What a CDB asks for, as types. Lengths called `alloc` are allocation lengths: the most that the
//! initiator takes of an answer. `list_len` is the length of the parameter data that comes along.

/// A decoded CDB. What a command may ask for and the daemon does not do (protection information,
/// anchors, saved pages, third-party reservations) is refused in decoding and has no field here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the standard's own")]
pub enum Command {
    TestUnitReady,
    /// SPC-4 6.39; `descriptor` asks for descriptor format sense data.
    RequestSense {
        descriptor: bool,
        alloc: usize,
    },
    /// SPC-4 6.6; `page` is set with EVPD.
    Inquiry {
        page: Option<u8>,
        alloc: usize,
    },
    ReadCapacity10,
    ReadCapacity16 {
        alloc: usize,
    },
    GetLbaStatus {
        lba: u64,
        alloc: usize,
    },
    Read {
        lba: u64,
        blocks: u64,
        dpo: bool,
        fua: bool,
    },
    Write {
        lba: u64,
        blocks: u64,
        dpo: bool,
        fua: bool,
    },
    WriteAndVerify {
        lba: u64,
        blocks: u64,
        dpo: bool,
        byte_check: ByteCheck,
    },
    Verify {
        lba: u64,
        blocks: u64,
        dpo: bool,
        byte_check: ByteCheck,
    },
    /// `blocks` 0: to the end of the medium.
    SynchronizeCache {
        lba: u64,
        blocks: u64,
        immediate: bool,
    },
    Prefetch {
        lba: u64,
        blocks: u64,
        immediate: bool,
    },
    Unmap {
        list_len: usize,
    },
    /// `blocks` 0: to the end of the medium. `no_data` is NDOB: no data-out buffer, zeroes.
    WriteSame {
        lba: u64,
        blocks: u64,
        unmap: bool,
        no_data: bool,
    },
    CompareAndWrite {
        lba: u64,
        blocks: u64,
        dpo: bool,
        fua: bool,
    },
    /// LID1 (SPC-4 6.4).
    ExtendedCopy {
        list_len: usize,
    },
    ReceiveCopyResults {
        service: CopyService,
        list_id: u8,
        alloc: usize,
    },
    FormatUnit {
        format_data: bool,
        complete_list: bool,
        list_format: u8,
        long_list: bool,
    },
    ModeSense {
        request: ModeRequest,
        alloc: usize,
    },
    ModeSelect {
        ten: bool,
        list_len: usize,
    },
    StartStop {
        immediate: bool,
        power_condition: u8,
        no_flush: bool,
        load_eject: bool,
        start: bool,
    },
    PreventAllow {
        prevent: u8,
    },
    ReportOpcodes {
        report: OpcodeReport,
        timeouts: bool,
        alloc: usize,
    },
    ReportTmf {
        extended: bool,
        alloc: usize,
    },
    ReportTargetPortGroups {
        extended: bool,
        alloc: usize,
    },
    SetTargetPortGroups {
        list_len: usize,
    },
    ReadDefectData {
        twelve: bool,
        primary: bool,
        grown: bool,
        format: u8,
        alloc: usize,
    },
    ReportLuns {
        select: u8,
        alloc: usize,
    },
    /// Without SELF-TEST it asks for nothing.
    SendDiagnostic {
        self_test: bool,
    },
    LogSense {
        page: u8,
        subpage: u8,
        alloc: usize,
    },
    /// READ KEYS to READ FULL STATUS: the kernel answers unless told not to.
    PersistentReserveIn {
        action: u8,
        alloc: usize,
    },
    PersistentReserveOut {
        action: u8,
        scope_type: u8,
        list_len: usize,
    },
    Reserve,
    Release,
}

/// BYTCHK of VERIFY and WRITE AND VERIFY (SBC-4 5.31).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteCheck {
    /// 00b: the medium alone is checked; no data is sent.
    Medium,
    /// 01b: the data-out buffer holds all the blocks.
    All,
    /// 11b: it holds one block, compared with each.
    One,
}

/// Service actions of RECEIVE COPY RESULTS (SPC-4 6.20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyService {
    /// COPY STATUS.
    Status,
    /// OPERATING PARAMETERS.
    OperatingParameters,
    /// FAILED SEGMENT DETAILS.
    FailedSegment,
}

/// What MODE SENSE asks for (SPC-4 6.11, 6.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeRequest {
    /// MODE SENSE (10), not (6).
    pub ten: bool,
    /// Page code; 3Fh: all pages.
    pub page: u8,
    /// Subpage code; FFh: all subpages.
    pub subpage: u8,
    /// Which values.
    pub control: PageControl,
    /// DBD: no block descriptors.
    pub no_descriptors: bool,
    /// LLBAA: block descriptors may be long.
    pub long_lba: bool,
}

/// PC of MODE SENSE (SPC-4 table 185).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageControl {
    /// Current values.
    Current,
    /// A mask of what can be changed.
    Changeable,
    /// Default values.
    Default,
}

/// What REPORT SUPPORTED OPERATION CODES asks for (SPC-4 6.35).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpcodeReport {
    /// All commands.
    All,
    /// One opcode that has no service actions.
    One {
        /// The opcode.
        opcode: u8,
    },
    /// One opcode with its service action.
    Service {
        /// The opcode.
        opcode: u8,
        /// Its service action.
        action: u16,
        /// Reporting options 011b: an opcode without service actions is no error.
        lenient: bool,
    },
}
