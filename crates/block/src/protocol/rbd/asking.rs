// SPDX-License-Identifier: Apache-2.0
//! Who asks this client for the lock of its image. Messages come from whoever may write to the pool, on
//! threads of the library; who sends one waits for the reply.
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use io_engine::Sender;
use rbd::Reply;

/// Begins a message that asks a client, whose address follows, for the lock.
const GIVE: &[u8] = b"give the lock of ";
/// More who ask at the same time get their replies at once, and find that it is kept.
const MAX_ASKING: usize = 64;

/// Asks an owner for the lock.
pub(super) fn message(owner: &str) -> Vec<u8> {
    [GIVE, owner.as_bytes()].concat()
}

/// Who asks for the lock.
#[derive(Debug)]
pub(super) struct Asking<R = Reply> {
    state: Mutex<Askers<R>>,
    /// Told of each of them.
    sender: Sender<()>,
}

#[derive(Debug)]
struct Askers<R> {
    us: Us,
    /// Whom they ask; they wait until their replies are dropped.
    waiting: Vec<(String, R)>,
}

/// What this client has to do with the lock.
#[derive(Debug, Default)]
pub(super) enum Us {
    /// It does not have it.
    #[default]
    Without,
    /// It takes it from this owner, or from nobody. It may have it already, without having seen that.
    Taking(Option<String>),
    /// It has it, under this address.
    With(String),
}

impl Us {
    /// Whether who asks an owner may mean this client.
    fn may_be(&self, owner: &str) -> bool {
        match self {
            Us::Without => false,
            Us::Taking(from) => from.as_deref() != Some(owner),
            Us::With(own) => own == owner,
        }
    }
}

impl<R> Asking<R> {
    /// Nobody yet; `sender` is told of each of them.
    pub(super) fn new(sender: Sender<()>) -> Self {
        let state = Mutex::new(Askers { us: Us::Without, waiting: Vec::new() });
        Asking { state, sender }
    }

    fn state(&self) -> MutexGuard<'_, Askers<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message has come. A reply that is not kept is sent.
    pub(super) fn heard(&self, message: &[u8], reply: R) {
        let owner = message.strip_prefix(GIVE).and_then(|owner| str::from_utf8(owner).ok());
        let mut askers = self.state();
        let Some(owner) = owner.filter(|owner| askers.us.may_be(owner)) else { return };
        if askers.waiting.len() < MAX_ASKING {
            askers.waiting.push((owner.to_owned(), reply));
            let _ = self.sender.send(());
        }
    }

    /// What this client has to do with the lock from now on. Who asks another is told to go on.
    pub(super) fn now(&self, us: Us) {
        let others = {
            let mut askers = self.state();
            askers.us = us;
            let all = mem::take(&mut askers.waiting);
            let (ours, others) = all.into_iter().partition(|(owner, _)| askers.us.may_be(owner));
            askers.waiting = ours;
            if !askers.waiting.is_empty() {
                let _ = self.sender.send(());
            }
            others
        };
        drop(others);
    }

    /// Whether this client is asked for the lock that it has.
    pub(super) fn is_asked(&self) -> bool {
        let askers = self.state();
        matches!(askers.us, Us::With(_)) && !askers.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whom the replies that are kept are for.
    fn kept(asking: &Asking<u32>) -> Vec<u32> {
        asking.state().waiting.iter().map(|(_, reply)| *reply).collect()
    }

    #[test]
    fn who_asks_waits_while_this_client_may_be_meant() {
        let (sender, _receiver) = io_engine::channel();
        let asking = Asking::new(sender);
        asking.heard(&message("a"), 1);
        assert_eq!(kept(&asking), [0; 0], "it does not have it");
        asking.now(Us::Taking(Some("a".into())));
        asking.heard(&message("a"), 2);
        asking.heard(&message("b"), 3);
        asking.heard(&message("c"), 4);
        assert_eq!(kept(&asking), [3, 4], "it may be b or c by now");
        assert!(!asking.is_asked());
        asking.now(Us::With("b".into()));
        asking.heard(&message("a"), 5);
        assert_eq!(kept(&asking), [3]);
        assert!(asking.is_asked());
        asking.now(Us::Without);
        assert_eq!(kept(&asking), [0; 0]);
    }

    #[test]
    fn what_is_no_question_or_one_too_many_is_not_kept() {
        let (sender, _receiver) = io_engine::channel();
        let asking = Asking::new(sender);
        asking.now(Us::With("b".into()));
        for message in [&b""[..], b"give the lock of ", b"give the lock of \xff", b"b"] {
            asking.heard(message, 0);
        }
        assert!(!asking.is_asked());
        (0..1000).for_each(|reply| asking.heard(&message("b"), reply));
        assert_eq!(kept(&asking).len(), MAX_ASKING);
    }
}
