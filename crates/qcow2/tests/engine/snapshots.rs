// SPDX-License-Identifier: Apache-2.0
//! Snapshots through crashes: those that were made are there with the content that they had, those
//! that were deleted are not, and the disk is that of before or of after.
use std::time::Duration;

use qcow2::snapshots::list;
use qcow2::{Error, Image};

use crate::disk::{Disk, run};
use crate::image::Kind;
use crate::{Op, STRESS, Stress, World, explore, read_all};

/// There are no more of them.
const MOST: usize = 3;

impl World {
    pub(crate) fn choose_snapshot(&self) -> Op {
        let which = self.random.below(self.saved.len() as u64) as usize;
        match (self.saved.len(), self.random.below(3)) {
            (0, _) | (1..MOST, 0) => Op::Create(self.model.clone()),
            (_, 1) => Op::Apply(which),
            _ => Op::Delete(which),
        }
    }

    /// What an operation does.
    pub(crate) fn snapshot_work(
        &self,
        op: &Op,
        image: std::rc::Rc<Image<Disk>>,
    ) -> impl Future<Output = Result<(), Error>> + use<> {
        let id = match op {
            Op::Apply(which) | Op::Delete(which) => self.saved[*which].0.clone(),
            _ => String::new(),
        };
        let (apply, delete) = (matches!(op, Op::Apply(_)), matches!(op, Op::Delete(_)));
        async move {
            if apply {
                return image.apply_snapshot(&id).await;
            }
            if delete {
                return image.delete_snapshot(&id).await;
            }
            image.create_snapshot("name", Duration::from_secs(1)).await.map(drop)
        }
    }

    fn listed(&self, disk: &Disk) -> Vec<String> {
        let found = run(&self.random, list(disk)).unwrap();
        found.into_iter().map(|snapshot| snapshot.id).collect()
    }

    /// An operation succeeded.
    pub(crate) fn saved(&mut self, op: &Op, image: &Image<Disk>) {
        let faults = self.disk.set_faults(0);
        match op {
            Op::Create(before) => {
                self.model.flushed(&before.flush_begins());
                let id = self.listed(&self.disk).pop().unwrap();
                let content = read_all(&self.random, image);
                self.saved.push((id, content));
            }
            Op::Apply(which) => {
                let content = self.saved[*which].1.clone();
                assert!(read_all(&self.random, image) == content, "it is not what was applied");
                self.model.becomes(&content, true);
            }
            Op::Delete(which) => drop(self.saved.remove(*which)),
            _ => unreachable!("no snapshot has to do with {op:?}"),
        }
        let known: Vec<_> = self.saved.iter().map(|(id, _)| id.clone()).collect();
        assert_eq!(self.listed(&self.disk), known);
        self.disk.set_faults(faults);
    }

    /// An operation was dropped, or met an error: it is done, or not.
    pub(crate) fn saved_or_not(&mut self, op: &Op, image: &Image<Disk>) {
        let faults = self.disk.set_faults(0);
        self.leaky |= faults > 0;
        // Where the header was being written, the old one is there from now on.
        run(&self.random, image.flush()).unwrap();
        let count = self.listed(&self.disk).len();
        let done = match op {
            Op::Create(_) => count > self.saved.len(),
            Op::Delete(_) => count < self.saved.len(),
            Op::Apply(which) => {
                let bytes = read_all(&self.random, image);
                if bytes == self.saved[*which].1 {
                    self.model.becomes(&bytes, false);
                }
                false
            }
            _ => false,
        };
        self.disk.set_faults(faults);
        if done {
            self.saved(op, image);
        }
    }

    /// The snapshots that are on a disk after a crash, while `ops` were under way.
    pub(crate) fn judge_saved(&self, disk: &Disk, ops: &[(u64, Op)]) -> Vec<(String, Vec<u8>)> {
        let running = ops.iter().map(|(_, op)| op).find(|op| op.is_alone());
        let listed = self.listed(disk);
        let content = |id: &str| self.content_of(disk, None, Some(id));
        let mut found = Vec::new();
        for (number, (id, bytes)) in self.saved.iter().enumerate() {
            if listed.contains(id) {
                assert!(content(id) == *bytes, "the snapshot {id} has changed");
                found.push((id.clone(), bytes.clone()));
            } else {
                let deleted = matches!(running, Some(Op::Delete(which)) if *which == number);
                assert!(deleted, "the snapshot {id} is missing");
            }
        }
        for id in listed.iter().filter(|id| self.saved.iter().all(|(known, _)| known != *id)) {
            let Some(Op::Create(before)) = running else { panic!("the snapshot {id} is new") };
            let bytes = content(id);
            before.judge_read(0, &bytes);
            assert_eq!(bytes.len() as u64, before.len() * 512);
            found.push((id.clone(), bytes));
        }
        assert_eq!(found.len(), listed.len());
        found
    }

    /// Whether the disk is the snapshot that was being applied.
    pub(crate) fn is_applied(&self, bytes: &[u8], ops: &[(u64, Op)]) -> Option<Vec<u8>> {
        ops.iter().find_map(|(_, op)| match op {
            Op::Apply(which) if self.saved[*which].1 == bytes => Some(bytes.to_vec()),
            _ => None,
        })
    }
}

const SNAPSHOTS: Stress = Stress { snapshots: true, ..STRESS };

#[test]
fn snapshots_survive_crashes() {
    explore("snapshots", Kind::simple(12, 200 << 10), SNAPSHOTS, 10);
}

#[test]
fn snapshots_of_small_clusters_survive_crashes() {
    explore("snapshots 512", Kind::simple(9, 60 << 10), SNAPSHOTS, 8);
    let kind = Kind { refcount_order: 6, ..Kind::simple(9, 60 << 10) };
    explore("snapshots 512, 64 bits", kind, SNAPSHOTS, 4);
}

#[test]
fn snapshots_over_a_backing_file_survive_crashes() {
    let kind = Kind { backing: 150 << 10, ..Kind::simple(12, 200 << 10) };
    explore("snapshots backing", kind, SNAPSHOTS, 6);
    let kind = Kind { version: 2, ..Kind::simple(12, 200 << 10) };
    explore("snapshots v2", kind, SNAPSHOTS, 5);
}

#[test]
fn snapshots_of_subclusters_and_of_encrypted_images_survive_crashes() {
    let kind = Kind { extended: true, ..Kind::simple(14, 300 << 10) };
    explore("snapshots extended", kind, SNAPSHOTS, 4);
    let kind = Kind { encrypted: true, ..Kind::simple(12, 150 << 10) };
    explore("snapshots encrypted", kind, SNAPSHOTS, 1);
}

#[test]
fn errors_of_the_storage_lose_no_snapshot() {
    let stress = Stress { faults: true, ..SNAPSHOTS };
    explore("snapshots faults", Kind::simple(12, 200 << 10), stress, 8);
    explore("snapshots faults 512", Kind::simple(9, 60 << 10), stress, 5);
}
