// SPDX-License-Identifier: Apache-2.0
//! The qcow2 engine, alone or beneath ring and logical unit, on files of a simulated world
//! ([`io_engine::sim`]), crashed at any step, with a model as the judge.
//!
//! - [`workload`]: what is done, drawn from a seed.
//! - [`target`]: to what it is done.
//! - `mix`: which operations there are how often.
//! - `begin`: the world that it begins with.
//! - `life`: does it, until the end or a crash.
//! - `saving`: what it does with snapshots.
//! - [`explore`]: crashes the world on the way, and has judged what is found.
//! - `findings`: looks at what is there after a crash.
//! - [`model`]: what may be found.
//! - [`image`], [`mod@check`], `qemu`: make images and check them, independent of the engine.
//! - [`planted`]: bugs, to be found.
//! - [`shrink`]: a shorter run that fails, too.
mod begin;
pub mod check;
pub mod explore;
mod findings;
pub mod image;
mod life;
mod mix;
pub mod model;
pub mod planted;
pub mod qemu;
mod saving;
pub mod shrink;
pub mod target;
pub mod workload;
