// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask package`: Debian packages of what the workspace builds. They have the names of
//! Debian's own where there are such, and a higher version, so that they take their place while they
//! serve, and make room for them again (`apt-get install tcmu-runner/stable libtcmu2/stable`).
//!
//! `list` is the table of packages and their files; `deb` makes a package of a row.
mod deb;
mod list;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::install::{self, For};
use crate::run;
use list::PACKAGES;

/// Debian packages of the daemons, the library and its headers.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where the packages go; default: "debian" in the target directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Cargo's profile
    #[arg(long, default_value = "release")]
    profile: String,
    /// Do not have lintian look at them
    #[arg(long)]
    no_lintian: bool,
}

/// Makes the packages, and has lintian look at them.
pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    install::ensure(&[For::Package])?;
    let out = match &options.out {
        Some(out) => out.clone(),
        None => fresh(run::target_dir()?.join("debian"))?,
    };
    let packages = make(&out, &options.profile)?;
    for package in &packages {
        println!("{}", package.display());
    }
    if options.no_lintian || lint(&packages)? {
        Ok(ExitCode::SUCCESS)
    } else {
        Ok(ExitCode::FAILURE)
    }
}

/// A directory of ours, without the packages of an earlier version.
fn fresh(directory: PathBuf) -> Result<PathBuf> {
    if directory.exists() {
        std::fs::remove_dir_all(&directory)
            .with_context(|| format!("cannot empty {}", directory.display()))?;
    }
    Ok(directory)
}

/// Builds what is in packages and makes those in a directory; their files.
fn make(out: &Path, profile: &str) -> Result<Vec<PathBuf>> {
    let crates: Vec<_> = PACKAGES.iter().flat_map(|package| package.crates).copied().collect();
    let built = run::Build::start(profile, &crates)?.finish()?;
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    PACKAGES.iter().map(|package| deb::make(package, &built, out)).collect()
}

/// The directory of the packages of what tests build; made once.
pub(crate) fn for_tests() -> Result<PathBuf> {
    static MADE: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(out) = &*made {
        return Ok(out.clone());
    }
    install::ensure(&[For::Package])?;
    let out = fresh(run::target_dir()?.join("demo/debian"))?;
    make(&out, "demo")?;
    *made = Some(out.clone());
    Ok(out)
}

/// Whether lintian has nothing to say of the packages, beside what they say themselves.
fn lint(packages: &[PathBuf]) -> Result<bool> {
    let mut lintian = run::command("lintian");
    lintian.args(["--allow-root", "--tag-display-limit", "0", "--fail-on", "error,warning"]);
    let found = run::status(lintian.args(packages))?;
    println!("lintian: {}", if found.success() { "clean" } else { "see above" });
    Ok(found.success())
}
