// SPDX-License-Identifier: Apache-2.0
//! Whether an image is consistent, with the classes and numbers of `qemu-img check`. In: a storage
//! that nobody writes to meanwhile. Out: a [`Report`]; what is wrong is repaired on request, by the
//! module `repair`.

use crate::compare::Check;
use crate::error::Result;
use crate::layout::header::Header;
use crate::{Error, Storage, repair};

pub use crate::compare::Report;

/// What a check may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Nothing.
    None,
    /// Refcounts that are too high, if nothing else is wrong.
    Leaks,
    /// Everything that can be repaired.
    All,
}

/// Checks the image on `storage`, and repairs it as far as that is asked for and possible.
///
/// # Errors
/// [`Invalid`](crate::ErrorKind::Invalid) when there is no usable header, [`Unsupported`](crate::ErrorKind::Unsupported) when there is
/// too much to be counted, and those of the storage.
pub async fn check<S: Storage>(storage: &S, repair: Repair) -> std::result::Result<Report, Error> {
    let header = Header::read(storage).await?;
    run(storage, header, repair).await.map_err(|kind| Error::new(kind, "check"))
}

async fn run<S: Storage>(storage: &S, header: Header, repair: Repair) -> Result<Report> {
    let check = Check::look(storage, header).await?;
    let mut report = check.report();
    report.repaired = match repair {
        Repair::Leaks if check.has_leaks_only() => repair::leaks(check).await?,
        Repair::All if !check.is_clean() => repair::all(check).await?,
        _ => false,
    };
    Ok(report)
}
