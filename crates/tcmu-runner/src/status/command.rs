// SPDX-License-Identifier: Apache-2.0
//! `tcmu-runner status`: asks the daemon that runs, and tells people or scripts.
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use super::report::Report;
use super::{SOCKET, STATUS, text};

/// For the daemon's answer.
const TIME: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes: some thousand devices.
const MAX_ANSWER: u64 = 64 << 20;

/// Prints how the daemon does; fails where it cannot be asked.
pub fn run(json: bool) -> ExitCode {
    match ask().and_then(|body| shown(&body, json)) {
        // Who reads no further has what it wants.
        Ok(text) => {
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(why) => {
            let _ = writeln!(io::stderr(), "tcmu-runner: {why}");
            ExitCode::FAILURE
        }
    }
}

fn shown(body: &str, json: bool) -> Result<String, String> {
    let failed = |error: serde_json::Error| format!("{SOCKET}: the answer is no report: {error}");
    if json {
        // As it is: it may have more than this program knows.
        let value: serde_json::Value = serde_json::from_str(body).map_err(failed)?;
        return serde_json::to_string_pretty(&value).map(|text| text + "\n").map_err(failed);
    }
    let report: Report = serde_json::from_str(body).map_err(failed)?;
    Ok(text::render(&report))
}

/// The body of the daemon's answer.
fn ask() -> Result<String, String> {
    let connected = UnixStream::connect(SOCKET).map_err(|error| {
        let what = match error.kind() {
            io::ErrorKind::PermissionDenied => "only root may ask: use sudo",
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                "no daemon runs here that can be asked. \"systemctl status tcmu-runner\" and \
                 \"tcmu-runner check\" tell more"
            }
            _ => "the daemon cannot be asked",
        };
        format!("{SOCKET}: {error}: {what}")
    });
    let answered = connected.and_then(|stream| {
        exchange(stream).map_err(|error| format!("{SOCKET}: the daemon does not answer: {error}"))
    });
    let answer = answered?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(format!("{SOCKET}: the daemon gives no report: {}", body.trim_end())),
    }
}

fn exchange(mut stream: UnixStream) -> io::Result<String> {
    stream.set_read_timeout(Some(TIME))?;
    stream.set_write_timeout(Some(TIME))?;
    stream.write_all(format!("GET {STATUS} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}
