// SPDX-License-Identifier: Apache-2.0
//! Answers those who ask: on the daemon's own socket, which is root's, with everything; where the
//! configuration says, with the figures for Prometheus. Each place has a thread, and each connection
//! a few seconds.
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};
use std::{fmt, fs, thread};

use super::http::{self, Response, Stream};
use super::report::Report;
use super::{DIRECTORY, METRICS, SOCKET, STATUS, metrics};
use crate::events::{Event, Sender};

/// For the main loop's answer, which never waits for a device.
const MAIN_TIME: Duration = Duration::from_secs(2);
/// For one connection.
const TIME: Duration = Duration::from_secs(5);
/// After an error of accepting, which a shortage of descriptors makes again and again.
const PAUSE: Duration = Duration::from_secs(1);
/// Of a thread, in bytes.
const STACK: usize = 256 << 10;

/// Where the figures for Prometheus are to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A port of this host, which others do not reach.
    Loopback(SocketAddr),
    /// A socket; who may open it is its directory's to say.
    Unix(PathBuf),
}

impl Place {
    /// Reads `127.0.0.1:9101`, `[::1]:9101` or an absolute path.
    ///
    /// # Errors
    /// What it has to be.
    pub fn parse(text: &str) -> Result<Place, String> {
        if text.starts_with('/') {
            return Ok(Place::Unix(text.into()));
        }
        let wrong = "it must be an absolute path, or an address of this host and a port, such as \
                     127.0.0.1:9101";
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Place::Loopback(address)),
            Ok(_) => Err(format!("{wrong}: anybody could look from other hosts")),
            Err(_) => Err(wrong.to_owned()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Loopback(address) => address.fmt(f),
            Place::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Makes reports.
#[derive(Debug)]
pub struct Reporter {
    events: Sender,
    since: Instant,
}

impl Reporter {
    /// Of the daemon whose main loop gets `events`; it starts now.
    pub fn new(events: Sender) -> Reporter {
        Reporter { events, since: Instant::now() }
    }

    /// How the daemon does. Waits for its main loop.
    ///
    /// # Errors
    /// Why that cannot be told.
    pub fn report(&self) -> Result<Report, String> {
        let (sender, receiver) = sync_channel(1);
        self.events.send(Event::Report(sender));
        let devices = receiver.recv_timeout(MAIN_TIME);
        let devices = devices.map_err(|_| "the daemon's main loop does not answer")?;
        Ok(Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime: self.since.elapsed().as_secs(),
            devices,
        })
    }

    /// The same as JSON.
    ///
    /// # Errors
    /// Why there is none.
    pub fn json(&self) -> Result<String, String> {
        serde_json::to_string(&self.report()?).map_err(|error| error.to_string())
    }
}

/// Starts to answer on the daemon's own socket and at the place of the configuration, if there is one.
/// Where that cannot be done, the log says so, and devices are served.
pub fn start(reporter: &Arc<Reporter>, place: Option<&Place>) {
    let failed = |place: &dyn fmt::Display, error: io::Error| {
        tracing::error!("{place}: nobody can ask here how the daemon does: {error}");
    };
    let own = own_socket().and_then(|listener| listen(reporter, listener, true));
    if let Err(error) = own {
        failed(&SOCKET, error);
    }
    let Some(place) = place else { return };
    let started = match place {
        Place::Loopback(address) => {
            TcpListener::bind(address).and_then(|listener| listen(reporter, listener, false))
        }
        Place::Unix(path) => {
            open_socket(path).and_then(|listener| listen(reporter, listener, false))
        }
    };
    match started {
        Ok(()) => tracing::info!("{place}: figures for Prometheus, at {METRICS}"),
        Err(error) => failed(place, error),
    }
}

/// The daemon's own socket, in a directory that only root can enter.
fn own_socket() -> io::Result<UnixListener> {
    match DirBuilder::new().mode(0o700).create(DIRECTORY) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => fs::set_permissions(DIRECTORY, Permissions::from_mode(0o700))?,
    }
    bind(Path::new(SOCKET))
}

/// A socket that everybody may open who can get at it.
fn open_socket(path: &Path) -> io::Result<UnixListener> {
    let listener = bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Takes the place of a predecessor's socket, and of nothing else.
fn bind(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::FileTypeExt;
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::other("there is something else, which is left alone")),
        Err(_) => {}
    }
    UnixListener::bind(path)
}

/// What listens.
trait Listener: Send + 'static {
    type Stream: Stream;
    fn next(&self) -> io::Result<Self::Stream>;
}

macro_rules! listeners {
    ($($listener:ty => $stream:ty),*) => {$(
        impl Listener for $listener {
            type Stream = $stream;

            fn next(&self) -> io::Result<$stream> {
                self.accept().map(|(stream, _)| stream)
            }
        }

        impl Stream for $stream {
            fn set_time_out(&self, time: Duration) -> io::Result<()> {
                self.set_read_timeout(Some(time))?;
                self.set_write_timeout(Some(time))
            }
        }
    )*};
}

listeners!(TcpListener => TcpStream, UnixListener => UnixStream);

/// Answers all who come, one after the other.
fn listen(reporter: &Arc<Reporter>, listener: impl Listener, all: bool) -> io::Result<()> {
    let reporter = reporter.clone();
    let serve = move || {
        loop {
            let served = listener.next().and_then(|mut stream| {
                http::serve(&mut stream, TIME, |target| answer(&reporter, target, all))
            });
            match served {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::EMFILE) => thread::sleep(PAUSE),
                Err(error) => tracing::debug!("a question for the status failed: {error}"),
            }
        }
    };
    thread::Builder::new().name("status".into()).stack_size(STACK).spawn(serve).map(drop)
}

fn answer(reporter: &Reporter, target: &str, all: bool) -> Response {
    let found = match target {
        STATUS if all => reporter.json().map(|body| ("application/json", body)),
        METRICS => reporter
            .report()
            .map(|report| ("text/plain; version=0.0.4; charset=utf-8", metrics::render(&report))),
        _ => {
            let text = format!("it is {METRICS} that can be asked for");
            return Response::error("404 Not Found", &text);
        }
    };
    match found {
        Ok((content_type, body)) => Response { status: "200 OK", content_type, body },
        Err(why) => Response::error("503 Service Unavailable", &why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_path_or_an_address_that_others_do_not_reach() {
        assert_eq!(Place::parse("/run/x"), Ok(Place::Unix("/run/x".into())));
        for text in ["127.0.0.1:9101", "[::1]:9101"] {
            assert_eq!(Place::parse(text).unwrap().to_string(), text);
        }
        for text in ["0.0.0.0:9101", "192.0.2.1:80", "localhost:9101", "9101", "run/x", ""] {
            assert!(Place::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_socket_takes_the_place_of_a_socket_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(bind(&path).unwrap());
        drop(bind(&path).unwrap());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "kept").unwrap();
        assert!(bind(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"kept");
    }
}
