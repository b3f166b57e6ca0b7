// SPDX-License-Identifier: Apache-2.0
//! The simulation: the qcow2 engine on files of a simulated world ([`io_engine::sim`]), with a
//! model as the judge. Never part of a product.
//!
//! - [`crash`]: runs, crashed at any step, and what is found judged.
pub mod crash;
