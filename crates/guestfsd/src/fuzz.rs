// SPDX-License-Identifier: Apache-2.0
//! What `fuzz/` feeds with bytes: each parser of what guests hold and clients send. What must hold of what comes
//! out is asserted here; the tests below are a short run of the same.

use crate::cpio::read::{Member, Reader, Sink};
use crate::devices::Devices;
use crate::error::Result;
use crate::inspect::{architecture, distros, fstab, registry, release};
use crate::mountable::Mountable;
use crate::paths::Sysroot;
use crate::tar::Attributes;
use crate::tar::extract::{Extractor, Options};
use crate::{acl, base64, capabilities, glob, iso9660, probe};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Longest piece in which archives come.
const MAX_PIECE: usize = 1 << 16;

/// Texts of the guest and of the client; the first byte says which.
pub fn texts(input: &[u8]) {
    let Some((choice, text)) = input.split_first() else { return };
    match choice % 9 {
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
        3 => {
            let mut devices = Devices::new(false);
            Mountable::find(&mut devices, "mountable", OsStr::from_bytes(text)).ok();
        }
        4 => {
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
        5 => {
            acl::to_text(text);
            let text = String::from_utf8_lossy(text);
            if let Some(list) = acl::from_text(&text, |_, name| name.parse().ok()) {
                assert!(acl::to_text(&list).is_some(), "what was read can be said");
            }
        }
        6 => {
            if let Some(capabilities) = capabilities::Capabilities::from_xattr(text) {
                capabilities.to_text(41);
            }
            if let Some(capabilities) =
                capabilities::Capabilities::from_text(&String::from_utf8_lossy(text), 41)
            {
                capabilities.to_xattr();
            }
        }
        7 => {
            let (pattern, text) = text.split_at(text.len() / 2);
            glob::Pattern::new(pattern).matches_member(text);
        }
        _ => {
            architecture::of_head(text);
        }
    }
}

/// A hive of Windows' registry.
pub fn hive(bytes: &[u8]) {
    let Some(hive) = registry::Hive::open(bytes.to_vec()) else { return };
    let paths: [&[&str]; 4] = [
        &[],
        &["Select"],
        &["Microsoft", "Windows NT", "CurrentVersion"],
        &["ControlSet001", "Services", "Tcpip", "Parameters"],
    ];
    for key in paths.into_iter().filter_map(|path| hive.find(path)) {
        hive.has_children(key);
        for value in hive.values(key).take(64) {
            value.text();
            value.number();
        }
    }
}

/// The beginning of a device: superblocks, and an ISO's volume descriptor.
pub fn superblocks(bytes: &[u8]) {
    probe::recognize(bytes);
    if let Some(descriptor) = bytes.first_chunk() {
        iso9660::primary_volume(descriptor);
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
    let mut first = architecture::FirstProgram::default();
    let mut reader = Reader::new(&mut first);
    archive.chunks(length).find(|piece| reader.push(piece).is_err());
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

    /// Bytes as parsers meet them: some that they look for, some lines, some at random.
    fn input() -> impl Strategy<Value = Vec<u8>> {
        let known = prop_oneof![
            Just(b"regf".to_vec()),
            Just(b"070701".to_vec()),
            Just(b"ustar\x0000".to_vec()),
            Just(b"EFI PART".to_vec()),
            Just(b"UUID=\"a b\" /x\\040y ext4 subvol=,ro 0 0\n".to_vec()),
            Just(b"ID=debian\nVERSION_ID='12.'\n".to_vec()),
            Just(b"user::rwx,group:1:r,m::x".to_vec()),
            Just(b"btrfsvol:/dev/sda/".to_vec()),
            Just(b"00000000000".to_vec()),
            Just(vec![0; 512]),
            Just(vec![0xff; 8]),
            proptest::collection::vec(any::<u8>(), 0..64),
        ];
        proptest::collection::vec(known, 0..24).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_text_is_read_or_refused(choice in any::<u8>(), text in input()) {
            super::texts(&[&[choice], &text[..]].concat());
        }

        #[test]
        fn any_bytes_are_a_hive_or_none(bytes in input()) {
            super::hive(&[b"regf", &bytes[..]].concat());
        }

        #[test]
        fn any_superblock_is_recognized_or_not(bytes in input()) {
            super::superblocks(&bytes);
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
