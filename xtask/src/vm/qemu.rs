// SPDX-License-Identifier: Apache-2.0
//! QEMU: the host's kernel on a processor of its own. Root, control directory and share come over 9p,
//! /scratch is on virtio-blk, the script's output goes to a virtio port, which is standard output here.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::accel::Accel;
use super::control::SCRATCH;
use super::kernel::Boot;
use super::options::Options;
use crate::run::Kept;

const ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 reboot=t mitigations=off nokaslr \
    audit=0 apparmor=0 no_timer_check random.trust_cpu=on cryptomgr.notests \
    rcupdate.rcu_expedited=1 hung_task_panic=0";

/// The command that boots a kernel with a control directory.
pub(super) fn command(
    options: &Options,
    files: &Boot,
    accel: Accel,
    dir: &Path,
) -> Result<Command> {
    // A comma in a value of QEMU's options is doubled.
    let value = |path: &Path| path.to_string_lossy().replace(',', ",,");
    let dir_value = value(dir);
    let mut command = Kept::command("qemu-system-x86_64");
    let (how, default_cpu, arguments) = match accel {
        Accel::Kvm => ("kvm", "host", ""),
        Accel::Tcg => ("tcg,thread=multi", "max", "tsc=reliable"),
        Accel::Icount => ("tcg,thread=single", "max", "tsc=reliable"),
    };
    command
        .args(["-accel", how, "-M", "q35"])
        .args(["-cpu", options.cpu.as_deref().unwrap_or(default_cpu)])
        .args(["-m", &options.mem.to_string()])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-nic", "none"])
        .arg("-no-reboot")
        .arg("-kernel")
        .arg(&files.kernel)
        .arg("-initrd")
        .arg(&files.initramfs)
        .args(["-append", format!("{ARGUMENTS} {arguments}").trim_end()])
        .args(["-chardev", &format!("file,id=con,path={dir_value}/console")])
        .args(["-serial", "chardev:con", "-device", "virtio-serial-pci"])
        .args(["-chardev", "stdio,id=out,signal=off"])
        .args(["-device", "virtserialport,chardev=out,name=vm.out"])
        .arg("-drive")
        .arg(format!(
            "if=none,id=scratch,format=raw,cache=unsafe,discard=unmap,file={dir_value}/{SCRATCH}"
        ))
        .args(["-device", "virtio-blk-pci,drive=scratch"]);
    if accel == Accel::Icount {
        // With more than one CPU this kernel stops in early boot.
        command.args(["-smp", "1", "-icount", "shift=1,sleep=off", "-rtc", "clock=vm"]);
    } else {
        command.args(["-smp", &options.cpus.to_string()]);
    }
    let mut mount = |tag: &str, path: &Path, extra: &str| {
        let security = "security_model=none,multidevs=remap";
        command.arg("-fsdev");
        command.arg(format!("local,id={tag},path={},{security}{extra}", value(path)));
        command.args(["-device", &format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}")]);
    };
    mount("root", Path::new("/"), ",readonly=on");
    mount("ctl", dir, "");
    if let Some(share) = &options.share {
        mount("share", &std::fs::canonicalize(share)?, "");
    }
    Ok(command)
}
