// SPDX-License-Identifier: Apache-2.0
//! `ram//SIZE`: memory, taken as it is written to and gone when the device goes. A memfd, served
//! as a file: the data is never in the address space of this process.
use std::path::Path;

use rustix::fs::{MemfdFlags, SeekFrom, ftruncate, memfd_create, seek};

use crate::protocol::file::Image;
use crate::{Config, Error, FileStore, OpenOptions};

pub(crate) fn check(config: &Config<'_>) -> Result<(), Error> {
    config.size().map(drop)
}

/// Takes memory of the size that the string says, or else of the logical unit's. The memory of a
/// predecessor is kept, with its content; it grows where that is asked for.
pub(crate) fn open(config: &Config<'_>, options: &OpenOptions) -> Result<FileStore, Error> {
    let name = format!("{}/{}", config.subtype, config.rest);
    let Some(size) = config.size()?.or(options.size) else {
        let text = "it has no size; it has to be ram//SIZE, such as ram//64M";
        return Err(Error::invalid(text, "configuration string", name));
    };
    let failed = |e| Error::new(e, format!("take {size} bytes of memory"), &name);
    let image = match options.predecessor.as_ref().and_then(|held| held.memory()) {
        Some(old) => {
            let mut image = old.clone();
            image.size = seek(&*old.file, SeekFrom::End(0)).map_err(failed)?;
            if size > image.size {
                ftruncate(&*old.file, size).map_err(failed)?;
                image.size = size;
            }
            image
        }
        None => {
            let fd = memfd_create("tcmu-ram", MemfdFlags::CLOEXEC).map_err(failed)?;
            ftruncate(&fd, size).map_err(failed)?;
            Image::memory(fd, size)
        }
    };
    FileStore::from_image(image, Path::new(&name), options)
}
