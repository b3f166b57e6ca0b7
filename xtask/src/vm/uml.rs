// SPDX-License-Identifier: Apache-2.0
//! User-Mode Linux: a kernel that is a process, whose programs the processor carries out as it does all
//! others. Root, control directory and share are hostfs, /scratch is a ubd, the script's output goes to a
//! terminal, which is standard output here; the console is standard error.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::control::SCRATCH;
use super::options::Options;
use crate::run::{self, Kept};

const INIT: &str = include_str!("guest/uml");
/// In the control directory: the first process, where it makes the root, and what is preloaded.
const FIRST: &str = "init";
const ROOT: &str = "root";
const XSTATE: &str = "xstate.so";
/// The network card of one of a pair, whose other end is standard input.
const CARD: &str = "vec0:transport=fd,fd=0";

/// The command that boots it with a control directory.
pub(super) fn command(options: &Options, dir: &Path) -> Result<Command> {
    let place = dir.to_str().filter(|place| !place.contains([' ', ',', '"']));
    let Some(place) = place else {
        bail!("User-Mode Linux takes no path such as {}: set TMPDIR", dir.display());
    };
    let kernel = run::find_program("linux.uml").context("no linux.uml: install user-mode-linux")?;
    let init = dir.join(FIRST);
    std::fs::write(&init, INIT)?;
    std::fs::set_permissions(&init, PermissionsExt::from_mode(0o755))?;
    std::fs::create_dir_all(dir.join(ROOT))?;
    std::fs::write(dir.join(XSTATE), uml_xstate::LIBRARY)?;
    // Its processes end with it: it is process 1 of a namespace.
    let mut command = Kept::command("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["--pid", "--kill-child", "--"])
        .arg(kernel)
        .args([format!("mem={}M", options.mem), format!("ubd0={place}/{SCRATCH}")])
        .args(["umid=vm".to_owned(), format!("uml_dir={place}/")])
        .args(["con=null", "con0=null,fd:2", "con1=null,fd:1", "ssl=null", "console=tty0"])
        .args(options.pair.then_some(CARD))
        .args(["root=none", "rootfstype=hostfs", "ro", "quiet", "noreboot", "panic=1"])
        .arg(format!("init={place}/{FIRST}"))
        .env_clear()
        .env("TMPDIR", memory(options.mem)?)
        .env("LD_PRELOAD", dir.join(XSTATE));
    Ok(command)
}

/// A directory for the file that is its memory: the kernel kills it if there is no room for a page.
fn memory(mib: u32) -> Result<&'static str> {
    let has_room = |place: &&str| {
        let found = rustix::fs::statvfs(*place);
        found.is_ok_and(|found| found.f_bavail.saturating_mul(found.f_frsize) >> 20 >= mib.into())
    };
    let place = ["/dev/shm", "/tmp", "/var/tmp"].into_iter().find(has_room);
    place.with_context(|| format!("no room for {mib} MiB in /dev/shm, /tmp and /var/tmp"))
}
