// SPDX-License-Identifier: Apache-2.0
//! `/etc/tcmu/tcmu.conf` as a file: bytes go in, settings with their line numbers come out, and
//! [`Watch`] tells when it may have changed. What a setting means is its reader's: the daemon knows
//! all of them, the library those of its log.
//!
//! A line is `KEY = VALUE`; a value may be in quotation marks, and `#` begins a comment. Each line
//! stands by itself: what is wrong with one does not spoil the others.
mod watch;

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

pub use watch::Watch;

/// Where the file is.
pub const PATH: &str = "/etc/tcmu/tcmu.conf";
/// A larger file is not a configuration.
const MAX_LEN: u64 = 256 << 10;

/// A line that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<'a> {
    /// The number of the line, from 1.
    pub line: usize,
    /// The key, as far as the line has one.
    pub key: &'a str,
    /// The value without its quotation marks, or what is wrong with the line.
    pub value: Result<&'a str, Wrong>,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The whole line: it is no setting.
    Line(String),
    /// The value.
    Value(String),
}

/// Reads the file. Neither a FIFO nor a huge file in its place does harm.
///
/// # Errors
/// Those of open(2) and read(2); for what is not a regular file, or larger than 256 KiB.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = Vec::new();
    if file.take(MAX_LEN + 1).read_to_end(&mut text)? as u64 > MAX_LEN {
        return Err(io::Error::other("larger than 256 KiB"));
    }
    Ok(text)
}

/// The settings in the content of a file. A byte order mark (U+FEFF) at the beginning is skipped.
pub fn settings(content: &[u8]) -> impl Iterator<Item = Setting<'_>> {
    let content = content.strip_prefix("\u{feff}".as_bytes()).unwrap_or(content);
    let lines = content.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with(b"#"))
        .map(|(n, line)| setting(n + 1, line))
}

fn setting(line: usize, bytes: &[u8]) -> Setting<'_> {
    // A comment may be in any encoding.
    let without_comment = || match bytes.split(|&byte| byte == b'#').next().map(str::from_utf8) {
        Some(Ok(text)) if !text.contains('"') => Some(text.trim()),
        _ => None,
    };
    let Some(text) = str::from_utf8(bytes).ok().or_else(without_comment) else {
        let shown = String::from_utf8_lossy(bytes);
        let why = format!("it is not UTF-8: \"{}\"", shown.escape_debug());
        let key = bytes.split(|&byte| byte == b'=').next().unwrap_or_default();
        let key = str::from_utf8(key.trim_ascii()).unwrap_or_default();
        return Setting { line, key, value: Err(Wrong::Line(why)) };
    };
    match text.split_once('=') {
        Some((key, value)) => {
            Setting { line, key: key.trim(), value: unquote(value).map_err(Wrong::Value) }
        }
        None => {
            let why = "it is not of the form KEY = VALUE".to_owned();
            Setting { line, key: "", value: Err(Wrong::Line(why)) }
        }
    }
}

/// The value without its quotation marks and without a comment after it.
fn unquote(value: &str) -> Result<&str, String> {
    let value = value.trim();
    if let Some(rest) = value.strip_prefix('"') {
        let (inner, after) = rest.split_once('"').ok_or("the closing quotation mark is missing")?;
        let after = after.trim_start();
        if after.is_empty() || after.starts_with('#') {
            return Ok(inner);
        }
        return Err("there is something after the closing quotation mark".into());
    }
    match value.split_once('#').map_or(value, |(before, _)| before.trim_end()) {
        "" => Err("there is no value".into()),
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_a_regular_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).is_err());
        assert!(read(Path::new("/dev/zero")).is_err());
        let large = dir.path().join("large");
        std::fs::write(&large, vec![b'#'; 300 << 10]).unwrap();
        assert_eq!(read(&large).unwrap_err().to_string(), "larger than 256 KiB");
    }

    #[test]
    fn a_line_is_a_key_and_a_value_that_may_be_quoted() {
        let text = "\u{feff}a=1 # one\n# b = 2\n\n c\t= \"x # y\"  # z\r\nd\ne = \n";
        let all: Vec<_> = settings(text.as_bytes()).collect();
        let value = |n: usize| (all[n].line, all[n].key, all[n].value.as_deref().ok());
        assert_eq!(value(0), (1, "a", Some("1")));
        assert_eq!(value(1), (4, "c", Some("x # y")));
        let line = Wrong::Line("it is not of the form KEY = VALUE".into());
        assert_eq!(all[2].value, Err(line));
        assert_eq!(all[3].value, Err(Wrong::Value("there is no value".into())));
        assert_eq!(all.len(), 4);
    }

    proptest! {
        #[test]
        fn any_bytes_are_lines_with_growing_numbers(
            text in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let lines: Vec<_> = settings(&text).map(|setting| setting.line).collect();
            prop_assert!(lines.is_sorted_by(|a, b| a < b));
            prop_assert!(lines.last().is_none_or(|&l| l <= text.split(|&b| b == b'\n').count()));
        }
    }
}
