// SPDX-License-Identifier: Apache-2.0
//! Plugins: handlers written in C, loaded when the daemon starts. What they log goes to our log;
//! this is where their directory, their log and the names for D-Bus come from.
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tcmu_abi::log::{Level, Sink};
use tcmu_plugin::{Handler, Isolation, Plugins, Refusal, config, isolation};
use tracing::level_filters::LevelFilter;

use crate::config::Config;
use crate::{crit, dbus, memory};

/// Where plugins are, unless the command line says otherwise: where Debian's are.
pub const DIRECTORY: &str = if cfg!(target_arch = "x86_64") {
    "/usr/lib/x86_64-linux-gnu/tcmu-runner"
} else if cfg!(target_arch = "aarch64") {
    "/usr/lib/aarch64-linux-gnu/tcmu-runner"
} else {
    "/usr/lib/tcmu-runner"
};

/// The directory of log files, of which plugins may have some of their own.
static LOG_DIR: Mutex<Option<PathBuf>> = Mutex::new(None);

fn log_dir() -> MutexGuard<'static, Option<PathBuf>> {
    LOG_DIR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The log, as plugins write to it.
struct PluginLog;

impl Sink for PluginLog {
    fn level(&self) -> Level {
        LevelFilter::current().into_level().map_or(Level::Crit, Level::of)
    }

    fn set_level(&self, level: Level) {
        tracing::debug!("a plugin wants the log level {level:?}: tcmu.conf decides");
    }

    fn directory(&self) -> PathBuf {
        log_dir().clone().unwrap_or_default()
    }

    fn log(
        &self,
        level: Level,
        device: Option<&tcmu_abi::Device>,
        function: &str,
        line: i32,
        text: &str,
    ) {
        let device =
            device.map(|device| format!("user_{}/{}: ", device.name().hba, device.name().name));
        let text = format!("{}{function}:{line}: {text}", device.unwrap_or_default());
        match level {
            Level::Crit => crit!("{text}"),
            Level::Error => tracing::error!("{text}"),
            Level::Warning => tracing::warn!("{text}"),
            Level::Info => tracing::info!("{text}"),
            Level::Debug => tracing::debug!("{text}"),
            Level::DebugScsiCmd => tracing::trace!("{text}"),
        }
    }
}

/// Tells plugins where log files go; whether that is another directory.
pub(crate) fn set_log_dir(directory: &Path) -> bool {
    log_dir().replace(directory.into()).is_some_and(|before| before != directory)
}

/// This program, also after its file was replaced.
const PROGRAM: &str = "/proc/self/exe";
/// The command of a plugin's process.
const PROCESS: &str = "plugin-process";

/// How long a plugin may take to load that is only tried.
const TRIAL: Duration = Duration::from_secs(10);

/// How processes of plugins are started.
fn isolation() -> Isolation {
    Isolation::new(PROGRAM, vec![PROCESS.into()])
}

/// Makes this program one that plugins can be loaded into.
fn prepare() {
    tcmu_abi::keep();
    tcmu_plugin::keep();
    if tcmu_abi::log::install(Box::new(PluginLog)).is_err() {
        tracing::debug!("what plugins log goes to another log");
    }
}

/// The subtypes that no plugin gets: those built in, but for which the configuration puts the plugin
/// first.
fn built_in(config: &Config) -> Vec<&'static str> {
    let first = config.plugins_first.as_deref().unwrap_or_default();
    let all = block::SUBTYPES.iter().map(|subtype| subtype.name);
    all.filter(|name| !first.iter().any(|first| first == name)).collect()
}

/// What is wrong with the configuration's plugins_first: names that are none of a built-in subtype.
pub(crate) fn unknown_first(config: &Config) -> Option<String> {
    let is_built_in = |name: &String| block::SUBTYPES.iter().any(|subtype| subtype.name == name);
    let first = config.plugins_first.iter().flatten();
    let unknown: Vec<_> = first
        .filter(|name| !is_built_in(name))
        .map(|name| name.escape_debug().to_string())
        .collect();
    let known: Vec<_> = block::SUBTYPES.iter().map(|subtype| subtype.name).collect();
    (!unknown.is_empty()).then(|| {
        format!(
            "plugins_first names no subtype that is built in: {}; those are {}",
            unknown.join(", "),
            known.join(", ")
        )
    })
}

/// Loads the plugins of a directory, but for subtypes that are built in and come first. Those in
/// processes of their own hold the lock file open.
pub(crate) fn load(directory: &Path, config: &Config, lock: Arc<File>) -> Plugins {
    prepare();
    if let Some(problem) = unknown_first(config) {
        tracing::warn!("tcmu.conf: {problem}");
    }
    let built_in = built_in(config);
    if config.plugin_isolation != Some(true) {
        return Plugins::load(directory, &built_in);
    }
    let isolation = Isolation { lock: Some(lock), ..isolation() };
    Plugins::load_isolated(directory, &built_in, &isolation)
}

/// Loads one plugin into a process of its own, for those who want to know what is in it; what of it
/// is not used, and why. What it writes is not seen.
pub(crate) fn try_file(file: &Path, config: &Config) -> (Plugins, Vec<Refusal>) {
    let isolation = Isolation { load_time: TRIAL, output: false, ..isolation() };
    Plugins::try_file(file, &built_in(config), &isolation)
}

/// Is the process of a plugin.
pub fn run_process(file: &Path) -> ExitCode {
    memory::prepare();
    tcmu_abi::keep();
    tcmu_plugin::keep();
    if let Err(why) = isolation::process::run(file) {
        writeln!(io::stderr(), "tcmu-runner {PROCESS}: {why}").ok();
    }
    ExitCode::FAILURE
}

/// The handlers that are there, as D-Bus shows them: those built in, and those of plugins, which
/// stand in the place of a built-in one where there is one.
pub fn handlers(plugins: &Plugins) -> Vec<dbus::Handler> {
    let of_plugin = |handler: &Handler| dbus::Handler {
        subtype: handler.subtype().to_owned(),
        description: handler.description().to_owned(),
    };
    let built_in = |subtype: &block::Subtype| dbus::Handler {
        subtype: subtype.name.to_owned(),
        description: subtype.description(),
    };
    let ours = block::SUBTYPES.iter().filter(|subtype| plugins.find(subtype.name).is_none());
    let theirs = plugins.handlers().iter().map(|handler| of_plugin(handler));
    ours.map(built_in).chain(theirs).collect()
}

/// Checks a configuration string of a plugin's subtype; `None`: it is none. May block.
pub(crate) fn check(plugins: &Plugins, config: &str) -> Option<Result<(), String>> {
    let (subtype, _) = config.split_once('/')?;
    let handler = plugins.find(subtype)?;
    Some(config::split(config).and_then(|(config, _)| handler.check_config(&config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_plugins_every_handler_has_a_name_that_fits_a_bus_and_a_description() {
        let all = handlers(&Plugins::default());
        assert!(all.iter().any(|handler| handler.subtype == "file"));
        for handler in all {
            assert!(!handler.description.is_empty());
            assert!(handler.subtype.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        }
    }

    #[test]
    fn the_command_of_a_plugins_process_is_one_that_the_program_knows() {
        use clap::Parser;
        let cli = crate::cli::Cli::try_parse_from(["tcmu-runner", PROCESS, "/x.so"]).unwrap();
        let file = "/x.so".into();
        assert_eq!(cli.command, Some(crate::cli::Command::PluginProcess { file }));
    }

    #[test]
    fn a_directory_of_logs_is_another_one_only_after_the_first() {
        assert!(!set_log_dir(Path::new("/a")));
        assert!(!set_log_dir(Path::new("/a")));
        assert!(set_log_dir(Path::new("/b")));
        assert_eq!(PluginLog.directory(), Path::new("/b"));
    }
}
