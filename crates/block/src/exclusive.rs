// SPDX-License-Identifier: Apache-2.0
//! The exclusive lock of a store that several hosts have open, of which one at a time may write. A
//! host takes it for one of its target port groups, so that initiators learn through which ports they
//! get at the blocks. Whoever has a device asks for it, and keeps commands away meanwhile; a store
//! only says what it has.
use std::fmt;
use std::future::Future;
use std::pin::Pin;

/// A future of the device's thread.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Who has a lock, as far as is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockView {
    /// The target port group that it is held for, by this host or another; `None`: nobody has it,
    /// or nobody knows who.
    pub group: Option<u16>,
    /// This host has it.
    pub ours: bool,
    /// This host is taking it or giving it back.
    pub changing: bool,
    /// How often it was taken away from this host. What was sent before that may not have it taken
    /// again: the initiator may have sent newer data through another host since.
    pub losses: u32,
}

/// Why a lock was not taken or given back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Not now: another attempt may do.
    #[error("{0}; another attempt may do")]
    Busy(String),
    /// It is changing hands.
    #[error("it is changing hands")]
    Changing,
    /// Another host has shut this one out.
    #[error("another host has shut this one out")]
    Fenced,
    /// It is not to be had.
    #[error("{0}")]
    Refused(String),
}

/// The exclusive lock of one store.
pub trait ExclusiveLock: fmt::Debug {
    /// What is known now, without asking.
    fn view(&self) -> LockView;
    /// Asks who has it. That may take its time: who stops waiting finds the answer later.
    fn look(&self) -> Later<'_, ()>;
    /// Takes it for a target port group, unless it is held for that one. From then on the store
    /// writes only with the lock.
    fn acquire(&self, group: u16) -> Later<'_, Result<(), LockError>>;
    /// Gives it back, if it is held for this target port group.
    fn release(&self, group: u16) -> Later<'_, Result<(), LockError>>;
    /// Nobody takes it for a target port group any more: the store sees to it by itself again.
    fn leave(&self) -> Later<'_, ()> {
        Box::pin(async {})
    }
    /// Waits until another host asks for the lock that this one has: it waits until the lock has been
    /// given back, for a few seconds. It never returns for a lock that is not asked for.
    fn asked(&self) -> Later<'_, ()> {
        Box::pin(std::future::pending())
    }
}
