// SPDX-License-Identifier: Apache-2.0
//! Running other programs, and what to do when someone presses Ctrl-C.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From here on a signal only sets a flag: what is running ends itself and cleans up.
pub(crate) fn catch_signals() -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The second signal ends us at once, for someone who is tired of waiting.
        signal_hook::flag::register_conditional_shutdown(signal, 130, INTERRUPTED.clone())?;
        signal_hook::flag::register(signal, INTERRUPTED.clone())?;
    }
    Ok(())
}

/// Whether a signal asked us to end.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Fails when a signal asked us to end.
pub(crate) fn check_interrupt() -> Result<()> {
    if interrupted() { bail!("interrupted") } else { Ok(()) }
}

/// Where a program is: in PATH, or where Debian keeps what only root uses.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// A command by its program's name, found as [`find_program`] does.
pub(crate) fn command(name: &str) -> Command {
    Command::new(find_program(name).unwrap_or_else(|| name.into()))
}

/// Runs a command to its end with our output; a failure is an error that names it.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("{} failed: {status}", describe(command));
    }
    Ok(())
}

/// Runs a command to its end with our output.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    let mut child = command
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", describe(command)))?;
    let status = child.wait()?;
    check_interrupt()?;
    Ok(status)
}

/// Runs a command and hands on what it prints on its standard output, line by line; whether it
/// succeeded.
pub(crate) fn lines(command: &mut Command, sink: &mut dyn FnMut(&str)) -> Result<bool> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", describe(command)))?;
    let stdout = child.stdout.take().context("no pipe")?;
    for line in BufReader::new(stdout).split(b'\n') {
        sink(&String::from_utf8_lossy(&line?));
    }
    let status = child.wait()?;
    check_interrupt()?;
    Ok(status.success())
}

/// What a command prints on its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&bytes(command)?).into_owned())
}

/// What a command prints on its standard output, as bytes.
pub(crate) fn bytes(command: &mut Command) -> Result<Vec<u8>> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", describe(command)))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        bail!("{} failed: {}: {}", describe(command), out.status, said.trim());
    }
    Ok(out.stdout)
}

/// A command as a person would type it.
pub(crate) fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut line = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&quote(&arg.to_string_lossy()));
    }
    line
}

/// A word as the shell takes it.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A child process that ends with us: killed when this value goes, and by the kernel when we die.
pub(crate) struct Kept(pub(crate) Child);

impl Kept {
    /// Starts `program`, which dies with the thread that calls this.
    pub(crate) fn command(program: &str) -> Command {
        let mut command = command("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(find_program(program).unwrap_or(program.into()));
        command
    }

    /// Waits for the end, at most `limit`; `None`: it still runs.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// Kills it. A process stuck in the kernel is not waited for longer than a few seconds.
    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.wait(Duration::from_secs(5));
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            self.kill();
        }
    }
}

/// The cargo that runs us, in the workspace's directory.
pub(crate) fn cargo(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// The workspace's directory.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where cargo builds to.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let text = output(&mut cargo(["metadata", "--format-version=1", "--no-deps"]))?;
    let json: serde_json::Value = serde_json::from_str(&text).context("cargo metadata")?;
    let dir = json["target_directory"].as_str().context("cargo metadata: no target_directory")?;
    Ok(PathBuf::from(dir))
}

/// The profile of `Cargo.toml` that people run.
pub(crate) const RELEASE: &str = "release";
/// The profile that builds soon, and programs that are nearly as fast.
pub(crate) const SOON: &str = "demo";

/// After the daemon's command: it loads none of the plugins that this machine happens to have.
pub(crate) const NO_PLUGINS: &str = " --handler-path /nonexistent";

/// Builds the daemon with a profile, and the library beside it; returns the program.
pub(crate) fn build_daemon(profile: &str) -> Result<PathBuf> {
    Ok(Build::start(profile, &["tcmu-runner", "libtcmu"])?.finish()?.join("tcmu-runner"))
}

/// A build that runs beside us. It is killed if nobody waits for it.
pub(crate) struct Build {
    cargo: Kept,
    line: String,
    programs: PathBuf,
}

impl Build {
    /// Starts to build the programs of `packages` with a profile of `Cargo.toml`.
    pub(crate) fn start(profile: &str, packages: &[&str]) -> Result<Build> {
        let packages = packages.iter().flat_map(|package| ["-p", package]);
        let mut command =
            cargo(["build", "--profile", profile, "--quiet"].into_iter().chain(packages));
        let line = describe(&command);
        let programs = target_dir()?.join(profile);
        let child = command.stdin(Stdio::null()).spawn();
        let cargo = Kept(child.with_context(|| format!("cannot start {line}"))?);
        Ok(Build { cargo, line, programs })
    }

    /// The command, as a person would type it.
    pub(crate) fn line(&self) -> &str {
        &self.line
    }

    /// Waits for the end of the build; returns the directory of the programs.
    pub(crate) fn finish(mut self) -> Result<PathBuf> {
        let status = self.cargo.0.wait()?;
        check_interrupt()?;
        if !status.success() {
            bail!("{} failed: {status}", self.line);
        }
        Ok(self.programs)
    }
}

/// A directory for what may be kept from run to run.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) => PathBuf::from(dir),
        None => std::env::home_dir().unwrap_or_else(std::env::temp_dir).join(".cache"),
    };
    let dir = base.join("lunette");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_as_the_shell_needs_it() {
        assert_eq!(quote("plain-word.sh"), "plain-word.sh");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("it's $HOME"), r"'it'\''s $HOME'");
    }

    #[test]
    fn a_child_that_takes_too_long_is_killed() {
        let mut child = Kept(Command::new("sleep").arg("60").spawn().unwrap());
        assert!(child.wait(Duration::from_millis(10)).unwrap().is_none());
        child.kill();
        assert!(child.0.try_wait().unwrap().is_some());
    }
}
