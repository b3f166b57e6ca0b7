// SPDX-License-Identifier: Apache-2.0
//! Unit attentions (SAM-5 5.14): what the next command is told before it is executed, because
//! something changed behind the initiator's back.
//!
//! The kernel does not say which initiator a command comes from, so there is one queue for the
//! logical unit, and each condition is reported once.
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use scsi::sense::Sense;

/// The conditions that are still to be reported, oldest first.
#[derive(Default)]
pub(crate) struct Attentions {
    queue: RefCell<VecDeque<Sense>>,
    /// Whether the queue is not empty: all that the data path looks at.
    pending: Cell<bool>,
}

/// How many conditions are kept; there are fewer kinds of them that we raise.
const LIMIT: usize = 16;

impl Attentions {
    /// Adds a condition unless the same one is already waiting.
    pub(crate) fn raise(&self, sense: Sense) {
        let mut queue = self.queue.borrow_mut();
        if !queue.contains(&sense) && queue.len() < LIMIT {
            queue.push_back(sense);
            self.pending.set(true);
        }
    }

    /// Whether there is a condition to report.
    #[inline]
    pub(crate) fn pending(&self) -> bool {
        self.pending.get()
    }

    /// The oldest condition, which is thereby reported.
    pub(crate) fn take(&self) -> Option<Sense> {
        let mut queue = self.queue.borrow_mut();
        let sense = queue.pop_front();
        self.pending.set(!queue.is_empty());
        sense
    }

    /// Forgets all conditions.
    pub(crate) fn clear(&self) {
        self.queue.borrow_mut().clear();
        self.pending.set(false);
    }
}
