// SPDX-License-Identifier: Apache-2.0
//! Workloads for what holds blocks, and a judge of what it answers and of what is found after a
//! crash. Never part of a product.
//!
//! - [`target`]: what is tried.
pub mod target;
