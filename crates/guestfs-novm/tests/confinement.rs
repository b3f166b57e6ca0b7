// SPDX-License-Identifier: Apache-2.0
//! What programs and calls of a guest reach in instant mode, where the kernel is the host's: their own disks and
//! nothing else. Needs root, and perl for a hostile program.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{Host, run};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const SECRET: &str = "SECRET-OF-ANOTHER";

fn host() -> Host {
    assert!(rustix::process::geteuid().is_root(), "this test is to be run as root");
    Host::new("instant")
}

/// An image of a guest with a shell and perl.
fn guest(host: &Host) -> PathBuf {
    let tree = host.path("guest");
    for dir in ["bin", "dev", "proc", "sys", "etc", "tmp"] {
        fs::create_dir_all(tree.join(dir)).unwrap();
    }
    let find = |name: &str, package: &str| {
        let places = ["/bin", "/usr/bin"].map(|dir| Path::new(dir).join(name));
        let found = places.into_iter().find(|p| p.exists());
        found.unwrap_or_else(|| panic!("this test needs {name}: install {package}"))
    };
    fs::copy(find("busybox", "busybox-static"), tree.join("bin/busybox")).unwrap();
    for name in ["sh", "grep", "ls", "cat", "dd"] {
        symlink("busybox", tree.join("bin").join(name)).unwrap();
    }
    // Perl with its modules, and the libraries that it is linked with.
    let perl = fs::canonicalize(find("perl", "perl-base")).unwrap();
    fs::copy(&perl, tree.join("bin/perl")).unwrap();
    let linked = run("/usr/bin/ldd", "libc-bin", &[perl.to_str().unwrap()]);
    for library in linked.split_whitespace().filter(|word| word.starts_with('/')) {
        let inside = tree.join(&library[1..]);
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        fs::copy(library, inside).unwrap();
    }
    let script = "use POSIX (); use Fcntl qw(:DEFAULT S_IFBLK); POSIX::strerror(1); \
                  require Carp; print join qq(\\n), values %INC";
    let perl = perl.to_str().unwrap();
    let dirs = run(perl, "perl-base", &["-e", "print join qq(\\n), @INC"]);
    let mut files = run(perl, "perl-base", &["-e", script]);
    for dir in dirs.lines() {
        for name in ["POSIX", "Fcntl"] {
            files += &format!("\n{dir}/auto/{name}/{name}.so");
        }
    }
    for file in files.lines().filter(|f| Path::new(f).exists()) {
        let inside = tree.join(&file[1..]);
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        fs::copy(file, inside).unwrap();
    }
    fs::write(tree.join("attack.pl"), include_str!("data/attack.pl")).unwrap();
    let image = host.path("guest.img");
    fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
    let (from, to) = (tree.to_str().unwrap(), image.to_str().unwrap());
    run("/usr/sbin/mkfs.ext4", "e2fsprogs", &["-q", "-d", from, to]);
    image
}

/// A loop device of the host with a secret on it.
struct Secret(String);

impl Secret {
    fn new() -> Self {
        // The device keeps the file.
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, SECRET.repeat(1 << 16)).unwrap();
        let path = file.path().to_str().unwrap();
        let name = run("/usr/sbin/losetup", "mount", &["--find", "--show", path]);
        Self(name.trim().to_owned())
    }

    fn minor(&self) -> &str {
        self.0.trim_start_matches("/dev/loop")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        run("/usr/sbin/losetup", "mount", &["--detach", &self.0]);
    }
}

#[test]
fn a_hostile_program_of_a_guest_reaches_its_own_disk_and_nothing_else() {
    let host = host();
    let image = guest(&host);
    let secret = Secret::new();
    // The control of what is tried on the node: for the host, the secret is there.
    assert!(fs::read_to_string(&secret.0).unwrap().starts_with(SECRET));
    let text = host.prints(&format!(
        "add {} format:raw\nrun\nmount /dev/sda /\ncommand \"/bin/busybox timeout 60 /bin/perl /attack.pl {}\"\n",
        image.display(),
        secret.minor()
    ));
    let outcomes: Vec<(&str, &str)> =
        text.trim().lines().map(|line| line.rsplit_once(": ").unwrap()).collect();
    let (works, refused): (Vec<_>, Vec<_>) =
        outcomes.into_iter().partition(|(_, outcome)| matches!(*outcome, "done" | "REACHED"));
    // The controls: the program does what it is to do, and what a guest may.
    let works: Vec<&str> = works.into_iter().map(|(name, _)| name).collect();
    let controls = ["own disk", "null", "shared memory", "node in the guest", "owner", "chroot"];
    assert_eq!(works, controls, "{text}");
    // Whether a kernel has a file or a system call at all differs; that it refuses does not.
    assert_eq!(refused.len(), 34, "{text}");
    let made: Vec<_> = refused.iter().filter(|(_, how)| how.starts_with("made")).collect();
    assert_eq!(made.len(), 3, "{text}");
    assert!(refused.contains(&("loop devices", "none")), "{text}");
    assert!(refused.contains(&("around the root", "nothing")), "{text}");
}

#[test]
fn loop_devices_that_the_host_sets_up_later_are_out_of_reach_of_programs_and_calls() {
    let host = host();
    let image = guest(&host);
    let file = host.path("later");
    fs::write(&file, SECRET.repeat(1 << 16)).unwrap();
    let disk = host.path("disk");
    fs::write(&disk, "SECRET-OF-THIS".repeat(1 << 16)).unwrap();
    // Every block device that the guest's program has is searched; its second disk is the control.
    let search = "for n in $(ls -R /dev | grep -v :); do busybox test -b /dev/$n && \
                  dd if=/dev/$n bs=1M count=4 2>/dev/null | grep -q SECRET-OF && echo /dev/$n; done; true";
    let script = format!(
        "add {} format:raw\nadd {} format:raw\nrun\nmount /dev/sda /\n\
         !/usr/sbin/losetup --find {}\nsh '{search}'\n\
         debug sh \"ls /dev\"\n!for d in $(/usr/sbin/losetup -n -O NAME -j {}); do /usr/sbin/losetup -d $d; done\n",
        image.display(),
        disk.display(),
        file.display(),
        file.display(),
    );
    let text = host.prints(&script);
    assert!(text.starts_with("/dev/sdb\n\n"), "{text}");
    assert!(text.contains("\nsda\n") && !text.contains("loop"), "{text}");
}

#[test]
fn a_device_of_a_file_in_the_guest_is_shown_to_the_daemon_for_as_long_as_it_is_mounted() {
    let host = host();
    let image = guest(&host);
    let inner = host.path("inner");
    fs::File::create(&inner).unwrap().set_len(8 << 20).unwrap();
    run("/usr/sbin/mkfs.ext4", "e2fsprogs", &["-q", inner.to_str().unwrap()]);
    let devices = "debug sh \"ls /dev | grep -c loop || true\"\n";
    // The control is the daemon's own view of the same moment.
    let text = host.prints(&format!(
        "add {} format:raw\nrun\nmount /dev/sda /\nupload {} /inner\nmkdir /at\n{devices}\
         mount-loop /inner /at\n{devices}sh \"ls -R /dev\"\numount /at\n{devices}\
         -mount-loop /attack.pl /at\n{devices}\
         mount-loop /inner /at\n{devices}umount-all\n{devices}",
        image.display(),
        inner.display()
    ));
    let counts: Vec<&str> = text.lines().filter(|l| matches!(*l, "0" | "1")).collect();
    assert_eq!(counts, ["0", "1", "0", "0", "1", "0"], "{text}");
    let listing = text.lines().skip_while(|l| *l != "/dev:").collect::<Vec<_>>();
    assert!(listing.contains(&"sda") && !listing.iter().any(|l| l.starts_with("loop")), "{text}");
}

#[test]
fn a_read_only_file_of_a_guest_is_mounted_to_be_read() {
    let host = host();
    let image = guest(&host);
    let inner = host.ext4("inner.img");
    let text = host.prints(&format!(
        "add {} format:raw\nrun\nmount /dev/sda /\nupload {} /inner\nmkdir /at\numount /\n\
         mount-ro /dev/sda /\nmount-loop /inner /at\ncat /at/hello\n-touch /at/new\nexists /at/new\n",
        image.display(),
        inner.display()
    ));
    assert_eq!(text, "from the host\n\nfalse\n");
}
