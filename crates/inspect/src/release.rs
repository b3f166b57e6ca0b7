// SPDX-License-Identifier: Apache-2.0
//! The files by which a distribution says what it is: os-release, lsb-release, one line in a file of its own.
//!
//! Bytes of the guest come in, what they say goes out; nothing is looked up.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Major and minor version.
pub(crate) type Version = (i32, i32);

/// What a file says of the operating system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Release {
    /// The distribution's name for itself: `ID`, `DISTRIB_ID`.
    pub id: Option<Vec<u8>>,
    /// Those that it is like: words of `ID_LIKE`.
    pub like: Vec<Vec<u8>>,
    /// What people call it, version and all.
    pub product_name: Option<OsString>,
    /// `VARIANT`.
    pub variant: Option<OsString>,
    /// Its version.
    pub version: Option<Version>,
    /// Whether the file gives the minor version too: `7.0` does, `7` does not.
    pub has_minor: bool,
    /// `BUILD_ID`.
    pub build_id: Option<OsString>,
}

/// Variables of a file in which a shell would set them: `NAME=value`, `NAME="value"`.
pub(crate) fn variables(text: &[u8]) -> impl Iterator<Item = (&[u8], Vec<u8>)> {
    text.split(|&b| b == b'\n').filter_map(|line| {
        let line = line.trim_ascii();
        if line.starts_with(b"#") {
            return None;
        }
        let equals = line.iter().position(|&b| b == b'=')?;
        Some((&line[..equals], unquoted(&line[equals + 1..])))
    })
}

/// A shell's word without its quotes. What is not quoted is taken to the end of the line.
pub(crate) fn unquoted(value: &[u8]) -> Vec<u8> {
    let value = value.trim_ascii();
    match value {
        [b'\'', inner @ .., b'\''] => inner.to_vec(),
        [b'"', inner @ .., b'"'] => {
            let mut out = Vec::with_capacity(inner.len());
            let mut escaped = false;
            for &b in inner {
                escaped = b == b'\\' && !escaped;
                if !escaped {
                    out.push(b);
                }
            }
            out
        }
        plain => plain.to_vec(),
    }
}

/// os-release(5).
pub(crate) fn os_release(text: &[u8]) -> Release {
    let mut release = Release::default();
    let mut name = None;
    for (variable, value) in variables(text) {
        if value.is_empty() {
            continue;
        }
        match variable {
            b"ID" => release.id = Some(value.to_ascii_lowercase()),
            b"ID_LIKE" => {
                let words = value.split(|b| b.is_ascii_whitespace()).filter(|w| !w.is_empty());
                release.like = words.map(<[u8]>::to_ascii_lowercase).collect();
            }
            b"NAME" => name = Some(line(&value)),
            b"PRETTY_NAME" => release.product_name = Some(line(&value)),
            b"VARIANT" => release.variant = Some(line(&value)),
            b"BUILD_ID" => release.build_id = Some(line(&value)),
            b"VERSION_ID" => {
                release.version = version(&value);
                release.has_minor = release.version.is_some() && value.contains(&b'.');
            }
            _ => {}
        }
    }
    release.product_name = release.product_name.or(name);
    release
}

/// lsb-release.
pub(crate) fn lsb_release(text: &[u8]) -> Release {
    let mut release = Release::default();
    for (variable, value) in variables(text) {
        match variable {
            b"DISTRIB_ID" => release.id = Some(value.to_ascii_lowercase()),
            b"DISTRIB_RELEASE" => release.version = version(&value),
            b"DISTRIB_DESCRIPTION" => release.product_name = Some(line(&value)),
            _ => {}
        }
    }
    release
}

/// SuSE-release: a line with the name, then `VERSION = 11` and `PATCHLEVEL = 3`.
pub(crate) fn suse_release(text: &[u8]) -> Release {
    let mut release = one_line(text);
    let mut found = (None, None);
    for part in text.split(|&b| b == b'\n') {
        let Some(equals) = part.iter().position(|&b| b == b'=') else { continue };
        let value = part[equals + 1..].trim_ascii();
        match part[..equals].trim_ascii() {
            b"VERSION" => found.0 = version(value),
            b"PATCHLEVEL" => found.1 = version(value),
            _ => {}
        }
    }
    if let Some((major, minor)) = found.0 {
        release.version = Some((major, found.1.map_or(minor, |(level, _)| level)));
    }
    release
}

/// A file whose first line is the product's name with the version in it.
pub(crate) fn one_line(text: &[u8]) -> Release {
    let first = first_line(text);
    Release {
        product_name: (!first.is_empty()).then(|| line(first)),
        version: version_within(first),
        ..Release::default()
    }
}

/// The first line, without white space around it.
pub(crate) fn first_line(text: &[u8]) -> &[u8] {
    text.split(|&b| b == b'\n').next().unwrap_or_default().trim_ascii()
}

/// Text of the guest that will do as a reply's string.
pub(crate) fn line(text: &[u8]) -> OsString {
    /// No product has a longer name.
    const LONGEST: usize = 1024;
    let text = &text[..text.len().min(LONGEST)];
    OsString::from_vec(text.iter().copied().filter(|&b| b != 0 && b != b'\n').collect())
}

/// `12`, `22.04`, `38-beta`, `V10`: the numbers at the beginning, after at most a letter V.
pub(crate) fn version(text: &[u8]) -> Option<Version> {
    let text = text.trim_ascii();
    let text = text.strip_prefix(b"V").or_else(|| text.strip_prefix(b"v")).unwrap_or(text);
    let (major, rest) = number(text)?;
    let minor = rest.strip_prefix(b".").and_then(number).map_or(0, |(minor, _)| minor);
    Some((major, minor))
}

/// The version after the word `release`, or else the first word that begins like one; `Update 8` is a minor
/// version.
fn version_within(text: &[u8]) -> Option<Version> {
    let words = || {
        let ends = |b: &u8| b.is_ascii_whitespace() || matches!(b, b'-' | b'(' | b')');
        text.split(ends).filter(|w| !w.is_empty())
    };
    let mut after = words().skip_while(|w| *w != b"release").skip(1);
    let numbered = |w: &[u8]| {
        let w = w.strip_prefix(b"V").or_else(|| w.strip_prefix(b"v")).unwrap_or(w);
        w.first().is_some_and(u8::is_ascii_digit)
    };
    let found = after.next().and_then(version);
    let (major, minor) = found.or_else(|| words().find(|w| numbered(w)).and_then(version))?;
    let update = words().skip_while(|w| *w != b"Update").nth(1).and_then(version);
    Some((major, update.filter(|_| minor == 0).map_or(minor, |(update, _)| update)))
}

/// Decimal digits and what follows; none if there are none, or too many for a version.
pub(crate) fn number(text: &[u8]) -> Option<(i32, &[u8])> {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let value = std::str::from_utf8(&text[..end]).ok()?.parse().ok()?;
    Some((value, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_are_the_numbers_at_the_beginning() {
        for (text, expected) in [
            ("12", Some((12, 0))),
            ("22.04", Some((22, 4))),
            ("3.17.1", Some((3, 17))),
            ("38-beta", Some((38, 0))),
            ("V10", Some((10, 0))),
            ("20230101", Some((20_230_101, 0))),
            ("99999999999", None),
            ("sid", None),
            ("", None),
        ] {
            assert_eq!(version(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_version_is_found_in_a_line() {
        for (text, expected) in [
            ("Fedora release 17 (Beefy Miracle)", Some((17, 0))),
            ("Red Hat Enterprise Linux Server release 6.4 (Santiago)", Some((6, 4))),
            ("Red Hat Enterprise Linux AS release 4 (Nahant Update 8)", Some((4, 8))),
            ("target ttylinux-i686-13.0", Some((13, 0))),
            ("Slackware 13.37.0", Some((13, 37))),
            ("Kylin Linux V10", Some((10, 0))),
            ("release candidate 2", Some((2, 0))),
            ("Fedora release", None),
        ] {
            assert_eq!(one_line(text.as_bytes()).version, expected, "{text}");
        }
    }

    #[test]
    fn os_release_is_read_with_either_quotes_or_none() {
        let text =
            b"# c\nNAME=Fedora Linux\nID='fedora'\nVERSION_ID=38\nPRETTY_NAME=\"a \\\"b\\\"\"\n\
            VARIANT=\"Server Edition\"\nBUILD_ID=1.2\nID_LIKE=\"rhel centos\"\n";
        let release = os_release(text);
        assert_eq!(release.id.as_deref(), Some(&b"fedora"[..]));
        assert_eq!(release.product_name.unwrap(), "a \"b\"");
        assert_eq!(release.variant.unwrap(), "Server Edition");
        assert_eq!(release.build_id.unwrap(), "1.2");
        assert_eq!(release.version, Some((38, 0)));
        assert_eq!(release.like, [b"rhel".to_vec(), b"centos".to_vec()]);
    }

    #[test]
    fn a_patch_level_is_the_minor_version() {
        let text = b"SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\nPATCHLEVEL = 3\n";
        assert_eq!(suse_release(text).version, Some((11, 3)));
        assert_eq!(suse_release(b"openSUSE 11.2 (i586)\nVERSION = 11.2\n").version, Some((11, 2)));
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_do_no_harm(text: Vec<u8>) {
            os_release(&text);
            lsb_release(&text);
            suse_release(&text);
            let name = one_line(&text).product_name.unwrap_or_default();
            prop_assert!(!name.as_encoded_bytes().contains(&0));
        }
    }
}
