// SPDX-License-Identifier: Apache-2.0
use super::*;
use proptest::prelude::*;
use std::os::unix::net::UnixListener;
use std::thread::{self, JoinHandle};

/// A server that sends what it is told to, whatever it is asked, and then hangs up.
fn server(parts: Vec<Vec<u8>>) -> (tempfile::TempDir, Server, JoinHandle<()>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for part in parts {
            // Hung up on: the client has had enough.
            if stream.write_all(&part).is_err() {
                return;
            }
        }
        stream.shutdown(std::net::Shutdown::Write).ok();
        io::copy(&mut stream, &mut io::sink()).ok();
    });
    (dir, Server { address: Address::Unix(path), export: "e".into() }, thread)
}

fn hello() -> Vec<u8> {
    let flags = FIXED_NEWSTYLE | NO_ZEROES;
    [&MAGIC.to_be_bytes()[..], &NEWSTYLE.to_be_bytes(), &flags.to_be_bytes()].concat()
}

fn answer(kind: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    let mut bytes = ANSWER.to_be_bytes().to_vec();
    for word in [OPTION_GO, kind, length] {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    bytes.extend_from_slice(data);
    bytes
}

fn export(size: u64, flags: u16) -> Vec<u8> {
    let data = [&INFO_EXPORT.to_be_bytes()[..], &size.to_be_bytes(), &flags.to_be_bytes()].concat();
    answer(INFO, &data)
}

fn blocks(min: u32, max: u32) -> Vec<u8> {
    let mut data = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
    for word in [min, min, max] {
        data.extend_from_slice(&word.to_be_bytes());
    }
    answer(INFO, &data)
}

fn reply(error: u32, cookie: u64, data: &[u8]) -> Vec<u8> {
    [&REPLY_MAGIC.to_be_bytes()[..], &error.to_be_bytes(), &cookie.to_be_bytes(), data].concat()
}

fn connected(more: Vec<Vec<u8>>) -> (tempfile::TempDir, Nbd, JoinHandle<()>) {
    let parts = [vec![hello(), export(8192, 1 | CAN_FLUSH), answer(ACK, &[])], more].concat();
    let (dir, server, thread) = server(parts);
    (dir, Nbd::connect(&server, false, 512).unwrap(), thread)
}

fn refusal(parts: Vec<Vec<u8>>) -> String {
    let (_dir, server, _thread) = server(parts);
    Nbd::connect(&server, false, 512).unwrap_err().to_string()
}

#[test]
fn what_a_server_answers_is_what_a_request_yields() {
    let (_dir, nbd, _thread) = connected(vec![
        reply(0, 1, &[7; 512]),
        reply(28, 2, &[]),
        reply(9999, 3, &[]),
        reply(0, 4, &[]),
    ]);
    assert_eq!(nbd.size(), 8192);
    let mut buffer = [0; 512];
    assert_eq!(nbd.read(&mut buffer, 0), Ok(()));
    assert_eq!(buffer, [7; 512]);
    assert_eq!(nbd.write(&[0; 512], 0), Err(libc::ENOSPC));
    assert_eq!(nbd.write(&[0; 512], 0), Err(libc::EIO));
    assert_eq!(nbd.flush(), Ok(()));
    assert_eq!(nbd.zero(0, 512, true), Err(libc::EOPNOTSUPP));
}

#[test]
fn after_a_failure_every_request_fails() {
    let replies = [
        // The cookie of another request, another magic number, the end in the middle.
        reply(0, 9, &[7; 512]),
        vec![0; 16],
        reply(0, 1, &[7; 100]),
    ];
    for reply in replies {
        let (_dir, nbd, _thread) = connected(vec![reply]);
        for _ in 0..2 {
            // Nothing was written that a flush could bring to stable storage.
            assert_eq!(nbd.flush(), Ok(()));
            assert_eq!(nbd.read(&mut [0; 512], 0), Err(libc::EIO));
        }
        for _ in 0..2 {
            assert_eq!(nbd.write(&[0; 512], 0), Err(libc::EIO));
            assert_eq!(nbd.flush(), Err(libc::EIO));
        }
    }
}

#[test]
fn a_server_that_makes_no_sense_is_refused() {
    let endless = (0..200).map(|_| export(1, 1)).collect::<Vec<_>>().concat();
    for (parts, why) in [
        (vec![b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()], "it is not an NBD server"),
        (vec![MAGIC.to_be_bytes().to_vec(), vec![0; 200]], "oldstyle"),
        (vec![hello(), answer(ACK, &[])], "how large"),
        (vec![hello(), endless], "does not end"),
        (vec![hello(), answer(INFO, &[0])], "fill whole buffer"),
        (vec![hello(), answer(1 << 31 | 6, b"no")], "no such export"),
        (vec![hello(), answer(1 << 31 | 5, b"")], "TLS"),
        (vec![hello(), answer(UNSUPPORTED, b"")], "no such export"),
        (vec![hello(), export(1 << 63, 1), answer(ACK, &[])], "too many"),
        (vec![hello(), export(512, READ_ONLY), answer(ACK, &[])], "have it allow writing"),
        (vec![hello(), export(512, 1), blocks(3, 5), answer(ACK, &[])], "block sizes"),
        (vec![hello(), export(512, 1), blocks(4096, 8192), answer(ACK, &[])], "blocksize:4096"),
        (vec![hello(), [&answer(INFO, &[])[..16], &[0xFF; 4]].concat()], "makes no sense"),
    ] {
        let text = refusal(parts);
        assert!(text.starts_with("nbd:unix:") && text.contains(why), "{why}: {text}");
    }
}

#[test]
fn a_server_without_the_newer_question_is_asked_in_the_old_way() {
    let size = [&8192u64.to_be_bytes()[..], &1u16.to_be_bytes()].concat();
    let (_dir, server, _thread) = server(vec![hello(), answer(UNSUPPORTED, b""), size]);
    assert_eq!(Nbd::connect(&server, false, 512).unwrap().size(), 8192);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_a_server_sends_ends(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (_dir, server, _thread) = server(vec![hello(), bytes]);
        if let Ok(nbd) = Nbd::connect(&server, true, 512) {
            let _ = nbd.read(&mut [0; 512], 0);
        }
    }
}
