// SPDX-License-Identifier: Apache-2.0
//! What the generated code does with honest and with hostile messages.

use super::*;
use proptest::prelude::*;
use std::ffi::OsStr;

fn encode<'a>(call: &impl Call<'a>) -> Vec<u8> {
    let mut out = Vec::new();
    call.encode(&mut Encoder::new(&mut out)).unwrap();
    out
}

#[test]
fn arguments_survive_the_wire() {
    let call = args::Mkfs {
        fstype: OsStr::new("ext4"),
        device: OsStr::new("/dev/sda1"),
        options: options::Mkfs {
            blocksize: Some(4096),
            label: Some(OsStr::new("root")),
            ..Default::default()
        },
    };
    assert_eq!(call.optargs_bitmask(), 0b10001);
    let bytes = encode(&call);
    let back = args::Mkfs::decode(&mut Decoder::new(&bytes), call.optargs_bitmask()).unwrap();
    assert_eq!(back, call);
}

#[test]
fn an_older_clients_missing_optional_arguments_were_not_given() {
    let call = args::E2fsck {
        device: OsStr::new("/dev/sda1"),
        options: options::E2fsck { correct: Some(true), ..Default::default() },
    };
    let mut bytes = encode(&call);
    bytes.truncate(bytes.len() - 4); // forceno, which is newer than the others
    let back = args::E2fsck::decode(&mut Decoder::new(&bytes), 0b001).unwrap();
    assert_eq!(back, call);
    assert!(args::E2fsck::decode(&mut Decoder::new(&bytes), 0b100).is_err());
}

#[test]
fn a_newer_clients_additional_arguments_are_ignored() {
    let mut bytes = encode(&args::Touch { path: OsStr::new("/x") });
    bytes.extend_from_slice(&[0; 8]);
    assert!(args::Touch::decode(&mut Decoder::new(&bytes), 0).is_ok());
}

#[test]
fn structures_survive_the_wire_and_take_at_least_their_minimum() {
    let entry = structs::Dirent { ino: 7, ftyp: b'd', name: "x".into() };
    let mut out = Vec::new();
    Wire::encode_list(&[entry.clone(), entry.clone()], &mut Encoder::new(&mut out)).unwrap();
    let back = structs::Dirent::decode_list(&mut Decoder::new(&out)).unwrap();
    assert_eq!(back, [entry.clone(), entry]);
    let mut least = Vec::new();
    structs::LvmPv::default().encode(&mut Encoder::new(&mut least)).unwrap();
    assert_eq!(least.len(), structs::LvmPv::MIN);
}

#[test]
fn a_list_of_structures_longer_than_its_message_is_refused() {
    let mut bytes = 0x0fff_ffffu32.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0; 64]);
    assert!(structs::Statns::decode_list(&mut Decoder::new(&bytes)).is_err());
}

#[test]
fn numbers_find_their_procedures() {
    assert_eq!(procedure(1).unwrap().name, "mount");
    assert_eq!(procedure(MAX_NUMBER).unwrap().name, "xfs_info2");
    assert!(procedure(4).is_none());
    assert_eq!(procedure(278).unwrap().optargs_mask(), 0b11111);
}

proptest! {
    /// Whatever the bytes, decoding ends in a value or in an error.
    #[test]
    fn decoding_garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), mask: u64) {
        let d = || Decoder::new(&bytes);
        let _ = args::Mke2fs::decode(&mut d(), mask);
        let _ = args::TarOut::decode(&mut d(), mask);
        let _ = args::InternalLstatnslist::decode(&mut d(), mask);
        let _ = args::HivexCommit::decode(&mut d(), mask);
        let _ = structs::LvmPv::decode_list(&mut d());
        let _ = structs::Xattr::decode_list(&mut d());
        let _ = frame::Header::decode(&mut d());
        let _ = frame::ErrorBody::decode(&mut d());
        let _ = frame::Chunk::decode(&bytes);
    }

    /// A message cut short is an error, never a shorter value.
    #[test]
    fn a_truncated_message_is_refused(cut in 1usize..40) {
        let call = args::Mount { mountable: OsStr::new("/dev/sda1"), mountpoint: OsStr::new("/a/longer/path") };
        let bytes = encode(&call);
        let end = bytes.len().saturating_sub(cut);
        prop_assert!(args::Mount::decode(&mut Decoder::new(&bytes[..end]), 0).is_err());
    }
}

proptest! {
    /// The entry point of the fuzz target `guestfs_arguments`.
    #[test]
    fn any_body_holds_the_arguments_of_a_procedure_or_not(
        number in 0..MAX_NUMBER + 2, body in proptest::collection::vec(0u8..4, 0..200), mask in any::<u64>(),
    ) {
        prop_assert_eq!(holds_arguments(number, &body, mask).is_some(), procedure(number).is_some());
    }

    /// The entry point of the fuzz target `guestfs_frames`.
    #[test]
    fn any_frame_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        frame::read_any(&bytes);
    }
}
