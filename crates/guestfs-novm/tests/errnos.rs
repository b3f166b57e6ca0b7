// SPDX-License-Identifier: Apache-2.0
//! Calls with arguments that make no sense, to the distribution's daemon and to ours: where it fails, ours
//! fails, and with the same error number. The calls are made of the table of procedures; texts of
//! errors are not compared.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod common;

use guestfs_api::xdr::Encoder;
use guestfs_api::{Kind, PROCEDURES, Procedure};
use guestfs_client::{Client, Error};
use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Arguments of one kind, and what there is when a call is made with them.
struct Scenario {
    name: &'static str,
    /// How the first disk, which has an ext4 filesystem, is mounted on `/`; or not.
    mounted: Option<&'static str>,
    path: &'static str,
    device: &'static str,
    text: &'static str,
    number: i32,
}

const EMPTY: Scenario =
    Scenario { name: "", mounted: Some("rw"), path: "", device: "", text: "", number: 0 };

/// The second disk is blank.
#[rustfmt::skip]
const SCENARIOS: &[Scenario] = &[
    Scenario { name: "nothing mounted", mounted: None, path: "/file", device: "/dev/sdz", text: "x", number: 1 },
    Scenario { name: "empty", ..EMPTY },
    Scenario { name: "relative", path: "relative", device: "sda", text: "x", number: 1, ..EMPTY },
    Scenario { name: "missing", path: "/missing/x", device: "/dev/sdz", text: "x", number: 1, ..EMPTY },
    Scenario { name: "below a file", path: "/file/x", device: "/dev/null", text: "x", number: 1, ..EMPTY },
    Scenario { name: "directory", path: "/dir", device: "/dev/sdb", text: "nonsense", number: 1, ..EMPTY },
    Scenario { name: "negative", path: "/file", device: "/dev/sdz", text: "-1", number: -1, ..EMPTY },
    Scenario { name: "read-only", mounted: Some("ro"), path: "/file", device: "/dev/sdz", text: "x", number: 1 },
];

/// Procedures that are not called: they end the session or what it has mounted, wait, or do as they like.
const LEFT_OUT: &[&str] = &[
    "umount",
    "umount_all",
    "internal_autosync",
    "internal_exit",
    "internal_rhbz914931",
    "sleep",
    "inotify_read",
    "blockdev_setro",
    "debug",
    "internal_readdir",
    "set_e2generation",
];

/// What is right to differ: procedures, what the distribution's daemon answers and ours, and why.
#[rustfmt::skip]
const NOTES: &[(&[&str], &str, &str, &str)] = &[
    (&["list_9p"], "error ", "ok", "release 1.48 has it fail; that there are none is as true"),
    (&["tar_out", "cpio_out", "ln"], "error ENOENT", "error EINVAL", "a path that is not absolute is a bad argument"),
    (&["tar_out", "cpio_out"], "ok", "error EINVAL", "and so is an empty one"),
    (&["ln_f"], "error ENOENT", "", "which of two bad paths is looked at first"),
    (&["copy_file_to_device"], "error ENOENT", "error EINVAL", "nothing is mounted: said before the device is looked for"),
    (&["filesystem_available"], "ok", "error EINVAL", "no filesystem has an empty name"),
    (&["internal_list_rpm_applications"], "error ", "ok", "where no RPM database is, there are no packages"),
    (&["xfs_repair"], "ok", "error ENOENT", "/dev/null is no device, and no file of the guest"),
    (&["remount"], "error ", "ok", "nothing is changed where rw is not given"),
    (&["equal", "strings", "hexdump"], "ok", "error EISDIR", "a directory has no contents"),
    (&["ntfsclone_out", "ntfscat_i", "download_inode"], "broken off", "error EIO", "said before the reply goes out"),
    (&["part_set_gpt_guid", "part_set_disk_guid", "part_set_gpt_attributes"], "ok", "", "there is no GPT, and no GUID"),
    (&["setxattr", "lsetxattr"], "error E2BIG", "error EINVAL", "a negative length is a bad argument"),
    (&["debug_upload", "internal_upload", "fill_dir"], "ok", "error EINVAL", "a negative number is a bad argument"),
    (&["download_offset"], "ended", "error E", "a negative size ends the distribution's daemon"),
    (&["upload_offset"], "ended", "error E", "the distribution's daemon may answer while the file still comes"),
    (&["grep", "egrep", "fgrep", "grepi", "egrepi", "fgrepi"], "error ", "ok", "an expression that begins with a dash is no option"),
    (&["zgrep", "zegrep", "zfgrep", "zgrepi", "zegrepi", "zfgrepi"], "error ", "ok", "and neither here"),
    (&["grub_install"], "error ENOENT", "error EINVAL", "nothing is mounted: said before the device is looked for"),
    (&["btrfs_subvolume_list", "btrfs_subvolume_get_default"], "error ENOENT", "error EINVAL", "an empty name is a bad argument"),
    (&["btrfs_quota_enable", "btrfs_quota_rescan"], "error ENOENT", "error EINVAL", "a path that is not absolute is a bad argument"),
    (&["btrfs_set_seeding"], "ok", "error EIO", "there is no btrfs"),
    (&["btrfs_filesystem_defragment"], "ok", "error EINVAL", "and neither here"),
    (&["rsync_in", "rsync_out"], "ok", "error EINVAL", "a remote is on another machine: no path of this one"),
    (&["part_get_disk_guid", "part_set_disk_guid_random"], "ok", "error EIO", "there is no GPT"),
];

/// Groups that need something of the kernel, and where that is. Without it the distribution's daemon goes on until
/// the first argument is wrong, ours says what is missing. Where it is there, scripts of tests/guestfs compare them.
const OF_THE_KERNEL: &[(&str, &str)] = &[
    ("ldm", "/sys/class/misc/device-mapper"),
    ("luks", "/sys/class/misc/device-mapper"),
    ("lvm2", "/sys/class/misc/device-mapper"),
    ("mdadm", "/proc/mdstat"),
];

/// Whether the kernel has what a procedure needs.
fn is_possible(p: &Procedure) -> bool {
    let needed = OF_THE_KERNEL.iter().find(|(group, _)| p.group == Some(group));
    needed.is_none_or(|(_, file)| Path::new(file).exists())
}

/// A daemon and a connection to it.
struct Session {
    client: Client<UnixStream>,
    hypervisor: Child,
    _dir: tempfile::TempDir,
}

impl Session {
    fn new(daemon: &Path, mounted: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_guestfs-novm"));
        command.args(["-global", "virtio-blk-pci.scsi=off"]);
        for (n, size) in [64 << 20, 4 << 20].into_iter().enumerate() {
            let disk = dir.path().join(format!("disk{n}"));
            fs::File::create(&disk).unwrap().set_len(size).unwrap();
            if n == 0 {
                let disk = disk.to_str().unwrap();
                common::run("/usr/sbin/mkfs.ext4", "e2fsprogs", &["-q", disk]);
            }
            let drive = format!("file={},format=raw,id=hd{n},if=none", disk.display());
            command.args(["-drive", &drive, "-device", &format!("scsi-hd,drive=hd{n}")]);
        }
        let socket = dir.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let chardev = format!("socket,path={},id=channel0", socket.display());
        command.args(["-chardev", &chardev, "-device", "virtserialport,chardev=channel0"]);
        command.env("GUESTFS_NOVM_MODE", "instant").env("GUESTFS_NOVM_GUESTFSD", daemon);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let hypervisor = command.spawn().unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut session = Self { client: Client::new(stream), hypervisor, _dir: dir };
        session.client.wait_for_launch().unwrap();
        assert!(session.does("mount", &["/dev/sda", "/"]) && session.make_files());
        if mounted != Some("rw") {
            assert!(session.does("umount_all", &[]));
        }
        if mounted == Some("ro") {
            assert!(session.does("mount_ro", &["/dev/sda", "/"]));
        }
        session
    }

    /// Makes a call: `ok`, or the name of the error number, which may be none.
    fn call(&mut self, p: &Procedure, body: &[u8]) -> Result<String, Error> {
        match self.client.perform(p, body, &mut &b"data"[..], &mut std::io::sink()) {
            Ok(_) => Ok("ok".to_owned()),
            Err(Error::Daemon { errno, .. }) => Ok(format!("error {errno}")),
            Err(Error::BrokenOff) => Ok("broken off".to_owned()),
            Err(e) => Err(e),
        }
    }

    fn make_files(&mut self) -> bool {
        self.does("mkdir", &["/dir"])
            && self.does("touch", &["/file"])
            && self.does("ln_s", &["loop", "/loop"])
    }

    /// After a call that may have changed it: whether all is as before.
    fn restore(&mut self, scenario: &Scenario) -> bool {
        const MADE: [&str; 7] = ["/dir", "/file", "/loop", "/missing", "/new", "/x", "/nonsense"];
        let files = scenario.mounted != Some("rw")
            || MADE.iter().all(|path| self.does("rm_rf", &[path])) && self.make_files();
        files && (scenario.device != "/dev/sdb" || self.does("zero_device", &["/dev/sdb"]))
    }

    /// Whether a call succeeds.
    fn does(&mut self, name: &str, texts: &[&str]) -> bool {
        let p = PROCEDURES.iter().find(|p| p.name == name).unwrap();
        let mut body = Vec::new();
        let mut e = Encoder::new(&mut body);
        texts.iter().try_for_each(|text| e.string(*text)).unwrap();
        p.options.iter().for_each(|_| e.u32(0));
        self.call(p, &body).is_ok_and(|answer| answer == "ok")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.client.stream().shutdown(std::net::Shutdown::Both).ok();
        let pid = rustix::process::Pid::from_child(&self.hypervisor);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        self.hypervisor.wait().ok();
    }
}

/// The arguments' encoding.
fn body(p: &Procedure, s: &Scenario) -> Vec<u8> {
    let mut body = Vec::new();
    let mut e = Encoder::new(&mut body);
    for argument in p.args.iter().chain(p.options) {
        match argument.kind {
            Kind::FileIn | Kind::FileOut => {}
            Kind::Bool => e.u32(1),
            Kind::Int => e.i32(s.number),
            Kind::Int64 => e.i64(s.number.into()),
            Kind::BufferIn => e.opaque(s.text.as_bytes()).unwrap(),
            Kind::OptString => e.optional_string(Some(std::ffi::OsStr::new(s.text))).unwrap(),
            Kind::StringList | Kind::FilenameList => e.strings(&[s.text]).unwrap(),
            Kind::PathnameList => e.strings(&[s.path]).unwrap(),
            Kind::DeviceList => e.strings(&[s.device]).unwrap(),
            Kind::Pathname => e.string(s.path).unwrap(),
            Kind::Device | Kind::Mountable => e.string(s.device).unwrap(),
            // Both in turn.
            Kind::DevOrPath | Kind::MountableOrPath if p.number.is_multiple_of(2) => {
                e.string(s.device).unwrap();
            }
            Kind::DevOrPath | Kind::MountableOrPath => e.string(s.path).unwrap(),
            Kind::String | Kind::Key | Kind::GUID | Kind::Filename => e.string(s.text).unwrap(),
        }
    }
    body
}

/// What all procedures answer in a scenario.
fn answers(daemon: &Path, scenario: &Scenario) -> Vec<(&'static Procedure, String)> {
    let mut session = Session::new(daemon, scenario.mounted);
    let is_asked = |p: &&Procedure| !LEFT_OUT.contains(&p.name);
    let ask = |p| {
        let answer = session.call(p, &body(p, scenario)).unwrap_or_else(|e| {
            session = Session::new(daemon, scenario.mounted);
            format!("ended: {e}")
        });
        // What yields something is a question.
        if answer == "ok" && p.result.is_none() && !session.restore(scenario) {
            session = Session::new(daemon, scenario.mounted);
        }
        (p, answer)
    };
    PROCEDURES.iter().filter(is_asked).map(ask).collect()
}

#[test]
fn calls_fail_as_with_the_distributions_daemon() {
    let ours = Path::new(env!("CARGO_BIN_EXE_guestfs-novm")).with_file_name("guestfsd");
    let stock = Path::new("/usr/sbin/guestfsd");
    assert!(stock.exists(), "{}: Debian package guestfsd", stock.display());
    let mut wrong = Vec::new();
    for scenario in SCENARIOS {
        let (theirs, ours) = std::thread::scope(|scope| {
            let theirs = scope.spawn(|| answers(stock, scenario));
            let ours = answers(&ours, scenario);
            (theirs.join().unwrap(), ours)
        });
        for ((p, theirs), (_, ours)) in theirs.into_iter().zip(ours) {
            // Where it fails without an error number, any is better.
            let same = theirs == ours || theirs == "error " && ours.starts_with("error E");
            let noted = NOTES.iter().any(|(names, stock, new, _)| {
                let as_noted = theirs == *stock || *stock == "ended" && theirs.starts_with("ended");
                names.contains(&p.name) && as_noted && ours.starts_with(new)
            });
            let impossible = ours == "error ENOTSUP" && !is_possible(p);
            if !same && !noted && !impossible {
                wrong.push(format!("{}: {}: {theirs}, ours: {ours}", scenario.name, p.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
