// SPDX-License-Identifier: Apache-2.0
//! `rbd` and `glfs` against real servers of this machine, and their own tools as the other client.
#![allow(clippy::cast_possible_truncation, reason = "sizes of tests are small")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests' helpers")]

mod glfs;
mod lock;
mod model;
mod rbd;
mod servers;
mod service;
mod shared;

use std::future::poll_fn;
use std::pin::pin;

use block::{AnyStore, Error, OpenOptions, Store};
use io_engine::{Backend, Engine};
use sgl::Sgl;

const MIB: u64 = 1 << 20;

/// Runs something in an engine of its own.
fn run<T>(work: impl Future<Output = T>) -> T {
    Engine::new(Backend::Pool).unwrap().block_on(work).unwrap()
}

/// Does some work beside what never ends.
async fn beside<T>(endless: impl Future<Output = ()>, work: impl Future<Output = T>) -> T {
    let (mut endless, mut work) = (pin!(endless), pin!(work));
    poll_fn(|cx| {
        assert!(endless.as_mut().poll(cx).is_pending());
        work.as_mut().poll(cx)
    })
    .await
}

async fn open(config: &str) -> Result<AnyStore, Error> {
    block::open(config, &OpenOptions::default()).await
}

async fn write(store: &AnyStore, byte: u8, offset: u64, len: usize) -> Result<(), Error> {
    store.write(&Sgl::from_slice(&mut vec![byte; len]), offset, false).await
}

async fn read(store: &AnyStore, offset: u64, len: usize) -> Vec<u8> {
    let mut data = vec![0xee; len];
    store.read(&Sgl::from_slice(&mut data), offset).await.unwrap();
    data
}

/// A configuration string that cannot be opened: what is said.
fn refused(config: &str) -> String {
    run(async { open(config).await.unwrap_err().to_string() })
}
