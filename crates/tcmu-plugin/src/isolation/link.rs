// SPDX-License-Identifier: Apache-2.0
//! In the daemon: the way of commands to the process that a device's handler is in, from one opening
//! to the next: a socket, and memory with a slot for each command. Commands that find no slot wait.
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sgl::Sgl;

use super::slots::{Geometry, Slots};
use super::socket::Socket;
use super::wire::Command;
use crate::answer::Answer;

/// The way to one process.
pub(crate) struct Link {
    /// The number of the process.
    process: u64,
    socket: Socket,
    slots: Slots,
    free: Mutex<Free>,
}

struct Free {
    slots: Vec<u16>,
    waiting: VecDeque<Answer<Option<Slot>>>,
    ended: bool,
}

/// A slot that a command has.
pub(crate) struct Slot {
    link: Arc<Link>,
    slot: u16,
}

/// The memory of a command's data.
pub(crate) enum Memory {
    /// A slot of its device.
    Slot(Slot),
    /// Memory of its own, for more data than a slot has room for.
    Own(Slots, OwnedFd),
}

impl Link {
    /// A way to a process; and the ends that the process is to get.
    pub(crate) fn new(
        process: u64,
        geometry: Geometry,
    ) -> io::Result<(Arc<Link>, Socket, OwnedFd)> {
        let (socket, theirs) = Socket::pair()?;
        let (slots, memory) = Slots::create(geometry)?;
        let free = Free {
            // The first one is taken first, and again: memory that was used stays in use.
            slots: (0..geometry.slots).rev().collect(),
            waiting: VecDeque::new(),
            ended: false,
        };
        Ok((Arc::new(Link { process, socket, slots, free: Mutex::new(free) }), theirs, memory))
    }

    pub(crate) fn process(&self) -> u64 {
        self.process
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory for so many bytes; `None`: the process has ended.
    pub(crate) async fn memory(self: &Arc<Self>, len: usize) -> io::Result<Option<Memory>> {
        if len > 0 && self.slots.view(0, len).is_none() {
            let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
            let len = u32::try_from(len).map_err(too_long)?;
            let (slots, fd) = Slots::create(Geometry::single(len))?;
            return Ok(Some(Memory::Own(slots, fd)));
        }
        let answer = {
            let mut free = self.free();
            if free.ended {
                return Ok(None);
            }
            if let Some(slot) = free.slots.pop() {
                return Ok(Some(Memory::Slot(Slot { link: self.clone(), slot })));
            }
            let answer = Answer::default();
            free.waiting.push_back(answer.clone());
            answer
        };
        Ok(answer.await.map(Memory::Slot))
    }

    /// Sends a command. It never waits.
    pub(crate) fn send(&self, command: &Command, memory: &Memory) -> io::Result<()> {
        match memory {
            Memory::Slot(_) => self.socket.send(command, &[], false),
            Memory::Own(_, fd) => self.socket.send(command, &[fd.as_fd()], false),
        }
    }

    /// Ends it: nobody waits for a slot any more.
    pub(crate) fn end(&self) {
        let waiting = {
            let mut free = self.free();
            free.ended = true;
            std::mem::take(&mut free.waiting)
        };
        waiting.iter().for_each(|answer| answer.give(None));
        self.socket.shut();
    }
}

impl Memory {
    /// The number of the slot.
    pub(crate) fn slot(&self) -> Option<u16> {
        match self {
            Memory::Slot(slot) => Some(slot.slot),
            Memory::Own(..) => None,
        }
    }

    /// Where so many bytes of data are.
    pub(crate) fn view(&self, len: usize) -> Option<Sgl<'_>> {
        match self {
            Memory::Slot(Slot { link, slot }) => link.slots.view(*slot, len),
            Memory::Own(slots, _) => slots.view(0, len),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let next = {
            let mut free = self.link.free();
            match free.waiting.pop_front() {
                Some(next) => next,
                None => return free.slots.push(self.slot),
            }
        };
        // Where nobody awaits it any more, it is given back again.
        next.give(Some(Slot { link: self.link.clone(), slot: self.slot }));
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    fn slot(memory: Option<io::Result<Option<Memory>>>) -> Option<u16> {
        memory?.unwrap()?.slot()
    }

    #[test]
    fn commands_wait_for_slots_in_their_order_and_those_dropped_take_none() {
        let (link, _socket, _memory) =
            Link::new(1, Geometry { slots: 2, slot_len: 1 << 16 }).unwrap();
        let first = poll(link.memory(512)).unwrap().unwrap();
        let second = poll(link.memory(0)).unwrap().unwrap();
        assert_eq!((slot(Some(Ok(first))), slot(Some(Ok(second)))), (Some(0), Some(1)));
        // They are free again; now two have them, and three wait, one of which is dropped.
        let a = poll(link.memory(512)).unwrap().unwrap().unwrap();
        let _b = poll(link.memory(512)).unwrap().unwrap().unwrap();
        assert!(poll(link.memory(512)).is_none());
        let mut cx = Context::from_waker(Waker::noop());
        let mut third = Box::pin(link.memory(512));
        assert!(third.as_mut().poll(&mut cx).is_pending());
        let mut fourth = Box::pin(link.memory(512));
        assert!(fourth.as_mut().poll(&mut cx).is_pending());
        let taken = a.slot();
        drop(a);
        let Poll::Ready(Ok(Some(third))) = third.as_mut().poll(&mut cx) else { panic!("it waits") };
        assert_eq!(third.slot(), taken);
        assert!(fourth.as_mut().poll(&mut cx).is_pending());
        link.end();
        assert!(matches!(fourth.as_mut().poll(&mut cx), Poll::Ready(Ok(None))));
        assert!(matches!(poll(link.memory(512)), Some(Ok(None))));
        // The memory is there for as long as a command has it.
        third.view(512).unwrap().fill(0..512, 1);
    }

    #[test]
    fn a_command_with_much_data_has_memory_of_its_own() {
        let (link, socket, _memory) =
            Link::new(1, Geometry { slots: 1, slot_len: 1 << 16 }).unwrap();
        let memory = poll(link.memory(1 << 20)).unwrap().unwrap().unwrap();
        assert!(memory.slot().is_none() && memory.view(1 << 20).is_some());
        let operation = crate::Operation::Flush;
        let command = Command { key: 1, operation, id: 0, slot: None, len: 1 << 20, cdb: vec![] };
        link.send(&command, &memory).unwrap();
        let mut buffer = [0; 4096];
        let packet = socket.receive(&mut buffer).unwrap().unwrap();
        assert_eq!(packet.fds.len(), 1);
    }
}
