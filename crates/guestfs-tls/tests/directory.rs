// SPDX-License-Identifier: Apache-2.0
//! What is in a directory of certificates, and what is said of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

use guestfs_tls::{Directory, Error};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn authority() -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

fn identity(dir: &Path, side: &str, issuer: &Issuer<'_, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".into()]).unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    fs::write(dir.join(format!("{side}-cert.pem")), certificate.pem()).unwrap();
    write_private(&dir.join(format!("{side}-key.pem")), &key.serialize_pem());
}

/// A directory for both sides.
fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (issuer, pem) = authority();
    fs::write(dir.path().join("ca-cert.pem"), pem).unwrap();
    identity(dir.path(), "server", &issuer);
    identity(dir.path(), "client", &issuer);
    dir
}

#[test]
fn a_directory_as_qemu_has_it_serves_both_sides() {
    let dir = directory();
    let both = Directory::new(dir.path());
    both.server(&[]).unwrap();
    both.check_server().unwrap();
    both.client().unwrap();
}

#[test]
fn a_file_that_is_missing_is_named() {
    for file in ["ca-cert.pem", "server-cert.pem", "server-key.pem"] {
        let dir = directory();
        fs::remove_file(dir.path().join(file)).unwrap();
        let e = Directory::new(dir.path()).server(&[]).unwrap_err();
        assert!(matches!(&e, Error::File { path, .. } if path.ends_with(file)), "{e}");
    }
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let dir = directory();
    let key = dir.path().join("server-key.pem");
    let modes = [(0o600, true), (0o640, true), (0o400, true), (0o644, false), (0o620, false)];
    for (mode, accepted) in modes {
        fs::set_permissions(&key, PermissionsExt::from_mode(mode)).unwrap();
        match Directory::new(dir.path()).server(&[]) {
            Ok(_) => assert!(accepted, "{mode:o}"),
            Err(e) => assert!(!accepted && e.to_string().contains("chmod 600"), "{mode:o}: {e}"),
        }
    }
}

#[test]
fn a_file_without_what_it_should_have_is_named_and_not_quoted() {
    let secret = "-----BEGIN PRIVATE KEY-----\nU0VDUkVU!!!\n-----END PRIVATE KEY-----\n";
    for text in ["", "SECRET\n", secret, "-----BEGIN PRIVATE KEY-----\nU0VDUkVU\n"] {
        for file in ["server-key.pem", "server-cert.pem", "ca-cert.pem"] {
            let dir = directory();
            write_private(&dir.path().join(file), text);
            let e = Directory::new(dir.path()).server(&[]).unwrap_err().to_string();
            assert!(e.contains(file) && !e.contains("SECRET") && !e.contains("U0VD"), "{e}");
        }
    }
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let (dir, other) = (directory(), directory());
    fs::copy(other.path().join("server-key.pem"), dir.path().join("server-key.pem")).unwrap();
    let e = Directory::new(dir.path()).server(&[]).unwrap_err().to_string();
    assert!(e.contains("server-cert.pem and server-key.pem"), "{e}");
}

#[test]
fn a_server_whose_certificate_clients_would_refuse_is_told_so() {
    let (dir, other) = (directory(), directory());
    fs::copy(other.path().join("ca-cert.pem"), dir.path().join("ca-cert.pem")).unwrap();
    let e = Directory::new(dir.path()).check_server().unwrap_err().to_string();
    assert!(e.contains("server-cert.pem: invalid peer certificate: "), "{e}");
}
