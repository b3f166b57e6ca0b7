// SPDX-License-Identifier: Apache-2.0
//! The parameter list of FORMAT UNIT (SBC-4). In: bytes from the initiator. Out: whether to
//! answer at once. There are no defects to manage, no patterns and no protection information.

use crate::sense::Sense;

/// Whether IMMED is set: the status comes before the format is done. `long` is LONGLIST of the CDB.
///
/// # Errors
/// PARAMETER LIST LENGTH ERROR for a list shorter than its header; INVALID FIELD IN PARAMETER LIST
/// for one that asks for protection information, an initialization pattern, or defects.
pub fn immediate(list: &[u8], long: bool) -> Result<bool, Sense> {
    let (defects_at, defects) = match (long, list) {
        (false, [_, _, defects @ ..]) if defects.len() >= 2 => (2, &defects[..2]),
        (true, [_, _, _, _, defects @ ..]) if defects.len() >= 4 => (4, &defects[..4]),
        _ => return Err(Sense::PARAMETER_LIST_LENGTH_ERROR),
    };
    if list[0] & 0x07 != 0 {
        return Err(Sense::list_field(0, Some(2)));
    }
    // IP. Without FOV the other options must be zero, and with it they change nothing here.
    if list[1] & 0x08 != 0 {
        return Err(Sense::list_field(1, Some(3)));
    }
    if long && list[3] != 0 {
        return Err(Sense::list_field(3, Some(7)));
    }
    if defects.iter().any(|b| *b != 0) {
        return Err(Sense::list_field(defects_at, Some(7)));
    }
    Ok(list[1] & 0x02 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_of_defects_formats() {
        assert_eq!(immediate(&[0, 0x02, 0, 0], false), Ok(true));
        assert_eq!(immediate(&[0, 0x80, 0, 0], false), Ok(false));
        assert_eq!(immediate(&[0, 0x02, 0, 0, 0, 0, 0, 0], true), Ok(true));
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_its_place() {
        assert_eq!(immediate(&[2, 0, 0, 0], false), Err(Sense::list_field(0, Some(2))));
        assert_eq!(immediate(&[0, 0x88, 0, 0], false), Err(Sense::list_field(1, Some(3))));
        assert_eq!(immediate(&[0, 0, 0, 8], false), Err(Sense::list_field(2, Some(7))));
        let long = [0, 0, 0, 0, 0, 0, 0, 8];
        assert_eq!(immediate(&long, true), Err(Sense::list_field(4, Some(7))));
        assert_eq!(immediate(&long[..7], true), Err(Sense::PARAMETER_LIST_LENGTH_ERROR));
        assert_eq!(immediate(&[], false), Err(Sense::PARAMETER_LIST_LENGTH_ERROR));
    }
}
