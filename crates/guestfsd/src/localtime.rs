// SPDX-License-Identifier: Apache-2.0
#![allow(unsafe_code)] // localtime_r has no safe wrapper.
//! Times of guests as this machine's programs write them: in its time zone.

/// Seconds since 1970 as `2026-11-29 09:56:02 +0000`; none for what has no date.
pub(crate) fn text(seconds: i64) -> Option<String> {
    let seconds = libc::time_t::try_from(seconds).ok()?;
    // SAFETY: zeros are a value of this structure of numbers and a pointer.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: it reads a number and writes a structure, both of which are there.
    let done = unsafe { libc::localtime_r(&raw const seconds, &raw mut tm) };
    if done.is_null() {
        return None;
    }
    let year = i64::from(tm.tm_year) + 1900;
    let zone = tm.tm_gmtoff / 60;
    let (sign, zone) = (if zone < 0 { '-' } else { '+' }, zone.abs());
    let (month, day, hour) = (tm.tm_mon + 1, tm.tm_mday, tm.tm_hour);
    let (minute, second) = (tm.tm_min, tm.tm_sec);
    let (zone_hours, zone_minutes) = (zone / 60, zone % 60);
    Some(format!(
        "{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} {sign}{zone_hours:02}{zone_minutes:02}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_its_zone_and_one_beyond_all_dates_is_none() {
        // Some hours after 1970 begins, at most a day off.
        let text = text(12 * 3600).unwrap();
        assert!(text.starts_with("1970-01-01 ") || text.starts_with("1970-01-02 "), "{text}");
        assert_eq!(text.len(), "1970-01-01 12:00:00 +0000".len());
        assert_eq!(super::text(i64::MAX), None);
    }
}
