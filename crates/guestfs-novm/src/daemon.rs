// SPDX-License-Identifier: Apache-2.0
//! Where guestfsd is.

use crate::error::{Error, Result};
use rustix::fs::{Access, access};
use std::path::{Path, PathBuf};

/// The variable that says it.
pub const VARIABLE: &str = "GUESTFS_NOVM_GUESTFSD";
/// Directories where it may be installed.
const PLACES: &[&str] = &["/usr/local/sbin", "/usr/sbin", "/usr/libexec", "/usr/lib/lunette"];

/// The daemon that is to be used: the one that the user has given, else the variable's, else the one
/// beside this program, else one that is installed.
pub fn find(given: Option<&Path>) -> Result<PathBuf> {
    let variable = || std::env::var_os(VARIABLE).map(|path| (VARIABLE, path.into()));
    let given = given.map(|path| ("--guestfsd", path.to_owned()));
    if let Some((who, path)) = given.or_else(variable) {
        return match is_program(&path) {
            true => Ok(path),
            false => {
                let path = path.display();
                let text = format!("{who} {path}: there is no file that can be executed");
                Err(Error::Missing(text))
            }
        };
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    let sbin = beside.as_ref().map(|dir| dir.join("../sbin"));
    let places = beside.into_iter().chain(sbin).chain(PLACES.iter().map(PathBuf::from));
    places.map(|dir| dir.join("guestfsd")).find(|path| is_program(path)).ok_or_else(|| {
        Error::Missing(format!(
            "guestfsd is not beside this program, nor in {}; say with {VARIABLE} where it is",
            PLACES.join(", ")
        ))
    })
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}
