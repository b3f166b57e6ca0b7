// SPDX-License-Identifier: Apache-2.0
//! mdadm(8), which is this program in the root that is made here, and runs the real one.
//!
//! The real one looks at an array in sysfs the moment after it has had the kernel make it, which is before process 1
//! has heard of it and shows it ([`super::view`]). So there are links for arrays that may be made, for as long as it
//! runs; at other times they would lead nowhere.

use super::root::MDADM;
use super::view::VIRTUAL;
use crate::error::{Context, Result};
use std::ffi::OsString;
use std::fs;
use std::ops::RangeInclusive;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Numbers that mdadm gives arrays, and which it can be told to.
const ARRAYS: [RangeInclusive<u32>; 2] = [112..=127, 0..=15];
/// Of md, in linux/major.h.
const MAJOR: u32 = 9;

/// Runs the real one; yields its exit status.
pub(crate) fn run(arguments: &[OsString]) -> Result<i32> {
    let expected = expect().on("/sys/block");
    let status = Command::new(MDADM).args(arguments).status().on("mdadm");
    for array in expected? {
        array.forget();
    }
    let status = status?;
    Ok(status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(1))
}

/// An array that is not shown, and for which there are links.
struct Expected {
    real: PathBuf,
    links: [PathBuf; 2],
}

/// Makes links for all that are not there.
fn expect() -> std::io::Result<Vec<Expected>> {
    let mut expected = Vec::new();
    for number in ARRAYS.into_iter().flatten() {
        let name = format!("md{number}");
        let real = Path::new(VIRTUAL).join(&name);
        let block = Path::new("/sys/block").join(&name);
        // One that runs and is not shown is the host's.
        if is_made(&real) || block.is_symlink() {
            continue;
        }
        let by_number = PathBuf::from(format!("/sys/dev/block/{MAJOR}:{number}"));
        symlink(&real, &block)?;
        symlink(format!("../../block/{name}"), &by_number)?;
        expected.push(Expected { real, links: [block, by_number] });
    }
    Ok(expected)
}

impl Expected {
    /// Removes the links, unless an array has been made: that one is to be shown.
    fn forget(&self) {
        if !is_made(&self.real) {
            for link in &self.links {
                fs::remove_file(link).ok();
            }
        }
    }
}

/// Whether an array consists of anything.
fn is_made(real: &Path) -> bool {
    fs::read_dir(real.join("slaves")).is_ok_and(|mut slaves| slaves.next().is_some())
}
