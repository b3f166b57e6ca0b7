// SPDX-License-Identifier: Apache-2.0
//! Base64 (RFC 4648) piece by piece, in lines of 76 characters.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// What a character is worth; 255 for those that are not of the alphabet.
const VALUES: [u8; 256] = {
    let mut values = [255; 256];
    let mut value: u8 = 0;
    while value < 64 {
        values[ALPHABET[value as usize] as usize] = value;
        value += 1;
    }
    values
};
/// Bytes that make a line.
const LINE: usize = 57;

/// Makes base64.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    /// The beginning of a line.
    rest: Vec<u8>,
}

impl Encoder {
    /// Encodes more.
    pub(crate) fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        if !self.rest.is_empty() {
            let n = bytes.len().min(LINE - self.rest.len());
            self.rest.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if self.rest.len() < LINE {
                return;
            }
            line(&self.rest, out);
            self.rest.clear();
        }
        let lines = bytes.chunks_exact(LINE);
        self.rest.extend_from_slice(lines.remainder());
        lines.for_each(|bytes| line(bytes, out));
    }

    /// Ends it.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.rest.is_empty() {
            line(&self.rest, out);
            self.rest.clear();
        }
    }
}

fn line(bytes: &[u8], out: &mut Vec<u8>) {
    for group in bytes.chunks(3) {
        let at = |i| u32::from(*group.get(i).unwrap_or(&0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        let mut four = [18, 12, 6, 0].map(|shift| ALPHABET[(bits >> shift & 63) as usize]);
        four[group.len() + 1..].fill(b'=');
        out.extend_from_slice(&four);
    }
    out.push(b'\n');
}

/// Decodes base64; line ends are skipped wherever they are.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    group: [u8; 4],
    len: usize,
}

impl Decoder {
    /// Decodes more; none when it is invalid: what is before that has been decoded.
    pub(crate) fn push(&mut self, text: &[u8], out: &mut Vec<u8>) -> Option<()> {
        for &c in text.iter().filter(|c| !matches!(c, b'\n' | b'\r')) {
            self.group[self.len] = c;
            self.len += 1;
            if self.len == 4 {
                self.len = 0;
                group(self.group, out)?;
            }
        }
        Some(())
    }

    /// Whether nothing is missing at the end.
    pub(crate) fn is_complete(&self) -> bool {
        self.len == 0
    }
}

fn group(four: [u8; 4], out: &mut Vec<u8>) -> Option<()> {
    let bytes = match four {
        [_, _, b'=', b'='] => 1,
        [_, _, _, b'='] => 2,
        _ => 3,
    };
    let mut bits = 0;
    for &c in &four[..=bytes] {
        let value = VALUES[usize::from(c)];
        if value == 255 {
            return None;
        }
        bits = bits << 6 | u32::from(value);
    }
    bits <<= 6 * (3 - bytes);
    out.extend_from_slice(&bits.to_be_bytes()[1..=bytes]);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut encoder, mut out) = (Encoder::default(), Vec::new());
        pieces.iter().for_each(|p| encoder.push(p, &mut out));
        encoder.finish(&mut out);
        out
    }

    fn decode(pieces: &[&[u8]]) -> Option<Vec<u8>> {
        let (mut decoder, mut out) = (Decoder::default(), Vec::new());
        pieces.iter().try_for_each(|p| decoder.push(p, &mut out))?;
        decoder.is_complete().then_some(out)
    }

    #[test]
    fn vectors_of_rfc_4648_go_both_ways() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            let lines = if text.is_empty() { String::new() } else { format!("{text}\n") };
            assert_eq!(encode(&[bytes.as_bytes()]), lines.as_bytes());
            assert_eq!(decode(&[text.as_bytes()]).unwrap(), bytes.as_bytes());
        }
    }

    #[test]
    fn pieces_of_any_length_make_the_same_lines() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let whole = encode(&[&bytes]);
        assert!(whole.split(|&b| b == b'\n').all(|line| line.len() <= 76));
        for n in [1, 2, 3, 56, 57, 58, 200] {
            let pieces: Vec<&[u8]> = bytes.chunks(n).collect();
            assert_eq!(encode(&pieces), whole, "{n}");
            let pieces: Vec<&[u8]> = whole.chunks(n).collect();
            assert_eq!(decode(&pieces).unwrap(), bytes, "{n}");
        }
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for text in ["A", "AA", "AAA", "A===", "====", "AA=A", "AA A", "AAA*", "AA==A"] {
            assert_eq!(decode(&[text.as_bytes()]), None, "{text}");
        }
    }
}
