// SPDX-License-Identifier: Apache-2.0
//! A tar header: 512 bytes, numbers in octal or (GNU) base 256.

/// Bytes of a header, and of what contents are padded to.
pub(super) const BLOCK: usize = 512;
/// Largest number that 11 octal digits hold.
pub(super) const MAX_OCTAL_11: u64 = 0o777_7777_7777;
/// Largest number that 7 octal digits hold.
pub(super) const MAX_OCTAL_7: u64 = 0o777_7777;

/// One header's bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header(pub(super) [u8; BLOCK]);

/// A field: where it begins and how long it is (POSIX.1-2017, pax, "ustar Interchange Format").
#[derive(Clone, Copy, Debug)]
pub(super) struct Field(usize, usize);

pub(super) const NAME: Field = Field(0, 100);
pub(super) const MODE: Field = Field(100, 8);
pub(super) const UID: Field = Field(108, 8);
pub(super) const GID: Field = Field(116, 8);
pub(super) const SIZE: Field = Field(124, 12);
pub(super) const MTIME: Field = Field(136, 12);
const CHECKSUM: Field = Field(148, 8);
const TYPE: usize = 156;
pub(super) const LINKNAME: Field = Field(157, 100);
const MAGIC: Field = Field(257, 8);
pub(super) const UNAME: Field = Field(265, 32);
pub(super) const GNAME: Field = Field(297, 32);
pub(super) const DEVMAJOR: Field = Field(329, 8);
pub(super) const DEVMINOR: Field = Field(337, 8);
pub(super) const PREFIX: Field = Field(345, 155);

impl Field {
    pub(super) fn len(self) -> usize {
        self.1
    }
}

impl Header {
    /// An empty header of this type.
    pub(super) fn new(kind: u8) -> Self {
        let mut h = Self([0; BLOCK]);
        h.0[TYPE] = kind;
        h.set_text(MAGIC, b"ustar\x0000");
        h
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[TYPE]
    }

    /// A field's bytes.
    pub(super) fn raw(&self, Field(at, len): Field) -> &[u8] {
        &self.0[at..at + len]
    }

    /// A field's text, to its first NUL.
    pub(super) fn text(&self, field: Field) -> &[u8] {
        let raw = self.raw(field);
        &raw[..raw.iter().position(|&b| b == 0).unwrap_or(raw.len())]
    }

    /// A field's number; none if it is not one.
    pub(super) fn number(&self, field: Field) -> Option<i64> {
        number(self.raw(field))
    }

    /// Whether name prefixes are in use: not in GNU's own format, which keeps other things there.
    pub(super) fn is_posix(&self) -> bool {
        self.raw(MAGIC).starts_with(b"ustar\0")
    }

    /// Whether all bytes are zero: the end of the archive.
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|&b| b == 0)
    }

    /// Whether the checksum is right, computed of bytes with or (as some old programs do) without sign.
    pub(super) fn checks(&self) -> bool {
        let Some(stored) = self.number(CHECKSUM) else { return false };
        let in_sum = |i: usize| (CHECKSUM.0..CHECKSUM.0 + CHECKSUM.1).contains(&i);
        let byte = |(i, &b): (usize, &u8)| if in_sum(i) { b' ' } else { b };
        let unsigned: i64 = self.0.iter().enumerate().map(|b| i64::from(byte(b))).sum();
        let signed: i64 = self.0.iter().enumerate().map(|b| i64::from(byte(b).cast_signed())).sum();
        stored == unsigned || stored == signed
    }

    pub(super) fn set_text(&mut self, Field(at, len): Field, text: &[u8]) {
        let n = text.len().min(len);
        self.0[at..at + n].copy_from_slice(&text[..n]);
    }

    /// Sets a number that the field holds; a larger one is cut, and is to be said in a pax header.
    pub(super) fn set_number(&mut self, Field(at, len): Field, value: u64) {
        let mut rest = value;
        for i in (0..len - 1).rev() {
            self.0[at + i] = b'0' + (rest & 7) as u8;
            rest >>= 3;
        }
        self.0[at + len - 1] = 0;
    }

    /// Sets the checksum: the last thing to do.
    pub(super) fn finish(&mut self) {
        let Field(at, len) = CHECKSUM;
        self.0[at..at + len].fill(b' ');
        let sum: u64 = self.0.iter().map(|&b| u64::from(b)).sum();
        self.set_number(Field(at, 7), sum);
    }
}

/// Octal digits between spaces and NULs, or base 256 with the highest bit set. An empty field is 0.
pub(super) fn number(raw: &[u8]) -> Option<i64> {
    if let [first @ (0x80 | 0xff), rest @ ..] = raw {
        let negative = *first == 0xff;
        let mut value: i64 = if negative { -1 } else { 0 };
        for &b in rest {
            value = value.checked_mul(256)?.checked_add(i64::from(b))?;
        }
        return Some(value);
    }
    let digits = raw.iter().skip_while(|b| **b == b' ').take_while(|b| !matches!(b, b' ' | 0));
    digits.copied().try_fold(0i64, |n, digit| match digit {
        b'0'..=b'7' => n.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"  644 \0\0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0"), Some(0));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x02\0\0\0\0"), Some(2 << 32));
        assert_eq!(number(b"\xff\xff\xff\xfe"), Some(-2));
        assert_eq!(number(b"12x"), None);
        assert_eq!(number(&[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn a_header_that_was_finished_checks_and_a_changed_one_does_not() {
        let mut h = Header::new(b'0');
        h.set_text(NAME, b"./x");
        h.set_number(SIZE, 12345);
        h.finish();
        assert!(h.checks());
        assert_eq!((h.text(NAME), h.number(SIZE)), (&b"./x"[..], Some(12345)));
        h.0[0] ^= 1;
        assert!(!h.checks());
    }
}
