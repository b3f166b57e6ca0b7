// SPDX-License-Identifier: Apache-2.0
//! The bytes of guest clusters: where they are stored as they are, and compressed ones.
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use sgl::Sgl;

use crate::ErrorKind;
use crate::compress::decompress;
use crate::core::Core;
use crate::error::Result;
use crate::layout::entry::Compressed;
use crate::storage::Storage;

/// How many inflated clusters are kept.
const KEPT: usize = 4;

/// The last clusters that were inflated.
#[derive(Default)]
pub(crate) struct Inflated {
    /// Offset in the file and content, the latest last.
    clusters: RefCell<Vec<(u64, Rc<Vec<u8>>)>>,
    /// Counts calls of [`Inflated::forget`].
    forgotten: Cell<u64>,
}

impl Inflated {
    /// A compressed cluster may be replaced.
    pub(crate) fn forget(&self) {
        self.forgotten.set(self.forgotten.get() + 1);
        self.clusters.borrow_mut().clear();
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
        let kept = &self.inflated;
        if let Some((_, cluster)) =
            kept.clusters.borrow().iter().find(|(host, _)| *host == from.host)
        {
            return Ok(cluster.clone());
        }
        // Its last sector may be past the end.
        self.check_data(from.host, 1, pos).await?;
        let forgotten = kept.forgotten.get();
        let mut input = vec![0; usize::try_from(from.len).unwrap_or(0)];
        self.storage.read(&Sgl::from_slice(&mut input), from.host).await?;
        let size = usize::try_from(self.geo.cluster_size()).unwrap_or(0);
        let mut cluster = vec![0; size];
        decompress(self.header.compression, &input, &mut cluster).map_err(|e| {
            let text = format!("the compressed cluster at {:#x} in the file: {e}", from.host);
            // Its content is wrong, the structure of the image is not.
            ErrorKind::Io(std::io::Error::new(std::io::ErrorKind::InvalidData, text))
        })?;
        let cluster = Rc::new(cluster);
        let mut clusters = kept.clusters.borrow_mut();
        if forgotten == kept.forgotten.get() {
            if clusters.len() >= KEPT {
                clusters.remove(0);
            }
            clusters.push((from.host, cluster.clone()));
        }
        Ok(cluster)
    }
}
