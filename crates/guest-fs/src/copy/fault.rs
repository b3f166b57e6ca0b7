// SPDX-License-Identifier: Apache-2.0
//! What goes wrong while something is copied, on which side, and what it is called then.

use guest_error::{Errno, Error, shown};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// What is copied to where, as the client names it: for errors.
#[derive(Debug)]
pub struct Names {
    /// The file or directory that is copied.
    pub source: OsString,
    /// What it becomes.
    pub target: OsString,
}

/// On which side something went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Target,
    /// The kernel does not say, or it takes two.
    Both,
}

/// What went wrong with one file, whose name is not in the text yet.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(super) side: Side,
    pub(crate) error: Error,
}

pub(crate) type Copied<T> = std::result::Result<T, Fault>;

impl Fault {
    pub(super) fn new(side: Side, errno: Errno, text: &str) -> Self {
        Self { side, error: Error::new(errno, text) }
    }
}

/// Says on which side a system call went wrong.
pub(super) trait At<T> {
    fn at(self, side: Side) -> Copied<T>;
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, side: Side) -> Copied<T> {
        self.map_err(|e| {
            let errno = Errno::from_raw(e.raw_os_error());
            Fault { side, error: Error::new(errno, errno.describe()) }
        })
    }
}

impl Names {
    /// The error that names the file: the path below what is copied, empty for that itself.
    pub(super) fn name(&self, fault: Fault, path: &[u8]) -> Error {
        let join = |top: &OsStr| {
            let mut whole = top.as_bytes().to_vec();
            if !path.is_empty() {
                while whole.last() == Some(&b'/') {
                    whole.pop();
                }
                whole.push(b'/');
                whole.extend_from_slice(path);
            }
            shown(OsStr::from_bytes(&whole)).into_owned()
        };
        let (source, target) = (join(&self.source), join(&self.target));
        match fault.side {
            Side::Source => fault.error.within(source),
            Side::Target => fault.error.within(target),
            Side::Both => fault.error.within(format!("{source} to {target}")),
        }
    }
}
