// SPDX-License-Identifier: Apache-2.0
//! A message bus of a test's own: a real dbus-daemon, which lets everybody do everything.
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A bus, gone with the value.
#[derive(Debug)]
pub struct Bus {
    daemon: Child,
    address: String,
    dir: TempDir,
}

impl Bus {
    /// A bus at a socket that nobody knows yet.
    ///
    /// # Errors
    /// Of starting it; there may be no dbus-daemon.
    pub fn start() -> io::Result<Bus> {
        let dir = tempfile::tempdir()?;
        let socket = dir.path().join("bus");
        Bus::start_at(dir, &socket)
    }

    /// The same at this socket, in a directory that goes with the bus.
    ///
    /// # Errors
    /// As of [`Bus::start`].
    pub fn start_at(dir: TempDir, socket: &Path) -> io::Result<Bus> {
        let config = dir.path().join("bus.conf");
        let text = format!(
            "<busconfig><listen>unix:path={}</listen><policy context='default'><allow own='*'/>\
             <allow send_destination='*'/><allow receive_sender='*'/></policy></busconfig>",
            socket.display()
        );
        fs::write(&config, text)?;
        let mut daemon = Command::new("dbus-daemon");
        daemon.arg(format!("--config-file={}", config.display()));
        daemon.args(["--nofork", "--print-address"]).stdout(Stdio::piped());
        let missing = |error: io::Error| {
            let text = format!("dbus-daemon: {error}: install the Debian package dbus");
            io::Error::new(error.kind(), text)
        };
        let mut bus = Bus { daemon: daemon.spawn().map_err(missing)?, address: String::new(), dir };
        // It says where it is when it can be reached.
        let said = bus.daemon.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        BufReader::new(said).read_line(&mut bus.address)?;
        bus.address.truncate(bus.address.trim_end().len());
        if bus.address.is_empty() {
            let text = format!("dbus-daemon does not start in {}", bus.dir.path().display());
            return Err(io::Error::other(text));
        }
        Ok(bus)
    }

    /// Where clients find it.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
