// SPDX-License-Identifier: Apache-2.0
//! Several files as one journal: entries in the order of time, each once.

use crate::error::{Error, Result};
use crate::file::{Entry, File, Stamp};
use guest_fs::source::Source;
use std::cmp::Ordering;

/// So many entries in a row that make no sense, and a file ends there.
const MAX_BAD: u32 = 1 << 16;

/// Which way to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Down,
    Up,
}

/// A file, and the number of the entry in it that is looked at next.
#[derive(Debug)]
struct Member<S> {
    file: File<S>,
    number: u64,
}

/// Journal files that are read as one.
#[derive(Debug)]
pub struct Journal<S> {
    members: Vec<Member<S>>,
    /// Where it is: the file, and its entry.
    current: Option<(usize, Entry)>,
}

impl<S> Default for Journal<S> {
    fn default() -> Self {
        Self { members: Vec::new(), current: None }
    }
}

impl<S: Source> Journal<S> {
    /// Adds a file, before the first entry has been gone to.
    pub fn add(&mut self, source: S) -> Result<()> {
        self.members.push(Member { file: File::open(source)?, number: 0 });
        Ok(())
    }

    /// Goes to the next entry, or, at first, to the first one; false at the end.
    #[allow(clippy::should_implement_trait)] // It yields no entry.
    pub fn next(&mut self) -> Result<bool> {
        self.go(Way::Down)
    }

    /// Goes to the entry before; false at the beginning.
    pub fn previous(&mut self) -> Result<bool> {
        self.go(Way::Up)
    }

    fn go(&mut self, way: Way) -> Result<bool> {
        let at = self.current.map(|(_, entry)| entry.stamp);
        let mut best: Option<(usize, Entry)> = None;
        for (index, member) in self.members.iter_mut().enumerate() {
            let Some(entry) = member.beyond(at.as_ref(), way)? else { continue };
            let better = best.is_none_or(|(_, best)| is_beyond(&best.stamp, &entry.stamp, way));
            if better {
                best = Some((index, entry));
            }
        }
        if best.is_some() {
            self.current = best;
        }
        Ok(best.is_some())
    }

    /// Microseconds since 1970 of this entry.
    pub fn realtime(&self) -> Result<u64> {
        self.current.map(|(_, entry)| entry.stamp.realtime).ok_or(Error::NoEntry)
    }

    /// Calls for each field of this entry (`NAME=content`).
    pub fn fields<E: From<Error>>(
        &self,
        each: impl FnMut(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let (index, entry) = self.current.ok_or(Error::NoEntry)?;
        let member = self.members.get(index).ok_or(Error::NoEntry)?;
        member.file.fields(&entry, each)
    }
}

impl<S: Source> Member<S> {
    /// The nearest entry beyond the one of this stamp; without one, the first.
    fn beyond(&mut self, at: Option<&Stamp>, way: Way) -> Result<Option<Entry>> {
        let mut bad = 0;
        while bad < MAX_BAD {
            match self.file.entry(self.number)? {
                Some(entry) if at.is_none_or(|at| is_beyond(&entry.stamp, at, way)) => {
                    return Ok(Some(entry));
                }
                Some(_) => bad = 0,
                None => bad += 1,
            }
            match way {
                Way::Down if self.number < self.file.len => self.number += 1,
                Way::Up if self.number > 0 => self.number -= 1,
                _ => break,
            }
        }
        Ok(None)
    }
}

/// Whether an entry comes after another one on the way.
fn is_beyond(entry: &Stamp, other: &Stamp, way: Way) -> bool {
    match way {
        Way::Down => entry.order(other) == Ordering::Greater,
        Way::Up => entry.order(other) == Ordering::Less,
    }
}
