// SPDX-License-Identifier: Apache-2.0
//! Many clients at once: each connection gets a process of its own.
//!
//! Who may connect is decided before the first byte of the protocol:
//!
//! | listener | who may connect |
//! |---|---|
//! | `unix:PATH` | the daemon's own user and root, by what the kernel says of the peer |
//! | `tcp:HOST:PORT` | clients that show a certificate of the authority in the TLS handshake ([`guestfs_tls`]) |
//! | `vsock:CID:PORT` | the machines whose CIDs are named |
//!
//! What a client may do then is said in [`crate::reach`].
//!
//! The process is this program started anew (`--session`), in a mount and process namespace of its own
//! where the kernel allows it: what a session mounts nobody else sees, and when it ends, however it ends,
//! the kernel unmounts and kills what it has left. One client's garbage or crash is one process's. So is a TLS
//! handshake ([`tls`]), which nobody else waits for.

mod local;
mod sessions;
mod sockets;
mod tls;

use crate::config::Config;
use guest_error::{Context, Errno, Error, Result};
use guestfs_tls::rustls::pki_types::ServerName;
use rustix::process::{Signal, set_parent_process_death_signal};
use sessions::Sessions;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub(crate) use sockets::inherited;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    kind: Kind,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Unix(String),
    Tcp(String),
    Vsock(u32, u32),
}

impl Address {
    /// Reads `unix:PATH`, `tcp:HOST:PORT` or `vsock:CID:PORT`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            let why = "expecting unix:PATH, tcp:HOST:PORT or vsock:CID:PORT";
            Error::argument("--listen", text, why)
        };
        let kind = match text.split_once(':').ok_or_else(wrong)? {
            ("unix", path) if !path.is_empty() => Kind::Unix(path.to_owned()),
            ("tcp", host) if host.contains(':') => Kind::Tcp(host.to_owned()),
            ("vsock", rest) => {
                let (cid, port) = rest.split_once(':').ok_or_else(wrong)?;
                let cid = if cid == "any" { Some(u32::MAX) } else { cid.parse().ok() };
                Kind::Vsock(cid.ok_or_else(wrong)?, port.parse().map_err(|_| wrong())?)
            }
            _ => return Err(wrong()),
        };
        Ok(Self { kind, text: text.to_owned() })
    }

    /// As it was given.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// Who may connect, where the kernel does not know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    /// The directory of certificates: for TCP.
    pub(crate) tls_dir: PathBuf,
    /// Names of which a client's certificate has to have one; none for any.
    pub(crate) tls_clients: Vec<String>,
    /// CIDs of the machines that may connect over vsock.
    pub(crate) vsock_clients: Vec<u32>,
}

impl Admission {
    /// What it says of TLS, read from the files.
    fn tls(&self) -> Result<(guestfs_tls::Directory, Vec<ServerName<'static>>)> {
        let names = self.tls_clients.iter().map(|name| {
            let why = "expecting a DNS name or an IP address";
            guestfs_tls::name(name).ok_or_else(|| Error::argument("--tls-client", name, why))
        });
        Ok((guestfs_tls::Directory::new(&self.tls_dir), names.collect::<Result<_>>()?))
    }
}

/// What is wrong with the files of certificates and keys.
fn of_tls(e: guestfs_tls::Error) -> Error {
    let errno = match &e {
        guestfs_tls::Error::File { source, .. } => Errno::from(source),
        guestfs_tls::Error::Content { .. } => Errno::EINVAL,
        guestfs_tls::Error::OpenToOthers { .. } => Errno::EPERM,
    };
    Error::new(errno, format!("TLS: {e}"))
}

/// A socket that clients connect to, who are let in.
enum Listener {
    Unix(local::Local),
    Tcp(TcpListener),
    Vsock(OwnedFd, Vec<u32>),
}

impl Listener {
    fn bind(address: &Address, admission: &Admission) -> Result<Self> {
        match &address.kind {
            Kind::Unix(path) => local::Local::bind(Path::new(path)).on(address).map(Self::Unix),
            Kind::Tcp(host) => {
                // Errors in the files are reported now, not when the first client connects.
                let (directory, names) = admission.tls()?;
                directory.server(&names).map_err(of_tls)?;
                if let Err(e) = directory.check_server() {
                    tracing::warn!(error = %e, "clients will refuse the server's certificate");
                }
                let found: Vec<_> = host.to_socket_addrs().on(address)?.collect();
                TcpListener::bind(&found[..]).on(address).map(Self::Tcp)
            }
            Kind::Vsock(cid, port) => {
                if admission.vsock_clients.is_empty() {
                    let why = "name the machines that may connect with --vsock-client CID";
                    return Err(Error::new(Errno::EINVAL, why).within(address));
                }
                let listener = sockets::listen_vsock(*cid, *port).on(address)?;
                Ok(Self::Vsock(listener, admission.vsock_clients.clone()))
            }
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(l) => l.listener().as_fd(),
            Self::Tcp(l) => l.as_fd(),
            Self::Vsock(l, _) => l.as_fd(),
        }
    }

    /// The next client, and the process that it gets first.
    fn accept(&self) -> io::Result<(OwnedFd, Stage)> {
        let refused = |who: String| io::Error::new(io::ErrorKind::PermissionDenied, who);
        match self {
            Self::Unix(l) => {
                let (stream, _) = l.listener().accept()?;
                let peer = rustix::net::sockopt::socket_peercred(&stream)?;
                if !peer.uid.is_root() && peer.uid != rustix::process::geteuid() {
                    let uid = peer.uid.as_raw();
                    return Err(refused(format!("user {uid} is not the daemon's user")));
                }
                Ok((stream.into(), Stage::Outer))
            }
            Self::Tcp(l) => {
                let (stream, _) = l.accept()?;
                // Replies are sent whole: waiting for more would only delay them.
                stream.set_nodelay(true)?;
                // Notices a client whose machine has gone away.
                rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
                Ok((stream.into(), Stage::Tls))
            }
            Self::Vsock(l, allowed) => {
                let (stream, cid) = sockets::accept_vsock(l)?;
                if !allowed.contains(&cid) {
                    return Err(refused(format!("CID {cid} is none of --vsock-client")));
                }
                Ok((stream, Stage::Outer))
            }
        }
    }
}

/// Serves whoever connects, until the process is told to end.
pub(crate) fn serve(address: &Address, admission: &Admission, config: &Config) -> Result<()> {
    let listener = Listener::bind(address, admission)?;
    rustix::io::ioctl_fionbio(listener.fd(), true).on(address)?;
    crate::signals::install(&listener.fd());
    let mut sessions = Sessions::default();
    tracing::info!(address = address.text(), "listening");
    while !guest_fs::interrupt::requested() {
        let begun = sessions.wait_for_client(listener.fd()).and_then(|()| {
            let (stream, stage) = listener.accept()?;
            sessions.make_room(stage == Stage::Tls)?;
            sessions.add(start(stage, stream, config, Some(admission))?)
        });
        let Err(e) = begun else { continue };
        // The client is gone already, or was none.
        if guest_fs::interrupt::requested() || e.kind() == io::ErrorKind::WouldBlock {
            continue;
        }
        tracing::error!(error = %e, "a client was turned away");
        // Out of descriptors or processes: trying again at once would not help.
        let scarce = [libc::EMFILE, libc::ENFILE, libc::EAGAIN, libc::ENOMEM];
        if e.raw_os_error().is_some_and(|errno| scarce.contains(&errno)) {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
    Ok(())
}

/// Which process of a session this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Stage {
    /// The one that speaks TLS with the client.
    Tls,
    /// The one that makes the namespaces.
    Outer,
    /// The first process in them, which serves.
    Inner,
}

fn start(
    stage: Stage,
    stream: OwnedFd,
    config: &Config,
    admission: Option<&Admission>,
) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(match stage {
        Stage::Tls => "--session=tls",
        Stage::Outer => "--session=outer",
        Stage::Inner => "--session=inner",
    });
    for (flag, set) in [
        ("--verbose", config.verbose),
        ("--network", config.network),
        ("--allow-host-access", config.host_access),
        ("-r", config.sysroot == Path::new("/")),
    ] {
        if set {
            command.arg(flag);
        }
    }
    if let (Stage::Tls, Some(admission)) = (stage, admission) {
        command.arg("--tls-dir").arg(&admission.tls_dir);
        for name in &admission.tls_clients {
            let mut option = OsString::from("--tls-client=");
            option.push(name);
            command.arg(option);
        }
    }
    if !config.host_access {
        // One that a client makes would be a device of this machine.
        command.env(crate::mounts::NODEV, "1");
    }
    // The process that speaks TLS says there when the client has proven who it is.
    let output = if stage == Stage::Tls { Stdio::piped() } else { Stdio::null() };
    command.stdin(Stdio::from(stream)).stdout(output).spawn()
}

/// Does what a session's process does before it serves. Yields its end where another process has served.
pub(crate) fn enter(
    stage: Stage,
    admission: &Admission,
    config: &Config,
) -> Result<Option<Result<()>>> {
    // Who started us kills us by its own end.
    set_parent_process_death_signal(Some(Signal::KILL)).on("session")?;
    match stage {
        Stage::Tls => return speak_tls(admission, config).map(|()| Some(Ok(()))),
        Stage::Outer => {}
        Stage::Inner => {
            sockets::enter_namespaces().on("session")?;
            if !config.host_access {
                sockets::disable_devices(&config.sysroot);
            }
            return Ok(None);
        }
    }
    if let Err(e) = sockets::new_namespaces() {
        tracing::warn!(error = %e, "sessions share this machine's namespaces");
        return Ok(None);
    }
    let child = start(Stage::Inner, take_stdin()?, config, None).on("session")?;
    Ok(Some(wait(child)))
}

/// Lets the client prove who it is, and serves it through another process.
fn speak_tls(admission: &Admission, config: &Config) -> Result<()> {
    let (directory, names) = admission.tls()?;
    let proven =
        tls::accept(directory.server(&names).map_err(of_tls)?, TcpStream::from(take_stdin()?))?;
    // The listener sees that this is closed.
    let null = File::options().write(true).open("/dev/null").on("/dev/null")?;
    rustix::stdio::dup2_stdout(&null).on("standard output")?;
    let (ours, theirs) = UnixStream::pair().on("session")?;
    let child = start(Stage::Outer, theirs.into(), config, None).on("session")?;
    let pumped = proven.pump(&ours).on("TLS");
    // Where the client is gone, so is the session.
    drop(ours);
    pumped.and(wait(child))
}

fn wait(mut child: Child) -> Result<()> {
    let status = child.wait().on("session")?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::new(Errno::ECONNABORTED, format!("session ended with {status}"))),
    }
}

/// The connection, taken from standard input, which becomes empty.
pub(crate) fn take_stdin() -> Result<OwnedFd> {
    let stream = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3).on("standard input")?;
    let null = File::open("/dev/null").on("/dev/null")?;
    rustix::stdio::dup2_stdin(&null).on("standard input")?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(dir: &Path) -> Admission {
        Admission { tls_dir: dir.into(), tls_clients: Vec::new(), vsock_clients: Vec::new() }
    }

    #[test]
    fn addresses_are_read() {
        assert_eq!(Address::parse("unix:/run/x").unwrap().kind, Kind::Unix("/run/x".into()));
        assert_eq!(Address::parse("tcp:[::1]:5").unwrap().kind, Kind::Tcp("[::1]:5".into()));
        assert_eq!(Address::parse("vsock:3:1024").unwrap().kind, Kind::Vsock(3, 1024));
        for wrong in ["", "unix:", "tcp:5", "vsock:x:1", "udp:1:2"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn there_is_no_tcp_without_certificates_not_even_on_the_loopback_interface() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::parse("tcp:127.0.0.1:0").unwrap();
        let e = Listener::bind(&address, &admission(dir.path())).err().unwrap();
        assert_eq!(e.errno(), Errno::ENOENT);
        assert!(e.message().contains("ca-cert.pem"), "{e}");
    }

    #[test]
    fn there_is_no_vsock_without_cids() {
        let address = Address::parse("vsock:any:1024").unwrap();
        let e = Listener::bind(&address, &admission(Path::new("/"))).err().unwrap();
        assert!(e.message().contains("--vsock-client CID"), "{e}");
    }
}
