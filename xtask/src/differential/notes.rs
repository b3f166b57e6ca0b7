// SPDX-License-Identifier: Apache-2.0
//! What is right to differ: `NAME.differs` beside `NAME.fish`. Reasons (`#`), and below each what
//! differs for it: lines of the distribution's daemon (`-`) and of ours (`+`), in any order.

/// How reasons begin of what is only so with no VM, or only in one.
const NO_VM: &str = "# No VM:";
const VM: &str = "# VM:";
/// The reason of what has been noted by the machine.
const UNKNOWN: &str = "# ?\n";

/// The notes of one script.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    groups: Vec<Group>,
}

/// What differs for one reason.
#[derive(Debug, Default, PartialEq, Eq)]
struct Group {
    /// As it stands there, with its `#`.
    reason: String,
    lines: Vec<String>,
}

impl Notes {
    /// Reads the file.
    pub(super) fn parse(text: &str) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for line in text.lines() {
            let begins = line.starts_with('#');
            let continues = groups.last().is_some_and(|group| !begins || group.lines.is_empty());
            if !continues {
                groups.push(Group::default());
            }
            let Some(group) = groups.last_mut() else { continue };
            if begins {
                group.reason += &format!("{line}\n");
            } else if line.starts_with(['-', '+']) {
                group.lines.push(line.to_owned());
            }
        }
        Self { groups }
    }

    /// Those that hold in a VM, or with none.
    pub(super) fn that_hold(mut self, in_vm: bool) -> Self {
        let not_here = if in_vm { NO_VM } else { VM };
        self.groups.retain(|group| !group.reason.starts_with(not_here));
        self
    }

    /// Lines that stand below no reason.
    pub(super) fn without_reason(&self) -> Vec<&str> {
        let unknown = |group: &&Group| group.reason.is_empty() || group.reason == UNKNOWN;
        self.groups
            .iter()
            .filter(unknown)
            .flat_map(|g| g.lines.iter().map(String::as_str))
            .collect()
    }

    /// What is to be said of what differs: what is not noted, what has no reason, what is no longer so.
    pub(super) fn complaints(&self, differences: &[String]) -> String {
        let mut noted: Vec<&str> =
            self.groups.iter().flat_map(|group| group.lines.iter().map(String::as_str)).collect();
        let mut text = String::new();
        for line in differences {
            match noted.iter().position(|known| known == line) {
                Some(at) => drop(noted.remove(at)),
                None => text += &format!("{line}\n"),
            }
        }
        for line in noted {
            text += &format!("no longer so: {line}\n");
        }
        for line in self.without_reason() {
            text += &format!("no reason for: {line}\n");
        }
        text
    }

    /// The file for what differs now with no VM: each line below its reason, and below `# ?` if it had none.
    pub(super) fn updated(mut self, differences: &[String]) -> String {
        let mut fresh = Vec::new();
        let of_vm: Vec<Group> =
            self.groups.extract_if(.., |group| group.reason.starts_with(VM)).collect();
        let mut kept: Vec<Group> = self
            .groups
            .iter()
            .map(|g| Group { reason: g.reason.clone(), lines: Vec::new() })
            .collect();
        for line in differences {
            let home = self.groups.iter_mut().enumerate().find_map(|(n, group)| {
                let at = group.lines.iter().position(|known| known == line)?;
                group.lines.remove(at);
                Some(n)
            });
            match home.and_then(|n| kept.get_mut(n)) {
                Some(group) => group.lines.push(line.clone()),
                None => fresh.push(line.clone()),
            }
        }
        kept.extend(of_vm);
        kept.push(Group { reason: UNKNOWN.to_owned(), lines: fresh });
        kept.retain(|group| !group.lines.is_empty());
        let text = |group: &Group| {
            let lines: String = group.lines.iter().map(|line| format!("{line}\n")).collect();
            format!("{}{lines}", group.reason)
        };
        kept.iter().map(text).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# ours is right\n# (so says the manual)\n-a\n+b\n\n# texts\n-c\n";

    fn lines(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_differs_as_noted_is_no_cause_for_complaint() {
        let notes = Notes::parse(FILE);
        assert_eq!(notes.complaints(&lines("-c -a +b")), "");
        assert_eq!(notes.complaints(&lines("-c -a +b +b")), "+b\n");
        assert_eq!(notes.complaints(&lines("-a +b")), "no longer so: -c\n");
    }

    #[test]
    fn a_note_needs_a_reason() {
        assert_eq!(Notes::parse("-a\n").complaints(&lines("-a")), "no reason for: -a\n");
        assert_eq!(Notes::parse("# ?\n-a\n").complaints(&lines("-a")), "no reason for: -a\n");
    }

    #[test]
    fn what_is_only_so_in_a_vm_or_without_is_not_to_be_seen_elsewhere() {
        let notes = |in_vm| {
            let text = "# No VM: no devices\n-a\n\n# VM: udev\n-b\n\n# texts\n-c\n";
            Notes::parse(text).that_hold(in_vm)
        };
        assert_eq!(notes(false).complaints(&lines("-a -c")), "");
        assert_eq!(notes(true).complaints(&lines("-b -c")), "");
        assert_eq!(notes(true).complaints(&lines("-a -b -c")), "-a\n");
    }

    #[test]
    fn an_update_keeps_the_reasons() {
        assert_eq!(Notes::parse(FILE).updated(&lines("-a +b -c")), FILE);
        assert_eq!(
            Notes::parse(FILE).updated(&lines("+b +d")),
            "# ours is right\n# (so says the manual)\n+b\n\n# ?\n+d\n"
        );
        assert_eq!(Notes::parse(FILE).updated(&[]), "");
        let of_vm = "# VM: udev\n-b\n";
        assert_eq!(Notes::parse(of_vm).updated(&[]), of_vm);
    }
}
