// SPDX-License-Identifier: Apache-2.0
//! Keys: their names, what is above and below them.

use crate::error::{Error, Result};
use crate::format::{HEADER, damaged, half, nk, word};
use crate::{Hive, text};
use guest_fs::source::Source;

/// A key of a hive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Node(pub(crate) u32);

impl Node {
    /// The number by which others know it: its offset in the file.
    pub fn handle(self) -> i64 {
        i64::from(self.0) + HEADER as i64
    }

    /// What may be a key; whether it is one shows when it is used.
    pub fn from_handle(handle: i64) -> Result<Self> {
        cell(handle).map(Self).ok_or(Error::Argument("not the handle of a key"))
    }
}

/// The cell that a handle stands for.
pub(crate) fn cell(handle: i64) -> Option<u32> {
    u32::try_from(handle.checked_sub(HEADER as i64)?).ok()
}

/// What is in a key, but for its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) flags: u16,
    pub(crate) parent: u32,
    pub(crate) subkeys: u32,
    pub(crate) subkey_list: u32,
    pub(crate) values: u32,
    pub(crate) value_list: u32,
    pub(crate) security: u32,
    pub(crate) class: u32,
    pub(crate) name_len: u16,
}

impl<S: Source + ?Sized> Hive<S> {
    /// What is in a key that the caller named.
    pub(crate) fn key(&self, node: Node) -> Result<Key> {
        if self.head(node.0).map_or(true, |(id, _)| id != *b"nk") {
            return Err(Error::Argument("not the handle of a key"));
        }
        let bytes = self.part(node.0, 0, nk::NAME)?;
        let short = || damaged(node.0, "too short");
        let number = |at| word(&bytes, at).ok_or_else(short);
        Ok(Key {
            flags: half(&bytes, nk::FLAGS).ok_or_else(short)?,
            parent: number(nk::PARENT)?,
            subkeys: number(nk::SUBKEYS)?,
            subkey_list: number(nk::SUBKEY_LIST)?,
            values: number(nk::VALUES)?,
            value_list: number(nk::VALUE_LIST)?,
            security: number(nk::SECURITY)?,
            class: number(nk::CLASS)?,
            name_len: half(&bytes, nk::NAME_LEN).ok_or_else(short)?,
        })
    }

    /// A key's name.
    pub fn name(&self, node: Node) -> Result<String> {
        let key = self.key(node)?;
        let bytes = self.part(node.0, nk::NAME, usize::from(key.name_len))?;
        Ok(text::name(&bytes, key.flags & nk::NARROW != 0))
    }

    /// The key that a key is below.
    pub fn parent(&self, node: Node) -> Result<Node> {
        let parent = self.key(node)?.parent;
        if node == self.root() {
            return Err(damaged(node.0, "the key at the top is below none"));
        }
        match self.head(parent)? {
            (id, _) if id == *b"nk" => Ok(Node(parent)),
            _ => Err(damaged(parent, "no key where one should be")),
        }
    }

    /// The keys below a key, in their order.
    pub fn children(&self, node: Node) -> Result<Vec<Node>> {
        let key = self.key(node)?;
        if key.subkeys == 0 {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        self.for_each_entry(key.subkey_list, &mut |entry| {
            if self.leniently(self.is_key(entry))? {
                found.push(Node(entry));
            }
            Ok(true)
        })?;
        Ok(found)
    }

    /// The key of this name below a key; case does not matter.
    pub fn child(&self, node: Node, name: &str) -> Result<Option<Node>> {
        let key = self.key(node)?;
        if key.subkeys == 0 {
            return Ok(None);
        }
        let mut found = None;
        self.for_each_entry(key.subkey_list, &mut |entry| {
            let this = self.leniently(self.name(Node(entry)).map(Some))?;
            if this.is_some_and(|this| text::same(&this, name)) {
                found = Some(Node(entry));
            }
            Ok(found.is_none())
        })?;
        Ok(found)
    }

    /// The key of this path below the top.
    pub fn find(&self, path: &[&str]) -> Result<Option<Node>> {
        let mut at = self.root();
        for name in path {
            match self.child(at, name)? {
                Some(child) => at = child,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    fn is_key(&self, cell: u32) -> Result<bool> {
        match self.head(cell)? {
            (id, _) if id == *b"nk" => Ok(true),
            _ => Err(damaged(cell, "no key where one should be")),
        }
    }
}
