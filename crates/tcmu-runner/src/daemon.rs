// SPDX-License-Identifier: Apache-2.0
//! The daemon from start to end: sets everything up, each part before anybody can ask for it, then
//! runs the main loop.
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, thread};

use block::OpenOptions;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tcmu::module::Module;
use tcmu::uio::Sysfs;
use tcmu::{Configfs, Netlink};
use tcmu_conf::Watch;
use tcmu_plugin::Plugins;

use crate::backing_dirs::BackingDirs;
use crate::cli::Cli;
use crate::config::{self, Config};
use crate::crit;
use crate::dbus::{self, Handlers};
use crate::device::Device;
use crate::events::{self, Event, Receiver, Sender};
use crate::lock::{self, Lock};
use crate::logging::{Level, Log, Style};
use crate::manager::{Limits, Manager, Options};
use crate::memory;
use crate::plugins;
use crate::signals::{Signal, Signals};
use crate::status;
use crate::status::server::Reporter;

/// How long the start waits for the D-Bus name, once all else is there.
const BUS_TIME: Duration = Duration::from_millis(500);
/// How long the start waits for processes of a predecessor's plugins to end.
const PLUGINS_TIME: Duration = Duration::from_secs(15);
/// How long the end waits for the log.
const LOG_TIME: Duration = Duration::from_secs(2);
/// What the process ends with.
const SUCCESS: i32 = 0;
/// The same, when it could not serve.
const FAILURE: i32 = 1;
/// After an error of netlink, before it is read again.
const NETLINK_PAUSE: Duration = Duration::from_millis(100);

/// The environment variable for the directory of the log file.
pub const LOG_DIR_VARIABLE: &str = "TCMU_LOGDIR";
/// The directory of the log file when nobody says otherwise.
pub const LOG_DIR: &str = "/var/log";

/// Runs the daemon until it is told to stop, and ends the process.
pub fn run(cli: &Cli) -> ! {
    // Before the first thread, which inherits the mask.
    let signals = Signals::new();
    memory::prepare();
    let settings = Settings::new(cli);
    let log = match Log::start(settings.level(&Config::default()), Some(Style::of_stderr())) {
        Ok(log) => log,
        Err(error) => {
            writeln!(io::stderr(), "tcmu-runner: cannot start a thread: {error}").ok();
            tcmu_plugin::end(FAILURE);
        }
    };
    log.install();
    log_panics();
    log_exits(&log);
    let result = serve(&settings, &log, signals);
    match &result {
        Ok(()) => crit!("stopped"),
        Err(reason) => crit!("cannot serve: {reason}"),
    }
    log.flush(LOG_TIME);
    tcmu_plugin::end(if result.is_ok() { SUCCESS } else { FAILURE })
}

fn serve(settings: &Settings, log: &Log, signals: io::Result<Signals>) -> Result<(), String> {
    let watch = Watch::new(Path::new(config::PATH));
    let mut configuration = Configuration::default();
    configuration.load(Path::new(config::PATH));
    settings.apply(&configuration.config, log);
    crit!("starting tcmu-runner {}", env!("CARGO_PKG_VERSION"));
    configuration.report();
    if let Err(error) = &watch {
        tracing::warn!("changes of {} will go unnoticed: {error}", config::PATH);
    }
    let signals = signals.map_err(|error| format!("signals: {error}"))?;
    let lock = Lock::take(Path::new(lock::PATH)).map_err(|error| error.to_string())?;
    // They may have images open.
    lock.wait_for_plugins(PLUGINS_TIME).map_err(|error| error.to_string())?;
    set_file_limit(settings.cli.nofile);

    // D-Bus lists them, and the first device may need one.
    let directory = settings.cli.handler_path.as_deref().unwrap_or(Path::new(plugins::DIRECTORY));
    let plugins = Arc::new(plugins::load(directory, &configuration.config, lock.file()));
    let backing_dirs = BackingDirs::default();
    backing_dirs.set(configuration.config.backing_dirs.clone());
    // Early, as connecting takes time: it goes on while the module is loaded.
    let handlers = Arc::new(Handlers::new(plugins::handlers(&plugins)));
    let (sender, receiver) = events::queue().map_err(|error| error.to_string())?;
    let reporter = Arc::new(Reporter::new(sender.clone()));
    let bus = start_dbus(handlers.clone(), plugins.clone(), backing_dirs.clone(), &reporter);
    let subtypes = handlers.all().into_iter().map(|handler| handler.subtype).collect();
    let hint = |error: tcmu::Error| format!("{error}. \"tcmu-runner check\" tells more");
    let module = Module::default();
    module.load().map_err(hint)?;
    let netlink = open_netlink(&module).map_err(hint)?;
    status::server::start(&reporter, configuration.config.metrics.as_ref());

    // The kernel's messages queue up from here on. The name comes next, so that targetcli does not
    // wait for devices; devices come last.
    if bus.is_some_and(|bus| bus.own_name(BUS_TIME).is_none()) {
        tracing::info!("the D-Bus name {} is not owned yet; opening devices meanwhile", dbus::NAME);
    }
    let options = Options {
        sysfs: Sysfs::default(),
        configfs: Configfs::default(),
        subtypes,
        plugins: plugins.clone(),
        elsewhere: Box::new(move |netlink, subtype| {
            Ok(handlers.has_external(subtype) || netlink.has_other_listeners()?)
        }),
        backing_dirs: backing_dirs.clone(),
        limits: Limits::default(),
        backend: io_engine::Backend::Auto,
    };
    let start = Box::new(|spec, events: Sender| Ok(Box::new(Device::start(spec, events)?) as _));
    let mut manager = Manager::new(options, netlink, sender, start);
    manager.scan();
    tracing::info!("ready, with {} devices", manager.len());

    let watch = watch.ok();
    // Images that are not there yet are tried again without it, too.
    let mounts = File::open("/proc/self/mountinfo").ok();
    let mut main = Main {
        settings,
        log,
        configuration,
        manager,
        plugins: plugins.clone(),
        signals,
        receiver,
        backing_dirs,
        watch,
        mounts,
    };
    main.run().map_err(|error| error.to_string())?;
    plugins.destroy();
    Ok(())
}

/// What the main loop works with.
struct Main<'a> {
    settings: &'a Settings,
    log: &'a Log,
    configuration: Configuration,
    manager: Manager,
    plugins: Arc<Plugins>,
    signals: Signals,
    receiver: Receiver,
    backing_dirs: BackingDirs,
    watch: Option<Watch>,
    /// The mount table.
    mounts: Option<File>,
}

impl Main<'_> {
    fn run(&mut self) -> io::Result<()> {
        let mut ending = false;
        while !(ending && self.manager.is_empty()) {
            if self.wait()? {
                self.manager.retry();
            }
            while let Some(signal) = self.signals.next() {
                match signal {
                    Signal::Reopen => {
                        self.log.reopen();
                        tracing::info!("SIGHUP: the log file was reopened");
                        self.manager.retry();
                    }
                    Signal::Stop if ending => {}
                    Signal::Stop => {
                        tracing::info!("stopping; closing {} devices", self.manager.len());
                        ending = true;
                        self.manager.shut_down();
                    }
                }
            }
            if let Err(error) = self.manager.on_netlink() {
                tracing::error!("{error}");
                thread::sleep(NETLINK_PAUSE);
            }
            for event in self.receiver.drain() {
                match event {
                    Event::Device(event) => self.manager.on_device(event),
                    // Who asked may have gone.
                    Event::Report(to) => drop(to.try_send(self.manager.report())),
                }
            }
            self.manager.tick(Instant::now());
            if self.watch.as_ref().is_some_and(Watch::drain) {
                self.reload();
            }
        }
        Ok(())
    }

    /// Waits until there is something to do; returns whether something was mounted.
    fn wait(&self) -> io::Result<bool> {
        let netlink = self.manager.netlink();
        let fds = [self.signals.as_fd(), netlink, self.receiver.as_fd()];
        let fds = fds.into_iter().chain(self.watch.as_ref().map(AsFd::as_fd));
        let mut fds: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        // The kernel tells of a change of the mount table once, as an exception
        // (proc_pid_mounts(5)).
        let mounts = self.mounts.iter();
        fds.extend(mounts.map(|mounts| PollFd::new(mounts, PollFlags::PRI)));
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        let timeout = self.manager.deadline().map(|at| left(at) + Duration::from_millis(1));
        let timeout = timeout.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {
                let mounts = fds.last().filter(|_| self.mounts.is_some());
                Ok(mounts.is_some_and(|fd| fd.revents().contains(PollFlags::PRI)))
            }
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn reload(&mut self) {
        let changes = self.configuration.load(Path::new(config::PATH));
        self.configuration.report();
        if changes.is_empty() {
            return;
        }
        let other_dir = self.settings.apply(&self.configuration.config, self.log);
        self.plugins.log_changed();
        if other_dir {
            self.plugins.update_log_dir();
        }
        self.backing_dirs.set(self.configuration.config.backing_dirs.clone());
        crit!("{} has changed: {}", config::PATH, changes.join("; "));
    }
}

/// The configuration file: what it said last.
#[derive(Default)]
struct Configuration {
    config: Config,
    /// The file's content.
    text: Option<Vec<u8>>,
    problems: Vec<String>,
}

impl Configuration {
    /// Reads the file; returns what has changed. A file that cannot be read changes nothing.
    fn load(&mut self, path: &Path) -> Vec<String> {
        match config::read(path) {
            Ok(text) if self.text.as_ref() == Some(&text) => Vec::new(),
            Ok(text) => {
                // The first time, nothing was read that could stay.
                let (unread, known) = (Config::unread(), self.text.is_some());
                let (new, problems) =
                    config::parse(&text, if known { &self.config } else { &unread });
                let problem = |problem| format!("{}: {problem}", path.display());
                self.problems.extend(problems.into_iter().map(problem));
                let changes = config::changes(&self.config, &new);
                (self.config, self.text) = (new, Some(text));
                changes
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) if self.text.is_some() => {
                let text = format!("{}: {error}; all settings stay", path.display());
                self.problems.push(text);
                Vec::new()
            }
            Err(error) => {
                let text = "the defaults hold, but no backing file is opened until it can be read";
                self.problems.push(format!("{}: {error}; {text}", path.display()));
                self.config = Config::unread();
                Vec::new()
            }
        }
    }

    /// Logs what was wrong with it. Apart from reading, for the file says where the log goes.
    fn report(&mut self) {
        for problem in self.problems.drain(..) {
            tracing::error!("{problem}");
        }
    }
}

/// The directory of the log file, unless the configuration file says otherwise.
pub fn log_dir(cli: &Cli) -> PathBuf {
    let variable = std::env::var_os(LOG_DIR_VARIABLE).filter(|dir| !dir.is_empty());
    let asked = cli.tcmu_log_dir.clone().or(variable.map(PathBuf::from));
    asked.unwrap_or_else(|| LOG_DIR.into())
}

/// What holds besides the configuration file, which wins over it.
struct Settings {
    cli: Cli,
    log_dir: PathBuf,
}

impl Settings {
    fn new(cli: &Cli) -> Settings {
        Settings { cli: cli.clone(), log_dir: log_dir(cli) }
    }

    fn level(&self, config: &Config) -> Level {
        let usual = if self.cli.debug { Level::DebugScsiCmd } else { Level::Info };
        config.log_level.unwrap_or(usual)
    }

    /// Whether log files go to another directory from now on.
    fn apply(&self, config: &Config, log: &Log) -> bool {
        log.set_level(self.level(config));
        let directory = config.log_dir.clone().unwrap_or_else(|| self.log_dir.clone());
        let other = plugins::set_log_dir(&directory);
        log.set_directory(directory);
        other
    }
}

fn start_dbus(
    handlers: Arc<Handlers>,
    plugins: Arc<Plugins>,
    backing_dirs: BackingDirs,
    reporter: &Arc<Reporter>,
) -> Option<dbus::Starting> {
    let check = Arc::new(move |config: &str| check_config(&plugins, &backing_dirs, config));
    let reporter = reporter.clone();
    let report = Arc::new(move || reporter.json());
    let options = dbus::Options { address: None, handlers, check, report };
    let started = dbus::start(options);
    started.inspect_err(|error| tracing::error!("no D-Bus service: {error}")).ok()
}

/// Checks a configuration string before a device is made with it. May block.
fn check_config(plugins: &Plugins, backing_dirs: &BackingDirs, config: &str) -> Result<(), String> {
    if let Some((before, _)) = config.split_once(',') {
        return Err(format!(
            "{config}: the kernel takes a configuration string only up to its first comma: this \
             one would become {before}. Give the image a name without a comma, or a link with such \
             a name"
        ));
    }
    plugins::check(plugins, config).unwrap_or_else(|| {
        let options =
            OpenOptions { allowed_backing_dirs: backing_dirs.get(), ..Default::default() };
        block::check(config, &options).map_err(|error| error.to_string())
    })
}

/// Ends the waits that a predecessor has left, and listens. In between, the kernel's messages are
/// blocked: enabling a device at that moment fails with EAGAIN. Otherwise its message would reach
/// nobody, and it would wait forever.
fn open_netlink(module: &Module) -> Result<Netlink, tcmu::Error> {
    let blocked = match module.set_parameter("block_netlink", "1") {
        Err(tcmu::Error::Missing(_)) => false,
        set => set.map(|()| true)?,
    };
    if !blocked {
        return Netlink::open();
    }
    let opened = module.set_parameter("reset_netlink", "1").and_then(|()| Netlink::open());
    let unblocked = module.set_parameter("block_netlink", "0");
    opened.and_then(|netlink| unblocked.map(|()| netlink))
}

/// Raises the limit of open files to what is asked for, or as far as it goes: a device needs some.
fn set_file_limit(asked: Option<u64>) {
    let old = getrlimit(Resource::Nofile);
    let new = match asked {
        Some(n) => Rlimit { current: Some(n), maximum: old.maximum.map(|max| max.max(n)) },
        None => Rlimit { current: old.maximum, maximum: old.maximum },
    };
    if let Err(error) = setrlimit(Resource::Nofile, new) {
        tracing::error!("the limit of open files cannot be raised: {error}");
    }
}

/// Panics go to the log, with their place; the thread's own code decides what ends with it.
fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or(payload.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("no message");
        let thread = thread::current();
        let name = thread.name().unwrap_or("?");
        crit!("bug: thread {name} panicked at {place}: {text}; please report it");
    }));
}

/// This program never calls exit(3): what does is a plugin.
fn log_exits(log: &Log) {
    let log = log.clone();
    tcmu_plugin::watch_exit(Box::new(move |file| {
        let file = file.map(|file| format!("{}: ", file.display())).unwrap_or_default();
        crit!(
            "{file}a plugin ended the daemon, by exit(3). Move it away, or set plugin_isolation in \
             tcmu.conf, so that it ends itself only"
        );
        log.flush(LOG_TIME);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_at_the_start_allows_no_backing_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tcmu.conf");
        let allowed = |configuration: &Configuration| configuration.config.backing_dirs.clone();
        let none = Some(Vec::new());
        let mut fresh = Configuration::default();
        fresh.load(&path);
        assert_eq!(allowed(&fresh), None, "there is no file");
        for text in ["backing_dirs =", "backing_dirs = srv", "backing_dirs = \"/srv"] {
            std::fs::write(&path, text).unwrap();
            let mut fresh = Configuration::default();
            fresh.load(&path);
            assert_eq!(allowed(&fresh), none, "{text}");
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let mut fresh = Configuration::default();
        fresh.load(&path);
        assert_eq!(allowed(&fresh), none, "the file cannot be read");
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, "log_level = 3").unwrap();
        fresh.load(&path);
        assert_eq!(allowed(&fresh), None, "then it can");
        std::fs::write(&path, "backing_dirs = /srv").unwrap();
        fresh.load(&path);
        std::fs::write(&path, "backing_dirs = srv").unwrap();
        fresh.load(&path);
        assert_eq!(allowed(&fresh), Some(vec!["/srv".into()]), "what was read before stays");
    }

    #[test]
    fn the_file_wins_over_the_command_line_and_that_over_defaults() {
        let settings =
            Settings { cli: Cli { debug: true, ..Cli::default() }, log_dir: "/cli".into() };
        assert_eq!(settings.level(&Config::default()), Level::DebugScsiCmd);
        let config = Config { log_level: Some(Level::Error), ..Config::default() };
        assert_eq!(settings.level(&config), Level::Error);
        let plain = Settings::new(&Cli::default());
        assert_eq!(plain.level(&Config::default()), Level::Info);
        let named = Settings::new(&Cli { tcmu_log_dir: Some("/x".into()), ..Cli::default() });
        assert_eq!(named.log_dir, Path::new("/x"));
    }

    #[test]
    fn a_file_that_vanishes_or_cannot_be_read_keeps_the_settings() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tcmu.conf");
        let mut configuration = Configuration::default();
        assert_eq!(configuration.load(&path), [""; 0]);
        std::fs::write(&path, "log_level = 4\nbogus\n").unwrap();
        assert_eq!(configuration.load(&path), ["log_level: default -> DEBUG"]);
        assert_eq!(configuration.problems.len(), 1);
        assert_eq!(configuration.load(&path), [""; 0]);
        assert_eq!(configuration.problems.len(), 1, "the same text is reported once");
        std::fs::write(&path, vec![b'#'; 300 << 10]).unwrap();
        assert_eq!(configuration.load(&path), [""; 0]);
        assert!(configuration.problems[1].ends_with("all settings stay"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(configuration.load(&path), [""; 0]);
        assert_eq!(configuration.config.log_level, Some(Level::Debug));
    }

    #[test]
    fn a_configuration_string_that_the_kernel_would_cut_off_is_refused_with_advice() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk,1.img");
        std::fs::write(&image, vec![0; 4096]).unwrap();
        let config = format!("file/{}", image.display());
        let plugins = Plugins::default();
        let why = check_config(&plugins, &BackingDirs::default(), &config).unwrap_err();
        assert!(why.starts_with(&config) && why.contains("first comma"), "{why}");
        assert!(
            why.contains(&format!("would become file/{}/disk.", dir.path().display())),
            "{why}"
        );
        std::fs::rename(&image, dir.path().join("disk.img")).unwrap();
        assert_eq!(
            check_config(&plugins, &BackingDirs::default(), &config.replace(",1", "")),
            Ok(())
        );
    }
}
