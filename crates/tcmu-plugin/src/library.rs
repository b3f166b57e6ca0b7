// SPDX-License-Identifier: Apache-2.0
//! Looks at the file of a library before the dynamic linker does, which trusts it: a pipe makes it
//! wait for ever, and of a file that was cut off it maps what is not there, so that the program dies
//! of SIGBUS.
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{Endianness, ReadCache};

/// Why a file is not given to the dynamic linker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A directory, a pipe, a device.
    #[error("it is no regular file")]
    NotRegular,
    /// Not a 64-bit ELF file with program headers (ELF-64, "Program header table").
    #[error("it is no ELF file of this machine, or its headers are damaged: {0}")]
    Elf(#[from] object::read::Error),
    /// Shorter than its segments.
    #[error("the file was cut off: it has {len} bytes, its headers say {wanted}")]
    CutOff {
        /// Of the file, in bytes.
        len: u64,
        /// Where its last segment ends.
        wanted: u64,
    },
}

/// Checks that a file is one that the dynamic linker can map.
pub(crate) fn check(path: &Path) -> Result<(), Error> {
    // A pipe would wait for somebody who writes.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(Error::NotRegular);
    }
    let data = &ReadCache::new(file);
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, data)?;
    let loaded = segments.iter().filter(|segment| segment.p_type(endian) == PT_LOAD);
    let ends =
        loaded.map(|segment| segment.p_offset(endian).saturating_add(segment.p_filesz(endian)));
    let (len, wanted) = (meta.len(), ends.max().unwrap_or(0));
    if wanted > len { Err(Error::CutOff { len, wanted }) } else { Ok(()) }
}
