// SPDX-License-Identifier: Apache-2.0
//! Whether the scripts call every procedure that they can.

use guestfs_api::{PROCEDURES, Procedure};

/// Procedures that guestfsd does not have, one a line.
const LATER: &str = include_str!("../../../crates/guestfsd/not-yet-done.txt");

/// Procedures that guestfish has no command for, and by which command its library calls them.
const BY_ANOTHER: [(&str, &str); 10] = [
    ("internal_autosync", "run"),
    ("internal_feature_available", "feature_available"),
    ("internal_list_rpm_applications", "inspect_list_applications2"),
    ("internal_lstatnslist", "lstatnslist"),
    ("internal_lxattrlist", "lxattrlist"),
    ("internal_parse_mountable", "list_filesystems"),
    ("internal_readdir", "readdir"),
    ("internal_readlinklist", "readlinklist"),
    ("internal_write", "write"),
    ("internal_write_append", "write_append"),
];

/// Procedures that no script calls, and why.
const NOT_BY_SCRIPTS: [(&str, &str); 3] = [
    ("internal_exit", "ends the daemon; protocol tests call it"),
    ("internal_rhbz914931", "crashes a thread of the distribution's daemon; no command calls it"),
    ("internal_upload", "no command of guestfish 1.48 calls it; debug_upload is the same"),
];

/// The last release whose client is the scripts': later procedures are unknown to it.
const CLIENT: (u32, u32) = (1, 48);

/// Complaints about procedures that no script calls, and about what the tables here say in vain.
pub(super) fn missing<'t>(scripts: impl Iterator<Item = &'t str>) -> Vec<String> {
    let mut called: Vec<String> = scripts
        .flat_map(str::lines)
        .map(|line| line.trim_start_matches('-').split(' ').next().unwrap_or_default())
        .map(|command| command.replace('-', "_").to_ascii_lowercase())
        .collect();
    called.sort();
    called.dedup();
    let is_called = |name: &str| called.binary_search(&name.to_ascii_lowercase()).is_ok();
    let mut lines = Vec::new();
    for p in PROCEDURES {
        let excused = NOT_BY_SCRIPTS.iter().any(|(name, _)| *name == p.name);
        let name = BY_ANOTHER.iter().find(|(name, _)| *name == p.name).map_or(p.name, |by| by.1);
        match (is_called(name), excused) {
            (false, false) if is_callable(&p) => {
                lines.push(format!("no script of tests/guestfs calls {}", p.name));
            }
            (true, true) => lines.push(format!("{} is called by a script after all", p.name)),
            _ => {}
        }
    }
    lines
}

/// Whether guestfsd has the procedure and the client knows it.
fn is_callable(p: &Procedure) -> bool {
    let mut numbers = p.since.split('.').map(|n| n.parse().unwrap_or(0));
    let since = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    since <= CLIENT && !LATER.lines().any(|name| name == p.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_in_all_their_spellings() {
        let script = "# comment\nlist-devices\n-mount-ro /dev/sda /\nlstatnslist / x | cat";
        let missing = missing([script].into_iter());
        let complains = |name: &str| missing.iter().any(|l| l.ends_with(&format!(" {name}")));
        assert!(!complains("list_devices") && !complains("mount_ro"));
        assert!(!complains("internal_lstatnslist"));
        assert!(complains("mount") && complains("sfdisk_N"));
        assert!(!complains("sh_out") && !complains("internal_exit"));
    }

    #[test]
    fn the_names_in_the_tables_are_procedures() {
        let names = BY_ANOTHER.iter().chain(&NOT_BY_SCRIPTS).map(|(name, _)| name);
        for name in names {
            assert!(PROCEDURES.iter().any(|p| p.name == *name), "{name}");
        }
    }
}
