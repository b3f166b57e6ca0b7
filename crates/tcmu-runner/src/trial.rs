// SPDX-License-Identifier: Apache-2.0
//! Tries plugins for `tcmu-runner check`. What a library is can only be told by running it, and one
//! that crashes or hangs must not take the check with it: each is loaded by a process of its own, as
//! with `plugin_isolation`.
use std::path::Path;

use rustix::process::{Resource, Rlimit, setrlimit};
use tcmu_plugin::Refusal;

use crate::config::Config;
use crate::{plugins, terminal};

/// The longest line about a plugin, in characters.
const MAX_LINE: usize = 400;

/// What came of loading a plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trial {
    /// The subtypes that it would serve.
    pub(crate) used: Vec<String>,
    /// Why a subtype of its is another's: no fault.
    pub(crate) later: Vec<String>,
    /// Why it, or a handler of its, does not work.
    pub(crate) refused: Vec<String>,
}

/// Has a process load a plugin. One that crashes leaves no file: what is told is enough.
pub(crate) fn try_file(file: &Path, config: &Config) -> Trial {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let (plugins, refused) = plugins::try_file(file, config);
    let used = plugins.handlers().iter().map(|handler| handler.subtype().to_owned());
    trial(used.collect(), &refused)
}

fn trial(used: Vec<String>, refusals: &[Refusal]) -> Trial {
    let mut trial = Trial { used, ..Trial::default() };
    for refusal in refusals {
        let lines = match refusal {
            Refusal::BuiltIn(_) => &mut trial.later,
            _ => &mut trial.refused,
        };
        lines.push(line(&refusal.to_string()));
    }
    trial
}

/// A line for a terminal: what a plugin or the dynamic linker says, or how a file is called, may have
/// several, and more.
pub(crate) fn line(text: &str) -> String {
    terminal::line(&text.replace('\n', " ")).chars().take(MAX_LINE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subtype_that_is_built_in_is_no_fault() {
        let told = "no\u{1b}[2J\nway".to_owned();
        let refusals = [Refusal::BuiltIn("file".into()), Refusal::Told(told)];
        let trial = trial(vec!["zbc".into()], &refusals);
        assert_eq!(
            (&trial.used[..], &trial.refused[..]),
            (&["zbc".into()][..], &["no[2J way".into()][..])
        );
        assert!(trial.later[0].contains("file is built in"), "{trial:?}");
    }

    #[test]
    fn what_is_said_of_a_plugin_has_bounds() {
        assert_eq!(line(&"x".repeat(100_000)).len(), MAX_LINE);
    }
}
