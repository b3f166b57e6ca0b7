//! Third-party copy with one-byte list identifiers (SPC-4 6.4, 6.17 to 6.20). In: the parameter list
//! of EXTENDED COPY. Out: who copies what to where, every length, count and index checked; and the
//! answers of the RECEIVE COPY commands.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::answer::Answer;
use crate::cdb::top_bit;
use crate::sense::Sense;

/// Most copy sources and destinations (CSCDs) in one list.
pub const MAX_CSCDS: u16 = 16;
/// Most segments in one list.
pub const MAX_SEGMENTS: u16 = 256;
/// Longest segment that is announced, in bytes. A segment has 65535 blocks at most, so that only
/// blocks of more than 4 KiB could exceed it.
pub const MAX_SEGMENT_BYTES: u32 = 1 << 28;
/// Longest parameter list that can be valid, in bytes.
pub const MAX_LIST: usize = size_of::<Header>()
    + MAX_CSCDS as usize * size_of::<RawCscd>()
    + MAX_SEGMENTS as usize * size_of::<RawSegment>();

/// The CSCD and segment descriptor types that are implemented.
const IDENTIFICATION: u8 = 0xe4;
const BLOCK_TO_BLOCK: u8 = 0x02;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    list_id: u8,
    /// STR, LIST ID USAGE, PRIORITY.
    flags: u8,
    cscds_len: U16,
    reserved: [u8; 4],
    segments_len: U32,
    inline_len: U32,
}

/// Identification CSCD descriptor (E4h).
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawCscd {
    kind: u8,
    /// LU ID TYPE, NUL, peripheral device type.
    flags: u8,
    initiator_port: U16,
    code_set: u8,
    /// ASSOCIATION and designator type.
    designator_type: u8,
    reserved: u8,
    designator_len: u8,
    designator: [u8; 20],
    /// PAD in bit 2 of the first byte, then the block length.
    block_size: U32,
}

/// Block device to block device segment descriptor (02h).
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSegment {
    kind: u8,
    /// DC and CAT.
    flags: u8,
    len: U16,
    source: U16,
    destination: U16,
    reserved: U16,
    blocks: U16,
    source_lba: U64,
    destination_lba: U64,
}

/// A checked parameter list of EXTENDED COPY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyList {
    /// The list identifier, unless LIST ID USAGE says that there is none.
    pub list_id: Option<u8>,
    /// The copy sources and destinations.
    pub cscds: Vec<Cscd>,
    /// The segments, in the order in which to copy them.
    pub segments: Vec<Segment>,
}

/// A copy source or destination, by a designator of its device identification page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cscd {
    /// Code set (1 binary, 2 ASCII, 3 UTF-8).
    pub code_set: u8,
    /// Association: 0 for a logical unit.
    pub association: u8,
    /// Designator type (3: NAA).
    pub kind: u8,
    /// Block length in bytes that the initiator believes it has.
    pub block_size: u32,
    designator: [u8; 20],
    designator_len: u8,
}

impl Cscd {
    /// The designator.
    pub fn designator(&self) -> &[u8] {
        &self.designator[..usize::from(self.designator_len).min(self.designator.len())]
    }
}

/// Blocks to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Index into [`CopyList::cscds`], checked.
    pub source: usize,
    /// The same.
    pub destination: usize,
    /// Number of blocks, perhaps 0.
    pub blocks: u16,
    /// DC: they are blocks of the destination, not of the source.
    pub destination_blocks: bool,
    /// First LBA at the source.
    pub source_lba: u64,
    /// First LBA at the destination.
    pub destination_lba: u64,
}

/// Reads the parameter list of EXTENDED COPY (LID1). An empty list copies nothing.
///
/// # Errors
/// PARAMETER LIST LENGTH ERROR for a list shorter than it says, and the codes that SPC-4 6.4 names
/// for counts, types and fields, with their place.
pub fn parse(list: &[u8]) -> Result<CopyList, Sense> {
    if list.is_empty() {
        return Ok(CopyList { list_id: None, cscds: Vec::new(), segments: Vec::new() });
    }
    let (header, rest) =
        Header::ref_from_prefix(list).map_err(|_| Sense::PARAMETER_LIST_LENGTH_ERROR)?;
    let list_id = match header.flags >> 3 & 3 {
        0 | 2 => Some(header.list_id),
        3 if header.list_id == 0 => None,
        3 => return Err(Sense::list_field(0, Some(7))),
        _ => return Err(Sense::list_field(1, Some(4))),
    };

    let cscds_len = usize::from(header.cscds_len.get());
    if cscds_len > usize::from(MAX_CSCDS) * size_of::<RawCscd>() {
        return Err(Sense::TOO_MANY_TARGET_DESCRIPTORS.in_list(2, None));
    }
    let segments_len = header.segments_len.get() as usize;
    if segments_len > usize::from(MAX_SEGMENTS) * size_of::<RawSegment>() {
        return Err(Sense::TOO_MANY_SEGMENT_DESCRIPTORS.in_list(8, None));
    }
    if header.inline_len.get() != 0 {
        return Err(Sense::INLINE_DATA_LENGTH_EXCEEDED.in_list(12, None));
    }
    let (cscds, rest) =
        rest.split_at_checked(cscds_len).ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
    let segments = rest.get(..segments_len).ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;

    let start = size_of::<Header>();
    let cscds = cscds
        .chunks(size_of::<RawCscd>())
        .enumerate()
        .map(|(i, bytes)| cscd(bytes, start + i * size_of::<RawCscd>()))
        .collect::<Result<Vec<_>, _>>()?;
    let start = start + cscds_len;
    let segments = segments
        .chunks(size_of::<RawSegment>())
        .enumerate()
        .map(|(i, bytes)| segment(bytes, start + i * size_of::<RawSegment>(), cscds.len()))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(CopyList { list_id, cscds, segments })
}

/// Reads the CSCD descriptor that is at `at` of the list.
fn cscd(bytes: &[u8], at: usize) -> Result<Cscd, Sense> {
    if bytes.first() != Some(&IDENTIFICATION) {
        return Err(Sense::UNSUPPORTED_TARGET_DESCRIPTOR_TYPE.in_list(at, Some(7)));
    }
    // Descriptors are of one length: the list's length is wrong if one is cut off.
    let raw = RawCscd::ref_from_bytes(bytes).map_err(|_| Sense::list_field(2, Some(7)))?;
    // LU ID TYPE (LUN), NUL (clear), and direct access block devices alone.
    if let Some(bit) = top_bit(raw.flags) {
        return Err(Sense::list_field(at + 1, Some(bit)));
    }
    if usize::from(raw.designator_len) > raw.designator.len() {
        return Err(Sense::list_field(at + 7, Some(7)));
    }
    Ok(Cscd {
        code_set: raw.code_set & 0x0f,
        association: raw.designator_type >> 4 & 3,
        kind: raw.designator_type & 0x0f,
        block_size: raw.block_size.get() & 0x00ff_ffff,
        designator: raw.designator,
        designator_len: raw.designator_len,
    })
}

/// Reads the segment descriptor that is at `at` of the list; `count` CSCDs are there.
fn segment(bytes: &[u8], at: usize, count: usize) -> Result<Segment, Sense> {
    if bytes.first() != Some(&BLOCK_TO_BLOCK) {
        return Err(Sense::UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE.in_list(at, Some(7)));
    }
    let raw = RawSegment::ref_from_bytes(bytes).map_err(|_| Sense::list_field(8, Some(7)))?;
    if usize::from(raw.len.get()) != size_of::<RawSegment>() - 4 {
        return Err(Sense::list_field(at + 2, Some(7)));
    }
    let index = |id: U16, offset| match usize::from(id.get()) {
        index if index < count => Ok(index),
        _ => Err(Sense::list_field(at + offset, Some(7))),
    };
    Ok(Segment {
        source: index(raw.source, 4)?,
        destination: index(raw.destination, 6)?,
        blocks: raw.blocks.get(),
        destination_blocks: raw.flags & 0x02 != 0,
        source_lba: raw.source_lba.get(),
        destination_lba: raw.destination_lba.get(),
    })
}

/// RECEIVE COPY OPERATING PARAMETERS of a device with blocks of `block_size` bytes, of which
/// `concurrent` copies may run at once.
pub fn operating_parameters(block_size: u32, concurrent: u8) -> Answer {
    #[derive(IntoBytes, Immutable)]
    #[repr(C)]
    struct Parameters {
        available: U32,
        /// SNLID: a list identifier may be left out.
        flags: u8,
        reserved: [u8; 3],
        max_cscds: U16,
        max_segments: U16,
        max_descriptors_len: U32,
        max_segment_len: U32,
        max_inline_len: U32,
        held_data_limit: U32,
        max_stream_transfer: U32,
        reserved2: U16,
        total_concurrent: U16,
        max_concurrent: u8,
        /// Powers of two, in bytes: of segments, inline data, held data.
        granularity: [u8; 3],
        reserved3: [u8; 3],
        descriptors_len: u8,
        descriptors: [u8; 2],
    }
    let mut a = Answer::new();
    a.layout(&Parameters {
        available: 0.into(),
        flags: 1,
        reserved: [0; 3],
        max_cscds: MAX_CSCDS.into(),
        max_segments: MAX_SEGMENTS.into(),
        max_descriptors_len: u32::try_from(MAX_LIST - size_of::<Header>())
            .unwrap_or(u32::MAX)
            .into(),
        max_segment_len: MAX_SEGMENT_BYTES.into(),
        max_inline_len: 0.into(),
        held_data_limit: 0.into(),
        max_stream_transfer: 0.into(),
        reserved2: 0.into(),
        total_concurrent: u16::from(concurrent).into(),
        max_concurrent: concurrent,
        granularity: [u8::try_from(block_size.trailing_zeros()).unwrap_or(0), 0, 0],
        reserved3: [0; 3],
        descriptors_len: 2,
        descriptors: [BLOCK_TO_BLOCK, IDENTIFICATION],
    });
    a.set_length32(0);
    a
}

/// How an EXTENDED COPY ended, for RECEIVE COPY STATUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyStatus {
    /// Whether it failed.
    pub failed: bool,
    /// Segments that were processed.
    pub segments: u16,
    /// Bytes that were written to destinations.
    pub bytes: u64,
}

/// RECEIVE COPY STATUS (LID1). No data is held.
pub fn status(status: &CopyStatus) -> Answer {
    // TRANSFER COUNT UNITS: bytes, or KiB and so on where the count would not fit.
    let units = (0u8..).zip((0..).step_by(10).map(|shift| status.bytes >> shift));
    let (unit, count) = units
        .filter_map(|(unit, count)| Some((unit, u32::try_from(count).ok()?)))
        .next()
        .unwrap_or_default();
    let mut a = Answer::new();
    a.be32(8);
    a.u8(if status.failed { 2 } else { 1 });
    a.be16(status.segments);
    a.u8(unit);
    a.be32(count);
    a
}

/// RECEIVE COPY FAILURE DETAILS (LID1) when none are held.
pub fn no_failure_details() -> Answer {
    let mut a = Answer::new();
    a.be32(0);
    a
}
