// SPDX-License-Identifier: Apache-2.0
//! The engine: which backend, and the loop.
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Once};
use std::task::{Context, Poll, Waker};

use crate::core::{Core, Driver, Enter};
use crate::notify::Notify;
use crate::poller::Poller;
use crate::uring::Uring;

/// How an engine does I/O.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// io_uring where it works, else the pool. Which, and why, is logged once a process.
    #[default]
    Auto,
    /// io_uring, or an error.
    IoUring,
    /// epoll, and threads that block.
    Pool,
    /// A simulated world: [`Engine::simulated`].
    #[cfg(feature = "sim")]
    Sim,
}

/// Runs futures that do I/O, on the thread that made it.
pub struct Engine {
    core: Rc<Core>,
    backend: Backend,
}

static TOLD: Once = Once::new();

impl Engine {
    /// An engine for this thread.
    ///
    /// # Errors
    /// With [`Backend::IoUring`] whatever the kernel has against it; else only lack of
    /// descriptors.
    pub fn new(backend: Backend) -> io::Result<Self> {
        let notify = Arc::new(Notify::new()?);
        let uring = match backend {
            Backend::Pool => None,
            #[cfg(feature = "sim")]
            Backend::Sim => return Err(io::Error::other("a simulated world has to be given")),
            Backend::IoUring => Some(Uring::new(&notify)?),
            Backend::Auto => match Uring::new(&notify) {
                Ok(uring) => {
                    TOLD.call_once(|| tracing::info!("I/O through io_uring ({})", uring.setup()));
                    Some(uring)
                }
                Err(e) => {
                    TOLD.call_once(|| {
                        tracing::info!(
                            "I/O through a pool of threads; io_uring cannot be used: {e}"
                        );
                    });
                    None
                }
            },
        };
        let (driver, backend) = match uring {
            Some(uring) => (Driver::Uring(uring), Backend::IoUring),
            None => (Driver::Pool(Poller::new(&notify)?), Backend::Pool),
        };
        Ok(Engine { core: Rc::new(Core::new(driver, notify)), backend })
    }

    /// An engine whose kernel is a simulated world.
    ///
    /// # Errors
    /// Lack of descriptors.
    #[cfg(feature = "sim")]
    pub fn simulated(world: &crate::sim::World) -> io::Result<Self> {
        let notify = Arc::new(Notify::new()?);
        let core = Rc::new(Core::new(Driver::Sim(world.clone()), notify));
        Ok(Engine { core, backend: Backend::Sim })
    }

    /// Runs a future as [`Engine::block_on`] does, until the simulated world has done `step` steps;
    /// `None`: that is reached, and the next call goes on from here.
    ///
    /// # Errors
    /// When an engine runs on this thread already, or nothing in the world can go on.
    #[cfg(feature = "sim")]
    pub fn run_until<F: Future>(
        &self,
        step: u64,
        mut future: std::pin::Pin<&mut F>,
    ) -> io::Result<Option<F::Output>> {
        let _current = Enter::new(&self.core)?;
        let waker = Waker::from(self.core.notify.clone());
        let mut cx = Context::from_waker(&waker);
        let Driver::Sim(world) = &self.core.driver else {
            return Err(io::Error::other("the engine has no simulated world"));
        };
        loop {
            if self.core.notify.take()
                && let Poll::Ready(output) = future.as_mut().poll(&mut cx)
            {
                return Ok(Some(output));
            }
            if world.steps() >= step {
                return Ok(None);
            }
            self.core.turn()?;
        }
    }

    /// The backend that is used: never [`Backend::Auto`].
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Runs a future to its end, and what it awaits. Sleeps in the kernel when nothing is ready.
    ///
    /// # Errors
    /// When an engine runs on this thread already, or the kernel refuses to wait.
    pub fn block_on<F: Future>(&self, future: F) -> io::Result<F::Output> {
        let _current = Enter::new(&self.core)?;
        let mut future = pin!(future);
        let waker = Waker::from(self.core.notify.clone());
        let mut cx = Context::from_waker(&waker);
        self.core.notify.notify();
        loop {
            if self.core.notify.take()
                && let Poll::Ready(output) = future.as_mut().poll(&mut cx)
            {
                return Ok(output);
            }
            self.core.turn()?;
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({:?})", self.backend)
    }
}
