// SPDX-License-Identifier: Apache-2.0
//! Filesystems that are only made here.

use super::driver::{Block, Driver, Maker};

const FORCED: Maker = Maker { always: &["-f"], label: Some("-L"), ..Maker::USUAL };

/// Theirs.
pub(super) const DRIVERS: &[Driver] = &[
    Driver::made(&["f2fs"], Maker { label: Some("-l"), ..Maker::USUAL }),
    Driver::made(
        &["exfat"],
        Maker { label: Some("-L"), block: Block::Bytes("-c"), ..Maker::USUAL },
    ),
    Driver::made(&["jfs"], FORCED),
    Driver::made(&["reiserfs"], Maker { label: Some("-l"), ..FORCED }),
    Driver::made(&["nilfs2"], FORCED),
    Driver::made(&["hfsplus"], Maker { label: Some("-v"), ..Maker::USUAL }),
    Driver::made(
        &["gfs", "gfs2"],
        Maker { always: &["-p", "lock_nolock", "-j", "1", "-O"], features: false, ..Maker::USUAL },
    ),
    Driver::made(&["ufs"], Maker { sector: Some("-S"), ..Maker::USUAL }),
];
