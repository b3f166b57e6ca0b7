// SPDX-License-Identifier: Apache-2.0
//! The passphrase of an encrypted image, from a file that an option names: it stands neither in
//! configuration strings, which everybody can read, nor in messages. In memory it is overwritten when
//! it is not needed any more.
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use qcow2::Secret;
use rustix::fs::OFlags;

use crate::Error;

/// Longest passphrase, in bytes.
const MAX_LEN: u64 = 64 << 10;
/// What others must not have.
const OTHERS: u32 = 0o077;
const OPERATION: &str = "read the passphrase";

/// Reads a passphrase. Blocks.
pub(super) fn read(path: &Path) -> Result<Secret, Error> {
    let failed = |e| Error::new(e, OPERATION, path);
    let refuse = |text: String| Err(Error::invalid(text, OPERATION, path));
    // NONBLOCK: a FIFO is found out without waiting for a writer.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut file = File::options().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return refuse("it is no regular file".into());
    }
    if metadata.mode() & OTHERS != 0 {
        let mode = metadata.mode() & 0o7777;
        return refuse(format!(
            "its mode is {mode:04o}: others than its owner may use it; run `chmod 600 {}`",
            path.display()
        ));
    }
    let len = metadata.len();
    if len == 0 || len > MAX_LEN {
        return refuse(format!("it has {len} bytes; a passphrase has 1 to {MAX_LEN}"));
    }
    // Whole from the beginning: a buffer that grows leaves copies behind.
    let mut passphrase = vec![0; usize::try_from(len).unwrap_or_default()];
    let read = file.read_exact(&mut passphrase);
    let secret = Secret::new(passphrase);
    read.map(|()| secret).map_err(failed)
}
