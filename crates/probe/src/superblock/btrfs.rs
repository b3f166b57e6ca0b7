// SPDX-License-Identifier: Apache-2.0
//! Devices that a btrfs is on: each has a superblock that says of which filesystem it is, and of how many devices that
//! has.

use crate::checksum::crc32c;
use crate::fields::{le16, le32, le64};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Where a superblock is.
const OFFSET: u64 = 0x10000;
/// Bytes of it.
pub(crate) const SIZE: usize = 4096;

/// The flag of what others can be begun from.
const SEEDING: u64 = 1 << 32;

/// A device of a btrfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The filesystem's UUID.
    pub filesystem: [u8; 16],
    /// The device's number in it.
    pub number: u64,
    /// Devices that the filesystem has.
    pub devices: u64,
    /// The device's own UUID.
    pub uuid: [u8; 16],
    /// Whether other filesystems can be begun from this one, whose devices then are theirs as well.
    pub seeding: bool,
}

/// What a device, open, says if it is one of a btrfs.
pub fn member(device: &File) -> io::Result<Option<Member>> {
    let mut superblock = [0; SIZE];
    match device.read_exact_at(&mut superblock, OFFSET) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        read => read.map(|()| of_superblock(&superblock)),
    }
}

/// What this superblock says.
pub(crate) fn of_superblock(sb: &[u8; SIZE]) -> Option<Member> {
    // Kinds of checksums other than CRC-32C are the kernel's to verify.
    let sound = &sb[0x40..0x48] == b"_BHRfS_M"
        && le64(sb, 0x30) == OFFSET
        && (le16(sb, 0xc4) != 0 || !crc32c(&sb[0x20..]) == le32(sb, 0));
    sound.then(|| Member {
        filesystem: uuid(sb, 0x20),
        number: le64(sb, 0xc9),
        devices: le64(sb, 0x88),
        uuid: uuid(sb, 0x10b),
        seeding: le64(sb, 0x38) & SEEDING != 0,
    })
}

fn uuid(sb: &[u8; SIZE], at: usize) -> [u8; 16] {
    sb[at..].first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock() -> [u8; SIZE] {
        let mut sb = [0; SIZE];
        sb[0x20..0x30].copy_from_slice(b"0123456789abcdef");
        sb[0x30..0x38].copy_from_slice(&OFFSET.to_le_bytes());
        sb[0x40..0x48].copy_from_slice(b"_BHRfS_M");
        sb[0x88] = 3;
        sb[0xc9] = 2;
        sb[0x3c] = 1;
        sb[0x10b] = 7;
        let sum = !crc32c(&sb[0x20..]);
        sb[..4].copy_from_slice(&sum.to_le_bytes());
        sb
    }

    #[test]
    fn a_device_says_which_one_it_is_of_how_many() {
        let mut uuid = [0; 16];
        uuid[0] = 7;
        let filesystem = *b"0123456789abcdef";
        let wanted = Member { filesystem, number: 2, devices: 3, uuid, seeding: true };
        assert_eq!(of_superblock(&superblock()), Some(wanted));
    }

    #[test]
    fn a_damaged_superblock_is_none() {
        for at in [0, 0x20, 0x30, 0x40, 0x88, 0xc9, SIZE - 1] {
            let mut sb = superblock();
            sb[at] ^= 1;
            assert_eq!(of_superblock(&sb), None, "{at:#x}");
        }
        let file = tempfile::tempfile().unwrap();
        file.set_len(OFFSET + 100).unwrap();
        assert_eq!(member(&file).unwrap(), None);
    }
}
