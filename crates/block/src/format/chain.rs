// SPDX-License-Identifier: Apache-2.0
//! An image and the files that it consists of: its own, those that belong to it (an external data
//! file, extents), and the image below it, which has such files itself. Names in an image are
//! resolved, checked and opened here, whatever the formats are.
//!
//! A name comes out of an image, so whoever made the image chose it. Where the configuration names
//! directories, the file must be in one of them. Each file is opened once, and locked as
//! [`Locking`] says: those that belong to an image as that image, images below for reading.
//!
//! The format of a backing file that the image does not name (images made before QEMU 6.1) is
//! probed, as QEMU does. That is dangerous when the backing file is raw and a guest could write to
//! it: the guest may have written a qcow2 header there. `qemu-img rebase -u -F raw -b BACKING IMAGE`
//! names the format once and for all.
use std::cell::RefCell;
use std::ffi::OsStr;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use qcow2::Storage as _;
use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, open as open_fd, openat2, stat};
use rustix::io::Errno;
use sgl::Sgl;

use super::{FORMATS, name, probe};
use crate::error::Shown;
use crate::lower::from_io;
use crate::protocol::file::{Held, Image, Medium, Place, open_image};
use crate::{
    AnyStore, Error, ErrorClass, Locking, Lower, OpenOptions, OpenWatch, Store, image_format,
};

/// How many images a chain may have.
const MAX_DEPTH: usize = 64;
/// How many files all of its images may have together: a VMDK can consist of many.
const MAX_FILES: usize = 1100;
const OPERATION: &str = "open";
/// What the image below is to the one that names it, in messages.
const BACKING: &str = "backing file";

/// A format of images.
#[derive(Debug)]
pub struct Format {
    /// QEMU's name for it.
    pub name: &'static str,
    /// Whether its images can be written.
    pub writable: bool,
    /// Whether none of its images is of use without a passphrase, which only a configuration string
    /// can name.
    pub(crate) needs_secret: bool,
    /// Opens an image.
    pub(crate) open: for<'a> fn(Lower, Site<'a>) -> Opening<'a, AnyStore>,
}

/// Something that is being opened. It is boxed: that happens once for each image.
pub(crate) type Opening<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + 'a>>;

/// Judges an image without opening it.
pub(crate) type Judge = for<'a> fn(Lower, Site<'a>) -> Opening<'a, ()>;

/// What an image is opened with: its surroundings, and the way to the files that it names.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    files: &'a Files<'a>,
    path: PathBuf,
    /// How many images are above it.
    depth: usize,
    read_only: bool,
    locked: bool,
}

/// All files of a chain that are open.
#[derive(Debug)]
struct Files<'a> {
    options: &'a OpenOptions,
    /// They are only looked at: without locks.
    look: bool,
    images: RefCell<Vec<Image>>,
}

/// Opens the image in a file, whose format is one of `formats`, in the engine of this thread.
pub(crate) async fn open(
    path: &Path,
    formats: &[&str],
    options: &OpenOptions,
) -> Result<AnyStore, Error> {
    open_top(path, formats, options, false).await
}

/// Opens the image that another store has, whose format is one of `formats`; `path` is for messages,
/// and where relative names in it begin.
pub(crate) async fn open_on(
    store: AnyStore,
    path: &Path,
    formats: &[&str],
    options: &OpenOptions,
) -> Result<AnyStore, Error> {
    open_top_on(store, path, formats, options, false).await
}

/// Looks at the image that another store has: it is opened to be read, takes no lock, and leaves out what
/// takes long.
pub(crate) async fn look_on(
    store: AnyStore,
    path: &Path,
    formats: &[&str],
    options: &OpenOptions,
) -> Result<AnyStore, Error> {
    open_top_on(store, path, formats, options, true).await
}

async fn open_top_on(
    store: AnyStore,
    path: &Path,
    formats: &[&str],
    options: &OpenOptions,
    look: bool,
) -> Result<AnyStore, Error> {
    let images = RefCell::new(store.held().into_images());
    let read_only = options.read_only || store.facts().read_only;
    let lower = Lower::store(store, path);
    let format = format_of(&lower, formats, path).await?;
    let files = Files { options, look, images };
    let site = if look {
        files.site_to_look(path)
    } else {
        let locked = options.locking != Locking::None;
        Site { files: &files, path: path.to_owned(), depth: 0, read_only, locked }
    };
    (format.open)(lower, site).await
}

/// The format of what is there: the only one of `formats`, or the one of them that the first bytes tell.
pub(crate) async fn format_of(
    lower: &Lower,
    formats: &[&str],
    path: &Path,
) -> Result<&'static Format, Error> {
    if let [name] = formats {
        return named(name, formats, path);
    }
    let mut head = [0; probe::PROBED];
    let read = lower.read(&Sgl::from_slice(&mut head), 0).await;
    read.map_err(|e| from_io(e).unwrap_or_else(|e| Error::new(e, OPERATION, path)))?;
    named(probe::probe(&head), formats, path)
}

/// Whether the image in a file could be opened. Takes no lock, writes nothing. Blocks.
pub(crate) fn check(path: &Path, formats: &[&str], options: &OpenOptions) -> Result<(), Error> {
    check_by(path, options, async |options| open_top(path, formats, options, true).await.map(drop))
}

/// The same, by what looks at a single file with its [`Site`]. Blocks.
pub(crate) fn check_file(path: &Path, options: &OpenOptions, judge: Judge) -> Result<(), Error> {
    check_by(path, options, async |options| {
        let files = Files { options, look: true, images: RefCell::default() };
        let lower = files.open(&Place::find(path)?, true, false).await?;
        judge(lower, files.site_to_look(path)).await
    })
}

/// The same, of an image in the store that `open` opens. Blocks.
pub(crate) fn check_on(
    path: &Path,
    options: &OpenOptions,
    open: impl AsyncFnOnce(&OpenOptions) -> Result<AnyStore, Error> + Send,
    judge: Judge,
) -> Result<(), Error> {
    check_by(path, options, async |options| {
        let store = open(options).await?;
        let images = RefCell::new(store.held().into_images());
        let files = Files { options, look: true, images };
        judge(Lower::store(store, path), files.site_to_look(path)).await
    })
}

fn check_by(
    path: &Path,
    options: &OpenOptions,
    look: impl AsyncFnOnce(&OpenOptions) -> Result<(), Error> + Send,
) -> Result<(), Error> {
    let failed = |e| Error::new(e, OPERATION, path);
    // Of its own, as the caller's thread may have one.
    let look = || {
        let engine = io_engine::Engine::new(io_engine::Backend::Pool).map_err(failed)?;
        let options = OpenOptions { read_only: true, locking: Locking::None, ..options.clone() };
        engine.block_on(look(&options)).map_err(failed)?
    };
    let looked = std::thread::scope(|scope| scope.spawn(look).join());
    looked.unwrap_or_else(|_| Err(Error::invalid("the check itself failed", OPERATION, path)))
}

async fn open_top(
    path: &Path,
    formats: &[&str],
    options: &OpenOptions,
    look: bool,
) -> Result<AnyStore, Error> {
    let place = Place::find(path)?;
    let name = match formats {
        [name] => *name,
        _ => probe::probe(&look_at(&place)?),
    };
    let format = named(name, formats, path)?;
    if !format.writable && !options.read_only {
        tracing::warn!("{}: format {name}: it can only be read", path.display());
    }
    let files = Files { options, look, images: RefCell::default() };
    let locked = options.locking != Locking::None;
    files.open_image(&place, format, 0, options.read_only, locked).await
}

/// The format of this name, if it is one of `formats`.
fn named(name: &str, formats: &[&str], path: &Path) -> Result<&'static Format, Error> {
    let mut known = FORMATS.iter().filter(|format| formats.contains(&format.name));
    known.find(|format| format.name == name).ok_or_else(|| {
        let text = format!("it is not a {} image, as its first bytes say", formats.join(" or "));
        Error::invalid(text, OPERATION, path)
    })
}

/// The first bytes of an image, which tell its format. Blocks.
fn look_at(place: &Place) -> Result<Vec<u8>, Error> {
    let (file, _) = place.open_to_look()?;
    probe::head(&file).map_err(|e| Error::new(e, OPERATION, place.path()))
}

impl Files<'_> {
    /// Of the top image, which is only looked at.
    fn site_to_look(&self, path: &Path) -> Site<'_> {
        let path = path.to_owned();
        Site { files: self, path, depth: 0, read_only: true, locked: false }
    }

    /// Opens and locks a file.
    async fn open(&self, place: &Place, read_only: bool, locked: bool) -> Result<Lower, Error> {
        let path = place.path();
        {
            let images = self.images.borrow();
            if images.iter().any(|image| image.identity() == place.identity()) {
                let text = "its chain of files comes back to it";
                return Err(Error::invalid(text, OPERATION, path));
            }
            if images.len() == MAX_FILES {
                let text = format!("it belongs to a chain of more than {MAX_FILES} files");
                return Err(Error::invalid(text, OPERATION, path));
            }
        }
        let predecessor = self.options.predecessor.as_ref();
        let locked = locked && !self.look;
        let image = open_image(place, read_only, locked, predecessor).await?;
        self.images.borrow_mut().push(image.clone());
        let medium = Medium::new(image, read_only);
        Ok(Lower::file(medium.map_err(|e| Error::new(e, "find its properties", path))?))
    }

    /// Opens the image in a file.
    fn open_image<'s>(
        &'s self,
        place: &'s Place,
        format: &'s Format,
        depth: usize,
        read_only: bool,
        locked: bool,
    ) -> Opening<'s, AnyStore> {
        Box::pin(async move {
            let read_only = read_only || !format.writable;
            let lower = self.open(place, read_only, locked).await?;
            let path = place.path().to_owned();
            let site = Site { files: self, path, depth, read_only, locked };
            (format.open)(lower, site).await
        })
    }
}

impl Site<'_> {
    /// Where the image is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is not to be written.
    pub(crate) fn read_only(&self) -> bool {
        self.read_only
    }

    /// Whether this only finds out whether the image could be opened for writing. Whatever takes
    /// long is left out.
    pub(crate) fn is_check(&self) -> bool {
        self.files.look && self.depth == 0
    }

    /// How it is to be opened; `None` for an image below another.
    pub(crate) fn options(&self) -> Option<&OpenOptions> {
        (self.depth == 0).then_some(self.files.options)
    }

    /// What follows the opening of the whole.
    pub(crate) fn watch(&self) -> Arc<OpenWatch> {
        self.files.options.watch.clone()
    }

    /// All files that are open up to now, for a successor of the whole chain.
    pub(crate) fn held(&self) -> Held {
        Held::new(self.files.images.borrow().clone())
    }

    /// Opens a file that the configuration names beside the image. It is only read.
    pub(crate) async fn beside(&self, path: &Path) -> Result<Lower, Error> {
        self.files.open(&Place::find(path)?, true, self.locked).await
    }

    /// Opens a raw file that belongs to the image; `what` it is to the image is for messages.
    ///
    /// A relative name begins in the directory of the image, as that of a backing file does: it
    /// means one file, whoever opens the image. qemu-io 7.2 looks for an external data file in the
    /// directory that it was started in, which for a daemon is any; docs/interop/qcow2.rst does not
    /// say where. Where QEMU is started beside the image, both find the same file.
    pub(crate) async fn part(&self, what: &str, name: &OsStr) -> Result<Lower, Error> {
        let (place, format) = self.find(what, name)?;
        if let Some(format) = format.filter(|format| !is_raw(format)) {
            let text = format!(
                "its {what} {name:?} has the format {}; it has to be raw",
                format.escape_debug()
            );
            return Err(Error::invalid(text, OPERATION, &self.path));
        }
        let opened = self.files.open(&place, self.read_only, self.locked).await;
        opened.map_err(|e| self.of_named(e, what, name))
    }

    /// Opens the image below; it is probed if `format` is not known. It is never written.
    pub(crate) async fn backing(&self, name: &OsStr, format: Option<&str>) -> Result<Lower, Error> {
        if self.depth + 1 == MAX_DEPTH {
            let text = format!("its chain of backing files is longer than {MAX_DEPTH}");
            return Err(Error::invalid(text, OPERATION, &self.path));
        }
        let (place, named) = self.find(BACKING, name)?;
        let opened = self.backing_at(&place, format.or(named.as_deref())).await;
        opened.map_err(|e| self.of_named(e, BACKING, name))
    }

    /// Opens the image below, which is at `place`.
    async fn backing_at(&self, place: &Place, format: Option<&str>) -> Result<Lower, Error> {
        let locked = self.files.options.locking == Locking::All;
        // As in QEMU, the format that the image tells is above that of the options.
        let format = match format {
            Some(format) if is_raw(format) => "raw",
            Some(format) => format,
            None => probe::probe_backing(&look_at(place)?),
        };
        if format == "raw" {
            return self.files.open(place, true, locked).await;
        }
        let Some(format) = image_format(format) else {
            return Err(unknown(format, place.path()));
        };
        let below = self.files.open_image(place, format, self.depth + 1, true, locked).await?;
        Ok(Lower::store(below, place.path()))
    }

    /// Where a file is that the image names, and its format, if the name tells it.
    fn find(&self, what: &str, name: &OsStr) -> Result<(Place, Option<String>), Error> {
        let parsed = name::parse(name).map_err(|why| {
            let text = format!("its {what} {name:?} {why}");
            Error::invalid(text, OPERATION, &self.path)
        })?;
        let allowed = self.files.options.allowed_backing_dirs.as_deref();
        let place = resolve(&self.path, what, parsed.path.as_os_str(), allowed);
        Ok((place.map_err(|e| self.of_named(e, what, name))?, parsed.format))
    }

    /// The error of a file that the image names; one of a file further down says already which
    /// image names that.
    fn of_named(&self, error: Error, what: &str, name: &OsStr) -> Error {
        if error.path == self.path || !error.role.is_empty() {
            return error;
        }
        let image = Shown(&self.path);
        let mut role = format!("; it is the {what} {name:?} of {image}");
        role.push_str(&match what {
            _ if error.class() == ErrorClass::InUse => String::new(),
            BACKING => format!(
                ": if that should be another file, or has another format, `qemu-img rebase -u -b \
                 FILE -F FORMAT {image}` says so"
            ),
            _ => ": put it back there".to_owned(),
        });
        error.with_role(role)
    }
}

/// How many bytes the disk has, whose image has `size` bytes.
///
/// # Errors
/// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if more are wanted.
pub(crate) fn capacity(size: u64, site: &Site<'_>) -> Result<u64, Error> {
    let Some(options) = site.options() else { return Ok(size) };
    let path = &site.path;
    options.capacity(size, path, |size| format!("`qemu-img resize {} {size}`", path.display()))
}

/// Whether a format that QEMU names so is the bytes of a file.
pub(crate) fn is_raw(format: &str) -> bool {
    matches!(format, "raw" | "file" | "host_device")
}

/// What there is to say of a format that cannot be served.
pub fn refusal(format: &str) -> String {
    let known = FORMATS.iter().filter(|format| !format.needs_secret);
    let known: Vec<_> = known.map(|format| format.name).collect();
    format!(
        "images of format {} cannot be served; raw, {} can: qemu-img convert -O qcow2 makes one",
        format.escape_debug(),
        known.join(", ")
    )
}

/// The error of a format that cannot be served.
pub(crate) fn unknown(format: &str, path: &Path) -> Error {
    Error::invalid(refusal(format), OPERATION, path)
}

/// The file whose path `image` names, if it is allowed; `what` it is to the image is for messages.
pub(crate) fn resolve(
    image: &Path,
    what: &str,
    name: &OsStr,
    allowed: Option<&[PathBuf]>,
) -> Result<Place, Error> {
    let joined = image.parent().unwrap_or(Path::new("")).join(name);
    let Some(allowed) = allowed else {
        return Place::find(&joined);
    };
    if let Some(place) = beneath(allowed, &joined)? {
        return Ok(place);
    }
    let dirs: Vec<_> = allowed.iter().map(|dir| dir.display().to_string()).collect();
    let why = match dirs.is_empty() {
        true => "and the configuration allows no directory".to_owned(),
        false => format!(
            "which is in none of the directories that the configuration allows ({})",
            dirs.join(", ")
        ),
    };
    let found = joined.canonicalize().unwrap_or(joined);
    let text = format!("its {what} {name:?} is {}, {why}", found.display());
    Err(Error::invalid(text, OPERATION, image))
}

/// What `path` names, if it is in one of these directories.
///
/// Names only say where to look: the file is opened beneath the descriptor of the directory, and the
/// kernel refuses whatever leads out of it, even if a link is replaced meanwhile.
fn beneath(dirs: &[PathBuf], path: &Path) -> Result<Option<Place>, Error> {
    let path = path.canonicalize().map_err(|e| Error::new(e, "look up", path))?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    for dir in dirs {
        // A directory that does not exist allows nothing.
        let Ok(dir) = open_fd(dir, flags | OFlags::DIRECTORY, Mode::empty()) else { continue };
        let same = |above: &Path| match (fstat(&dir), stat(above)) {
            (Ok(a), Ok(b)) => (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino),
            _ => false,
        };
        let Some(above) = path.ancestors().skip(1).find(|above| same(above)) else { continue };
        let Ok(below) = path.strip_prefix(above) else { continue };
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match openat2(&dir, below, flags, Mode::empty(), how) {
            Ok(fd) => return Place::new(fd, &path).map(Some),
            // A link was replaced meanwhile and leads out of the directory.
            Err(Errno::XDEV | Errno::LOOP | Errno::AGAIN) => {}
            Err(e) => return Err(Error::new(e, "look up", path)),
        }
    }
    Ok(None)
}
