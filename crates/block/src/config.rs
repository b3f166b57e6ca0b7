// SPDX-License-Identifier: Apache-2.0
//! The configuration string of a device, as it stands in configfs:
//!
//! ```text
//! SUBTYPE/[;OPTION=VALUE;]...REST[;OPTION=VALUE]...
//! ```
//!
//! `SUBTYPE` names the store, which decides what `REST` means: a path (`file//scratch/x.img` is
//! the file `/scratch/x.img`), a size, or nothing. Options may stand anywhere after the subtype;
//! [`OPTIONS`] has all of them. The parser, errors, D-Bus and the man page follow that table.
//!
//! The C daemon leaves options that it does not know in `REST`; here they are refused, because
//! a misspelt option would become part of a file's name. A `;` that is not followed by
//! `NAME=VALUE` is an ordinary character of `REST`, except at the end.
use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use crate::Error;

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
    /// How an image is opened.
    pub image: ImageOptions,
}

/// How an image is opened, beyond what all stores have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// The bytes that cached tables of a qcow2 image may take; `None`: what it needs, within limits.
    pub cache_size: Option<u64>,
    /// Whether what is written to a qcow2 image is compressed.
    pub compress: bool,
    /// The identifier, or else the name, of the internal snapshot that is served, to be read only.
    pub snapshot: Option<String>,
    /// The file that has the passphrase of an encrypted image.
    pub secret_file: Option<PathBuf>,
    /// How the Ceph cluster of an image is connected to.
    pub rbd: rbd::Options,
}

/// What a configuration string sets beside subtype and rest.
type Settings = (Option<Duration>, ImageOptions);

/// An option of configuration strings.
#[derive(Debug)]
pub struct ConfigOption {
    /// As it stands before the `=`.
    pub name: &'static str,
    /// What stands after it, in one word.
    pub value: &'static str,
    /// What it does: a sentence, without markup.
    pub doc: &'static str,
    /// The subtypes that take it; none: all.
    pub subtypes: &'static [&'static str],
    /// Takes a value, or says what it has to be.
    set: fn(&mut Settings, &str) -> Result<(), &'static str>,
}

impl ConfigOption {
    /// Whether devices of a subtype take it.
    pub fn is_for(&self, subtype: &str) -> bool {
        self.subtypes.is_empty() || self.subtypes.contains(&subtype)
    }
}

/// The option that devices of all subtypes have, those of plugins included.
pub const COMMAND_TIME_OUT: &str = "tcmur_cmd_time_out";

/// The value of [`COMMAND_TIME_OUT`]: after how long a running command is reported.
///
/// # Errors
/// What it has to be.
pub fn command_timeout(value: &str) -> Result<Option<Duration>, &'static str> {
    let seconds = value.parse::<u32>().map_err(|_| "a number of seconds below 2^32")?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds.into())))
}

/// All options.
pub static OPTIONS: &[ConfigOption] = &[
    ConfigOption {
        name: COMMAND_TIME_OUT,
        value: "SECONDS",
        doc: "Reports commands that are under way for longer; 0 reports none.",
        subtypes: &[],
        set: |(timeout, _), value| {
            *timeout = command_timeout(value)?;
            Ok(())
        },
    },
    ConfigOption {
        name: "cache-size",
        value: "SIZE",
        doc: "The memory that tables of the image may take, such as 64M. The default is what the \
              image needs, at most 32M, which is enough for 128 GiB in clusters of 64 KiB.",
        subtypes: &["qcow"],
        set: |(_, image), value| {
            image.cache_size = Some(parse_size(value).ok_or("a size, such as 64M")?);
            Ok(())
        },
    },
    ConfigOption {
        name: "compress",
        value: "on|off",
        doc: "Compresses what is written, by the cluster, as the image says: deflate or zstd. Writes \
              of less than a cluster cost much more than without.",
        subtypes: &["qcow"],
        set: |(_, image), value| {
            image.compress = parse_switch(value).ok_or("on or off")?;
            Ok(())
        },
    },
    ConfigOption {
        name: "snapshot",
        value: "NAME",
        doc: "Serves an internal snapshot of the image, to be read only: the one that has this \
              identifier, or else this name. A name cannot contain a semicolon here.",
        subtypes: &["qcow"],
        set: |(_, image), value| {
            image.snapshot = Some(value.to_owned());
            Ok(())
        },
    },
    ConfigOption {
        name: "secret-file",
        value: "PATH",
        doc: "The file whose bytes are the passphrase of an encrypted image, as QEMU's secret \
              objects have them: all of them, a newline at the end included. Nobody but its owner \
              may have rights to it.",
        subtypes: &["qcow"],
        set: |(_, image), value| {
            image.secret_file = Some(absolute(value)?);
            Ok(())
        },
    },
    ConfigOption {
        name: "conf",
        value: "PATH",
        doc: "The configuration file of the Ceph cluster. The default is that of CEPH_CONF, or \
              /etc/ceph/ceph.conf.",
        subtypes: &["rbd"],
        set: |(_, image), value| {
            image.rbd.conf = Some(absolute(value)?);
            Ok(())
        },
    },
    ConfigOption {
        name: "id",
        value: "NAME",
        doc: "The user of the Ceph cluster, without \"client.\"; the default is admin.",
        subtypes: &["rbd"],
        set: |(_, image), value| {
            image.rbd.id = Some(value.to_owned());
            Ok(())
        },
    },
    ConfigOption {
        name: "keyring",
        value: "PATH",
        doc: "The file with that user's key. The default is what the configuration file says.",
        subtypes: &["rbd"],
        set: |(_, image), value| {
            image.rbd.keyring = Some(absolute(value)?);
            Ok(())
        },
    },
    ConfigOption {
        name: "osd_op_timeout",
        value: "SECONDS",
        doc: "After so long an operation that no OSD answers fails. The default, 0, waits until one \
              answers.",
        subtypes: &["rbd"],
        set: |(_, image), value| {
            image.rbd.osd_op_timeout = command_timeout(value)?;
            Ok(())
        },
    },
];

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
        let mut settings = Settings::default();
        let mut parts = rest.split(';');
        let mut kept = Cow::Borrowed(parts.next().unwrap_or_default());
        let mut parts = parts.peekable();
        // The semicolon that ends an option belongs to it: `;tcmur_cmd_time_out=5;/path`.
        let mut after_option = false;
        while let Some(part) = parts.next() {
            match option(part) {
                Some((name, value)) => {
                    set(&mut settings, subtype, name, value).map_err(invalid)?;
                    after_option = true;
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
        let (command_timeout, image) = settings;
        if let Some(name) = image.snapshot.as_ref().filter(|_| image.compress) {
            return Err(invalid(format!(
                "snapshot={name}: a snapshot is only read, and compress=on is for writing"
            )));
        }
        Ok(Config { subtype, rest: kept, command_timeout, image })
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
        match parse_size(text) {
            Some(size) => Ok(Some(size)),
            None => Err(Error::invalid(
                format!(
                    "{text:?} is not a size; it has to be a number with K, M, G or T, such as 64M"
                ),
                OPERATION,
                format!("{}/{}", self.subtype, self.rest),
            )),
        }
    }
}

/// Takes the value of an option, or says what is wrong.
fn set(settings: &mut Settings, subtype: &str, name: &str, value: &str) -> Result<(), String> {
    let known = || OPTIONS.iter().filter(|option| option.is_for(subtype));
    let Some(option) = known().find(|option| option.name == name) else {
        let list: Vec<_> =
            known().map(|option| format!("{}={}", option.name, option.value)).collect();
        let list = list.join(", ");
        return Err(match OPTIONS.iter().any(|option| option.name == name) {
            true => format!("{subtype} has no option {name:?}; there is {list}"),
            false => format!("unknown option {name:?}; there is {list}"),
        });
    };
    (option.set)(settings, value).map_err(|why| format!("{name}={value}: it has to be {why}"))
}

/// A number with an optional suffix K, M, G or T, powers of 1024; positive, and no more than a file
/// can have.
fn parse_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        Some(b'T' | b't') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    // `parse` takes a plus sign; a size has none.
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let size = digits.parse::<u64>().ok().filter(|_| plain)?.checked_mul(1 << shift)?;
    (size > 0 && i64::try_from(size).is_ok()).then_some(size)
}

/// A path that means the same to everybody.
fn absolute(value: &str) -> Result<PathBuf, &'static str> {
    Some(PathBuf::from(value)).filter(|path| path.is_absolute()).ok_or("an absolute path")
}

/// `on` or `off`.
fn parse_switch(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

/// `NAME=VALUE`, when that is what a part looks like.
fn option(part: &str) -> Option<(&str, &str)> {
    let (name, value) = part.split_once('=')?;
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
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
                "qcow//x;cache=none",
                "unknown option \"cache\"; there is tcmur_cmd_time_out=SECONDS, cache-size=SIZE, \
                 compress=on|off, snapshot=NAME, secret-file=PATH",
            ),
            (
                "file//x;cache-size=1M",
                "file has no option \"cache-size\"; there is tcmur_cmd_time_out=SECONDS",
            ),
            ("qcow//x;compress=yes", "compress=yes: it has to be on or off"),
            ("qcow//x;cache-size=0", "cache-size=0: it has to be a size, such as 64M"),
            ("qcow//x;secret-file=s", "secret-file=s: it has to be an absolute path"),
            (
                "file//x;tcmur_cmd_time_out=soon",
                "tcmur_cmd_time_out=soon: it has to be a number of seconds below 2^32",
            ),
            (
                "qcow//x;snapshot=a;compress=on",
                "snapshot=a: a snapshot is only read, and compress=on is for writing",
            ),
        ] {
            assert_eq!(error(config), text, "{config}");
        }
    }

    #[test]
    fn options_stand_anywhere_and_each_has_a_row() {
        for config in [
            "qcow/;cache-size=2M;compress=on;/x;tcmur_cmd_time_out=5",
            "qcow//x;tcmur_cmd_time_out=5;cache-size=2M;compress=on;",
        ] {
            let config = Config::parse(config).unwrap();
            let image = ImageOptions {
                cache_size: Some(2 << 20),
                compress: true,
                ..ImageOptions::default()
            };
            assert_eq!(config.image, image);
            assert_eq!((&*config.rest, config.command_timeout.is_some()), ("/x", true));
        }
        for (i, option) in OPTIONS.iter().enumerate() {
            assert!(OPTIONS.iter().skip(i + 1).all(|other| other.name != option.name));
            let known = |name| crate::SUBTYPES.iter().any(|subtype| subtype.name == name);
            assert!(option.subtypes.iter().all(|name| known(*name)), "{}", option.name);
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
