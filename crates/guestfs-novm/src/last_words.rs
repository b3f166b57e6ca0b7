// SPDX-License-Identifier: Apache-2.0
//! What a session's processes write to standard output and standard error. It is passed on as it comes, and libguestfs
//! throws it away unless it is verbose; the end of it is kept, because it says why a session broke off.

use crate::error::{Context, Result};
use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// Most bytes that are kept, and most lines that are told.
const MAX: usize = 16384;
const LINES: usize = 10;
/// How a kernel begins to say why it ends, and how many lines before that have to do with it.
const PANIC: &str = "Kernel panic";
const BEFORE: usize = 2;
/// How long the last of it may take to come, once the processes have ended.
const PATIENCE: Duration = Duration::from_secs(1);

/// In the process that is to be heard, and those that it starts from now on.
pub(crate) fn speak(to: &PipeWriter) -> Result<()> {
    rustix::stdio::dup2_stdout(to).on("standard output")?;
    rustix::stdio::dup2_stderr(to).on("standard error")
}

/// What has been heard.
#[derive(Debug)]
pub(crate) struct LastWords {
    kept: Arc<Mutex<VecDeque<u8>>>,
    /// Hung up when there is nothing more to be heard.
    ended: mpsc::Receiver<()>,
}

impl LastWords {
    /// Passes on what comes from these processes to this one's standard error.
    pub(crate) fn of(mut processes: PipeReader) -> Result<Self> {
        let kept = Arc::<Mutex<VecDeque<u8>>>::default();
        let (ending, ended) = mpsc::channel();
        let keep = Arc::clone(&kept);
        let thread = std::thread::Builder::new().name("words".into()).spawn(move || {
            let _ending: mpsc::Sender<()> = ending;
            let mut bytes = [0; MAX];
            while let Ok(n @ 1..) = processes.read(&mut bytes) {
                let Some(bytes) = bytes.get(..n) else { return };
                // Who does not read it does not keep the session from going on.
                io::stderr().write_all(bytes).ok();
                if let Ok(mut kept) = keep.lock() {
                    kept.extend(bytes);
                    let more = kept.len().saturating_sub(MAX);
                    kept.drain(..more);
                }
            }
        });
        thread.on("a thread")?;
        Ok(Self { kept, ended })
    }

    /// The last lines, once the processes have ended, as the end of a sentence; empty if nothing was said.
    pub(crate) fn told(&self) -> String {
        // A process that has outlived the others may have the pipe open.
        self.ended.recv_timeout(PATIENCE).ok();
        let Ok(mut kept) = self.kept.lock() else { return String::new() };
        match last_lines(kept.make_contiguous()) {
            text if text.is_empty() => text,
            text => format!("; what it said last:\n{text}"),
        }
    }
}

fn last_lines(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let plain = |line: &str| line.replace(|c: char| c.is_control() && c != '\t', "");
    let lines: Vec<String> =
        text.split('\n').map(plain).filter(|line| !line.trim().is_empty()).collect();
    // What follows a panic is long.
    let first = match lines.iter().rposition(|line| line.contains(PANIC)) {
        Some(panic) => panic.saturating_sub(BEFORE),
        None => lines.len().saturating_sub(LINES),
    };
    let told = lines.iter().skip(first).take(LINES).map(|line| format!("  {line}"));
    told.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::pipe;

    #[test]
    fn the_last_lines_are_kept_without_what_moves_a_terminal() {
        let (reader, mut writer) = pipe().unwrap();
        let words = LastWords::of(reader).unwrap();
        for n in 0..5000 {
            write!(writer, "line {n}\r\n\n").unwrap();
        }
        write!(writer, "\x1b[2Jlast").unwrap();
        drop(writer);
        let told = words.told();
        assert!(told.starts_with("; what it said last:\n  line 4991\n"), "{told:?}");
        assert!(told.ends_with("  line 4999\n  [2Jlast"), "{told:?}");
    }

    #[test]
    fn of_a_panic_its_reason_is_told_and_not_all_that_follows() {
        let text =
            format!("a\nb\nBus error\nKernel panic - not syncing: x\n{}", "line\n".repeat(99));
        let told = last_lines(text.as_bytes());
        assert!(told.starts_with("  b\n  Bus error\n  Kernel panic - not syncing: x\n  line\n"));
        assert_eq!(told.lines().count(), LINES);
    }

    #[test]
    fn of_who_says_nothing_nothing_is_told() {
        let (reader, writer) = pipe().unwrap();
        let words = LastWords::of(reader).unwrap();
        drop(writer);
        assert_eq!(words.told(), "");
    }
}
