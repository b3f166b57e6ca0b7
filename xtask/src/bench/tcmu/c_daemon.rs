// SPDX-License-Identifier: Apache-2.0
//! The C daemon to compare with: Debian's package. It has no `file` handler, so that is built from
//! the example in the source of the same package, in the cache directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::run;

/// The C daemon's command line, and whether it has a `file` handler.
pub(crate) struct CDaemon {
    pub(crate) command: String,
    /// Why there is no `file` handler.
    pub(crate) no_file: Option<String>,
}

/// Debian's daemon with a handler for `qcow` and, where its source is to be had, for `file`.
pub(crate) fn prepare() -> Result<CDaemon> {
    let daemon = run::find_program("tcmu-runner")
        .context("no tcmu-runner installed: apt-get install tcmu-runner")?;
    let handlers = run::cache_dir()?.join("c-daemon/handlers");
    std::fs::create_dir_all(&handlers)?;
    let qcow = handlers.join("handler_qcow.so");
    if !qcow.exists() {
        std::os::unix::fs::symlink(packaged_handler("handler_qcow.so")?, &qcow)?;
    }
    let file = handlers.join("handler_file.so");
    let built = if file.exists() { Ok(()) } else { build(&file) };
    Ok(CDaemon {
        command: format!("{} --handler-path {}", daemon.display(), handlers.display()),
        no_file: built.err().map(|error| format!("{error:#}")),
    })
}

fn packaged_handler(name: &str) -> Result<PathBuf> {
    let list = run::output(Command::new("dpkg-query").args(["-L", "tcmu-runner"]))?;
    let line = list.lines().find(|line| line.ends_with(name));
    Ok(line.with_context(|| format!("package tcmu-runner has no {name}"))?.into())
}

/// Fetches the package's source, with a list of sources of our own, and compiles the example.
fn build(to: &Path) -> Result<()> {
    let dir = run::cache_dir()?.join("c-daemon/source");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(dir.join("lists/partial"))?;
    let release = std::fs::read_to_string("/etc/os-release")?;
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("/etc/os-release has no VERSION_CODENAME")?;
    std::fs::write(
        dir.join("sources.list"),
        format!("deb-src http://deb.debian.org/debian {codename} main\n"),
    )?;
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.current_dir(&dir).args(["-qq", "-o"]);
        command.arg(format!("Dir::Etc::sourcelist={}/sources.list", dir.display()));
        command.args(["-o", "Dir::Etc::sourceparts=-", "-o"]);
        command.arg(format!("Dir::State::lists={}/lists", dir.display()));
        command.args(["-o", "APT::Sandbox::User="]);
        run::bytes(command.args(args))
    };
    apt(&["update"])?;
    apt(&["source", "tcmu"])?;
    let tree = std::fs::read_dir(&dir)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.join("file_example.c").is_file())
        .context("the source of package tcmu has no file_example.c")?;
    let new = to.with_extension("new");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-fPIC", "-shared", "-std=gnu99", "-I"]).arg(&tree);
    gcc.arg("-I").arg(tree.join("ccan")).arg("-o").arg(&new).arg(tree.join("file_example.c"));
    run::bytes(&mut gcc)?;
    Ok(std::fs::rename(new, to)?)
}
