// SPDX-License-Identifier: Apache-2.0
//! What the files of a world hold, as the page cache has it: read from outside of the world, and
//! compared or copied at little cost where worlds share their pages.
use super::World;
use super::pages::Pages;

/// What the files of a world hold; whether that is the same costs little where much of it is shared.
#[derive(Clone, PartialEq)]
pub struct Contents(Vec<(Pages, u64)>);

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Contents({} files)", self.0.len())
    }
}

/// The content of a file, which is brought from that of one world to that of another.
#[derive(Default)]
pub struct Copied {
    bytes: Vec<u8>,
    pages: Pages,
}

impl Copied {
    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::fmt::Debug for Copied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Copied({} bytes)", self.bytes.len())
    }
}

impl World {
    /// What a file holds, as the page cache has it.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let mut copied = Copied::default();
        self.copy_content(name, &mut copied).then_some(copied.bytes)
    }

    /// As [`World::content`], where a copy of another is brought to this; whether there is the file.
    pub fn copy_content(&self, name: &str, copied: &mut Copied) -> bool {
        let state = self.0.state.borrow();
        let Some(&node) = state.names.get(name) else { return false };
        let node = &state.nodes[node as usize];
        copied.bytes.resize(usize::try_from(node.len()).unwrap_or(0), 0);
        node.cache().copy_changes(&copied.pages, &mut copied.bytes);
        copied.pages = node.cache().clone();
        true
    }

    /// What all files hold, as the page cache has it.
    pub fn contents(&self) -> Contents {
        let state = self.0.state.borrow();
        Contents(state.nodes.iter().map(|node| (node.cache().clone(), node.len())).collect())
    }
}
