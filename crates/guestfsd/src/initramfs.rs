// SPDX-License-Identifier: Apache-2.0
//! Initramfs images: a row of archives, of which those after the first compressed one are in its compressed stream.
//! What comes first and is not compressed is, as a rule, microcode.

use crate::compression;
use crate::tool::{self, Tool};
use guest_error::{Errno, Error, Result, from_io};
use guest_fs::cpio::read::{Reader, Sink};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;
/// Bytes that tell compressions apart.
const MAGIC: u64 = 6;
/// Most bytes that a compressed stream may be long: it may be made to have no end.
const MAX_UNPACKED: u64 = 8 << 30;

/// Tells `sink` what is in an image, from where the file stands to its end.
pub(crate) fn read(file: &mut File, sink: &mut dyn Sink) -> Result<()> {
    let mut reader = Reader::new(sink);
    let mut buffer = vec![0; PIECE];
    let mut position = file.stream_position().map_err(|e| from_io(e, "seek"))?;
    loop {
        let n = file.read(&mut buffer).map_err(|e| from_io(e, "read"))?;
        if n == 0 {
            return reader.finish();
        }
        let taken = reader.push(&buffer[..n])?;
        position += taken as u64;
        if taken < n {
            file.seek(SeekFrom::Start(position)).map_err(|e| from_io(e, "seek"))?;
            reader.resume();
            return compressed(file, position, reader);
        }
    }
}

/// Reads what is left of an image, which is compressed.
fn compressed(file: &mut File, begin: u64, mut reader: Reader<'_>) -> Result<()> {
    let mut magic = Vec::new();
    file.by_ref().take(MAGIC).read_to_end(&mut magic).map_err(|e| from_io(e, "read"))?;
    file.seek(SeekFrom::Start(begin)).map_err(|e| from_io(e, "seek"))?;
    let Some(program) = compression::of_head(&magic) else {
        let text = "initrd: neither a cpio archive nor compressed in a way that is known";
        return Err(Error::new(Errno::EINVAL, text));
    };
    if tool::find(program).is_none() {
        let text = format!("initrd: reading it needs the program '{program}', which is not there");
        return Err(Error::not_supported(text));
    }
    let (mut foreign, mut unpacked) = (false, 0);
    let output = Tool::new(program).arg("-dc").stream(file, &mut |piece| {
        unpacked += piece.len() as u64;
        if unpacked > MAX_UNPACKED {
            return Err(Error::new(Errno::EFBIG, "initrd: its content is longer than 8 GiB"));
        }
        // What follows the archives within the stream is ignored, as the kernel does.
        if !foreign {
            foreign = reader.push(piece)? < piece.len();
        }
        Ok(())
    })?;
    if foreign {
        return Ok(());
    }
    // What the program says is more than that something is missing.
    reader.finish().map_err(|e| output.success().err().unwrap_or(e))
}
