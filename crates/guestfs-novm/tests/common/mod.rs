// SPDX-License-Identifier: Apache-2.0
//! Sessions of the real guestfish through guestfs-novm, and what is left of them.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests"
)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

static COUNT: AtomicU32 = AtomicU32::new(0);
/// How long anything may take on a slow machine; a test that hangs fails then.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// A directory with images, and the sessions that use them.
pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    mode: &'static str,
    /// The daemon of the sessions.
    pub(crate) daemon: PathBuf,
    /// In the environment of every process of the sessions.
    mark: String,
}

impl Host {
    pub(crate) fn new(mode: &'static str) -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let mark = format!("GUESTFSD_TEST_MARK={}-{number}", std::process::id());
        let daemon = Path::new(env!("CARGO_BIN_EXE_guestfs-novm")).with_file_name("guestfsd");
        Self { dir: tempfile::tempdir().unwrap(), mode, daemon, mark }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A raw image with an ext4 filesystem in which there is a file /hello.
    pub(crate) fn ext4(&self, name: &str) -> PathBuf {
        let (image, tree) = (self.path(name), self.path("tree"));
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join("hello"), "from the host\n").unwrap();
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let tree = tree.to_str().unwrap();
        run("/usr/sbin/mkfs.ext4", "e2fsprogs", &["-q", "-d", tree, image.to_str().unwrap()]);
        image
    }

    pub(crate) fn qcow2(&self, name: &str, backing: &Path, format: &str) -> PathBuf {
        let image = self.path(name);
        let (new, old) = (image.to_str().unwrap(), backing.to_str().unwrap());
        let options = ["create", "-q", "-f", "qcow2", "-F", format, "-b", old, new];
        run("/usr/bin/qemu-img", "qemu-utils", &options);
        image
    }

    /// A client that has these commands of guestfish to read.
    pub(crate) fn command(&self, script: &str) -> Command {
        let novm = env!("CARGO_BIN_EXE_guestfs-novm");
        let guestfsd = &self.daemon;
        assert!(guestfsd.exists(), "{}: cargo build -p guestfsd makes it", guestfsd.display());
        assert!(
            Path::new("/usr/bin/guestfish").exists(),
            "guestfish is needed (Debian package libguestfs-tools)"
        );
        let file = self.path("script");
        fs::write(&file, script).unwrap();
        let mut command = Command::new(novm);
        let (name, value) = self.mark.split_once('=').unwrap();
        command
            .arg(format!("--{}", self.mode))
            .arg("--guestfsd")
            .arg(guestfsd)
            .args(["--", "guestfish", "-f"])
            .arg(file)
            .env("TMPDIR", self.dir.path())
            .env_remove("LIBGUESTFS_DEBUG")
            .env(name, value)
            .stdin(Stdio::null());
        command
    }

    /// Another client than guestfish, or guestfish with other arguments, to its end.
    pub(crate) fn tool(&self, words: &[impl AsRef<OsStr>]) -> Output {
        let guestfish = self.command("");
        let mut tool = Command::new(guestfish.get_program());
        tool.args(guestfish.get_args().take_while(|word| *word != "guestfish")).args(words);
        tool.env("TMPDIR", self.dir.path()).env_remove("LIBGUESTFS_DEBUG").stdin(Stdio::null());
        tool.output().unwrap()
    }

    /// Runs a session to its end; nothing must be left of it.
    pub(crate) fn session(&self, script: &str) -> Output {
        let output = self.command(script).output().unwrap();
        self.nothing_is_left();
        output
    }

    /// What a session that goes well prints.
    #[track_caller]
    pub(crate) fn prints(&self, script: &str) -> String {
        let output = self.session(script);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A session that is under way: it has written /mark and sleeps.
    pub(crate) fn running(&self, disks: &str) -> Running<'_> {
        self.running_with(disks, "")
    }

    /// The same, after it has done this as well.
    pub(crate) fn running_with(&self, disks: &str, calls: &str) -> Running<'_> {
        let up = self.path("up");
        fs::remove_file(&up).ok();
        let script = format!(
            "{disks}\nrun\nmount /dev/sda /\nwrite /mark x\n{calls}\n!touch {}\nsleep 600\n",
            up.display()
        );
        let mut command = self.command(&script);
        let said = self.path("stderr");
        let stderr = fs::File::create(&said).unwrap();
        let client = command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        let mut running = Running { host: self, client };
        wait_until("the session is up", || {
            let ended = running.client.try_wait().unwrap().is_some();
            assert!(!ended, "{}", fs::read_to_string(&said).unwrap());
            up.exists()
        });
        running
    }

    /// IDs of all processes of this host's sessions.
    pub(crate) fn processes(&self) -> Vec<(i32, String)> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment.split(|b| *b == 0).any(|v| v == self.mark.as_bytes()) {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
            }
        }
        found.sort();
        found
    }

    fn loops(&self) -> Vec<String> {
        let dir = self.dir.path().to_str().unwrap();
        let names = fs::read_dir("/sys/block").unwrap().flatten();
        let files =
            names.filter_map(|e| fs::read_to_string(e.path().join("loop/backing_file")).ok());
        files.filter(|f| f.starts_with(dir)).collect()
    }

    #[track_caller]
    pub(crate) fn nothing_is_left(&self) {
        wait_until("all processes have ended", || self.processes().is_empty());
        wait_until("all loop devices are detached", || self.loops().is_empty());
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        assert!(!mounts.contains("guestfs-novm"), "{mounts}");
        let left: Vec<_> = fs::read_dir(std::env::temp_dir())
            .unwrap()
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .filter(|n| n.starts_with("guestfs-novm."))
            .collect();
        assert_eq!(left, [""; 0]);
    }
}

/// A client that is running.
pub(crate) struct Running<'h> {
    host: &'h Host,
    pub(crate) client: Child,
}

impl Running<'_> {
    /// The process that the client started, which is its only child with this name and parent.
    pub(crate) fn hypervisor(&self) -> i32 {
        self.child_of(i32::try_from(self.client.id()).unwrap())
    }

    /// Process 1 of the session's namespace.
    pub(crate) fn process_1(&self) -> i32 {
        self.child_of(self.hypervisor())
    }

    fn child_of(&self, of: i32) -> i32 {
        let parent = |pid: i32| -> i32 {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            fields.split(' ').nth(1).and_then(|p| p.parse().ok()).unwrap_or(0)
        };
        let processes = self.host.processes();
        let found = processes
            .iter()
            .find(|(pid, line)| line.contains("guestfs-novm -global") && parent(*pid) == of);
        found.unwrap_or_else(|| panic!("no child of {of}: {processes:?}")).0
    }

    /// The daemon.
    pub(crate) fn daemon(&self) -> i32 {
        let processes = self.host.processes();
        let found = processes.iter().find(|(_, line)| line.starts_with("/guestfsd "));
        found.unwrap_or_else(|| panic!("no daemon: {processes:?}")).0
    }

    /// Sends a signal to a process, and waits for the client's end.
    pub(crate) fn kill(mut self, pid: i32, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        // guestfish goes on sleeping when the daemon is gone, if it is that command's turn.
        wait_until("the daemon has ended", || {
            !self.host.processes().iter().any(|(_, line)| line.starts_with("/guestfsd "))
        });
        self.client.kill().ok();
        self.client.wait().unwrap();
        self.host.nothing_is_left();
    }
}

/// A program that holds an image as a VM does that writes it.
pub(crate) struct Vm {
    nbd: Child,
    socket: PathBuf,
}

impl Vm {
    pub(crate) fn start(image: &Path, format: &str) -> Self {
        let socket = image.with_extension("socket");
        let nbd = Command::new("/usr/bin/qemu-nbd")
            .args(["-t", "-f", format, "-k"])
            .args([&socket, image])
            .spawn()
            .expect("qemu-nbd is needed (Debian package qemu-utils)");
        let mut vm = Vm { nbd, socket };
        wait_until("qemu-nbd serves the image", || {
            assert!(vm.nbd.try_wait().unwrap().is_none(), "qemu-nbd has ended: is it locked?");
            vm.socket.exists()
        });
        vm
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.nbd.kill().ok();
        self.nbd.wait().ok();
        fs::remove_file(&self.socket).ok();
    }
}

/// Serves an empty file as the first of two disks.
pub(crate) fn an_empty_file_has_no_sectors(host: &Host) {
    let (first, second) = (host.path("empty.img"), host.ext4("a.img"));
    fs::write(&first, "").unwrap();
    let text = host.prints(&format!(
        "add {} format:raw\nadd {}\nrun\nlist-devices\nblockdev-getsize64 /dev/sda\n\
         list-filesystems\nmount /dev/sdb /\ncat /hello\n",
        first.display(),
        second.display()
    ));
    assert_eq!(text, "/dev/sda\n/dev/sdb\n0\n/dev/sda: unknown\n/dev/sdb: ext4\nfrom the host\n\n");
}

/// Writes to a raw image what makes it look like one of another format, as a guest's program may, and
/// looks at the file meanwhile: whoever opened it would follow the names in it.
pub(crate) fn a_guessed_image_stays_raw(host: &Host) {
    let disk = host.ext4("a.img");
    let begins = |bytes: &[u8]| fs::read(&disk).unwrap().starts_with(bytes);
    for (name, magic) in [
        ("qcow2", &b"QFI\xfb\0\0\0\x03"[..]),
        ("xz", b"\xfd7zXZ\0"),
        ("zst", b"\x28\xb5\x2f\xfd"),
        ("gz", b"\x1f\x8b\x08"),
    ] {
        let (forged, seen) = (host.path("forged"), host.path("seen"));
        fs::write(&forged, magic).unwrap();
        let script =
            |add: &str, calls: &str| format!("add {}{add}\nrun\n{calls}\n", disk.display());
        let upload = format!("upload-offset {} /dev/sda", forged.display());
        let look = format!("!head -c 512 {} > {}", disk.display(), seen.display());
        let output = host.session(&script("", &format!("-{upload} 0\n-sync\n{look}")));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(fs::read(&seen).unwrap(), [0; 512], "{name}: {stderr}");
        let text = format!("these bytes would make the image look like a {name} image");
        assert_eq!(stderr.matches(&text).count(), 1, "{stderr}");
        assert!(stderr.contains("give it (format=raw)"), "{stderr}");
        assert!(begins(&[0; 512]), "{name}");
        // Elsewhere it harms nobody, and whose format is given may hold what it likes.
        host.prints(&script("", &format!("{upload} 512")));
        assert!(fs::read(&disk).unwrap()[512..].starts_with(magic), "{name}");
        host.prints(&script(" format:raw", &format!("{upload} 0")));
        assert!(begins(magic), "{name}");
        fs::File::options().write(true).open(&disk).unwrap().write_all_at(&[0; 1024], 0).unwrap();
    }
}

/// Looks at an image as it was downloaded, and tries to write to it.
pub(crate) fn a_compressed_image_is_only_read(host: &Host) {
    let disk = host.ext4("a.img");
    let raw = disk.to_str().unwrap();
    for (program, package, format) in
        [("xz", "xz-utils", "xz"), ("zstd", "zstd", "zst"), ("gzip", "gzip", "gz")]
    {
        run(program, package, &["-k", "-q", "-f", raw]);
        let file = PathBuf::from(format!("{raw}.{format}"));
        let (name, before) = (file.display(), fs::read(&file).unwrap());
        let script = "run\nblockdev-getsize64 /dev/sda\nmount /dev/sda /\ncat /hello\n\
                      write /new content\ncat /new\n";
        let text = host.prints(&format!("add-ro {name}\n{script}"));
        assert_eq!(text, "67108864\nfrom the host\n\ncontent\n", "{name}");
        let output = host.session(&format!("add {name}\nrun\n"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        let refusal = format!("images of format {format} can only be read: add it read-only");
        assert!(!output.status.success() && stderr.contains(&refusal), "{stderr}");
        // Its own bytes: for who gives the format, or has given it another name.
        let (other, seen) = (host.path("renamed"), host.path("seen"));
        fs::copy(&file, &other).unwrap();
        for add in [format!("add {name} format:raw"), format!("add-ro {}", other.display())] {
            let download = format!("download-offset /dev/sda {} 0 512\n", seen.display());
            host.prints(&format!("{add}\nrun\n{download}"));
            assert_eq!(fs::read(&seen).unwrap()[..], before[..512], "{add}");
        }
        assert!(fs::read(&file).unwrap() == before, "{name}");
    }
}

/// Looks into the disks of a running VM, and starts a VM on a disk that is looked at; in the way in
/// which `host` is served.
pub(crate) fn a_look_is_in_no_vms_way(host: &Host) {
    let raw = host.ext4("a.img");
    let qcow2 = host.path("a.qcow2");
    let (from, to) = (raw.to_str().unwrap(), qcow2.to_str().unwrap());
    run("/usr/bin/qemu-img", "qemu-utils", &["convert", "-O", "qcow2", from, to]);
    let overlay = host.qcow2("top.qcow2", &qcow2, "qcow2");
    for (image, format) in [(&raw, "raw"), (&qcow2, "qcow2"), (&overlay, "qcow2")] {
        let add = format!("add {} format:{format}", image.display());
        {
            let _vm = Vm::start(image, format);
            for add in [format!("add-ro {}", image.display()), format!("{add} readonly:true")] {
                let script = "run\nmount-ro /dev/sda /\ncat /hello\n";
                assert_eq!(host.prints(&format!("{add}\n{script}")), "from the host\n\n", "{add}");
            }
            let output = host.session(&format!("{add}\nrun\n"));
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(
                !output.status.success() && stderr.contains("in use by another program"),
                "{stderr}"
            );
        }
        let running = host.running(&format!("{add} readonly:true"));
        drop(Vm::start(image, format));
        let daemon = running.hypervisor();
        running.kill(daemon, rustix::process::Signal::TERM);
    }
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn run(program: &str, package: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e} (Debian package {package})"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// With this in its environment, the first call of a client fails for these reasons, and nothing is left.
#[track_caller]
pub(crate) fn fails_at_the_first_call(
    host: &Host,
    disk: &str,
    (variable, value): (&str, &str),
    reasons: &[&str],
) {
    let mut client = host.command(&format!("add {disk} format:raw\nrun\nlist-devices\n"));
    let output = client.env(variable, value).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("list_devices: guestfs-novm: "), "{value}: {said}");
    assert_eq!(said.lines().count(), 1, "{value}: {said}");
    for reason in reasons {
        assert!(said.contains(reason), "{value}: {said}");
    }
    host.nothing_is_left();
}

pub(crate) fn a_daemon_that_ends_at_once_says_so(mut host: Host) {
    let disk = host.ext4("a.img");
    let disk = disk.to_str().unwrap();
    let text = host.path("text");
    fs::write(&text, "no program").unwrap();
    fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
    for (daemon, reasons) in [
        ("/bin/false", ["/bin/false ended with status 1", "LIBGUESTFS_DEBUG=1"]),
        (text.to_str().unwrap(), ["cannot be started: Exec format error", "--guestfsd"]),
    ] {
        host.daemon = daemon.into();
        fails_at_the_first_call(&host, disk, ("LC_ALL", "C"), &reasons);
    }
}

/// Kills the daemon in the middle of a session: its client's standard error says so.
pub(crate) fn a_daemon_that_is_killed_is_named(host: &Host) {
    let disk = host.ext4("a.img");
    let add = format!("add {} format:raw\nrun\n", disk.display());
    let output = host.session(&format!("{add}debug sh \"kill -ABRT $PPID\"\n"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    let wanted = "guestfsd was killed by signal 6\n";
    let told = said.lines().filter(|line| line.starts_with("guestfs-novm: "));
    let told: Vec<String> = told.map(|line| format!("{line}\n")).collect();
    assert_eq!(told.len(), 1, "{said}");
    let begin = "guestfs-novm: the session has broken off: /";
    assert!(told[0].starts_with(begin) && told[0].ends_with(wanted), "{said}");
}
