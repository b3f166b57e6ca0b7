// SPDX-License-Identifier: Apache-2.0
//! Tells whoever started the daemon that it serves the client, which a starter that has given the channel away does not
//! see (guestfs-novm).

use crate::listen;
use std::fs::File;
use std::io::Write;

/// The variable with the descriptor to which a zero byte is written.
const VARIABLE: &str = "GUESTFSD_LAUNCHED";

/// Tells it, if there is such a starter.
pub(crate) fn tell() {
    let Some(number) = std::env::var(VARIABLE).ok() else { return };
    let pipe = number.parse().map_err(std::io::Error::other).and_then(listen::inherited);
    // If nobody reads it any more, nobody need know.
    if let Err(e) = pipe.and_then(|pipe| File::from(pipe).write_all(&[0])) {
        tracing::warn!("{VARIABLE}={number}: {e}");
    }
}
