// SPDX-License-Identifier: Apache-2.0
//! What fills a device: a filesystem or a part of something larger, by the names that `blkid` has for it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

/// What was found on a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    tags: Vec<(String, OsString)>,
}

impl Contents {
    pub(crate) fn new(tags: Vec<(String, OsString)>) -> Self {
        Self { tags }
    }

    /// The type, as `blkid` names it: `ext4`, `swap`, `LVM2_member`, ...
    pub fn fstype(&self) -> &str {
        self.get("TYPE").and_then(OsStr::to_str).unwrap_or_default()
    }

    /// `filesystem`, `raid`, `crypto` or `other`.
    pub fn usage(&self) -> &str {
        self.get("USAGE").and_then(OsStr::to_str).unwrap_or_default()
    }

    /// The label, if it has one.
    pub fn label(&self) -> Option<&OsStr> {
        self.get("LABEL")
    }

    /// The UUID or serial number, if it has one.
    pub fn uuid(&self) -> Option<&OsStr> {
        self.get("UUID")
    }

    /// All that is known, by the names that `blkid` gives it, in its order.
    pub fn tags(&self) -> &[(String, OsString)] {
        &self.tags
    }

    fn get(&self, name: &str) -> Option<&OsStr> {
        self.tags.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_os_str())
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.tags.push((name.to_owned(), OsString::from_vec(value.into())));
        self
    }

    /// A tag that is left out when it is empty.
    pub(crate) fn with_text(self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        let value = value.into();
        if value.is_empty() { self } else { self.with(name, value) }
    }

    /// The type and what it is for, which come last.
    pub(crate) fn ending(self, fstype: &str, usage: &str) -> Self {
        self.with("TYPE", fstype).with("USAGE", usage)
    }
}
