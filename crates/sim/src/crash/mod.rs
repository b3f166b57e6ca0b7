// SPDX-License-Identifier: Apache-2.0
//! The qcow2 engine, alone or beneath ring and logical unit, on files of a simulated world
//! ([`io_engine::sim`]), crashed at any step, with a model as the judge.
//!
//! - [`workload`]: what is done, drawn from a seed.
//! - [`target`]: to what it is done.
//! - `life`: does it, until the end or a crash.
//! - [`explore`]: crashes the world on the way, and has judged what is found.
//! - [`model`]: what may be found.
//! - [`image`], [`mod@check`], `qemu`: make images and check them, independent of the engine.
//! - [`planted`]: bugs, to be found.
//! - [`shrink`]: a shorter run that fails, too.
pub mod check;
pub mod explore;
pub mod image;
mod life;
pub mod model;
pub mod planted;
pub mod qemu;
pub mod shrink;
pub mod target;
pub mod workload;
