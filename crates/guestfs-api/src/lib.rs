// SPDX-License-Identifier: Apache-2.0
//! The guestfs remote procedure call interface: what goes between libguestfs and its daemon.
//!
//! `guestfs.api` is the table of all procedures and the single source of truth: types of arguments
//! ([`args`], [`options`]) and results ([`structs`]), their decoders and encoders, and the table as
//! data ([`PROCEDURES`]) are generated from it when this crate is built. [`spec`] parses it, so that
//! the server's dispatch and the client's stubs are generated from the same text; [`xdr`] and
//! [`frame`] are the encoding; [`reference()`] is the documentation.
//!
//! Bytes go in, borrowed values come out, and the reverse. Nothing here does I/O.

pub mod frame;
mod reference;
pub mod spec;
pub mod xdr;

pub use reference::reference;
pub use spec::Kind;

use xdr::{Decoder, Encoder, Error};

type Result<T> = std::result::Result<T, Error>;

/// The arguments of one procedure.
pub trait Call<'a>: Sized {
    /// The procedure's number.
    const NUMBER: u32;

    /// Reads the arguments from a call's body; `mask` is the header's `optargs_bitmask`.
    ///
    /// Optional arguments that are missing at the end were not given, if the mask agrees: an older
    /// client does not know them. What follows the last known argument is ignored: a newer client
    /// may know more, and the mask says whether it means them.
    fn decode(d: &mut Decoder<'a>, mask: u64) -> Result<Self>;

    /// Appends the arguments.
    fn encode(&self, e: &mut Encoder<'_>) -> Result<()>;

    /// Which optional arguments are given.
    fn optargs_bitmask(&self) -> u64 {
        0
    }
}

/// A structure of the interface.
pub trait Wire: Sized {
    /// Bytes that it takes at least.
    const MIN: usize;

    /// Takes it off the front of a message.
    fn decode(d: &mut Decoder<'_>) -> Result<Self>;

    /// Appends it.
    fn encode(&self, e: &mut Encoder<'_>) -> Result<()>;

    /// Takes a list off the front of a message.
    fn decode_list(d: &mut Decoder<'_>) -> Result<Vec<Self>> {
        let count = d.count(Self::MIN)?;
        (0..count).map(|_| Self::decode(d)).collect()
    }

    /// Appends a list.
    fn encode_list(list: &[Self], e: &mut Encoder<'_>) -> Result<()> {
        e.count(list.len())?;
        list.iter().try_for_each(|s| s.encode(e))
    }
}

/// Arguments of each procedure, borrowed from the message.
pub mod args {
    use crate::xdr::{Decoder, Encoder};
    use crate::{Call, Result, options};
    use std::ffi::OsStr;

    include!(concat!(env!("OUT_DIR"), "/args.rs"));
}

/// Optional arguments of each procedure that has any.
pub mod options {
    use crate::Result;
    use crate::xdr::{Decoder, Encoder};
    use std::ffi::OsStr;

    /// Whether the optional argument of this bit is in the message.
    fn given(d: &Decoder<'_>, mask: u64, bit: u32) -> bool {
        !d.is_empty() || mask & (1 << bit) != 0
    }

    fn bit(set: bool, bit: u32) -> u64 {
        u64::from(set) << bit
    }

    include!(concat!(env!("OUT_DIR"), "/options.rs"));
}

/// Structures that results are made of.
pub mod structs {
    use crate::xdr::{Decoder, Encoder};
    use crate::{Result, Wire};
    use std::ffi::OsString;

    include!(concat!(env!("OUT_DIR"), "/structs.rs"));
}

/// What the table says of a procedure.
#[derive(Clone, Copy, Debug)]
pub struct Procedure {
    /// Its number in the header of a call.
    pub number: u32,
    /// Its name as clients know it.
    pub name: &'static str,
    /// Ordinary arguments.
    pub args: &'static [Argument],
    /// Optional arguments: the Nth is bit N of `optargs_bitmask`.
    pub options: &'static [Argument],
    /// Type of the result, if it has one.
    pub result: Option<&'static str>,
    /// The optional group that it belongs to.
    pub group: Option<&'static str>,
    /// First release of libguestfs that has it.
    pub since: &'static str,
    /// May send progress messages.
    pub progress: bool,
    /// The caller may cancel it.
    pub cancel: bool,
    /// Kept for old callers.
    pub deprecated: bool,
    /// Called by the client library itself or by tests.
    pub internal: bool,
}

/// An argument's name and type.
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
}

impl Procedure {
    /// Bits that `optargs_bitmask` may have.
    pub fn optargs_mask(&self) -> u64 {
        match self.options.len() {
            64.. => u64::MAX,
            n => (1 << n) - 1,
        }
    }
}

include!(concat!(env!("OUT_DIR"), "/table.rs"));

/// The procedure of this number.
pub fn procedure(number: u32) -> Option<&'static Procedure> {
    PROCEDURES.binary_search_by_key(&number, |p| p.number).ok().map(|i| &PROCEDURES[i])
}

#[cfg(test)]
mod tests;
