// SPDX-License-Identifier: Apache-2.0
//! Writing zeroes where the storage has no faster operation for it.
use std::io;

use io_engine::File;
use sgl::Sgl;

/// Bytes written at once: large enough to need few system calls, small enough for every command to
/// have a buffer at the same time.
const CHUNK: u64 = 64 * 1024;

/// Overwrites a range with zeroes.
pub(crate) async fn write(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let zeroes = Sgl::zeroed(usize::try_from(len.min(CHUNK)).unwrap_or(0));
    let (mut at, mut left) = (offset, len);
    while left > 0 {
        let n = left.min(CHUNK);
        let piece = zeroes.slice(0..usize::try_from(n).unwrap_or(0));
        file.write_at(&piece, at, false).await?;
        at += n;
        left -= n;
    }
    Ok(())
}
