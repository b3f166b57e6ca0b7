// SPDX-License-Identifier: Apache-2.0
//! The qcow2 engine on files of a simulated world ([`io_engine::sim`]), crashed at any step, with a
//! model as the judge.
//!
//! - [`workload`]: what is done, drawn from a seed.
//! - [`explore`]: does it, crashes the world on the way, and has judged what is found.
//! - [`model`]: what may be found.
//! - [`image`]: makes images and checks them, independent of the engine.
//! - [`storage`]: files of the world as the engine's storage, with planted bugs.
//! - [`shrink`]: a shorter run that fails, too.
pub mod explore;
pub mod image;
pub mod model;
pub mod shrink;
pub mod storage;
pub mod workload;
