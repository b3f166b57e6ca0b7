// SPDX-License-Identifier: Apache-2.0
//! Runs seeds; see the library.
fn main() {}
