// SPDX-License-Identifier: Apache-2.0
//! The data of an answer while it is being built. In: fields, in order. Out: exactly the bytes that
//! were put in, and of these what the allocation length has room for.

use std::ops::Deref;

use zerocopy::{Immutable, IntoBytes};

/// Data for the initiator: never longer than its content. Derefs to its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer(Vec<u8>);

impl Answer {
    /// What of it fits into an allocation length (SPC-4 4.2.5.6).
    pub fn within(&self, alloc: usize) -> &[u8] {
        &self.0[..alloc.min(self.0.len())]
    }

    pub(crate) fn new() -> Self {
        Answer(Vec::new())
    }

    pub(crate) fn u8(&mut self, n: u8) {
        self.0.push(n);
    }

    pub(crate) fn be16(&mut self, n: u16) {
        self.bytes(&n.to_be_bytes());
    }

    pub(crate) fn be32(&mut self, n: u32) {
        self.bytes(&n.to_be_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn zeroes(&mut self, len: usize) {
        self.0.resize(self.0.len() + len, 0);
    }

    /// A struct that is laid out as the standard says.
    pub(crate) fn layout(&mut self, layout: &(impl IntoBytes + Immutable)) {
        self.bytes(layout.as_bytes());
    }

    /// Text in ASCII, cut or padded with spaces to `width`. What is not printable becomes a dot.
    pub(crate) fn text(&mut self, text: &str, width: usize) {
        self.0.extend(printable(text).chain(std::iter::repeat(b' ')).take(width));
    }

    /// Sets the two bytes at `at` to how many bytes follow them.
    pub(crate) fn set_length16(&mut self, at: usize) {
        let len = self.0.len().saturating_sub(at + 2);
        // No answer with such a field comes near 64 KiB.
        let len = u16::try_from(len).unwrap_or(u16::MAX);
        if let Some(field) = self.0.get_mut(at..at + 2) {
            field.copy_from_slice(&len.to_be_bytes());
        }
    }

    /// The same for four bytes.
    pub(crate) fn set_length32(&mut self, at: usize) {
        let len = self.0.len().saturating_sub(at + 4);
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        if let Some(field) = self.0.get_mut(at..at + 4) {
            field.copy_from_slice(&len.to_be_bytes());
        }
    }
}

impl Deref for Answer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// The text as printable ASCII, a dot for each character that is not.
pub(crate) fn printable(text: &str) -> impl Iterator<Item = u8> + '_ {
    let shown = |c: char| c.is_ascii_graphic() || c == ' ';
    text.chars().map(move |c| if shown(c) { c as u8 } else { b'.' })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_cut_to_the_allocation_length_and_never_padded() {
        let mut a = Answer::new();
        a.bytes(&[1, 2, 3]);
        assert_eq!(a.within(2), [1, 2]);
        assert_eq!(a.within(0), []);
        assert_eq!(a.within(usize::MAX), [1, 2, 3]);
    }

    #[test]
    fn text_is_ascii_of_the_given_width() {
        let mut a = Answer::new();
        a.text("dé\n", 5);
        a.text("longer", 4);
        assert_eq!(&a[..], b"d..  long");
    }
}
