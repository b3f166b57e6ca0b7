// SPDX-License-Identifier: Apache-2.0
//! Tries plugins for `tcmu-runner check`. What a library is can only be told by running it, and one
//! that crashes or hangs must not take the check with it: each is loaded by a process of its own
//! (the subcommand `try-plugin`), which says on its standard output what was registered.
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Resource, Rlimit, setrlimit};
use tcmu_plugin::{Plugins, Refusal};

use crate::config::Config;
use crate::plugins;

/// How long a plugin may take to load.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at its process.
const LOOK: Duration = Duration::from_millis(10);
/// The most bytes of what is said about a plugin, and of a line of it.
const MAX_SAID: usize = 16 << 10;
const MAX_LINE: usize = 400;

/// What lines begin with that are ours; a plugin may write others.
const USED: &str = "try-plugin: used: ";
const LATER: &str = "try-plugin: later: ";
const REFUSED: &str = "try-plugin: refused: ";

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

/// Loads a plugin in this process and says what is in it: the subcommand `try-plugin`.
pub(crate) fn run(file: &Path, config: &Config) -> ExitCode {
    // A crash is told to who asks; it need not leave a file.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let (plugins, refused) = plugins::try_file(file, config);
    match say(&plugins, &refused, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn say(plugins: &Plugins, refused: &[Refusal], out: &mut impl Write) -> io::Result<()> {
    // What the plugin has written may have left its line open.
    writeln!(out)?;
    for handler in plugins.handlers() {
        writeln!(out, "{USED}{}", handler.subtype())?;
    }
    for refusal in refused {
        let mark = if let Refusal::BuiltIn(_) = refusal { LATER } else { REFUSED };
        // The dynamic linker's text may have several lines.
        writeln!(out, "{mark}{}", refusal.to_string().replace('\n', " "))?;
    }
    out.flush()
}

/// Has `program`, which is this one, load a plugin.
pub(crate) fn try_file(program: &Path, file: &Path) -> Trial {
    let child = Command::new(program)
        .arg("try-plugin")
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let ended = child.and_then(|mut child| {
        let mut out = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        fcntl_setfl(&out, OFlags::NONBLOCK)?;
        let (mut said, until) = (Vec::new(), Instant::now() + PATIENCE);
        loop {
            let status = child.try_wait()?;
            drain(&mut out, &mut said)?;
            if status.is_some() {
                return Ok((status, said));
            }
            if Instant::now() > until {
                child.kill()?;
                return Ok((None, said));
            }
            sleep(LOOK);
        }
    });
    match ended {
        Ok((status, said)) => trial(&String::from_utf8_lossy(&said), status),
        Err(error) => refused(format!("it was not tried: {error}")),
    }
}

/// Takes what is there to be read, for a while if there is no end of it; what is too much is lost.
fn drain(out: &mut impl Read, said: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    for _ in 0..64 {
        match out.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => {
                let room = MAX_SAID.saturating_sub(said.len()).min(len);
                said.extend_from_slice(&buffer[..room]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn refused(why: String) -> Trial {
    Trial { refused: vec![why], ..Trial::default() }
}

/// What a process has said that has ended like this; `None`: it did not end by itself.
fn trial(said: &str, status: Option<ExitStatus>) -> Trial {
    let why = match status {
        Some(status) if status.success() => {
            let lines = |mark: &str| -> Vec<String> {
                let texts = said.lines().filter_map(|line| line.strip_prefix(mark));
                texts
                    .map(|it| it.chars().filter(|c| !c.is_control()).take(MAX_LINE).collect())
                    .collect()
            };
            return Trial { used: lines(USED), later: lines(LATER), refused: lines(REFUSED) };
        }
        Some(status) => match status.signal() {
            Some(signal) => format!("it crashes when it is loaded (signal {signal})"),
            None => format!("it ends the program that loads it ({status})"),
        },
        None => format!("it is not loaded within {} seconds", PATIENCE.as_secs()),
    };
    refused(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(raw: i32) -> Option<ExitStatus> {
        Some(ExitStatus::from_raw(raw))
    }

    #[test]
    fn what_a_process_says_is_taken_apart_and_what_a_plugin_writes_is_not() {
        let said = format!(
            "hello from the plugin\n{USED}qcow\n{USED}zbc\n{LATER}built in\n{REFUSED}no\u{1b}[2J\n"
        );
        let expected = Trial {
            used: vec!["qcow".into(), "zbc".into()],
            later: vec!["built in".into()],
            refused: vec!["no[2J".into()],
        };
        assert_eq!(trial(&said, exit(0)), expected);
    }

    #[test]
    fn a_process_that_does_not_end_well_is_a_plugin_that_does_not_load() {
        let said = format!("{USED}qcow\n");
        for (status, word) in [(exit(11), "signal 11"), (exit(1 << 8), "exit"), (None, "seconds")] {
            let trial = trial(&said, status);
            assert!(trial.used.is_empty() && trial.refused[0].contains(word), "{trial:?}");
        }
    }

    #[test]
    fn what_a_plugin_writes_takes_no_memory_without_end() {
        let mut said = Vec::new();
        drain(&mut &vec![b'x'; 10 * MAX_SAID][..], &mut said).unwrap();
        assert_eq!(said.len(), MAX_SAID);
    }

    #[test]
    fn a_program_that_is_not_there_is_no_plugin_that_is_used() {
        let trial = try_file(Path::new("/no/such/program"), Path::new("/x.so"));
        assert!(trial.refused[0].starts_with("it was not tried"), "{trial:?}");
    }
}
