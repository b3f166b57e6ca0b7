// SPDX-License-Identifier: Apache-2.0
//! Pieces of bytes that are costly to make (read, decompress), kept for a while. Its memory is
//! bounded, and so is the number of pieces that are made at the same time. Whoever wants a piece
//! that somebody makes already waits for that.
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// The pieces, each under its key.
#[derive(Debug)]
pub(crate) struct Cache<K: Copy + PartialEq> {
    state: RefCell<State<K>>,
    /// How many bytes are kept, unless one piece is larger.
    bytes: usize,
    /// How many pieces are made at the same time.
    makers: usize,
}

#[derive(Debug)]
struct State<K> {
    /// The piece used last at the end.
    pieces: Vec<(K, Rc<[u8]>)>,
    bytes: usize,
    /// What is being made.
    busy: Vec<K>,
    waiting: Vec<Waker>,
}

/// That somebody makes a piece; ends when it is dropped.
struct Busy<'a, K: Copy + PartialEq>(&'a Cache<K>, K);

impl<K: Copy + PartialEq> Drop for Busy<'_, K> {
    fn drop(&mut self) {
        let mut state = self.0.state.borrow_mut();
        state.busy.retain(|key| *key != self.1);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl<K: Copy + PartialEq> Cache<K> {
    pub(crate) fn new(bytes: usize, makers: usize) -> Self {
        let state = State { pieces: Vec::new(), bytes: 0, busy: Vec::new(), waiting: Vec::new() };
        Cache { state: RefCell::new(state), bytes, makers }
    }

    /// The piece of a key; `make` makes it when it is not there.
    pub(crate) async fn get(
        &self,
        key: K,
        make: impl AsyncFnOnce() -> io::Result<Rc<[u8]>>,
    ) -> io::Result<Rc<[u8]>> {
        let begun = poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            if let Some(piece) = state.find(key) {
                return Poll::Ready(Err(piece));
            }
            if state.busy.len() < self.makers && !state.busy.contains(&key) {
                state.busy.push(key);
                return Poll::Ready(Ok(Busy(self, key)));
            }
            if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        });
        match begun.await {
            Err(piece) => Ok(piece),
            Ok(_busy) => {
                let piece = make().await?;
                self.put(key, piece.clone());
                Ok(piece)
            }
        }
    }

    /// Keeps a piece.
    pub(crate) fn put(&self, key: K, piece: Rc<[u8]>) {
        let mut state = self.state.borrow_mut();
        if state.find(key).is_some() {
            return;
        }
        state.bytes += piece.len();
        state.pieces.push((key, piece));
        while state.bytes > self.bytes && state.pieces.len() > 1 {
            let (_, oldest) = state.pieces.remove(0);
            state.bytes -= oldest.len();
        }
    }
}

impl<K: Copy + PartialEq> State<K> {
    fn find(&mut self, key: K) -> Option<Rc<[u8]>> {
        // Most often it is the last one again.
        let at = self.pieces.iter().rposition(|(other, _)| *other == key)?;
        if at + 1 < self.pieces.len() {
            let piece = self.pieces.remove(at);
            self.pieces.push(piece);
        }
        self.pieces.last().map(|(_, piece)| piece.clone())
    }
}

/// A slice of a table that is read at once.
const SLICE: u64 = 8 << 10;
/// How many bytes of an image's tables are in memory.
const TABLES: usize = 1 << 20;

/// Tables of an image, of which slices are in memory, whatever their length is.
#[derive(Debug)]
pub(crate) struct Tables(Cache<(usize, u64)>);

impl Tables {
    pub(crate) fn new() -> Self {
        Tables(Cache::new(TABLES, usize::MAX))
    }

    /// The entry `index` (of `N` bytes, a power of two) of the table at the offset `table` of a
    /// source. `which` tells sources apart.
    pub(crate) async fn entry<const N: usize, S: super::Source>(
        &self,
        (which, source): (usize, &S),
        table: u64,
        index: u64,
    ) -> io::Result<[u8; N]> {
        let outside =
            || super::damaged(format!("entry {index} of the table at {table} is not there"));
        let position = index.checked_mul(N as u64).ok_or_else(outside)?;
        let within = position % SLICE;
        let at = table.checked_add(position - within).ok_or_else(outside)?;
        let make = async || {
            let len = SLICE.min(source.len().saturating_sub(at));
            let len = usize::try_from(len).map_err(io::Error::other)?;
            super::read_vec(source, at, len).await.map(Rc::from)
        };
        let slice = self.0.get((which, at), make).await?;
        let within = usize::try_from(within).map_err(io::Error::other)?;
        slice.get(within..).and_then(|rest| rest.first_chunk()).copied().ok_or_else(outside)
    }
}
