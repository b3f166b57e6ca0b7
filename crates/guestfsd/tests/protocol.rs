// SPDX-License-Identifier: Apache-2.0
//! The protocol over a socket pair: honest calls, files both ways, and clients that mean no good.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

mod common;

use common::{Daemon, call, frame, text};
use guest_error::Errno;

use guestfs_client::{Client, Error};
use proptest::prelude::*;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Instant;

fn error(result: guestfs_client::Result<impl Sized>) -> (Option<Errno>, String) {
    match result.map(drop).unwrap_err() {
        e @ Error::Daemon { .. } => (e.errno(), e.to_string()),
        other => panic!("not an error of the daemon: {other}"),
    }
}

#[test]
fn a_daemon_that_lives_answers() {
    let mut d = Daemon::on_this_machine();
    d.client.ping_daemon().unwrap();
    assert_eq!(d.client.echo_daemon(&["a", "b"]).unwrap(), "a b");
    assert!(d.hang_up().success());
}

#[test]
fn an_unknown_procedure_is_an_error_that_clients_know() {
    let mut d = Daemon::on_this_machine();
    d.send(&call(9999, 0, b""));
    let mut reply = vec![0; 4];
    d.client.stream().read_exact(&mut reply).unwrap();
    let len = u32::from_be_bytes(reply[..4].try_into().unwrap()) as usize;
    let mut reply = vec![0; len];
    d.client.stream().read_exact(&mut reply).unwrap();
    let reply = String::from_utf8_lossy(&reply).into_owned();
    let text = "unknown procedure number 9999, set LIBGUESTFS_PATH to point to the matching \
                libguestfs appliance directory";
    assert!(reply.contains(text) && reply.contains("ENOTSUP"), "{reply}");
}

#[test]
fn unknown_bits_of_optional_arguments_are_refused() {
    let mut d = Daemon::on_this_machine();
    for (number, body) in [(92, &b""[..]), (37, b"\0\0\0\x01/\0\0\0\0\0\0\0")] {
        d.send(&call(number, 1 << 63, body));
        let (errno, message) = error(d.client.reply(number));
        assert_eq!(errno, Some(Errno::EINVAL));
        assert!(message.contains("optargs_bitmask") || message.contains("unknown option"));
    }
    d.client.ping_daemon().unwrap();
}

#[test]
fn strings_with_nul_and_truncated_bodies_are_errors_and_no_more() {
    let mut d = Daemon::on_this_machine();
    for body in [&b"\0\0\0\x04/a\0b"[..], b"\0\0\0\x09/a", b"\0\0", b"\xff\xff\xff\xff"] {
        d.send(&call(36, 0, body));
        let (errno, message) = error(d.client.reply(36));
        assert_eq!(errno, Some(Errno::EINVAL));
        assert!(message.starts_with("daemon failed to decode"), "{message}");
    }
    d.client.ping_daemon().unwrap();
}

#[test]
fn a_message_for_another_program_is_refused() {
    let mut d = Daemon::on_this_machine();
    for word in 0..2 {
        let mut bytes = call(92, 0, b"");
        bytes[4 + 4 * word] ^= 1;
        d.send(&bytes);
        let (_, message) = error(d.client.reply(92));
        assert!(message.starts_with("wrong pro"), "{message}");
    }
}

#[test]
fn a_frame_longer_than_the_protocol_allows_ends_the_session() {
    let mut d = Daemon::on_this_machine();
    d.send(&(5u32 << 20).to_be_bytes());
    assert!(d.is_closed());
    assert_eq!(d.wait().code(), Some(1));
}

#[test]
fn a_long_frame_that_is_not_sent_takes_no_memory() {
    let mut d = Daemon::on_this_machine();
    let before = resident_kib(d.child.id());
    d.send(&(4u32 << 20).to_be_bytes());
    d.send(&[0; 100]);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(resident_kib(d.child.id()) < before + 1024);
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn files_go_both_ways_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let mut d = Daemon::on_this_machine();
    for len in [0, 1, 8191, 8192, 8193, 1 << 20, (3 << 20) + 17] {
        let data: Vec<u8> = (0..=250u8).cycle().take(len).collect();
        d.client.upload(&mut &data[..], &path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), data);
        let mut back = Vec::new();
        d.client.download(&path, &mut back).unwrap();
        assert_eq!(back, data);
        let mut part = Vec::new();
        d.client.download_offset(&path, &mut part, 5, 9000).unwrap();
        assert_eq!(part, data.iter().skip(5).take(9000).copied().collect::<Vec<_>>());
    }
}

#[test]
fn files_without_a_size_go_whole() {
    let mut d = Daemon::on_this_machine();
    let mut back = Vec::new();
    d.client.download("/proc/self/status", &mut back).unwrap();
    assert!(back.starts_with(b"Name:\tguestfsd"));
}

#[test]
fn an_upload_that_the_daemon_refuses_leaves_the_connection_usable() {
    let mut d = Daemon::on_this_machine();
    for len in [0, 100, 20 << 20] {
        let (errno, message) =
            error(d.client.upload(&mut io::repeat(1).take(len), "/nonexistent/x"));
        assert_eq!(
            (errno, message.as_str()),
            (Some(Errno::ENOENT), "/nonexistent/x: No such file or directory")
        );
        d.client.ping_daemon().unwrap();
    }
}

#[test]
fn an_upload_that_the_client_breaks_off_is_an_error_and_no_more() {
    struct Fails(u32);
    impl Read for Fails {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.0 -= 1;
            if self.0 == 0 { Err(io::Error::other("enough")) } else { Ok(buf.len()) }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut d = Daemon::on_this_machine();
    for pieces in [1, 2, 1000] {
        let e = d.client.upload(&mut Fails(pieces), dir.path().join("x")).unwrap_err();
        assert!(matches!(e, Error::Cancelled(_)), "{e}");
        d.client.ping_daemon().unwrap();
    }
}

#[test]
fn a_download_that_the_client_breaks_off_leaves_the_connection_usable() {
    struct Fails(u32);
    impl Write for Fails {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0 -= 1;
            if self.0 == 0 { Err(io::Error::other("enough")) } else { Ok(buf.len()) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    std::fs::File::create(&path).unwrap().set_len(64 << 20).unwrap();
    let mut d = Daemon::on_this_machine();
    for pieces in [1, 2, 500] {
        let e = d.client.download(&path, &mut Fails(pieces)).unwrap_err();
        assert!(matches!(e, Error::Cancelled(_)), "{e}");
        d.client.ping_daemon().unwrap();
    }
}

#[test]
fn a_long_call_tells_its_progress_after_two_seconds_three_times_a_second_and_at_its_end() {
    let mut d = Daemon::on_this_machine();
    let (sender, messages) = std::sync::mpsc::channel();
    d.client.on_progress(move |progress| sender.send((Instant::now(), progress)).unwrap());
    d.client.debug("progress", &["1"]).unwrap();
    assert!(messages.try_recv().is_err(), "a short call is silent");
    let begin = Instant::now();
    d.client.debug("progress", &["4"]).unwrap();
    let told: Vec<_> = messages.try_iter().collect();
    let seconds: Vec<f64> = told.iter().map(|(at, _)| (*at - begin).as_secs_f64()).collect();
    assert!(told.len() >= 3 && told.len() <= 8, "{seconds:?}");
    assert!(seconds[0] >= 1.9, "{seconds:?}");
    // All but the last one keep their distance; sending and receiving may take their time.
    let close = seconds[..told.len() - 1].windows(2).filter(|w| w[1] - w[0] < 0.2).count();
    assert!(close <= 1, "{seconds:?}");
    let (_, last) = told[told.len() - 1];
    assert_eq!((last.position, last.total), (4_000_000, 4_000_000));
    let ascending = told.windows(2).all(|w| w[0].1.position < w[1].1.position);
    assert!(ascending, "{told:?}");
}

#[test]
fn a_client_that_hangs_up_in_the_middle_of_a_file_ends_the_session() {
    let dir = tempfile::tempdir().unwrap();
    let name = text(dir.path()).to_owned() + "/x";
    let mut body = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
    body.extend_from_slice(name.as_bytes());
    body.resize(body.len().next_multiple_of(4), 0);
    let mut d = Daemon::on_this_machine();
    d.send(&call(66, 0, &body));
    d.send(&frame(b"\0\0\0\0\0\0\0\x04abcd"));
    assert_eq!(d.hang_up().code(), Some(1));
}

#[test]
fn what_the_daemon_says_is_ascii() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    // One that does nothing, and one that runs a program.
    for procedure in [92, 91] {
        ours.write_all(&call(procedure, 0, b"")).unwrap();
    }
    ours.shutdown(std::net::Shutdown::Write).unwrap();
    let out = Command::new(common::GUESTFSD)
        .args(["-r", "-v", "--channel", "fd:0"])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .output()
        .unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(
        said.contains("name=\"ping_daemon\" elapsed_us=") && said.contains("status="),
        "{said}"
    );
    assert!(said.is_ascii(), "{said}");
}

#[test]
fn sigterm_ends_the_session_in_order() {
    let mut d = Daemon::on_this_machine();
    let pid = rustix::process::Pid::from_child(&d.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(d.wait().code(), Some(0));
}

#[test]
fn one_clients_garbage_is_nothing_to_another() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    let mut listener = Command::new(common::GUESTFSD)
        .args(["-r", "--listen", &format!("unix:{}", text(&socket))])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    common::eventually("the daemon listens", || UnixStream::connect(&socket).is_ok());
    let connect = || {
        let mut client = Client::new(UnixStream::connect(&socket).unwrap());
        client.wait_for_launch().unwrap();
        client
    };
    let (mut good, mut bad, mut other) = (connect(), connect(), connect());
    bad.stream().write_all(&[0xee; 64]).unwrap();
    assert_eq!(bad.stream().read(&mut [0; 1]).unwrap(), 0);
    good.ping_daemon().unwrap();
    other.umask(0o77).unwrap();
    assert_eq!(good.get_umask().unwrap(), 0o22);
    connect().ping_daemon().unwrap();
    listener.kill().unwrap();
    listener.wait().unwrap();
    // Sessions end with the daemon that they belong to.
    assert_eq!(good.stream().read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn the_command_line_says_what_it_cannot_do() {
    for args in [
        &["--nonsense"][..],
        &["surplus"],
        &["--channel", "fd:x"],
        &["-c", "/nonexistent"],
        &["--listen", "tcp:0.0.0.0:1", "--tls-dir", "/nonexistent"],
        &["--listen", "vsock:any:1"],
    ] {
        let out = Command::new(common::GUESTFSD).args(args).output().unwrap();
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        assert!(!out.stderr.is_empty());
    }
    let out = Command::new(common::GUESTFSD).arg("-?").output().unwrap();
    assert!(out.status.success() && out.stdout.starts_with(b"Serves libguestfs clients"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever a client sends, the daemon answers or hangs up; it does not crash.
    #[test]
    fn garbage_ends_the_session_at_worst(
        frames in proptest::collection::vec((0u32..530, any::<u64>(), proptest::collection::vec(any::<u8>(), 0..200)), 0..20),
        tail in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        // In a sysroot of its own, where nothing is mounted: nothing is there to be harmed.
        let mut d = Daemon::start(&["--session=outer"]);
        let stream = d.client.stream().try_clone().unwrap();
        let reader = std::thread::spawn(move || io::copy(&mut &stream, &mut io::sink()).ok());
        for (number, mask, body) in &frames {
            // Not those that wait or change the machine, even when their arguments are nonsense.
            if [47, 76, 109, 241, 282, 413].contains(number) {
                continue;
            }
            if d.client.stream().write_all(&call(*number, *mask & 7, body)).is_err() {
                break;
            }
        }
        d.client.stream().write_all(&tail).ok();
        d.client.stream().shutdown(std::net::Shutdown::Write).ok();
        let status = d.wait();
        prop_assert!(matches!(status.code(), Some(0 | 1)), "{}", status);
        reader.join().unwrap();
    }
}
