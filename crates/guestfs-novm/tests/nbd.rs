// SPDX-License-Identifier: Apache-2.0
//! Disks that an NBD server has: the real qemu-nbd, the real guestfish. Needs root for instant mode, and
//! User-Mode Linux.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{Host, run, wait_until};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A server that ends with this value.
struct Server(Child);

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let child = Command::new("/usr/bin/qemu-nbd").args(arguments).stderr(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|e| panic!("qemu-nbd: {e} (Debian package qemu-utils)")))
    }

    /// qemu-nbd on a socket of this name.
    fn qemu(host: &Host, image: &Path, more: &[&str]) -> Self {
        let socket = host.path("nbd.sock");
        let common = ["-t", "-f", "raw", "-e", "4", "-k", socket.to_str().unwrap()];
        let arguments = [&common[..], more, &[image.to_str().unwrap()]].concat();
        let server = Self::start(&arguments);
        wait_until("qemu-nbd listens", || socket.exists());
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn add(host: &Host, export: &str) -> String {
    let socket = host.path("nbd.sock");
    format!("add-drive \"{export}\" format:raw protocol:nbd server:unix:{}\n", socket.display())
}

#[test]
fn a_disk_of_an_nbd_server_is_read_and_written_in_both_modes() {
    for mode in ["instant", "uml"] {
        let host = Host::new(mode);
        let disk = host.ext4("a.img");
        let server = Server::qemu(&host, &disk, &["-x", "the export"]);
        let add = add(&host, "the export");
        let large = host.path("large");
        fs::write(&large, vec![b'x'; 8 << 20]).unwrap();
        let text = host.prints(&format!(
            "{add}run\nblockdev-getsize64 /dev/sda\nmount /dev/sda /\ncat /hello\n\
             upload {} /large\nrm /large\nfstrim /\nupload {} /large\n",
            large.display(),
            large.display()
        ));
        assert_eq!(text, "67108864\nfrom the host\n\n", "{mode}");
        let sum = run("/usr/bin/md5sum", "coreutils", &[large.to_str().unwrap()]);
        let text = host.prints(&format!("{add}run\nmount /dev/sda /\nchecksum md5 /large\n"));
        assert!(sum.starts_with(text.trim()), "{mode}: {text}");
        drop(server);
        run("/usr/sbin/e2fsck", "e2fsprogs", &["-fn", disk.to_str().unwrap()]);
    }
}

#[test]
fn a_server_may_be_reached_by_tcp() {
    let host = Host::new("instant");
    let disk = host.ext4("a.img");
    // A port that is free now.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    drop(listener);
    let image = disk.to_str().unwrap();
    let _server = Server::start(&[
        "-t",
        "-f",
        "raw",
        "-b",
        "127.0.0.1",
        "-p",
        &port,
        "-e",
        "4",
        "-x",
        "name",
        image,
    ]);
    let script = format!(
        "add-drive name format:raw protocol:nbd server:localhost:{port}\nrun\nmount /dev/sda /\ncat /hello\n"
    );
    wait_until("qemu-nbd listens", || {
        std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_ok()
    });
    assert_eq!(host.prints(&script), "from the host\n\n");
}

#[test]
fn a_server_that_cannot_be_used_is_refused_with_the_reason() {
    let host = Host::new("instant");
    let disk = host.ext4("a.img");
    let refused = |export: &str| {
        let output = host.session(&format!("{}run\nlist-devices\n", add(&host, export)));
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused("").contains("is the NBD server running?"));
    let server = Server::qemu(&host, &disk, &["-r", "-x", "e"]);
    let text = refused("e");
    assert!(text.contains("the NBD server has it read-only: have it allow writing"), "{text}");
    let text = refused("another");
    assert!(text.contains("the server has no such export"), "{text}");
    drop(server);
}

#[test]
fn a_server_that_goes_away_is_an_error_of_the_call_and_nothing_is_left() {
    for mode in ["instant", "uml"] {
        let host = Host::new(mode);
        let disk = host.ext4("a.img");
        let server = Server::qemu(&host, &disk, &["-x", "e"]);
        let script = format!(
            "{}run\nmount /dev/sda /\n!kill {}\n-write /new content\n-sync\n-pread-device /dev/sda 4 60000000\n\
             echo lives\nping-daemon\n",
            add(&host, "e"),
            server.0.id()
        );
        let output = host.session(&script);
        let (text, errors) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        assert!(text.contains("lives"), "{mode}: {text} {errors}");
        assert!(errors.contains("Input/output error"), "{mode}: {errors}");
    }
}
