// SPDX-License-Identifier: Apache-2.0
//! `tcmu-runner check`: looks at what the daemon needs of this host, and says in plain words what
//! is missing and how to fix it. One table of checks; each looks and changes nothing.
use std::fmt::{Display, Write as _};
use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::{Access, access};
use tcmu::Configfs;
use tcmu::module::{self, Module};
use tcmu::uio::Sysfs;
use tcmu_plugin::Plugins;

use crate::cli::Cli;
use crate::config::{self, Config};
use crate::trial::{self, Trial};
use crate::{daemon, dbus, lock, logging, plugins, terminal};

/// What a check found.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    /// Fine; what there is.
    Good(String),
    /// The daemon works, but administrators should know.
    Note(String),
    /// The daemon cannot do its work: what is wrong, and what to do.
    Bad { what: String, fix: String },
}

use Finding::{Bad, Good, Note};

fn bad(what: impl Display, fix: impl Display) -> Finding {
    Bad { what: what.to_string(), fix: fix.to_string() }
}

/// The places that are looked at; a folder of the test's own in tests.
struct Host {
    root: PathBuf,
    log_dir: PathBuf,
    handler_path: PathBuf,
}

impl Host {
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

type Check = (&'static str, fn(&Host) -> Finding);

/// All checks, in the order in which their subjects need each other.
const CHECKS: &[Check] = &[
    ("user", user),
    ("other daemon", other_daemon),
    ("kernel module", kernel_module),
    ("netlink family", netlink_family),
    ("configfs", configfs),
    ("UIO devices", uio_devices),
    ("D-Bus", bus),
    ("D-Bus policy", policy),
    ("lock file", lock_file),
    ("configuration", configuration),
    ("log directory", log_directory),
    ("io_uring", io_uring),
    ("handlers", handlers),
    ("plugins", plugins),
];

/// Runs all checks and prints what they found; failure if the daemon cannot do its work.
pub fn run(cli: &Cli) -> ExitCode {
    let handler_path = cli.handler_path.clone().unwrap_or_else(|| plugins::DIRECTORY.into());
    let host = Host { root: "/".into(), log_dir: daemon::log_dir(cli), handler_path };
    match report(&host, CHECKS, &mut io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

fn report(host: &Host, checks: &[Check], out: &mut impl Write) -> io::Result<bool> {
    let mut missing = 0;
    for (name, check) in checks {
        let (mark, text, fix) = match check(host) {
            Good(text) => ("ok  ", text, None),
            Note(text) => ("note", text, None),
            Bad { what, fix } => {
                missing += 1;
                ("BAD ", what, Some(fix))
            }
        };
        writeln!(out, "{mark}  {name}: {}", terminal::lines(&text))?;
        if let Some(fix) = fix {
            writeln!(out, "      -> {}", terminal::lines(&fix))?;
        }
    }
    match missing {
        0 => writeln!(out, "tcmu-runner can serve devices on this host")?,
        n => writeln!(out, "fix {n} of these before tcmu-runner can serve devices on this host")?,
    }
    Ok(missing == 0)
}

fn user(_: &Host) -> Finding {
    if rustix::process::geteuid().is_root() {
        Good("root".into())
    } else {
        bad(
            "not root: netlink, configfs and /dev/uio* are closed to this user",
            "run \"sudo tcmu-runner check\"; the daemon itself is started by systemd as root",
        )
    }
}

fn other_daemon(host: &Host) -> Finding {
    match lock::held_by(&host.at(lock::PATH)) {
        None => Good("none is running".into()),
        Some(pid) => {
            let exe = fs::read_link(host.at(&format!("/proc/{pid}/exe")));
            let what = exe.map_or("a program".into(), |path| path.display().to_string());
            Note(format!(
                "{what} runs as pid {pid} and serves the devices; stop it before you start another \
                 (systemctl stop tcmu-runner)"
            ))
        }
    }
}

fn kernel_module(host: &Host) -> Finding {
    if Module::new(host.at("/sys/module"), module::NAME).is_loaded() {
        return Good(format!("{} is loaded", module::NAME));
    }
    let release = fs::read_to_string(host.at("/proc/sys/kernel/osrelease")).unwrap_or_default();
    let release = release.trim();
    let modules = host.at("/lib/modules").join(release);
    if !modules.exists() {
        return bad(
            format!("{} is not loaded, and {} is not there", module::NAME, modules.display()),
            format!(
                "install the modules of the running kernel {release} (Debian: linux-image-amd64) \
                 and boot it; in a container, load the module on the host"
            ),
        );
    }
    let names = ["modules.dep", "modules.builtin"].map(|file| modules.join(file));
    let is_there = names
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .any(|text| text.contains(module::NAME));
    if is_there {
        Note(format!("{} is not loaded; the daemon loads it when it starts", module::NAME))
    } else {
        bad(
            format!("the kernel {release} has no module {}", module::NAME),
            "use a kernel with CONFIG_TCM_USER2 (Debian: linux-image-amd64, not the cloud variant)",
        )
    }
}

fn netlink_family(host: &Host) -> Finding {
    if !Module::new(host.at("/sys/module"), module::NAME).is_loaded() {
        return Note("cannot be asked for before the kernel module is loaded".into());
    }
    match tcmu::Netlink::probe() {
        Ok(()) => Good("TCM-USER is there".into()),
        Err(error) => bad(
            error,
            "netlink of the kernel's target belongs to the host's network namespace: run the \
             daemon there, with CAP_NET_ADMIN",
        ),
    }
}

fn configfs(host: &Host) -> Finding {
    let path = host.at("/sys/kernel/config");
    let target = path.join("target");
    if Configfs::new(&target).exists() {
        Good(format!("{} is there", target.display()))
    } else if fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some()) {
        Note("mounted, without the target, which comes with the kernel module".into())
    } else {
        let mounts = fs::read_to_string(host.at("/proc/mounts")).unwrap_or_default();
        if mounts.lines().any(|line| line.split(' ').nth(2) == Some("configfs")) {
            Note("mounted and empty; the target comes with the kernel module".into())
        } else {
            bad("not mounted", "mount -t configfs configfs /sys/kernel/config")
        }
    }
}

fn uio_devices(host: &Host) -> Finding {
    match Sysfs::new(host.at("/sys/class/uio"), host.at("/dev")).scan() {
        Err(error) => bad(error, "see that /sys is mounted and readable"),
        Ok(devices) => {
            let missing = devices.iter().find(|device| !device.path.exists());
            match missing {
                Some(device) => bad(
                    format!("{} is not there", device.path.display()),
                    "see that /dev is a devtmpfs; in a container, pass the host's /dev into it",
                ),
                None => Good(format!("{} of TCM-User", devices.len())),
            }
        }
    }
}

fn bus(host: &Host) -> Finding {
    let socket = host.at("/run/dbus/system_bus_socket");
    match UnixStream::connect(&socket) {
        Ok(_) => Good("the system bus answers".into()),
        Err(error) => bad(
            format!("{}: {error}: targetcli will not find the handlers", socket.display()),
            "install the package dbus and start it: systemctl start dbus",
        ),
    }
}

/// Directories of policies.
const POLICY_DIRS: [&str; 3] =
    ["/etc/dbus-1/system.d", "/usr/share/dbus-1/system.d", "/usr/local/share/dbus-1/system.d"];

fn policy(host: &Host) -> Finding {
    let own = format!("own=\"{}\"", dbus::NAME);
    let mut found = None;
    for directory in POLICY_DIRS {
        let Ok(entries) = fs::read_dir(host.at(directory)) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let text = fs::read_to_string(&path).unwrap_or_default();
            if is_open_to_all(&text) {
                return Note(format!(
                    "{}: every user may make the daemon open any path, and register handlers; \
                     copy dist/dbus-1/tcmu-runner.conf over it, then: systemctl reload dbus",
                    path.display()
                ));
            }
            if text.contains(&own) {
                found = Some(path);
            }
        }
    }
    found.map_or_else(
        || {
            bad(
                format!("no policy allows root to own {}", dbus::NAME),
                "copy dist/dbus-1/tcmu-runner.conf to /etc/dbus-1/system.d/, then: systemctl \
                 reload dbus",
            )
        },
        |path| Good(path.display().to_string()),
    )
}

/// Whether a policy lets everybody call all methods, as the C daemon's does.
fn is_open_to_all(policy: &str) -> bool {
    let all_methods = format!("<allow send_destination=\"{}\"/>", dbus::NAME);
    let mut sections = policy.split("<policy context=\"default\">").skip(1);
    sections.any(|section| section.split("</policy>").next().unwrap_or("").contains(&all_methods))
}

fn lock_file(host: &Host) -> Finding {
    let run = host.at(lock::PATH);
    let run = run.parent().unwrap_or(Path::new("/"));
    match access(run, Access::WRITE_OK) {
        Ok(()) => Good(format!("{} is writable", run.display())),
        Err(errno) => {
            bad(format!("{}: {errno}", run.display()), "make it writable for root (a tmpfs)")
        }
    }
}

fn configuration(host: &Host) -> Finding {
    let path = host.at(config::PATH);
    match config::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Good(format!("{} is not there; defaults apply", path.display()))
        }
        Err(error) => bad(format!("{}: {error}", path.display()), "see tcmu.conf(5)"),
        Ok(text) => {
            let (parsed, problems) = config::parse(&text, &Config::unread());
            let lines: Vec<_> = problems.iter().map(|p| format!("{ITEM}{p}")).collect();
            match &problems[..] {
                [] => match plugins::unknown_first(&parsed) {
                    None => Good(path.display().to_string()),
                    Some(problem) => Note(format!("{}: {problem}", path.display())),
                },
                [problem] => bad(format!("{}: {problem}", path.display()), "see tcmu.conf(5)"),
                _ => bad(format!("{}:{}", path.display(), lines.concat()), "see tcmu.conf(5)"),
            }
        }
    }
}

fn log_directory(host: &Host) -> Finding {
    let text = config::read(&host.at(config::PATH)).unwrap_or_default();
    let configured = config::parse(&text, &Config::default()).0.log_dir;
    let configured = configured.unwrap_or_else(|| host.log_dir.clone());
    let relative = configured.is_relative();
    let directory = if relative { configured } else { host.at(&configured.to_string_lossy()) };
    // The daemon makes it, and what leads to it.
    let here = Path::new(".");
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(here);
    let usable = match existing.is_dir() {
        true => access(existing, Access::WRITE_OK),
        false => Err(rustix::io::Errno::NOTDIR),
    };
    let file = directory.join(logging::FILE);
    match usable {
        Ok(()) if relative => {
            Note(format!("{}, below the directory that the daemon starts in", file.display()))
        }
        Ok(()) => Good(file.display().to_string()),
        Err(errno) => Note(format!(
            "{}: {errno}: there will be no log file, only stderr and the journal",
            existing.display()
        )),
    }
}

fn io_uring(host: &Host) -> Finding {
    let uses = io_engine::Engine::new(io_engine::Backend::Auto).map(|engine| engine.backend());
    match uses {
        Ok(io_engine::Backend::Pool) => {
            let switch = "/proc/sys/kernel/io_uring_disabled";
            let value = fs::read_to_string(host.at(switch)).unwrap_or_default();
            let why = match value.trim() {
                "1" | "2" => "sysctl kernel.io_uring_disabled is set",
                _ => "the kernel or a seccomp filter refuses it",
            };
            Note(format!("not usable ({why}); a pool of threads does the I/O, more slowly"))
        }
        Ok(_) => Good("usable".into()),
        Err(error) => bad(error, "raise the limits of open files and threads"),
    }
}

fn handlers(_: &Host) -> Finding {
    let names: Vec<_> = block::SUBTYPES.iter().map(|subtype| subtype.name).collect();
    Good(names.join(", "))
}

/// What a plugin's line begins with, under the line of the check.
const ITEM: &str = "\n      ";

fn plugins(host: &Host) -> Finding {
    let directory = host.at(&host.handler_path.to_string_lossy());
    let files = match Plugins::files(&directory) {
        Ok(files) => files,
        // That of the package is not there where it is not installed.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                && host.handler_path == Path::new(plugins::DIRECTORY) =>
        {
            Vec::new()
        }
        Err(error) => return Note(format!("none: {}: {error}", directory.display())),
    };
    if files.is_empty() {
        return Good(format!("none in {}", directory.display()));
    }
    let text = config::read(&host.at(config::PATH)).unwrap_or_default();
    let config = config::parse(&text, &Config::default()).0;
    let tried: Vec<_> = files
        .iter()
        .map(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            (trial::line(&name), trial::try_file(file, &config))
        })
        .collect();
    let text = format!("{} in {}{}", tried.len(), directory.display(), described(&tried));
    match tried.iter().all(|(_, trial)| trial.refused.is_empty()) {
        true => Good(text),
        false => Note(text),
    }
}

/// What plugins would serve, in the order in which they are loaded: a subtype is the first one's.
fn described(tried: &[(String, Trial)]) -> String {
    let mut text = String::new();
    let mut taken: Vec<(&str, &str)> = Vec::new();
    for (file, trial) in tried {
        let used = trial.used.iter().map(|subtype| {
            let by = taken.iter().find(|(other, _)| other == subtype).map(|(_, file)| *file);
            let is_built_in = block::SUBTYPES.iter().any(|built_in| built_in.name == subtype);
            taken.push((subtype, file));
            match by {
                Some(other) => format!("{subtype} is not used: {other} has it already"),
                None if is_built_in => format!("{subtype}, in the place of what is built in"),
                None => subtype.clone(),
            }
        });
        let mut parts: Vec<_> = used.collect();
        parts.extend(trial.later.iter().cloned());
        parts.extend(trial.refused.iter().map(|why| format!("it is not used: {why}")));
        let _ = write!(text, "{ITEM}{file}: {}", parts.join("; "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let host = Host {
            root: root.path().into(),
            log_dir: "/var/log".into(),
            handler_path: "/plugins".into(),
        };
        (root, host)
    }

    fn write(host: &Host, path: &str, text: &str) {
        let path = host.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_bare_host_lacks_module_configfs_bus_and_policy() {
        let (_root, host) = host();
        write(&host, "/proc/sys/kernel/osrelease", "6.1.0-x\n");
        for (check, word) in [
            (kernel_module as fn(&Host) -> Finding, "6.1.0-x"),
            (configfs, "mount -t configfs"),
            (bus, "systemctl start dbus"),
            (policy, "/etc/dbus-1/system.d/"),
        ] {
            let finding = check(&host);
            let Bad { what, fix } = &finding else { panic!("{finding:?}") };
            assert!(format!("{what} {fix}").contains(word), "{finding:?}");
        }
    }

    #[test]
    fn what_is_there_is_found() {
        let (_root, host) = host();
        write(&host, "/sys/module/target_core_user/version", "");
        write(&host, "/sys/kernel/config/target/core/x", "");
        write(
            &host,
            "/etc/dbus-1/system.d/tcmu-runner.conf",
            include_str!("../../../dist/dbus-1/tcmu-runner.conf"),
        );
        write(&host, "/run/x", "");
        write(&host, "/var/log/x", "");
        for check in [kernel_module, configfs, policy, lock_file, uio_devices, configuration] {
            let finding = check(&host);
            assert!(matches!(finding, Good(_)), "{finding:?}");
        }
        assert!(matches!(log_directory(&host), Good(path) if path.ends_with("/tcmu-runner.log")));
    }

    #[test]
    fn a_policy_that_lets_everybody_in_is_noted() {
        let (_root, host) = host();
        let ours = include_str!("../../../dist/dbus-1/tcmu-runner.conf");
        write(&host, "/usr/share/dbus-1/system.d/tcmu-runner.conf", ours);
        // The C daemon's.
        let theirs = "<busconfig><policy user=\"root\"><allow own=\"org.kernel.TCMUService1\"/>\
                      </policy><policy context=\"default\">\
                      <allow send_destination=\"org.kernel.TCMUService1\"/></policy></busconfig>";
        write(&host, "/etc/dbus-1/system.d/old.conf", theirs);
        let finding = policy(&host);
        assert!(matches!(&finding, Note(text) if text.contains("old.conf")), "{finding:?}");
    }

    #[test]
    fn a_module_that_can_be_loaded_is_no_fault_and_one_that_does_not_exist_is() {
        let (_root, host) = host();
        write(&host, "/proc/sys/kernel/osrelease", "6.1\n");
        write(&host, "/lib/modules/6.1/modules.dep", "kernel/fs/xfs.ko:\n");
        assert!(matches!(kernel_module(&host), Bad { .. }));
        write(&host, "/lib/modules/6.1/modules.dep", "kernel/x/target_core_user.ko: a.ko\n");
        assert!(matches!(kernel_module(&host), Note(_)));
    }

    #[test]
    fn plugins_are_told_with_what_is_used_of_them() {
        let (_root, host) = host();
        assert!(matches!(plugins(&host), Note(text) if text.starts_with("none: ")));
        let of = |used: &[&str], later: &[&str], refused: &[&str]| {
            let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
            Trial { used: own(used), later: own(later), refused: own(refused) }
        };
        let tried = [
            ("a.so".to_owned(), of(&["zbc", "qcow"], &[], &[])),
            ("b.so".to_owned(), of(&["zbc"], &["the subtype file is built in"], &[])),
            ("c.so".to_owned(), of(&[], &[], &["it does not load"])),
        ];
        let expected = "
      a.so: zbc; qcow, in the place of what is built in
      b.so: zbc is not used: a.so has it already; the subtype file is built in
      c.so: it is not used: it does not load";
        assert_eq!(described(&tried), expected);
    }

    #[test]
    fn a_bad_line_of_the_configuration_is_shown() {
        let (_root, host) = host();
        write(&host, config::PATH, "\nlog_level = 9\n");
        let finding = configuration(&host);
        assert!(matches!(&finding, Bad { what, .. } if what.contains("line 2")), "{finding:?}");
    }

    #[test]
    fn a_subtype_that_plugins_first_cannot_mean_is_shown() {
        let (_root, host) = host();
        write(&host, config::PATH, "plugins_first = \"qcow:QCOW\"\n");
        let finding = configuration(&host);
        let told = "plugins_first names no subtype that is built in: QCOW; those are file, ";
        assert!(matches!(&finding, Note(text) if text.contains(told)), "{finding:?}");
    }

    #[test]
    fn what_moves_a_cursor_is_not_in_the_report() {
        let (_root, host) = host();
        let checks: &[Check] = &[("one", |_| bad("a\u{1b}[2Jb", "c\u{7}"))];
        let mut out = Vec::new();
        report(&host, checks, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("BAD   one: a[2Jb\n      -> c\n"), "{text}");
    }

    #[test]
    fn the_report_names_each_check_and_fails_if_one_does() {
        let (_root, host) = host();
        let checks: &[Check] = &[
            ("one", |_| Good("fine".into())),
            ("two", |_| Note("well".into())),
            ("three", |_| bad("broken", "fix it")),
        ];
        let mut out = Vec::new();
        assert!(!report(&host, checks, &mut out).unwrap());
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "ok    one: fine\nnote  two: well\nBAD   three: broken\n      -> fix it\n\
             fix 1 of these before tcmu-runner can serve devices on this host\n"
        );
        assert!(report(&host, &checks[..2], &mut Vec::new()).unwrap());
    }
}
