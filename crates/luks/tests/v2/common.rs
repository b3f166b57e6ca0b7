// SPDX-License-Identifier: Apache-2.0
//! Bytes as a source, and headers that are made here, independently of the crate.
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use luks::{Error, Secret, SectorCipher, Source, Volume};
use sha2::{Digest as _, Sha256};

/// The length of each copy, in bytes.
pub(crate) const COPY: usize = 16 << 10;

pub(crate) struct Bytes<'a>(pub &'a [u8]);

impl Source for Bytes<'_> {
    async fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let there = self.0.get(offset as usize..).unwrap_or_default();
        let mut bytes = vec![0; len];
        bytes.iter_mut().zip(there).for_each(|(byte, there)| *byte = *there);
        Ok(bytes)
    }
}

/// The result of a future that waits for nothing.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

pub(crate) fn volume(bytes: &[u8]) -> Result<Volume, Error> {
    now(Volume::read(&Bytes(bytes)))
}

/// Opens a volume as the block layer does.
pub(crate) fn unlock(bytes: &[u8], passphrase: &[u8]) -> Result<SectorCipher, Error> {
    let volume = volume(bytes)?;
    let secret = Secret::new(passphrase.to_vec());
    for (index, area) in volume.areas().into_iter().enumerate() {
        let material = now(Bytes(bytes).read(area.start, (area.end - area.start) as usize));
        if let Some(cipher) = volume.try_slot(index, &material.unwrap(), &secret)? {
            return Ok(cipher);
        }
    }
    Err(volume.wrong_passphrase())
}

/// Makes the checksum of a copy right.
pub(crate) fn mend(copy: &mut [u8]) {
    copy[448..512].fill(0);
    let checksum = Sha256::digest(&*copy);
    copy[448..480].copy_from_slice(&checksum);
}

/// Both copies of a header with this text.
pub(crate) fn header(json: &str) -> Vec<u8> {
    let mut bytes = vec![0; 2 * COPY];
    for (offset, magic) in [(0, b"LUKS\xba\xbe"), (COPY, b"SKUL\xba\xbe")] {
        let copy = &mut bytes[offset..offset + COPY];
        copy[..6].copy_from_slice(magic);
        copy[7] = 2;
        copy[8..16].copy_from_slice(&(COPY as u64).to_be_bytes());
        copy[23] = 1;
        copy[72..78].copy_from_slice(b"sha256");
        copy[168..172].copy_from_slice(b"uuid");
        copy[256..264].copy_from_slice(&(offset as u64).to_be_bytes());
        copy[4096..4096 + json.len()].copy_from_slice(json.as_bytes());
        mend(copy);
    }
    bytes
}

/// The text of a header with one slot, whose key material is 512 bytes.
pub(crate) const TEXT: &str = r#"{
 "keyslots":{"0":{"type":"luks2","key_size":64,
  "af":{"type":"luks1","stripes":8,"hash":"sha256"},
  "area":{"type":"raw","offset":"32768","size":"4096","encryption":"aes-xts-plain64","key_size":64},
  "kdf":{"type":"argon2id","time":4,"memory":64,"cpus":1,"salt":"AAECAwQFBgcICQoLDA0ODw=="}}},
 "tokens":{},
 "segments":{"0":{"type":"crypt","offset":"65536","size":"dynamic","iv_tweak":"0",
  "encryption":"aes-xts-plain64","sector_size":512}},
 "digests":{"0":{"type":"pbkdf2","keyslots":["0"],"segments":["0"],"hash":"sha256",
  "iterations":1000,"salt":"AAECAwQFBgcICQoLDA0ODw==",
  "digest":"AAECAwQFBgcICQoLDA0ODwABAgMEBQYHCAkKCwwNDg8="}},
 "config":{"json_size":"12288","keyslots_size":"4096"}}"#;
