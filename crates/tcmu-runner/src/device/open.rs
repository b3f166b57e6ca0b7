// SPDX-License-Identifier: Apache-2.0
//! Opening a device: its image, the logical unit on it, its ring. Either all of it is there, or
//! nothing is left and the one who enabled the device is told why.
use std::io;
use std::rc::Rc;

use block::{AnyStore, Config, Held, OpenOptions, Store};
use io_engine::Receiver;
use lun::Lun;
use lun::alua::Alua;
use scsi::block_device::BLOCK_DEVICE;
use tcmu::Ring;

use super::absent::{self, Opening};
use super::alua::ConfigfsAlua;
use super::locked::LockedAlua;
use super::peers::Peers;
use super::serve::Server;
use super::{Control, DeviceSpec, plugin};
use crate::events::Sender;

/// Why a device was not opened.
#[derive(Debug)]
pub(super) struct OpenError {
    /// What the kernel, and so who enabled the device, is told.
    pub(super) errno: i32,
    /// The whole story, for the log.
    pub(super) reason: String,
}

impl OpenError {
    pub(super) fn new(errno: i32, reason: impl ToString) -> Self {
        OpenError { errno, reason: reason.to_string() }
    }

    /// For the answer to a request: the errno alone, the story going to the log.
    pub(super) fn log(self, device: &str) -> io::Error {
        tracing::error!("{device}: {}", self.reason);
        io::Error::from_raw_os_error(self.errno)
    }
}

impl From<block::Error> for OpenError {
    fn from(error: block::Error) -> Self {
        let errno = error.errno().unwrap_or(libc::EIO);
        OpenError::new(errno, error)
    }
}

impl From<lun::Error> for OpenError {
    fn from(error: lun::Error) -> Self {
        match error {
            lun::Error::Store(error) => error.into(),
            error => OpenError::new(libc::EINVAL, error),
        }
    }
}

impl From<tcmu::Error> for OpenError {
    fn from(error: tcmu::Error) -> Self {
        let errno = if let tcmu::Error::Busy(_) = error { libc::EBUSY } else { libc::EIO };
        OpenError::new(errno, error)
    }
}

/// Opens the image that `config` names and makes a logical unit of it. It takes over what the
/// `predecessor` holds, if it has one.
pub(super) async fn open_lun(
    spec: &DeviceSpec,
    config: &str,
    predecessor: Option<Held>,
) -> Result<Lun<AnyStore>, OpenError> {
    let (backstore, block_size) = match &spec.plugin {
        Some(handler) => plugin::open(spec, handler.clone(), config).await?,
        None => (open_store(spec, config, predecessor).await?, spec.block_size),
    };
    let lun_config = lun::Config {
        name: spec.name.clone(),
        device_type: &BLOCK_DEVICE,
        block_size,
        max_transfer: spec.max_transfer,
        write_cache: spec.write_cache,
        identity: lun::Identity::new(&spec.serial),
    };
    let lun = Lun::new(backstore, lun_config)?.with_statistics(spec.shown.statistics());
    spec.shown.set_files(lun.store().held().paths());
    let groups = ConfigfsAlua::new(spec.configfs.clone());
    let alua: Box<dyn Alua> = match lun.store().lock() {
        Some(lock) => Box::new(LockedAlua::new(groups, lock)),
        None => Box::new(groups),
    };
    Ok(lun.with_alua(alua).with_peers(Rc::new(Peers)))
}

/// Opens the image that `config` names.
async fn open_store(
    spec: &DeviceSpec,
    config: &str,
    predecessor: Option<Held>,
) -> Result<AnyStore, OpenError> {
    let options = OpenOptions {
        size: Some(spec.size),
        allowed_backing_dirs: spec.backing_dirs.clone(),
        predecessor,
        watch: spec.watch.clone(),
        service: Some("tcmu-runner"),
        ..OpenOptions::default()
    };
    let backstore = block::open(config, &options).await;
    backstore.map_err(|error| {
        let missing = error.errno() == Some(libc::ENOENT);
        match missing.then(|| comma_hint(config)).flatten() {
            Some(hint) => OpenError::new(libc::ENOENT, format!("{error}. {hint}")),
            None => error.into(),
        }
    })
}

/// The most entries of a directory that are looked at for a hint.
const MAX_ENTRIES: usize = 10_000;

/// What to do if the image is missing because the kernel has cut its name off at a comma.
fn comma_hint(config: &str) -> Option<String> {
    let config = Config::parse(config).ok()?;
    let path = config.bottom();
    let start = format!("{},", path.file_name()?.to_str()?);
    let mut entries = std::fs::read_dir(path.parent()?).ok()?.take(MAX_ENTRIES).flatten();
    let whole = entries.find(|entry| entry.file_name().to_string_lossy().starts_with(&start))?;
    Some(format!(
        "The kernel takes a configuration string only up to its first comma, and there is {}: give \
         it a name without a comma, or a link with such a name",
        whole.path().display()
    ))
}

/// Opens everything of a device, or, where it may take its time ([`DeviceSpec::hold`]), waits until
/// its image can be opened.
pub(super) async fn open<'a>(
    spec: &'a DeviceSpec,
    control: Receiver<Control>,
    events: &'a Sender,
) -> Result<Opening<'a>, OpenError> {
    match (open_lun(spec, &spec.config, None).await, spec.hold) {
        (Err(why), Some(hold)) => {
            let ring = open_ring(spec)?;
            Ok(absent::wait(spec, why, hold, ring, control, events).await)
        }
        (lun, _) => {
            let (lun, ring) = (Rc::new(lun?), open_ring(spec)?);
            let held = Vec::new();
            Ok(Opening::Open(Box::new(Server { spec, lun, ring, control, events, held })))
        }
    }
}

/// Opens the ring. One in which a predecessor left commands is reset, if the kernel can do that:
/// the initiators send them again.
fn open_ring(spec: &DeviceSpec) -> Result<Ring, OpenError> {
    let configfs = &spec.configfs;
    let mut ring = Ring::open(&spec.uio)?;
    if configfs.can_reset_ring() {
        if ring.has_leftovers() {
            tracing::info!(
                "{}: commands of before are in the ring: they are sent again",
                spec.name
            );
            ring.reset(configfs)?;
        }
        ring.set_out_of_order(true);
    }
    if let Err(e) = configfs.enable_tmr_notification() {
        tracing::warn!("{}: aborted commands run to their end: {e}", spec.name);
    }
    Ok(ring)
}
