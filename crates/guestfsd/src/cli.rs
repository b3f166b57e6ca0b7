// SPDX-License-Identifier: Apache-2.0
//! The command line, and what becomes of the process: it serves one channel, or listens for many clients.

use crate::channel::{Channel, Closed};
use crate::config::Config;
use crate::dispatch;
use crate::listen::{self, Address, Admission, Stage};
use crate::reach;
use crate::session::Session;
use clap::{ArgAction, Parser};
use guest_error::{Context, Errno, Error, Result};
use guestfs_api::PROCEDURES;
use rustix::fs::{FileType, Mode, OFlags};
use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Where the client is, unless it is said otherwise.
const DEFAULT_CHANNEL: &str = "/dev/virtio-ports/org.libguestfs.channel.0";

/// Who may connect, and what clients may do: for the help and the man page.
pub const LISTENERS: &str = "\
Who may connect:
  --channel          whoever has its other end: in an appliance, the client
  --listen unix:...  the daemon's own user and root
  --listen tcp:...   over TLS 1.3, who has a certificate from an authority in
                     ca-cert.pem and one of the names of --tls-client, if any
  --listen vsock:... all users of the machines of --vsock-client

What clients may do:
  All of them may read and change the machine's disks, but for the one that
  holds /, and with -r its files: who may connect there is as good as root.
  Where it listens, the daemon keeps from them what reaches outside of the
  guest: programs (also the guest's own), \"debug sh\" and the like, uploads
  into the daemon's filesystem, modules, the kernel's log, swap space,
  filesystems that are not on a device, and device nodes of guests.
  --allow-host-access allows that; --channel does so always.

Examples:
  guestfsd --listen unix:/run/guestfsd.sock
  guestfsd --listen tcp:[::]:9999 --tls-dir /etc/pki/guestfsd
  guestfsd --listen vsock:any:9999 --vsock-client 2";

/// Serves libguestfs clients: mounts, inspects and changes filesystems and disks on their behalf.
///
/// Exit status: 0 if the client hung up between two calls (or was never there to be listened for),
/// 1 if the command line, the channel or the client's messages were wrong.
#[derive(Debug, Parser)]
#[command(name = "guestfsd", version, disable_help_flag = true, after_help = LISTENERS)]
pub struct Options {
    /// Serve the client on this device or socket, or on the descriptor N.
    #[arg(short, long, value_name = "PATH|fd:N")]
    channel: Option<String>,

    /// Listen for clients, each of which gets a session of its own: unix:PATH (for this user and root),
    /// tcp:HOST:PORT (with TLS) or vsock:CID:PORT, where CID is this machine's or "any". Without an
    /// address, listens on the channel's path.
    #[arg(short, long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "")]
    listen: Option<String>,

    /// Where certificates are, for clients over TCP: ca-cert.pem, server-cert.pem, server-key.pem, and
    /// ca-crl.pem if some have been revoked. Clients need a certificate of the authority in ca-cert.pem.
    #[arg(long, value_name = "DIR", default_value = guestfs_tls::DEFAULT_DIRECTORY)]
    tls_dir: PathBuf,

    /// Let in only clients over TCP whose certificate has NAME, a DNS name or an IP address, among its
    /// subject alternative names. May be given several times.
    #[arg(long, value_name = "NAME")]
    tls_client: Vec<String>,

    /// Let in clients over vsock from the machine with this CID: all its users. 2 is the host, 1 this
    /// machine. May be given several times; without it, nobody may connect over vsock.
    #[arg(long, value_name = "CID")]
    vsock_client: Vec<u32>,

    /// Let clients of --listen do what reaches outside of the guest, too: run programs as root of this
    /// machine, load modules, write its files. With --channel they always may.
    #[arg(long)]
    allow_host_access: bool,

    /// Let programs use the network.
    #[arg(short, long)]
    network: bool,

    /// Serve this machine's own files instead of /sysroot; nothing is unmounted at the end.
    #[arg(short)]
    r: bool,

    /// Say on standard error what is done.
    #[arg(short, long)]
    verbose: bool,

    /// Show all procedures, which of them are not done yet, and which reach outside of the guest.
    #[arg(long)]
    procedures: bool,

    /// Serve the client on standard input, isolated from other sessions.
    #[arg(long, hide = true, value_name = "STAGE")]
    session: Option<Stage>,

    /// Work for a session in a process apart.
    #[arg(long, hide = true, value_name = "WORK")]
    helper: Option<Helper>,

    /// Show this help.
    #[arg(short = '?', long = "help", action = ArgAction::Help)]
    help: Option<bool>,
}

/// Work that is done in a process apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Helper {
    /// The guest's configuration files.
    Augeas,
    /// The guest's RPM database.
    Rpm,
    /// Files of a filesystem that were deleted.
    Tsk,
    /// Rules for scans, to be compiled.
    YaraCompile,
    /// A scan of a file of the guest.
    YaraScan,
}

/// What the kernel's command line says.
#[derive(Debug, Default, PartialEq, Eq)]
struct KernelFlags {
    verbose: bool,
    network: bool,
    channel: Option<String>,
}

impl KernelFlags {
    fn parse(cmdline: &str) -> Self {
        let mut flags = Self::default();
        for word in cmdline.split_whitespace() {
            match word.split_once('=') {
                Some(("guestfs_verbose", "1")) => flags.verbose = true,
                Some(("guestfs_network", "1")) => flags.network = true,
                Some(("guestfs_channel", path)) => flags.channel = Some(path.to_owned()),
                _ => {}
            }
        }
        flags
    }
}

/// The program.
pub fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(e) => {
            let code = if e.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            e.print().ok();
            return code;
        }
    };
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            writeln!(std::io::stderr(), "guestfsd: {e}").ok();
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<()> {
    let sysroot = if options.r { "/" } else { "/sysroot" };
    match options.helper {
        Some(Helper::Augeas) => return crate::augeas::helper(),
        Some(Helper::Rpm) => return crate::rpm::helper(sysroot.as_ref()),
        Some(Helper::Tsk) => return crate::tsk::helper(),
        Some(Helper::YaraCompile) => return crate::yara::compile(),
        Some(Helper::YaraScan) => return crate::yara::scan(),
        None => {}
    }
    if options.procedures {
        return show_procedures(&mut std::io::stdout().lock()).on("standard output");
    }
    let kernel = KernelFlags::parse(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default());
    // A channel is an appliance's own.
    let own_machine = options.session.is_none() && options.listen.is_none();
    let config = Config {
        sysroot: sysroot.into(),
        verbose: options.verbose || kernel.verbose,
        network: options.network || kernel.network,
        host_access: options.allow_host_access || own_machine,
        own_machine,
    };
    let admission = Admission {
        tls_dir: options.tls_dir,
        tls_clients: options.tls_client,
        vsock_clients: options.vsock_client,
    };
    log_to_stderr(config.verbose);
    let named = options.channel.is_some() || kernel.channel.is_some();
    let channel = options.channel.or(kernel.channel).unwrap_or_else(|| DEFAULT_CHANNEL.to_owned());
    match (options.session, options.listen) {
        (Some(stage), _) => match listen::enter(stage, &admission, &config)? {
            Some(status) => status,
            None => serve(config, listen::take_stdin()?),
        },
        (None, Some(address)) => {
            let address = if address.is_empty() { format!("unix:{channel}") } else { address };
            listen::serve(&Address::parse(&address)?, &admission, &config)
        }
        (None, None) => {
            let hint = "--channel says where the client is, --listen makes a socket for clients";
            let stream = open_channel(&channel).map_err(|e| match named {
                true => e,
                false => Error::new(e.errno(), format!("{}; {hint}", e.message())),
            })?;
            crate::serial::make_raw(&stream, &channel)?;
            serve(config, stream)
        }
    }
}

/// Serves one client to its end.
fn serve(config: Config, stream: OwnedFd) -> Result<()> {
    crate::signals::install(&stream);
    crate::children::adopt_orphans();
    if !config.sysroot.exists() {
        std::fs::create_dir(&config.sysroot).on(&config.sysroot)?;
    }
    // Files are made with the modes that are asked for, as the umask procedure says.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let mut channel = Channel::new(stream);
    let mut session = Session::new(config);
    let served = dispatch::serve(&mut session, &mut channel);
    let ended = session.end();
    match served {
        Ok(()) | Err(Closed::End) => ended,
        Err(e) => Err(Error::new(Errno::EPROTO, e.to_string())),
    }
}

/// Opens `PATH` or takes over the descriptor of `fd:N`.
fn open_channel(channel: &str) -> Result<OwnedFd> {
    let wrong = || Error::new(Errno::EINVAL, format!("cannot parse --channel {channel}"));
    let Some(number) = channel.strip_prefix("fd:") else {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
        return match rustix::fs::open(channel, flags, Mode::empty()) {
            // A socket that somebody listens on cannot be opened, only connected to.
            Err(rustix::io::Errno::NXIO) => {
                std::os::unix::net::UnixStream::connect(channel).map(OwnedFd::from).on(channel)
            }
            opened => check_channel(opened.on(channel)?, channel),
        };
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    // A copy, and the original closed by nobody: it is the starter's, who may have more uses for it.
    check_channel(listen::inherited(number).on(channel)?, channel)
}

/// Refuses what is no channel before the first byte is written to it: a file or a disk would lose its first bytes.
fn check_channel(opened: OwnedFd, channel: &str) -> Result<OwnedFd> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&opened).on(channel)?.st_mode);
    match kind {
        FileType::CharacterDevice | FileType::Socket => Ok(opened),
        _ => {
            let why =
                format!("--channel {channel}: neither a socket nor a character device ({kind:?})");
            Err(Error::new(Errno::EINVAL, why))
        }
    }
}

fn log_to_stderr(verbose: bool) {
    let level = if verbose { LevelFilter::DEBUG } else { LevelFilter::WARN };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_span_events(FmtSpan::NONE)
        .with_target(false)
        .with_ansi(false)
        .without_time()
        // It would panic where standard error is closed, as it is once a client has died.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .finish();
    // Only fails when there is a logger already, in tests.
    tracing::subscriber::set_global_default(subscriber).ok();
}

fn show_procedures(out: &mut impl Write) -> std::io::Result<()> {
    for p in &PROCEDURES {
        let note = reach::outside(p).map_or("", |_| "only with host access");
        let line = format!("{:4} {:36} {:16} {note}", p.number, p.name, p.group.unwrap_or(""));
        writeln!(out, "{}", line.trim_end())?;
    }
    writeln!(out, "{} procedures", PROCEDURES.len())
}

/// What names a channel in errors.
impl AsRef<OsStr> for Address {
    fn as_ref(&self) -> &OsStr {
        OsStr::new(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_the_original_ones() {
        use clap::CommandFactory;
        Options::command().debug_assert();
        let o =
            Options::try_parse_from(["guestfsd", "--channel", "fd:3", "-v", "-n", "-r"]).unwrap();
        assert_eq!(
            (o.channel.as_deref(), o.verbose, o.network, o.r),
            (Some("fd:3"), true, true, true)
        );
        let o = Options::try_parse_from(["guestfsd", "-l", "-c", "/x"]).unwrap();
        assert_eq!((o.listen.as_deref(), o.channel.as_deref()), (Some(""), Some("/x")));
        assert!(Options::try_parse_from(["guestfsd", "surplus"]).is_err());
    }

    #[test]
    fn the_kernels_command_line_sets_flags() {
        let flags = KernelFlags::parse(
            "root=/dev/sda guestfs_verbose=1 guestfs_network=0 guestfs_channel=/dev/ttyS1 quiet\n",
        );
        assert_eq!(
            flags,
            KernelFlags { verbose: true, network: false, channel: Some("/dev/ttyS1".into()) }
        );
    }

    #[test]
    fn what_is_no_channel_is_refused_and_stays_as_it_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "root:x:0:0").unwrap();
        let (read, _write) = std::io::pipe().unwrap();
        let dir = tempfile::tempdir().unwrap();
        for channel in [
            file.path().to_str().unwrap().to_owned(),
            format!("fd:{}", std::os::fd::AsRawFd::as_raw_fd(file.as_file())),
            format!("fd:{}", std::os::fd::AsRawFd::as_raw_fd(&read)),
            dir.path().to_str().unwrap().to_owned(),
        ] {
            let e = open_channel(&channel).unwrap_err();
            assert!(e.to_string().contains(&channel), "{e}");
        }
        assert_eq!(std::fs::read(&file).unwrap(), b"root:x:0:0");
        open_channel("/dev/null").unwrap();
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        open_channel(&format!("fd:{}", std::os::fd::AsRawFd::as_raw_fd(&one))).unwrap();
    }

    #[test]
    fn a_descriptor_that_is_no_number_is_refused() {
        assert_eq!(open_channel("fd:x").unwrap_err().message(), "cannot parse --channel fd:x");
    }
}
