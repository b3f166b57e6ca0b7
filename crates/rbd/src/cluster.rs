// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to call librados.
//!
//! A connection to a cluster, and a pool of it. [`Options`] in; what fails names the setting or the
//! file that is to be looked at. Secrets stay in the keyring's file: they are in no option.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use crate::Error;
use crate::error::checked;
use crate::library::{Handle, Libraries, libraries};

/// How a cluster is connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The configuration file; `None`: that of CEPH_CONF, or one of the usual ones.
    pub conf: Option<PathBuf>,
    /// The user's name, without `client.`; `None`: admin, or what CEPH_ARGS says.
    pub id: Option<String>,
    /// The file with the user's key; `None`: that of the configuration.
    pub keyring: Option<PathBuf>,
    /// After so long an operation that no OSD answers fails with ETIMEDOUT; `None`: as the
    /// configuration says, which is never where it says nothing.
    pub osd_op_timeout: Option<Duration>,
}

/// A connection to a cluster. It ends when all that uses it is dropped, which blocks.
#[derive(Debug)]
pub struct Cluster {
    libraries: &'static Libraries,
    handle: Handle,
}

// SAFETY: librados lets all threads use a connection.
unsafe impl Send for Cluster {}
// SAFETY: as above.
unsafe impl Sync for Cluster {}

/// A pool of a cluster, or a namespace of one.
#[derive(Debug)]
pub struct Pool {
    cluster: Arc<Cluster>,
    handle: Handle,
}

// SAFETY: images of a pool are opened by any thread; the namespace is set once, at the beginning.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Cluster {
    /// Connects. Blocks, for as long as `client_mount_timeout` of the configuration says (5
    /// minutes) where no monitor answers.
    ///
    /// # Errors
    /// [`Error::Library`] where librados or librbd is not there;
    /// [`Error::Call`] where the configuration cannot be read, no monitor is reached, or the key is
    /// not the user's.
    pub fn connect(options: &Options) -> Result<Arc<Self>, Error> {
        let libraries = libraries()?;
        let id = options.id.as_deref().map(CString::new).transpose()?;
        let mut handle = ptr::null_mut();
        // SAFETY: the strings are C strings or null; the handle is written.
        let created =
            unsafe { (libraries.rados.rados_create)(&raw mut handle, pointer(id.as_deref())) };
        checked(created, || "prepare a connection".into())?;
        // What is dropped from here on is shut down, connected or not.
        let cluster = Cluster { libraries, handle };
        cluster.configure(options)?;
        // SAFETY: the handle is that of this connection.
        let connected = unsafe { (libraries.rados.rados_connect)(handle) };
        checked(connected, || format!("connect to the cluster of {}", options.describe()))?;
        Ok(Arc::new(cluster))
    }

    fn configure(&self, options: &Options) -> Result<(), Error> {
        let conf = options.conf.as_ref().map(|path| CString::new(path.as_os_str().as_bytes()));
        let conf = conf.transpose()?;
        // SAFETY: the handle is that of this connection, the strings are C strings or null.
        let read = unsafe {
            (self.libraries.rados.rados_conf_read_file)(self.handle, pointer(conf.as_deref()))
        };
        checked(read, || format!("read {}", options.describe()))?;
        // SAFETY: as above; null is the usual variable, CEPH_ARGS.
        let parsed =
            unsafe { (self.libraries.rados.rados_conf_parse_env)(self.handle, ptr::null()) };
        checked(parsed, || "read CEPH_ARGS".into())?;
        if let Some(keyring) = &options.keyring {
            self.set(c"keyring", &CString::new(keyring.as_os_str().as_bytes())?)?;
        }
        if let Some(timeout) = options.osd_op_timeout {
            let seconds = CString::new(timeout.as_secs_f64().to_string())?;
            self.set(c"rados_osd_op_timeout", &seconds)?;
        }
        // What is acknowledged has to survive the end of this process.
        self.set(c"rbd_cache", c"false")?;
        // An operation has its memory until it has ended.
        self.set(c"rbd_disable_zero_copy_writes", c"false")
    }

    fn set(&self, name: &CStr, value: &CStr) -> Result<(), Error> {
        let (name_at, value_at) = (name.as_ptr(), value.as_ptr());
        // SAFETY: the handle is that of this connection, the strings are C strings.
        let set = unsafe { (self.libraries.rados.rados_conf_set)(self.handle, name_at, value_at) };
        checked(set, || format!("set {}={}", name.to_string_lossy(), value.to_string_lossy()))?;
        Ok(())
    }

    pub(crate) fn libraries(&self) -> &'static Libraries {
        self.libraries
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle
    }
}

impl Options {
    /// Where the settings come from, for messages.
    fn describe(&self) -> String {
        let conf = self.conf.as_ref();
        let conf = conf.map_or("ceph.conf".into(), |path| path.display().to_string());
        match &self.id {
            Some(id) => format!("{conf} as client.{id}"),
            None => conf,
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // SAFETY: nothing of the connection is left: pools have shares of it.
        unsafe { (self.libraries.rados.rados_shutdown)(self.handle) };
    }
}

impl Pool {
    /// A pool, or with `namespace` that part of it. Blocks.
    ///
    /// # Errors
    /// [`Error::Call`]: ENOENT where there is no such pool.
    pub fn open(
        cluster: &Arc<Cluster>,
        name: &str,
        namespace: Option<&str>,
    ) -> Result<Arc<Self>, Error> {
        let rados = &cluster.libraries.rados;
        let pool = CString::new(name)?;
        let namespace = namespace.map(CString::new).transpose()?;
        let mut handle = ptr::null_mut();
        // SAFETY: the connection's handle, a C string; the pool's handle is written.
        let created =
            unsafe { (rados.rados_ioctx_create)(cluster.handle, pool.as_ptr(), &raw mut handle) };
        checked(created, || format!("open the pool {name:?}"))?;
        if let Some(namespace) = namespace {
            // SAFETY: the handle is that of the pool; a C string.
            unsafe { (rados.rados_ioctx_set_namespace)(handle, namespace.as_ptr()) };
        }
        Ok(Arc::new(Pool { cluster: cluster.clone(), handle }))
    }

    /// Its cluster.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Whether the cluster shuts this client out, which each of its operations hears: one is asked
    /// for an object that need not be there. Blocks.
    pub(crate) fn is_shut_out(&self) -> bool {
        let (mut size, mut time) = (0, 0);
        let stat = self.cluster.libraries.rados.rados_stat;
        // SAFETY: the pool's handle, a C string; the numbers are written.
        let asked =
            unsafe { stat(self.handle, c"rbd_info".as_ptr(), &raw mut size, &raw mut time) };
        asked == -libc::ESHUTDOWN
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: nothing of the pool is left: images have shares of it.
        unsafe { (self.cluster.libraries.rados.rados_ioctx_destroy)(self.handle) };
    }
}

/// A string's pointer, or null.
fn pointer(text: Option<&CStr>) -> *const c_char {
    text.map_or(ptr::null(), CStr::as_ptr)
}
