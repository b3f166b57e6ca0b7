// SPDX-License-Identifier: Apache-2.0
//! The text of a header of version 2 (specification 3), as it stands there: JSON, of which is kept what
//! opening a volume needs. What the values mean, and whether they are possible, is judged in
//! [`metadata`](super::metadata). The text is at most 4 MiB long; no list here has more than
//! [`MOST`] entries.
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_derive::Deserialize;

/// The most entries of an object whose keys are numbers: `cryptsetup` allows 32 of each kind.
pub(super) const MOST: usize = 32;

#[derive(Debug, Deserialize)]
pub(super) struct Text {
    pub(super) keyslots: Numbered<Keyslot>,
    pub(super) segments: Numbered<Segment>,
    pub(super) digests: Numbered<Digest>,
    pub(super) config: Config,
}

/// An object whose keys are numbers, in their order.
#[derive(Debug)]
pub(super) struct Numbered<T>(pub(super) Vec<(u32, T)>);

/// A number, which is text in JSON because it may have 64 bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Long(pub(super) u64);

/// The bytes that a text in base64 stands for.
#[derive(Debug)]
pub(super) struct Bytes(pub(super) Vec<u8>);

/// The fields of every type of key slot: each type has some of them.
#[derive(Debug, Deserialize)]
pub(super) struct Keyslot {
    pub(super) r#type: String,
    pub(super) key_size: Option<u64>,
    pub(super) area: Option<Area>,
    pub(super) kdf: Option<Kdf>,
    pub(super) af: Option<Splitter>,
    pub(super) priority: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Area {
    pub(super) r#type: String,
    pub(super) offset: Long,
    pub(super) size: Long,
    pub(super) encryption: Option<String>,
    pub(super) key_size: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Kdf {
    pub(super) r#type: String,
    pub(super) salt: Bytes,
    pub(super) hash: Option<String>,
    pub(super) iterations: Option<u64>,
    pub(super) time: Option<u64>,
    pub(super) memory: Option<u64>,
    pub(super) cpus: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Splitter {
    pub(super) r#type: String,
    pub(super) stripes: u64,
    pub(super) hash: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Segment {
    pub(super) r#type: String,
    pub(super) offset: Long,
    pub(super) size: String,
    pub(super) iv_tweak: Option<Long>,
    pub(super) encryption: Option<String>,
    pub(super) sector_size: Option<u64>,
    pub(super) integrity: Option<Integrity>,
    pub(super) flags: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Integrity {
    pub(super) r#type: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Digest {
    pub(super) r#type: String,
    pub(super) keyslots: Vec<Long>,
    pub(super) segments: Vec<Long>,
    pub(super) salt: Bytes,
    pub(super) digest: Bytes,
    pub(super) hash: Option<String>,
    pub(super) iterations: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Config {
    pub(super) keyslots_size: Long,
    pub(super) requirements: Option<Requirements>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Requirements {
    pub(super) mandatory: Option<Vec<String>>,
}

struct Entries<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
    type Value = Vec<(u32, T)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of at most {MOST} entries with numbers as keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Long>()? {
            let number =
                u32::try_from(key.0).map_err(|_| A::Error::custom("a key is too large"))?;
            if entries.iter().any(|(other, _)| *other == number) {
                return Err(A::Error::custom(format_args!("the key {number} is there twice")));
            }
            if entries.len() == MOST {
                return Err(A::Error::custom(format_args!(
                    "an object has more than {MOST} entries"
                )));
            }
            entries.push((number, map.next_value()?));
        }
        entries.sort_unstable_by_key(|(number, _)| *number);
        Ok(entries)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Numbered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries(PhantomData)).map(Numbered)
    }
}

/// Makes a value of a text.
struct Parsed<T> {
    what: &'static str,
    parse: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for Parsed<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::custom(format_args!("a text is not {}", self.what)))
    }
}

/// A number in decimal digits.
pub(super) fn number(text: &str) -> Option<u64> {
    // `parse` takes a plus sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl<'de> Deserialize<'de> for Long {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |text: &str| number(text).map(Long);
        deserializer.deserialize_str(Parsed { what: "a number in a text", parse })
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;
        let parse = |text: &str| STANDARD.decode(text).ok().map(Bytes);
        deserializer.deserialize_str(Parsed { what: "base64", parse })
    }
}
