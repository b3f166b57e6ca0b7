// SPDX-License-Identifier: Apache-2.0
//! fstab(5): bytes of the guest in, entries out.

use crate::machine::Tag;
use guest_fs::mntent::unescape;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Most entries that are taken: no machine has more.
const MAX_ENTRIES: usize = 1024;

/// A line of fstab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What is mounted.
    pub spec: Spec,
    /// Where; absolute, or something else for what is not mounted.
    pub mountpoint: OsString,
    /// As what.
    pub fstype: OsString,
    /// Options.
    pub options: OsString,
}

/// How a line names what is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Spec {
    /// By what is on it.
    Tag(Tag),
    /// A path, in /dev as a rule.
    Path(OsString),
}

impl Entry {
    /// Whether it is swap space.
    pub(crate) fn is_swap(&self) -> bool {
        self.fstype == "swap" || self.mountpoint == "swap"
    }

    /// The value of an option `name=value`.
    pub(crate) fn option(&self, name: &str) -> Option<&OsStr> {
        self.options.as_bytes().split(|&b| b == b',').find_map(|option| {
            let value = option.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(OsStr::from_bytes(value))
        })
    }
}

/// The entries. Lines that make no sense are left out, as mount(8) does.
pub(crate) fn parse(text: &[u8]) -> Vec<Entry> {
    text.split(|&b| b == b'\n').filter_map(entry).take(MAX_ENTRIES).collect()
}

fn entry(line: &[u8]) -> Option<Entry> {
    let line = line.trim_ascii();
    if line.starts_with(b"#") {
        return None;
    }
    let mut fields = line.split(|b| b.is_ascii_whitespace()).filter(|f| !f.is_empty());
    let spec = spec(fields.next()?)?;
    let mountpoint = unescape(fields.next()?);
    let fstype = unescape(fields.next().unwrap_or(b"auto"));
    let options = unescape(fields.next().unwrap_or(b"defaults"));
    let whole = ![&mountpoint, &fstype, &options].iter().any(|f| f.as_bytes().contains(&0));
    whole.then_some(Entry { spec, mountpoint, fstype, options })
}

/// Makes a tag of its value.
type Make = fn(OsString) -> Tag;

fn spec(field: &[u8]) -> Option<Spec> {
    const TAGS: &[(&[u8], Make)] = &[
        (b"UUID=", Tag::Uuid),
        (b"LABEL=", Tag::Label),
        (b"PARTUUID=", Tag::PartUuid),
        (b"PARTLABEL=", Tag::PartLabel),
        // What udev makes of the same.
        (b"/dev/disk/by-uuid/", Tag::Uuid),
        (b"/dev/disk/by-label/", Tag::Label),
        (b"/dev/disk/by-partuuid/", Tag::PartUuid),
        (b"/dev/disk/by-partlabel/", Tag::PartLabel),
    ];
    let field = unescape(field);
    let bytes = field.as_bytes();
    if bytes.contains(&0) {
        return None;
    }
    for (begin, make) in TAGS {
        if let Some(value) = bytes.strip_prefix(*begin) {
            let value = OsString::from_vec(super::release::unquoted(value));
            return (!value.is_empty()).then(|| Spec::Tag(make(value)));
        }
    }
    Some(Spec::Path(field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_are_read() {
        let text = b"# comment\n\nUUID=\"a-b\" / ext4 defaults 0 1\n/dev/sda2\t/a\\040b\txfs\n\
            LABEL=x none swap sw\n/dev/disk/by-uuid/c-d /home btrfs ro,subvol=home,x 0 0\nbroken\n";
        let entries = parse(text);
        assert_eq!(entries.len(), 4);
        assert_eq!(entries[0].spec, Spec::Tag(Tag::Uuid("a-b".into())));
        assert_eq!(entries[1].spec, Spec::Path("/dev/sda2".into()));
        assert_eq!(entries[1].mountpoint, "/a b");
        assert!(entries[2].is_swap() && !entries[0].is_swap());
        assert_eq!(entries[3].spec, Spec::Tag(Tag::Uuid("c-d".into())));
        assert_eq!(entries[3].option("subvol"), Some(OsStr::new("home")));
        assert_eq!(entries[3].option("sub"), None);
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_do_no_harm(text: Vec<u8>) {
            for entry in parse(&text) {
                prop_assert!(!entry.mountpoint.as_bytes().contains(&0));
                entry.option("subvol");
            }
        }

        #[test]
        fn lines_of_any_words_do_no_harm(text in "([-\\\\=/a-zA-Z0-9#,\" \t]{0,40}\n){0,8}") {
            parse(text.as_bytes());
        }
    }
}
