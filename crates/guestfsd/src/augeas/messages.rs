// SPDX-License-Identifier: Apache-2.0
//! What is asked of the process that has the tree, and what it answers: XDR, with a length before it.

use guest_error::{Errno, Error, Result};
use guestfs_api::xdr::{Decoder, Encoder};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};

/// The longest message either way: some more than what fits into a reply.
const MAX_MESSAGE: usize = 2 * guestfs_api::frame::MAX_MESSAGE;

/// Defines the operations and their numbers.
macro_rules! operations {
    ($($name:ident: $what:literal,)*) => {
        /// What the process can be asked for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Operation {
            $(#[doc = $what] $name,)*
        }

        /// All of them; an operation's number is its place.
        const OPERATIONS: &[Operation] = &[$(Operation::$name,)*];
    };
}

operations! {
    Open: "Opens a tree: root, sysroot; flags.",
    DefVar: "Defines a variable: name, expression or none.",
    DefNode: "Defines a variable and makes its node: name, expression, value.",
    Get: "A node's value: path.",
    Label: "A node's label: path.",
    Set: "Sets a value: path, value or none.",
    SetMany: "Sets values: base, sub or none, value.",
    Insert: "Makes a sibling: path, label; before.",
    Remove: "Removes nodes: path.",
    Move: "Moves a node: from, to.",
    Match: "Paths of nodes: path.",
    Save: "Writes files.",
    Load: "Reads files.",
    Transform: "Gives a file to a lens: lens, file; takes it away.",
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// For what.
    pub(crate) operation: Operation,
    /// Its strings.
    pub(crate) texts: [Option<&'a OsStr>; 3],
    /// Its flags, or a truth value.
    pub(crate) number: i32,
}

impl<'a> Request<'a> {
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let mut out = vec![0; 4];
        let mut e = Encoder::new(&mut out);
        e.count(OPERATIONS.iter().position(|o| *o == self.operation).unwrap_or(0))
            .map_err(Error::invalid)?;
        self.texts.iter().try_for_each(|text| e.optional_string(*text)).map_err(Error::invalid)?;
        e.i32(self.number);
        framed(out)
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self> {
        let mut d = Decoder::new(bytes);
        let operation =
            usize::try_from(d.u32().map_err(Error::invalid)?).ok().and_then(|n| OPERATIONS.get(n));
        let operation = *operation.ok_or_else(|| Error::new(Errno::EPROTO, "no such operation"))?;
        let texts = [
            d.optional_string().map_err(Error::invalid)?,
            d.optional_string().map_err(Error::invalid)?,
            d.optional_string().map_err(Error::invalid)?,
        ];
        Ok(Self { operation, texts, number: d.i32().map_err(Error::invalid)? })
    }
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// A number of nodes.
    pub(crate) number: i32,
    /// Of these, those that were made.
    pub(crate) made: i32,
    /// A value, a label, or paths of nodes.
    pub(crate) texts: Vec<OsString>,
}

impl Answer {
    pub(super) fn encode(answer: &Result<Self>) -> Result<Vec<u8>> {
        let mut out = vec![0; 4];
        let mut e = Encoder::new(&mut out);
        match answer {
            Ok(answer) => {
                e.i32(0);
                e.i32(answer.number);
                e.i32(answer.made);
                e.strings(&answer.texts).map_err(Error::invalid)?;
            }
            Err(error) => {
                e.i32(error.errno().raw());
                e.opaque(error.message().as_bytes()).map_err(Error::invalid)?;
            }
        }
        framed(out)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut d = Decoder::new(bytes);
        match d.i32().map_err(Error::invalid)? {
            0 => {
                let (number, made) =
                    (d.i32().map_err(Error::invalid)?, d.i32().map_err(Error::invalid)?);
                let texts =
                    d.strings().map_err(Error::invalid)?.into_iter().map(OsStr::to_owned).collect();
                Ok(Self { number, made, texts })
            }
            errno => {
                let text =
                    String::from_utf8_lossy(d.opaque().map_err(Error::invalid)?).into_owned();
                Err(Error::new(Errno::from_raw(errno), text))
            }
        }
    }
}

/// Puts the length into the first four bytes.
fn framed(mut message: Vec<u8>) -> Result<Vec<u8>> {
    let len = message.len().saturating_sub(4);
    if len > MAX_MESSAGE {
        return Err(Error::new(Errno::EFBIG, "more than a message can hold"));
    }
    let len = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    message.splice(..4, len);
    Ok(message)
}

/// Reads a message; none at the end. Told to end, the process does not wait on.
pub(super) fn receive(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 4];
    if !read_full(stream, &mut len)? {
        return Ok(None);
    }
    let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
    if len > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; len];
    Ok(read_full(stream, &mut message)?.then_some(message))
}

/// Fills the buffer; false if the stream ends before.
fn read_full(stream: &mut impl Read, mut buffer: &mut [u8]) -> io::Result<bool> {
    while !buffer.is_empty() {
        match stream.read(buffer) {
            Ok(0) => return Ok(false),
            Ok(n) => buffer = &mut buffer[n..],
            Err(e)
                if e.kind() == io::ErrorKind::Interrupted && !guest_fs::interrupt::requested() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_and_answers_come_through() {
        for operation in OPERATIONS {
            let texts = [Some(OsStr::new("/files")), None, Some(OsStr::new(""))];
            let request = Request { operation: *operation, texts, number: -1 };
            let bytes = request.encode().unwrap();
            let message = receive(&mut &bytes[..]).unwrap().unwrap();
            assert_eq!(Request::decode(&message).unwrap(), request);
        }
        for answer in [
            Ok(Answer { number: 2, made: 1, texts: vec!["a".into(), "".into()] }),
            Err(Error::new(Errno::ENOENT, "no such node")),
        ] {
            let bytes = Answer::encode(&answer).unwrap();
            let message = receive(&mut &bytes[..]).unwrap().unwrap();
            assert_eq!(Answer::decode(&message), answer);
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_memory_is_taken() {
        let e = receive(&mut &b"\xff\xff\xff\xff"[..]).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn messages_of_any_bytes_do_no_harm(bytes: Vec<u8>) {
            Request::decode(&bytes).ok();
            Answer::decode(&bytes).ok();
            receive(&mut &bytes[..]).ok();
        }
    }
}
