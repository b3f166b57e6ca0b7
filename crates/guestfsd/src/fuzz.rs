// SPDX-License-Identifier: Apache-2.0
//! What `fuzz/` feeds with bytes: each parser of what clients send. What must hold of what comes out is asserted here;
//! the tests below are a short run of the same.

use crate::base64;
use crate::devices::Devices;
use crate::mountable::Mountable;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Texts of the client; the first byte says which.
pub fn texts(input: &[u8]) {
    let Some((choice, text)) = input.split_first() else { return };
    match choice % 2 {
        0 => {
            let mut devices = Devices::new(false);
            Mountable::find(&mut devices, "mountable", OsStr::from_bytes(text)).ok();
        }
        _ => {
            let mut decoded = Vec::new();
            base64::Decoder::default().push(text, &mut decoded);
            assert!(decoded.len() <= text.len(), "base64 makes it longer");
            let (mut encoder, mut encoded) = (base64::Encoder::default(), Vec::new());
            encoder.push(text, &mut encoded);
            encoder.finish(&mut encoded);
            let (mut decoder, mut back) = (base64::Decoder::default(), Vec::new());
            assert!(decoder.push(&encoded, &mut back).is_some() && decoder.is_complete());
            assert!(back == text, "what was encoded comes back");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// Names of devices and base64, or nearly so, and bytes at random.
    fn input() -> impl Strategy<Value = Vec<u8>> {
        let texts = "((btrfsvol:)?/dev/[a-z0-9/]{0,9}|[A-Za-z0-9+/=\n]{0,40}){0,6}";
        prop_oneof![
            texts.prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..600)
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_text_is_read_or_refused(choice in any::<u8>(), text in input()) {
            super::texts(&[&[choice], &text[..]].concat());
        }
    }
}
