// SPDX-License-Identifier: Apache-2.0
//! `glfs/VOLUME@[TRANSPORT:]HOST[:PORT]/PATH`, `glfs/VOLUME@unix:SOCKET:/PATH`: a file on a Gluster
//! volume, through libgfapi.
//!
//! The client's caches are off, so that what is acknowledged is with the bricks: it survives the
//! death of the daemon, and other hosts see it. A flush is fdatasync(2) of the bricks.
//!
//! Where no brick can be reached, an operation waits for some seconds: a brick is started again in
//! less. Then it fails (ENOTCONN), the flush too, so that an initiator may take another path. A flush
//! that a brick's storage fails is final for the open file: what was lost is not known.
use std::cell::Cell;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gfapi::{Address, Extent, File, Server, Volume};
use io_engine::{sleep, unblock};
use sgl::Sgl;

use super::reopened::Reopened;
use crate::format::chain::Opening;
use crate::protocol::file::durable;
use crate::{
    AnyStore, BoxedStore, Config, Discard, Error, ErrorClass, ErrorKind, Facts, OpenOptions,
    Provisioning, Store,
};

/// Best alignment and length of an I/O, in bytes: what a request to a brick carries.
const REQUEST: u32 = 128 << 10;
/// Below so many bytes a discard frees nothing: a block of the bricks' file systems.
const BLOCK: u32 = 4096;

/// How long an operation waits for bricks: half of the time that the kernel gives a command.
const PATIENCE: Duration = Duration::from_secs(15);
/// The client of the library looks for them in steps of seconds.
const PAUSE: Duration = Duration::from_millis(200);

/// What a configuration string names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    server: Server,
    path: PathBuf,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct GlfsStore {
    target: Target,
    file: Reopened<File>,
    size: Cell<u64>,
    read_only: bool,
    /// Whether the bricks make holes.
    holes: Cell<bool>,
    /// The errno of the first flush that was final.
    lost: Cell<Option<i32>>,
}

/// Whether a configuration string is right, and the library there. Blocks.
pub(crate) fn check(config: &Config<'_>) -> Result<(), Error> {
    let target = Target::parse(config)?;
    gfapi::check().map_err(|e| target.failed(e, "load its library"))?;
    target.server_is_there()
}

pub(crate) fn open<'a>(config: &'a Config<'a>, options: &'a OpenOptions) -> Opening<'a, AnyStore> {
    Box::pin(async move {
        let target = Target::parse(config)?;
        let (file, there) = connect(&target, options.read_only).await?;
        let enlarge = |size| format!("truncate -s {size}, where the volume is mounted");
        let size = options.capacity(there, &target.name(), enlarge)?;
        Ok(AnyStore::Boxed(BoxedStore::new(GlfsStore {
            target,
            file: Reopened::new(file),
            size: Cell::new(size),
            read_only: options.read_only,
            holes: Cell::new(true),
            lost: Cell::default(),
        })))
    })
}

/// Opens the file; its size in bytes.
async fn connect(target: &Target, read_only: bool) -> Result<(File, u64), Error> {
    let wanted = target.clone();
    let opened = unblock(move || {
        let failed = |error| wanted.failed(error, "open");
        wanted.server_is_there()?;
        let volume = Volume::connect(&wanted.server).map_err(failed)?;
        let file = File::open(&volume, &wanted.path, read_only).map_err(failed)?;
        let size = file.size().map_err(|e| Error::new(e, "find its size", wanted.name()))?;
        Ok((file, size))
    });
    opened.await
}

const FORM: &str =
    "it has to be glfs/VOLUME@[tcp:|rdma:]HOST[:PORT]/PATH or glfs/VOLUME@unix:SOCKET:/PATH";

type Transport = fn(String, u16) -> Address;
const TRANSPORTS: &[(&str, Transport)] = &[("tcp:", Address::Tcp), ("rdma:", Address::Rdma)];

/// `[TRANSPORT:]HOST[:PORT]`; what is no port is the error.
fn host(text: &str) -> Result<Address, &str> {
    // A host may have such a name.
    let is_port = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let named = TRANSPORTS.iter().find_map(|(prefix, transport)| {
        let rest = text.strip_prefix(*prefix).filter(|rest| !is_port(rest))?;
        Some((*transport, rest))
    });
    let (transport, text) = named.unwrap_or((Address::Tcp as Transport, text));
    // An IPv6 address stands in brackets.
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':').unwrap_or(port))),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port.map(str::parse) {
        None => Address::PORT,
        Some(Ok(port)) if port > 0 => port,
        Some(_) => return Err(port.unwrap_or_default()),
    };
    Ok(transport(host.to_owned(), port))
}

impl Target {
    fn parse(config: &Config<'_>) -> Result<Self, Error> {
        let whole = || format!("{}/{}", config.subtype, config.rest);
        let invalid = |text: String| {
            Err(Error::invalid(format!("{text}; {FORM}"), "configuration string", whole()))
        };
        let Some((volume, rest)) = config.rest.split_once('@') else {
            return Err(Error::invalid(FORM, "configuration string", whole()));
        };
        // What follows another colon than that of a socket's path is a port.
        let (address, path) = match rest.strip_prefix("unix:").filter(|it| it.starts_with('/')) {
            Some(rest) => match rest.split_once(":/") {
                Some((socket, path)) => (Address::Unix(socket.to_owned()), path),
                None => return invalid(format!("{rest:?} does not end the socket by a colon")),
            },
            None => match rest.split_once('/') {
                Some((address, path)) => match host(address) {
                    Ok(address) => (address, path),
                    Err(port) => return invalid(format!("{port:?} is no port")),
                },
                None => return Err(Error::invalid(FORM, "configuration string", whole())),
            },
        };
        let has_host =
            !matches!(&address, Address::Tcp(host, _) | Address::Rdma(host, _) if host.is_empty());
        for (there, what) in
            [(!volume.is_empty(), "volume"), (has_host, "host"), (!path.is_empty(), "path")]
        {
            if !there {
                return invalid(format!("the {what} is missing"));
            }
        }
        let server = Server { volume: volume.to_owned(), address };
        Ok(Target { server, path: Path::new("/").join(path) })
    }

    /// As people name it, for messages.
    fn name(&self) -> PathBuf {
        format!("glfs/{}@{}{}", self.server.volume, self.server.address, self.path.display()).into()
    }

    /// The library tells the lack of a socket as it tells that of any server: late, and not why.
    fn server_is_there(&self) -> Result<(), Error> {
        let Address::Unix(socket) = &self.server.address else { return Ok(()) };
        let found = std::fs::metadata(socket).map(drop);
        found.map_err(|e| Error::new(e, format!("find the socket {socket}"), self.name()))
    }

    fn failed(&self, error: gfapi::Error, operation: &str) -> Error {
        Error::of_library(error, operation, self.name())
    }
}

impl GlfsStore {
    /// The file, opened again where it was closed.
    async fn file(&self) -> Result<File, Error> {
        let connect = async || connect(&self.target, self.read_only).await.map(|(file, _)| file);
        self.file.get(connect).await
    }

    #[cold]
    fn error(&self, kind: impl Into<ErrorKind>, operation: impl fmt::Display) -> Error {
        Error::new(kind, operation.to_string(), self.target.name())
    }

    fn writable(&self, what: &str) -> Result<(), Error> {
        if self.read_only { Err(self.error(ErrorKind::ReadOnly, what)) } else { Ok(()) }
    }

    /// Makes a range zero, by a hole where that is wanted and possible.
    async fn zero(&self, offset: u64, len: u64, hole: bool, what: &str) -> Result<(), Error> {
        self.writable(what)?;
        let file = self.file().await?;
        let doing = || format!("{what} {len} bytes at {offset}");
        if hole && self.holes.get() {
            match patiently(async || file.discard(offset, len).await).await {
                Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => self.holes.set(false),
                result => return result.map_err(|e| self.error(e, doing())),
            }
        }
        let zeroed = patiently(async || file.zero(offset, len).await).await;
        zeroed.map_err(|e| self.error(e, doing()))
    }

    async fn sync(&self, file: &File) -> Result<(), Error> {
        let latched = self.lost.get().map(io::Error::from_raw_os_error);
        let result = match latched {
            Some(e) => Err(e),
            None => patiently(async || file.sync().await).await,
        };
        result.map_err(|e| {
            let errno = e.raw_os_error();
            let class = ErrorKind::from(e).class();
            // Bricks that cannot be reached have what was written.
            let back = matches!(class, ErrorClass::Connection | ErrorClass::TimedOut);
            if !back && self.lost.get().is_none() {
                self.lost.set(errno);
            }
            let e = io::Error::from_raw_os_error(errno.unwrap_or(libc::EIO));
            self.error(e, durable("flush", self.lost.get().is_some()))
        })
    }
}

/// Does what may be done again, until bricks can be reached or time is over.
async fn patiently<T>(attempt: impl AsyncFn() -> io::Result<T>) -> io::Result<T> {
    let start = Instant::now();
    loop {
        let result = attempt().await;
        let away = result.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::ENOTCONN));
        if !away || start.elapsed() > PATIENCE {
            return result;
        }
        sleep(PAUSE).await;
    }
}

impl Store for GlfsStore {
    fn facts(&self) -> Facts {
        Facts {
            size: self.size.get(),
            read_only: self.read_only,
            optimal_io: REQUEST,
            request_alignment: 1,
            shared: true,
            compare_and_write: None,
            discard: (!self.read_only).then_some(Discard { granularity: BLOCK, zeroes: true }),
            write_zeroes: true,
        }
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        let file = self.file().await?;
        let doing = || format!("read {} bytes at {offset}", data.len());
        match patiently(async || file.read(data, offset).await).await {
            Ok(n) if n == data.len() => Ok(()),
            Ok(n) => {
                let text = format!("the file ends at {}: it was cut off", offset + n as u64);
                let e = io::Error::new(io::ErrorKind::UnexpectedEof, text);
                Err(self.error(e, doing()))
            }
            Err(e) => Err(self.error(e, doing())),
        }
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64, fua: bool) -> Result<(), Error> {
        self.writable("write")?;
        let file = self.file().await?;
        let written = patiently(async || file.write(data, offset).await).await;
        written
            .map_err(|e| self.error(e, format_args!("write {} bytes at {offset}", data.len())))?;
        if fua { self.sync(&file).await } else { Ok(()) }
    }

    async fn flush(&self) -> Result<(), Error> {
        let file = self.file().await?;
        self.sync(&file).await
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.zero(offset, len, true, "discard").await
    }

    async fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> Result<(), Error> {
        self.zero(offset, len, may_unmap, "write zeroes to").await
    }

    async fn provisioning(&self, offset: u64, len: u64) -> Result<(Provisioning, u64), Error> {
        let file = self.file().await?;
        let found = unblock(move || file.extent(offset)).await;
        let (extent, end) = found.map_err(|e| self.error(e, "look for data"))?;
        let kind = match extent {
            Extent::Data => Provisioning::Mapped,
            Extent::Hole => Provisioning::Deallocated,
        };
        Ok((kind, end.saturating_sub(offset).clamp(1, len.max(1))))
    }

    async fn resize(&self, size: u64) -> Result<(), Error> {
        let file = self.file().await?;
        let read_only = self.read_only;
        let resized = unblock(move || {
            // Shrinking leaves the content.
            if size <= file.size()? || read_only { Ok(()) } else { file.resize(size) }
        });
        resized.await.map_err(|e| self.error(e, format_args!("resize to {size} bytes")))?;
        self.size.set(size);
        Ok(())
    }

    async fn close(&self) -> Result<(), Error> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let flushed = if self.read_only { Ok(()) } else { self.sync(&file).await };
        unblock(move || drop(file)).await;
        flushed
    }
}
