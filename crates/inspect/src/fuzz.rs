// SPDX-License-Identifier: Apache-2.0
//! What `fuzz/` feeds with bytes: each parser of what guests hold. What must hold of what comes out is asserted here;
//! the tests below are a short run of the same.

use crate::{architecture, distros, fstab, release};
use guest_fs::cpio::read::Reader;

/// Texts of the guest; the first byte says which.
pub fn texts(input: &[u8]) {
    let Some((choice, text)) = input.split_first() else { return };
    match choice % 4 {
        0 => {
            for entry in fstab::parse(text) {
                assert!(!entry.mountpoint.is_empty(), "a field that is there is not empty");
                entry.option("subvol");
            }
        }
        1 => {
            release::os_release(text);
            release::lsb_release(text);
            release::suse_release(text);
            release::one_line(text);
            release::version(text);
        }
        2 => {
            distros::identify(&|_| Some(text.to_vec()));
        }
        _ => {
            architecture::of_head(text);
        }
    }
}

/// An initramfs image that comes in pieces, whose length the first two bytes say.
pub fn first_program(input: &[u8]) {
    let Some((length, archive)) = input.split_first_chunk() else { return };
    let length = usize::from(u16::from_le_bytes(*length)).max(1);
    let mut first = architecture::FirstProgram::default();
    let mut reader = Reader::new(&mut first);
    archive.chunks(length).find(|piece| reader.push(piece).is_err());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// What parsers look for.
    const KNOWN: &[&[u8]] = &[
        b"070701",
        b"UUID=\"a b\" /x\\040y ext4 subvol=,ro 0 0\n",
        b"ID=debian\nVERSION_ID='12.'\n",
        &[0; 512],
        &[0xff; 8],
    ];

    /// Bytes as parsers meet them: some that they look for, some lines, some at random.
    fn input() -> impl Strategy<Value = Vec<u8>> {
        let known = proptest::sample::select(KNOWN).prop_map(<[u8]>::to_vec);
        let piece = prop_oneof![3 => known, 1 => proptest::collection::vec(any::<u8>(), 0..64)];
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_text_is_read_or_refused(choice in any::<u8>(), text in input()) {
            super::texts(&[&[choice], &text[..]].concat());
        }

        #[test]
        fn any_image_has_a_first_program_or_none(bytes in input(), piece in 1u16..600) {
            super::first_program(&[&piece.to_le_bytes(), &bytes[..]].concat());
        }
    }
}
