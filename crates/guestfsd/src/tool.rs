// SPDX-License-Identifier: Apache-2.0
//! Programs: of this machine ([`Tool::new`], [`Tool::on_guest`]) and of the guest ([`Tool::in_guest`]).
//!
//! A program gets a fixed environment, no shell, and nothing to read unless it is given something.
//! What it says is captured up to a limit; beyond that it is killed. It is also killed when the session is
//! told to end and when its caller gives up. Names of files and devices are given to it as arguments, as they
//! are: where the program takes it, put `--` before them.

mod confine;
mod guest;
mod reason;
mod shield;

use crate::config::Config;
use crate::transfer::Progress;
use guest_error::{Context, Errno, Error, Result};
use guest_fs::paths::proc_path;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use zeroize::Zeroizing;

/// Where programs are looked for.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Most bytes that are captured: more would not fit into a reply.
const MAX_OUTPUT: usize = guestfs_api::frame::MAX_MESSAGE;
/// Most bytes of its messages that are kept: the last ones.
const MAX_MESSAGES: usize = 64 << 10;
/// Bytes moved at once.
const PIECE: usize = 64 << 10;

/// A program to be run.
#[derive(Debug)]
pub(crate) struct Tool {
    name: OsString,
    command: Command,
    explains: bool,
    wording: Wording,
}

/// How the error of a program is worded.
#[derive(Clone, Debug, Default)]
struct Wording {
    /// What exit statuses mean, for where the program says nothing.
    statuses: &'static [(i32, &'static str)],
    /// Paths that only we know files by, and what the client calls these.
    names: Vec<(String, String)>,
}

impl Wording {
    /// What an exit status says.
    fn of_status(&self, code: i32) -> String {
        let meaning = self.statuses.iter().find(|(status, _)| *status == code);
        meaning.map_or_else(|| format!("exit status {code}"), |(_, meaning)| (*meaning).to_owned())
    }

    /// A text of the program, with the client's names of files.
    fn with_names(&self, text: String) -> String {
        self.names.iter().fold(text, |text, (path, name)| text.replace(path.as_str(), name))
    }
}

/// What a program did.
#[derive(Debug)]
pub(crate) struct Output {
    name: OsString,
    /// Its exit status; -1 when a signal ended it.
    pub code: i32,
    signal: Option<i32>,
    explains: bool,
    wording: Wording,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error, its last 64 KiB.
    pub stderr: String,
}

/// The path of a program of this machine.
pub(crate) fn find(program: impl AsRef<OsStr>) -> Option<PathBuf> {
    PATH.split(':')
        .map(|dir| PathBuf::from(dir).join(program.as_ref()))
        .find(|path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok())
}

impl Tool {
    /// A program of this machine, found in the usual places.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut tool = Self::command(program.as_ref(), program.as_ref());
        tool.command.env("PATH", PATH).env("HOME", "/").env("LC_ALL", "C").env("TERM", "linux");
        if let Some(dir) = std::env::var_os("LVM_SYSTEM_DIR") {
            tool.command.env("LVM_SYSTEM_DIR", dir);
        }
        tool.command.current_dir("/");
        tool
    }

    /// This program, which does some work in a process apart (`cli::Helper`).
    pub(crate) fn helper(work: &str) -> Self {
        let tool = Self::new("/proc/self/exe").arg(format!("--helper={work}"));
        Self { name: "guestfsd".into(), ..tool }
    }

    /// The program of a compression, which need not be there.
    pub(crate) fn compressor(compression: &str, program: &str) -> Result<Self> {
        if find(program).is_none() {
            let text = format!(
                "compression type {compression} is not supported, because external program \
                 '{program}' is not available in the appliance"
            );
            return Err(Error::new(Errno::ENOTSUP, text));
        }
        Ok(Self::new(program))
    }

    /// A program of the guest, in the guest: chrooted into the sysroot, in a mount namespace of its own
    /// in which /dev, /proc and /sys are this machine's.
    pub(crate) fn in_guest(config: &Config, program: impl AsRef<OsStr>) -> Result<Self> {
        let mut tool = Self::command(program.as_ref(), program.as_ref());
        tool.command.env("PATH", PATH).env("HOME", "/root").env("LC_ALL", "C").env("TERM", "linux");
        guest::enter(&mut tool.command, config)?;
        Ok(tool)
    }

    /// A program of this machine that works on files of the guest: nothing but these can be written by it, wherever
    /// the guest's symbolic links lead.
    pub(crate) fn on_guest(config: &Config, program: impl AsRef<OsStr>) -> Result<Self> {
        let mut tool = Self::new(program);
        shield::enter(&mut tool.command, config)?;
        Ok(tool)
    }

    fn command(name: &OsStr, program: &OsStr) -> Self {
        let mut command = Command::new(program);
        command.env_clear().process_group(0);
        Self { name: name.to_owned(), command, explains: false, wording: Wording::default() }
    }

    /// Adds an argument.
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Adds an open file, which its errors call by the client's name of it. The file has to stay open until the
    /// program has ended.
    pub(crate) fn file(mut self, file: impl AsFd, name: impl AsRef<OsStr>) -> Self {
        let path = proc_path(file.as_fd());
        let name = name.as_ref().to_string_lossy().into_owned();
        self.wording.names.push((path.display().to_string(), name));
        self.arg(path)
    }

    /// What its exit statuses mean, for where it says nothing.
    pub(crate) fn statuses(mut self, statuses: &'static [(i32, &'static str)]) -> Self {
        self.wording.statuses = statuses;
        self
    }

    /// Adds to its environment.
    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it in this directory.
    pub(crate) fn current_dir(mut self, dir: impl AsRef<std::path::Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// It writes to standard output what goes on and what is wrong, and no result.
    pub(crate) fn explains_on_stdout(mut self) -> Self {
        self.explains = true;
        self
    }

    /// Runs it; any exit status will do.
    pub(crate) fn run(self) -> Result<Output> {
        self.run_with(&mut io::empty(), None)
    }

    /// Runs it with something to read, and tells the client meanwhile that it goes on. Any exit
    /// status will do.
    pub(crate) fn run_with(
        self,
        input: &mut dyn Read,
        progress: Option<&mut Progress<'_>>,
    ) -> Result<Output> {
        let mut stdout = Vec::new();
        let name = self.name.clone();
        let mut output = self.drive(input, progress, &mut |piece: &[u8]| {
            if stdout.len() + piece.len() > MAX_OUTPUT {
                return Err(
                    Error::new(Errno::EFBIG, "output is longer than a reply can be").within(&name)
                );
            }
            stdout.extend_from_slice(piece);
            Ok(())
        })?;
        output.stdout = stdout;
        Ok(output)
    }

    /// Runs it, its output going elsewhere as it comes, its input coming from elsewhere. Any exit
    /// status will do.
    pub(crate) fn stream(
        self,
        input: &mut dyn Read,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<Output> {
        self.drive(input, None, sink)
    }

    /// Runs it and returns its output; an exit status other than 0 is an error with its messages.
    pub(crate) fn output(self) -> Result<Vec<u8>> {
        Ok(self.run()?.success()?.stdout)
    }

    /// Runs it for what it does.
    pub(crate) fn ok(self) -> Result<()> {
        self.run()?.success().map(drop)
    }

    fn drive(
        mut self,
        input: &mut dyn Read,
        progress: Option<&mut Progress<'_>>,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<Output> {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        tracing::debug!(command = ?self.command, "running");
        let started = Instant::now();
        // What earlier programs left running and has ended since.
        crate::children::reap();
        let mut child = Running(self.command.spawn().on(&self.name)?);
        let stderr = pump(&mut child.0, input, progress, sink)
            .map_err(|e| if e.message().is_empty() { e.within(&self.name) } else { e })?;
        let status = child.0.wait().on(&self.name)?;
        tracing::debug!(%status, elapsed_us = started.elapsed().as_micros(), "ended");
        Ok(Output {
            name: self.name,
            code: status.code().unwrap_or(-1),
            signal: status.signal(),
            explains: self.explains,
            wording: self.wording.clone(),
            stdout: Vec::new(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })
    }
}

impl Output {
    /// Itself if the exit status was 0, else an error with the program's messages.
    pub(crate) fn success(self) -> Result<Self> {
        if self.code == 0 { Ok(self) } else { Err(self.failure()) }
    }

    /// The error that the program's messages (or else its exit status) make.
    pub(crate) fn failure(&self) -> Error {
        let name = self.name.to_string_lossy();
        let said = reason::of(&name, &self.stdout, &self.stderr, self.explains);
        let text = match (said, self.signal) {
            (said, Some(signal)) if said.is_empty() => format!("killed by signal {signal}"),
            (said, None) if said.is_empty() => self.wording.of_status(self.code),
            (said, _) => self.wording.with_names(said),
        };
        Error::new(Errno::EIO, text).within(&self.name)
    }

    /// Its output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// A program that is running; dropped, it is killed with all that it started in its process group.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            if let Some(pid) =
                i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw)
            {
                rustix::process::kill_process_group(pid, rustix::process::Signal::KILL).ok();
            }
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }
}

/// Moves everything until the program has closed its outputs; returns its messages.
fn pump(
    child: &mut Child,
    input: &mut dyn Read,
    mut progress: Option<&mut Progress<'_>>,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<Vec<u8>> {
    let (mut stdin, mut stdout, mut stderr) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take());
    for fd in [
        stdin.as_ref().map(AsFd::as_fd),
        stdout.as_ref().map(AsFd::as_fd),
        stderr.as_ref().map(AsFd::as_fd),
    ]
    .into_iter()
    .flatten()
    {
        rustix::io::ioctl_fionbio(fd, true).on("pipe")?;
    }
    let mut messages = Vec::new();
    let mut buffer = vec![0; PIECE];
    // It may be a key.
    let mut pending = Zeroizing::new(Vec::new());
    let mut sent = 0;
    while stdout.is_some() || stderr.is_some() {
        if sent == pending.len() && stdin.is_some() {
            pending.resize(PIECE, 0);
            let n = input.read(&mut pending).map_err(|e| guest_error::from_io(e, "input"))?;
            pending.truncate(n);
            sent = 0;
            if n == 0 {
                stdin = None;
            }
        }
        wait(stdin.as_ref(), stdout.as_ref(), stderr.as_ref())?;
        if let Some(p) = &mut progress {
            p.pulse();
        }
        if let Some(pipe) = &mut stdin {
            match pipe.write(&pending[sent..]) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // It does not want to read on; whether that is an error it says itself.
                Err(_) => stdin = None,
            }
        }
        if let Some(n) = read_some(&mut stdout, &mut buffer)? {
            sink(&buffer[..n])?;
        }
        if let Some(n) = read_some(&mut stderr, &mut buffer)? {
            messages.extend_from_slice(&buffer[..n]);
            let surplus = messages.len().saturating_sub(MAX_MESSAGES);
            messages.drain(..surplus);
        }
    }
    if let Some(p) = progress {
        p.pulse_end();
    }
    Ok(messages)
}

/// Reads what there is; a pipe at its end becomes none.
fn read_some(pipe: &mut Option<impl Read>, buffer: &mut [u8]) -> Result<Option<usize>> {
    let Some(p) = pipe else { return Ok(None) };
    match p.read(buffer) {
        Ok(0) => {
            *pipe = None;
            Ok(None)
        }
        Ok(n) => Ok(Some(n)),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(e) => Err(e).on("pipe"),
    }
}

/// Waits until something can be moved, or it is time to tell progress.
fn wait(
    stdin: Option<&impl AsFd>,
    stdout: Option<&impl AsFd>,
    stderr: Option<&impl AsFd>,
) -> Result<()> {
    let mut fds = Vec::with_capacity(3);
    fds.extend(stdin.map(|p| PollFd::new(p, PollFlags::OUT)));
    fds.extend(stdout.map(|p| PollFd::new(p, PollFlags::IN)));
    fds.extend(stderr.map(|p| PollFd::new(p, PollFlags::IN)));
    let period = Timespec::try_from(Progress::PULSE).ok();
    match poll(&mut fds, period.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(e) => return Err(e).on("pipe"),
    }
    if guest_fs::interrupt::requested() {
        return Err(Error::new(Errno::EINTR, "the daemon was told to end"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_output_comes_back() {
        assert_eq!(Tool::new("echo").args(["a", "b c"]).output().unwrap(), b"a b c\n");
    }

    #[test]
    fn a_failing_program_is_an_error_with_its_messages() {
        let e = Tool::new("ls").args(["--", "/nonexistent"]).ok().unwrap_err();
        assert_eq!(e.message(), "ls: cannot access '/nonexistent': No such file or directory");
    }

    #[test]
    fn an_error_calls_an_open_file_by_the_clients_name_of_it() {
        let file = std::fs::File::open("/").unwrap();
        let e = Tool::new("cat").arg("--").file(&file, "/the/guest's").ok().unwrap_err();
        assert_eq!(e.message(), "cat: /the/guest's: Is a directory");
    }

    #[test]
    fn an_exit_status_is_told_by_its_meaning_where_the_program_says_nothing() {
        let silent = |status| Tool::new("sh").args(["-c", status]).statuses(&[(2, "wrong key")]);
        assert_eq!(silent("exit 2").ok().unwrap_err().message(), "sh: wrong key");
        assert_eq!(silent("exit 3").ok().unwrap_err().message(), "sh: exit status 3");
        let e = silent("echo because >&2; exit 2").ok().unwrap_err();
        assert_eq!(e.message(), "sh: because");
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_that_names_it() {
        let e = Tool::new("no-such-program").ok().unwrap_err();
        assert_eq!(
            (e.errno(), e.message()),
            (Errno::ENOENT, "no-such-program: No such file or directory")
        );
    }

    #[test]
    fn input_and_output_flow_at_the_same_time() {
        let data = vec![b'x'; 1 << 20];
        let out = Tool::new("cat").run_with(&mut &data[..], None).unwrap();
        assert_eq!(out.stdout, data);
    }

    #[test]
    fn output_without_end_is_cut_off_and_the_program_killed() {
        let e = Tool::new("yes").run().unwrap_err();
        assert_eq!(e.errno(), Errno::EFBIG);
    }

    #[test]
    fn the_environment_is_fixed() {
        let env = Tool::new("env").output().unwrap();
        let text = String::from_utf8(env).unwrap();
        assert!(text.contains("LC_ALL=C\n") && !text.contains("CARGO"));
    }
}
