// SPDX-License-Identifier: Apache-2.0
//! What kind of VM, and what runs in it.

use std::path::PathBuf;

/// Options of `cargo xtask vm`, and what the other subcommands set.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// CPUs of the guest
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub(crate) cpus: u32,
    /// Memory of the guest
    #[arg(long, default_value_t = 2048, value_name = "MB")]
    pub(crate) mem: u32,
    /// Size of /scratch, a fresh sparse ext4
    #[arg(long, default_value_t = 4096, value_name = "MB")]
    pub(crate) scratch: u64,
    /// For boot and script together
    #[arg(long, default_value_t = 300, value_name = "S")]
    pub(crate) timeout: u64,
    /// The guest's clock counts its instructions, 2 ns each; one CPU. Repeats on a busy host
    #[arg(long)]
    pub(crate) icount: bool,
    /// QEMU's CPU model; default: host with KVM, else max
    #[arg(long, value_name = "MODEL")]
    pub(crate) cpu: Option<String>,
    /// Software emulation, even where KVM works
    #[arg(long)]
    pub(crate) tcg: bool,
    /// User-Mode Linux in place of QEMU: several times as fast where KVM does not work; one CPU, and the
    /// kernel of the package user-mode-linux
    #[arg(long, conflicts_with_all = ["icount", "cpu", "tcg", "kernel"])]
    pub(crate) uml: bool,
    /// Another VM of User-Mode Linux on one Ethernet with this one, which carries out what files in
    /// its control directory, /run/vm/peer, say
    #[arg(long, requires = "uml")]
    pub(crate) pair: bool,
    /// The script runs twice: with BEFORE_SYSTEMD=1, and then as a service of systemd, the first process
    #[arg(long)]
    pub(crate) systemd: bool,
    /// Mount this directory of the host's, writable, at /share
    #[arg(long, value_name = "DIR")]
    pub(crate) share: Option<PathBuf>,
    /// For the script's environment, which is otherwise empty; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Keep the guest's console and kernel log there
    #[arg(long, value_name = "DIR")]
    pub(crate) logs: Option<PathBuf>,
    /// Version of the kernel, or how it begins, such as 6.12; default: the distribution's
    #[arg(long, value_name = "VERSION")]
    pub(crate) kernel: Option<String>,
    /// Say nothing about the boot
    #[arg(long)]
    pub(crate) quiet: bool,
    /// The script and its arguments; runs as root in the current directory
    #[arg(last = true, required = true, value_name = "SCRIPT [ARGS]")]
    pub(crate) script: Vec<String>,
}

impl Options {
    /// The defaults, for a script.
    pub(crate) fn new(script: impl IntoIterator<Item = String>) -> Options {
        Options {
            cpus: 2,
            mem: 2048,
            scratch: 4096,
            timeout: 300,
            icount: false,
            cpu: None,
            tcg: false,
            uml: false,
            pair: false,
            systemd: false,
            share: None,
            env: Vec::new(),
            logs: None,
            kernel: None,
            quiet: false,
            script: script.into_iter().collect(),
        }
    }
}
