// SPDX-License-Identifier: Apache-2.0
//! Which kind of VM it is.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::accel::{self, Accel};
use super::kernel::{self, Boot};
use super::options::Options;
use super::{qemu, uml};

/// A kind of VM.
pub(super) enum Machine {
    Qemu(Boot, Accel),
    Uml,
}

impl Machine {
    /// The kind that is meant, or the best there is.
    pub(super) fn of(options: &Options) -> Result<Machine> {
        if options.uml {
            return Ok(Machine::Uml);
        }
        let files = kernel::boot_files(options.kernel.as_deref())?;
        let accel = match (options.icount, options.tcg) {
            (true, _) => Accel::Icount,
            (_, true) => Accel::Tcg,
            _ => accel::best(&files),
        };
        Ok(Machine::Qemu(files, accel))
    }

    /// Gives KVM up.
    pub(super) fn without_kvm(&mut self) {
        if let Machine::Qemu(_, accel @ Accel::Kvm) = self {
            *accel = Accel::Tcg;
        }
    }

    /// The command that boots it; its standard output is the script's.
    pub(super) fn command(&self, options: &Options, dir: &Path) -> Result<Command> {
        match self {
            Machine::Qemu(files, accel) => qemu::command(options, files, *accel, dir),
            Machine::Uml => uml::command(options, dir),
        }
    }

    /// In words.
    pub(super) fn describe(&self, options: &Options) -> String {
        match self {
            Machine::Qemu(files, accel) => {
                let cpus = if *accel == Accel::Icount { 1 } else { options.cpus };
                let plural = if cpus == 1 { "" } else { "s" };
                format!("Linux {}, {cpus} CPU{plural}, {}", files.release, accel.describe())
            }
            Machine::Uml => "User-Mode Linux".to_owned(),
        }
    }
}
