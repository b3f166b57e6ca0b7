// SPDX-License-Identifier: Apache-2.0
//! The table of subtypes, and the store that is any of them.
//!
//! To add a store: write its module, implement [`Store`], and add a row to [`SUBTYPES`], in which it
//! is an [`AnyStore::Boxed`].
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use sgl::Sgl;

use crate::exclusive::ExclusiveLock;
use crate::format::chain::{self, Format, Judge, Opening};
use crate::format::qcow::{self, shared};
use crate::format::read_only::{self, Kind};
use crate::format::{FORMATS, luks};
use crate::protocol::{file, glfs, null, ram, rbd};

use crate::{
    BoxedStore, Config, ConfigOption, Error, Event, Facts, FileStore, Held, ImageOptions,
    NullStore, OPTIONS, OpenWatch, Provisioning, QcowStore, Store,
};

/// How a store is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Writes are refused, and the image need not be writable.
    pub read_only: bool,
    /// Capacity of the logical unit in bytes. A smaller image is refused; of a larger one the
    /// beginning is used. `None`: the size of the image.
    pub size: Option<u64>,
    /// Directories in which backing files of an image may be; `None`: anywhere.
    pub allowed_backing_dirs: Option<Vec<PathBuf>>,
    /// Which files are locked.
    pub locking: Locking,
    /// That the image was taken to be raw because [`probe`](crate::probe()) found no other format:
    /// what would make it look like one is not written.
    pub probed: bool,
    /// Nobody wants the image after a loss of power, which it then need not survive: nothing is
    /// brought to stable storage.
    pub scratch: bool,
    /// The service under whose name the status of a cluster shows who has an image open; `None`: it
    /// does not.
    pub service: Option<&'static str>,
    /// How an image is opened; a configuration string has its own.
    pub image: ImageOptions,
    /// The files of the store that this one replaces, see [`Store::held`]; an image that
    /// somebody else has open is then refused at once. `None`: it replaces none, and opening such
    /// an image is retried for some seconds.
    pub predecessor: Option<Held>,
    /// Follows the opening, where it takes long.
    pub watch: Arc<OpenWatch>,
}

impl OpenOptions {
    /// The capacity on something of `size` bytes at `path`; `enlarge` says which command makes that
    /// as large as the device.
    pub(crate) fn capacity(
        &self,
        size: u64,
        path: &Path,
        enlarge: impl FnOnce(u64) -> String,
    ) -> Result<u64, Error> {
        match self.size {
            None => Ok(size),
            Some(wanted) if wanted <= size => Ok(wanted),
            Some(wanted) => {
                let text = format!(
                    "it has {size} bytes, which is less than the {wanted} bytes of the device; \
                     enlarge it ({}) or make the device smaller",
                    enlarge(wanted)
                );
                Err(Error::invalid(text, "open", path))
            }
        }
    }
}

/// Which files of an image are locked: against writers, or, if they are written, against everybody.
/// A file that is not locked may be written by others while it is read, and keeps nobody from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locking {
    /// The image and its backing files.
    #[default]
    All,
    /// The image; its backing files may be those of a running VM.
    Image,
    /// None.
    None,
}

/// A kind of store.
#[derive(Debug)]
pub struct Subtype {
    /// Its name in configuration strings.
    pub name: &'static str,
    /// What follows the name, in words.
    pub config_desc: &'static str,
    /// Whether what a string names could be opened; of the options, directories count.
    check: fn(&Config<'_>, &OpenOptions) -> Result<(), Error>,
    /// Opening one needs no server, no passphrase and no pass through the image, so that an image on it
    /// can be checked.
    quick: bool,
    open: for<'a> fn(&'a Config<'a>, &'a OpenOptions) -> Opening<'a, AnyStore>,
}

/// All subtypes, by name.
pub static SUBTYPES: &[Subtype] = &[
    Subtype {
        name: "file",
        config_desc: "/path/to/file: a file, or a block device, that holds the blocks as they are",
        check: |config, _| file::check(config),
        quick: true,
        open: |config, options| {
            Box::pin(async { Ok(AnyStore::File(file::open(config, options).await?)) })
        },
    },
    Subtype {
        name: "glfs",
        config_desc: "/VOLUME@[tcp:|rdma:]HOST[:PORT]/PATH or /VOLUME@unix:SOCKET:/PATH: a file on \
                      a Gluster volume",
        check: |config, _| glfs::check(config),
        quick: false,
        open: glfs::open,
    },
    Subtype {
        name: "gz",
        config_desc: "/path/to/image.gz: a raw image that gzip or bgzip compressed, for reading",
        check: |config, _| read_only::check(config, Kind::Gz),
        quick: false,
        open: |config, options| image(config, options, &["gz"]),
    },
    Subtype {
        name: "luks",
        config_desc: "/path/to/image, or another store as SUBTYPE/REST: a LUKS volume, version 1 or \
                      2, as `cryptsetup luksFormat` makes it",
        check: |config, options| {
            let check = |path: &Path, options: &_| chain::check_file(path, options, luks::look);
            layer_check(config, options, check, luks::look)
        },
        quick: false,
        open: |config, options| image(config, options, luks::NAMES),
    },
    Subtype {
        name: "null",
        config_desc: "(nothing): reads zeroes and forgets what is written",
        check: |config, _| null::check(config),
        quick: true,
        open: |config, options| {
            Box::pin(async { Ok(AnyStore::Null(null::open(config, options)?)) })
        },
    },
    Subtype {
        name: "qcow",
        config_desc: "/path/to/image, or another store as SUBTYPE/REST: a qcow2 image (version 1 \
                      images can be read)",
        check: |config, options| {
            let check = |path: &Path, options: &_| chain::check(path, qcow::NAMES, options);
            layer_check(config, options, check, qcow::look)
        },
        quick: true,
        open: |config, options| image(config, options, qcow::NAMES),
    },
    Subtype {
        name: "ram",
        config_desc: "/SIZE, such as /64M: memory, which is gone when the daemon ends",
        check: |config, _| ram::check(config),
        quick: true,
        open: |config, options| Box::pin(async { Ok(AnyStore::File(ram::open(config, options)?)) }),
    },
    Subtype {
        name: "rbd",
        config_desc: "/POOL[/NAMESPACE]/IMAGE[@SNAPSHOT]: an image in a Ceph cluster",
        check: |config, _| rbd::check(config),
        quick: false,
        open: rbd::open,
    },
    Subtype {
        name: "vdi",
        config_desc: "/path/to/image: a VirtualBox image, for reading",
        check: |config, options| chain::check(config.path()?, &["vdi"], options),
        quick: true,
        open: |config, options| image(config, options, &["vdi"]),
    },
    Subtype {
        name: "vhdx",
        config_desc: "/path/to/image: a Hyper-V image, for reading",
        check: |config, options| chain::check(config.path()?, &["vhdx"], options),
        quick: true,
        open: |config, options| image(config, options, &["vhdx"]),
    },
    Subtype {
        name: "vmdk",
        config_desc: "/path/to/image: a VMware image, of one file or several, for reading",
        check: |config, options| chain::check(config.path()?, &["vmdk"], options),
        quick: true,
        open: |config, options| image(config, options, &["vmdk"]),
    },
    Subtype {
        name: "vpc",
        config_desc: "/path/to/image: a VHD image (Virtual PC, Azure), for reading",
        check: |config, options| chain::check(config.path()?, &["vpc"], options),
        quick: true,
        open: |config, options| image(config, options, &["vpc"]),
    },
    Subtype {
        name: "xz",
        config_desc: "/path/to/image.xz: a raw image that xz compressed, for reading",
        check: |config, _| read_only::check(config, Kind::Xz),
        quick: false,
        open: |config, options| image(config, options, &["xz"]),
    },
    Subtype {
        name: "zst",
        config_desc: "/path/to/image.zst: a raw image that zstd compressed, for reading",
        check: |config, _| read_only::check(config, Kind::Zst),
        quick: false,
        open: |config, options| image(config, options, &["zst"]),
    },
];

impl Subtype {
    /// What follows the name, with the options that only some subtypes have, in words: the
    /// property `ConfigDesc` on D-Bus.
    pub fn description(&self) -> String {
        let own = |option: &&ConfigOption| !option.subtypes.is_empty() && option.is_for(self.name);
        let options = OPTIONS.iter().filter(own);
        let options = options.map(|option| format!(";{}={}", option.name, option.value));
        let options: Vec<_> = options.collect();
        match options.is_empty() {
            true => self.config_desc.to_owned(),
            false => format!("{}; options: {}", self.config_desc, options.join(" ")),
        }
    }
}

/// Opens an image of one of these formats, in a file or in another store.
fn image<'a>(
    config: &'a Config<'a>,
    options: &'a OpenOptions,
    formats: &'static [&'static str],
) -> Opening<'a, AnyStore> {
    Box::pin(async move {
        let Some(below) = config.below() else {
            return chain::open(config.path()?, formats, options).await;
        };
        let its = OpenOptions { size: None, image: below.own_image_options(), ..options.clone() };
        let store = (subtype(&below)?.open)(&below, &its).await?;
        // What other hosts change, too, is not to be kept in memory.
        let facts = store.facts();
        let others = facts.compare_and_write.is_some() && !facts.read_only;
        let path = below.bottom();
        match (store, formats) {
            (AnyStore::Boxed(store), qcow::NAMES) if others => {
                shared::open(store, &path, formats, options).await
            }
            (store, _) => chain::open_on(store, &path, formats, options).await,
        }
    })
}

/// Checks an image in a file by `check`. Of one in another store that store is checked, and the image by
/// `judge` where the store opens at once.
fn layer_check(
    config: &Config<'_>,
    options: &OpenOptions,
    check: fn(&Path, &OpenOptions) -> Result<(), Error>,
    judge: Judge,
) -> Result<(), Error> {
    let Some(below) = config.below() else { return check(config.path()?, options) };
    let row = subtype(&below)?;
    let its = OpenOptions { image: below.own_image_options(), ..options.clone() };
    (row.check)(&below, &its)?;
    if !is_quick(&below) {
        return Ok(());
    }
    let image = its.image;
    let open = async |options: &OpenOptions| {
        (row.open)(&below, &OpenOptions { image, ..options.clone() }).await
    };
    chain::check_on(&below.bottom(), options, open, judge)
}

/// Whether all of a stack can be opened to look into it.
fn is_quick(config: &Config<'_>) -> bool {
    subtype(config).is_ok_and(|row| row.quick)
        && config.below().is_none_or(|below| is_quick(&below))
}

fn subtype(config: &Config<'_>) -> Result<&'static Subtype, Error> {
    SUBTYPES.iter().find(|subtype| subtype.name == config.subtype).ok_or_else(|| {
        let names: Vec<_> = SUBTYPES.iter().map(|subtype| subtype.name).collect();
        let text = format!("no subtype {:?}; there are {}", config.subtype, names.join(", "));
        let string = format!("{}/{}", config.subtype, config.rest);
        Error::invalid(text, "configuration string", string)
    })
}

/// Whether a configuration string could be opened for writing, as far as can be told without
/// doing so: its form, and that the image is there and is of the right kind. Backing files are looked for
/// in the directories that `options` allow. Blocks.
pub fn check(config: &str, options: &OpenOptions) -> Result<(), Error> {
    let config = Config::parse(config)?;
    let options = OpenOptions { image: config.own_image_options(), ..options.clone() };
    (subtype(&config)?.check)(&config, &options)
}

/// Opens what a configuration string names, in the engine that runs on this thread.
pub async fn open(config: &str, options: &OpenOptions) -> Result<AnyStore, Error> {
    let config = Config::parse(config)?;
    let options = OpenOptions {
        // A snapshot stays what it is.
        read_only: options.read_only || config.image.snapshot.is_some(),
        image: config.own_image_options(),
        ..options.clone()
    };
    (subtype(&config)?.open)(&config, &options).await
}

/// Opens the image in a file, in the engine that runs on this thread; `format` is one of
/// [`image_format`], or raw as QEMU names it.
pub async fn open_image(
    path: &Path,
    format: &str,
    options: &OpenOptions,
) -> Result<AnyStore, Error> {
    if chain::is_raw(format) {
        return Ok(AnyStore::File(file::open_path(path, options).await?));
    }
    match image_format(format) {
        Some(format) => chain::open(path, &[format.name], options).await,
        None => Err(chain::unknown(format, path)),
    }
}

/// The format of images that QEMU names so; `None`: there is none here, it is raw, or its images need
/// a passphrase, which only a configuration string can name.
pub fn image_format(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name == name && !format.needs_secret)
}

/// A store of any subtype. Which one is decided by a `match` in each call: those that matter for speed are
/// not boxed.
#[derive(Debug)]
#[non_exhaustive]
pub enum AnyStore {
    /// `file` and `ram`.
    File(FileStore),
    /// `null`.
    Null(NullStore),
    /// `qcow`.
    Qcow(QcowStore),
    /// Any other, behind a pointer.
    Boxed(BoxedStore),
}

/// Evaluates `$call` with the store in `$any`.
macro_rules! each {
    ($any:expr, $it:ident => $call:expr) => {
        match $any {
            AnyStore::File($it) => $call,
            AnyStore::Null($it) => $call,
            AnyStore::Qcow($it) => $call,
            AnyStore::Boxed($it) => $call,
        }
    };
}

impl AnyStore {
    /// The store behind the pointer, if it is a `T`.
    pub fn downcast_ref<T: Store + 'static>(&self) -> Option<&T> {
        match self {
            AnyStore::Boxed(boxed) => boxed.downcast_ref(),
            _ => None,
        }
    }
}

impl Store for AnyStore {
    fn facts(&self) -> Facts {
        each!(self, it => it.facts())
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        each!(self, it => it.read(data, offset).await)
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64, fua: bool) -> Result<(), Error> {
        each!(self, it => it.write(data, offset, fua).await)
    }

    async fn flush(&self) -> Result<(), Error> {
        each!(self, it => it.flush().await)
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        each!(self, it => it.discard(offset, len).await)
    }

    async fn write_zeroes(&self, offset: u64, len: u64, may_unmap: bool) -> Result<(), Error> {
        each!(self, it => it.write_zeroes(offset, len, may_unmap).await)
    }

    async fn provisioning(&self, offset: u64, len: u64) -> Result<(Provisioning, u64), Error> {
        each!(self, it => it.provisioning(offset, len).await)
    }

    async fn compare_and_write(
        &self,
        data: &Sgl<'_>,
        offset: u64,
    ) -> Option<Result<Option<u64>, Error>> {
        each!(self, it => it.compare_and_write(data, offset).await)
    }

    async fn resize(&self, size: u64) -> Result<(), Error> {
        each!(self, it => it.resize(size).await)
    }

    async fn close(&self) -> Result<(), Error> {
        each!(self, it => it.close().await)
    }

    fn held(&self) -> Held {
        each!(self, it => it.held())
    }

    fn lock(&self) -> Option<Rc<dyn ExclusiveLock>> {
        each!(self, it => it.lock())
    }

    fn grows_by_noise(&self) -> bool {
        each!(self, it => it.grows_by_noise())
    }

    async fn event(&self) -> Event {
        each!(self, it => it.event().await)
    }
}
