// SPDX-License-Identifier: Apache-2.0
//! /etc/tcmu/tcmu.conf: one table of keys drives the parser, the defaults, the report of changes
//! and the man page tcmu.conf(5). A bad line is reported with its number; its key keeps its old
//! value.
use std::path::{Path, PathBuf};

pub use tcmu_conf::{PATH, read};
use tcmu_conf::{Setting, Wrong};

use crate::logging::Level;
use crate::status::server::Place;

/// The settings. `None`: the file does not say, so that the command line, the environment or the
/// default decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// How much is logged.
    pub log_level: Option<Level>,
    /// Directory of the log file.
    pub log_dir: Option<PathBuf>,
    /// Directories that backing files may lie in; `None`: any.
    pub backing_dirs: Option<Vec<PathBuf>>,
    /// Subtypes of which a plugin comes before the built-in handler.
    pub plugins_first: Option<Vec<String>>,
    /// Whether each plugin has a process of its own.
    pub plugin_isolation: Option<bool>,
    /// Where the figures for Prometheus are to be had.
    pub metrics: Option<Place>,
}

impl Config {
    /// What holds of a key whose value could not be read when the daemon started: nobody knows which
    /// files it forbids, so all of them.
    pub fn unread() -> Self {
        Config { backing_dirs: Some(Vec::new()), ..Config::default() }
    }
}

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// As the file spells it.
    pub name: &'static str,
    /// The default, or an example, as the file would give it.
    pub example: &'static str,
    /// For the man page and the sample file: sentences, without markup.
    pub doc: &'static str,
    parse: fn(&mut Config, &str) -> Result<(), String>,
    keep: fn(&mut Config, &Config),
    show: fn(&Config) -> String,
}

/// All settings, in the order of the man page.
pub const KEYS: &[Key] = &[
    Key {
        name: "log_level",
        example: "3",
        doc: "How much is logged: 0 (CRIT), 1 (ERROR), 2 (WARNING), 3 (INFO), 4 (DEBUG) or 5 (DEBUG \
              SCSI CMD: every SCSI command). A level includes those before it. The default is 3, or \
              5 with the option --debug.",
        parse: |config, value| {
            let number = value.parse().ok().filter(|&n: &u8| n <= Level::DebugScsiCmd as u8);
            let number = number.ok_or("it must be a number from 0 to 5")?;
            config.log_level = Some(Level::from_number(number.into()));
            Ok(())
        },
        keep: |config, old| config.log_level = old.log_level,
        show: |config| config.log_level.map_or("default".into(), |l| l.to_string()),
    },
    Key {
        name: "log_dir",
        example: "\"/var/log\"",
        doc: "The directory of the log file, tcmu-runner.log. It is made when it is not there. The \
              default is what the option --tcmu-log-dir says, else the environment variable \
              TCMU_LOGDIR, else /var/log.",
        parse: |config, value| {
            config.log_dir = Some(absolute(value)?);
            Ok(())
        },
        keep: |config, old| config.log_dir = old.log_dir.clone(),
        show: |config| {
            config.log_dir.as_ref().map_or("default".into(), |d| d.display().to_string())
        },
    },
    Key {
        name: "backing_dirs",
        example: "\"/srv/images:/var/lib/images\"",
        doc: "The directories, separated by colons, that the backing files of images may lie in, \
              subdirectories included; symbolic links are followed before the comparison. An image \
              with a backing file elsewhere is refused. An image's backing file is named inside the \
              image: set this when images come from people who must not read this host's files. \
              An empty value (\"\") refuses all backing files, and so does a value that cannot be read \
              when the daemon starts. It holds for the other files that an image names, too: external \
              data files, and the extents of a VMDK image. The default is to allow any place. A \
              change concerns devices that are opened afterwards.",
        parse: |config, value| {
            let parts = value.split(':').filter(|dir| !dir.is_empty());
            config.backing_dirs = Some(parts.map(absolute).collect::<Result<_, _>>()?);
            Ok(())
        },
        keep: |config, old| config.backing_dirs = old.backing_dirs.clone(),
        show: |config| match &config.backing_dirs {
            None => "any".into(),
            Some(dirs) if dirs.is_empty() => "none".into(),
            Some(dirs) => {
                dirs.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(":")
            }
        },
    },
    Key {
        name: "plugins_first",
        example: "\"qcow\"",
        doc: "The subtypes, separated by colons, that a plugin (handler_*.so) serves where there is \
              one, though they are built in. The default is none: of a subtype that is built in, \
              plugins are not used. A change takes effect when the daemon starts.",
        parse: |config, value| {
            let parts = value.split(':').map(str::trim).filter(|part| !part.is_empty());
            config.plugins_first = Some(parts.map(str::to_owned).collect());
            Ok(())
        },
        keep: |config, old| config.plugins_first = old.plugins_first.clone(),
        show: |config| match &config.plugins_first {
            Some(subtypes) if !subtypes.is_empty() => subtypes.join(":"),
            _ => "none".into(),
        },
    },
    Key {
        name: "plugin_isolation",
        example: "true",
        doc: "Whether each plugin (handler_*.so) runs in a process of its own: true or false. One \
              that crashes then takes its own devices only, and they come back: the plugin is \
              started again and opens them, and until then their commands get BUSY, so that \
              initiators send them again. A plugin that does not answer a command for two thirds of \
              the shorter of 30 seconds and the device's attribute cmd_time_out, or for as long as \
              the option tcmur_cmd_time_out of its configuration string says, or does not return \
              from another function than open for a minute, is killed, and started again. Each \
              command's data are copied, and two processes take turns, which costs time. The \
              default is false: plugins run in the daemon, and a crash of theirs is the daemon's. A \
              change takes effect when the daemon starts.",
        parse: |config, value| {
            config.plugin_isolation = Some(match value {
                "true" => true,
                "false" => false,
                _ => return Err("it must be true or false".into()),
            });
            Ok(())
        },
        keep: |config, old| config.plugin_isolation = old.plugin_isolation,
        show: |config| config.plugin_isolation.unwrap_or(false).to_string(),
    },
    Key {
        name: "metrics",
        example: "\"127.0.0.1:9101\"",
        doc: "Where Prometheus finds the daemon's figures, at /metrics: an address of the loopback \
              interface and a port, or the path of a unix socket, which everybody may open who can \
              enter its directory. They tell the names of devices, and how much I/O there is; \
              \"tcmu-runner status\" tells more, to root alone. The default is nowhere. A change \
              takes effect when the daemon starts.",
        parse: |config, value| {
            config.metrics = Some(Place::parse(value)?);
            Ok(())
        },
        keep: |config, old| config.metrics = old.metrics.clone(),
        show: |config| config.metrics.as_ref().map_or("nowhere".into(), ToString::to_string),
    },
];

fn absolute(value: &str) -> Result<PathBuf, String> {
    let path = Path::new(value);
    if path.is_absolute() { Ok(path.to_owned()) } else { Err("it must be an absolute path".into()) }
}

/// A line that was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {text}")]
pub struct Problem {
    /// The number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub text: String,
}

/// Reads the content of a configuration file. A key that is not there has no value; a key with a
/// bad value has the one of `old`.
pub fn parse(content: &[u8], old: &Config) -> (Config, Vec<Problem>) {
    let mut config = Config::default();
    let mut problems = Vec::new();
    for setting in tcmu_conf::settings(content) {
        let line = setting.line;
        if let Err(text) = take(setting, &mut config, old) {
            problems.push(Problem { line, text });
        }
    }
    (config, problems)
}

fn take(setting: Setting<'_>, config: &mut Config, old: &Config) -> Result<(), String> {
    let key = KEYS.iter().find(|key| key.name == setting.key);
    let result = match setting.value {
        Err(Wrong::Line(why)) => {
            if let Some(key) = key {
                (key.keep)(config, old);
            }
            return Err(why);
        }
        Err(Wrong::Value(why)) => Err(why),
        Ok(value) => Ok(value),
    };
    let name = setting.key;
    let Some(key) = key else {
        return Err(format!("there is no key \"{}\"", name.escape_debug()));
    };
    result.and_then(|value| (key.parse)(config, value)).map_err(|why| {
        (key.keep)(config, old);
        format!("{name}: {why}; its value stays {}", (key.show)(config))
    })
}

/// What differs between two configurations, in words: "log_level: default -> INFO".
pub fn changes(old: &Config, new: &Config) -> Vec<String> {
    let shown = KEYS.iter().map(|key| (key.name, (key.show)(old), (key.show)(new)));
    shown.filter(|(_, a, b)| a != b).map(|(name, a, b)| format!("{name}: {a} -> {b}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config(text: &str) -> (Config, Vec<String>) {
        let (config, problems) = parse(text.as_bytes(), &Config::default());
        (config, problems.iter().map(|p| p.to_string()).collect())
    }

    #[test]
    fn the_legacy_grammar_is_understood() {
        let (c, problems) = config(
            "# comment\n\n  log_level=2 # loud\nlog_dir\t= \"/scratch/a b#c\"  # there\n\
             backing_dirs = /srv/images:/data\r\nplugins_first = \"qcow: zbc\"\n\
             plugin_isolation = true\n",
        );
        assert_eq!(problems, [""; 0]);
        assert_eq!(c.log_level, Some(Level::Warning));
        assert_eq!(c.log_dir, Some("/scratch/a b#c".into()));
        assert_eq!(c.backing_dirs, Some(vec!["/srv/images".into(), "/data".into()]));
        assert_eq!(c.plugins_first, Some(vec!["qcow".into(), "zbc".into()]));
        assert_eq!(c.plugin_isolation, Some(true));
    }

    #[test]
    fn what_the_file_does_not_say_stays_open() {
        assert_eq!(config(""), (Config::default(), vec![]));
        assert_eq!(config("backing_dirs = \"\"").0.backing_dirs, Some(vec![]));
    }

    #[test]
    fn bad_lines_are_numbered_and_do_not_spoil_the_others() {
        let (c, problems) = config(
            "log_level = 6\nlog_dir = relative\nbogus = 1\nnonsense\nlog_dir = \"/x\nlog_level = 1\n\
             backing_dirs =\nlog_dir = \"/x\" y\nplugin_isolation = yes\n",
        );
        assert_eq!(c, Config { log_level: Some(Level::Error), ..Config::default() });
        assert_eq!(
            problems,
            [
                "line 1: log_level: it must be a number from 0 to 5; its value stays default",
                "line 2: log_dir: it must be an absolute path; its value stays default",
                "line 3: there is no key \"bogus\"",
                "line 4: it is not of the form KEY = VALUE",
                "line 5: log_dir: the closing quotation mark is missing; its value stays default",
                "line 7: backing_dirs: there is no value; its value stays any",
                "line 8: log_dir: there is something after the closing quotation mark; \
                 its value stays default",
                "line 9: plugin_isolation: it must be true or false; its value stays false",
            ]
        );
    }

    #[test]
    fn a_bad_value_keeps_the_old_one() {
        let old = Config { log_level: Some(Level::Debug), ..Config::default() };
        let (new, problems) = parse(b"log_level = x\nlog_dir = /a\n", &old);
        assert_eq!(new.log_level, Some(Level::Debug));
        assert_eq!(problems[0].text.split("; ").last(), Some("its value stays DEBUG"));
        assert_eq!(changes(&old, &new), ["log_dir: default -> /a"]);
    }

    #[test]
    fn bytes_that_are_not_utf_8_only_spoil_their_own_line() {
        let old = Config { log_dir: Some("/old".into()), ..Config::default() };
        let text = b"\xef\xbb\xbflog_level = 4\n# caf\xe9\nlog_dir = \"/caf\xe9\"\n\xff\0\n\
                     backing_dirs = /srv # caf\xe9\n";
        let (config, problems) = parse(text, &old);
        assert_eq!(config.log_level, Some(Level::Debug));
        assert_eq!(config.log_dir, Some("/old".into()));
        assert_eq!(config.backing_dirs, Some(vec!["/srv".into()]));
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("line 3: it is not UTF-8: \"log_dir = "), "{problems:?}");
        assert!(problems[1].starts_with("line 4: "), "{problems:?}");
    }

    #[test]
    fn every_example_is_a_valid_value() {
        for key in KEYS {
            let (c, problems) = config(&format!("{} = {}", key.name, key.example));
            assert_eq!(problems, [""; 0]);
            assert_ne!((key.show)(&c), (key.show)(&Config::default()));
        }
    }

    proptest! {
        #[test]
        fn anything_is_parsed_and_each_line_is_reported_at_most_once(
            text in prop_oneof![
                "(\\PC|[\n=\"#])*".prop_map(String::into_bytes),
                proptest::collection::vec(any::<u8>(), 0..200),
            ],
        ) {
            let (_, problems) = parse(&text, &Config::default());
            let mut lines: Vec<_> = problems.iter().map(|p| p.line).collect();
            let n = lines.len();
            lines.dedup();
            prop_assert_eq!(lines.len(), n);
            prop_assert!(lines.last().is_none_or(|&l| l <= text.split(|&b| b == b'\n').count()));
        }

        #[test]
        fn a_quoted_directory_comes_back_as_it_was(dir in "/[^\"\n\r]*") {
            let (c, problems) = config(&format!("log_dir = \"{dir}\""));
            prop_assert_eq!(problems, Vec::<String>::new());
            prop_assert_eq!(c.log_dir, Some(PathBuf::from(dir)));
        }
    }
}
