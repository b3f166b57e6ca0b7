// SPDX-License-Identifier: Apache-2.0
//! Listeners: who is let in, and what clients may do then. TLS is spoken with our own client and OpenSSL's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

mod common;

use common::{Daemon, LoopDevice, eventually, need_root, text};
use guest_error::Errno;
use guestfs_api::frame::{HEADER_LEN, LAUNCH};
use guestfs_api::{PROCEDURES, options};
use guestfs_client::{Client, Directory, TlsStream};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An authority, as an administrator has one.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn new() -> Self {
        // Of the same name as others: that alone proves nothing.
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate for one side, in a directory.
    fn issue(
        &self,
        dir: &Path,
        side: &str,
        names: &[&str],
        change: impl Fn(&mut CertificateParams),
    ) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, side);
        params.extended_key_usages = vec![match side {
            "server" => ExtendedKeyUsagePurpose::ServerAuth,
            _ => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        fs::write(dir.join("ca-cert.pem"), &self.certificate).unwrap();
        fs::write(dir.join(format!("{side}-cert.pem")), certificate).unwrap();
        let path = dir.join(format!("{side}-key.pem"));
        fs::write(&path, key.serialize_pem()).unwrap();
        fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    }

    /// A directory for a client.
    fn client(&self, change: impl Fn(&mut CertificateParams)) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        self.issue(dir.path(), "client", &["alice.example"], change);
        dir
    }
}

/// A daemon, which ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A daemon that listens.
struct Listener {
    child: Running,
    log: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
    authority: Authority,
}

impl Listener {
    /// On the loopback interface, with certificates for it.
    fn tcp(args: &[&str]) -> Self {
        let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        authority.issue(dir.path(), "server", &["localhost", "127.0.0.1"], |_| {});
        // Free a moment ago; should somebody else get it, the test fails and says so.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (address, certificates) =
            (format!("tcp:127.0.0.1:{port}"), text(dir.path()).to_owned());
        let (child, log) = start(
            dir.path(),
            &[&["--listen", &address, "--tls-dir", &certificates], args].concat(),
        );
        let listener = Self { child, log, dir, port, authority };
        eventually("the daemon listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        listener
    }

    fn connect(&self, certificates: &Path) -> guestfs_client::Result<Client<TlsStream>> {
        let stream = TlsStream::connect("localhost", self.port, &Directory::new(certificates))?;
        stream.socket().set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut client = Client::new(stream);
        client.wait_for_launch()?;
        Ok(client)
    }

    /// Waits until the log says this.
    fn says(&self, what: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut log = String::new();
        while !log.contains(what) {
            assert!(Instant::now() < deadline, "{what}: {log}");
            std::thread::sleep(Duration::from_millis(10));
            log = fs::read_to_string(&self.log).unwrap();
        }
    }

    /// A socket that speaks no TLS by itself.
    fn plain(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }
}

fn start(dir: &Path, args: &[&str]) -> (Running, PathBuf) {
    let log = dir.join("log");
    let file = fs::File::create(&log).unwrap();
    let mut command = Command::new(common::GUESTFSD);
    (Running(command.args(args).stdin(Stdio::null()).stderr(file).spawn().unwrap()), log)
}

fn message(result: guestfs_client::Result<Client<TlsStream>>) -> String {
    result.map(drop).unwrap_err().to_string()
}

#[test]
fn a_client_with_a_certificate_of_the_authority_is_served() {
    let listener = Listener::tcp(&["-r"]);
    let certificates = listener.authority.client(|_| {});
    let mut one = listener.connect(certificates.path()).unwrap();
    let mut two = listener.connect(certificates.path()).unwrap();
    one.ping_daemon().unwrap();
    two.umask(0o77).unwrap();
    assert_eq!(one.get_umask().unwrap(), 0o22);
    let path = listener.dir.path().join("file");
    for len in [0, 1, 8192, 65_537, (8 << 20) + 17] {
        let data: Vec<u8> = (0..=250u8).cycle().take(len).collect();
        one.upload(&mut &data[..], &path).unwrap();
        assert!(fs::read(&path).unwrap() == data, "{len}");
        let mut back = Vec::new();
        one.download(&path, &mut back).unwrap();
        assert!(back == data, "{len}");
    }
    // Refused by the daemon while the client sends, and by the client while the daemon sends.
    let endless = &mut std::io::repeat(1).take(20 << 20);
    assert_eq!(one.upload(endless, "/nonexistent/x").unwrap_err().errno(), Some(Errno::ENOENT));
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("full"))
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    assert!(one.download(&path, &mut Full).is_err());
    one.ping_daemon().unwrap();
    drop(one);
    two.ping_daemon().unwrap();
}

#[test]
fn clients_without_a_certificate_that_is_good_today_are_turned_away_with_the_reason() {
    let listener = Listener::tcp(&["-r"]);
    let authority = &listener.authority;
    let expired = authority.client(|p| p.not_after = date_time_ymd(2020, 1, 1));
    let early = authority.client(|p| p.not_before = date_time_ymd(4000, 1, 1));
    let of_a_server =
        authority.client(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let anothers = Authority::new().client(|_| {});
    // The client trusts the server all the same.
    fs::write(anothers.path().join("ca-cert.pem"), &authority.certificate).unwrap();
    for (client, alert, said) in [
        (&expired, "CertificateExpired", "its certificate: certificate expired"),
        (&early, "CertificateExpired", "its certificate: certificate not valid yet"),
        (&of_a_server, "UnsupportedCertificate", "its certificate: certificate does not allow"),
        (&anothers, "DecryptError", "its certificate is not one of the authority's"),
    ] {
        let e = message(listener.connect(client.path()));
        assert!(e.contains(alert) || e.contains("reset"), "{e}: {alert}");
        listener.says(said);
    }
    let good = authority.client(|_| {});
    listener.connect(good.path()).unwrap().ping_daemon().unwrap();
}

#[test]
fn a_certificate_that_was_revoked_is_refused_from_the_next_connection_on() {
    let listener = Listener::tcp(&["-r"]);
    let serial = SerialNumber::from(77);
    let client = listener.authority.client(|p| p.serial_number = Some(SerialNumber::from(77)));
    let other = listener.authority.client(|p| p.serial_number = Some(SerialNumber::from(78)));
    listener.connect(client.path()).unwrap();
    let revoked = RevokedCertParams {
        serial_number: serial,
        revocation_time: date_time_ymd(2026, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 1),
        next_update: date_time_ymd(4000, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&listener.authority.issuer).unwrap().pem().unwrap();
    fs::write(listener.dir.path().join("ca-crl.pem"), list).unwrap();
    let e = message(listener.connect(client.path()));
    assert!(e.contains("Revoked") || e.contains("reset"), "{e}");
    listener.says("its certificate was revoked");
    listener.connect(other.path()).unwrap();
}

#[test]
fn where_names_are_asked_for_no_other_client_is_let_in() {
    let listener =
        Listener::tcp(&["-r", "--tls-client", "bob.example", "--tls-client=carol.example"]);
    let alice = listener.authority.client(|_| {});
    let e = message(listener.connect(alice.path()));
    assert!(e.contains("AccessDenied") || e.contains("reset"), "{e}");
    listener.says("its certificate has none of the names of --tls-client");
    let carol = tempfile::tempdir().unwrap();
    listener.authority.issue(carol.path(), "client", &["carol.example"], |_| {});
    listener.connect(carol.path()).unwrap().ping_daemon().unwrap();
}

#[test]
fn a_client_takes_only_a_server_of_its_authority_and_of_the_name_that_it_asked_for() {
    let listener = Listener::tcp(&["-r"]);
    let wrong_authority = Authority::new().client(|_| {});
    let e = message(listener.connect(wrong_authority.path()));
    assert!(e.contains("BadSignature"), "{e}");
    let good = listener.authority.client(|_| {});
    listener.authority.issue(listener.dir.path(), "server", &["elsewhere.example"], |_| {});
    let e = message(listener.connect(good.path()));
    assert!(e.contains("certificate not valid for name \"localhost\""), "{e}");
    // Renewed files are used at once.
    listener.authority.issue(listener.dir.path(), "server", &["localhost"], |_| {});
    listener.connect(good.path()).unwrap();
}

#[test]
fn a_client_that_speaks_no_tls_gets_nothing_of_the_protocol() {
    let listener = Listener::tcp(&["-r"]);
    let mut plain = listener.plain();
    plain.write_all(&common::call(92, 0, b"")).unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).ok();
    // At most an alert: a record of type 21.
    assert!(answer.is_empty() || (answer[0] == 21 && answer.len() == 7), "{answer:?}");
    listener.says("it does not speak TLS");
}

#[test]
fn clients_that_say_nothing_keep_nobody_away_and_are_hung_up_on() {
    let listener = Listener::tcp(&["-r"]);
    let good = listener.authority.client(|_| {});
    let mut served = listener.connect(good.path()).unwrap();
    let begin = Instant::now();
    // More than there may be at a time.
    let mut silent: Vec<_> = (0..40).map(|_| listener.plain()).collect();
    listener.connect(good.path()).unwrap().ping_daemon().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    served.ping_daemon().unwrap();
    // The oldest had to go for the newest.
    assert_eq!(silent[0].read(&mut [0; 1]).unwrap_or(0), 0);
    listener.says("the oldest one is hung up on");
    let last = silent.last_mut().unwrap();
    assert_eq!(last.read(&mut [0; 1]).unwrap_or(0), 0);
    listener.says("no TLS handshake within 10 s");
    served.ping_daemon().unwrap();
}

#[test]
fn a_session_ends_with_its_client_and_a_client_hears_of_the_end_of_its_session() {
    let listener = Listener::tcp(&["-r"]);
    let good = listener.authority.client(|_| {});
    let children = || {
        let pid = listener.child.0.id();
        let path = format!("/proc/{pid}/task/{pid}/children");
        fs::read_to_string(path).unwrap().split_whitespace().count()
    };
    eventually("the first connection is over", || children() == 0);
    let mut client = listener.connect(good.path()).unwrap();
    client.ping_daemon().unwrap();
    assert_eq!(children(), 1);
    drop(client);
    eventually("the session has ended", || children() == 0);
    // Garbage ends a session; its client reads the end, not an error of TLS.
    let mut client = listener.connect(good.path()).unwrap();
    client.stream().write_all(&[0xee; 64]).unwrap();
    assert_eq!(client.stream().read(&mut [0; 1]).unwrap(), 0);
}

/// What OpenSSL's client says and gets, with these options.
fn s_client(port: u16, options: &[&str]) -> (String, Vec<u8>) {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-quiet"])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this test needs openssl: install the package openssl");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&common::call(92, 0, b"")).ok();
    // The launch flag and the reply of ping_daemon.
    let mut answer = Vec::new();
    child.stdout.take().unwrap().take(8 + HEADER_LEN as u64).read_to_end(&mut answer).unwrap();
    // It would wait for the daemon's end, and that for its.
    child.kill().ok();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    (said, answer)
}

#[test]
fn the_tls_of_openssl_is_understood() {
    let listener = Listener::tcp(&["-r"]);
    let good = listener.authority.client(|_| {});
    let file = |name: &str| text(&good.path().join(name)).to_owned();
    let (ca, certificate, key) =
        (file("ca-cert.pem"), file("client-cert.pem"), file("client-key.pem"));
    let server = ["-CAfile", &ca, "-verify_return_error", "-verify_hostname", "localhost"];
    let (said, answer) =
        s_client(listener.port, &[&server[..], &["-cert", &certificate, "-key", &key]].concat());
    let expected = [&LAUNCH.to_be_bytes()[..], &[0, 0, 0, 40]].concat();
    assert!(answer.starts_with(&expected), "{said} {answer:?}");
    let (said, answer) = s_client(listener.port, &server);
    assert!(answer.is_empty() && said.contains("certificate required"), "{said}");
    listener.says("it has shown no certificate");
    let old = [&server[..], &["-cert", &certificate, "-key", &key, "-tls1_2"]].concat();
    let (said, answer) = s_client(listener.port, &old);
    assert!(answer.is_empty() && said.contains("alert protocol version"), "{said}");
}

#[test]
fn a_key_that_others_can_read_is_refused_at_the_start() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    authority.issue(dir.path(), "server", &["localhost"], |_| {});
    let key = dir.path().join("server-key.pem");
    fs::set_permissions(key, PermissionsExt::from_mode(0o644)).unwrap();
    let args = ["--listen", "tcp:127.0.0.1:0", "--tls-dir", text(dir.path())];
    let (mut child, log) = start(dir.path(), &args);
    assert_eq!(child.0.wait().unwrap().code(), Some(1));
    let said = fs::read_to_string(log).unwrap();
    assert!(said.contains("server-key.pem") && said.contains("chmod 600"), "{said}");
}

/// The error of each procedure that was refused for reaching outside, by name.
fn refused(d: &mut Daemon) -> Vec<&'static str> {
    let mut refused = Vec::new();
    for p in &PROCEDURES {
        // A message without arguments: what gets so far that they are missed was not refused.
        if p.name == "internal_exit" || p.args.is_empty() {
            continue;
        }
        d.send(&common::call(p.number, 0, b""));
        if p.args.iter().any(|a| a.kind == guestfs_api::Kind::FileIn) {
            d.send(&common::frame(b"\0\0\0\0\0\0\0\0"));
        }
        // What has no argument but a file gets an empty one, and may do with it.
        let Err(e) = d.client.reply(p.number) else { continue };
        if e.to_string().contains("--allow-host-access") {
            assert_eq!(e.errno(), Some(Errno::EPERM));
            refused.push(p.name);
        }
    }
    refused.sort_unstable();
    refused
}

#[test]
fn clients_of_a_listener_do_not_reach_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made");
    let mut d = Daemon::of_a_listener();
    for p in ["command", "debug_upload", "internal_upload", "modprobe", "sh", "swapon_device"] {
        assert!(refused(&mut d).contains(&p), "{p}");
    }
    for subcommand in ["sh", "ls", "ll", "env", "fds", "setenv", "segv", "print", "nonesuch"] {
        let e = d.client.debug(subcommand, &["touch", text(&path)]).unwrap_err();
        assert_eq!(e.errno(), Some(Errno::EPERM), "{subcommand}: {e}");
    }
    let e = d.client.debug_upload(&mut &b"x"[..], &path, 0o600).unwrap_err();
    assert_eq!(e.errno(), Some(Errno::EPERM));
    assert!(e.to_string().starts_with("debug_upload: writes files of this machine"), "{e}");
    assert!(d.client.dmesg().unwrap_err().to_string().contains("--allow-host-access"));
    assert!(!path.exists());
    assert_eq!(d.client.internal_feature_available("linuxmodules").unwrap(), 1);
    // What does not reach outside is there.
    assert!(d.client.debug("help", &[] as &[&str]).is_ok());
    d.client.ping_daemon().unwrap();

    // The positive control: with host access all of that works.
    let mut d = Daemon::isolated();
    assert_eq!(refused(&mut d), [""; 0]);
    d.client.debug("sh", &["touch", text(&path)]).unwrap();
    assert!(path.exists());
    d.client.debug_upload(&mut &b"x"[..], &path, 0o600).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"x");
}

#[test]
fn filesystems_of_a_listeners_clients_show_no_files_and_no_devices_of_this_machine() {
    let image = LoopDevice::with_filesystem(&["mkfs.ext4", "-q", "-F"], 32);
    let secret = tempfile::tempdir().unwrap();
    fs::write(secret.path().join("secret"), "secret").unwrap();
    let overlay = format!("lowerdir={}:/etc", text(secret.path()));
    for (mut d, reaches) in [(Daemon::of_a_listener(), false), (Daemon::isolated(), true)] {
        let c = &mut d.client;
        let mounted = c.mount_vfs(&overlay, "overlay", image.name(), "/");
        match reaches {
            true => {
                mounted.unwrap();
                assert!(c.exists("/secret").unwrap());
                c.umount("/", &options::Umount::default()).unwrap();
            }
            false => {
                let e = mounted.unwrap_err();
                assert_eq!(e.errno(), Some(Errno::EPERM), "{e}");
            }
        }
        for fstype in ["proc", "sysfs", "devtmpfs", "ext4,proc", "fuse.sh", "../sh"] {
            let mounted = c.mount_vfs("", fstype, image.name(), "/");
            assert!(reaches || mounted.is_err(), "{fstype}");
            if mounted.is_ok() {
                c.umount("/", &options::Umount::default()).unwrap();
            }
        }
        // What is on a device is what it is for.
        c.mount_vfs("dev", "ext4", image.name(), "/").unwrap();
        c.rm_f("/zero").unwrap();
        c.mknod_c(0o600, 1, 5, "/zero").unwrap();
        let read = c.pread("/zero", 4, 0);
        assert_eq!(read.is_ok(), reaches, "a device node in a filesystem: {read:?}");
        c.umount("/", &options::Umount::default()).unwrap();
        // The sysroot itself, which is this machine's.
        c.mkmountpoint("/lunette-test").unwrap();
        c.mount(image.name(), "/lunette-test").unwrap();
        c.mknod_c(0o600, 1, 5, "/lunette-zero").unwrap();
        let read = c.pread("/lunette-zero", 4, 0);
        c.rm("/lunette-zero").unwrap();
        c.umount("/lunette-test", &options::Umount::default()).unwrap();
        c.rmmountpoint("/lunette-test").unwrap();
        assert_eq!(read.is_ok(), reaches, "a device node in the sysroot: {read:?}");
    }
}

#[test]
fn a_flag_gives_clients_of_a_listener_the_machine() {
    need_root();
    let dir = tempfile::tempdir().unwrap();
    for (flags, allowed) in [(&[][..], false), (&["--allow-host-access"], true)] {
        let socket = dir.path().join("sock");
        let address = format!("unix:{}", text(&socket));
        let (child, _) = start(dir.path(), &[&["--listen", &address], flags].concat());
        eventually("the daemon listens", || UnixStream::connect(&socket).is_ok());
        let mut client = Client::new(UnixStream::connect(&socket).unwrap());
        client.wait_for_launch().unwrap();
        assert_eq!(client.debug("sh", &["true"]).is_ok(), allowed);
        drop(child);
    }
}

#[test]
fn another_user_is_turned_away_from_a_socket_that_was_opened_to_it() {
    need_root();
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let socket = dir.path().join("sock");
    let (_child, log) = start(dir.path(), &["-r", "--listen", &format!("unix:{}", text(&socket))]);
    eventually("the daemon listens", || UnixStream::connect(&socket).is_ok());
    fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
    let script = "use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0) or die; \
                  connect(S, sockaddr_un($ARGV[0])) or die; print sysread(S, $b, 4) // 0";
    let read = |uid: u32| {
        let mut perl = Command::new("setpriv");
        perl.args([&format!("--reuid={uid}"), "--clear-groups", "perl", "-e", script]);
        common::run(perl.arg(&socket))
    };
    assert_eq!(read(0), "4");
    assert_eq!(read(65534), "0");
    eventually("the log says so", || {
        fs::read_to_string(&log).unwrap().contains("user 65534 is not the daemon's user")
    });
}
