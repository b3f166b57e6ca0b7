// SPDX-License-Identifier: Apache-2.0
//! Security descriptors, which keys share: how many keys use one.

use crate::Hive;
use crate::error::Result;
use crate::format::{NONE, damaged, sk};

impl Hive<Vec<u8>> {
    fn check_security(&self, cell: u32) -> Result<u32> {
        match self.head(cell)? {
            (id, _) if id == *b"sk" => self.number(cell, sk::USES),
            _ => Err(damaged(cell, "no security descriptor where one should be")),
        }
    }

    /// One more key uses it.
    pub(super) fn use_security(&mut self, cell: u32) -> Result<()> {
        if cell == NONE {
            return Ok(());
        }
        let uses = self.check_security(cell)?.saturating_add(1);
        self.put_number(cell, sk::USES, uses)
    }

    /// So many keys that used it have gone; with the last of them goes the descriptor.
    pub(super) fn release_security(&mut self, cell: u32, gone: u32) -> Result<()> {
        let Ok(uses) = self.check_security(cell) else { return Ok(()) };
        if uses > gone {
            return self.put_number(cell, sk::USES, uses - gone);
        }
        let (next, previous) = (self.number(cell, sk::NEXT)?, self.number(cell, sk::PREVIOUS)?);
        if self.check_security(next).is_ok() && self.check_security(previous).is_ok() {
            self.put_number(previous, sk::NEXT, next)?;
            self.put_number(next, sk::PREVIOUS, previous)?;
        }
        self.free(cell)
    }
}
