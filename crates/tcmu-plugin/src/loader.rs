// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to load libraries and to call what is in them.
//!
//! Loads plugins: every `handler_*.so` of a directory, in alphabetical order. What a library
//! registers becomes a [`Handler`]; what is refused is said in the log, and the others go on.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io, mem, thread};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};
use tcmu_abi::layout::tcmur_handler;

use crate::exports;
use crate::handler::{Away, Handler};
use crate::isolation::host::{Host, Isolation, Started};
use crate::library;
use crate::pool::spawn;

/// Why a library or one of its handlers is not used.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The dynamic linker says why, or the file.
    #[error("it does not load: {0}")]
    Load(String),
    /// It is no plugin.
    #[error("it has no function handler_init")]
    NoInit,
    /// It says so itself.
    #[error("its handler_init failed: {0}")]
    Init(i32),
    /// It does nothing.
    #[error("its handler_init registered no handler")]
    Nothing,
    /// It registered a null pointer.
    #[error("it registered a null pointer in place of a handler")]
    NoTable,
    /// The name that configuration strings would begin with.
    #[error(
        "{0:?} cannot be a subtype: it has to be letters, digits and _, not a digit first, at most 64"
    )]
    Subtype(String),
    /// A function that every handler has.
    #[error("its handler {subtype} has no function {what}")]
    Missing {
        /// Of the handler.
        subtype: String,
        /// What is a null pointer.
        what: &'static str,
    },
    /// More threads than is reasonable, or fewer than none.
    #[error("its handler {subtype} asks for {threads} threads")]
    Threads {
        /// Of the handler.
        subtype: String,
        /// How many.
        threads: i32,
    },
    /// Another plugin has the subtype, or the same a second time.
    #[error("there is a handler for the subtype {0} already")]
    Taken(String),
    /// The program has the subtype itself.
    #[error(
        "the subtype {0} is built in, and comes first (plugins_first in tcmu.conf changes that)"
    )]
    BuiltIn(String),
    /// It is to have a process of its own, which has ended or was not to be had.
    #[error("its process {0}")]
    Process(String),
    /// Its process says so, of one of the others.
    #[error("{0}")]
    Told(String),
    /// It says so itself.
    #[error("init of its handler {subtype} failed: {error}")]
    HandlerInit {
        /// Of the handler.
        subtype: String,
        /// What it returned.
        error: i32,
    },
}

/// A library that is being loaded.
struct Loading {
    file: PathBuf,
    /// Subtypes that are taken: true for those built in.
    taken: Vec<(String, bool)>,
    registered: Vec<Handler>,
    refused: Vec<Refusal>,
}

/// The library whose `handler_init` runs, if one does.
static LOADING: Mutex<Option<Loading>> = Mutex::new(None);
/// One program loads plugins once; tests do so side by side.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn loading() -> MutexGuard<'static, Option<Loading>> {
    LOADING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The library that is being loaded; `None` also where that cannot be told without waiting.
pub(crate) fn being_loaded() -> Option<PathBuf> {
    LOADING.try_lock().ok()?.as_ref().map(|loading| loading.file.clone())
}

/// The plugins of a directory.
#[derive(Debug, Default)]
pub struct Plugins {
    handlers: Vec<Arc<Handler>>,
    /// The processes of those that have one.
    hosts: Vec<Arc<Host>>,
}

impl Plugins {
    /// Loads all plugins of a directory; one that does not exist has none. Subtypes for which
    /// `built_in` is true are the program's own.
    pub fn load(directory: &Path, built_in: &[&str]) -> Plugins {
        Self::load_with(directory, |plugins, file| plugins.add(file, plugins.taken(built_in)))
    }

    /// The same, each in a process of its own.
    pub fn load_isolated(directory: &Path, built_in: &[&str], isolation: &Isolation) -> Plugins {
        Self::load_with(directory, |plugins, file| plugins.add_isolated(file, built_in, isolation))
    }

    /// Loads one plugin, in its own process; what of it was refused. Subtypes are built in, or those
    /// of other plugins.
    pub(crate) fn load_file(
        file: &Path,
        built_in: &[String],
        others: &[String],
    ) -> (Plugins, Vec<Refusal>) {
        let mut plugins = Plugins::default();
        let built_in = built_in.iter().map(|name| (name.clone(), true));
        let others = others.iter().map(|name| (name.clone(), false));
        let refused = plugins.add(file, built_in.chain(others).collect());
        (plugins, refused)
    }

    fn load_with(
        directory: &Path,
        mut add: impl FnMut(&mut Plugins, &Path) -> Vec<Refusal>,
    ) -> Plugins {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let mut plugins = Plugins::default();
        let files = match files(directory) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return plugins,
            Err(error) => {
                tracing::error!("{}: no plugins: {error}", directory.display());
                return plugins;
            }
        };
        for file in files {
            report(&file, add(&mut plugins, &file));
        }
        plugins
    }

    /// Loads one library in a process of its own, and tells what of it was refused. For programs that
    /// look and do not serve: the process ends with what is returned.
    pub fn try_file(
        file: &Path,
        built_in: &[&str],
        isolation: &Isolation,
    ) -> (Plugins, Vec<Refusal>) {
        let mut plugins = Plugins::default();
        let refused = plugins.add_isolated(file, built_in, isolation);
        (plugins, refused)
    }

    /// The libraries of a directory, in the order in which they are loaded.
    ///
    /// # Errors
    /// Of reading the directory.
    pub fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
        files(directory)
    }

    /// Subtypes that are taken: true for those built in.
    fn taken(&self, built_in: &[&str]) -> Vec<(String, bool)> {
        let taken = built_in.iter().map(|name| ((*name).to_owned(), true));
        let others = self.handlers.iter().map(|handler| (handler.subtype().to_owned(), false));
        taken.chain(others).collect()
    }

    /// Starts the process of a library; what was refused.
    fn add_isolated(
        &mut self,
        file: &Path,
        built_in: &[&str],
        isolation: &Isolation,
    ) -> Vec<Refusal> {
        let (ours, others): (Vec<_>, Vec<_>) =
            self.taken(built_in).into_iter().partition(|(_, built_in)| *built_in);
        let names = |taken: Vec<(String, bool)>| taken.into_iter().map(|(name, _)| name).collect();
        let started = Host::start(file, isolation.clone(), names(ours), names(others));
        let Started { host, handlers, mut refused } = match started {
            Ok(started) => started,
            Err(refusal) => return vec![refusal],
        };
        for (number, facts) in (0..=u16::MAX).zip(handlers) {
            let away = Away { host: host.clone(), handler: number };
            match Handler::away(facts, file, away) {
                // The process was told of both.
                Ok(handler) if self.find(handler.subtype()).is_some() => {
                    refused.push(Refusal::Taken(handler.subtype().to_owned()));
                }
                Ok(handler) if built_in.contains(&handler.subtype()) => {
                    refused.push(Refusal::BuiltIn(handler.subtype().to_owned()));
                }
                Ok(handler) => self.handlers.push(Arc::new(handler)),
                Err(refusal) => refused.push(refusal),
            }
        }
        let used = |handler: &Arc<Handler>| {
            handler.process().is_some_and(|away| Arc::ptr_eq(&away.host, &host))
        };
        if self.handlers.iter().any(used) {
            self.hosts.push(host);
        } else {
            host.end();
        }
        refused
    }

    /// Loads a library, of whose subtypes these are taken; what was refused.
    fn add(&mut self, file: &Path, taken: Vec<(String, bool)>) -> Vec<Refusal> {
        *loading() =
            Some(Loading { file: file.into(), taken, registered: Vec::new(), refused: Vec::new() });
        let result = initialize(file);
        let Some(Loading { registered, mut refused, .. }) = loading().take() else {
            return Vec::new();
        };
        match result {
            Ok(()) if registered.is_empty() && refused.is_empty() => refused.push(Refusal::Nothing),
            Ok(()) => {}
            // What it has registered before it failed is not used.
            Err(error) => {
                registered.iter().for_each(Handler::destroy);
                // Its failure may follow from a refusal, which says more.
                if refused.is_empty() || !matches!(error, Refusal::Init(_)) {
                    refused.push(error);
                }
                return refused;
            }
        }
        for handler in registered {
            tracing::info!(
                "{}: handler {} ({})",
                file.display(),
                handler.subtype(),
                handler.name()
            );
            self.handlers.push(Arc::new(handler));
        }
        refused
    }

    /// All handlers.
    pub fn handlers(&self) -> &[Arc<Handler>] {
        &self.handlers
    }

    /// The handler of a subtype.
    pub fn find(&self, subtype: &str) -> Option<&Arc<Handler>> {
        self.handlers.iter().find(|handler| handler.subtype() == subtype)
    }

    /// Tells the processes of plugins that another amount is logged, or to another directory.
    pub fn log_changed(&self) {
        self.hosts.iter().for_each(|host| host.log_changed());
    }

    /// Tells all handlers that the directory of log files is another one. Those in processes of
    /// their own are not waited for.
    pub fn update_log_dir(&self) {
        let lost = |handler: &Handler| {
            tracing::error!(
                "{}: the handler {} does not log to the new directory",
                handler.file().display(),
                handler.subtype()
            );
        };
        for handler in self.handlers.iter().filter(|handler| handler.logs_to_files()) {
            let Some(Away { host, handler: number }) = handler.process().cloned() else {
                if !handler.update_log_dir() {
                    lost(handler);
                }
                continue;
            };
            let theirs = handler.clone();
            let told = spawn("log", move || {
                if !host.update_log_dir(number) {
                    lost(&theirs);
                }
            });
            if told.is_err() {
                lost(handler);
            }
        }
    }

    /// Ends all handlers, unless there are devices that they did not close.
    pub fn destroy(&self) {
        thread::scope(|scope| {
            for host in &self.hosts {
                let end = || host.end();
                if thread::Builder::new().spawn_scoped(scope, end).is_err() {
                    host.end();
                }
            }
        });
        if exports::has_devices() {
            tracing::warn!("plugins are not told of the end: one has not closed its device");
            return;
        }
        self.handlers.iter().for_each(|handler| handler.destroy());
    }
}

impl Drop for Plugins {
    fn drop(&mut self) {
        self.hosts.iter().for_each(|host| host.end());
    }
}

/// Logs what was refused of a file.
fn report(file: &Path, refused: Vec<Refusal>) {
    let file = file.display();
    for refusal in refused {
        match refusal {
            Refusal::BuiltIn(_) => tracing::info!("{file}: {refusal}"),
            refusal => tracing::error!("{file}: {refusal}; the plugin is not used"),
        }
    }
}

/// The libraries of a directory, by name.
fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let is_plugin = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.as_encoded_bytes()).unwrap_or_default();
        name.starts_with(b"handler_") && name.ends_with(b".so")
    };
    let paths: io::Result<Vec<_>> =
        fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut files: Vec<_> = paths?.into_iter().filter(is_plugin).collect();
    files.sort();
    Ok(files)
}

/// Loads a library, which stays, and has it register its handlers.
fn initialize(file: &Path) -> Result<(), Refusal> {
    library::check(file).map_err(|error| Refusal::Load(error.to_string()))?;
    // The last that is told if it takes the program with it.
    tracing::info!("{}: loading it", file.display());
    // SAFETY: the library's constructors run: it is one of those that the administrator wants.
    let library = unsafe { Library::open(Some(file), RTLD_NOW | RTLD_LOCAL) };
    let library = library.map_err(|error| Refusal::Load(said(&error)))?;
    // SAFETY: what has this name in a plugin is a function of this type.
    let init: Result<Symbol<unsafe extern "C" fn() -> c_int>, _> =
        unsafe { library.get(b"handler_init\0") };
    let init = init.map_err(|_| Refusal::NoInit)?;
    // SAFETY: as above. The lock on what is being loaded is not held.
    let result = unsafe { init() };
    // Threads of it may run, and pointers to its functions are kept: it is never unloaded.
    mem::forget(library);
    if result == 0 { Ok(()) } else { Err(Refusal::Init(result)) }
}

/// What the dynamic linker said.
fn said(error: &libloading::Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), ToString::to_string)
}

/// Takes a handler that a library registers.
///
/// # Safety
/// `raw` is null, or points to a table whose strings are null or C strings.
pub(crate) unsafe fn register(raw: *const tcmur_handler) -> c_int {
    let refuse = |refusal: Refusal, errno: c_int| {
        match &mut *loading() {
            Some(loading) => loading.refused.push(refusal),
            None => tracing::error!("a plugin registers a handler, but not in handler_init"),
        }
        -errno
    };
    let Some(file) = loading().as_ref().map(|loading| loading.file.clone()) else {
        return refuse(Refusal::NoTable, libc::EPERM);
    };
    // SAFETY: the caller says so.
    let handler = match unsafe { Handler::copy(raw, &file) } {
        Ok(handler) => handler,
        Err(refusal) => return refuse(refusal, libc::EINVAL),
    };
    let subtype = handler.subtype().to_owned();
    let taken = loading().as_ref().and_then(|loading| loading.taken_by(&subtype));
    match taken {
        Some(true) => return refuse(Refusal::BuiltIn(subtype), libc::EEXIST),
        Some(false) => return refuse(Refusal::Taken(subtype), libc::EEXIST),
        None => {}
    }
    // It may register another handler from here.
    if let Err(error) = handler.init() {
        return refuse(Refusal::HandlerInit { subtype, error }, libc::EIO);
    }
    if let Some(loading) = &mut *loading() {
        loading.registered.push(handler);
    }
    0
}

impl Loading {
    /// Whether a subtype is taken, and if so, whether it is built in.
    fn taken_by(&self, subtype: &str) -> Option<bool> {
        if self.registered.iter().any(|handler| handler.subtype() == subtype) {
            return Some(false);
        }
        self.taken.iter().find(|(taken, _)| taken == subtype).map(|&(_, built_in)| built_in)
    }
}
