// SPDX-License-Identifier: Apache-2.0
//! What `fuzz/` feeds with bytes: each parser of what files of a guest hold. What must hold of what comes out is
//! asserted here; the tests below are a short run of the same.

use crate::cpio::read::{Member, Reader, Sink};
use crate::paths::Sysroot;
use crate::tar::Attributes;
use crate::tar::extract::{Extractor, Options};
use crate::{acl, capabilities, glob};
use guest_error::Result;
use std::path::Path;

/// Longest piece in which archives come.
const MAX_PIECE: usize = 1 << 16;

/// Values of extended attributes, their texts, and patterns; the first byte says which.
pub fn texts(input: &[u8]) {
    let Some((choice, text)) = input.split_first() else { return };
    match choice % 3 {
        0 => {
            acl::to_text(text);
            let text = String::from_utf8_lossy(text);
            if let Some(list) = acl::from_text(&text, |_, name| name.parse().ok()) {
                assert!(acl::to_text(&list).is_some(), "what was read can be said");
            }
        }
        1 => {
            if let Some(capabilities) = capabilities::Capabilities::from_xattr(text) {
                capabilities.to_text(41);
            }
            if let Some(capabilities) =
                capabilities::Capabilities::from_text(&String::from_utf8_lossy(text), 41)
            {
                capabilities.to_xattr();
            }
        }
        _ => {
            let (pattern, text) = text.split_at(text.len() / 2);
            glob::Pattern::new(pattern).matches_member(text);
        }
    }
}

/// Counts the bytes of content in an archive.
struct Counted(usize);

impl Sink for Counted {
    fn member(&mut self, _: Member) -> Result<()> {
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> Result<()> {
        self.0 += bytes.len();
        Ok(())
    }
}

/// A cpio archive that comes in pieces, whose length the first two bytes say.
pub fn cpio(input: &[u8]) {
    let Some((length, archive)) = input.split_first_chunk() else { return };
    let length = usize::from(u16::from_le_bytes(*length)).clamp(1, MAX_PIECE);
    let mut sink = Counted(0);
    let mut reader = Reader::new(&mut sink);
    let mut all = Ok(());
    for piece in archive.chunks(length) {
        match reader.push(piece) {
            Ok(n) if n == piece.len() => {}
            Ok(_) => reader.resume(),
            Err(e) => {
                all = Err(e);
                break;
            }
        }
    }
    all.and_then(|()| reader.finish()).ok();
    assert!(sink.0 <= archive.len(), "contents are of the archive");
}

/// A tar archive that comes in pieces, whose length the first two bytes say; it is unpacked in this directory.
pub fn tar(input: &[u8], directory: &Path) {
    let Some((length, archive)) = input.split_first_chunk() else { return };
    let length = usize::from(u16::from_le_bytes(*length)).clamp(1, MAX_PIECE);
    let Ok(root) = Sysroot::new(directory).open() else { return };
    let attributes = Attributes { xattrs: true, selinux: true, acls: true };
    let options = Options { attributes, keep_directory_links: length.is_multiple_of(2) };
    let mut extractor = Extractor::new(&root, b"/", options);
    let read = archive.chunks(length).try_for_each(|piece| extractor.push(piece));
    extractor.finish(read).ok();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// What parsers look for.
    const KNOWN: &[&[u8]] = &[
        b"070701",
        b"ustar\x0000",
        b"user::rwx,group:1:r,m::x",
        b"00000000000",
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
        fn any_cpio_archive_is_read_or_refused(bytes in input(), piece in 1u16..600) {
            super::cpio(&[&piece.to_le_bytes(), &bytes[..]].concat());
        }

        #[test]
        fn any_tar_archive_is_unpacked_or_refused(bytes in input(), piece in 1u16..600) {
            let dir = tempfile::tempdir().unwrap();
            super::tar(&[&piece.to_le_bytes(), &bytes[..]].concat(), dir.path());
        }
    }
}
