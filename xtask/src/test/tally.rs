// SPDX-License-Identifier: Apache-2.0
//! What a suite of `tests/vm` prints, counted: a line for each check, and at the end how many there
//! were, which tells a suite that came to its end from one that broke off.

use super::Checks;

/// Counts the lines of a suite: "ok ...", "FAIL ...", and at the end "1..N".
#[derive(Debug)]
pub(super) struct Tally {
    suite: String,
    checks: Checks,
    planned: Option<usize>,
}

impl Tally {
    /// Of a suite that has said nothing yet.
    pub(super) fn of(suite: &str) -> Tally {
        Tally { suite: suite.to_owned(), checks: Checks::default(), planned: None }
    }

    /// Something has failed.
    pub(super) fn fail(&mut self, what: &str) {
        self.checks.failed.push(format!("{}: {what}", self.suite));
    }

    /// A line of the suite.
    pub(super) fn line(&mut self, line: &str) {
        if line.starts_with("ok ") {
            self.checks.passed += 1;
        } else if let Some(what) = line.strip_prefix("FAIL ") {
            self.fail(what);
        } else if line.starts_with("     |") {
            self.checks.explain([line].into_iter());
        } else if let Some(plan) = line.strip_prefix("1..") {
            self.planned = plan.parse().ok();
        }
    }

    /// The count; a suite that broke off, or fails without saying where, has failed.
    pub(super) fn end(mut self, status: Option<u8>) -> Checks {
        let whole = status == Some(0) && self.planned == Some(self.checks.passed);
        if self.checks.failed.is_empty() && !whole {
            self.fail("it broke off");
        }
        self.checks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(text: &str, status: Option<u8>) -> Checks {
        let mut tally = Tally::of("a");
        text.lines().for_each(|line| tally.line(line));
        tally.end(status)
    }

    #[test]
    fn a_suite_that_comes_to_its_end_counts_its_checks() {
        assert_eq!(
            tally("ok a\n# note\nok b\n1..2", Some(0)),
            Checks { passed: 2, failed: vec![] }
        );
        assert_eq!(
            tally("ok a\nFAIL b (exit 1): x\n     | ok\n1..2", Some(1)),
            Checks { passed: 1, failed: vec!["a: b (exit 1): x\n     | ok".into()] }
        );
    }

    #[test]
    fn a_suite_that_breaks_off_has_failed() {
        assert_eq!(tally("ok a\n", Some(0)).failed.len(), 1);
        assert_eq!(tally("ok a\n1..2\n", Some(0)).failed.len(), 1);
        assert_eq!(tally("ok a\n1..1\n", None).failed.len(), 1);
        assert_eq!(tally("ok a\n1..1\n", Some(3)).failed.len(), 1);
        assert_eq!(tally("", Some(0)).failed.len(), 1);
    }
}
