// SPDX-License-Identifier: Apache-2.0
//! XDR (RFC 4506) as the protocol uses it: integers, booleans, floats, strings, opaque data, lists.
//!
//! Decoding borrows from the message. Every length and count is checked against the bytes that are
//! left, so no message makes its reader allocate out of proportion to its own size. Strings holding
//! NUL are refused: to most of what they are handed to, a NUL would end them early.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes end in the middle of a value.
    #[error("message ends too early: {need} bytes needed, {have} left")]
    Truncated {
        /// Bytes that the value needs at least.
        need: u64,
        /// Bytes that are left.
        have: usize,
    },
    /// A string holds a NUL byte.
    #[error("string contains a NUL byte")]
    Nul,
    /// An optional value's discriminant is neither 0 nor 1.
    #[error("optional value marked with {0}, neither 0 nor 1")]
    Discriminant(u32),
    /// A list of pairs has an odd number of strings.
    #[error("list of pairs has an odd length, {0}")]
    OddPairs(u32),
    /// A value does not fit into 32 bits of length.
    #[error("value of {0} bytes is too long for the protocol")]
    TooLong(usize),
}

type Result<T> = std::result::Result<T, Error>;

/// Takes values off the front of a message.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// A decoder of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What has not been decoded yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let have = self.rest.len();
        let (head, rest) =
            self.rest.split_first_chunk::<N>().ok_or(Error::Truncated { need: N as u64, have })?;
        self.rest = rest;
        Ok(*head)
    }

    /// Unsigned 32 bits (RFC 4506 4.2).
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Signed 32 bits (RFC 4506 4.1).
    pub fn i32(&mut self) -> Result<i32> {
        self.array().map(i32::from_be_bytes)
    }

    /// Unsigned 64 bits (RFC 4506 4.5).
    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Signed 64 bits (RFC 4506 4.5).
    pub fn i64(&mut self) -> Result<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// Floating point, 32 bits (RFC 4506 4.6).
    pub fn f32(&mut self) -> Result<f32> {
        self.array().map(f32::from_be_bytes)
    }

    /// Truth value (RFC 4506 4.4); like other readers, takes anything but 0 as true.
    pub fn bool(&mut self) -> Result<bool> {
        self.u32().map(|v| v != 0)
    }

    /// As many bytes as are asked for, and their padding (RFC 4506 4.9).
    pub fn fixed(&mut self, len: usize) -> Result<&'a [u8]> {
        let padded = len.checked_next_multiple_of(4).ok_or(Error::TooLong(len))?;
        if padded > self.rest.len() {
            return Err(Error::Truncated { need: padded as u64, have: self.rest.len() });
        }
        let (value, rest) = self.rest.split_at(padded);
        self.rest = rest;
        Ok(&value[..len])
    }

    /// Bytes with their length before them (RFC 4506 4.10).
    pub fn opaque(&mut self) -> Result<&'a [u8]> {
        let len = self.u32()?;
        self.fixed(usize::try_from(len).map_err(|_| Error::TooLong(usize::MAX))?)
    }

    /// String without NUL (RFC 4506 4.11). Not necessarily UTF-8: guests name files as they like.
    pub fn string(&mut self) -> Result<&'a OsStr> {
        let bytes = self.opaque()?;
        if bytes.contains(&0) {
            return Err(Error::Nul);
        }
        Ok(OsStr::from_bytes(bytes))
    }

    /// String that may be absent (RFC 4506 4.19).
    pub fn optional_string(&mut self) -> Result<Option<&'a OsStr>> {
        match self.u32()? {
            0 => Ok(None),
            1 => self.string().map(Some),
            other => Err(Error::Discriminant(other)),
        }
    }

    /// Number of elements of a list (RFC 4506 4.13), each of which takes at least `min` bytes.
    pub fn count(&mut self, min: usize) -> Result<u32> {
        let count = self.u32()?;
        let need = u64::from(count) * min as u64;
        if need > self.rest.len() as u64 {
            return Err(Error::Truncated { need, have: self.rest.len() });
        }
        Ok(count)
    }

    /// List of strings.
    pub fn strings(&mut self) -> Result<Vec<&'a OsStr>> {
        let count = self.count(4)?;
        (0..count).map(|_| self.string()).collect()
    }

    /// List of strings, taken as pairs.
    pub fn pairs(&mut self) -> Result<Vec<(OsString, OsString)>> {
        let count = self.count(4)?;
        if count % 2 != 0 {
            return Err(Error::OddPairs(count));
        }
        (0..count / 2).map(|_| Ok((self.string()?.to_owned(), self.string()?.to_owned()))).collect()
    }
}

/// Puts values at the end of a message.
#[derive(Debug)]
pub struct Encoder<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Encoder<'a> {
    /// Appends to these bytes.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Unsigned 32 bits.
    pub fn u32(&mut self, v: u32) {
        self.out.extend_from_slice(&v.to_be_bytes());
    }

    /// Signed 32 bits.
    pub fn i32(&mut self, v: i32) {
        self.out.extend_from_slice(&v.to_be_bytes());
    }

    /// Unsigned 64 bits.
    pub fn u64(&mut self, v: u64) {
        self.out.extend_from_slice(&v.to_be_bytes());
    }

    /// Signed 64 bits.
    pub fn i64(&mut self, v: i64) {
        self.out.extend_from_slice(&v.to_be_bytes());
    }

    /// Floating point, 32 bits.
    pub fn f32(&mut self, v: f32) {
        self.out.extend_from_slice(&v.to_be_bytes());
    }

    /// Truth value.
    pub fn bool(&mut self, v: bool) {
        self.u32(u32::from(v));
    }

    /// Bytes of a length that the reader knows, and their padding.
    pub fn fixed(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        let padding = bytes.len().wrapping_neg() % 4;
        self.out.extend_from_slice(&[0; 3][..padding]);
    }

    /// A length or a count.
    pub fn count(&mut self, n: usize) -> Result<()> {
        self.u32(u32::try_from(n).map_err(|_| Error::TooLong(n))?);
        Ok(())
    }

    /// Bytes with their length before them.
    pub fn opaque(&mut self, bytes: &[u8]) -> Result<()> {
        self.count(bytes.len())?;
        self.fixed(bytes);
        Ok(())
    }

    /// String; like its reader, refuses NUL.
    pub fn string(&mut self, s: &(impl Text + ?Sized)) -> Result<()> {
        let bytes = s.bytes();
        if bytes.contains(&0) {
            return Err(Error::Nul);
        }
        self.opaque(bytes)
    }

    /// String that may be absent.
    pub fn optional_string(&mut self, s: Option<&OsStr>) -> Result<()> {
        self.bool(s.is_some());
        s.map_or(Ok(()), |s| self.string(s))
    }

    /// List of strings.
    pub fn strings<T: Text>(&mut self, list: &[T]) -> Result<()> {
        self.count(list.len())?;
        list.iter().try_for_each(|s| self.string(s))
    }

    /// List of strings, given as pairs.
    pub fn pairs<K: Text, V: Text>(&mut self, list: &[(K, V)]) -> Result<()> {
        self.count(list.len() * 2)?;
        list.iter().try_for_each(|(k, v)| self.string(k).and_then(|()| self.string(v)))
    }
}

/// What can be sent as a string.
pub trait Text {
    /// Its bytes.
    fn bytes(&self) -> &[u8];
}

macro_rules! text {
    ($($t:ty => |$s:ident| $e:expr),* $(,)?) => {
        $(impl Text for $t { fn bytes(&self) -> &[u8] { let $s = self; $e } })*
    };
}

text! {
    str => |s| s.as_bytes(),
    String => |s| s.as_bytes(),
    OsStr => |s| s.as_bytes(),
    OsString => |s| s.as_os_str().as_bytes(),
    std::path::PathBuf => |s| s.as_os_str().as_bytes(),
    [u8] => |s| s,
    Vec<u8> => |s| s,
}

impl<T: Text + ?Sized> Text for &T {
    fn bytes(&self) -> &[u8] {
        (**self).bytes()
    }
}

impl<T: Text + ToOwned + ?Sized> Text for std::borrow::Cow<'_, T> {
    fn bytes(&self) -> &[u8] {
        (**self).bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(f: impl FnOnce(&mut Encoder<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        f(&mut Encoder::new(&mut out));
        out
    }

    #[test]
    fn strings_are_padded_to_four_bytes() {
        let bytes = encoded(|e| e.string("sillyprog").unwrap());
        assert_eq!(bytes, b"\0\0\0\x09sillyprog\0\0\0");
        let mut d = Decoder::new(&bytes);
        assert_eq!(d.string().unwrap(), "sillyprog");
        assert!(d.is_empty());
    }

    #[test]
    fn a_string_with_nul_is_refused_both_ways() {
        assert_eq!(Decoder::new(b"\0\0\0\x04a\0bc").string(), Err(Error::Nul));
        assert_eq!(Encoder::new(&mut Vec::new()).string("a\0b"), Err(Error::Nul));
    }

    #[test]
    fn a_length_beyond_the_message_is_refused() {
        let mut d = Decoder::new(b"\xff\xff\xff\xfeabcd");
        assert!(matches!(d.opaque(), Err(Error::Truncated { have: 4, .. })));
    }

    #[test]
    fn missing_padding_is_refused() {
        assert!(Decoder::new(b"\0\0\0\x01a").opaque().is_err());
    }

    #[test]
    fn a_count_that_the_message_cannot_hold_allocates_nothing() {
        let mut d = Decoder::new(b"\x7f\xff\xff\xff\0\0\0\0");
        assert_eq!(d.strings(), Err(Error::Truncated { need: 0x1_ffff_fffc, have: 4 }));
    }

    #[test]
    fn optional_strings_are_marked_with_0_or_1() {
        for value in [None, Some(OsStr::new("x"))] {
            let bytes = encoded(|e| e.optional_string(value).unwrap());
            assert_eq!(Decoder::new(&bytes).optional_string().unwrap(), value);
        }
        assert_eq!(Decoder::new(b"\0\0\0\x02").optional_string(), Err(Error::Discriminant(2)));
    }

    #[test]
    fn numbers_are_big_endian() {
        let bytes = encoded(|e| {
            e.i32(-2);
            e.i64(-3);
            e.u64(1 << 40);
            e.f32(-1.0);
            e.bool(true);
        });
        let mut d = Decoder::new(&bytes);
        assert_eq!(d.i32().unwrap(), -2);
        assert_eq!(d.i64().unwrap(), -3);
        assert_eq!(d.u64().unwrap(), 1 << 40);
        assert_eq!(d.f32().unwrap(), -1.0);
        assert!(d.bool().unwrap());
    }

    #[test]
    fn pairs_need_an_even_number_of_strings() {
        let bytes = encoded(|e| e.strings(&["a", "b", "c"]).unwrap());
        assert_eq!(Decoder::new(&bytes).pairs(), Err(Error::OddPairs(3)));
    }
}
