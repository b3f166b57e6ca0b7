// SPDX-License-Identifier: Apache-2.0
//! Whether a session has begun, and if not, why. The processes that start it say so through a pipe to the one that has
//! the client and can answer it ([`crate::refusal`]): the daemon says that it serves ([`LAUNCHED`]), process 1 of User-Mode
//! Linux how the daemon has ended, any other what went wrong, in words.

use crate::error::Error;
use std::fmt::Display;
use std::io::{PipeReader, Read, Write};
use std::path::Path;

/// What the daemon writes once it serves the client; no text begins so.
pub(crate) const LAUNCHED: u8 = 0;
/// What is written before the daemon's exit status, in decimal digits; no text begins so either.
const ENDED: u8 = 1;
/// Most bytes that are read of a text.
const MAX_TEXT: u64 = 4096;

/// What came through the pipe from processes that have all ended.
enum Said {
    Launched,
    Ended(i32),
    Text(String),
    Nothing,
}

fn read(pipe: &PipeReader) -> Said {
    let mut text = Vec::new();
    // What there is, is all that is known.
    pipe.take(MAX_TEXT).read_to_end(&mut text).ok();
    let rest = |text: &[u8]| {
        // Of a terminal, which has lines that end in CR and LF.
        String::from_utf8_lossy(text).trim().replace("\r\n", "\n")
    };
    match &text[..] {
        [LAUNCHED, ..] => Said::Launched,
        [ENDED, status @ ..] => Said::Ended(rest(status).parse().unwrap_or(1)),
        text => match rest(text) {
            text if text.is_empty() => Said::Nothing,
            text => Said::Text(text),
        },
    }
}

/// Why the session has not begun, whose processes have all ended; none if it has. `silent` is for the case that no
/// process has said anything.
pub(crate) fn failure(
    pipe: &PipeReader,
    daemon: &Path,
    silent: impl FnOnce() -> Error,
) -> Option<Error> {
    match read(pipe) {
        Said::Launched => None,
        Said::Ended(status) => Some(daemon_never_served(daemon, status)),
        Said::Text(text) => Some(Error::Served(text)),
        Said::Nothing => Some(silent()),
    }
}

/// Why a session that had begun has broken off; none if it has ended.
pub(crate) fn broken_off(pipe: &PipeReader, daemon: &Path) -> Option<Error> {
    match read(pipe) {
        Said::Ended(status) => daemon_broke_off(daemon, status),
        Said::Text(text) => Some(Error::Served(text)),
        Said::Launched | Said::Nothing => None,
    }
}

/// Says what went wrong.
pub(crate) fn say(mut to: impl Write, why: impl Display) {
    // If nobody reads it, nobody waits for it.
    writeln!(to, "{why}").ok();
}

/// Says how the daemon has ended.
pub(crate) fn say_ended(to: impl Write, status: i32) {
    say(to, format_args!("{}{status}", char::from(ENDED)));
}

/// A daemon that has ended before it served.
pub(crate) fn daemon_never_served(daemon: &Path, status: i32) -> Error {
    Error::Missing(format!(
        "{} {} before it served: it is no guestfsd, or one that does not run \
         here; --guestfsd or {} says which one is used, and with LIBGUESTFS_DEBUG=1 what it said is \
         shown",
        daemon.display(),
        how(status),
        crate::daemon::VARIABLE
    ))
}

/// A daemon that has ended while its client was there; none if that was the client's wish.
pub(crate) fn daemon_broke_off(daemon: &Path, status: i32) -> Option<Error> {
    let broken = Error::Broken(format!("{} {}", daemon.display(), how(status)));
    (status != 0).then_some(broken)
}

/// How a process has ended with this exit status, as a shell says it.
pub(crate) fn how(status: i32) -> String {
    match status - 128 {
        signal @ 1..=64 => format!("was killed by signal {signal}"),
        _ => format!("ended with status {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::pipe;

    fn said(bytes: &[u8]) -> Option<String> {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(bytes).unwrap();
        drop(writer);
        failure(&reader, Path::new("/d"), || Error::Missing("silent".into())).map(|e| e.to_string())
    }

    #[test]
    fn a_session_that_has_not_begun_has_a_reason() {
        assert_eq!(said(&[LAUNCHED]), None);
        assert_eq!(said(&[LAUNCHED, b'x']), None);
        assert_eq!(said(b"").as_deref(), Some("silent"));
        assert_eq!(said(b"a\r\nb\r\n").as_deref(), Some("a\nb"));
        assert_eq!(said(&[b'x'; 9000]).map(|text| text.len()), Some(4096));
        assert!(
            said(b"\x010\r\n").is_some_and(|text| text.starts_with("/d ended with status 0 bef"))
        );
    }

    #[test]
    fn a_session_that_has_broken_off_has_a_reason_and_one_that_has_ended_has_none() {
        let said = |write: &dyn Fn(&mut std::io::PipeWriter)| {
            let (reader, mut writer) = pipe().unwrap();
            write(&mut writer);
            drop(writer);
            broken_off(&reader, Path::new("/d")).map(|e| e.to_string())
        };
        assert_eq!(said(&|pipe| say_ended(pipe, 0)), None);
        assert_eq!(said(&|_| {}), None);
        let broken = "the session has broken off: /d ";
        let signal = said(&|pipe| say_ended(pipe, 139));
        assert_eq!(signal, Some(format!("{broken}was killed by signal 11")));
        let status = said(&|pipe| say_ended(pipe, 2));
        assert_eq!(status, Some(format!("{broken}ended with status 2")));
        assert_eq!(said(&|pipe| say(pipe, "text")).as_deref(), Some("text"));
    }
}
