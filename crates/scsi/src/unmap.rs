// SPDX-License-Identifier: Apache-2.0
//! The parameter list of UNMAP (SBC-4). In: bytes from the initiator. Out: ranges of blocks,
//! within the limits that the Block Limits page tells.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::sense::Sense;
use crate::vpd::BlockLimits;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    data_len: U16,
    descriptors_len: U16,
    reserved: [u8; 4],
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Descriptor {
    lba: U64,
    blocks: U32,
    reserved: [u8; 4],
}

/// Blocks to unmap. Whether they are on the medium is for the logical unit to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First LBA.
    pub lba: u64,
    /// Number of blocks, perhaps 0.
    pub blocks: u32,
}

/// The ranges of a parameter list. An empty list has none; a descriptor that is incomplete by the
/// list's own length fields is left out, as the standard says.
///
/// # Errors
/// PARAMETER LIST LENGTH ERROR for a list that is shorter than it says; INVALID FIELD IN PARAMETER
/// LIST when its lengths contradict each other or it exceeds the limits.
pub fn parse<'a>(
    list: &'a [u8],
    limits: &BlockLimits,
) -> Result<impl ExactSizeIterator<Item = Range> + Clone + 'a, Sense> {
    let descriptors = descriptors(list)?;
    if descriptors.len() as u64 > u64::from(limits.max_unmap_descriptors) {
        return Err(Sense::list_field(2, Some(7)));
    }
    let blocks: u64 = descriptors.iter().map(|d| u64::from(d.blocks.get())).sum();
    if blocks > u64::from(limits.max_unmap_blocks) {
        return Err(Sense::INVALID_FIELD_IN_PARAMETER_LIST);
    }
    Ok(descriptors.iter().map(|d| Range { lba: d.lba.get(), blocks: d.blocks.get() }))
}

fn descriptors(list: &[u8]) -> Result<&[Descriptor], Sense> {
    if list.is_empty() {
        return Ok(&[]);
    }
    let (header, rest) =
        Header::ref_from_prefix(list).map_err(|_| Sense::PARAMETER_LIST_LENGTH_ERROR)?;
    let len = usize::from(header.descriptors_len.get());
    if usize::from(header.data_len.get()) < len + 6 {
        return Err(Sense::list_field(0, Some(7)));
    }
    let rest = rest.get(..len).ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
    let whole = len / size_of::<Descriptor>();
    <[Descriptor]>::ref_from_prefix_with_elems(rest, whole)
        .map(|(descriptors, _)| descriptors)
        .map_err(|_| Sense::PARAMETER_LIST_LENGTH_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> BlockLimits {
        BlockLimits { max_unmap_blocks: 100, max_unmap_descriptors: 2, ..BlockLimits::default() }
    }

    fn list(descriptors_len: u16, ranges: &[(u64, u32)]) -> Vec<u8> {
        let mut list = (descriptors_len + 6).to_be_bytes().to_vec();
        list.extend(descriptors_len.to_be_bytes());
        list.extend([0; 4]);
        for (lba, blocks) in ranges {
            list.extend(lba.to_be_bytes());
            list.extend(blocks.to_be_bytes());
            list.extend([0; 4]);
        }
        list
    }

    fn ranges(list: &[u8]) -> Result<Vec<(u64, u32)>, Sense> {
        Ok(parse(list, &limits())?.map(|r| (r.lba, r.blocks)).collect())
    }

    #[test]
    fn each_descriptor_is_a_range() {
        let two = [(5, 60), (u64::MAX, 40)];
        assert_eq!(ranges(&list(32, &two)), Ok(two.to_vec()));
        assert_eq!(ranges(&list(0, &[])), Ok(vec![]));
        assert_eq!(ranges(&[]), Ok(vec![]));
    }

    #[test]
    fn an_incomplete_descriptor_at_the_end_is_left_out() {
        assert_eq!(ranges(&list(31, &[(1, 1), (2, 2)])), Ok(vec![(1, 1)]));
    }

    #[test]
    fn a_list_shorter_than_it_says_is_a_length_error() {
        for len in 1..24 {
            let sense = ranges(&list(16, &[(1, 1)])[..len]);
            assert_eq!(sense, Err(Sense::PARAMETER_LIST_LENGTH_ERROR), "{len} bytes");
        }
    }

    #[test]
    fn lengths_that_contradict_each_other_are_an_invalid_field() {
        let mut list = list(16, &[(1, 1)]);
        list[1] = 21;
        assert_eq!(ranges(&list), Err(Sense::list_field(0, Some(7))));
    }

    #[test]
    fn more_than_the_limits_is_an_invalid_field() {
        let three = list(48, &[(1, 1), (2, 1), (3, 1)]);
        assert_eq!(ranges(&three), Err(Sense::list_field(2, Some(7))));
        let long = list(32, &[(1, u32::MAX), (2, u32::MAX)]);
        assert_eq!(ranges(&long), Err(Sense::INVALID_FIELD_IN_PARAMETER_LIST));
    }
}
