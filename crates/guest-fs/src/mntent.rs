// SPDX-License-Identifier: Apache-2.0
//! Fields of tables of what is mounted: fstab(5), and the kernel's own.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// `a\040b` is `a b`: a field of mountinfo or of fstab (getmntent(3)).
pub fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| first == b'\\').and_then(|o| {
            o.iter().all(u8::is_ascii_digit).then_some(())?;
            u8::from_str_radix(std::str::from_utf8(o).ok()?, 8).ok()
        });
        match octal {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(first);
                rest = after;
            }
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backslash_that_escapes_nothing_stays() {
        assert_eq!(unescape(b"a\\b\\134"), "a\\b\\");
        assert_eq!(unescape(b"\\"), "\\");
    }
}
