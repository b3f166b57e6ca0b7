// SPDX-License-Identifier: Apache-2.0
//! Compressed streams: told by their first bytes, made and read by the programs that everybody has.

use crate::tool::Tool;
use crate::transfer::{FileIn, FileOut};
use guest_error::{Context, Errno, Error, Result, from_io};
use std::ffi::OsStr;
use std::io::{Read, Write};

/// Names of compressions, their programs, and what these have to be told.
const PROGRAMS: &[(&str, &str, &[&str])] = &[
    ("compress", "compress", &[]),
    ("gzip", "gzip", &[]),
    ("bzip2", "bzip2", &[]),
    ("xz", "xz", &[]),
    ("lzop", "lzop", &[]),
    ("lzma", "xz", &["--format=lzma"]),
    ("zstd", "zstd", &[]),
];

/// How compressed streams begin, and the programs that decompress them (linux, lib/decompress.c).
const MAGICS: &[(&[u8], &str)] = &[
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    // What was LZMA alone once is known to xz as well.
    (b"\x5d\0\0", "xz"),
    (b"\x89LZO", "lzop"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
];

/// The program that decompresses what begins so, with the option `-dc`; none if it is not compressed.
pub(crate) fn of_head(head: &[u8]) -> Option<&'static str> {
    MAGICS.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, program)| *program)
}

fn program(name: &OsStr) -> Result<Tool> {
    let Some((name, program, args)) = PROGRAMS.iter().find(|(n, ..)| name == *n) else {
        return Err(Error::argument("compress", name, "unknown compression type"));
    };
    Ok(Tool::compressor(name, program)?.args(*args))
}

/// Hands what the client sends to `sink`, decompressed where it is compressed.
pub(crate) fn decompressed(
    file: &mut FileIn<'_>,
    compress: Option<&OsStr>,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    match compress {
        None => file.for_each(sink),
        Some(name) => {
            let done = program(name)?.arg("-dc").stream(file, sink)?.success().map(drop);
            // What follows the compressed data is not part of the archive.
            done.and_then(|()| file.skip())
        }
    }
}

/// Has `source` write an archive, and sends it to the client, compressed where that is wanted.
pub(crate) fn compressed(
    file: &mut FileOut<'_>,
    compress: Option<&OsStr>,
    source: impl FnOnce(&mut dyn Write) -> Result<()> + Send,
) -> Result<()> {
    let Some(name) = compress else { return source(file) };
    let tool = program(name)?.arg("-c");
    // The program reads while we write: the archive is made by a thread of its own.
    let (mut reader, mut writer) = std::io::pipe().on("pipe")?;
    std::thread::scope(|scope| {
        let maker = scope.spawn(move || {
            let made = source(&mut writer);
            made.and_then(|()| writer.flush().on("pipe"))
        });
        let sent = tool
            .stream(&mut reader as &mut dyn Read, &mut |piece| {
                file.write_all(piece).map_err(|e| from_io(e, name))
            })
            .and_then(|output| output.success().map(drop));
        // The thread must not wait for a reader when it still has something to write.
        drop(reader);
        let made =
            maker.join().unwrap_or_else(|_| Err(Error::new(Errno::EIO, "archive: internal error")));
        sent.and(made)
    })
}
