// SPDX-License-Identifier: Apache-2.0
//! Looking through an image that was not closed, before it is written to. In: the image's file.
//! Out: refcounts that are right, or what is wrong.
//!
//! Rules:
//! - All that was read is brought to stable storage before anything is decided on it: what a process
//!   that died left in the page cache may not be there yet.
//! - Refcounts that are too high are leaks, and are corrected. Ones that are too low are errors,
//!   unless the dirty bit says that they may be wrong: then the image is repaired as a check does.
//! - References to the outside of the file are errors: it was cut off, or is damaged.
//! - COPIED flags that are missing since a crash are set, once the refcounts are right.
//! - Where the header has an extension that is not known here, nothing is a leak: what the
//!   extension refers to cannot be counted.
use std::time::{Duration, Instant};

use crate::compare::{Check, Pass};
use crate::error::Result;
use crate::layout::header::Header;
use crate::{ErrorKind, Storage, repair};

/// If it takes longer than this, the log says so.
const LONG: Duration = Duration::from_secs(5);

/// Sees to it that the refcounts are right; `dirty` says that they may be wrong. Returns whether
/// they are: an image in which too much is in use to be counted is only told of. Of a `scratch`
/// image nothing is synced unless it is repaired.
///
/// # Errors
/// [`ErrorKind::Invalid`] for an image that may not be written to as it is.
pub(crate) async fn scan<S: Storage>(
    storage: &S,
    header: Header,
    dirty: bool,
    scratch: bool,
) -> Result<bool> {
    let sync = async || if scratch { Ok(()) } else { storage.sync().await };
    let started = Instant::now();
    let counted = Check::count(storage, header).await;
    let took = started.elapsed();
    if took > LONG {
        tracing::info!(
            "the image had not been closed by us: to look for what is in use in it took {} s",
            took.as_secs()
        );
    }
    let mut check = match counted {
        Err(ErrorKind::Unsupported(why)) if !dirty => {
            tracing::warn!("leaked clusters are not looked for: {why}");
            return Ok(false);
        }
        counted => counted?,
    };
    sync().await?;
    if let Some(why) = check.refused(dirty) {
        return Err(why);
    }
    if dirty {
        check.flags(Pass::Look).await?;
        if !repair::all(check).await? {
            return Err(ErrorKind::damaged("its refcounts could not be repaired"));
        }
        tracing::info!("the image had not been closed: its refcounts were rebuilt");
        return Ok(true);
    }
    if !check.refs.all_counted() {
        return Ok(true);
    }
    let leaks = check.leaks + check.beyond;
    if leaks > 0 {
        check.refcounts(Pass::Leaner).await?;
        sync().await?;
        tracing::info!("{leaks} clusters that a crash had leaked were given back");
    }
    if check.refs.unflagged {
        check.flags(Pass::Leaner).await?;
        sync().await?;
    }
    Ok(true)
}
