//! Many clients at once: each connection gets a process of its own.
//!
//! The process is this program started anew (`--session`), in a mount and process namespace of its own
//! where the kernel allows it: what a session mounts nobody else sees, and when it ends, however it ends,
//! the kernel unmounts and kills what it has left. One client's garbage or crash is one process's.

mod sockets;

use crate::error::{Context, Error, Result};
use crate::session::Config;
use guestfs_api::Errno;
use rustix::process::{Signal, set_parent_process_death_signal};
use std::fs::File;
use std::net::{TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
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

/// A socket that clients connect to.
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
    Vsock(OwnedFd),
}

impl Listener {
    fn bind(address: &Address) -> Result<Self> {
        match &address.kind {
            Kind::Unix(path) => bind_unix(path).on(address).map(Self::Unix),
            Kind::Tcp(host) => {
                let found: Vec<_> = host.to_socket_addrs().on(address)?.collect();
                if found.is_empty() || !found.iter().all(|a| a.ip().is_loopback()) {
                    let why =
                        "only the loopback interface, since there is no TLS yet: use a tunnel";
                    return Err(Error::new(Errno::EPERM, why).within(address));
                }
                TcpListener::bind(&found[..]).on(address).map(Self::Tcp)
            }
            Kind::Vsock(cid, port) => {
                sockets::listen_vsock(*cid, *port).on(address).map(Self::Vsock)
            }
        }
    }

    fn accept(&self) -> std::io::Result<OwnedFd> {
        match self {
            Self::Unix(l) => {
                let (stream, _) = l.accept()?;
                if !is_ours(&stream) {
                    return Err(std::io::ErrorKind::PermissionDenied.into());
                }
                Ok(stream.into())
            }
            Self::Tcp(l) => {
                let (stream, _) = l.accept()?;
                // Replies are whole: nothing is gained by waiting for more.
                stream.set_nodelay(true)?;
                Ok(stream.into())
            }
            Self::Vsock(l) => Ok(rustix::net::accept_with(l, rustix::net::SocketFlags::CLOEXEC)?),
        }
    }
}

/// A socket that only its owner may connect to. One that nobody listens on any more is replaced.
fn bind_unix(path: &str) -> std::io::Result<UnixListener> {
    let stale = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
        && UnixStream::connect(path).is_err();
    if stale {
        std::fs::remove_file(path)?;
    }
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    bound
}

/// Whether it is our user, or root, who connects.
fn is_ours(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

/// Serves whoever connects, until the process is told to end.
pub(crate) fn serve(address: &Address, config: &Config) -> Result<()> {
    let listener = Listener::bind(address)?;
    match &listener {
        Listener::Unix(l) => crate::signals::install(l),
        Listener::Tcp(l) => crate::signals::install(l),
        Listener::Vsock(l) => crate::signals::install(l),
    }
    let mut sessions: Vec<Child> = Vec::new();
    tracing::info!(address = address.text(), "listening");
    while !crate::signals::ending() {
        let accepted = listener.accept();
        sessions.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
        match accepted.and_then(|stream| start(Isolation::Outer, stream, config)) {
            Ok(child) => sessions.push(child),
            Err(_) if crate::signals::ending() => break,
            Err(e) => {
                tracing::error!(error = %e, "a client was turned away");
                // Out of descriptors or processes: that does not pass at once.
                if matches!(
                    e.raw_os_error(),
                    Some(libc::EMFILE | libc::ENFILE | libc::EAGAIN | libc::ENOMEM)
                ) {
                    std::thread::sleep(std::time::Duration::from_millis(100));
                }
            }
        }
    }
    for mut child in sessions {
        // Its own end kills what it has started.
        child.kill().ok();
        child.wait().ok();
    }
    if let Kind::Unix(path) = &address.kind {
        std::fs::remove_file(path).ok();
    }
    Ok(())
}

/// Which process of a session this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Isolation {
    /// The one that makes the namespaces.
    Outer,
    /// The first process in them, which serves.
    Inner,
}

fn start(stage: Isolation, stream: OwnedFd, config: &Config) -> std::io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(match stage {
        Isolation::Outer => "--session=outer",
        Isolation::Inner => "--session=inner",
    });
    for (flag, set) in [
        ("--verbose", config.verbose),
        ("--network", config.network),
        ("-r", config.sysroot == std::path::Path::new("/")),
    ] {
        if set {
            command.arg(flag);
        }
    }
    command.stdin(Stdio::from(stream)).stdout(Stdio::null()).spawn()
}

/// Isolates a session. Yields its end where another process has served it.
pub(crate) fn enter(stage: Isolation, config: &Config) -> Result<Option<Result<()>>> {
    // Who started us kills us by its own end.
    set_parent_process_death_signal(Some(Signal::KILL)).on("session")?;
    if stage == Isolation::Inner {
        sockets::enter_namespaces().on("session")?;
        return Ok(None);
    }
    if let Err(e) = sockets::new_namespaces() {
        tracing::warn!(error = %e, "sessions share this machine's namespaces");
        return Ok(None);
    }
    let mut child = start(Isolation::Inner, take_stdin()?, config).on("session")?;
    let status = child.wait().on("session")?;
    Ok(Some(match status.success() {
        true => Ok(()),
        false => Err(Error::new(Errno::ECONNABORTED, format!("session ended with {status}"))),
    }))
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
    fn tcp_beyond_loopback_is_refused() {
        let e = Listener::bind(&Address::parse("tcp:0.0.0.0:0").unwrap()).err().unwrap();
        assert_eq!(e.errno(), Errno::EPERM);
    }

    #[test]
    fn a_unix_socket_is_its_owners_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let _listener = bind_unix(path.to_str().unwrap()).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
