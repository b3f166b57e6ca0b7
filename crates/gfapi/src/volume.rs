// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to call libgfapi.
//!
//! A connection to a volume. All files of a volume share one: it takes long to end.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::Error;
use crate::error::failed;
use crate::library::{Gfapi, Handle, gfapi};

/// `GF_LOG_CRITICAL`. What fails is in our log; the library would keep another.
const LOG_LEVEL: c_int = 3;

/// Layers of the client that keep what was read or written, or attributes, to themselves. What is
/// acknowledged has to survive this process, and other hosts have to see it.
const CACHES: [&CStr; 6] = [
    c"*-write-behind",
    c"*-read-ahead",
    c"*-io-cache",
    c"*-quick-read",
    c"*-open-behind",
    c"*-md-cache",
];

/// Where a volume is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The volume's name.
    pub volume: String,
    /// A server that knows it.
    pub address: Address,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A name or an address, and a port.
    Tcp(String, u16),
    /// The same. libgfapi 10 asks such a server through TCP; what the bricks listen on is the volume's.
    Rdma(String, u16),
    /// A socket of this host.
    Unix(String),
}

impl Address {
    /// The port of glusterd.
    pub const PORT: u16 = 24007;

    /// Transport, host and port, as `glfs_set_volfile_server` takes them.
    fn parts(&self) -> (&'static CStr, &str, u16) {
        match self {
            Address::Tcp(host, port) => (c"tcp", host, *port),
            Address::Rdma(host, port) => (c"rdma", host, *port),
            Address::Unix(socket) => (c"unix", socket, 0),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(host, _) => f.write_str(host),
            Address::Rdma(host, _) => write!(f, "rdma:{host}"),
            Address::Unix(socket) => write!(f, "unix:{socket}:"),
        }
    }
}

/// A connection to a volume.
#[derive(Debug)]
pub struct Volume {
    gfapi: &'static Gfapi,
    handle: Handle,
}

// SAFETY: libgfapi lets all threads use a connection.
unsafe impl Send for Volume {}
// SAFETY: as above.
unsafe impl Sync for Volume {}

/// The connections of this process.
static VOLUMES: Mutex<Vec<(Server, Weak<Volume>)>> = Mutex::new(Vec::new());

impl Volume {
    /// The connection to a volume: the one that is there, or a new one. Blocks.
    ///
    /// # Errors
    /// [`Error::Library`] where libgfapi is not there; [`Error::Call`] where no server answers, or
    /// has no such volume.
    pub fn connect(server: &Server) -> Result<Arc<Self>, Error> {
        let there = |volumes: &[(Server, Weak<Volume>)]| {
            let found = volumes.iter().find(|(known, _)| known == server);
            found.and_then(|(_, volume)| volume.upgrade())
        };
        let lock = || VOLUMES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(volume) = there(&lock()) {
            return Ok(volume);
        }
        // Without the lock: a server that hangs holds up nobody else.
        let volume = Arc::new(Volume::new(server)?);
        let mut volumes = lock();
        if let Some(first) = there(&volumes) {
            return Ok(first);
        }
        volumes.retain(|(_, volume)| volume.strong_count() > 0);
        volumes.push((server.clone(), Arc::downgrade(&volume)));
        Ok(volume)
    }

    fn new(server: &Server) -> Result<Self, Error> {
        let gfapi = gfapi()?;
        let (transport, host, port) = server.address.parts();
        let doing = format!("connect to the volume {:?} at {host}", server.volume);
        let (name, host) = (CString::new(&*server.volume)?, CString::new(host)?);
        // SAFETY: a C string.
        let handle = unsafe { (gfapi.glfs_new)(name.as_ptr()) };
        if handle.is_null() {
            return Err(failed(doing));
        }
        // What is dropped from here on is ended.
        let volume = Volume { gfapi, handle };
        for cache in CACHES {
            let (option, value) = (c"pass-through", c"true");
            // SAFETY: the handle of this connection, C strings.
            let set = unsafe {
                (gfapi.glfs_set_xlator_option)(
                    handle,
                    cache.as_ptr(),
                    option.as_ptr(),
                    value.as_ptr(),
                )
            };
            if set < 0 {
                return Err(failed(format!("set {}: pass-through", cache.to_string_lossy())));
            }
        }
        // SAFETY: the handle of this connection, C strings.
        let begun = unsafe {
            (gfapi.glfs_set_logging)(handle, c"/dev/null".as_ptr(), LOG_LEVEL) == 0
                && (gfapi.glfs_set_volfile_server)(
                    handle,
                    transport.as_ptr(),
                    host.as_ptr(),
                    port.into(),
                ) == 0
                && (gfapi.glfs_init)(handle) == 0
        };
        if begun { Ok(volume) } else { Err(failed(doing)) }
    }

    pub(crate) fn gfapi(&self) -> &'static Gfapi {
        self.gfapi
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle
    }
}

/// What the thread that ends a connection gets.
struct Ending(Handle);

// SAFETY: nobody else has it any more.
unsafe impl Send for Ending {}

impl Drop for Volume {
    fn drop(&mut self) {
        let (gfapi, ending) = (self.gfapi, Ending(self.handle));
        // That takes ten seconds, and nobody has to wait for it.
        let ended = std::thread::Builder::new().name("glfs_fini".into()).spawn(move || {
            let Ending(handle) = { ending };
            // SAFETY: nothing of the connection is left: files have shares of it.
            unsafe { (gfapi.glfs_fini)(handle) };
        });
        if let Err(e) = ended {
            tracing::warn!("a connection to a volume is not ended: {e}");
        }
    }
}
