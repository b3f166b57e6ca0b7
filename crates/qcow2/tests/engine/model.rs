// SPDX-License-Identifier: Apache-2.0
//! What each sector of the guest may have: all versions since the last that was flushed.
use std::ops::Range;

/// The version of what the backing file has.
pub(crate) const BASE: u64 = 1 << 40;

#[derive(Clone, Debug)]
struct Sector {
    /// Versions in the order of their operations; 0 is zeroes.
    versions: Vec<u64>,
    /// The last that was acknowledged.
    acked: usize,
    /// The oldest that may be on stable storage.
    flushed: usize,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    sectors: Vec<Sector>,
}

/// What is in a sector.
pub(crate) fn content(sector: u64, version: u64) -> [u8; 512] {
    let mut bytes = [0; 512];
    if version > 0 {
        for word in bytes.chunks_mut(16) {
            word[..8].copy_from_slice(&version.to_le_bytes());
            word[8..].copy_from_slice(&sector.to_le_bytes());
        }
    }
    bytes
}

fn version(sector: u64, bytes: &[u8]) -> u64 {
    let version = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert!(
        bytes == content(sector, version),
        "sector {sector} has the content of sector {} version {version}, or a mix",
        u64::from_le_bytes(bytes[8..16].try_into().unwrap())
    );
    version
}

impl Model {
    pub(crate) fn new() -> Self {
        Model { sectors: Vec::new() }
    }

    /// From now on there is exactly that; on stable storage, too, if that is `sure`.
    pub(crate) fn becomes(&mut self, bytes: &[u8], sure: bool) {
        self.truncate(bytes.len() as u64 / 512);
        for (at, bytes) in (0..).zip(bytes.chunks(512)) {
            if at == self.len() {
                self.push(0);
            }
            self.begin(at..at + 1, version(at, bytes));
        }
        self.ack(0..self.len());
        if sure {
            let covered = self.flush_begins();
            self.flushed(&covered);
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.sectors.len() as u64
    }

    pub(crate) fn push(&mut self, version: u64) {
        self.sectors.push(Sector { versions: vec![version], acked: 0, flushed: 0 });
    }

    pub(crate) fn truncate(&mut self, len: u64) {
        self.sectors.truncate(len as usize);
    }

    fn range(&mut self, range: Range<u64>) -> &mut [Sector] {
        &mut self.sectors[range.start as usize..range.end as usize]
    }

    /// An operation may from now on give sectors a version.
    pub(crate) fn begin(&mut self, range: Range<u64>, version: u64) {
        for sector in self.range(range) {
            sector.versions.push(version);
        }
    }

    /// The latest operation on these sectors was acknowledged.
    pub(crate) fn ack(&mut self, range: Range<u64>) {
        for sector in self.range(range) {
            sector.acked = sector.versions.len() - 1;
        }
    }

    /// What a flush that begins now covers.
    pub(crate) fn flush_begins(&self) -> Vec<usize> {
        self.sectors.iter().map(|sector| sector.acked).collect()
    }

    pub(crate) fn flushed(&mut self, covered: &[usize]) {
        for (sector, covered) in self.sectors.iter_mut().zip(covered) {
            sector.flushed = sector.flushed.max(*covered);
        }
    }

    /// What was read, with nobody writing there.
    pub(crate) fn judge_read(&self, first: u64, bytes: &[u8]) {
        for (at, bytes) in (first..).zip(bytes.chunks(512)) {
            let sector = &self.sectors[at as usize];
            let found = version(at, bytes);
            let allowed = &sector.versions[sector.acked..];
            assert!(allowed.contains(&found), "sector {at}: version {found}, not of {allowed:?}");
        }
    }

    /// What was found after a crash; from now on that is there.
    pub(crate) fn judge_crash(&mut self, bytes: &[u8], power: bool) {
        for (at, bytes) in (0..).zip(bytes.chunks(512)) {
            let Some(sector) = self.sectors.get_mut(at as usize) else {
                // Of a part that was being added or removed.
                assert_eq!(version(at, bytes), 0, "new sector {at}");
                continue;
            };
            let found = version(at, bytes);
            let from = if power { sector.flushed } else { sector.acked };
            let allowed = &sector.versions[from..];
            assert!(
                allowed.contains(&found),
                "sector {at} after {}: version {found}, not of {allowed:?} ({sector:?})",
                if power { "loss of power" } else { "a kill" },
            );
            let mut versions = sector.versions[sector.flushed..].to_vec();
            if power {
                versions.clear();
            }
            versions.push(found);
            *sector = Sector { acked: versions.len() - 1, flushed: 0, versions };
        }
        while self.len() < bytes.len() as u64 / 512 {
            self.push(0);
        }
        self.truncate(bytes.len() as u64 / 512);
    }
}
