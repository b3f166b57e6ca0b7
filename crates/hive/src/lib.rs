// SPDX-License-Identifier: Apache-2.0
//! Hives: the files (`regf`) that Windows' registry is in.
//!
//! Bytes of a hive come in through a [`Source`]; keys ([`Node`]), values ([`Entry`]) and their data go out. A hive
//! in memory can be changed: its bytes are then those of a new hive, which whoever opened it writes to a file.
//! Nothing here opens or writes files, and no transaction log is replayed.
//!
//! A hive is a header of 4096 bytes and bins (`hbin`) of cells. A cell begins with its size, which is negative
//! while the cell is in use. Keys (`nk`) lead to lists of subkeys (`lf`, `lh`, `li`, or `ri`: a list of such lists),
//! to a list of values (`vk`), to a class name and to a security descriptor (`sk`), all by offsets from the end of the
//! header. Data of a value is in the value (4 bytes), in a cell, or (`db`) in several.
//!
//! A hive is the guest's and may be anything. Every offset and count in it is checked where it is read, no more of a
//! cell is read than is needed, lists have limits and nest no deeper than the format has it, and what is deleted is
//! gone through once.

mod bins;
mod edit;
mod error;
mod format;
#[doc(hidden)]
pub mod fuzz;
mod keys;
mod lists;
#[doc(hidden)]
pub mod made;
#[cfg(test)]
mod tests;
mod text;
mod values;

pub use error::{Error, Result};
pub use keys::Node;
pub use text::utf16;
pub use values::{Entry, Value};

use bins::Cells;
use format::{HEADER, offset_of_root};
use guest_fs::source::Source;

/// A hive.
#[derive(Debug)]
pub struct Hive<S: ?Sized> {
    root: Node,
    /// What makes no sense is left out, and not an error.
    lenient: bool,
    /// Which cells are in use, if all were looked at.
    cells: Option<Cells>,
    source: S,
}

impl<S: Source> Hive<S> {
    /// A hive to be asked a few things: only its header is looked at, and keys and values that make no sense are
    /// left out.
    pub fn open(source: S) -> Result<Self> {
        let mut header = [0; 0x30];
        source.read_exact_at(&mut header, 0).map_err(Error::of_header)?;
        let root = offset_of_root(&header)?;
        Ok(Self { root: Node(root), lenient: true, cells: None, source })
    }

    /// A hive all of whose cells are looked at first, so that what is no cell in use is never taken for one.
    /// `lenient`: bins and lists that make no sense are left out, and not an error.
    pub fn checked(source: S, lenient: bool) -> Result<Self> {
        let mut header = vec![0; HEADER];
        source.read_exact_at(&mut header, 0).map_err(Error::of_header)?;
        let root = offset_of_root(&header)?;
        format::check_header(&header)?;
        let cells = Cells::scan(&source, root, lenient)?;
        Ok(Self { root: Node(root), lenient, cells: Some(cells), source })
    }
}

impl<S: Source + ?Sized> Hive<S> {
    /// The key at the top.
    pub fn root(&self) -> Node {
        self.root
    }

    /// The result, or in a lenient hive nothing in place of an error.
    fn leniently<T: Default>(&self, result: Result<T>) -> Result<T> {
        if self.lenient { Ok(result.unwrap_or_default()) } else { result }
    }
}
