// SPDX-License-Identifier: Apache-2.0
//! The configuration string of a device, as it stands in configfs:
//!
//! ```text
//! SUBTYPE/[;OPTION=VALUE;]...REST[;OPTION=VALUE]...
//! ```
//!
//! `SUBTYPE` names the store, which decides what `REST` means: a path (`file//scratch/x.img` is
//! the file `/scratch/x.img`), a size, or nothing. A store of [`LAYERS`] may lie on any other one:
//! its `REST` is a path, or the `SUBTYPE/REST` of what is below it (`luks/qcow//scratch/x.qcow2`).
//! Options may stand anywhere after the subtype; each is for the layer that takes it. [`OPTIONS`] has
//! all of them. The parser, errors, D-Bus and the man page follow that table.
//!
//! The C daemon leaves options that it does not know in `REST`; here they are refused, because
//! a misspelt option would become part of a file's name. A `;` that is not followed by
//! `NAME=VALUE` is an ordinary character of `REST`, except at the end.
use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use crate::Error;
use crate::options::{ConfigOption, ImageOptions, OPTIONS, Settings, parse_size};

/// What fails, in errors.
const OPERATION: &str = "configuration string";

/// Subtypes whose images may be in another store. Each may stand in a string once.
pub(crate) const LAYERS: &[&str] = &["luks", "qcow"];

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
        let mut options = Vec::new();
        let mut parts = rest.split(';');
        let mut kept = Cow::Borrowed(parts.next().unwrap_or_default());
        let mut parts = parts.peekable();
        // The semicolon that ends an option belongs to it: `;tcmur_cmd_time_out=5;/path`.
        let mut after_option = false;
        while let Some(part) = parts.next() {
            match option(part) {
                Some(option) => {
                    options.push(option);
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
        let layers = layers(subtype, &kept).map_err(invalid)?;
        let mut settings = Settings::default();
        for (name, value) in options {
            set(&mut settings, &layers, name, value).map_err(invalid)?;
        }
        let (command_timeout, image) = settings;
        if let Some(name) = image.snapshot.as_ref().filter(|_| image.compress) {
            return Err(invalid(format!(
                "snapshot={name}: a snapshot is only read, and compress=on is for writing"
            )));
        }
        Ok(Config { subtype, rest: kept, command_timeout, image })
    }

    /// What a layer lies on, if that is another store than the file at a path.
    pub(crate) fn below(&self) -> Option<Config<'_>> {
        let (subtype, rest) = split(self.subtype, &self.rest)?;
        let mut image = self.image.clone();
        // It is the outer one that has a passphrase, if it is that of a LUKS volume.
        image.secret.take_if(|_| self.subtype == "luks");
        Some(Config { subtype, rest: Cow::Borrowed(rest), command_timeout: None, image })
    }

    /// The image options of this layer alone: of two that could have a passphrase, the LUKS volume
    /// has it.
    pub(crate) fn own_image_options(&self) -> ImageOptions {
        let mut image = self.image.clone();
        image.secret.take_if(|_| self.subtype != "luks" && self.lies_on("luks"));
        image
    }

    fn lies_on(&self, subtype: &str) -> bool {
        self.below().is_some_and(|below| below.subtype == subtype || below.lies_on(subtype))
    }

    /// What the bottom of the stack has as its rest: the path of the image, for most stores.
    pub fn bottom(&self) -> PathBuf {
        self.below().map_or_else(|| PathBuf::from(&*self.rest), |below| below.bottom())
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

/// What a layer with this rest lies on, if that is another store: its subtype and rest.
fn split<'a>(subtype: &str, rest: &'a str) -> Option<(&'a str, &'a str)> {
    let below = rest.split_once('/').filter(|(below, _)| !below.is_empty())?;
    LAYERS.contains(&subtype).then_some(below)
}

/// The subtypes of a stack, from the top down.
fn layers<'a>(subtype: &'a str, rest: &'a str) -> Result<Vec<&'a str>, String> {
    let (mut layers, mut rest) = (vec![subtype], rest);
    while let Some((below, its)) = layers.last().and_then(|top| split(top, rest)) {
        if layers.contains(&below) {
            return Err(format!("{below} stands in it twice; a store has a layer once"));
        }
        layers.push(below);
        rest = its;
    }
    Ok(layers)
}

/// Takes the value of an option, or says what is wrong.
fn set(settings: &mut Settings, layers: &[&str], name: &str, value: &str) -> Result<(), String> {
    let is_for = |option: &&ConfigOption| layers.iter().any(|layer| option.is_for(layer));
    let known = || OPTIONS.iter().filter(is_for);
    let subtype = layers.join("/");
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
    use crate::SecretSource;

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
                 compress=on|off, snapshot=NAME, secret-file=PATH, secret-credential=NAME, \
                 secret-fd=N",
            ),
            (
                "file//x;cache-size=1M",
                "file has no option \"cache-size\"; there is tcmur_cmd_time_out=SECONDS",
            ),
            ("qcow//x;compress=yes", "compress=yes: it has to be on or off"),
            ("qcow//x;cache-size=0", "cache-size=0: it has to be a size, such as 64M"),
            ("qcow//x;secret-file=s", "secret-file=s: it has to be an absolute path"),
            ("luks//x;header=h", "header=h: it has to be an absolute path"),
            (
                "luks//x;secret-credential=../s",
                "secret-credential=../s: it has to be the name of a credential",
            ),
            ("luks//x;secret-fd=-1", "secret-fd=-1: it has to be the number of a descriptor"),
            (
                "luks//x;secret-file=/a;secret-fd=3",
                "secret-fd=3: it has to be the only option that says where the passphrase is",
            ),
            (
                "luks/file//x;cache-size=1M",
                "luks/file has no option \"cache-size\"; there is tcmur_cmd_time_out=SECONDS, \
                 secret-file=PATH, secret-credential=NAME, secret-fd=N, header=PATH, \
                 discard=on|off",
            ),
            ("luks/qcow/luks//x", "luks stands in it twice; a store has a layer once"),
            ("luks/x", "the path is relative; it has to be luks//path/to/image"),
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
    fn a_layer_lies_on_another_store_and_the_passphrase_is_that_of_the_luks_volume() {
        let secret = Some(SecretSource::Descriptor(3));
        for (string, own, below) in [
            ("luks/qcow//x;secret-fd=3;cache-size=1M", secret.clone(), None),
            ("qcow/luks//x;secret-fd=3;cache-size=1M", None, secret.clone()),
            ("qcow/file//x;secret-fd=3;cache-size=1M", secret.clone(), secret.clone()),
        ] {
            let top = Config::parse(string).unwrap();
            let bottom = top.below().unwrap();
            assert_eq!((&*bottom.rest, bottom.below()), ("/x", None));
            assert_eq!(top.bottom(), PathBuf::from("/x"));
            assert_eq!(top.own_image_options().secret, own, "{string}");
            assert_eq!(bottom.own_image_options().secret, below, "{string}");
            assert_eq!(bottom.image.cache_size, Some(1 << 20));
        }
        for string in ["luks//x/y", "file/qcow//x", "rbd/pool/image", "null/"] {
            assert_eq!(Config::parse(string).unwrap().below(), None, "{string}");
        }
        let three = Config::parse("luks/qcow/rbd/pool/image").unwrap();
        let lowest = three.below().unwrap();
        let lowest = lowest.below().unwrap();
        assert_eq!((lowest.subtype, &*lowest.rest), ("rbd", "pool/image"));
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
