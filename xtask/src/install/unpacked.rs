// SPDX-License-Identifier: Apache-2.0
//! Debian packages whose files tests compare with or run: fetched with apt-get and unpacked, not
//! installed, and kept from run to run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::run;

/// The directory of a package's files.
pub(crate) fn package(name: &str) -> Result<PathBuf> {
    let dir = run::cache_dir()?.join("unpacked").join(name);
    if dir.exists() {
        return Ok(dir);
    }
    let new = tempfile::tempdir_in(run::cache_dir()?)?;
    let files = new.path().join("files");
    run::run(Command::new("dpkg-deb").arg("-x").arg(deb(name)?).arg(&files))?;
    rename(&files, &dir)?;
    Ok(dir)
}

/// A package itself.
pub(crate) fn deb(name: &str) -> Result<PathBuf> {
    let dir = run::cache_dir()?.join("debs").join(name);
    if !dir.exists() {
        println!("fetching the package {name}");
        let new = tempfile::tempdir_in(run::cache_dir()?)?;
        let files = new.path().join("files");
        std::fs::create_dir(&files)?;
        // apt's own user could not write to a directory of ours, and would say so.
        let words = ["download", "-qq", "-o", "APT::Sandbox::User=root", name];
        run::run(Command::new("apt-get").args(words).current_dir(&files))?;
        rename(&files, &dir)?;
    }
    let package = std::fs::read_dir(&dir)?.flatten().map(|entry| entry.path()).next();
    package.with_context(|| format!("apt-get download {name} left no file"))
}

/// A directory with one of the plugins of Debian's package tcmu-runner, and no other.
pub(crate) fn plugin(file: &str) -> Result<PathBuf> {
    let dir = run::cache_dir()?.join("plugins").join(file.trim_end_matches(".so"));
    if dir.join(file).exists() {
        return Ok(dir);
    }
    let lib = package("tcmu-runner")?.join("usr/lib");
    let found = std::fs::read_dir(&lib)?
        .flatten()
        .map(|triplet| triplet.path().join("tcmu-runner").join(file))
        .find(|path| path.is_file());
    let found = found.with_context(|| format!("the package tcmu-runner has no {file}"))?;
    let new = tempfile::tempdir_in(run::cache_dir()?)?;
    let files = new.path().join("files");
    std::fs::create_dir(&files)?;
    std::fs::copy(&found, files.join(file))?;
    rename(&files, &dir)?;
    Ok(dir)
}

/// Moves a directory to its place, unless somebody has been there first.
fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to.parent().unwrap_or(to))?;
    match std::fs::rename(from, to) {
        Err(_) if to.is_dir() => Ok(()),
        result => result.with_context(|| format!("cannot make {}", to.display())),
    }
}
