// SPDX-License-Identifier: Apache-2.0
//! The host's kernel: the real guestfish, our daemon, loop devices. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use common::{Host, run};
use rustix::process::Signal;
use std::fs;

fn host() -> Host {
    assert!(rustix::process::geteuid().is_root(), "loop devices need root");
    Host::new("instant")
}

#[test]
fn what_is_written_to_a_raw_disk_is_there_in_the_next_session() {
    let host = host();
    let disk = host.ext4("a.img");
    let add = format!("add {} format:raw", disk.display());
    let text = host.prints(&format!(
        "{add}\nrun\nlist-devices\nmount /dev/sda /\ncat /hello\nwrite /new content\n"
    ));
    assert_eq!(text, "/dev/sda\nfrom the host\n\n");
    assert_eq!(host.prints(&format!("{add}\nrun\nmount /dev/sda /\ncat /new\n")), "content\n");
}

#[test]
fn a_filesystem_is_not_busy_after_calls_on_its_files() {
    let host = host();
    let (first, second) = (host.ext4("first.img"), host.ext4("second.img"));
    let text = host.prints(&format!(
        "add {} format:raw\nadd {} format:raw\nrun\nmount /dev/sda /\nwrite /which first\ncat /which\n\
         umount /dev/sda\n-exists /which\nmount /dev/sdb /\nexists /which\n\
         mkdir /below\nmount /dev/sda /below\ncat /below/which\numount /below\n\
         cat /hello\nmount /dev/sda /\ncat /which\numount /\nexists /which\n",
        first.display(),
        second.display()
    ));
    assert_eq!(text, "first\nfalse\nfirst\nfrom the host\n\nfirst\nfalse\n");
}

#[test]
fn a_chain_of_images_is_one_disk_and_only_its_top_is_written() {
    let host = host();
    let base = host.ext4("base.img");
    let middle = host.qcow2("middle.qcow2", &base, "raw");
    let top = host.qcow2("top.qcow2", &middle, "qcow2");
    let before = (fs::read(&base).unwrap(), fs::read(&middle).unwrap());
    let add = format!("add {}", top.display());
    let script = "run\nmount /dev/sda /\ncat /hello\nwrite /new content\n";
    assert_eq!(host.prints(&format!("{add}\n{script}")), "from the host\n\n");
    assert_eq!(host.prints(&format!("{add}\nrun\nmount /dev/sda /\ncat /new\n")), "content\n");
    assert!(before == (fs::read(&base).unwrap(), fs::read(&middle).unwrap()));
    run("/usr/bin/qemu-img", "qemu-utils", &["check", "-q", top.to_str().unwrap()]);
}

#[test]
fn a_disk_that_is_added_read_only_is_not_changed() {
    let host = host();
    let disk = host.ext4("a.img");
    let before = fs::read(&disk).unwrap();
    let script = "run\nmount /dev/sda /\nwrite /new content\ncat /new\n";
    let text = host.prints(&format!("add-ro {}\n{script}", disk.display()));
    assert_eq!(text, "content\n");
    let script = "run\nmount-ro /dev/sda /\ncat /hello\n";
    let add = format!("add {} format:raw readonly:true", disk.display());
    assert_eq!(host.prints(&format!("{add}\n{script}")), "from the host\n\n");
    assert!(before == fs::read(&disk).unwrap());
}

#[test]
fn several_disks_are_in_the_clients_order_with_labels_and_sectors() {
    let host = host();
    let mut script = String::new();
    for (n, more) in ["label:first", "blocksize:4096", "label:third"].iter().enumerate() {
        let disk = host.path(&format!("{n}.img"));
        fs::File::create(&disk).unwrap().set_len((n as u64 + 1) << 20).unwrap();
        script += &format!("add {} format:raw {more}\n", disk.display());
    }
    script += "run\nlist-devices\nlist-disk-labels\n";
    for disk in ["sda", "sdb", "sdc"] {
        script += &format!("blockdev-getsize64 /dev/{disk}\nblockdev-getss /dev/{disk}\n");
    }
    assert_eq!(
        host.prints(&script),
        "/dev/sda\n/dev/sdb\n/dev/sdc\nfirst: /dev/sda\nthird: /dev/sdc\n\
         1048576\n512\n2097152\n4096\n3145728\n512\n"
    );
}

#[test]
fn an_image_that_ends_within_a_sector_is_served_to_its_end() {
    let host = host();
    let disk = host.path("odd.img");
    fs::write(&disk, [vec![b'x'; 1024], b"end".to_vec()].concat()).unwrap();
    let script = "run\nblockdev-getsize64 /dev/sda\npread-device /dev/sda 3 1024\n";
    let text = host.prints(&format!("add {} format:raw\n{script}", disk.display()));
    assert_eq!(text, "1536\nend");
    assert_eq!(fs::metadata(&disk).unwrap().len(), 1027);
}

#[test]
fn an_image_that_cannot_be_served_is_refused_with_the_reason_alone() {
    let host = host();
    let disk = host.path("a.qed");
    run(
        "/usr/bin/qemu-img",
        "qemu-utils",
        &["create", "-q", "-f", "qed", disk.to_str().unwrap(), "1M"],
    );
    // As it is, and below the overlay that libguestfs makes for a disk that is to be read only.
    for (add, calls) in [("add", ""), ("add", "list-devices\n"), ("add-ro", "list-devices\n")] {
        let output = host.session(&format!("{add} {}\nrun\n{calls}", disk.display()));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(stderr.contains("images of format qed cannot be served"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn images_of_other_hypervisors_are_looked_at_and_not_written() {
    let host = host();
    let raw = host.ext4("a.img");
    for (format, options) in [
        ("vmdk", "subformat=streamOptimized"),
        ("vmdk", "subformat=twoGbMaxExtentSparse"),
        ("vhdx", "subformat=dynamic"),
        ("vpc", "subformat=dynamic,force_size=on"),
        ("vdi", "static=off"),
    ] {
        let disk = host.path(&format!("a.{format}"));
        let (from, to) = (raw.to_str().unwrap(), disk.to_str().unwrap());
        let args = ["convert", "-f", "raw", "-O", format, "-o", options, from, to];
        run("/usr/bin/qemu-img", "qemu-utils", &args);
        // Below libguestfs's overlay.
        let script = format!("add-ro {to}\nrun\nblockdev-getsize64 /dev/sda\nlist-filesystems\n");
        let output = host.session(&script);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{format} {options}: {stderr}");
        let stdout = String::from_utf8_lossy(&output.stdout);
        let size = std::fs::metadata(&raw).unwrap().len().to_string();
        assert!(stdout.contains("ext4") && stdout.contains(&size), "{format}: {stdout}");
        let output = host.session(&format!("add {to}\nrun\n"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            stderr.contains(&format!("images of format {format} can only be read")),
            "{stderr}"
        );
    }
}

#[test]
fn a_disk_is_looked_at_beside_a_running_vm_and_keeps_none_from_starting() {
    common::a_look_is_in_no_vms_way(&host());
}

#[test]
fn a_raw_image_whose_format_was_not_given_never_looks_like_one_of_another_format() {
    common::a_guessed_image_stays_raw(&host());
}

#[test]
fn a_compressed_image_is_looked_at_and_never_written() {
    common::a_compressed_image_is_only_read(&host());
}

/// A small filesystem of the host.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(path: std::path::PathBuf) -> Self {
        fs::create_dir(&path).unwrap();
        let at = path.to_str().unwrap();
        run("/bin/mount", "mount", &["-t", "tmpfs", "-o", "size=8m", "small", at]);
        Small(path)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run("/bin/umount", "mount", &["-l", self.0.to_str().unwrap()]);
    }
}

#[test]
fn a_full_filesystem_of_the_host_is_told_to_the_client() {
    let host = host();
    let large = host.path("large");
    fs::write(&large, vec![b'x'; 16 << 20]).unwrap();
    for (name, add) in [("a.qcow2", ""), ("a.img", ""), ("a.img", " format:raw")] {
        let small = Small::mount(host.path("small"));
        let disk = small.0.join(name);
        let format = name.rsplit_once('.').unwrap().1.replace("img", "raw");
        let create = ["create", "-q", "-f", &format, disk.to_str().unwrap(), "64M"];
        run("/usr/bin/qemu-img", "qemu-utils", &create);
        let (image, large) = (disk.display(), large.display());
        let direct = "dd if=/dev/zero of=/dev/sda bs=1M count=16 oflag=direct";
        let script = format!(
            "add {image}{add}\nrun\n-upload {large} /dev/sda\n-sync\n-debug sh \"{direct}\"\n"
        );
        let output = host.session(&script);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(stderr.matches("the host's filesystem is full").count(), 1, "{stderr}");
        // Through a page cache the kernel calls it EIO. A loop device has one on the file itself.
        if add.is_empty() {
            assert!(stderr.contains("'/dev/sda': No space left on device"), "{name}: {stderr}");
        }
        drop(small);
        fs::remove_dir(host.path("small")).unwrap();
    }
}

#[test]
fn a_daemon_that_ends_at_once_is_the_error_of_the_first_call() {
    common::a_daemon_that_ends_at_once_says_so(host());
}

#[test]
fn a_daemon_that_is_killed_is_named() {
    common::a_daemon_that_is_killed_is_named(&host());
}

#[test]
fn an_image_in_use_is_refused() {
    let host = host();
    let disk = host.ext4("a.img");
    let other = Host::new("instant");
    let running = host.running(&format!("add {} format:raw", disk.display()));
    let script = format!("add {} format:raw\nrun\n", disk.display());
    let output = other.command(&script).output().unwrap();
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("in use by another program"), "{stderr}");
    // What its own child then misses is no news.
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let daemon = running.daemon();
    running.kill(daemon, Signal::TERM);
}

/// Kills one process of a session, which is gone then, with its mounts, devices and all.
fn killed(which: impl Fn(&common::Running<'_>) -> i32, signal: Signal) {
    let host = host();
    let (disk, base) = (host.ext4("a.img"), host.ext4("b.img"));
    let overlay = host.qcow2("b.qcow2", &base, "raw");
    let add = format!("add {}\nadd {} format:raw", overlay.display(), disk.display());
    let running = host.running(&add);
    let pid = which(&running);
    running.kill(pid, signal);
    // Another session finds all in order.
    let text = host.prints(&format!("{add}\nrun\nmount /dev/sda /\ncat /hello\n"));
    assert_eq!(text, "from the host\n\n");
    run("/usr/bin/qemu-img", "qemu-utils", &["check", "-q", overlay.to_str().unwrap()]);
}

#[test]
fn nothing_is_left_of_a_killed_client() {
    killed(|r| i32::try_from(r.client.id()).unwrap(), Signal::KILL);
}

#[test]
fn nothing_is_left_when_the_daemon_is_killed() {
    killed(|r| r.daemon(), Signal::KILL);
}

#[test]
fn nothing_is_left_when_the_program_itself_is_killed() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::KILL] {
        killed(|r| r.hypervisor(), signal);
    }
}

#[test]
fn the_kernel_swaps_to_no_disk_of_a_session_whoever_was_killed() {
    type Victim = fn(&common::Running<'_>) -> i32;
    let victims: [Victim; 4] = [
        |r| i32::try_from(r.client.id()).unwrap(),
        |r| r.hypervisor(),
        |r| r.process_1(),
        |r| r.daemon(),
    ];
    for who in victims {
        let host = host();
        let (disk, swap) = (host.ext4("a.img"), host.path("swap.img"));
        fs::File::create(&swap).unwrap().set_len(64 << 20).unwrap();
        // Nobody but the session's own processes sees to its end then.
        let add = format!(
            "set-recovery-proc false\nadd {} format:raw\nadd {} format:raw",
            disk.display(),
            swap.display()
        );
        let file = "fallocate64 /swap 16777216\nmkswap-file /swap\nswapon-file /swap";
        let calls = format!("mkswap /dev/sdb\nswapon-device /dev/sdb\n{file}");
        let running = host.running_with(&add, &calls);
        let pid = who(&running);
        // What is swapped to stays attached.
        running.kill(pid, Signal::KILL);
    }
}

/// Loop devices of a file of their own, which do not stay if the test fails.
struct Attached {
    file: tempfile::NamedTempFile,
    names: Vec<String>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Those that were detached meanwhile may be somebody else's by now.
        let file = self.file.path().to_str().unwrap();
        let left = run("/sbin/losetup", "mount", &["-n", "-O", "NAME", "-j", file]);
        for name in left.lines() {
            run("/sbin/losetup", "mount", &["-d", name]);
        }
    }
}

#[test]
fn a_loop_device_that_becomes_free_during_a_session_can_be_used_in_it() {
    let host = host();
    let disk = host.ext4("a.img");
    let mut busy = Attached { file: tempfile::NamedTempFile::new().unwrap(), names: Vec::new() };
    busy.file.as_file().set_len(4 << 20).unwrap();
    let file = busy.file.path().to_str().unwrap().to_owned();
    run("/sbin/mkfs.ext4", "e2fsprogs", &["-q", &file]);
    // Every loop device that there was is in use until the session is under way.
    let there = fs::read_dir("/sys/block").unwrap().flatten();
    let loops = there.filter(|e| e.file_name().to_string_lossy().starts_with("loop")).count();
    for _ in 0..loops {
        let name = run("/sbin/losetup", "mount", &["--find", "--show", &file]);
        busy.names.push(name.trim().to_owned());
    }
    let free: String = busy.names.iter().map(|n| format!("!/sbin/losetup -d {n}\n")).collect();
    let text = host.prints(&format!(
        "add {} format:raw\nrun\nmount /dev/sda /\nupload {file} /inner\nmkdir /at\n{free}\
         mount-loop /inner /at\nls /at\numount /at\n",
        disk.display(),
    ));
    assert_eq!(text, "lost+found\n");
}

#[test]
fn the_hosts_devices_and_files_are_out_of_sight() {
    let host = host();
    let disk = host.ext4("a.img");
    let script = format!(
        "add {} format:raw\nrun\ndebug sh \"ls /home /root /srv /var/lib; cut -c26- /proc/partitions; ls /sys/block; \
         ls /dev/sd* /dev/vd* /dev/nvme*; touch /usr/x /etc/x; echo done\"\n",
        disk.display()
    );
    let output = host.session(&script);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("sda") && !text.contains("vda") && !text.contains("nvme0"), "{text}");
}

#[test]
fn device_nodes_of_a_guest_do_not_work() {
    let host = host();
    let disk = host.ext4("a.img");
    // /dev/zero: the host's, if it could be read.
    let script = format!(
        "add {} format:raw\nrun\nmount /dev/sda /\nmknod-c 0666 1 5 /zero\npread /zero 4 0\n",
        disk.display()
    );
    let output = host.session(&script);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("/zero: Permission denied"), "{stderr}");
}

#[test]
fn an_empty_file_is_a_disk_without_sectors() {
    common::an_empty_file_has_no_sectors(&host());
}

#[test]
fn virt_rescue_is_told_at_once_that_there_is_no_vm() {
    let host = host();
    let disk = host.ext4("a.img");
    // It wants a terminal, which script(1) has.
    let novm = env!("CARGO_BIN_EXE_guestfs-novm");
    let command = format!("{novm} --instant -- virt-rescue --format=raw -a {}", disk.display());
    let text =
        run("/usr/bin/timeout", "bsdutils", &["60", "script", "-qec", &command, "/dev/null"]);
    assert!(text.contains("guestfs-novm: virt-rescue needs a VM"), "{text}");
    host.nothing_is_left();
}
