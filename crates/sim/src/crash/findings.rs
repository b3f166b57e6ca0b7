// SPDX-License-Identifier: Apache-2.0
//! What is found in the files of a world after a crash. In: the world. Out: what a check says of
//! the image, and what the engine reads in it. Files that are as at one of the last crashes are not
//! looked at again: what is found is the same.
use std::collections::VecDeque;
use std::rc::Rc;

use io_engine::Engine;
use io_engine::sim::{Contents, Copied, Knobs, World};
use qcow2::{Image, Repair};
use sgl::Sgl;

use crate::crash::check::bitmaps::{Bitmap, bitmaps};
use crate::crash::check::{Found, check};
use crate::crash::model::Read;
use crate::crash::saving;
use crate::crash::target::{Disk, IMAGE, open_image, text};
use crate::crash::workload::Record;

/// How many of the last crashes are known.
const KNOWN: usize = 8;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Findings {
    /// What the check says.
    pub(crate) check: Found,
    /// Size in sectors.
    pub(crate) size: u64,
    /// The disk's content.
    pub(crate) bytes: Vec<u8>,
    pub(crate) snapshots: Vec<Read>,
    pub(crate) bitmaps: Vec<Bitmap>,
}

/// Looks at one crash after the other, of one run.
#[derive(Default)]
pub(crate) struct Finder {
    /// The image's file.
    file: Copied,
    /// The last ones.
    known: VecDeque<(Contents, Rc<Findings>)>,
}

fn on<T>(world: &World, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let engine = Engine::simulated(world).map_err(|e| e.to_string())?;
    engine.block_on(work).map_err(|e| e.to_string())?
}

/// Reads all of an image, over what certainly is not there.
async fn read_all(image: &Image<Disk>) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0xff; usize::try_from(image.size()).unwrap_or(0)];
    let read = image.read(&Sgl::from_slice(&mut bytes), 0).await;
    read.map_err(|e| format!("reading all: {}", text(&e)))?;
    Ok(bytes)
}

/// Reads all snapshots of the image of a world.
async fn read_snapshots(world: &World, record: &Record) -> Result<Vec<Read>, String> {
    let mut found = Vec::new();
    if !record.has_snapshots() {
        return Ok(found);
    }
    let file = world.open(IMAGE).map_err(|e| e.to_string())?;
    let list = qcow2::snapshots::list(&file).await;
    for snapshot in list.map_err(|e| format!("listing: {}", text(&e)))? {
        let unknown = || format!("there is a snapshot {:?}", snapshot.name);
        let number = saving::number(&snapshot.name).ok_or_else(unknown)?;
        let image = open_image(world, record, true, Some(snapshot.name)).await?;
        let bytes = read_all(&image).await?;
        found.push(Read { number, size: image.size() / record.unit as u64, bytes });
    }
    Ok(found)
}

fn wrong_flags(found: Found) -> Result<Found, String> {
    match found.flags {
        0 => Ok(found),
        flags => Err(format!("the image: {flags} COPIED flags are wrong")),
    }
}

impl Finder {
    /// Checks the image of a world.
    fn check(&mut self, world: &World) -> Result<Found, String> {
        world.copy_content(IMAGE, &mut self.file);
        check(self.file.bytes()).map_err(|why| format!("the image: {why}"))
    }

    /// Checks and reads what is in a world.
    ///
    /// # Errors
    /// What is wrong with the image, whatever it should hold.
    pub(crate) fn find(&mut self, world: &World, record: &Record) -> Result<Rc<Findings>, String> {
        let contents = world.contents();
        if let Some((_, found)) = self.known.iter().find(|(known, _)| *known == contents) {
            return Ok(found.clone());
        }
        let mut check = self.check(world)?;
        // Where snapshots come and go, a crash may leave flags that the next opening sets.
        if !record.has_snapshots() {
            check = wrong_flags(check)?;
        }
        let bitmaps = bitmaps(self.file.bytes()).map_err(|why| format!("the image: {why}"))?;
        world.set_knobs(Knobs::INSTANT);
        let found = on(world, async {
            let image = open_image(world, record, true, None).await?;
            let (size, bytes) = (image.size() / record.unit as u64, read_all(&image).await?);
            let snapshots = read_snapshots(world, record).await?;
            Ok(Rc::new(Findings { check, size, bytes, snapshots, bitmaps }))
        })?;
        if self.known.len() == KNOWN {
            self.known.pop_front();
        }
        self.known.push_back((contents, found.clone()));
        Ok(found)
    }

    /// Has the engine check an image, and opens it for writing, as the next process does, and
    /// closes it: that changes nothing, and leaves no errors. In a world that is not needed any
    /// more. Returns how many clusters are leaked still.
    ///
    /// # Errors
    /// What is otherwise.
    pub(crate) fn reopen(
        &mut self,
        world: &World,
        record: &Record,
        found: &Findings,
    ) -> Result<u64, String> {
        world.set_knobs(Knobs::INSTANT);
        on(world, async {
            let file = world.open(IMAGE).map_err(|e| e.to_string())?;
            let report = qcow2::check(&file, Repair::None).await;
            let report = report.map_err(|e| format!("checking: {}", text(&e)))?;
            let before = found.check;
            let wanted = (before.flags, before.leaks);
            if !before.dirty && (report.corruptions, report.leaks) != wanted {
                return Err(format!("the image: {before:?}, but by the engine {report:?}"));
            }
            let image = open_image(world, record, false, None).await?;
            let bytes = read_all(&image).await?;
            image.close().await.map_err(|e| format!("closing: {}", text(&e)))?;
            let snapshots = read_snapshots(world, record).await?;
            let same = (&bytes, &snapshots) == (&found.bytes, &found.snapshots);
            if same { Ok(()) } else { Err("it reads differently".to_owned()) }
        })?;
        let after = self.check(world)?;
        if record.format.unknown {
            return Ok(after.leaks);
        }
        match wrong_flags(after)?.leaks {
            0 => Ok(0),
            leaks => Err(format!("the image: {leaks} clusters are leaked still")),
        }
    }
}
