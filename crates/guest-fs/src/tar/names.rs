// SPDX-License-Identifier: Apache-2.0
//! Names of users and groups that are the same on all systems, as this machine knows them.
//!
//! Others are those of the machine that runs the daemon, and nobody's in the guest: in an archive they would give
//! files to whoever has the name where it is unpacked.

use std::collections::HashMap;

/// The first number that systems give away by themselves (Debian Policy, 9.2.2).
const FIRST_OWN: u32 = 100;

/// Users or groups by number and by name.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_id: HashMap<u32, Vec<u8>>,
    by_name: HashMap<Vec<u8>, u32>,
}

impl Names {
    /// This machine's users.
    pub(super) fn users() -> Self {
        Self::parse(&std::fs::read("/etc/passwd").unwrap_or_default())
    }

    /// This machine's groups.
    pub(super) fn groups() -> Self {
        Self::parse(&std::fs::read("/etc/group").unwrap_or_default())
    }

    /// `NAME:PASSWORD:ID:...`, a line each; the first of several counts.
    fn parse(text: &[u8]) -> Self {
        let mut names = Self::default();
        for line in text.split(|&b| b == b'\n') {
            let mut fields = line.split(|&b| b == b':');
            let (Some(name), Some(id)) = (fields.next(), fields.nth(1)) else { continue };
            let id = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
            let Some(id) = id.filter(|id| *id < FIRST_OWN) else { continue };
            names.by_id.entry(id).or_insert_with(|| name.to_vec());
            names.by_name.entry(name.to_vec()).or_insert(id);
        }
        names
    }

    /// The name of this number, or nothing.
    pub(super) fn name(&self, id: u32) -> &[u8] {
        self.by_id.get(&id).map_or(b"", Vec::as_slice)
    }

    /// The number of this name.
    pub(super) fn id(&self, name: &[u8]) -> Option<u32> {
        self.by_name.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_only_this_machine_has_are_left_out() {
        let names =
            Names::parse(b"man:x:6:12:man:/:\nalice:x:1000:1000::/:\nsshd:x:104:65534::/:\n");
        assert_eq!((names.name(6), names.id(b"man")), (&b"man"[..], Some(6)));
        for (id, name) in [(1000, &b"alice"[..]), (104, b"sshd")] {
            assert_eq!((names.name(id), names.id(name)), (&b""[..], None));
        }
    }

    #[test]
    fn lines_that_make_no_sense_are_left_out() {
        let names = Names::parse(b"root:x:0:0:root:/:/bin/sh\n\n+\nx:y\nbad:x:n:1\ntoor:x:0:0\n");
        assert_eq!(
            (names.name(0), names.id(b"toor"), names.id(b"bad")),
            (&b"root"[..], Some(0), None)
        );
        assert_eq!(names.name(7), b"");
    }
}
