// SPDX-License-Identifier: Apache-2.0
//! The bytes of guest clusters: where they are stored as they are, and compressed ones. What is asked
//! for alone is inflated on the engine's thread, which takes less time than waking another; several
//! at once are inflated by the engine's pool of threads.
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use io_engine::unblock;
use sgl::Sgl;

use crate::ErrorKind;
use crate::compress::decompress;
use crate::core::Core;
use crate::error::Result;
use crate::layout::entry::Compressed;
use crate::storage::Storage;
use crate::wait::{Event, yield_once};

/// How many inflated clusters are kept.
const KEPT: usize = 4;
/// How many clusters are inflated at a time; each takes memory for its content.
const AT_ONCE: usize = 8;

/// The last clusters that were inflated.
#[derive(Default)]
pub(crate) struct Inflated {
    /// Offset in the file and content, the latest last.
    clusters: RefCell<Vec<(u64, Rc<Vec<u8>>)>>,
    /// Counts calls of [`Inflated::forget`].
    forgotten: Cell<u64>,
    /// Offsets of those that are being inflated.
    running: RefCell<Vec<u64>>,
    /// One of them has been, or not.
    ended: Event,
}

/// A cluster that is being inflated.
struct Running<'a> {
    inflated: &'a Inflated,
    host: u64,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.inflated.running.borrow_mut().retain(|host| *host != self.host);
        self.inflated.ended.notify();
    }
}

impl Inflated {
    /// A compressed cluster may be replaced.
    pub(crate) fn forget(&self) {
        self.forgotten.set(self.forgotten.get() + 1);
        self.clusters.borrow_mut().clear();
    }

    fn get(&self, host: u64) -> Option<Rc<Vec<u8>>> {
        let clusters = self.clusters.borrow();
        clusters.iter().find(|(other, _)| *other == host).map(|(_, cluster)| cluster.clone())
    }

    /// Takes a cluster in that was inflated when `forget` had been called so many times.
    fn keep(&self, host: u64, cluster: &Rc<Vec<u8>>, forgotten: u64) {
        if forgotten != self.forgotten.get() {
            return;
        }
        let mut clusters = self.clusters.borrow_mut();
        if clusters.len() >= KEPT {
            clusters.remove(0);
        }
        clusters.push((host, cluster.clone()));
    }

    /// Begins to inflate a cluster; `None`: somebody does that, or too many others are inflated.
    fn begin(&self, host: u64) -> Option<Running<'_>> {
        let mut running = self.running.borrow_mut();
        if running.len() >= AT_ONCE || running.contains(&host) {
            return None;
        }
        running.push(host);
        Some(Running { inflated: self, host })
    }
}

impl<S: Storage + 'static> Core<S> {
    /// Reads bytes of a guest, which are at `host`, and at `pos` for the guest.
    pub(crate) async fn read_data(&self, data: &Sgl<'_>, host: u64, pos: u64) -> Result<()> {
        match &self.encryption {
            None => Ok(self.data().read(data, host).await?),
            Some(encryption) => Box::pin(encryption.read(self.data(), data, host, pos)).await,
        }
    }

    /// Writes bytes of a guest to `host`, which are at `pos` for the guest.
    pub(crate) async fn write_data(&self, data: &Sgl<'_>, host: u64, pos: u64) -> Result<()> {
        match &self.encryption {
            None => Ok(self.data().write(data, host).await?),
            Some(encryption) => Box::pin(encryption.write(self.data(), data, host, pos)).await,
        }
    }

    /// The content of a compressed cluster, which is at `pos` for the guest.
    pub(crate) async fn inflate(&self, from: Compressed, pos: u64) -> Result<Rc<Vec<u8>>> {
        let inflated = &self.inflated;
        loop {
            if let Some(cluster) = inflated.get(from.host) {
                return Ok(cluster);
            }
            let Some(_running) = inflated.begin(from.host) else {
                self.jobs.wait(&inflated.ended).await;
                continue;
            };
            // Its last sector may be past the end.
            self.check_data(from.host, 1, pos).await?;
            let forgotten = inflated.forgotten.get();
            let cluster = Rc::new(self.read_compressed(from).await?);
            inflated.keep(from.host, &cluster, forgotten);
            return Ok(cluster);
        }
    }

    async fn read_compressed(&self, from: Compressed) -> Result<Vec<u8>> {
        let mut input = vec![0; usize::try_from(from.len).unwrap_or(0)];
        self.storage.read(&Sgl::from_slice(&mut input), from.host).await?;
        let size = usize::try_from(self.geo.cluster_size()).unwrap_or(0);
        let compression = self.header.compression;
        let work = move || {
            let mut cluster = vec![0; size];
            decompress(compression, &input, &mut cluster).map(|()| cluster)
        };
        // Those that were sent together with this one get here, too.
        yield_once().await;
        let alone = self.inflated.running.borrow().len() == 1;
        let inflated = if alone { work() } else { unblock(work).await };
        inflated.map_err(|e| {
            let text = format!("the compressed cluster at {:#x} in the file: {e}", from.host);
            // Its content is wrong, the structure of the image is not.
            ErrorKind::Io(std::io::Error::new(std::io::ErrorKind::InvalidData, text))
        })
    }
}
