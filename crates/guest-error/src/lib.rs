// SPDX-License-Identifier: Apache-2.0
//! Errors of what is done to a guest's files and devices: an [`Errno`], and a text that names what it is about.
//!
//! Results of system calls come in ([`Context::on`], [`from_io`]), an [`Error`] for people and for the reply of a
//! call goes out.

mod errno;
mod error;

pub use errno::Errno;
pub use error::{Calling, Context, Error, Result, from_io, shown};
