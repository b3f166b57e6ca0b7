// SPDX-License-Identifier: Apache-2.0
//! Servers for all tests of this program: Debian's, started by tests/vm/ceph.sh and
//! tests/vm/gluster.sh, and ended with it, however that ends.
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;
use std::time::Duration;

/// Waits for the end of its input, which the kernel closes with this process.
const SCRIPT: &str = r#"
. "$1"
trap 'stop_$2; rm -rf "$DIR"' EXIT
start_$2 >&2 || exit 1
echo up
cat >/dev/null
"#;

/// Servers that run as long as this exists.
#[derive(Debug)]
struct Servers {
    dir: PathBuf,
    /// An address of the loopback.
    address: String,
    /// Its input is open as long as this process is there.
    _script: Child,
}

impl Servers {
    /// Starts what a script of tests/vm starts by `start_NAME`; its directory and its address are in
    /// variables.
    fn start(script: &str, name: &str, number: u32, dir: &str, address: &str) -> Self {
        let script = format!("{}/../../tests/vm/{script}", env!("CARGO_MANIFEST_DIR"));
        // Not in memory: Ceph's store wants O_DIRECT. Names of sockets have to be short.
        let place = tempfile::Builder::new().prefix(name).tempdir_in("/var/tmp").unwrap().keep();
        // Others of this machine have other addresses.
        let id = std::process::id();
        let own = format!("127.{}.{}.{}", number + id / 65536 % 64, id / 256 % 256, 1 + id % 254);
        let mut bash = Command::new("bash");
        bash.arg("-c").arg(SCRIPT.replace("$2", name)).args(["bash", &script]);
        bash.env(dir, &place).env("DIR", &place).env(address, &own);
        bash.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = bash.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n", "{name} does not start: `cargo xtask install` has its packages");
        Servers { dir: place, address: own, _script: child }
    }
}

/// Sends a signal to a process, and waits until it is stopped where that is asked for.
fn signal(file: &Path, signal: &str) {
    let pid = std::fs::read_to_string(file).unwrap();
    let pid = pid.trim();
    assert!(Command::new("kill").args([signal, pid]).status().unwrap().success());
    let stopped = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
    };
    while signal == "-STOP" && !stopped() {
        thread::sleep(Duration::from_millis(10));
    }
}

/// A Ceph cluster of one monitor and one OSD. Its images are in the pool "rbd".
#[derive(Debug)]
pub(crate) struct Ceph(Servers);

/// The cluster, which runs when this returns.
pub(crate) fn ceph() -> &'static Ceph {
    static CEPH: LazyLock<Ceph> =
        LazyLock::new(|| Ceph(Servers::start("ceph.sh", "cluster", 1, "CEPH", "CEPH_ADDRESS")));
    &CEPH
}

impl Ceph {
    pub(crate) fn conf(&self) -> String {
        self.0.dir.join("ceph.conf").display().to_string()
    }

    /// The configuration string of an image.
    pub(crate) fn config(&self, image: &str) -> String {
        format!("rbd/rbd/{image};conf={}", self.conf())
    }

    /// Runs `rbd` or `ceph`; what it prints.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(arguments).env("CEPH_CONF", self.conf()).stdin(Stdio::null());
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn rbd(&self, arguments: &[&str]) -> String {
        self.run("rbd", arguments)
    }

    /// Makes an image of objects of 4 MiB.
    pub(crate) fn create(&self, image: &str, size: &str) {
        self.rbd(&["create", "--size", size, image]);
    }

    /// Its content, as another client reads it.
    pub(crate) fn export(&self, image: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("raw");
        self.rbd(&["export", "--no-progress", image, file.to_str().unwrap()]);
        std::fs::read(file).unwrap()
    }

    /// Starts the manager.
    pub(crate) fn start_manager(&self) {
        let script = format!("{}/../../tests/vm/ceph.sh", env!("CARGO_MANIFEST_DIR"));
        let mut bash = Command::new("bash");
        bash.args(["-c", ". \"$1\"; start_manager >&2", "bash", &script]);
        bash.env("CEPH", &self.0.dir).env("CEPH_ADDRESS", &self.0.address);
        bash.env("CEPH_CONF", self.conf()).stdout(Stdio::null());
        assert!(bash.status().unwrap().success(), "the manager does not start");
    }

    pub(crate) fn signal_osd(&self, what: &str) {
        signal(&self.0.dir.join("osd.0.pid"), what);
    }
}

/// A Gluster volume "vol" of one brick, whose files are those of a folder.
#[derive(Debug)]
pub(crate) struct Gluster(Servers);

static GLUSTER: LazyLock<RwLock<Gluster>> = LazyLock::new(|| {
    RwLock::new(Gluster(Servers::start("gluster.sh", "gluster", 65, "GLUSTER", "GLUSTER_ADDRESS")))
});

/// The volume, which can be used when this returns.
pub(crate) fn gluster() -> RwLockReadGuard<'static, Gluster> {
    GLUSTER.read().unwrap_or_else(PoisonError::into_inner)
}

/// The same, which no other test uses meanwhile.
pub(crate) fn gluster_alone() -> RwLockWriteGuard<'static, Gluster> {
    GLUSTER.write().unwrap_or_else(PoisonError::into_inner)
}

impl Gluster {
    /// The configuration string of a file.
    pub(crate) fn config(&self, file: &str) -> String {
        format!("glfs/vol@{}/{file}", self.0.address)
    }

    /// Where glusterd listens on this host.
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.dir.join("glusterd.sock")
    }

    /// Where the brick has a file.
    pub(crate) fn brick(&self, file: &str) -> PathBuf {
        self.0.dir.join("brick").join(file)
    }

    /// Runs a command that tests/vm/gluster.sh has.
    fn run(&self, command: &str) {
        let script = format!("{}/../../tests/vm/gluster.sh", env!("CARGO_MANIFEST_DIR"));
        let mut bash = Command::new("bash");
        bash.args(["-c", &format!(". {script}; {command}")]).env("GLUSTER", &self.0.dir);
        bash.env("GLUSTER_ADDRESS", &self.0.address).stdout(Stdio::null());
        assert!(bash.status().unwrap().success(), "{command}");
    }

    /// Makes a file. The volume takes it up when a client looks for it.
    pub(crate) fn create(&self, file: &str, size: u64) {
        std::fs::File::create(self.brick(file)).unwrap().set_len(size).unwrap();
    }

    pub(crate) fn kill_brick(&self) {
        self.run("kill -9 $(brick)");
    }

    pub(crate) fn start_brick(&self) {
        self.run("start_brick");
    }
}
