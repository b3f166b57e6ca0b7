// SPDX-License-Identifier: Apache-2.0
//! The options of configuration strings: the table of them, and what they set.
use std::path::PathBuf;
use std::time::Duration;

/// How an image is opened, beyond what all stores have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// The bytes that cached tables of a qcow2 image may take; `None`: what it needs, within limits.
    pub cache_size: Option<u64>,
    /// Whether what is written to a qcow2 image is compressed.
    pub compress: bool,
    /// The identifier, or else the name, of the internal snapshot that is served, to be read only.
    pub snapshot: Option<String>,
    /// Where the passphrase of an encrypted image is.
    pub secret: Option<SecretSource>,
    /// The file that has the header of a LUKS volume, if the volume itself has none.
    pub header: Option<PathBuf>,
    /// Whether a LUKS volume passes discards on.
    pub discard: bool,
    /// How the Ceph cluster of an image is connected to.
    pub rbd: rbd::Options,
}

/// Where a passphrase is: never in the string itself, which everybody can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In this file.
    File(PathBuf),
    /// In the file that this descriptor of the process refers to.
    Descriptor(u32),
    /// In the credential of this name, which systemd has given to the service.
    Credential(String),
}

/// What a configuration string sets beside subtype and rest.
pub(crate) type Settings = (Option<Duration>, ImageOptions);

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
    pub(crate) set: fn(&mut Settings, &str) -> Result<(), &'static str>,
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

/// Subtypes whose images may be encrypted.
const ENCRYPTED: &[&str] = &["luks", "qcow"];

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
              objects and cryptsetup's key files have them: all of them, a newline at the end \
              included. Nobody but its owner may have rights to it.",
        subtypes: ENCRYPTED,
        set: |(_, image), value| set_secret(image, SecretSource::File(absolute(value)?)),
    },
    ConfigOption {
        name: "secret-credential",
        value: "NAME",
        doc: "The same, of a credential that systemd has given to the daemon (LoadCredential= or \
              LoadCredentialEncrypted= of its unit).",
        subtypes: ENCRYPTED,
        set: |(_, image), value| {
            let plain = !matches!(value, "" | "." | "..") && !value.contains('/');
            let name = plain.then(|| value.to_owned()).ok_or("the name of a credential")?;
            set_secret(image, SecretSource::Credential(name))
        },
    },
    ConfigOption {
        name: "secret-fd",
        value: "N",
        doc: "The same, of a file that the daemon has open as descriptor N from its start on. It \
              cannot be a pipe, as it is read again when the device is opened again.",
        subtypes: ENCRYPTED,
        set: |(_, image), value| {
            let number = value.parse().ok().filter(|n| *n <= i32::MAX as u32);
            set_secret(image, SecretSource::Descriptor(number.ok_or("the number of a descriptor")?))
        },
    },
    ConfigOption {
        name: "header",
        value: "PATH",
        doc: "The file that has the header of the volume, where it is detached (cryptsetup's \
              --header). It is only read.",
        subtypes: &["luks"],
        set: |(_, image), value| {
            image.header = Some(absolute(value)?);
            Ok(())
        },
    },
    ConfigOption {
        name: "discard",
        value: "on|off",
        doc: "Passes discards on to what holds the encrypted blocks, where they show which blocks \
              are in use. What was discarded reads as anything.",
        subtypes: &["luks"],
        set: |(_, image), value| {
            image.discard = parse_switch(value).ok_or("on or off")?;
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

/// Notes where a passphrase is, of which there is one.
fn set_secret(image: &mut ImageOptions, source: SecretSource) -> Result<(), &'static str> {
    match image.secret.replace(source) {
        None => Ok(()),
        Some(_) => Err("the only option that says where the passphrase is"),
    }
}

/// A number with an optional suffix K, M, G or T, powers of 1024; positive, and no more than a file
/// can have.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
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
