// SPDX-License-Identifier: Apache-2.0
#![allow(unsafe_code)] // Calls of a C library.
//! Scans of the guest's files by rules of YARA.
//!
//! libyara is C, what it scans is the guest's, and compiled rules are programs that it trusts. So processes of their
//! own load the library: one compiles rules, one scans a file. They have what they need open and give up everything
//! else before they look at it; rules that include other files are refused.

use crate::confined;
use crate::library::{Library, call};
use guest_error::{Context, Errno, Error, Result};
use guestfs_api::Wire;
use guestfs_api::structs::YaraDetection;
use guestfs_api::xdr::Encoder;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{null, null_mut};

/// The library: other versions have a rule's name elsewhere.
pub(crate) const LIBRARY: &CStr = c"libyara.so.9";
/// Where a rule (`YR_RULE`) has the pointer to its name.
const NAME: usize = 8;
/// Most memory that the process may use.
const MEMORY: u64 = 4 << 30;
/// Most bytes of rules, as text and compiled.
pub(crate) const MAX_RULES: u64 = 256 << 20;
/// How compiled rules begin.
const COMPILED: &[u8] = b"YARA";

/// `CALLBACK_MSG_RULE_MATCHING`, and what the callback answers.
const MATCHING: c_int = 1;
const GO_ON: c_int = 0;
const FAILED: c_int = 2;
/// `ERROR_SUCCESS`, and errors that rules or files make.
const GOOD: c_int = 0;
const ERRORS: [(c_int, Errno, &str); 10] = [
    (1, Errno::ENOMEM, "more memory is needed than there may be"),
    (4, Errno::EIO, "the file cannot be mapped"),
    (6, Errno::EINVAL, "these are no compiled rules"),
    (7, Errno::EINVAL, "the compiled rules are damaged"),
    (8, Errno::EINVAL, "the compiled rules are of another version"),
    (25, Errno::EIO, "the rules need more stack than there may be"),
    (26, Errno::ETIMEDOUT, "timed out"),
    (28, Errno::EIO, "what was found could not be sent"),
    (30, Errno::EIO, "too many matches"),
    (55, Errno::EIO, "the file cannot be read"),
];

type Handle = *mut c_void;
type Text = *const c_char;
type Told = unsafe extern "C" fn(c_int, Text, c_int, *const u8, Text, *mut c_void);
type Found = unsafe extern "C" fn(Handle, c_int, *const u8, *mut c_void) -> c_int;

/// `YR_STREAM`.
#[repr(C)]
struct Stream {
    user: *mut c_void,
    read: unsafe extern "C" fn(*mut u8, usize, usize, *mut c_void) -> usize,
    write: unsafe extern "C" fn(*const u8, usize, usize, *mut c_void) -> usize,
}

fn begin() -> Result<Library> {
    confined::limit("yara", MEMORY)?;
    let yara = Library::open(LIBRARY)?;
    good(call!(yara, c"yr_initialize", fn() -> c_int,))?;
    Ok(yara)
}

/// An error unless the library's answer says that there was none.
fn good(code: c_int) -> Result<()> {
    if code == GOOD {
        return Ok(());
    }
    let known = ERRORS.iter().find(|(number, ..)| *number == code);
    Err(known.map_or_else(
        || Error::new(Errno::EIO, format!("yara: error {code} of the library")),
        |(_, errno, text)| Error::new(*errno, format!("yara: {text}")),
    ))
}

/// Compiles the rules on standard input to standard output; compiled ones are checked as far as loading them does that.
pub(crate) fn compile() -> Result<()> {
    let yara = begin()?;
    confined::nothing_else("yara")?;
    let mut bytes = Vec::new();
    std::io::stdin().take(MAX_RULES + 1).read_to_end(&mut bytes).on("yara")?;
    if bytes.len() as u64 > MAX_RULES {
        return Err(Error::new(Errno::EFBIG, "yara: more than 256 MiB of rules"));
    }
    let rules = match bytes.starts_with(COMPILED) {
        true => load(&yara, &bytes)?,
        false => compile_text(&yara, bytes)?,
    };
    let mut compiled: Vec<u8> = Vec::new();
    let mut stream = Stream { user: (&raw mut compiled).cast(), read: read_none, write };
    let saved = call!(
        yara,
        c"yr_rules_save_stream",
        fn(Handle, *mut Stream) -> c_int,
        rules,
        &raw mut stream
    );
    good(saved)?;
    std::io::stdout().write_all(&compiled).on("yara")
}

fn compile_text(yara: &Library, text: Vec<u8>) -> Result<Handle> {
    let text = CString::new(text).map_err(|_| Error::invalid("yara: rules with a NUL byte"))?;
    let mut compiler: Handle = null_mut();
    let made = call!(yara, c"yr_compiler_create", fn(*mut Handle) -> c_int, &raw mut compiler);
    good(made)?;
    let mut said: Option<String> = None;
    call!(
        yara,
        c"yr_compiler_set_callback",
        fn(Handle, Told, *mut c_void),
        compiler,
        told,
        (&raw mut said).cast()
    );
    // No files are included.
    call!(
        yara,
        c"yr_compiler_set_include_callback",
        fn(Handle, *const c_void, *const c_void, *mut c_void),
        compiler,
        null(),
        null(),
        null_mut()
    );
    let errors = call!(
        yara,
        c"yr_compiler_add_string",
        fn(Handle, Text, Text) -> c_int,
        compiler,
        text.as_ptr(),
        null()
    );
    if errors != 0 {
        let said = said.unwrap_or_else(|| "the rules cannot be compiled".to_owned());
        return Err(Error::new(Errno::EINVAL, format!("yara: {said}")));
    }
    let mut rules: Handle = null_mut();
    let got = call!(
        yara,
        c"yr_compiler_get_rules",
        fn(Handle, *mut Handle) -> c_int,
        compiler,
        &raw mut rules
    );
    good(got).map(|()| rules)
}

/// Called by the library for each error and warning: the first error is kept.
///
/// # Safety
///
/// The message is the library's, `said` an `Option<String>` that nobody else uses meanwhile.
unsafe extern "C" fn told(
    level: c_int,
    _: Text,
    line: c_int,
    _: *const u8,
    message: Text,
    said: *mut c_void,
) {
    /// `YARA_ERROR_LEVEL_ERROR`.
    const ERROR: c_int = 0;
    if level == ERROR && !message.is_null() {
        // SAFETY: as said above.
        let (said, message) =
            unsafe { (&mut *said.cast::<Option<String>>(), CStr::from_ptr(message)) };
        said.get_or_insert_with(|| format!("line {line}: {}", message.to_string_lossy()));
    }
}

/// Loads compiled rules.
fn load(yara: &Library, bytes: &[u8]) -> Result<Handle> {
    let mut rest = bytes;
    let mut stream = Stream { user: (&raw mut rest).cast(), read, write: write_none };
    let mut rules: Handle = null_mut();
    let loaded = call!(
        yara,
        c"yr_rules_load_stream",
        fn(*mut Stream, *mut Handle) -> c_int,
        &raw mut stream,
        &raw mut rules
    );
    good(loaded).map(|()| rules)
}

/// # Safety
///
/// There are `size` times `count` bytes at `to`; `user` is a slice that nobody else uses meanwhile.
unsafe extern "C" fn read(to: *mut u8, size: usize, count: usize, user: *mut c_void) -> usize {
    // SAFETY: as said above.
    unsafe {
        let rest = &mut *user.cast::<&[u8]>();
        let Some(len) = size.checked_mul(count).filter(|len| *len <= rest.len()) else { return 0 };
        to.copy_from_nonoverlapping(rest.as_ptr(), len);
        *rest = &rest[len..];
    }
    count
}

/// # Safety
///
/// There are `size` times `count` bytes at `from`; `user` is a vector that nobody else uses meanwhile.
unsafe extern "C" fn write(from: *const u8, size: usize, count: usize, user: *mut c_void) -> usize {
    // SAFETY: as said above.
    unsafe {
        let all = &mut *user.cast::<Vec<u8>>();
        let len = size.saturating_mul(count);
        if (all.len() + len) as u64 > MAX_RULES {
            return 0;
        }
        all.extend_from_slice(std::slice::from_raw_parts(from, len));
    }
    count
}

unsafe extern "C" fn read_none(_: *mut u8, _: usize, _: usize, _: *mut c_void) -> usize {
    0
}

unsafe extern "C" fn write_none(_: *const u8, _: usize, _: usize, _: *mut c_void) -> usize {
    0
}

/// Scans a file and writes the names of the rules that it matches to standard output. The request is on standard
/// input: where the compiled rules are, where the file is, and what the client calls it, with NULs between them.
pub(crate) fn scan() -> Result<()> {
    let mut request = Vec::new();
    std::io::stdin().read_to_end(&mut request).on("yara")?;
    let parts: Vec<&[u8]> = request.splitn(3, |&b| b == 0).collect();
    let [rules, file, name] = parts[..] else {
        return Err(Error::new(Errno::EPROTO, "yara: no such request"));
    };
    let open = |path| File::open(Path::new(OsStr::from_bytes(path))).on(OsStr::from_bytes(name));
    let (mut rules, file) = (open(rules)?, open(file)?);
    let yara = begin()?;
    let mut bytes = Vec::new();
    rules.read_to_end(&mut bytes).on("yara")?;
    confined::nothing_else("yara")?;
    let rules = load(&yara, &bytes)?;
    let mut matches: Vec<Vec<u8>> = Vec::new();
    let scanned = call!(
        yara,
        c"yr_rules_scan_fd",
        fn(Handle, c_int, c_int, Found, *mut c_void, c_int) -> c_int,
        rules,
        file.as_raw_fd(),
        0,
        found,
        (&raw mut matches).cast(),
        0
    );
    good(scanned).map_err(|e| e.within(OsStr::from_bytes(name)))?;
    let mut out = Vec::new();
    for rule in matches {
        let detection = YaraDetection {
            yara_name: OsStr::from_bytes(name).to_owned(),
            yara_rule: OsStr::from_bytes(&rule).to_owned(),
        };
        detection.encode(&mut Encoder::new(&mut out)).map_err(Error::invalid)?;
    }
    std::io::stdout().write_all(&out).on("yara")
}

/// Called by the library for each rule: those that match are kept.
///
/// # Safety
///
/// The rule is the library's, `matches` a vector that nobody else uses meanwhile.
unsafe extern "C" fn found(
    _: Handle,
    message: c_int,
    rule: *const u8,
    matches: *mut c_void,
) -> c_int {
    if message != MATCHING {
        return GO_ON;
    }
    // SAFETY: as said above; a rule has its name there.
    unsafe {
        let name: Text = rule.add(NAME).cast::<Text>().read_unaligned();
        if name.is_null() {
            return FAILED;
        }
        (*matches.cast::<Vec<Vec<u8>>>()).push(CStr::from_ptr(name).to_bytes().to_vec());
    }
    GO_ON
}
