// SPDX-License-Identifier: Apache-2.0
//! A daemon of our own for each test, at the other end of a socket pair.

#![allow(dead_code, unreachable_pub)] // Each test binary uses its part.

use guestfs_client::Client;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The daemon that is tested.
pub const GUESTFSD: &str = env!("CARGO_BIN_EXE_guestfsd");
/// How long anything may take on a machine whose disk is busy with other work: a test that hangs fails then.
const PATIENCE: Duration = Duration::from_secs(300);

/// A daemon, and the client that talks to it.
pub struct Daemon {
    pub client: Client<UnixStream>,
    pub child: Child,
}

impl Daemon {
    /// Serves this machine's own files (`-r`): needs no privileges.
    pub fn on_this_machine() -> Self {
        Self::start(&["-r", "--channel", "fd:0"])
    }

    /// Serves a sysroot in namespaces of its own. Needs root.
    pub fn isolated() -> Self {
        need_root();
        Self::start(&["--session=outer", "--allow-host-access"])
    }

    /// The same as a listener does it, for clients that must not reach this machine. Needs root.
    pub fn of_a_listener() -> Self {
        need_root();
        Self::start(&["--session=outer"])
    }

    /// Starts the daemon with these arguments; the channel is its standard input.
    pub fn start(args: &[&str]) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        let child = Command::new(GUESTFSD)
            .args(args)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        let mut client = Client::new(ours);
        client.wait_for_launch().unwrap();
        Self { client, child }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.client.stream().write_all(bytes).unwrap();
    }

    /// Hangs up and waits for the daemon's end.
    pub fn hang_up(mut self) -> ExitStatus {
        self.client.stream().shutdown(std::net::Shutdown::Both).ok();
        self.wait()
    }

    /// Waits for the daemon's end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the daemon does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether the daemon has hung up.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.client.stream().read(&mut [0; 1]), Ok(0) | Err(_))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A frame of these contents.
pub fn frame(contents: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(contents.len()).unwrap().to_be_bytes().to_vec();
    out.extend_from_slice(contents);
    out
}

/// A call's frame with this body.
pub fn call(number: u32, bitmask: u64, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    guestfs_api::frame::Header::call(number, 0, 0, bitmask).encode(&mut message);
    message.extend_from_slice(body);
    frame(&message)
}

/// Tests that mount say so when they cannot.
pub fn need_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test mounts filesystems on loop devices, which only root can: run `cargo test` as root, \
         or `cargo xtask test`, which runs it in a VM"
    );
}

/// An image file on a loop device, which goes with this value.
pub struct LoopDevice {
    pub path: PathBuf,
    dir: tempfile::TempDir,
}

impl LoopDevice {
    const IMAGE: &str = "image";

    /// A filesystem made by `mkfs` (and its options) on so many MiB.
    pub fn with_filesystem(mkfs: &[&str], mib: u64) -> Self {
        need_root();
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join(Self::IMAGE);
        std::fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        run(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&image));
        Self::attach(dir)
    }

    /// Another one, with a copy of what is on this one now.
    pub fn copy(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cp = ["--sparse=always", "--"];
        let from = self.dir.path().join(Self::IMAGE);
        run(Command::new("cp").args(cp).arg(from).arg(dir.path().join(Self::IMAGE)));
        Self::attach(dir)
    }

    fn attach(dir: tempfile::TempDir) -> Self {
        let image = dir.path().join(Self::IMAGE);
        let out = run(Command::new("losetup").args(["--find", "--show"]).arg(image));
        Self { path: PathBuf::from(out.trim()), dir }
    }

    /// Whether something is mounted from it, in any namespace, or has it open.
    pub fn is_busy(&self) -> bool {
        std::fs::OpenOptions::new().read(true).custom_flags_exclusive().open(&self.path).is_err()
    }

    pub fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

/// Opening a block device exclusively fails while it is mounted anywhere.
trait Exclusive {
    fn custom_flags_exclusive(&mut self) -> &mut Self;
}

impl Exclusive for std::fs::OpenOptions {
    fn custom_flags_exclusive(&mut self) -> &mut Self {
        std::os::unix::fs::OpenOptionsExt::custom_flags(self, libc::O_EXCL)
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        Command::new("losetup").arg("--detach").arg(&self.path).status().ok();
    }
}

/// Runs a program that has to succeed; returns its output.
pub fn run(command: &mut Command) -> String {
    let out =
        command.stderr(Stdio::inherit()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(out.status.success(), "{command:?}: {}", out.status);
    String::from_utf8(out.stdout).unwrap()
}

/// Waits until something holds.
pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
