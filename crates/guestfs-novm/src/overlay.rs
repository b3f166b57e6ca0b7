// SPDX-License-Identifier: Apache-2.0
//! The overlay that libguestfs makes of a disk that is only to be read, where the disk is a compressed
//! file. libguestfs asks `qemu-img` for the disk's format and size, and gets those of a raw image
//! that is the compressed file. Here the overlay is made anew, for what the file contains.
//!
//! Rule: the name of the file has to say that it is compressed, and its first bytes, too. The
//! overlay does not tell whether the user has given the format; a guest can choose the bytes of its
//! disk, and not the name. Only an overlay that holds nothing is replaced.

use crate::error::{Context, Error, Result};
use crate::sys::{self, Fork};
use block::{Locking, OpenOptions, Store};
use io_engine::{Backend, Engine};
use qcow2::layout::header::Backing;
use qcow2::{CreateOptions, Header};
use rustix::process::{WaitOptions, waitpid};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of the first cluster of what `qemu-img create` makes.
const CLUSTER: usize = 64 << 10;
/// Most bytes of the table that says what the overlay holds: enough for a file of 4 TiB.
const MAX_TABLE: u64 = 64 << 10;
/// Longest message of the process that makes the overlay.
const MAX_MESSAGE: u64 = 64 << 10;
/// How names of compressed files end, which is what their formats are called, too.
const ENDINGS: &[&str] = &["xz", "zst", "gz"];

/// Makes an overlay anew, if it is one of a compressed file.
pub(crate) fn correct(path: &Path, overlay: &File) -> Result<()> {
    let Some((below, format)) = compressed(overlay).on(path.display())? else { return Ok(()) };
    let (from_child, mut to_parent) = io::pipe().on("pipe")?;
    // Decompressing takes threads, which a process that forks must not have.
    match sys::fork().on("fork")? {
        Fork::Child => {
            let made = sys::close_all_but(&[0, 1, 2, to_parent.as_raw_fd()])
                .on("descriptors")
                .and_then(|()| make(path, &below, format));
            if let Err(e) = &made {
                write!(to_parent, "{e}").ok();
            }
            #[allow(clippy::exit, reason = "nothing of the parent's is to be run here")]
            std::process::exit(i32::from(made.is_err()));
        }
        Fork::Parent(child) => {
            drop(to_parent);
            let mut said = String::new();
            from_child.take(MAX_MESSAGE).read_to_string(&mut said).on("pipe")?;
            let ended = waitpid(Some(child), WaitOptions::empty()).on("an overlay")?;
            match ended.and_then(|(_, status)| status.exit_status()) {
                Some(0) => Ok(()),
                _ if said.is_empty() => Err(Error::image(path, "its overlay cannot be made")),
                _ => Err(Error::Served(said)),
            }
        }
    }
}

/// The compressed file below an overlay that takes it for a raw image, and its format.
fn compressed(overlay: &File) -> io::Result<Option<(PathBuf, &'static str)>> {
    let mut cluster = vec![0; CLUSTER];
    if overlay.metadata()?.len() < CLUSTER as u64 {
        return Ok(None);
    }
    overlay.read_exact_at(&mut cluster, 0)?;
    // What is wrong with it is said when it is opened.
    let Ok(header) = Header::decode(&cluster) else { return Ok(None) };
    let Some(Backing { name, format: Some(format) }) = &header.backing else { return Ok(None) };
    let below = Path::new(name);
    let ending = below.extension().and_then(|ending| ending.to_str());
    let said = ENDINGS.iter().find(|known| Some(**known) == ending);
    let Some(said) = said.filter(|_| format == "raw" && below.is_absolute()) else {
        return Ok(None);
    };
    if !below.is_file() || block::probe(&block::head(&File::open(below)?)?) != *said {
        return Ok(None);
    }
    let table = u64::from(header.l1_entries) * 8;
    let mut entries = Vec::new();
    if table <= MAX_TABLE {
        entries = vec![0; usize::try_from(table).map_err(io::Error::other)?];
        overlay.read_exact_at(&mut entries, header.l1_offset)?;
    }
    let holds_nothing = table <= MAX_TABLE && entries.iter().all(|byte| *byte == 0);
    Ok((holds_nothing && header.snapshots == 0).then(|| (below.to_owned(), *said)))
}

/// Makes an empty overlay on what is in a compressed file. A .gz is decompressed once for its size,
/// and once more when it is served.
fn make(path: &Path, below: &Path, format: &'static str) -> Result<()> {
    let engine = Engine::new(Backend::Auto).on("the engine of I/O")?;
    let made = engine.block_on(async {
        let options =
            OpenOptions { read_only: true, locking: Locking::None, ..OpenOptions::default() };
        let store = block::open_image(below, format, &options).await.map_err(Error::Open)?;
        let backing = Backing { name: below.into(), format: Some(format.to_owned()) };
        let options =
            CreateOptions { backing: Some(backing), ..CreateOptions::new(store.facts().size) };
        let overlay = File::options().read(true).write(true).truncate(true).open(path);
        let overlay = io_engine::File::new(overlay.on(path.display())?.into());
        let created = qcow2::create(&overlay, None, &options).await;
        created.map_err(|e| Error::image(path, e.to_string()))
    });
    made.on("the engine of I/O")?
}
