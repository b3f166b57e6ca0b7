// SPDX-License-Identifier: Apache-2.0
//! The command line: that of the C daemon, and `check`. The man page tcmu-runner(8) is made from
//! it.
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Smallest and largest argument of `--nofile`.
pub const NOFILE: std::ops::RangeInclusive<u64> = 65_536..=1_048_576;

/// Serves images as SCSI logical units of the Linux kernel's target (LIO), through TCM-User.
///
/// The daemon runs in the foreground until SIGTERM or SIGINT. It takes over the devices that are
/// there already, and then those that targetcli or configfs add; it owns the D-Bus name
/// org.kernel.TCMUService1. SIGHUP reopens the log file and tries missing images
/// again.
///
/// Options in /etc/tcmu/tcmu.conf win over the command line, the command line over the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Parser)]
#[command(name = "tcmu-runner", version, infer_long_args = true)]
pub struct Cli {
    /// Log everything, SCSI commands included (log level 5)
    #[arg(short, long)]
    pub debug: bool,
    /// How many files may be open (65536 to 1048576); default: as many as the hard limit allows
    #[arg(short = 'f', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(NOFILE))]
    pub nofile: Option<u64>,
    /// Directory of the log file, tcmu-runner.log; default: $TCMU_LOGDIR, or /var/log
    #[arg(short = 'l', long, value_name = "DIR")]
    pub tcmu_log_dir: Option<PathBuf>,
    /// Directory of plugins, handler_*.so; default: tcmu-runner in the directory of the system's
    /// libraries, /usr/lib/x86_64-linux-gnu on a PC
    #[arg(long, value_name = "DIR")]
    pub handler_path: Option<PathBuf>,
    /// What to do instead of serving
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program does instead of serving.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Report what is missing on this host, and how to fix it; exit status 1 if anything is missing
    Check,
    /// Show how the daemon that runs does: its devices, their I/O, what failed; exit status 1 if it
    /// cannot be asked
    Status {
        /// As JSON, for scripts
        #[arg(long)]
        json: bool,
    },
    /// Be the process of a plugin: the daemon starts it (plugin_isolation in tcmu.conf), and `check`
    #[command(hide = true)]
    PluginProcess {
        /// The plugin
        file: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["tcmu-runner"], args].concat())
    }

    #[test]
    fn the_options_of_the_c_daemon_are_understood() {
        let all = parse(&["-d", "-f", "70000", "-l", "/tmp", "--handler-path", "/usr/lib/x"]);
        let long =
            parse(&["--debug", "--nofile=70000", "--tcmu-log-dir=/tmp", "--handler-p=/usr/lib/x"]);
        let expected = Cli {
            debug: true,
            nofile: Some(70_000),
            tcmu_log_dir: Some("/tmp".into()),
            handler_path: Some("/usr/lib/x".into()),
            command: None,
        };
        assert_eq!(all.unwrap(), expected);
        assert_eq!(long.unwrap(), expected);
        assert_eq!(parse(&[]).unwrap(), Cli::default());
        assert_eq!(parse(&["check"]).unwrap().command, Some(Command::Check));
    }

    #[test]
    fn the_version_is_printed_as_name_and_number() {
        let text = Cli::command().render_version();
        let mut words = text.split_whitespace();
        assert_eq!(words.next(), Some("tcmu-runner"));
        let number = words.next().unwrap();
        assert_eq!(number.split('.').filter(|n| n.parse::<u32>().is_ok()).count(), 3, "{number}");
        assert_eq!(words.next(), None);
    }

    #[test]
    fn a_file_limit_out_of_range_or_an_unknown_option_is_refused() {
        for bad in [&["-f", "100"][..], &["-f", "x"], &["-f", "1048577"], &["--bogus"], &["-f"]] {
            assert!(parse(bad).unwrap_err().use_stderr(), "{bad:?}");
        }
    }
}
