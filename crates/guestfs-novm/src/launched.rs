// SPDX-License-Identifier: Apache-2.0
//! Whether a session has begun, and if not, why. The processes that start it say so through a pipe to the one that has
//! the client and can answer it ([`crate::refusal`]): the daemon says that it serves ([`LAUNCHED`]), any other what went
//! wrong before, in words.

use crate::error::Error;
use std::fmt::Display;
use std::io::{PipeReader, Read, Write};
use std::path::Path;

/// What the daemon writes once it serves the client; no text begins so.
pub(crate) const LAUNCHED: u8 = 0;
/// Most bytes that are read of a text.
const MAX_TEXT: u64 = 4096;

/// Why the session has not begun, whose processes have all ended; none if it has. `silent` is for the case that no
/// process has said anything.
pub(crate) fn failure(pipe: &PipeReader, silent: impl FnOnce() -> Error) -> Option<Error> {
    let mut text = Vec::new();
    // What there is, is all that is known.
    pipe.take(MAX_TEXT).read_to_end(&mut text).ok();
    let text = String::from_utf8_lossy(&text);
    match text.trim() {
        _ if text.as_bytes().first() == Some(&LAUNCHED) => None,
        "" => Some(silent()),
        // Of a terminal, which has lines that end in CR and LF.
        text => Some(Error::Served(text.replace("\r\n", "\n"))),
    }
}

/// Says what went wrong.
pub(crate) fn say(mut to: impl Write, why: impl Display) {
    // If nobody reads it, nobody waits for it.
    writeln!(to, "{why}").ok();
}

/// A daemon that has ended before it served.
pub(crate) fn daemon_ended(daemon: &Path, status: i32) -> Error {
    Error::Missing(format!(
        "{} ended with status {status} before it served: it is no guestfsd, or one that does not run \
         here; --guestfsd or {} says which one is used, and with LIBGUESTFS_DEBUG=1 what it said is \
         shown",
        daemon.display(),
        crate::daemon::VARIABLE
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::pipe;

    fn said(bytes: &[u8]) -> Option<String> {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(bytes).unwrap();
        drop(writer);
        failure(&reader, || Error::Missing("silent".into())).map(|e| e.to_string())
    }

    #[test]
    fn a_session_that_has_not_begun_has_a_reason() {
        assert_eq!(said(&[LAUNCHED]), None);
        assert_eq!(said(&[LAUNCHED, b'x']), None);
        assert_eq!(said(b"").as_deref(), Some("silent"));
        assert_eq!(said(b"a\r\nb\r\n").as_deref(), Some("a\nb"));
        assert_eq!(said(&[b'x'; 9000]).map(|text| text.len()), Some(4096));
    }
}
