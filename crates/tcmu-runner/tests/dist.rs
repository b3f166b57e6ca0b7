// SPDX-License-Identifier: Apache-2.0
//! The files that are installed with the program agree with it: names, paths, options, keys.
//! Files that are made from the program's tables are compared, or with UPDATE_DIST=1 written.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "../../../tests/synopsis.rs"]
mod synopsis;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use synopsis::synopsis;
use tcmu_runner::cli::Cli;
use tcmu_runner::{config, daemon, dbus, lock, logging, plugins, status};

fn dist(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(dist(path)).unwrap_or_else(|e| panic!("dist/{path}: {e}"))
}

#[track_caller]
fn is_current(path: &str, text: &str) {
    if std::env::var_os("UPDATE_DIST").is_some() {
        fs::create_dir_all(dist(path).parent().unwrap()).unwrap();
        fs::write(dist(path), text).unwrap();
    }
    let there = fs::read_to_string(dist(path)).unwrap_or_default();
    assert!(
        there == text,
        "dist/{path} is not what the program says; run UPDATE_DIST=1 cargo test -p tcmu-runner"
    );
}

/// Text as roff: a line that begins with a period or an apostrophe would be a request.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[test]
fn the_man_page_of_the_program_is_current() {
    let command = Cli::command();
    let man = clap_mangen::Man::new(command)
        .section("8")
        .date("")
        .source(format!("tcmu-runner {}", env!("CARGO_PKG_VERSION")))
        .manual("System Manager's Manual");
    let mut page = Vec::new();
    man.render_title(&mut page).unwrap();
    man.render_name_section(&mut page).unwrap();
    page.extend(synopsis(&Cli::command()).into_bytes());
    man.render_description_section(&mut page).unwrap();
    man.render_options_section(&mut page).unwrap();
    let mut page = String::from_utf8(page).unwrap();
    page.push_str(
        ".SH COMMANDS\n.TP\n.B check\nReport what is missing on this host, and how to fix it. The \
         exit status is 1 if anything is missing. Plugins are loaded, each in a process of its own: \
         the report tells which subtypes would be theirs, and why a plugin would not be used.\n\
         .TP\n.BR status \" [\" \\-\\-json ]\nAsk the daemon that runs how it does, as root: of each \
         device its state, its size, the files that it has open, who has the exclusive lock of its \
         storage, its commands and operations, how long they waited, and what failed. With \
         \\-\\-json it is for scripts: fields are added to it, never renamed. The method GetStatus of \
         the interface org.kernel.TCMUService1.Status1 gives the same over D-Bus, and the key \
         \\fBmetrics\\fR of tcmu.conf(5) says where Prometheus finds figures. A device that hangs \
         delays no answer. The exit status is 1 if no daemon can be asked.\n\
         .SH CONFIGURATION STRINGS\n\
         The configuration string of a device is \\fISUBTYPE\\fR/\\fIREST\\fR; targetcli's \
         \\fIcfgstring\\fR is the part after the first slash. Options, \
         \\fB;\\fINAME\\fB=\\fIVALUE\\fR each, may stand at its end, or at its beginning, with \
         another semicolon after them.\n.SS SUBTYPES\n",
    );
    for handler in plugins::handlers(&tcmu_plugin::Plugins::default()) {
        write!(page, ".TP\n.B {}\n{}\n", roff(&handler.subtype), roff(&handler.description))
            .unwrap();
    }
    page.push_str(".SS OPTIONS\n");
    for option in block::OPTIONS {
        let name = roff(option.name);
        write!(page, ".TP\n\\fB;{name}=\\fI{}\\fR\n{}", option.value, roff(option.doc)).unwrap();
        if !option.subtypes.is_empty() {
            write!(page, " For {}.", option.subtypes.join(", ")).unwrap();
        }
        page.push('\n');
    }
    write!(
        page,
        ".SH WRITE CACHE\nA new device has a volatile write cache (attribute \
         \\fBemulate_write_cache\\fR), as a disk has: what an initiator has flushed, or written with \
         FUA, is on stable storage. With 0 in the attribute every write waits until it is. A device \
         that exists when the daemon starts keeps its setting.\n\
         .SH MISSING IMAGES\nEnabling a device whose image cannot be opened fails. A \
         device that exists when the daemon starts waits for its image, which may be on a file \
         system that is mounted later: it is tried again after 1 to 30 seconds, when something \
         changes in the image's directory or is mounted, and at SIGHUP. Meanwhile a command waits \
         for two thirds of the shortest of 30 seconds, the attribute \\fBcmd_time_out\\fR and the \
         option tcmur_cmd_time_out; then the initiator is told that the device is becoming ready, \
         and sends it again. Move an image that is complete to its place; do not copy it there.\n\
         .SH OTHER DAEMONS\nA device of a subtype that is neither built in nor registered over \
         D-Bus is refused with EOPNOTSUPP, unless another program listens to the kernel's netlink \
         messages: then it is left to that program.\n\
         .SH D-BUS\nOn the system bus, root and members of the group \\fBtcmu\\fR (make it with \
         \\fBgroupadd --system tcmu\\fR) may check configuration strings and register handlers. A \
         check opens any path as root and tells what is wrong with it: do not add users to \
         the group who must not know which files exist. Everybody may read introspection data and \
         properties; dist/dbus-1/examples has a policy that lets everybody list the handlers.\n\
         .SH SIGNALS\n.TP\n.B SIGTERM, SIGINT\nFlush and close all devices, and end, within 20 \
         seconds. A device whose storage does not answer is abandoned.\n.TP\n.B SIGHUP\nReopen \
         the log file, and try missing images again.\n.SH ENVIRONMENT\n.TP\n.B {}\nThe directory \
         of the log file, unless the command line or tcmu.conf names one.\n.SH EXIT STATUS\n0 after a clean end; 1 when the \
         daemon cannot start: wrong options, another daemon is running, the kernel module is \
         missing.\n.SH FILES\n",
        daemon::LOG_DIR_VARIABLE
    )
    .unwrap();
    let log = format!("{}/{}", daemon::LOG_DIR, logging::FILE);
    for (file, what) in [
        (config::PATH, "Configuration; read again when it changes."),
        (log.as_str(), "The log."),
        (lock::PATH, "Held while a daemon runs."),
        (status::SOCKET, "What \"tcmu-runner status\" asks."),
    ] {
        write!(page, ".TP\n.I {}\n{what}\n", roff(file)).unwrap();
    }
    page.push_str(".SH SEE ALSO\n.BR tcmu.conf (5),\n.BR targetcli (8),\n.BR qemu\\-img (1)\n");
    is_current("man/tcmu-runner.8", &page);
}

#[test]
fn the_completions_of_shells_are_current() {
    use clap_complete::Shell;
    for (shell, file) in [
        (Shell::Bash, "tcmu-runner.bash"),
        (Shell::Zsh, "_tcmu-runner"),
        (Shell::Fish, "tcmu-runner.fish"),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "tcmu-runner", &mut text);
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("handler-path"), "{file}");
        // The first line is zsh's.
        let first = if shell == Shell::Zsh { text.find('\n').unwrap() + 1 } else { 0 };
        let (first, rest) = text.split_at(first);
        let text = format!("{first}# SPDX-License-Identifier: Apache-2.0\n{rest}");
        is_current(&format!("completions/{file}"), &text);
    }
}

#[test]
fn the_man_page_of_the_configuration_is_current() {
    let mut page = format!(
        ".TH tcmu.conf 5 \"\" \"tcmu-runner {}\" \"File Formats Manual\"\n.SH NAME\n\
         tcmu.conf \\- configuration of tcmu\\-runner(8)\n.SH SYNOPSIS\n.I {}\n.SH DESCRIPTION\n\
         Lines of the form \\fIKEY\\fR = \\fIVALUE\\fR. A value may stand in double quotation \
         marks. Empty lines, and what follows a #, are ignored. A line that is not understood is \
         logged with its number and ignored; its key keeps the value that it had. The file is read \
         again when it changes; what has changed is logged. If it vanishes or cannot be read, all \
         settings stay. Settings win over the command line, and that over the \
         environment.\n.SH KEYS\n",
        env!("CARGO_PKG_VERSION"),
        roff(config::PATH)
    );
    for key in config::KEYS {
        let example = roff(key.example);
        write!(page, ".TP\n.BR {} \" = {}\"\n", key.name, example.replace('"', "\\(dq")).unwrap();
        writeln!(page, "{}", roff(key.doc)).unwrap();
    }
    page.push_str(".SH SEE ALSO\n.BR tcmu\\-runner (8)\n");
    is_current("man/tcmu.conf.5", &page);
}

#[test]
fn the_sample_configuration_is_current_and_sets_nothing() {
    let mut text = String::from("# Configuration of tcmu-runner(8); see tcmu.conf(5).\n");
    for key in config::KEYS {
        text.push('\n');
        let mut line = String::from("#");
        for word in key.doc.split_whitespace() {
            if line.len() + 1 + word.len() > 80 {
                writeln!(text, "{line}").unwrap();
                line = String::from("#");
            }
            write!(line, " {word}").unwrap();
        }
        writeln!(text, "{line}\n# {} = {}", key.name, key.example).unwrap();
    }
    is_current("tcmu/tcmu.conf", &text);
    let parsed = config::parse(text.as_bytes(), &config::Config::default());
    assert_eq!(parsed, (config::Config::default(), vec![]));
}

/// The lines of a policy for whom `attribute` names, without white space at their ends.
fn policy_of(policy: &str, attribute: &str) -> Vec<String> {
    let (_, after) = policy.split_once(&format!("<policy {attribute}>")).unwrap();
    let (rules, _) = after.split_once("</policy>").unwrap();
    let rules =
        rules.split('<').filter(|rule| rule.starts_with("allow") || rule.starts_with("deny"));
    rules.map(|rule| rule.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn the_bus_policy_allows_root_everything_its_group_a_part_and_others_to_read() {
    let policy = read("dbus-1/tcmu-runner.conf");
    let (name, manager) = (dbus::NAME, dbus::MANAGER_NAME);
    let own = format!("allow own=\"{name}\"/>");
    let own_handlers = format!("allow own_prefix=\"{manager}\"/>");
    let call = format!("allow send_destination=\"{name}\"/>");
    let forward = format!("allow send_interface=\"{name}\"/>");
    let root = [own, own_handlers.clone(), call.clone(), forward];
    assert_eq!(policy_of(&policy, "user=\"root\""), root);
    assert_eq!(policy_of(&policy, "group=\"tcmu\""), [own_handlers, call]);
    let read_only = |interface: &str, member: &str| {
        let interface = format!("org.freedesktop.DBus.{interface}");
        format!("allow send_destination=\"{name}\" send_interface=\"{interface}\"{member}/>")
    };
    let others = [
        read_only("Introspectable", ""),
        read_only("Properties", " send_member=\"Get\""),
        read_only("Properties", " send_member=\"GetAll\""),
    ];
    assert_eq!(policy_of(&policy, "context=\"default\""), others);
    let listing = read("dbus-1/examples/tcmu-runner-listing.conf");
    let list = read_only("ObjectManager", " send_member=\"GetManagedObjects\"");
    assert_eq!(policy_of(&listing, "context=\"default\""), [list]);
}

#[test]
fn the_units_name_the_bus_and_the_program() {
    let unit = read("systemd/tcmu-runner.service");
    assert!(unit.contains(&format!("\nBusName={}\n", dbus::NAME)));
    assert!(unit.contains("\nExecStart=/usr/bin/tcmu-runner\n"));
    let activation = read("dbus-1/org.kernel.TCMUService1.service");
    assert!(activation.contains(&format!("\nName={}\n", dbus::NAME)));
    assert!(activation.contains("\nExec=/usr/bin/tcmu-runner\n"));
    assert!(activation.contains("\nSystemdService=tcmu-runner.service\n"));
}

#[test]
fn logrotate_moves_the_file_that_is_written() {
    let rules = read("logrotate/tcmu-runner");
    assert!(rules.contains(&format!("\n{}/{} {{", daemon::LOG_DIR, logging::FILE)));
    assert!(rules.contains("pkill -HUP -x tcmu-runner"));
}
