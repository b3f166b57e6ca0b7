// SPDX-License-Identifier: Apache-2.0
//! Whether KVM really works here. `/dev/kvm` can open and then hang or fail with some kernels
//! (nested virtualization, containers), so the real kernel is booted once, with a deadline.

use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};

use super::kernel::Boot;
use crate::run::{self, Kept};

/// How long the kernel may take to its first process: ten times what a working KVM needs.
const DEADLINE: Duration = Duration::from_secs(15);

/// How instructions of the guest are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accel {
    /// By the processor.
    Kvm,
    /// By QEMU: TCG, a thread for each CPU.
    Tcg,
    /// By QEMU, one after the other, 2 ns of the guest's time each.
    Icount,
}

impl Accel {
    /// In words.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Accel::Kvm => "KVM",
            Accel::Tcg => "software emulation",
            Accel::Icount => "software emulation, counting instructions",
        }
    }
}

/// KVM where it works, else TCG. The answer is kept until the host boots again.
pub(crate) fn best(boot: &Boot) -> Accel {
    let open = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    if open.is_ok() && kept_answer(boot) { Accel::Kvm } else { Accel::Tcg }
}

fn kept_answer(boot: &Boot) -> bool {
    let file = answer_file(boot);
    if let Some(Ok(text)) = file.as_ref().map(std::fs::read_to_string) {
        return text.trim() == "works";
    }
    let works = probe(boot).unwrap_or(false);
    if let Some(file) = file {
        // Not kept is asked again: slower, not wrong.
        let _ = std::fs::write(file, if works { "works\n" } else { "does not\n" });
    }
    works
}

fn answer_file(boot: &Boot) -> Option<PathBuf> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(run::cache_dir().ok()?.join(format!("kvm-{}-{}", id.trim(), boot.release)))
}

fn probe(boot: &Boot) -> Result<bool> {
    let mut child = Kept(
        Kept::command("qemu-system-x86_64")
            .args(["-accel", "kvm", "-cpu", "host", "-M", "q35", "-m", "256"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-nic", "none"])
            .args(["-no-reboot", "-serial", "stdio"])
            .arg("-kernel")
            .arg(&boot.kernel)
            .arg("-initrd")
            .arg(&boot.initramfs)
            .args(["-append", "console=ttyS0 quiet panic=-1 reboot=t vm.probe"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?,
    );
    let mut console = child.0.stdout.take().context("no pipe")?;
    let ended = child.wait(DEADLINE)?.is_some();
    if !ended {
        child.kill();
        return Ok(false);
    }
    let mut text = Vec::new();
    console.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).contains("vm: alive"))
}
