// SPDX-License-Identifier: Apache-2.0
//! Running apt-get: one line that tells how far it is, and everything it says in a log.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::run;

/// Lines of the log that are shown when apt-get fails.
const LAST: usize = 15;

/// Updates the lists of packages, then runs apt-get with `arguments`, which install `packages`.
pub(super) fn run(packages: &[&str], arguments: &[String]) -> Result<()> {
    let path = run::cache_dir()?.join("apt.log");
    let log = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let (count, names) = (packages.len(), packages.join(" "));
    println!("Packages   {count} to install, log in {}: {names}", path.display());
    let mut line = Line { shown: std::io::stdout().is_terminal() };
    for arguments in [&["update".to_owned(), "-qq".to_owned()], arguments] {
        let good = apt_get(arguments, &log, &mut line);
        line.clear();
        if !good? {
            let what = arguments.join(" ");
            bail!("apt-get {what} failed; the end of {}:\n{}", path.display(), last_lines(&path));
        }
    }
    Ok(())
}

/// Runs apt-get once; whether it succeeded.
fn apt_get(arguments: &[String], log: &File, line: &mut Line) -> Result<bool> {
    let (told, tell) = std::io::pipe()?;
    let mut command = Command::new("apt-get");
    // The descriptor has the same number on the other side of exec, where only it stays open.
    rustix::io::fcntl_setfd(&tell, rustix::io::FdFlags::empty())?;
    command.args(["-o", &format!("APT::Status-Fd={}", tell.as_raw_fd())]).args(arguments);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
    let mut child = command.spawn().context("cannot start apt-get")?;
    drop(tell);
    for status in BufReader::new(told).split(b'\n') {
        if let Some(progress) = Progress::parse(&String::from_utf8_lossy(&status?)) {
            line.show(&progress);
        }
    }
    let status = child.wait()?;
    run::check_interrupt()?;
    Ok(status.success())
}

/// What a line of apt's status descriptor tells (apt's README.progress-reporting).
#[derive(Debug, PartialEq)]
struct Progress {
    percent: f32,
    what: String,
}

impl Progress {
    /// Reads `dlstatus:...` and `pmstatus:PACKAGE:PERCENT:TEXT`; `None`: it is another line.
    fn parse(line: &str) -> Option<Progress> {
        let mut parts = line.splitn(4, ':');
        let word = match parts.next()? {
            "dlstatus" => "download",
            "pmstatus" => "install",
            _ => return None,
        };
        let (_, percent, what) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Progress { percent: percent.parse().ok()?, what: format!("{word}: {}", what.trim()) })
    }
}

/// The line on the terminal; where there is none it is not shown.
struct Line {
    shown: bool,
}

impl Line {
    fn show(&mut self, progress: &Progress) {
        // What does not fit into a line of a terminal would stay there.
        let what: String = progress.what.chars().take(60).collect();
        self.print(&format!("           {:3.0} % {what}", progress.percent));
    }

    fn clear(&mut self) {
        self.print("");
    }

    fn print(&mut self, text: &str) {
        if self.shown {
            let mut out = std::io::stdout();
            // A terminal that is gone is no reason to stop.
            let _ = write!(out, "\r\x1b[K{text}").and_then(|()| out.flush());
        }
    }
}

fn last_lines(path: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apts_status_lines_are_read() {
        let progress = |line: &str| Progress::parse(line).map(|p| (p.percent, p.what));
        assert_eq!(
            progress("pmstatus:fio:42.8571:Unpacking fio (amd64)"),
            Some((42.8571, "install: Unpacking fio (amd64)".into()))
        );
        assert_eq!(
            progress("dlstatus:1:9.5:Retrieving file 1 of 3: it has a colon"),
            Some((9.5, "download: Retrieving file 1 of 3: it has a colon".into()))
        );
        for line in ["", "pmconffile:/etc/x:1:'a' 'b' 1 1", "pmstatus:x:many:y", "pmstatus:x"] {
            assert_eq!(progress(line), None, "{line}");
        }
    }
}
