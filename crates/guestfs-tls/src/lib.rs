// SPDX-License-Identifier: Apache-2.0
//! TLS with certificates on both sides for the guestfs protocol: which files hold them, and what is
//! asked of the peer.
//!
//! Certificates are laid out as QEMU has them (`tls-creds-x509,dir=`), PEM files in one directory:
//!
//! | file | side | what it is |
//! |---|---|---|
//! | `ca-cert.pem` | both | certificates of the authorities that the peer's certificate must come from |
//! | `server-cert.pem`, `server-key.pem` | server | its certificate (and intermediate ones), and the private key |
//! | `client-cert.pem`, `client-key.pem` | client | the same for the client |
//! | `ca-crl.pem` | server | certificates that were revoked; need not be there |
//!
//! Only TLS 1.3 (RFC 8446) is spoken. A certificate has to be one of X.509 version 3 for the side that uses
//! it (extended key usage). The server's must have the name or the address that clients connect to among its
//! subject alternative names; the client's may be asked for one of some names as well.
//!
//! Files go in, configurations of [`rustls`] come out. Nothing is kept: whoever asks again reads again, so
//! that renewed certificates are used from the next connection on.

mod named;

use rustix::fs::Mode;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime,
};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use rustls;

/// Where certificates are, unless it is said otherwise.
pub const DEFAULT_DIRECTORY: &str = "/etc/pki/guestfsd";

/// Longest file that is read: some hundred certificates, or a list of thousands that were revoked.
const MAX_FILE: u64 = 1 << 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A private key is not private.
    #[error(
        "{}: others than its owner can read or change it (mode {mode:04o}): chmod 600 it, and make a \
         new key if others may have read it",
        path.display()
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A directory of certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory(PathBuf);

impl Directory {
    /// The directory with this path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A server that lets nobody in without a certificate of the authority, which has one of these names if there
    /// are any.
    pub fn server(&self, clients: &[ServerName<'static>]) -> Result<Arc<ServerConfig>> {
        let provider = provider();
        let authorities = Arc::new(self.authorities()?);
        let at_fault = self.0.join("ca-cert.pem");
        let mut verifier =
            WebPkiClientVerifier::builder_with_provider(authorities, provider.clone());
        let revoked = self.0.join("ca-crl.pem");
        if revoked.exists() {
            verifier = verifier
                .with_crls(all::<CertificateRevocationListDer<'_>>(&revoked, "revocation list")?)
                .only_check_end_entity_revocation();
        }
        let mut verifier = verifier.build().map_err(|e| content(&at_fault, e))?;
        if !clients.is_empty() {
            verifier = Arc::new(named::Verifier::new(verifier, clients));
        }
        let (chain, key) = self.identity("server")?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| content(&self.0, e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|e| content(&self.0.join("server-cert.pem and server-key.pem"), e))?;
        // Each connection begins with both certificates: there is nothing to resume.
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// What clients will say of the server's certificate: an error if it is not one of the authority's, or not
    /// for today.
    pub fn check_server(&self) -> Result<()> {
        let (chain, _) = self.identity("server")?;
        let path = self.0.join("server-cert.pem");
        let Some((first, rest)) = chain.split_first() else { return Ok(()) };
        let certificate = ParsedCertificate::try_from(first).map_err(|e| content(&path, e))?;
        let algorithms = provider().signature_verification_algorithms.all;
        let (roots, now) = (self.authorities()?, UnixTime::now());
        verify_server_cert_signed_by_trust_anchor(&certificate, &roots, rest, now, algorithms)
            .map_err(|e| content(&path, e))
    }

    /// A client that shows its certificate, and takes a server with one of the authority only.
    pub fn client(&self) -> Result<Arc<ClientConfig>> {
        let (chain, key) = self.identity("client")?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| content(&self.0, e))?
            .with_root_certificates(self.authorities()?)
            .with_client_auth_cert(chain, key)
            .map_err(|e| content(&self.0.join("client-cert.pem and client-key.pem"), e))?;
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }

    fn authorities(&self) -> Result<RootCertStore> {
        let path = self.0.join("ca-cert.pem");
        let mut store = RootCertStore::empty();
        for certificate in all::<CertificateDer<'_>>(&path, "certificate")? {
            store.add(certificate).map_err(|e| content(&path, e))?;
        }
        Ok(store)
    }

    /// Certificate, with those between it and the authority's, and private key.
    fn identity(
        &self,
        side: &str,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let chain = all(&self.0.join(format!("{side}-cert.pem")), "certificate")?;
        let path = self.0.join(format!("{side}-key.pem"));
        let (file, text) = read(&path)?;
        let mode = file.metadata().map_err(|source| unreadable(&path, source))?.mode() & 0o7777;
        // The owner's group may read it: daemons of a user of their own have it so.
        if Mode::from_raw_mode(mode).intersects(Mode::RWXO | Mode::WGRP) {
            return Err(Error::OpenToOthers { path, mode });
        }
        let key = PrivateKeyDer::from_pem_slice(&text)
            .map_err(|e| content(&path, pem_problem(&e, "private key")))?;
        Ok((chain, key))
    }
}

/// A DNS name or an IP address.
pub fn name(text: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(text.to_owned()).ok()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// All that a file has of one kind; at least one.
fn all<T: PemObject>(path: &Path, kind: &str) -> Result<Vec<T>> {
    let (_, text) = read(path)?;
    let found: std::result::Result<Vec<T>, _> = T::pem_slice_iter(&text).collect();
    let found = found.map_err(|e| content(path, pem_problem(&e, kind)))?;
    match found.is_empty() {
        true => Err(content(path, pem_problem(&pem::Error::NoItemsFound, kind))),
        false => Ok(found),
    }
}

fn read(path: &Path) -> Result<(File, Vec<u8>)> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(|source| unreadable(path, source))?;
    (&file).take(MAX_FILE + 1).read_to_end(&mut text).map_err(|source| unreadable(path, source))?;
    if text.len() as u64 > MAX_FILE {
        return Err(content(path, format!("longer than {MAX_FILE} bytes")));
    }
    Ok((file, text))
}

fn unreadable(path: &Path, source: std::io::Error) -> Error {
    Error::File { path: path.to_owned(), source }
}

fn content(path: &Path, why: impl ToString) -> Error {
    Error::Content { path: path.to_owned(), why: why.to_string() }
}

fn pem_problem(error: &pem::Error, kind: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("has no {kind} in PEM form"),
        // Its text may quote what the file has.
        _ => format!("a {kind} in it is no valid PEM"),
    }
}
