// SPDX-License-Identifier: Apache-2.0
//! Files of the guest and devices to the client in another form: compressed, or as base64; and base64 back.

use super::transfer::{open, refuse_directory};
use crate::base64::{Decoder, Encoder};
use crate::devices::Device;
use crate::mountable::DevOrPath;
use crate::session::Session;
use crate::tool::Tool;
use crate::transfer::{FileIn, FileOut};
use guest_error::{Context, Errno, Error, Result, from_io};
use guest_fs::paths::GuestPath;
use guestfs_api::options;
use rustix::fs::OFlags;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::ops::RangeInclusive;

/// Bytes that are read at once.
const PIECE: usize = 256 << 10;
/// Compressions, each by the program of its name, and levels that it has.
const COMPRESSIONS: &[(&str, Option<RangeInclusive<i32>>)] = &[
    ("compress", None),
    ("gzip", Some(1..=9)),
    ("bzip2", Some(1..=9)),
    ("xz", Some(0..=9)),
    ("lzop", Some(1..=9)),
    ("zstd", Some(1..=19)),
];
/// The level that stands for none.
const DEFAULT_LEVEL: i32 = -1;

/// Sends a file, compressed.
pub(crate) fn compress_out(
    s: &mut Session,
    ctype: &OsStr,
    file: GuestPath<'_>,
    zfile: &mut FileOut<'_>,
    options: &options::CompressOut,
) -> Result<()> {
    compress(s, ctype, &DevOrPath::Path(file), zfile, options.level)
}

/// Sends what is on a device, compressed.
pub(crate) fn compress_device_out(
    s: &mut Session,
    ctype: &OsStr,
    device: Device,
    zdevice: &mut FileOut<'_>,
    options: &options::CompressDeviceOut,
) -> Result<()> {
    compress(s, ctype, &DevOrPath::Device(device), zdevice, options.level)
}

fn compress(
    s: &Session,
    ctype: &OsStr,
    what: &DevOrPath<'_>,
    out: &mut FileOut<'_>,
    level: Option<i32>,
) -> Result<()> {
    let Some((program, levels)) = COMPRESSIONS.iter().find(|(name, _)| ctype == *name) else {
        return Err(Error::argument("ctype", ctype, "unknown compression type"));
    };
    let mut tool = Tool::compressor(program, program)?.arg("-c");
    if let Some(level) = level.filter(|l| *l != DEFAULT_LEVEL) {
        if !levels.as_ref().is_some_and(|levels| levels.contains(&level)) {
            let why = format!("{program} has no such level");
            return Err(Error::argument("level", level.to_string(), &why));
        }
        tool = tool.arg(format!("-{level}"));
    }
    let mut source = source(s, what)?;
    let sent = tool
        .stream(&mut source, &mut |piece| out.write_all(piece).map_err(|e| from_io(e, program)));
    sent?.success().map(drop)
}

/// Opens what is to be sent. Without NONBLOCK, opening a FIFO would wait for its other end.
fn source(s: &Session, what: &DevOrPath<'_>) -> Result<File> {
    let file = open(s, what, OFlags::RDONLY | OFlags::NONBLOCK)?;
    refuse_directory(&file, what)?;
    Ok(file)
}

/// Stores what the client sends as base64.
pub(crate) fn base64_in(
    s: &mut Session,
    base64file: &mut FileIn<'_>,
    filename: GuestPath<'_>,
) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NONBLOCK;
    let mut file = s.open(filename, flags)?;
    let mut decoder = Decoder::default();
    let mut decoded = Vec::new();
    let invalid = || Error::new(Errno::EINVAL, "base64file: invalid base64");
    base64file.for_each(&mut |piece| {
        decoded.clear();
        let valid = decoder.push(piece, &mut decoded);
        file.write_all(&decoded).on(filename)?;
        valid.ok_or_else(invalid)
    })?;
    if decoder.is_complete() { Ok(()) } else { Err(invalid()) }
}

/// Sends a file as base64.
pub(crate) fn base64_out(
    s: &mut Session,
    filename: GuestPath<'_>,
    base64file: &mut FileOut<'_>,
) -> Result<()> {
    let mut file = source(s, &DevOrPath::Path(filename))?;
    let mut encoder = Encoder::default();
    let (mut buffer, mut encoded) = (vec![0; PIECE], Vec::new());
    loop {
        let n = match file.read(&mut buffer) {
            Err(e)
                if e.kind() == std::io::ErrorKind::Interrupted
                    && !guest_fs::interrupt::requested() =>
            {
                continue;
            }
            n => n.on(filename)?,
        };
        encoded.clear();
        match n {
            0 => encoder.finish(&mut encoded),
            n => encoder.push(&buffer[..n], &mut encoded),
        }
        base64file.write_all(&encoded).map_err(|e| from_io(e, filename))?;
        if n == 0 {
            return Ok(());
        }
    }
}
