// SPDX-License-Identifier: Apache-2.0
//! Programs of the guest, run in it.
//!
//! What they write to standard output is the result. A program that fails is an error whose text is what it
//! wrote to standard error.

use crate::session::Session;
use crate::tool::{Output, Tool};
use crate::transfer::FileOut;
use guest_error::{Errno, Error, Result, from_io};
use std::ffi::OsStr;
use std::io::Write;

/// Runs a program of the guest.
pub(crate) fn command(s: &mut Session, arguments: &[&OsStr]) -> Result<Vec<u8>> {
    let mut text = checked(tool(s, arguments)?.run()?)?.stdout;
    // Text ends where clients see it end.
    text.truncate(text.iter().position(|&b| b == 0).unwrap_or(text.len()));
    Ok(text)
}

/// Runs a program of the guest; returns lines.
pub(crate) fn command_lines(s: &mut Session, arguments: &[&OsStr]) -> Result<Vec<Vec<u8>>> {
    command(s, arguments).map(|text| lines(&text))
}

/// Has the guest's shell run a command.
pub(crate) fn sh(s: &mut Session, command: &OsStr) -> Result<Vec<u8>> {
    self::command(s, &shell(command))
}

/// Has the guest's shell run a command; returns lines.
pub(crate) fn sh_lines(s: &mut Session, command: &OsStr) -> Result<Vec<Vec<u8>>> {
    sh(s, command).map(|text| lines(&text))
}

/// Runs a program of the guest and sends what it writes.
pub(crate) fn command_out(
    s: &mut Session,
    arguments: &[&OsStr],
    output: &mut FileOut<'_>,
) -> Result<()> {
    let name = arguments.first().copied().unwrap_or_default();
    let done = tool(s, arguments)?.stream(&mut std::io::empty(), &mut |piece| {
        output.write_all(piece).map_err(|e| from_io(e, name))
    });
    checked(done?).map(drop)
}

/// Has the guest's shell run a command and sends what it writes.
pub(crate) fn sh_out(s: &mut Session, command: &OsStr, output: &mut FileOut<'_>) -> Result<()> {
    command_out(s, &shell(command), output)
}

fn shell(command: &OsStr) -> [&OsStr; 3] {
    [OsStr::new("/bin/sh"), OsStr::new("-c"), command]
}

fn tool(s: &Session, arguments: &[&OsStr]) -> Result<Tool> {
    let Some((program, rest)) = arguments.split_first() else {
        return Err(Error::new(Errno::EINVAL, "arguments: the list must hold a program's name"));
    };
    s.need_root()?;
    Ok(Tool::in_guest(s.config(), program)?.args(rest))
}

/// As `Output::success`, but with nothing before the program's own words: callers show them as they are.
fn checked(output: Output) -> Result<Output> {
    let said = output.stderr.trim_end_matches('\n');
    match output.code {
        0 => Ok(output),
        _ if said.is_empty() => Err(output.failure()),
        _ => Err(Error::new(Errno::EIO, said)),
    }
}

/// Lines without their ends; what follows the last end is a line if it is anything.
fn lines(text: &[u8]) -> Vec<Vec<u8>> {
    if text.is_empty() {
        return Vec::new();
    }
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_newlines_end() {
        let of = |text: &str| lines(text.as_bytes()).iter().map(Vec::len).collect::<Vec<_>>();
        assert!(of("").is_empty());
        assert_eq!(of("\n"), [0]);
        assert_eq!(of("a\n\nbc"), [1, 0, 2]);
        assert_eq!(of("a\nbc\n"), [1, 2]);
    }
}
