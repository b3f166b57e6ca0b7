// SPDX-License-Identifier: Apache-2.0
//! The configuration string of a device, as it stands in configfs:
//!
//! ```text
//! SUBTYPE/[;OPTION=VALUE;]...REST[;OPTION=VALUE]...
//! ```
//!
//! `SUBTYPE` names the store, which decides what `REST` means: a path (`file//scratch/x.img` is
//! the file `/scratch/x.img`), a size, or nothing. Options concern the daemon and may stand anywhere
//! after the subtype; there is one:
//!
//! | option | meaning |
//! | --- | --- |
//! | `tcmur_cmd_time_out=N` | seconds after which a running command is reported; 0: never |
//!
//! The C daemon leaves options that it does not know in `REST`; here they are refused, because
//! a misspelt option would become part of a file's name. A `;` that is not followed by
//! `NAME=VALUE` is an ordinary character of `REST`, except at the end.
use std::borrow::Cow;
use std::time::Duration;

use crate::Error;

/// The name of the one option.
const COMMAND_TIMEOUT: &str = "tcmur_cmd_time_out";
/// What fails, in errors.
const OPERATION: &str = "configuration string";

/// A parsed configuration string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config<'a> {
    /// The name of the store, not empty.
    pub subtype: &'a str,
    /// What follows the slash, without options.
    pub rest: Cow<'a, str>,
    /// After how long a running command is reported, when asked for.
    pub command_timeout: Option<Duration>,
}

impl<'a> Config<'a> {
    /// Parses a string. It does not check that the subtype exists, or what `rest` means to it.
    pub fn parse(config: &'a str) -> Result<Self, Error> {
        let invalid = |text: String| Error::invalid(text, OPERATION, config);
        let Some((subtype, rest)) = config.split_once('/') else {
            return Err(invalid(
                "it has no '/'; it has to be SUBTYPE/REST, such as file//path/to/image".into(),
            ));
        };
        if subtype.is_empty() {
            return Err(invalid(
                "it begins with '/'; the subtype (file, qcow, ...) is missing".into(),
            ));
        }
        if config.contains('\0') {
            return Err(invalid("it contains a NUL byte".into()));
        }
        let mut parsed = Config { subtype, rest: Cow::Borrowed(""), command_timeout: None };
        let mut parts = rest.split(';');
        let mut kept = Cow::Borrowed(parts.next().unwrap_or_default());
        let mut parts = parts.peekable();
        // The semicolon that ends an option belongs to it: `;tcmur_cmd_time_out=5;/path`.
        let mut after_option = false;
        while let Some(part) = parts.next() {
            match option(part) {
                Some((COMMAND_TIMEOUT, value)) => {
                    let seconds = value.parse::<u32>().map_err(|_| {
                        invalid(format!(
                            "{COMMAND_TIMEOUT}={value}: it has to be a number of seconds"
                        ))
                    })?;
                    parsed.command_timeout =
                        (seconds > 0).then(|| Duration::from_secs(seconds.into()));
                    after_option = true;
                }
                Some((name, _)) => {
                    return Err(invalid(format!(
                        "unknown option {name:?}; there is {COMMAND_TIMEOUT}=SECONDS"
                    )));
                }
                None if part.is_empty() && parts.peek().is_none() => {}
                None => {
                    let kept = kept.to_mut();
                    if !std::mem::take(&mut after_option) {
                        kept.push(';');
                    }
                    kept.push_str(part);
                }
            }
        }
        parsed.rest = kept;
        Ok(parsed)
    }

    /// The rest as a path, which has to be absolute: the daemon's working directory means nothing
    /// to its users.
    pub(crate) fn path(&self) -> Result<&std::path::Path, Error> {
        if self.rest.starts_with('/') {
            return Ok(self.rest.as_ref().as_ref());
        }
        let what =
            if self.rest.is_empty() { "the path is missing" } else { "the path is relative" };
        Err(Error::invalid(
            format!("{what}; it has to be {}//path/to/image", self.subtype),
            OPERATION,
            format!("{}/{}", self.subtype, self.rest),
        ))
    }

    /// The rest as a size in bytes with an optional suffix K, M, G or T (powers of 1024); `None`
    /// when it is empty. A slash before it is allowed, as in `ram//1G`.
    pub(crate) fn size(&self) -> Result<Option<u64>, Error> {
        let text = self.rest.strip_prefix('/').unwrap_or(&self.rest);
        if text.is_empty() {
            return Ok(None);
        }
        let (digits, shift) = match text.as_bytes().last() {
            Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
            Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
            Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
            Some(b'T' | b't') => (&text[..text.len() - 1], 40),
            _ => (text, 0),
        };
        // `parse` takes a plus sign; a size has none.
        let plain = digits.bytes().all(|b| b.is_ascii_digit());
        match digits.parse::<u64>().ok().filter(|_| plain).and_then(|n| n.checked_mul(1 << shift)) {
            Some(size) if size > 0 && i64::try_from(size).is_ok() => Ok(Some(size)),
            _ => Err(Error::invalid(
                format!(
                    "{text:?} is not a size; it has to be a number with K, M, G or T, such as 64M"
                ),
                OPERATION,
                format!("{}/{}", self.subtype, self.rest),
            )),
        }
    }
}

/// `NAME=VALUE`, when that is what a part looks like.
fn option(part: &str) -> Option<(&str, &str)> {
    let (name, value) = part.split_once('=')?;
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    (plain && !name.is_empty()).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(config: &str) -> (String, String, Option<u64>) {
        let c = Config::parse(config).unwrap();
        (c.subtype.into(), c.rest.into_owned(), c.command_timeout.map(|t| t.as_secs()))
    }

    fn error(config: &str) -> String {
        let config = Config::parse(config);
        let e = config.and_then(|c| c.path().map(drop).and(c.size().map(drop)));
        e.unwrap_err().kind.to_string()
    }

    #[test]
    fn strings_as_targetcli_writes_them_are_taken_apart() {
        let none = None::<u64>;
        for (config, want) in [
            ("file//scratch/x.img", ("file", "/scratch/x.img", none)),
            ("qcow//a/b;tcmur_cmd_time_out=30", ("qcow", "/a/b", Some(30))),
            ("qcow//a/b;tcmur_cmd_time_out=30;", ("qcow", "/a/b", Some(30))),
            ("qcow//a/b;tcmur_cmd_time_out=0", ("qcow", "/a/b", None)),
            ("file/;tcmur_cmd_time_out=5;/a/b", ("file", "/a/b", Some(5))),
            ("rbd/;tcmur_cmd_time_out=5;pool/x;y", ("rbd", "pool/x;y", Some(5))),
            ("file//with;semicolon;tcmur_cmd_time_out=1", ("file", "/with;semicolon", Some(1))),
            ("file//odd;.=;x", ("file", "/odd;.=;x", None)),
            ("null/", ("null", "", None)),
            ("ram//64M", ("ram", "/64M", None)),
        ] {
            let want = (want.0.to_owned(), want.1.to_owned(), want.2);
            assert_eq!(parts(config), want, "{config}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (config, text) in [
            ("file", "it has no '/'; it has to be SUBTYPE/REST, such as file//path/to/image"),
            ("", "it has no '/'; it has to be SUBTYPE/REST, such as file//path/to/image"),
            ("/x", "it begins with '/'; the subtype (file, qcow, ...) is missing"),
            ("file//a\0b", "it contains a NUL byte"),
            ("file/", "the path is missing; it has to be file//path/to/image"),
            ("file/x", "the path is relative; it has to be file//path/to/image"),
            ("file//x;cache=none", "unknown option \"cache\"; there is tcmur_cmd_time_out=SECONDS"),
            (
                "file//x;tcmur_cmd_time_out=soon",
                "tcmur_cmd_time_out=soon: it has to be a number of seconds",
            ),
        ] {
            assert_eq!(error(config), text, "{config}");
        }
    }

    #[test]
    fn sizes_have_binary_suffixes() {
        let size = |text: &str| Config::parse(&format!("ram/{text}")).unwrap().size();
        for (text, want) in [
            ("", None),
            ("/", None),
            ("4096", Some(4096)),
            ("/1k", Some(1024)),
            ("/3M", Some(3 << 20)),
            ("/2G", Some(2 << 30)),
            ("/1T", Some(1 << 40)),
        ] {
            assert_eq!(size(text).unwrap(), want, "{text}");
        }
        for text in [
            "/0",
            "/x",
            "/-1",
            "/+1",
            "/1X",
            "/K",
            "/1MB",
            "/9999999T",
            "/99999999999999999999",
            "/1 G",
            "/é",
        ] {
            let e = size(text).unwrap_err().kind.to_string();
            assert!(e.contains("is not a size"), "{text}: {e}");
        }
    }

    proptest! {
        #[test]
        fn any_string_is_taken_apart_or_refused(config in ".{0,80}|[a-z]{1,4}/[;=/a-z0-9_]{0,80}") {
            if let Ok(c) = Config::parse(&config) {
                prop_assert!(!c.subtype.is_empty() && !c.subtype.contains('/'));
                prop_assert!(!c.rest.contains("tcmur_cmd_time_out="));
                prop_assert!(c.rest.len() < config.len());
                let _ = (c.path(), c.size());
                // What is left is a string that says the same.
                let again = format!("{}/{}", c.subtype, c.rest);
                if !c.rest.ends_with(';') {
                    prop_assert_eq!(&Config::parse(&again).unwrap().rest, &c.rest);
                }
            }
        }
    }
}
