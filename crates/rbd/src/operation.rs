// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to hand memory to librbd.
//!
//! A future for an operation that runs in librbd's threads.
//!
//! The library uses the memory until the operation has ended, whatever becomes of the future. So an
//! operation has a share of its memory, not a borrow: where the `Sgl` has an owner the memory
//! itself, else a copy. A future that is dropped waits for the end of its operation; one that is
//! leaked leaks memory and image.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use io_engine::{Completer, External, external};
use sgl::Sgl;

use crate::error::io;
use crate::image::Opened;
use crate::library::{Handle, Rbd};

/// What an operation does with memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// What the library uses until an operation has ended. It is in a box, so that it stays where it
/// is.
pub(crate) struct Held {
    pub(crate) data: Sgl<'static>,
    /// Where what is compared differs; the library writes it.
    pub(crate) mismatch: AtomicU64,
}

impl Held {
    pub(crate) fn new(data: Sgl<'static>) -> Self {
        Held { data, mismatch: AtomicU64::new(0) }
    }
}

/// An operation that runs. Its end comes first when it is dropped: the fields that follow are what
/// it uses.
#[must_use = "dropping it waits for its end"]
pub(crate) struct Operation {
    end: External,
    _completion: Completion,
    held: Box<Held>,
}

/// The library's own record of an operation.
struct Completion {
    image: Arc<Opened>,
    handle: Handle,
}

impl Drop for Completion {
    fn drop(&mut self) {
        // SAFETY: the operation has ended, or was not begun; the callback does not use it after
        // that.
        unsafe { (self.image.libraries().rbd.rbd_aio_release)(self.handle) };
    }
}

/// What the callback gets.
type Argument = (Completer, unsafe extern "C" fn(Handle) -> isize);

/// Called by a thread of the library.
unsafe extern "C" fn ended(completion: Handle, argument: *mut c_void) {
    // SAFETY: `start` gave it away for this one call.
    let (completer, result) = *unsafe { Box::from_raw(argument.cast::<Argument>()) };
    // SAFETY: whoever waits releases the completion after the next line.
    let result = unsafe { result(completion) };
    completer.complete(result as i64);
}

/// Memory that stays, and whether it is a copy.
pub(crate) fn memory(data: &Sgl<'_>, direction: Direction) -> (Sgl<'static>, bool) {
    if let Some(shared) = data.share() {
        return (shared, false);
    }
    let copy = Sgl::zeroed(data.len());
    if direction == Direction::Write {
        data.copy_to(&copy);
    }
    (copy, true)
}

/// Starts an operation: `call` gets the library, the image's handle, the completion, and the memory,
/// which stays where it is until the operation has ended.
pub(crate) fn start(
    image: &Arc<Opened>,
    held: Held,
    call: impl FnOnce(&Rbd, Handle, Handle, &Held) -> c_int,
) -> io::Result<Operation> {
    let rbd = &image.libraries().rbd;
    let held = Box::new(held);
    let (completer, end) = external();
    let argument: Box<Argument> = Box::new((completer, rbd.rbd_aio_get_return_value));
    let argument = Box::into_raw(argument);
    let mut handle = ptr::null_mut();
    // SAFETY: the callback gets the argument once; the completion is written.
    let created =
        unsafe { (rbd.rbd_aio_create_completion)(argument.cast(), ended, &raw mut handle) };
    let completion = io(created.into()).map(|_| Completion { image: image.clone(), handle });
    let begun = completion.and_then(|completion| {
        image.call(|rbd, image| call(rbd, image, completion.handle, &held)).map(|_| completion)
    });
    match begun {
        Ok(_completion) => Ok(Operation { end, _completion, held }),
        Err(e) => {
            // SAFETY: what was not begun does not call back: nobody else has it.
            drop(unsafe { Box::from_raw(argument) });
            end.abandon();
            Err(e)
        }
    }
}

impl Future for Operation {
    type Output = io::Result<u64>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.end).poll(cx).map(io)
    }
}

impl Operation {
    /// The memory of an operation that has ended.
    pub(crate) fn held(&self) -> &Held {
        &self.held
    }
}
