// SPDX-License-Identifier: Apache-2.0
//! Filesystems of Linux, and swap.

use super::found::Found;
use crate::checksum::crc32c;
use crate::contents::Contents;
use crate::fields::{be16, be32, le16, le32, le64, text, utf16, uuid};
use crate::medium::Medium;

/// Sizes of pages: the signature of swap ends where the first one does.
pub(super) const PAGES: &[u64] = &[0x1000, 0x2000, 0x4000, 0x8000, 0x10000];

/// Features of ext filesystems, in the three words of the superblock.
mod feature {
    pub(super) const COMPAT_HAS_JOURNAL: u32 = 0x4;
    pub(super) const INCOMPAT_JOURNAL_DEV: u32 = 0x8;
    /// Those that ext2 knows: filetype, meta_bg.
    pub(super) const INCOMPAT_EXT2: u32 = 0x2 | 0x10;
    /// Those that ext3 knows: needs_recovery as well.
    pub(super) const INCOMPAT_EXT3: u32 = INCOMPAT_EXT2 | 0x4;
    /// Those that ext2 and ext3 know: sparse_super, large_file, btree_dir.
    pub(super) const RO_COMPAT_EXT3: u32 = 0x1 | 0x2 | 0x4;
    pub(super) const RO_COMPAT_METADATA_CSUM: u32 = 0x400;
    /// A flag of the filesystem: it may be mounted by test code.
    pub(super) const FLAG_TEST: u32 = 0x4;
}

pub(super) fn ext(m: &Medium<'_>) -> Option<Found> {
    let sb = m.array::<1024>(1024).filter(|sb| le16(sb, 0x38) == 0xef53)?;
    let (compat, incompat, ro) = (le32(&sb, 0x5c), le32(&sb, 0x60), le32(&sb, 0x64));
    if ro & feature::RO_COMPAT_METADATA_CSUM != 0 && crc32c(&sb[..0x3fc]) != le32(&sb, 0x3fc) {
        return Some(Found::Unsure);
    }
    let (log_block_size, flags) = (le32(&sb, 0x18), le32(&sb, 0x160));
    let external_journal = incompat & feature::INCOMPAT_JOURNAL_DEV != 0;
    if log_block_size > 6 || external_journal || flags & feature::FLAG_TEST != 0 {
        return Some(Found::Unsure);
    }
    let journal = compat & feature::COMPAT_HAS_JOURNAL != 0;
    let old = ro & !feature::RO_COMPAT_EXT3 == 0;
    let fstype = match journal {
        false if old && incompat & !feature::INCOMPAT_EXT2 == 0 => "ext2",
        true if old && incompat & !feature::INCOMPAT_EXT3 == 0 => "ext3",
        _ => "ext4",
    };
    let mut tags = Contents::default()
        .with_text("LABEL", text(&sb[0x78..0x88]))
        .with_text("UUID", uuid(&sb[0x68..0x78]));
    if journal {
        tags = tags.with_text("EXT_JOURNAL", uuid(&sb[0xd0..0xe0]));
    }
    // An ext3 whose journal is empty can be mounted as ext2.
    if fstype == "ext3" && incompat & !feature::INCOMPAT_EXT2 == 0 {
        tags = tags.with("SEC_TYPE", "ext2");
    }
    let (revision, minor) = (le32(&sb, 0x4c), le16(&sb, 0x3e));
    let tags = tags
        .with("VERSION", format!("{revision}.{minor}"))
        .with("BLOCK_SIZE", (1024u32 << log_block_size).to_string());
    Some(Found::Known(tags.ending(fstype, "filesystem")))
}

pub(super) fn xfs(m: &Medium<'_>) -> Option<Found> {
    let sb = m.array::<512>(0).filter(|sb| sb.starts_with(b"XFSB"))?;
    let (block, sector) = (be32(&sb, 4), be16(&sb, 102));
    let sound = block.is_power_of_two()
        && (512..=65536).contains(&block)
        && sector.is_power_of_two()
        && (512..=32768).contains(&sector)
        && sb[8..16] != [0; 8]
        && be32(&sb, 84) != 0
        && be32(&sb, 88) != 0;
    if !sound {
        return Some(Found::Unsure);
    }
    let tags = Contents::default()
        .with_text("LABEL", text(&sb[108..120]))
        .with_text("UUID", uuid(&sb[32..48]))
        .with("BLOCK_SIZE", sector.to_string());
    Some(Found::Known(tags.ending("xfs", "filesystem")))
}

pub(super) fn btrfs(m: &Medium<'_>) -> Option<Found> {
    let sb = m.array::<4096>(0x10000).filter(|sb| &sb[0x40..0x48] == b"_BHRfS_M")?;
    // Other kinds of checksum are for blkid to verify or not.
    if le64(&sb, 0x30) != 0x10000 || le16(&sb, 0xc4) != 0 || !crc32c(&sb[0x20..]) != le32(&sb, 0) {
        return Some(Found::Unsure);
    }
    let tags = Contents::default()
        .with_text("LABEL", text(&sb[0x12b..0x22b]))
        .with_text("UUID", uuid(&sb[0x20..0x30]))
        .with_text("UUID_SUB", uuid(&sb[0x10b..0x11b]))
        .with("BLOCK_SIZE", le32(&sb, 0x90).to_string());
    Some(Found::Known(tags.ending("btrfs", "filesystem")))
}

pub(super) fn f2fs(m: &Medium<'_>) -> Option<Found> {
    let sb = m.at(0x400, 0x7c + 1024).filter(|sb| le32(sb, 0) == 0xf2f5_2010)?;
    let (major, minor, log_block) = (le16(&sb, 4), le16(&sb, 6), le32(&sb, 16));
    // Version 1.0 had no labels.
    if major == 1 && minor == 0 || log_block > 16 {
        return Some(Found::Unsure);
    }
    let tags = Contents::default()
        .with_text("LABEL", utf16(&sb[0x7c..]))
        .with_text("UUID", uuid(&sb[0x6c..0x7c]))
        .with("VERSION", format!("{major}.{minor}"))
        .with("BLOCK_SIZE", (1u32 << log_block).to_string());
    Some(Found::Known(tags.ending("f2fs", "filesystem")))
}

pub(super) fn squashfs(m: &Medium<'_>) -> Option<Found> {
    let sb = m.array::<96>(0).filter(|sb| sb.starts_with(b"hsqs"))?;
    let (major, minor) = (le16(&sb, 28), le16(&sb, 30));
    if major != 4 {
        return Some(Found::Unsure);
    }
    let tags = Contents::default().with("VERSION", format!("{major}.{minor}"));
    Some(Found::Known(tags.ending("squashfs", "filesystem")))
}

pub(super) fn swap(m: &Medium<'_>) -> Option<Found> {
    let is_swap =
        |page: &&u64| m.has(**page - 10, b"SWAPSPACE2") || m.has(**page - 10, b"SWAP-SPACE");
    let page = PAGES.iter().find(is_swap)?;
    let header = m.array::<1024>(0x400)?;
    let signature = m.has(page - 10, b"SWAPSPACE2");
    // Version 0, the other byte order, or an area that cannot be right.
    if !signature || le32(&header, 0) != 1 || le32(&header, 4) == 0 {
        return Some(Found::Unsure);
    }
    let tags = Contents::default()
        .with_text("LABEL", text(&header[0x1c..0x2c]))
        .with_text("UUID", uuid(&header[0xc..0x1c]))
        .with("VERSION", "1");
    Some(Found::Known(tags.ending("swap", "other")))
}
