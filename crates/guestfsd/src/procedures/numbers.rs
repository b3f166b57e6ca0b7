// SPDX-License-Identifier: Apache-2.0
//! Numbers from the client, all of which have a sign.

use guest_error::{Error, Result};
use std::fmt::Display;

/// A number that counts something: without its sign, and at least as wide.
pub(super) fn not_negative<N: TryFrom<V>, V: Copy + Display>(name: &str, value: V) -> Result<N> {
    N::try_from(value).map_err(|_| Error::argument(name, value.to_string(), "must not be negative"))
}
