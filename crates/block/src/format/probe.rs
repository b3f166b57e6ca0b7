// SPDX-License-Identifier: Apache-2.0
//! Which format an image has, by what it begins with. What none of the formats begins with is raw.
//!
//! To QEMU a compressed file is raw. So it is below an image of QEMU that does not tell the format
//! of its backing file ([`probe_backing`]); where a user names such a file, its content is meant,
//! and a file that was downloaded must not be written to as if it were a disk ([`probe()`]).
//!
//! So a raw image whose format nobody has told can become another one by what a guest writes to its
//! first sector, and that one could name files of this host. Such writes are refused ([`Guard`]), as
//! QEMU refuses them; where the format is told, the guest may write what it likes.
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sgl::Sgl;

use super::compressed;
use crate::range_lock::{Access, Guard as TurnGuard, RangeLock};

/// How many bytes of an image have to be looked at, if it has so many.
pub const PROBED: usize = 512;

/// Bytes that images of a format have at an offset.
#[derive(Clone, Copy, Debug)]
struct Magic {
    format: &'static str,
    at: usize,
    bytes: &'static [u8],
}

const fn magic(format: &'static str, at: usize, bytes: &'static [u8]) -> Magic {
    Magic { format, at, bytes }
}

/// The first that fits decides. Names are QEMU's, as far as it has them.
const MAGIC: &[Magic] = &[
    magic("qcow", 0, b"QFI\xfb\0\0\0\x01"),
    magic("qcow2", 0, b"QFI\xfb"),
    magic("qed", 0, b"QED\0"),
    magic("vmdk", 0, b"KDMV"),
    magic("vmdk", 0, b"COWD"),
    magic("vmdk", 0, b"# Disk DescriptorFile"),
    magic("vhdx", 0, b"vhdxfile"),
    magic("vpc", 0, b"conectix"),
    magic("parallels", 0, b"WithoutFreeSpace"),
    magic("parallels", 0, b"WithouFreSpacExt"),
    magic("luks", 0, b"LUKS\xba\xbe"),
    // VirtualBox writes a text first.
    magic("vdi", 64, b"\x7f\x10\xda\xbe"),
];

/// The same for files that are compressed as a whole.
const COMPRESSED: &[Magic] = &[
    magic("xz", 0, compressed::XZ_MAGIC),
    magic("zst", 0, &compressed::ZST_MAGIC),
    magic("gz", 0, &compressed::GZ_MAGIC),
];

/// The bytes that tell the format of a file: [`PROBED`], or as many as it has. Blocks.
///
/// # Errors
/// Those of reading it.
pub fn head(file: &File) -> io::Result<Vec<u8>> {
    let mut head = [0; PROBED];
    let mut there = 0;
    while let Some(rest) = head.get_mut(there..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, there as u64) {
            Ok(0) => break,
            Ok(n) => there += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(head.get(..there).unwrap_or_default().to_vec())
}

/// The format of an image by its first [`PROBED`] bytes, or as many as it has; `raw` if it is none.
pub fn probe(head: &[u8]) -> &'static str {
    match find(MAGIC.iter().chain(COMPRESSED), head) {
        "raw" if compressed::zst_begins_after_skippable(head) => "zst",
        format => format,
    }
}

/// The same for a backing file, of which QEMU decides what it is.
pub(crate) fn probe_backing(head: &[u8]) -> &'static str {
    find(MAGIC, head)
}

fn find<'a>(rows: impl IntoIterator<Item = &'a Magic>, head: &[u8]) -> &'static str {
    let fits =
        |magic: &&Magic| head.get(magic.at..).is_some_and(|rest| rest.starts_with(magic.bytes));
    rows.into_iter().find(fits).map_or("raw", |magic| magic.format)
}

/// Keeps a raw image raw whose format was found out by [`probe`].
#[derive(Debug, Default)]
pub(crate) struct Guard {
    /// Held by a change of the first bytes, from when it is judged until it is done.
    turn: RangeLock,
}

impl Guard {
    /// Waits for its turn to change the first bytes.
    pub(crate) async fn turn(&self) -> TurnGuard<'_> {
        self.turn.lock(0..1, Access::Alone).await
    }
}

/// The format that an image that begins with `head` would seem to have after a write at `offset`.
pub(crate) fn disguise(
    head: &mut [u8; PROBED],
    data: &Sgl<'_>,
    offset: u64,
) -> Option<&'static str> {
    let at = usize::try_from(offset).ok().filter(|at| *at < PROBED)?;
    data.read_at(0, head.get_mut(at..)?);
    Some(probe(head)).filter(|format| *format != "raw")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_is_known_by_its_magic_number_and_nothing_else_is() {
        for row in MAGIC.iter().chain(COMPRESSED) {
            let mut head = vec![0; row.at];
            head.extend(row.bytes);
            assert_eq!(probe(&head), row.format);
            head.pop();
            assert_ne!(probe(&head), row.format);
        }
        for head in [&b""[..], b"QFI", b"\0\0\0\0", &[0; PROBED]] {
            assert_eq!(probe(head), "raw");
        }
    }

    #[test]
    fn a_zstd_file_may_begin_with_skippable_frames_that_are_followed_by_another() {
        // As `pzstd` makes them.
        let mut head = vec![0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 0x80, 0, 0, 0];
        assert_eq!(probe(&head), "raw");
        let again = head.clone();
        head.extend(again);
        head.extend(compressed::ZST_MAGIC);
        assert_eq!((probe(&head), probe_backing(&head)), ("zst", "raw"));
        head.pop();
        assert_eq!(probe(&head), "raw");
        head.splice(4..8, [0xff; 4]);
        assert_eq!(probe(&head), "raw");
        let mut disk = [0; PROBED];
        disk[12..16].copy_from_slice(&compressed::ZST_MAGIC);
        let mut frame = [0x5f, 0x2a, 0x4d, 0x18, 4, 0, 0, 0];
        assert_eq!(disguise(&mut disk, &Sgl::from_slice(&mut frame), 0), Some("zst"));
    }

    #[test]
    fn a_compressed_file_is_raw_below_an_image_as_it_is_to_qemu() {
        for row in COMPRESSED {
            assert_eq!(probe_backing(row.bytes), "raw");
            let mut head = [0; PROBED];
            let written = disguise(&mut head, &Sgl::from_slice(&mut row.bytes.to_vec()), 0);
            assert_eq!(written, Some(row.format));
        }
        assert_eq!(probe_backing(b"QFI\xfb"), "qcow2");
    }

    #[test]
    fn a_write_is_judged_by_what_it_makes_of_the_whole_beginning() {
        let write = |head: &mut [u8; PROBED], bytes: &mut [u8], offset| {
            disguise(head, &Sgl::from_slice(bytes), offset)
        };
        let mut head = [0; PROBED];
        assert_eq!(write(&mut head, &mut b"FI\xfb\0".to_vec(), 1), None);
        assert_eq!(write(&mut head, &mut [b'Q'], 0), Some("qcow2"));
        assert_eq!(write(&mut [0; PROBED], &mut [7; 2048], 100), None);
        assert_eq!(write(&mut [0; PROBED], &mut b"\x7f\x10\xda\xbe".to_vec(), 64), Some("vdi"));
    }
}
