// SPDX-License-Identifier: Apache-2.0
//! The descriptor of a VMDK: a text that says of which files ("extents") the disk consists. It is a
//! file of its own, or part of a sparse extent. The source: "VMware Virtual Disks, Virtual Disk
//! Format 5.0".
//!
//! Names of files are bytes, of whatever encoding the descriptor says that it is; all else is ASCII.
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::super::reader::{invalid_text as invalid, unserved};
use crate::ErrorKind;

/// How a descriptor's file begins.
pub(super) const MAGIC: &[u8] = b"# Disk DescriptorFile";
/// Longer ones are refused, in bytes.
pub(super) const MAX_LEN: u64 = 1 << 20;
/// Each is an open file.
const MAX_EXTENTS: usize = 1024;
/// The types whose extents are files of these formats, and not disks of the host.
const TYPES: [&str; 5] =
    ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "vmfs"];

/// What an extent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The bytes as they are, from an offset (in bytes) of the file.
    Flat { file: OsString, offset: u64 },
    /// A sparse extent.
    Sparse { file: OsString },
    /// No file: zeroes.
    Zero,
}

/// A line that describes an extent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// In bytes, not 0.
    pub(super) len: u64,
    pub(super) kind: Kind,
}

/// The value of `key`, where a line sets it.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        let value = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case(key).then_some(value)
    })
}

/// Refuses an image that is a difference to another one.
pub(super) fn refuse_parent(bytes: &[u8]) -> Result<(), ErrorKind> {
    let text = &*String::from_utf8_lossy(bytes);
    match value(text, "parentCID") {
        None => Ok(()),
        Some(none) if none.eq_ignore_ascii_case("ffffffff") => Ok(()),
        Some(parent) => {
            let hint = value(text, "parentFileNameHint").unwrap_or("unknown");
            Err(unserved(format!(
                "VMDK: parentCID {}: it is a snapshot, of the image \"{}\", which is not supported; \
                 qemu-img convert -O qcow2 makes a whole image of it",
                parent.escape_debug(),
                hint.escape_debug()
            )))
        }
    }
}

/// The extents of a descriptor, in their order.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Extent>, ErrorKind> {
    refuse_parent(bytes)?;
    let text = &*String::from_utf8_lossy(bytes);
    let kind = value(text, "createType").unwrap_or("missing");
    if !TYPES.iter().any(|known| known.eq_ignore_ascii_case(kind)) {
        return Err(unserved(format!(
            "VMDK: createType {}: it cannot be served; {} can: qemu-img convert makes one",
            kind.escape_debug(),
            TYPES.join(", ")
        )));
    }
    let mut extents = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        let access = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        if !matches!(access, b"RW" | b"RDONLY" | b"NOACCESS") {
            continue;
        }
        if extents.len() == MAX_EXTENTS {
            return Err(unserved(format!(
                "VMDK: it has more than {MAX_EXTENTS} extents; qemu-img convert makes one of them"
            )));
        }
        let what = format!("VMDK: the extent \"{}\"", line.escape_ascii());
        let extent = parse_line(line).map_err(|kind| match kind {
            ErrorKind::Invalid(why) => invalid(format!("{what}: {why}")),
            ErrorKind::Unsupported(why) => unserved(format!("{what}: {why}")),
            other => other,
        })?;
        extents.push(extent);
    }
    if extents.is_empty() {
        return Err(invalid("VMDK: its descriptor names no extents"));
    }
    Ok(extents)
}

/// `RW 8323072 SPARSE "disk-s001.vmdk"`, `RW 63 FLAT "disk-flat.vmdk" 0`, `RW 512 ZERO`.
fn parse_line(line: &[u8]) -> Result<Extent, ErrorKind> {
    let mut parts = line.splitn(3, |byte| *byte == b'"').map(String::from_utf8_lossy);
    let words = parts.next().unwrap_or_default();
    let name = line.split(|byte| *byte == b'"').nth(1);
    let after = parts.nth(1);
    let words: Vec<_> = words.split_ascii_whitespace().collect();
    let [access, sectors, kind] = words[..] else {
        return Err(invalid("it has to be ACCESS SECTORS TYPE \"FILE\" OFFSET"));
    };
    if access == "NOACCESS" {
        return Err(invalid("its access is NOACCESS"));
    }
    let bytes = |text: &str| {
        let n = text.parse::<u64>().ok().and_then(|n| n.checked_mul(512));
        n.filter(|n| i64::try_from(*n).is_ok())
            .ok_or_else(|| invalid(format!("{text} is not a number of sectors")))
    };
    let len = bytes(sectors)?;
    if len == 0 {
        return Err(invalid("it has no sectors"));
    }
    let after = after.as_deref().map(str::trim);
    let file = match name {
        Some(name) => {
            let after = after.ok_or_else(|| invalid("a quotation mark is missing"))?;
            if name.is_empty() || name.contains(&0) {
                return Err(invalid("the name of its file is wrong"));
            }
            Some((OsString::from_vec(name.to_vec()), after))
        }
        None => None,
    };
    let kind = match (kind, file) {
        ("ZERO", None) => Kind::Zero,
        ("FLAT", Some((file, offset))) => Kind::Flat { file, offset: bytes(offset)? },
        ("VMFS", Some((file, ""))) => Kind::Flat { file, offset: 0 },
        ("VMFS", Some((file, offset))) => Kind::Flat { file, offset: bytes(offset)? },
        ("SPARSE", Some((file, ""))) => Kind::Sparse { file },
        ("ZERO" | "FLAT" | "VMFS" | "SPARSE", _) => {
            return Err(invalid("what follows its type is wrong"));
        }
        (other, _) => {
            return Err(unserved(format!(
                "extents of type {other} cannot be served; FLAT, VMFS, SPARSE and ZERO can: qemu-img \
                 convert makes them"
            )));
        }
    };
    Ok(Extent { len, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n";

    fn parse_with(kind: &str, lines: &str) -> Result<Vec<Extent>, String> {
        let text = format!("{HEAD}createType=\"{kind}\"\n{lines}\nddb.adapterType = \"ide\"\n");
        parse(text.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn each_type_of_extent_is_understood() {
        let flat = |file: &str, offset| Kind::Flat { file: file.into(), offset };
        let lines = "RW 2 FLAT \"a b-f001.vmdk\" 3\r\nRDONLY 1 ZERO\nRW 4 SPARSE \"x.vmdk\"\nRW 5 VMFS \"y\"";
        let want = [
            Extent { len: 1024, kind: flat("a b-f001.vmdk", 1536) },
            Extent { len: 512, kind: Kind::Zero },
            Extent { len: 2048, kind: Kind::Sparse { file: "x.vmdk".into() } },
            Extent { len: 2560, kind: flat("y", 0) },
        ];
        assert_eq!(parse_with("twoGbMaxExtentFlat", lines).unwrap(), want);
    }

    #[test]
    fn a_name_may_have_any_bytes_but_zero_and_quotation_marks() {
        let line = b"RW 2 FLAT \"caf\xe9\\ =.vmdk\" 3\r\n";
        let text = [HEAD.as_bytes(), b"createType=\"monolithicFlat\"\n", line].concat();
        let file = OsString::from_vec(b"caf\xe9\\ =.vmdk".to_vec());
        let kind = Kind::Flat { file, offset: 1536 };
        assert_eq!(parse(&text).unwrap(), [Extent { len: 1024, kind }]);
        let text = [HEAD.as_bytes(), b"createType=\"vmfs\"\nRW 2 FLA\xff \"a\" 3\n"].concat();
        let e = parse(&text).unwrap_err().to_string();
        assert!(e.contains("FLA\\xff") && e.contains("cannot be served"), "{e}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (lines, text) in [
            ("", "names no extents"),
            ("RW x FLAT \"a\" 0", "x is not a number of sectors"),
            ("RW 0 FLAT \"a\" 0", "it has no sectors"),
            ("RW 36028797018963968 FLAT \"a\" 0", "is not a number of sectors"),
            ("RW 1 FLAT \"a", "a quotation mark is missing"),
            ("RW 1 FLAT \"\" 0", "the name of its file is wrong"),
            ("RW 1 FLAT", "what follows its type is wrong"),
            ("RW 1 ZERO \"a\"", "what follows its type is wrong"),
            ("RW 1", "it has to be ACCESS SECTORS TYPE"),
            ("NOACCESS 1 FLAT \"a\" 0", "its access is NOACCESS"),
            ("RW 1 SESPARSE \"a\"", "extents of type SESPARSE cannot be served"),
            ("RW 1 FLAT \"a\" -1", "-1 is not a number of sectors"),
        ] {
            let e = parse_with("monolithicFlat", lines).unwrap_err();
            assert!(e.contains(text), "{lines}: {e}");
        }
        let e = parse_with("fullDevice", "RW 1 FLAT \"/dev/sda\" 0").unwrap_err();
        assert!(e.contains("createType fullDevice: it cannot be served"), "{e}");
        let many = "RW 1 ZERO\n".repeat(MAX_EXTENTS + 1);
        let e = parse_with("monolithicFlat", &many).unwrap_err();
        assert!(e.contains("more than 1024 extents"), "{e}");
    }

    #[test]
    fn a_snapshot_is_refused_with_its_parent() {
        let text =
            "parentCID=12345678\nparentFileNameHint=\"base.vmdk\"\ncreateType=\"monolithicSparse\"";
        let e = parse(text.as_bytes()).unwrap_err().to_string();
        assert!(e.contains("parentCID 12345678") && e.contains("\"base.vmdk\""), "{e}");
    }
}
