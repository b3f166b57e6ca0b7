// SPDX-License-Identifier: Apache-2.0
//! What a program that failed has said of it, without what says nothing about it: its name and version, and how it
//! is to be called.

/// Most bytes of what a program wrote to standard output that are looked at: the last ones.
const MAX: usize = 64 << 10;

/// The lines that say what went wrong, of both outputs of the program `name`; empty if there are none. Standard
/// output counts if it is where the program `explains`, or else if standard error says nothing.
pub(super) fn of(name: &str, stdout: &[u8], stderr: &str, explains: bool) -> String {
    let stdout = String::from_utf8_lossy(&stdout[stdout.len().saturating_sub(MAX)..]);
    let (out, err) = (Said::of(&stdout), Said::of(stderr));
    let text = match (explains, err.lines.is_empty()) {
        // Its last words are on standard error.
        (true, false) => [out.lines, err.lines].concat().join("\n"),
        (false, false) => err.lines.join("\n"),
        (_, true) => out.lines.join("\n"),
    };
    let text = match text.trim() {
        "" => err.usage.or(out.usage).unwrap_or_default(),
        text => text,
    };
    // What a program says begins with its own name, as often as not.
    let own = text.strip_prefix(name).and_then(|rest| rest.strip_prefix(": "));
    own.unwrap_or(text).to_owned()
}

/// What is on one output.
struct Said<'t> {
    lines: Vec<&'t str>,
    /// The first line of how the program is to be called.
    usage: Option<&'t str>,
}

impl<'t> Said<'t> {
    fn of(text: &'t str) -> Self {
        let mut said = Self { lines: Vec::new(), usage: None };
        for (i, line) in text.trim().lines().map(str::trim_end).enumerate() {
            if line.get(..6).is_some_and(|word| word.eq_ignore_ascii_case("usage:")) {
                // All that follows belongs to it.
                said.usage = Some(line);
                break;
            }
            let is_hint = line.ends_with("for more information.");
            if is_hint || (i == 0 && is_version(line)) {
                continue;
            }
            said.lines.push(line);
        }
        while said.lines.last().is_some_and(|line| line.is_empty()) {
            said.lines.pop();
        }
        said
    }
}

/// `e2fsck 1.47.0 (5-Feb-2023)`, `btrfs-progs v6.2`, `fsck from util-linux 2.38.1`.
fn is_version(line: &str) -> bool {
    let line = line.replacen(" from ", "-", 1);
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    let version = words.next().unwrap_or_default();
    let version = version.strip_prefix('v').unwrap_or(version);
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    !program.is_empty()
        && program.chars().all(is_name)
        && version.contains('.')
        && version.split('.').all(|n| n.starts_with(|c: char| c.is_ascii_digit()))
        && words.next().is_none_or(|rest| rest.starts_with(['(', ':']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_on_standard_output_is_not_lost_when_the_other_has_something() {
        // e2fsck of a filesystem that is mounted.
        let stderr = "e2fsck 1.47.0 (5-Feb-2023)\ne2fsck: Cannot continue, aborting.\n\n\n";
        let stdout = b"/dev/sda is mounted.\n";
        let expected = "/dev/sda is mounted.\ne2fsck: Cannot continue, aborting.";
        assert_eq!(of("e2fsck", stdout, stderr, true), expected);
        // Where standard output is what the program makes, it is not part of the message.
        assert_eq!(of("e2fsck", stdout, stderr, false), "Cannot continue, aborting.");
    }

    #[test]
    fn a_usage_text_is_cut_to_the_line_that_says_what_was_wrong() {
        // mkfs.xfs
        let stderr = "Invalid value 77 for -b size option. Value is too small.\nUsage: mkfs.xfs\n\
            /* blocksize */\t\t[-b size=num]\n/* config file */\t[-c options=xxx]\n";
        let expected = "Invalid value 77 for -b size option. Value is too small.";
        assert_eq!(of("mkfs.xfs", b"", stderr, true), expected);
        // mkfs.fat: the reason is on the other output.
        let (stdout, stderr) =
            (b"mkfs.fat 4.2 (2021-01-31)\nBad FAT type : 99\n", "Usage: mkfs.vfat [OPTIONS]\nx\n");
        for explains in [true, false] {
            assert_eq!(of("mkfs.vfat", stdout, stderr, explains), "Bad FAT type : 99");
        }
        // mkntfs
        let (stdout, stderr) =
            (b"\nUsage: mkntfs [options] device\n\nBasic:\n", "Unknown option '-Z'.\n");
        assert_eq!(of("mkfs.ntfs", stdout, stderr, true), "Unknown option '-Z'.");
        // sfdisk
        let stderr = "sfdisk: invalid option -- 'Z'\nTry 'sfdisk --help' for more information.\n";
        assert_eq!(of("sfdisk", b"", stderr, false), "invalid option -- 'Z'");
    }

    #[test]
    fn where_there_is_nothing_else_the_first_line_of_the_usage_is_told() {
        assert_eq!(of("x", b"", "usage: x [-a] file\n  -a  all\n", false), "usage: x [-a] file");
        assert_eq!(of("x", b"", "\n", true), "");
    }

    #[test]
    fn names_with_versions_are_told_from_reasons() {
        for line in [
            "btrfs-progs v6.2",
            "fsck from util-linux 2.38.1",
            "ntfsresize v2022.10.3 (libntfs-3g)",
        ] {
            assert!(is_version(line), "{line}");
        }
        for line in ["Bad FAT type : 99", "disk 1.5 GiB is too small", "x: 1.2", "", "/dev/sda 1.0"]
        {
            assert!(!is_version(line), "{line}");
        }
    }
}
