// SPDX-License-Identifier: Apache-2.0
//! Names where upper and lower case do not matter: on filesystems of Windows and DOS, in registries.

use rustix::fs::Dir;
use rustix::io::Result;

/// Whether two names are the same except for case: letters of any alphabet where both are UTF-8, else of ASCII.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    if a.eq_ignore_ascii_case(b) {
        return true;
    }
    match (std::str::from_utf8(a), std::str::from_utf8(b)) {
        // A letter may be two in lower case, so that lengths say nothing.
        (Ok(a), Ok(b)) => {
            a.chars().flat_map(char::to_lowercase).eq(b.chars().flat_map(char::to_lowercase))
        }
        _ => false,
    }
}

/// The name in a directory that is this one, or else one that is the same except for case.
pub fn find(dir: Dir, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut found = None;
    for entry in dir {
        let entry = entry?;
        let here = entry.file_name().to_bytes();
        if here == name {
            return Ok(Some(name.to_vec()));
        }
        if same(here, name) {
            found = Some(here.to_vec());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_does_not_matter_in_any_alphabet() {
        for (a, b) in [("SYSTEM32", "System32"), ("\u{c4}rger", "\u{e4}RGER"), ("", "")] {
            assert!(same(a.as_bytes(), b.as_bytes()), "{a} {b}");
        }
        assert!(same(b"\xffA", b"\xffa"));
        for (a, b) in [("a", "b"), ("a", "ab"), ("\u{e4}", "a")] {
            assert!(!same(a.as_bytes(), b.as_bytes()), "{a} {b}");
        }
    }

    #[test]
    fn the_very_name_comes_before_others() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["ABC", "abc", "Abc"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let open = || Dir::new(std::fs::File::open(dir.path()).unwrap()).unwrap();
        assert_eq!(find(open(), b"abc").unwrap().unwrap(), b"abc");
        assert!(find(open(), b"aBC").unwrap().is_some());
        assert_eq!(find(open(), b"abd").unwrap(), None);
    }
}
