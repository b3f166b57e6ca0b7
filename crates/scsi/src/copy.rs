// SPDX-License-Identifier: Apache-2.0
//! Third-party copy with one-byte list identifiers (SPC-4 6.4, 6.17 to 6.20). In: the parameter list
//! of EXTENDED COPY. Out: who copies what to where, every length and count checked; and the answers
//! of the RECEIVE COPY commands.

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
    /// NUL: a device that does not answer.
    pub null: bool,
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
    /// Index into [`CopyList::cscds`], which may have no such element: then the copy is aborted
    /// when it comes to this segment.
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
        .map(|(i, bytes)| segment(bytes, start + i * size_of::<RawSegment>()))
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
    // LU ID TYPE is of descriptors that hold a LUN. The device is a direct access block device.
    if let Some(bit) = top_bit(raw.flags & 0x1f) {
        return Err(Sense::list_field(at + 1, Some(bit)));
    }
    if usize::from(raw.designator_len) > raw.designator.len() {
        return Err(Sense::list_field(at + 7, Some(7)));
    }
    Ok(Cscd {
        code_set: raw.code_set & 0x0f,
        association: raw.designator_type >> 4 & 3,
        kind: raw.designator_type & 0x0f,
        null: raw.flags & 0x20 != 0,
        block_size: raw.block_size.get() & 0x00ff_ffff,
        designator: raw.designator,
        designator_len: raw.designator_len,
    })
}

/// Reads the segment descriptor that is at `at` of the list.
fn segment(bytes: &[u8], at: usize) -> Result<Segment, Sense> {
    if bytes.first() != Some(&BLOCK_TO_BLOCK) {
        return Err(Sense::UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE.in_list(at, Some(7)));
    }
    let raw = RawSegment::ref_from_bytes(bytes).map_err(|_| Sense::list_field(8, Some(7)))?;
    if usize::from(raw.len.get()) != size_of::<RawSegment>() - 4 {
        return Err(Sense::list_field(at + 2, Some(7)));
    }
    Ok(Segment {
        source: usize::from(raw.source.get()),
        destination: usize::from(raw.destination.get()),
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

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "the numbers are small")]
mod tests {
    use super::*;

    fn cscd_bytes() -> Vec<u8> {
        let mut b = vec![IDENTIFICATION, 0, 0, 0, 1, 3, 0, 16];
        b.extend([0x60; 16]);
        b.extend([0; 4]);
        b.extend([0, 0, 2, 0]);
        b
    }

    fn segment_bytes(source: u16, destination: u16) -> Vec<u8> {
        let mut b = vec![BLOCK_TO_BLOCK, 0x02, 0, 0x18];
        b.extend(source.to_be_bytes());
        b.extend(destination.to_be_bytes());
        b.extend([0, 0, 0x01, 0x00]);
        b.extend(5u64.to_be_bytes());
        b.extend(u64::MAX.to_be_bytes());
        b
    }

    fn list(flags: u8, cscds: usize, segments: &[(u16, u16)]) -> Vec<u8> {
        let mut b = vec![7, flags];
        b.extend((32 * cscds as u16).to_be_bytes());
        b.extend([0; 4]);
        b.extend((28 * segments.len() as u32).to_be_bytes());
        b.extend([0; 4]);
        b.extend(cscd_bytes().repeat(cscds));
        for (source, destination) in segments {
            b.extend(segment_bytes(*source, *destination));
        }
        b
    }

    /// The list with the byte at `at` set.
    fn with(mut list: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
        list[at] = byte;
        list
    }

    #[test]
    fn a_list_of_cscds_and_segments_is_read() {
        let copy = parse(&list(0, 2, &[(0, 1), (1, 0)])).unwrap();
        assert_eq!(copy.list_id, Some(7));
        let [cscd, _] = copy.cscds[..] else { panic!("{copy:?}") };
        assert_eq!((cscd.code_set, cscd.association, cscd.kind, cscd.block_size), (1, 0, 3, 512));
        assert_eq!(cscd.designator(), [0x60; 16]);
        assert_eq!(
            copy.segments[0],
            Segment {
                source: 0,
                destination: 1,
                blocks: 256,
                destination_blocks: true,
                source_lba: 5,
                destination_lba: u64::MAX,
            }
        );
        assert_eq!((copy.segments[1].source, copy.segments[1].destination), (1, 0));
        assert_eq!(parse(&[]).unwrap().segments, []);
    }

    #[test]
    fn the_list_identifier_is_used_as_it_says() {
        assert_eq!(parse(&list(0x10, 1, &[])).unwrap().list_id, Some(7));
        assert_eq!(parse(&list(0x18, 1, &[])), Err(Sense::list_field(0, Some(7))));
        assert_eq!(parse(&with(list(0x18, 1, &[]), 0, 0)).unwrap().list_id, None);
        assert_eq!(parse(&list(0x08, 1, &[])), Err(Sense::list_field(1, Some(4))));
    }

    #[test]
    fn a_list_shorter_than_it_says_is_a_length_error() {
        let whole = list(0, 2, &[(0, 1)]);
        for len in 1..whole.len() {
            let sense = parse(&whole[..len]);
            assert_eq!(sense, Err(Sense::PARAMETER_LIST_LENGTH_ERROR), "{len} bytes");
        }
        // Lengths that do not end with a descriptor.
        assert_eq!(parse(&with(whole.clone(), 3, 63)), Err(Sense::list_field(2, Some(7))));
        assert_eq!(parse(&with(whole, 11, 27)), Err(Sense::list_field(8, Some(7))));
    }

    #[test]
    fn counts_are_limited_before_anything_is_stored() {
        let all = [(0, 15); MAX_SEGMENTS as usize];
        let copy = parse(&list(0, usize::from(MAX_CSCDS), &all)).unwrap();
        assert_eq!((copy.cscds.len(), copy.segments.len()), (16, 256));
        let sense = parse(&list(0, usize::from(MAX_CSCDS) + 1, &[]));
        assert_eq!(sense, Err(Sense::TOO_MANY_TARGET_DESCRIPTORS.in_list(2, None)));
        let sense = parse(&with(list(0, 2, &[]), 8, 0xff));
        assert_eq!(sense, Err(Sense::TOO_MANY_SEGMENT_DESCRIPTORS.in_list(8, None)));
        let sense = parse(&with(list(0, 2, &[]), 15, 1));
        assert_eq!(sense, Err(Sense::INLINE_DATA_LENGTH_EXCEEDED.in_list(12, None)));
    }

    #[test]
    fn what_is_not_supported_is_told_with_its_place() {
        let copy = list(0, 2, &[(0, 1)]);
        let (second, first_segment) = (16 + 32, 16 + 64);
        for (at, byte, sense) in [
            (second, 0xe0, Sense::UNSUPPORTED_TARGET_DESCRIPTOR_TYPE.in_list(second, Some(7))),
            (second + 1, 0x05, Sense::list_field(second + 1, Some(2))),
            (second + 7, 21, Sense::list_field(second + 7, Some(7))),
            (
                first_segment,
                0x00,
                Sense::UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE.in_list(first_segment, Some(7)),
            ),
            (first_segment + 3, 0x14, Sense::list_field(first_segment + 2, Some(7))),
        ] {
            assert_eq!(parse(&with(copy.clone(), at, byte)), Err(sense), "{at} {byte:02x}");
        }
    }

    #[test]
    fn operating_parameters_tell_the_limits_that_parse_keeps() {
        let a = operating_parameters(4096, 3);
        assert_eq!(a.len(), 46);
        assert_eq!(a[..16], [0, 0, 0, 42, 1, 0, 0, 0, 0, 16, 1, 0, 0, 0, 0x1e, 0]);
        assert_eq!(MAX_LIST, 16 + 0x1e00);
        assert_eq!(a[16..20], [0x10, 0, 0, 0]);
        assert_eq!(a[34..40], [0, 3, 3, 12, 0, 0]);
        assert_eq!(a[43..], [2, 0x02, 0xe4]);
    }

    #[test]
    fn copy_status_counts_in_units_that_fit() {
        let done = |bytes| status(&CopyStatus { failed: false, segments: 3, bytes });
        assert_eq!(done(512)[..], [0, 0, 0, 8, 1, 0, 3, 0, 0, 0, 2, 0]);
        assert_eq!(done(1 << 32)[7..], [1, 0, 0x40, 0, 0]);
        assert_eq!(done(u64::MAX)[7], 4);
        assert_eq!(status(&CopyStatus { failed: true, segments: 0, bytes: 0 })[4], 2);
        assert_eq!(no_failure_details()[..], [0; 4]);
    }
}
