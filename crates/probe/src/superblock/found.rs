// SPDX-License-Identifier: Apache-2.0
//! What a recognizer of superblocks answers.

use crate::contents::Contents;

/// What the superblocks of a device say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// This, and nothing else.
    Known(Contents),
    /// Nothing: where superblocks could be, the device is blank.
    Blank,
    /// Something that it is not sure about.
    Unsure,
}
