// SPDX-License-Identifier: Apache-2.0
//! Suites of `tests/vm` that run once more in another way: with a handler written in C in the place
//! of what is built in, on two CPUs, or on another kernel. What a handler is expected to fail stands in
//! `tests/vm/handler_SUBTYPE.expected`, each check with its reason; `tests/vm/lib.sh` reads it.

use std::path::PathBuf;

use anyhow::Result;

use super::{Options, When};
use crate::install;

/// A suite, and another way to run it.
pub(super) struct Variant {
    /// The suite's name.
    pub(super) suite: &'static str,
    way: Way,
    when: When,
}

enum Way {
    /// A handler serves its subtype.
    Handler(&'static Handler),
    /// On the distribution's usual kernel and two CPUs, where User-Mode Linux has one.
    Qemu,
    /// A kernel whose version begins so.
    Kernel(&'static str),
}

/// A handler of a Debian package.
pub(super) struct Handler {
    pub(super) subtype: &'static str,
    file: &'static str,
}

/// Debian's handler of qcow2 images.
const QCOW: Handler = Handler { subtype: "qcow", file: "handler_qcow.so" };
/// The kernel of Debian 12's archive of security updates that is not its usual one.
const NEWER: &str = "6.12";

/// The longest first.
#[rustfmt::skip]
pub(super) const VARIANTS: &[Variant] = &[
    Variant { suite: "life-qcow", way: Way::Qemu,           when: When::Full },
    Variant { suite: "data",      way: Way::Qemu,           when: When::Full },
    Variant { suite: "life-file", way: Way::Qemu,           when: When::Full },
    Variant { suite: "plugin",    way: Way::Qemu,           when: When::Full },
    Variant { suite: "isolation", way: Way::Qemu,           when: When::Full },
    Variant { suite: "faults",    way: Way::Qemu,           when: When::Full },
    Variant { suite: "many",      way: Way::Qemu,           when: When::Full },
    Variant { suite: "scsi-qcow", way: Way::Qemu,           when: When::Full },
    Variant { suite: "scsi-qcow", way: Way::Handler(&QCOW), when: When::Always },
    Variant { suite: "data",      way: Way::Handler(&QCOW), when: When::Full },
    Variant { suite: "life-qcow", way: Way::Handler(&QCOW), when: When::Full },
    Variant { suite: "targetcli", way: Way::Handler(&QCOW), when: When::Full },
    Variant { suite: "data",      way: Way::Kernel(NEWER),  when: When::Full },
    Variant { suite: "life-qcow", way: Way::Kernel(NEWER),  when: When::Full },
    Variant { suite: "scsi-qcow", way: Way::Kernel(NEWER),  when: When::Full },
    Variant { suite: "plugin",    way: Way::Kernel(NEWER),  when: When::Full },
    Variant { suite: "faults",    way: Way::Kernel(NEWER),  when: When::Full },
    Variant { suite: "targetcli", way: Way::Kernel(NEWER),  when: When::Full },
    Variant { suite: "refusals",  way: Way::Kernel(NEWER),  when: When::Full },
    Variant { suite: "libtcmu",   way: Way::Kernel(NEWER),  when: When::Full },
];

impl Variant {
    /// The suite's name and the way.
    pub(super) fn name(&self) -> String {
        let way = match &self.way {
            Way::Handler(_) => "handler",
            Way::Qemu => "qemu",
            Way::Kernel(version) => version,
        };
        format!("{}@{way}", self.suite)
    }

    /// Whether it is to run. A kernel that somebody has chosen is the only one.
    pub(super) fn is_wanted(&self, options: &Options) -> bool {
        let name = self.name();
        let is_named = options.only.iter().any(|only| only.contains('@') && name.contains(only));
        let is_due = options.only.is_empty() && (options.full || self.when == When::Always);
        (is_named || is_due) && (self.kernel().is_none() || options.kernel.is_none())
    }

    pub(super) fn kernel(&self) -> Option<&'static str> {
        match &self.way {
            Way::Handler(_) | Way::Qemu => None,
            Way::Kernel(version) => Some(version),
        }
    }

    pub(super) fn in_qemu(&self) -> bool {
        matches!(self.way, Way::Qemu)
    }

    pub(super) fn handler(&self) -> Option<&'static Handler> {
        match &self.way {
            Way::Handler(handler) => Some(handler),
            Way::Qemu | Way::Kernel(_) => None,
        }
    }
}

impl Handler {
    /// A directory with this handler and no other.
    pub(super) fn directory(&self) -> Result<PathBuf> {
        install::unpacked::plugin(self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Job, SUITES};
    use super::*;
    use crate::run;

    fn wanted(arguments: &[&str]) -> Vec<String> {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            options: Options,
        }
        let line = ["test"].iter().chain(arguments);
        let options = <Line as clap::Parser>::parse_from(line).options;
        VARIANTS.iter().filter(|it| it.is_wanted(&options)).map(Variant::name).collect()
    }

    #[test]
    fn every_variant_is_of_a_suite() {
        for variant in VARIANTS {
            assert!(Job::varied(variant).is_ok(), "{}", variant.name());
        }
    }

    #[test]
    fn most_variants_run_with_full_or_by_their_names() {
        assert_eq!(wanted(&[]), ["scsi-qcow@handler"]);
        assert_eq!(wanted(&["--full"]).len(), VARIANTS.len());
        assert_eq!(wanted(&["--only", "data@6.12"]), ["data@6.12"]);
        assert_eq!(wanted(&["--only", "@handler"]).len(), 4);
        assert_eq!(wanted(&["--only", "data"]), [""; 0]);
        let chosen = wanted(&["--full", "--kernel", "6.1"]);
        assert!(chosen.iter().all(|name| !name.ends_with("@6.12")) && !chosen.is_empty());
    }

    #[test]
    fn every_expected_failure_names_its_script_and_has_a_reason() {
        let file = run::root().join("tests/vm").join("handler_qcow.expected");
        let text = std::fs::read_to_string(file).unwrap();
        let lines: Vec<&str> =
            text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
        for pair in lines.windows(2) {
            let is_reason = |line: &str| line.starts_with("    ");
            assert!(!is_reason(pair[0]) || !is_reason(pair[1]), "two reasons: {}", pair[1]);
            assert!(is_reason(pair[0]) || is_reason(pair[1]), "no reason: {}", pair[0]);
            if let Some((script, _)) = pair[0].split_once(' ').filter(|_| !is_reason(pair[0])) {
                assert!(SUITES.iter().any(|suite| suite.script == script), "{}", pair[0]);
            }
        }
    }
}
