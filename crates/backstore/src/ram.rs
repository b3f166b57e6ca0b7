//! `ram//SIZE`: memory, taken as it is written to and gone when the device goes. A memfd, served
//! as a file: the data never is in this process's address space.
use std::path::Path;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::{Config, Error, FileStore, OpenOptions};

pub(crate) fn check(config: &Config<'_>) -> Result<(), Error> {
    config.size().map(drop)
}

/// Makes a memory of the size that the string says, or else of the logical unit's.
pub(crate) fn open(config: &Config<'_>, options: &OpenOptions) -> Result<FileStore, Error> {
    let name = format!("{}/{}", config.subtype, config.rest);
    let Some(size) = config.size()?.or(options.size) else {
        let text = "it has no size; it has to be ram//SIZE, such as ram//64M";
        return Err(Error::invalid(text, "configuration string", name));
    };
    let failed = |e| Error::new(e, format!("take {size} bytes of memory"), &name);
    let fd = memfd_create("tcmu-ram", MemfdFlags::CLOEXEC).map_err(failed)?;
    ftruncate(&fd, size).map_err(failed)?;
    FileStore::from_fd(fd, Path::new(&name), options)
}
