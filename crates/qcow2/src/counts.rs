// SPDX-License-Identifier: Apache-2.0
//! How often each cluster of a file is referred to, and by what. In: references, the stronger roles
//! first. Out: for each cluster a number, its strongest role, and whether roles contradict. Pure.
//!
//! Memory: a byte for each cluster that is referred to and for those near it, in pages; whatever an
//! image says, not more than a limit.
use std::collections::BTreeMap;
use std::ops::Range;

use crate::ErrorKind;
use crate::error::Result;

/// Clusters of a page.
const PAGE: usize = 128;
/// What a page takes beside its bytes: its place in the tree, and the allocator's share.
const PAGE_COST: usize = PAGE + 48;
/// What a number takes that does not fit into a byte.
const MANY_COST: usize = 48;

/// The bits of a byte with the number of references; all of them set: it is kept elsewhere.
const COUNT: u8 = 0x0f;
/// The refcount is one.
const SINGLE: u8 = 1 << 4;
/// Several roles that cannot go together.
const CONFLICT: u8 = 1 << 5;
const ROLE_SHIFT: u32 = 6;

/// What refers to a cluster, from the strongest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Header, L1 tables, and the like: one reference at most.
    Exclusive,
    /// An L2 table, which snapshots share.
    Table,
    /// Guest data, which snapshots and compressed clusters share.
    Data,
    /// Refcount table and blocks. All else is worth more: these can be made again.
    Refcounts,
}

impl Role {
    const ALL: [Role; 4] = [Role::Exclusive, Role::Table, Role::Data, Role::Refcounts];

    fn of(byte: u8) -> Self {
        let [exclusive, table, data, refcounts] = Role::ALL;
        match byte >> ROLE_SHIFT {
            0 => exclusive,
            1 => table,
            2 => data,
            _ => refcounts,
        }
    }
}

/// See the module's text.
pub(crate) struct Counts {
    /// The most bytes that it may take.
    limit: usize,
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
    /// Numbers that do not fit into a byte.
    many: BTreeMap<u64, u64>,
}

/// A cluster's page, and its index there.
fn place(cluster: u64) -> (u64, usize) {
    let pages = PAGE as u64;
    (cluster / pages, usize::try_from(cluster % pages).unwrap_or(0))
}

impl Counts {
    /// No references, and at most so many bytes of memory.
    pub(crate) fn new(limit: usize) -> Self {
        Counts { limit, pages: BTreeMap::new(), many: BTreeMap::new() }
    }

    /// Adds `times` references; returns the role that the cluster had before, if any.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the memory is full.
    pub(crate) fn add(&mut self, cluster: u64, times: u64, role: Role) -> Result<Option<Role>> {
        let (number, index) = place(cluster);
        if self.bytes() > self.limit {
            return Err(ErrorKind::Unsupported(format!(
                "to look for what is in use in it takes more than {} bytes of memory; run \
                 `qemu-img check PATH`",
                self.limit
            )));
        }
        let page = self.pages.entry(number).or_insert_with(|| Box::new([0; PAGE]));
        let Some(byte) = page.get_mut(index) else { return Ok(None) };
        let small = *byte & COUNT;
        let count = match small {
            COUNT => self.many.get(&cluster).copied().unwrap_or(0),
            small => u64::from(small),
        };
        let before = (count > 0).then(|| Role::of(*byte));
        let conflict = match before {
            None => {
                *byte |= (role as u8) << ROLE_SHIFT;
                false
            }
            Some(_) if role == Role::Refcounts => false,
            Some(before) => before != role || role == Role::Exclusive,
        };
        let count = count.saturating_add(times);
        let small = u8::try_from(count).unwrap_or(COUNT).min(COUNT);
        *byte = *byte & !COUNT | small | if conflict { CONFLICT } else { 0 };
        if small == COUNT {
            self.many.insert(cluster, count);
        }
        Ok(before)
    }

    fn byte(&self, cluster: u64) -> u8 {
        let (number, index) = place(cluster);
        self.pages.get(&number).and_then(|page| page.get(index)).copied().unwrap_or(0)
    }

    /// The number of references.
    pub(crate) fn get(&self, cluster: u64) -> u64 {
        match self.byte(cluster) & COUNT {
            COUNT => self.many.get(&cluster).copied().unwrap_or(0),
            small => u64::from(small),
        }
    }

    /// The strongest role of a cluster that is referred to.
    pub(crate) fn role(&self, cluster: u64) -> Role {
        Role::of(self.byte(cluster))
    }

    /// Whether roles contradict: two structures are at the same place.
    pub(crate) fn is_conflict(&self, cluster: u64) -> bool {
        self.byte(cluster) & CONFLICT != 0
    }

    /// Takes note that the refcount of a cluster that is referred to is one.
    pub(crate) fn set_single(&mut self, cluster: u64) {
        let (number, index) = place(cluster);
        if let Some(byte) = self.pages.get_mut(&number).and_then(|page| page.get_mut(index)) {
            *byte |= SINGLE;
        }
    }

    /// Whether the refcount is one.
    pub(crate) fn is_single(&self, cluster: u64) -> bool {
        self.byte(cluster) & SINGLE != 0
    }

    /// The clusters of a range that are referred to.
    pub(crate) fn referred(&self, range: Range<u64>) -> impl Iterator<Item = u64> {
        let pages = PAGE as u64;
        let numbers = range.start / pages..range.end.div_ceil(pages);
        let numbers = if numbers.is_empty() { 0..0 } else { numbers };
        self.pages.range(numbers).flat_map(move |(number, page)| {
            let clusters = (number * pages..).zip(page.iter());
            let used = clusters.filter(|(_, byte)| **byte & COUNT != 0);
            used.map(|(cluster, _)| cluster).filter({
                let range = range.clone();
                move |cluster| range.contains(cluster)
            })
        })
    }

    /// The end of the last cluster that is referred to.
    pub(crate) fn end(&self) -> u64 {
        self.pages.last_key_value().map_or(0, |(number, page)| {
            let last = page.iter().rposition(|byte| byte & COUNT != 0);
            number * PAGE as u64 + last.map_or(0, |last| last as u64 + 1)
        })
    }

    /// Bytes that it takes.
    fn bytes(&self) -> usize {
        self.pages.len() * PAGE_COST + self.many.len() * MANY_COST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_numbers_are_kept() {
        let mut counts = Counts::new(1 << 20);
        for (cluster, times) in [(0, 1), (127, 14), (128, 15), (1 << 50, u64::MAX)] {
            assert_eq!(counts.add(cluster, times, Role::Data).unwrap(), None);
            assert_eq!(counts.get(cluster), times);
            assert_eq!(counts.add(cluster, 2, Role::Data).unwrap(), Some(Role::Data));
            assert_eq!(counts.get(cluster), times.saturating_add(2));
            assert!(!counts.is_conflict(cluster) && !counts.is_single(cluster));
        }
        assert_eq!(counts.get(1), 0);
        assert_eq!(counts.referred(0..u64::MAX).collect::<Vec<_>>(), [0, 127, 128, 1 << 50]);
        assert_eq!(counts.referred(1..128).collect::<Vec<_>>(), [127]);
        assert_eq!(counts.end(), (1 << 50) + 1);
        counts.set_single(127);
        assert!(counts.is_single(127) && counts.get(127) == 16);
    }

    #[test]
    fn the_first_role_counts_and_others_contradict_it_unless_refcounts() {
        use Role::{Data, Exclusive, Refcounts, Table};
        for (first, second, conflict) in [
            (Exclusive, Exclusive, true),
            (Exclusive, Table, true),
            (Exclusive, Data, true),
            (Table, Table, false),
            (Table, Data, true),
            (Data, Data, false),
            (Data, Refcounts, false),
            (Refcounts, Refcounts, false),
        ] {
            let mut counts = Counts::new(1 << 20);
            counts.add(7, 1, first).unwrap();
            counts.add(7, 1, second).unwrap();
            assert_eq!(counts.role(7), first);
            assert_eq!(counts.is_conflict(7), conflict, "{first:?} {second:?}");
        }
    }

    #[test]
    fn references_all_over_a_huge_file_take_no_more_than_the_limit() {
        let mut counts = Counts::new(1 << 20);
        let full = (0..).find(|number| counts.add(number << 30, 100, Role::Data).is_err());
        assert!(full.is_some_and(|number| number > 4000));
        assert!(counts.bytes() <= counts.limit + PAGE_COST + MANY_COST);
    }
}
