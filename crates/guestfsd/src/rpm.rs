// SPDX-License-Identifier: Apache-2.0
#![allow(unsafe_code)] // Calls of a C library.
//! The packages in a guest's RPM database, through librpm.
//!
//! The database is the guest's, and librpm is C: a process of its own loads the library, enters the sysroot for
//! good and writes the packages to its standard output as XDR. If it crashes, or asks for memory without end, one
//! call fails. Signatures are not looked at: this is a list, not a check.

use crate::confined;
use crate::library::{Library, call};
use guest_error::{Context, Errno, Error, Result};
use guestfs_api::structs;
use guestfs_api::xdr::{Decoder, Encoder};
use rustix::process::{chdir, chroot};
use std::ffi::{CStr, OsStr, OsString, c_char, c_int, c_uint, c_void};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{null, null_mut};

/// Versions of the library whose functions are these.
const LIBRARIES: [(&CStr, &CStr); 3] = [
    (c"librpm.so.10", c"librpmio.so.10"),
    (c"librpm.so.9", c"librpmio.so.9"),
    (c"librpm.so.8", c"librpmio.so.8"),
];
/// Most memory that the process may use.
const MEMORY: u64 = 2 << 30;
/// Where guests have the database, if the library's configuration does not say.
const DATABASES: [&CStr; 2] = [c"/usr/lib/sysimage/rpm", c"/var/lib/rpm"];

/// Tags of a package's header.
const NAME: c_int = 1000;
const VERSION: c_int = 1001;
const RELEASE: c_int = 1002;
const EPOCH: c_int = 1003;
const SUMMARY: c_int = 1004;
const DESCRIPTION: c_int = 1005;
const VENDOR: c_int = 1011;
const URL: c_int = 1020;
const ARCH: c_int = 1022;
/// All texts of a package, in the order in which they are written.
const TEXTS: [c_int; 8] = [NAME, VERSION, RELEASE, ARCH, VENDOR, URL, SUMMARY, DESCRIPTION];
/// `RPMVSF_MASK_NODIGESTS`, `RPMVSF_MASK_NOSIGNATURES` and `RPMVSF_NOHDRCHK`: nothing is checked.
const CHECK_NOTHING: c_uint = 0xf_0f00 | 1;

type Handle = *mut c_void;
type Text = *const c_char;

/// Writes the sysroot's packages to standard output.
pub(crate) fn helper(sysroot: &Path) -> Result<()> {
    confined::limit("rpm", MEMORY)?;
    let loaded = LIBRARIES
        .iter()
        .find_map(|(rpm, rpmio)| Some((Library::open(rpm).ok()?, Library::open(rpmio).ok()?)));
    let Some((rpm, rpmio)) = loaded else {
        let missing = "librpm is not on this machine: install its package";
        return Err(Error::not_supported(missing));
    };
    // This machine's configuration, if it has one; what is needed of it is set below in any case.
    call!(rpm, c"rpmReadConfigFiles", fn(Text, Text) -> c_int, null(), null());
    chroot(sysroot).and_then(|()| chdir("/")).on(sysroot)?;
    let database = DATABASES.iter().find(|dir| has_database(dir)).unwrap_or(&DATABASES[1]);
    call!(
        rpmio,
        c"rpmPushMacro",
        fn(Handle, Text, Text, Text, c_int) -> c_int,
        null_mut(),
        c"_dbpath".as_ptr(),
        null(),
        database.as_ptr(),
        -1
    );
    let mut out = Vec::new();
    list(&rpm, &mut out)?;
    std::io::stdout().write_all(&out).on("rpm")
}

/// Whether a directory of the sysroot has a database of any of the kinds.
fn has_database(dir: &CStr) -> bool {
    let dir = Path::new(OsStr::from_bytes(dir.to_bytes()));
    ["rpmdb.sqlite", "Packages.db", "Packages"].iter().any(|file| dir.join(file).exists())
}

fn list(rpm: &Library, out: &mut Vec<u8>) -> Result<()> {
    let set = call!(rpm, c"rpmtsCreate", fn() -> Handle,);
    if set.is_null() {
        return Err(Error::new(Errno::ENOMEM, "rpm: no transaction set"));
    }
    call!(rpm, c"rpmtsSetVSFlags", fn(Handle, c_uint) -> c_uint, set, CHECK_NOTHING);
    // 0: all packages. None is an error only if the database cannot be opened.
    let opened = call!(rpm, c"rpmtsOpenDB", fn(Handle, c_int) -> c_int, set, 0);
    if opened != 0 {
        return Err(Error::new(Errno::ENOENT, "there is no RPM database that can be read"));
    }
    let all = call!(
        rpm,
        c"rpmtsInitIterator",
        fn(Handle, c_int, Text, usize) -> Handle,
        set,
        0,
        null(),
        0
    );
    while !all.is_null() {
        let header = call!(rpm, c"rpmdbNextIterator", fn(Handle) -> Handle, all);
        if header.is_null() {
            break;
        }
        for tag in TEXTS {
            let text = call!(rpm, c"headerGetString", fn(Handle, c_int) -> Text, header, tag);
            // SAFETY: a string of the header's, which lives until the next one is asked for.
            let text = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) });
            Encoder::new(out)
                .opaque(text.map_or(&b""[..], CStr::to_bytes))
                .map_err(Error::invalid)?;
        }
        let epoch = call!(rpm, c"headerGetNumber", fn(Handle, c_int) -> u64, header, EPOCH);
        Encoder::new(out).i32(i32::try_from(epoch).unwrap_or(0));
    }
    // The process ends now, and with it what the library has open.
    Ok(())
}

/// Reads what the process wrote.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<structs::Application2>> {
    let mut d = Decoder::new(bytes);
    let mut found = Vec::new();
    while !d.is_empty() {
        let mut texts = TEXTS.map(|_| OsString::new());
        for text in &mut texts {
            *text = OsStr::from_bytes(d.opaque().map_err(Error::invalid)?).to_owned();
        }
        let [name, version, release, arch, vendor, url, summary, description] = texts;
        let epoch = d.i32().map_err(Error::invalid)?;
        // Keys that packages are checked with are in the database, too.
        if name == "gpg-pubkey" {
            continue;
        }
        found.push(structs::Application2 {
            app2_name: name,
            app2_epoch: epoch,
            app2_version: version,
            app2_release: release,
            app2_arch: arch,
            app2_publisher: vendor,
            app2_url: url,
            app2_summary: summary,
            app2_description: description,
            ..structs::Application2::default()
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_of_any_kind_do_no_harm(bytes: Vec<u8>) {
            parse(&bytes).ok();
        }
    }
}
