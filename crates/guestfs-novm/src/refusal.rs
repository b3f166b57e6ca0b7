// SPDX-License-Identifier: Apache-2.0
//! A session that cannot start: each call is answered with the reason.
//!
//! libguestfs discards what its hypervisor writes. If a launch fails, it prints general advice without the
//! reason. It shows the error of a call unchanged. So the launch succeeds here, and the first call fails
//! with the reason.

use crate::error::Error;
use crate::sys;
use guestfs_api::frame::{self, Chunk, ErrorBody, Header};
use guestfs_api::xdr::Decoder;
use guestfs_api::{Kind, PROCEDURES};
use io_engine::Signals;
use rustix::event::{PollFd, PollFlags, poll};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// What libguestfs calls by itself before it ends a session.
const AUTOSYNC: &str = "internal_autosync";
/// How long a client may take to see that the launch has succeeded.
const PATIENCE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(2);

/// Answers the calls of a client until it hangs up, or one of these signals comes.
pub(crate) fn refuse(channel: &UnixStream, signals: &Signals, reason: &Error) -> io::Result<()> {
    serve(&mut Channel { stream: channel, signals }, reason)
}

/// The same for a client that shows the console and makes no calls (virt-rescue): the reason is written to the
/// console, which is then closed.
pub(crate) fn refuse_on_console(
    channel: &UnixStream,
    signals: &Signals,
    reason: &Error,
) -> io::Result<()> {
    let mut channel = Channel { stream: channel, signals };
    channel.write_all(&frame::LAUNCH.to_be_bytes())?;
    // A console that ends before that is read is a launch that failed.
    let deadline = Instant::now() + PATIENCE;
    while sys::unread(channel.stream)? > 0 && Instant::now() < deadline {
        std::thread::sleep(TICK);
    }
    write!(io::stdout(), "guestfs-novm: {reason}\r\n")?;
    io::stdout().flush()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    answer(&mut channel, reason, true)
}

/// A channel that ends with a signal.
struct Channel<'a> {
    stream: &'a UnixStream,
    signals: &'a Signals,
}

impl Read for Channel<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut fds =
            [PollFd::new(self.stream, PollFlags::IN), PollFd::new(self.signals, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) if self.signals.next().is_some() => Ok(0),
            Ok(_) => self.stream.read(buffer),
            Err(e) => Err(e.into()),
        }
    }
}

impl Write for Channel<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn serve(channel: &mut (impl Read + Write), reason: &Error) -> io::Result<()> {
    channel.write_all(&frame::LAUNCH.to_be_bytes())?;
    answer(channel, reason, false)
}

fn answer(channel: &mut (impl Read + Write), reason: &Error, mut said: bool) -> io::Result<()> {
    let autosync = PROCEDURES.iter().find(|p| p.name == AUTOSYNC).map(|p| p.number);
    let reason = format!("guestfs-novm: {reason}");
    while let Some(message) = read(channel)? {
        let head = Header::decode(&mut Decoder::new(&message)).map_err(io::Error::other)?;
        if head.program != frame::PROGRAM || head.direction != frame::DIRECTION_CALL {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if sends_a_file(head.procedure) {
            channel.write_all(&frame::CANCEL.to_be_bytes())?;
            drain(channel)?;
        }
        // A client that has heard it need not hear it once more at the end.
        let silent = said && Some(head.procedure) == autosync;
        channel.write_all(&reply(&head, (!silent).then_some(&reason))?)?;
        said = true;
    }
    Ok(())
}

fn sends_a_file(procedure: u32) -> bool {
    let found = PROCEDURES.iter().find(|p| p.number == procedure);
    found.is_some_and(|p| p.args.iter().any(|a| a.kind == Kind::FileIn))
}

/// Reads a file that the client has been told to break off.
fn drain(channel: &mut impl Read) -> io::Result<()> {
    while let Some(chunk) = read(channel)? {
        match Chunk::decode(&chunk).map_err(io::Error::other)? {
            Chunk::Data(_) => {}
            Chunk::End | Chunk::Cancelled => return Ok(()),
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// The contents of the next frame; none at the end.
fn read(channel: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut word = [0; 4];
    loop {
        match channel.read_exact(&mut word) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            done => done?,
        }
        // Of a file that we would send, if we sent any.
        if u32::from_be_bytes(word) != frame::CANCEL {
            break;
        }
    }
    let length = u64::from(u32::from_be_bytes(word));
    let mut message = Vec::new();
    channel.take(length).read_to_end(&mut message)?;
    let whole = message.len() as u64 == length && message.len() <= frame::MAX_MESSAGE;
    if whole { Ok(Some(message)) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// An error with this text, or an empty result.
fn reply(call: &Header, reason: Option<&String>) -> io::Result<Vec<u8>> {
    // The length comes first.
    let mut message = vec![0; 4];
    let status = if reason.is_some() { frame::STATUS_ERROR } else { frame::STATUS_OK };
    Header::reply(call.procedure, call.serial, status).encode(&mut message);
    if let Some(reason) = reason {
        ErrorBody::encode("", reason, &mut message).map_err(io::Error::other)?;
    }
    let length = u32::try_from(message.len() - 4).map_err(io::Error::other)?;
    message[..4].copy_from_slice(&length.to_be_bytes());
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use guestfs_client::{Client, Error as Failure};
    use proptest::prelude::*;
    use std::os::unix::net::UnixStream;
    use std::thread;

    fn reason() -> Error {
        Error::Usage("the reason".into())
    }

    #[test]
    fn every_call_is_answered_with_the_reason() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || serve(&mut theirs, &reason()));
        let mut client = Client::new(ours);
        client.wait_for_launch().unwrap();
        let said = |result: Result<(), Failure>| match result {
            Err(Failure::Daemon { message, .. }) => message,
            other => panic!("{other:?}"),
        };
        assert_eq!(said(client.ping_daemon()), "guestfs-novm: the reason");
        // The file is broken off and not read to its end.
        let mut file = io::repeat(b'x');
        assert_eq!(said(client.upload(&mut file, "/x")), "guestfs-novm: the reason");
        assert_eq!(said(client.sync()), "guestfs-novm: the reason");
        client.internal_autosync().unwrap();
        drop(client);
        server.join().unwrap().unwrap();
    }

    /// What a client sends; what it is sent goes nowhere.
    struct Script<'a>(&'a [u8]);

    impl Read for Script<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Script<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn whatever_a_client_sends_ends(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = serve(&mut Script(&bytes), &reason());
        }
    }
}
