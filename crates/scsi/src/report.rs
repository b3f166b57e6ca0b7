// SPDX-License-Identifier: Apache-2.0
//! Answers that are the same for every device: REPORT LUNS, REPORT SUPPORTED TASK MANAGEMENT
//! FUNCTIONS, READ DEFECT DATA, LOG SENSE and REQUEST SENSE.

use crate::answer::Answer;
use crate::sense::Sense;

/// REPORT LUNS (SPC-4 6.33) of a target with LUN 0 alone. `select` 1 asks for well known logical
/// units, of which there are none.
pub fn luns(select: u8) -> Answer {
    let mut a = Answer::new();
    if select == 1 {
        a.zeroes(8);
    } else {
        a.be32(8);
        a.zeroes(4 + 8);
    }
    a
}

/// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 6.36): ABORT TASK and LOGICAL UNIT RESET,
/// which are what the kernel's target does. The extended answer tells no time-outs.
pub fn task_management(extended: bool) -> Answer {
    let mut a = Answer::new();
    if extended {
        a.bytes(&[0x88, 0, 0, 12]);
        a.zeroes(12);
    } else {
        a.bytes(&[0x88, 0, 0, 0]);
    }
    a
}

/// READ DEFECT DATA (10) and (12) (SBC-4): the lists that were asked for, in the format
/// that was asked for, both empty.
pub fn defect_data(twelve: bool, primary: bool, grown: bool, format: u8) -> Answer {
    let flags = u8::from(primary) << 4 | u8::from(grown) << 3 | format & 7;
    let mut a = Answer::new();
    a.bytes(&[0, flags, 0, 0]);
    if twelve {
        a.zeroes(4);
    }
    a
}

/// LOG SENSE (SPC-4 6.8) of the lists of pages, which list nothing but themselves.
///
/// # Errors
/// INVALID FIELD IN CDB for any other page.
pub fn log_page(page: u8, subpage: u8) -> Result<Answer, Sense> {
    let mut a = Answer::new();
    match (page, subpage) {
        (0x00, 0x00) => a.bytes(&[0x00, 0x00, 0, 1, 0x00]),
        (0x00, 0xff) => a.bytes(&[0x40, 0xff, 0, 4, 0x00, 0x00, 0x00, 0xff]),
        (0x00, _) => return Err(Sense::cdb_field(3, Some(7))),
        _ => return Err(Sense::cdb_field(2, Some(5))),
    }
    Ok(a)
}

/// REQUEST SENSE (SPC-4 6.39).
pub fn sense(sense: &Sense, descriptor: bool) -> Answer {
    let mut a = Answer::new();
    a.bytes(&if descriptor { sense.descriptor() } else { sense.fixed() });
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_luns_tells_lun_0_and_no_well_known_one() {
        assert_eq!(luns(0)[..], [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(luns(2), luns(0));
        assert_eq!(luns(1)[..], [0; 8]);
    }

    #[test]
    fn abort_task_and_lun_reset_are_reported() {
        assert_eq!(task_management(false)[..], [0x88, 0, 0, 0]);
        let extended = task_management(true);
        assert_eq!((extended.len(), extended[3]), (16, 12));
    }

    #[test]
    fn defect_lists_are_empty_and_of_the_kind_asked_for() {
        assert_eq!(defect_data(false, true, false, 5)[..], [0, 0x15, 0, 0]);
        assert_eq!(defect_data(true, true, true, 4)[..], [0, 0x1c, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn log_sense_lists_its_own_pages_and_refuses_others() {
        assert_eq!(log_page(0, 0).unwrap()[..], [0, 0, 0, 1, 0]);
        assert_eq!(log_page(0, 0xff).unwrap()[..], [0x40, 0xff, 0, 4, 0, 0, 0, 0xff]);
        assert_eq!(log_page(0, 1), Err(Sense::cdb_field(3, Some(7))));
        assert_eq!(log_page(0x2f, 0), Err(Sense::cdb_field(2, Some(5))));
    }

    #[test]
    fn request_sense_answers_in_either_format() {
        assert_eq!(sense(&Sense::NO_SENSE, false)[0], 0x70);
        assert_eq!(sense(&Sense::NO_SENSE, true)[0], 0x72);
    }
}
