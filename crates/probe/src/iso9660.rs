// SPDX-License-Identifier: Apache-2.0
//! The primary volume descriptor of an ISO 9660 filesystem (ECMA-119, 8.4).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Where the first volume descriptor is, and its size.
pub const OFFSET: u64 = 0x8000;
/// Bytes of a volume descriptor.
pub const SIZE: usize = 2048;

/// What the descriptor says of its volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The system that may boot from it.
    pub system_id: OsString,
    /// Its name.
    pub volume_id: OsString,
    /// Its blocks.
    pub volume_space_size: u32,
    /// Volumes of the set that it belongs to.
    pub volume_set_size: u32,
    /// Which one of the set it is.
    pub volume_sequence_number: u32,
    /// Bytes of a block.
    pub logical_block_size: u32,
    /// Name of the set.
    pub volume_set_id: OsString,
    /// Who published it.
    pub publisher_id: OsString,
    /// Who prepared its data.
    pub data_preparer_id: OsString,
    /// How its data are laid out, or what made it.
    pub application_id: OsString,
    /// The file that says whose it is.
    pub copyright_file_id: OsString,
    /// The file that says what it is about.
    pub abstract_file_id: OsString,
    /// The file that has its bibliography.
    pub bibliographic_file_id: OsString,
    /// When it was made: seconds since 1970, -1 where it is not given, as with the times that follow.
    pub volume_creation_t: i64,
    /// When it was changed.
    pub volume_modification_t: i64,
    /// From when on it is out of date.
    pub volume_expiration_t: i64,
    /// From when on it may be used.
    pub volume_effective_t: i64,
}

/// Reads the descriptor; none if it is not that of a primary volume.
pub fn primary_volume(descriptor: &[u8; SIZE]) -> Option<Volume> {
    const PRIMARY: u8 = 1;
    if descriptor[0] != PRIMARY || &descriptor[1..6] != b"CD001" {
        return None;
    }
    let text = |at: usize, len: usize| -> OsString {
        let field = &descriptor[at..at + len];
        let end = field.iter().rposition(|b| *b != b' ').map_or(0, |i| i + 1);
        let end = field[..end].iter().position(|b| *b == 0).unwrap_or(end);
        OsStr::from_bytes(&field[..end]).to_owned()
    };
    // Numbers are there in both byte orders; the little endian one comes first.
    let short = |at: usize| u32::from(u16::from_le_bytes([descriptor[at], descriptor[at + 1]]));
    let space = [descriptor[80], descriptor[81], descriptor[82], descriptor[83]];
    Some(Volume {
        system_id: text(8, 32),
        volume_id: text(40, 32),
        volume_space_size: u32::from_le_bytes(space),
        volume_set_size: short(120),
        volume_sequence_number: short(124),
        logical_block_size: short(128),
        volume_set_id: text(190, 128),
        publisher_id: text(318, 128),
        data_preparer_id: text(446, 128),
        application_id: text(574, 128),
        copyright_file_id: text(702, 37),
        abstract_file_id: text(739, 37),
        bibliographic_file_id: text(776, 37),
        volume_creation_t: time(&descriptor[813..830]),
        volume_modification_t: time(&descriptor[830..847]),
        volume_expiration_t: time(&descriptor[847..864]),
        volume_effective_t: time(&descriptor[864..881]),
    })
}

/// Seconds since 1970 of `YYYYMMDDhhmmsscc` and a byte with the distance from UTC; -1 for what is not given
/// (all zeros) or no time.
fn time(field: &[u8]) -> i64 {
    seconds(field).unwrap_or(-1)
}

fn seconds(field: &[u8]) -> Option<i64> {
    /// Quarters of an hour.
    const QUARTER: i64 = 15 * 60;
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = field.get(from..to).filter(|d| d.iter().all(u8::is_ascii_digit))?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    };
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(8, 10)?, number(10, 12)?, number(12, 14)?);
    let zone = i64::from(i8::from_le_bytes([*field.get(16)?]));
    let sound = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61
        && year > 0;
    let local = days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second;
    sound.then_some(local - zone * QUARTER)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March have the leap day at their end.
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_in_seconds_with_their_zone() {
        assert_eq!(time(b"2011101411015400\0"), 1_318_590_114);
        assert_eq!(time(b"2011101411015450\x04"), 1_318_586_514);
        assert_eq!(time(b"1999123123595900\xec"), 946_702_799);
        assert_eq!(time(b"1970010100000000\0"), 0);
        assert_eq!(time(b"2000022900000000\0"), 951_782_400);
    }

    #[test]
    fn what_is_no_time_is_not_given() {
        for field in [
            &b"0000000000000000\0"[..],
            b"garbagegarbage00\0",
            b"2099999999999900\0",
            b"",
            &[0; 17],
        ] {
            assert_eq!(time(field), -1);
        }
    }

    #[test]
    fn texts_lose_what_they_are_padded_with() {
        let mut descriptor = [b' '; SIZE];
        descriptor[..6].copy_from_slice(b"\x01CD001");
        descriptor[40..44].copy_from_slice(b" A B");
        descriptor[80..84].copy_from_slice(&200u32.to_le_bytes());
        let info = primary_volume(&descriptor).unwrap();
        assert_eq!((info.volume_id, info.system_id), (" A B".into(), "".into()));
        assert_eq!(info.volume_space_size, 200);
        descriptor[0] = 2;
        assert_eq!(primary_volume(&descriptor), None);
    }

    proptest! {
        #[test]
        fn no_descriptor_makes_it_panic(noise in prop::collection::vec(any::<u8>(), SIZE)) {
            let mut descriptor: [u8; SIZE] = noise.try_into().unwrap();
            descriptor[..6].copy_from_slice(b"\x01CD001");
            assert!(primary_volume(&descriptor).is_some());
        }
    }
}
