// SPDX-License-Identifier: Apache-2.0
//! OpenSSL's libcrypto, which is loaded: what the crate is measured beside.
#![allow(unsafe_code)] // Calls of a C library.
#![allow(non_snake_case, reason = "names of functions of libcrypto")]
use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_void};
use std::ptr::{null, null_mut};

use run_time_library::functions;

use super::Failure;

type Handle = *mut c_void;

functions! {
    /// Functions of libcrypto (EVP_EncryptInit(3), OpenSSL_version(3)).
    Functions, "libcrypto.so.3", "libssl3":
    EVP_CIPHER_fetch(Handle, *const c_char, *const c_char) -> Handle;
    EVP_CIPHER_CTX_new() -> Handle;
    EVP_CipherInit_ex(Handle, Handle, Handle, *const c_uchar, *const c_uchar, c_int) -> c_int;
    EVP_CIPHER_CTX_set_padding(Handle, c_int) -> c_int;
    EVP_CipherUpdate(Handle, *mut c_uchar, *mut c_int, *const c_uchar, c_int) -> c_int;
    OpenSSL_version(c_int) -> *const c_char;
}

/// The library.
pub(crate) struct Libcrypto(Functions);

/// A cipher with its key; contexts for decryption and for encryption, which live as long as the program.
pub(crate) struct Keyed<'a> {
    functions: &'a Functions,
    contexts: [Handle; 2],
}

impl Libcrypto {
    pub(crate) fn load() -> Result<Self, Failure> {
        Ok(Libcrypto(Functions::load()?))
    }

    pub(crate) fn version(&self) -> String {
        // SAFETY: it returns a static string, whatever the number is.
        let version = unsafe { CStr::from_ptr((self.0.OpenSSL_version)(0)) };
        version.to_string_lossy().into_owned()
    }

    /// The cipher that has the name `name` in a LUKS header; `None`: it is not there.
    pub(crate) fn cipher(&self, name: &str, key: &[u8]) -> Result<Option<Keyed<'_>>, Failure> {
        let Some((algorithm, mode)) = name.strip_suffix("-plain64").and_then(|s| s.split_once('-'))
        else {
            return Ok(None);
        };
        let halves = if mode == "xts" { 2 } else { 1 };
        let name = CString::new(format!("{algorithm}-{}-{mode}", key.len() * 8 / halves))?;
        let functions = &self.0;
        // SAFETY: the default library and its default properties.
        let cipher = unsafe { (functions.EVP_CIPHER_fetch)(null_mut(), name.as_ptr(), null()) };
        if cipher.is_null() {
            return Ok(None);
        }
        let mut contexts = [null_mut(); 2];
        for (encrypt, context) in (0..).zip(&mut contexts) {
            // SAFETY: the cipher is there, and the key has the length that its name says.
            let ready = unsafe {
                *context = (functions.EVP_CIPHER_CTX_new)();
                !context.is_null()
                    && 1 == (functions.EVP_CipherInit_ex)(
                        *context,
                        cipher,
                        null_mut(),
                        key.as_ptr(),
                        null(),
                        encrypt,
                    )
                    && 1 == (functions.EVP_CIPHER_CTX_set_padding)(*context, 0)
            };
            if !ready {
                return Err("libcrypto does not take the key".into());
            }
        }
        Ok(Some(Keyed { functions, contexts }))
    }
}

impl Keyed<'_> {
    /// Encrypts or decrypts `data` in place by units of `unit` bytes; the first has the number `first`, in
    /// units of 512 bytes.
    pub(crate) fn change(
        &self,
        encrypt: bool,
        first: u64,
        data: &mut [u8],
        unit: usize,
    ) -> Result<(), Failure> {
        let context = self.contexts[usize::from(encrypt)];
        for (index, data) in (0u64..).zip(data.chunks_exact_mut(unit)) {
            let iv = u128::from(first + index * (unit as u64 / 512)).to_le_bytes();
            let len = c_int::try_from(data.len())?;
            let mut done = 0;
            // SAFETY: the context has a cipher and a key, an IV has 16 bytes; blocks are whole and not
            // padded, so as many bytes are written as are read, which may be in place.
            let changed = unsafe {
                1 == (self.functions.EVP_CipherInit_ex)(
                    context,
                    null_mut(),
                    null_mut(),
                    null(),
                    iv.as_ptr(),
                    -1,
                ) && 1
                    == (self.functions.EVP_CipherUpdate)(
                        context,
                        data.as_mut_ptr(),
                        &mut done,
                        data.as_ptr(),
                        len,
                    )
            };
            if !changed || done != len {
                return Err("libcrypto fails".into());
            }
        }
        Ok(())
    }
}
