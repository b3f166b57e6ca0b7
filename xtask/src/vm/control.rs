// SPDX-License-Identifier: Apache-2.0
//! The control directory, which host and guest share: what the guest is to run goes in, the script's
//! exit status and the kernel's log come out.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::options::Options;
use crate::run;

const STAGE2: &str = include_str!("guest/stage2");
/// In the control directory: what QEMU says; the console of User-Mode Linux.
pub(super) const ERRORS: &str = "errors";
/// In the control directory: what becomes /scratch.
pub(super) const SCRATCH: &str = "scratch.img";

/// What the guest finds in its control directory.
pub(super) fn write(dir: &Path, options: &Options) -> Result<()> {
    let (script, args) = options.script.split_first().context("no script")?;
    let script = std::fs::canonicalize(script).with_context(|| format!("no script {script}"))?;
    let mut command = String::new();
    for variable in &options.env {
        let Some((name, value)) = variable.split_once('=') else {
            bail!("--env {variable}: NAME=VALUE is wanted");
        };
        command += &format!("export {name}={}\n", run::quote(value));
    }
    let here = std::env::current_dir()?;
    command += &format!("cd {}\nexec", run::quote(&here.to_string_lossy()));
    if script.metadata()?.permissions().mode() & 0o111 == 0 {
        command += " /bin/bash";
    }
    for word in [script.to_string_lossy().into_owned()].iter().chain(args) {
        command += &format!(" {}", run::quote(word));
    }
    std::fs::write(dir.join("cmd"), command + "\n")?;
    std::fs::write(dir.join("stage2"), STAGE2)?;
    if options.systemd {
        std::fs::write(dir.join("systemd"), "")?;
    }
    if let Some(share) = &options.share {
        std::fs::create_dir_all(share)?;
        let share = std::fs::canonicalize(share)?;
        std::fs::write(dir.join("share"), share.as_os_str().as_encoded_bytes())?;
    }
    let scratch = dir.join(SCRATCH);
    File::create(&scratch)?.set_len(options.scratch << 20)?;
    let mut mkfs = run::command("mkfs.ext4");
    run::run(mkfs.args(["-q", "-F", "-m0", "-E", "nodiscard"]).arg(scratch))
}
