// SPDX-License-Identifier: Apache-2.0
//! Augeas: configuration files of the guest as a tree.
//!
//! libaugeas is C and reads what the guest has written, and it follows the guest's symbolic links by path. So
//! it works in a process of its own ([`helper`]): this program, started again, which loads the library,
//! enters the sysroot by `chroot` for the time of each request and leaves it again, so that nothing is busy
//! between calls. Lenses are this machine's: the working directory stays outside, and lenses are found from
//! there. A crash of the library, or a file that makes it ask for memory without end, ends that process
//! and makes one call fail.
//!
//! Requests and answers are XDR with a length before it, over a socket pair.

mod helper;
mod library;

use crate::error::{Context, Error, Result};
use crate::session::Session;
use guestfs_api::Errno;
use guestfs_api::xdr::{Decoder, Encoder};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

pub(crate) use helper::main as helper;

/// The longest message either way: some more than what fits into a reply.
const MAX_MESSAGE: usize = 2 * guestfs_api::frame::MAX_MESSAGE;

/// Defines the operations and their numbers.
macro_rules! operations {
    ($($name:ident: $what:literal,)*) => {
        /// What the process can be asked for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Operation {
            $(#[doc = $what] $name,)*
        }

        /// All of them; an operation's number is its place.
        const OPERATIONS: &[Operation] = &[$(Operation::$name,)*];
    };
}

operations! {
    Open: "Opens a tree: root, sysroot; flags.",
    DefVar: "Defines a variable: name, expression or none.",
    DefNode: "Defines a variable and makes its node: name, expression, value.",
    Get: "A node's value: path.",
    Label: "A node's label: path.",
    Set: "Sets a value: path, value or none.",
    SetMany: "Sets values: base, sub or none, value.",
    Insert: "Makes a sibling: path, label; before.",
    Remove: "Removes nodes: path.",
    Move: "Moves a node: from, to.",
    Match: "Paths of nodes: path.",
    Save: "Writes files.",
    Load: "Reads files.",
    Transform: "Gives a file to a lens: lens, file; takes it away.",
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// For what.
    pub(crate) operation: Operation,
    /// Its strings.
    pub(crate) texts: [Option<&'a OsStr>; 3],
    /// Its flags, or a truth value.
    pub(crate) number: i32,
}

impl<'a> Request<'a> {
    fn encode(&self) -> Result<Vec<u8>> {
        let mut out = vec![0; 4];
        let mut e = Encoder::new(&mut out);
        e.count(OPERATIONS.iter().position(|o| *o == self.operation).unwrap_or(0))?;
        self.texts.iter().try_for_each(|text| e.optional_string(*text))?;
        e.i32(self.number);
        framed(out)
    }

    fn decode(bytes: &'a [u8]) -> Result<Self> {
        let mut d = Decoder::new(bytes);
        let operation = usize::try_from(d.u32()?).ok().and_then(|n| OPERATIONS.get(n));
        let operation = *operation.ok_or_else(|| Error::new(Errno::EPROTO, "no such operation"))?;
        let texts = [d.optional_string()?, d.optional_string()?, d.optional_string()?];
        Ok(Self { operation, texts, number: d.i32()? })
    }
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// A number of nodes.
    pub(crate) number: i32,
    /// Of these, those that were made.
    pub(crate) made: i32,
    /// A value, a label, or paths of nodes.
    pub(crate) texts: Vec<OsString>,
}

impl Answer {
    fn encode(answer: &Result<Self>) -> Result<Vec<u8>> {
        let mut out = vec![0; 4];
        let mut e = Encoder::new(&mut out);
        match answer {
            Ok(answer) => {
                e.i32(0);
                e.i32(answer.number);
                e.i32(answer.made);
                e.strings(&answer.texts)?;
            }
            Err(error) => {
                e.i32(error.errno().raw());
                e.opaque(error.message().as_bytes())?;
            }
        }
        framed(out)
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut d = Decoder::new(bytes);
        match d.i32()? {
            0 => {
                let (number, made) = (d.i32()?, d.i32()?);
                let texts = d.strings()?.into_iter().map(OsStr::to_owned).collect();
                Ok(Self { number, made, texts })
            }
            errno => {
                let text = String::from_utf8_lossy(d.opaque()?).into_owned();
                Err(Error::new(Errno::from_raw(errno), text))
            }
        }
    }
}

/// Puts the length into the first four bytes.
fn framed(mut message: Vec<u8>) -> Result<Vec<u8>> {
    let len = message.len().saturating_sub(4);
    if len > MAX_MESSAGE {
        return Err(Error::new(Errno::EFBIG, "more than a message can hold"));
    }
    let len = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    message.splice(..4, len);
    Ok(message)
}

/// Reads a message; none at the end. Told to end, the process does not wait on.
fn receive(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 4];
    if !read_full(stream, &mut len)? {
        return Ok(None);
    }
    let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
    if len > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; len];
    Ok(read_full(stream, &mut message)?.then_some(message))
}

/// Fills the buffer; false if the stream ends before.
fn read_full(stream: &mut impl Read, mut buffer: &mut [u8]) -> io::Result<bool> {
    while !buffer.is_empty() {
        match stream.read(buffer) {
            Ok(0) => return Ok(false),
            Ok(n) => buffer = &mut buffer[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted && !crate::signals::ending() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

/// The tree that a session has open, if it has.
#[derive(Debug, Default)]
pub(crate) struct State(Option<Process>);

/// The process that has the tree; dropped, it ends.
#[derive(Debug)]
struct Process {
    child: Child,
    /// Unlike its number, this is never another process.
    pidfd: Option<OwnedFd>,
    stream: UnixStream,
}

impl Process {
    fn start() -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().on("augeas")?;
        let child = Command::new("/proc/self/exe")
            .arg("--helper=augeas")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .on("augeas")?;
        let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Ok(Self { child, pidfd, stream: ours })
    }

    fn ask(&mut self, request: &Request<'_>) -> Result<Answer> {
        let message = request.encode()?;
        match self.stream.write_all(&message).and_then(|()| receive(&mut self.stream)) {
            Ok(Some(answer)) => Answer::decode(&answer),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e).on("augeas"),
            Ok(None) | Err(_) => {
                self.kill();
                let status = self.child.wait().map_or_else(|e| e.to_string(), |s| s.to_string());
                let text =
                    format!("augeas failed ({status}), its tree is lost: call aug-init again");
                Err(Error::new(Errno::ECONNABORTED, text))
            }
        }
    }

    fn kill(&self) {
        if let Some(pidfd) = &self.pidfd {
            pidfd_send_signal(pidfd, Signal::KILL).ok();
        }
        self.stream.shutdown(std::net::Shutdown::Both).ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        self.child.wait().ok();
    }
}

/// Opens a tree, in place of the one that was open.
pub(crate) fn open(s: &mut Session, root: &OsStr, flags: i32) -> Result<()> {
    close(s);
    let sysroot = s.sysroot().path().to_owned();
    let mut process = Process::start()?;
    let texts = [Some(root), Some(sysroot.as_os_str()), None];
    process.ask(&Request { operation: Operation::Open, texts, number: flags })?;
    s.state::<State>().0 = Some(process);
    Ok(())
}

/// Asks for something of the open tree; an error names the first of the texts.
pub(crate) fn ask(s: &mut Session, request: &Request<'_>) -> Result<Answer> {
    let state = s.state::<State>();
    let Some(process) = &mut state.0 else {
        let message = "you must call 'aug-init' first to initialize Augeas";
        return Err(Error::new(Errno::EINVAL, message));
    };
    let answer = process.ask(request);
    if answer.as_ref().is_err_and(|e| e.errno() == Errno::ECONNABORTED) {
        state.0 = None;
    }
    match request.texts[0] {
        Some(text) if !text.is_empty() => answer.map_err(|e| e.within(text)),
        _ => answer,
    }
}

/// Closes the tree; returns whether one was open.
pub(crate) fn close(s: &mut Session) -> bool {
    s.state::<State>().0.take().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_and_answers_come_through() {
        for operation in OPERATIONS {
            let texts = [Some(OsStr::new("/files")), None, Some(OsStr::new(""))];
            let request = Request { operation: *operation, texts, number: -1 };
            let bytes = request.encode().unwrap();
            let message = receive(&mut &bytes[..]).unwrap().unwrap();
            assert_eq!(Request::decode(&message).unwrap(), request);
        }
        for answer in [
            Ok(Answer { number: 2, made: 1, texts: vec!["a".into(), "".into()] }),
            Err(Error::new(Errno::ENOENT, "no such node")),
        ] {
            let bytes = Answer::encode(&answer).unwrap();
            let message = receive(&mut &bytes[..]).unwrap().unwrap();
            assert_eq!(Answer::decode(&message), answer);
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_memory_is_taken() {
        let e = receive(&mut &b"\xff\xff\xff\xff"[..]).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn messages_of_any_bytes_do_no_harm(bytes: Vec<u8>) {
            Request::decode(&bytes).ok();
            Answer::decode(&bytes).ok();
            receive(&mut &bytes[..]).ok();
        }
    }
}
