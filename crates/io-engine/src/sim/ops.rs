// SPDX-License-Identifier: Apache-2.0
//! Operations of the world on their way: how one goes on, step by step, and what is left of one
//! that is given up.
use std::cmp::Reverse;

use sgl::Sgl;

use super::node::Node;
use super::pages::PAGE;
use super::rng::Rng;
use super::{Event, Kind, Phase, State};
use crate::op::Code;

/// An operation that has begun and not been told.
pub(super) struct Pending {
    id: u64,
    /// `None`: a file of another world.
    node: Option<u32>,
    code: Code,
    data: Sgl<'static>,
    offset: u64,
    /// Bytes that have been transferred.
    done: usize,
    /// The changes of the world when it began: those that a sync covers.
    began: u64,
    phase: Phase,
    result: i32,
}

fn kind(code: Code) -> Kind {
    match code {
        Code::Read(_) => Kind::Read,
        Code::Write(flags) if flags & libc::RWF_DSYNC != 0 => Kind::WriteThrough,
        Code::Write(_) => Kind::Write,
        Code::Sync { .. } => Kind::Sync,
        Code::Fallocate { .. } => Kind::Allocate,
    }
}

fn bytes(data: &Sgl<'_>, from: usize, to: usize) -> Vec<u8> {
    let mut bytes = vec![0; to - from];
    data.read_at(from, &mut bytes);
    bytes
}

fn below(rng: &mut Rng, limit: usize) -> usize {
    usize::try_from(rng.below(limit as u64)).unwrap_or(0)
}

/// fallocate(2) of a regular file; a negative errno or 0.
fn allocate(node: &mut Node, seq: u64, mode: i32, start: u64, len: u64, punches: bool) -> i32 {
    let end = start.saturating_add(len);
    let keep = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
    match mode & !libc::FALLOC_FL_KEEP_SIZE {
        _ if len == 0 => return -libc::EINVAL,
        libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE if !punches => {
            return -libc::EOPNOTSUPP;
        }
        libc::FALLOC_FL_PUNCH_HOLE if keep => {
            node.zero(seq, start, end.min(node.len()).max(start), 0)
        }
        libc::FALLOC_FL_ZERO_RANGE => {
            let (to, len) = if keep { (end.min(node.len()).max(start), 0) } else { (end, end) };
            node.zero(seq, start, to, len);
        }
        0 => {
            if !keep && end > node.len() {
                node.set_len(seq, end);
            }
        }
        _ => return -libc::EOPNOTSUPP,
    }
    0
}

impl Pending {
    fn len(&self) -> u64 {
        match self.code {
            Code::Fallocate { len, .. } => len,
            _ => self.data.len() as u64,
        }
    }

    /// Leaves of an operation what a crash or a cancellation may leave: all, a part, nothing more.
    pub(super) fn abandon(&self, nodes: &mut [Node], seq: u64, rng: &mut Rng) {
        let Some(node) = self.node.and_then(|node| nodes.get_mut(node as usize)) else { return };
        if self.phase >= Phase::Done {
            return;
        }
        let fate = rng.below(4);
        match self.code {
            Code::Read(_) => {}
            Code::Sync { .. } => {
                if fate < 2 {
                    node.settle(self.began);
                }
            }
            Code::Fallocate { mode, len } => {
                if fate < 2 {
                    allocate(node, seq, mode, self.offset, len, true);
                }
            }
            Code::Write(_) => {
                let len = self.data.len();
                let mut at = self.done;
                let stop = match fate {
                    0 => at,
                    1 => len,
                    _ => at + below(rng, len - at + 1),
                };
                while at < len && at < stop {
                    let to = page_end(self.offset, at).min(len);
                    // The kernel writes pages in order; other storage need not.
                    if fate != 3 || rng.draw() & 1 == 0 {
                        let piece = bytes(&self.data, at, to);
                        node.write(seq, self.offset + at as u64, &piece);
                    }
                    at = to;
                }
            }
        }
    }
}

/// Where, in a transfer to `offset`, the page ends in which byte `at` lies.
fn page_end(offset: u64, at: usize) -> usize {
    let left = PAGE - (offset + at as u64) % PAGE;
    at + usize::try_from(left).unwrap_or(0)
}

impl State {
    fn note(
        &mut self,
        code: Kind,
        phase: Phase,
        node: u32,
        offset: u64,
        len: u64,
        result: Option<i32>,
    ) {
        self.steps += 1;
        self.last = Some((code, phase));
        let word = self.now
            ^ offset.rotate_left(17)
            ^ len.rotate_left(40)
            ^ ((code as u64) << 8 | (phase as u64) << 4 | u64::from(node) << 56);
        self.fingerprint =
            (self.fingerprint ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(5);
        if self.log_limit > 0 {
            if self.log.len() == self.log_limit {
                self.log.pop_front();
            }
            let name = self.names.iter().find(|&(_, &n)| n == node).map(|(name, _)| name.clone());
            self.log.push_back(Event {
                time: self.now,
                step: self.steps,
                file: name.unwrap_or_default(),
                kind: code,
                phase,
                offset,
                len,
                result,
            });
        }
    }

    fn allocated(&self) -> u64 {
        self.nodes.iter().map(Node::allocated).sum()
    }

    /// How much of a write the limits admit: bytes, or a negative errno.
    fn admitted(&self, node: u32, offset: u64, len: usize) -> Result<usize, i32> {
        let end = offset + len as u64;
        if end > self.knobs.longest {
            return match usize::try_from(self.knobs.longest.saturating_sub(offset)) {
                Ok(0) | Err(_) => Err(-libc::EFBIG),
                Ok(n) => Ok(n.min(len)),
            };
        }
        if self.knobs.space == u64::MAX {
            return Ok(len);
        }
        let free = self.knobs.space.saturating_sub(self.allocated());
        let mut fits = 0;
        let mut missing = 0;
        while fits < len {
            let to = page_end(offset, fits).min(len);
            missing += self.nodes[node as usize].missing(offset + fits as u64, offset + to as u64);
            if missing > free {
                break;
            }
            fits = to;
        }
        if fits == 0 && len > 0 { Err(-libc::ENOSPC) } else { Ok(fits) }
    }

    /// Writes `data[from..to]`, as far as there is space.
    fn write(
        &mut self,
        node: u32,
        data: &Sgl<'_>,
        offset: u64,
        from: usize,
        to: usize,
    ) -> Result<usize, i32> {
        let fits = self.admitted(node, offset + from as u64, to - from)?;
        let piece = bytes(data, from, from + fits);
        self.seq += 1;
        let seq = self.seq;
        self.nodes[node as usize].write(seq, offset + from as u64, &piece);
        Ok(fits)
    }

    /// Reads into `data[from..to]`: bytes that were there.
    fn read(&mut self, node: u32, data: &Sgl<'_>, offset: u64, from: usize, to: usize) -> usize {
        let node = &self.nodes[node as usize];
        let left = node.len().saturating_sub(offset.saturating_add(from as u64));
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(to - from);
        if count > 0 {
            let mut piece = vec![0; count];
            node.read(offset + from as u64, &mut piece);
            data.write_at(from, &piece);
        }
        count
    }

    /// A transfer that must not wait: bytes, or a negative errno (EAGAIN: not without waiting).
    pub(super) fn inline(&mut self, node: u32, code: Code, data: &Sgl<'_>, offset: u64) -> i32 {
        if !self.rng.chance(self.knobs.inline) {
            return -libc::EAGAIN;
        }
        let mut len = data.len();
        if len > 1 && self.rng.chance(self.knobs.short) {
            len = page_end(offset, below(&mut self.rng, len)).min(len);
        }
        let result = match code {
            Code::Read(_) => Ok(self.read(node, data, offset, 0, len)),
            Code::Write(_) if self.rng.chance(self.knobs.write_error) => Err(-libc::EIO),
            Code::Write(_) => self.write(node, data, offset, 0, len),
            _ => Err(-libc::EAGAIN),
        };
        let result = result.map_or_else(|e| e, |n| i32::try_from(n).unwrap_or(i32::MAX));
        self.note(kind(code), Phase::Told, node, offset, data.len() as u64, Some(result));
        result
    }

    pub(super) fn set_len(&mut self, node: u32, len: u64) -> i32 {
        let result = if len > self.knobs.longest {
            -libc::EFBIG
        } else {
            self.seq += 1;
            let seq = self.seq;
            self.nodes[node as usize].set_len(seq, len);
            0
        };
        self.note(Kind::SetLen, Phase::Told, node, len, 0, Some(result));
        result
    }

    fn schedule(&mut self, slot: u32, id: u64, delay: u64) {
        let order = self.rng.draw();
        self.events.push(Reverse((self.now + delay, order, slot, id)));
    }

    pub(super) fn start(
        &mut self,
        node: Option<u32>,
        code: Code,
        data: Sgl<'static>,
        offset: u64,
        slot: u32,
    ) {
        self.next_id += 1;
        let id = self.next_id;
        let (phase, result) = match node {
            Some(_) => (Phase::Begun, 0),
            None => (Phase::Done, -libc::EBADF),
        };
        let began = self.seq + 1;
        let op = Pending { id, node, code, data, offset, done: 0, began, phase, result };
        let len = op.len();
        let at = slot as usize;
        if self.ops.len() <= at {
            self.ops.resize_with(at + 1, || None);
        }
        self.ops[at] = Some(op);
        if let Some(delay) = self.knobs.delay(&mut self.rng, kind(code)) {
            self.schedule(slot, id, delay);
        }
        self.note(kind(code), Phase::Begun, node.unwrap_or(u32::MAX), offset, len, None);
    }

    pub(super) fn cancel(&mut self, slot: u32) {
        let Some(op) = self.ops.get_mut(slot as usize).and_then(Option::take) else { return };
        self.seq += 1;
        op.abandon(&mut self.nodes, self.seq, &mut self.rng);
        self.note(
            kind(op.code),
            Phase::Told,
            op.node.unwrap_or(u32::MAX),
            op.offset,
            op.len(),
            Some(-libc::ECANCELED),
        );
    }

    /// When the next event is.
    pub(super) fn next_event(&mut self) -> Option<u64> {
        while let Some(&Reverse((at, _, slot, id))) = self.events.peek() {
            if self.ops.get(slot as usize).and_then(Option::as_ref).is_some_and(|op| op.id == id) {
                return Some(at);
            }
            self.events.pop();
        }
        None
    }

    /// The next event happens; the slot and result of an operation that ends.
    pub(super) fn step(&mut self) -> Option<(u32, i32)> {
        let Reverse((_, _, slot, _)) = self.events.pop()?;
        let mut op = self.ops.get_mut(slot as usize)?.take()?;
        let node = op.node.unwrap_or(u32::MAX);
        if op.phase == Phase::Done {
            self.note(kind(op.code), Phase::Told, node, op.offset, op.len(), Some(op.result));
            return Some((slot, op.result));
        }
        let finished = self.go_on(&mut op);
        op.phase = if finished { Phase::Done } else { Phase::Partly };
        self.note(kind(op.code), op.phase, node, op.offset, op.len(), None);
        let delay = self.rng.below(if finished { 20_000 } else { 200_000 });
        let id = op.id;
        self.ops[slot as usize] = Some(op);
        self.schedule(slot, id, delay);
        None
    }

    /// Does an operation, or the next part of it; whether that was the end.
    fn go_on(&mut self, op: &mut Pending) -> bool {
        let Some(node) = op.node else { return true };
        let (mut to, mut last) = (op.data.len(), true);
        if to - op.done > 1 && self.rng.chance(self.knobs.split) {
            // The next part ends with a page; small ones are not divided.
            let drawn = op.done + below(&mut self.rng, to - op.done);
            let end = page_end(op.offset, drawn);
            if end < to {
                (to, last) = (end, false);
            }
        } else if to - op.done > 1 && self.rng.chance(self.knobs.short) {
            to = page_end(op.offset, op.done + below(&mut self.rng, to - op.done)).min(to);
        }
        let done = match op.code {
            Code::Read(_) if self.rng.chance(self.knobs.read_error) => Err(-libc::EIO),
            Code::Read(_) => {
                let count = self.read(node, &op.data, op.offset, op.done, to);
                last |= count < to - op.done;
                Ok(count)
            }
            Code::Write(flags) => {
                let failed = self.rng.chance(self.knobs.write_error);
                if failed {
                    let drawn = op.done + below(&mut self.rng, to - op.done + 1);
                    // Up to the beginning of a page.
                    let end = page_end(op.offset, drawn);
                    let page = usize::try_from(PAGE).unwrap_or(0);
                    to = if drawn == to { to } else { end.saturating_sub(page).max(op.done) };
                }
                let written = self.write(node, &op.data, op.offset, op.done, to);
                last |= failed || written != Ok(to - op.done);
                let seq = self.seq;
                match written {
                    _ if failed => Err(-libc::EIO),
                    Ok(count) if last && flags & libc::RWF_DSYNC != 0 => {
                        let end = op.offset + (op.done + count) as u64;
                        if self.rng.chance(self.knobs.sync_error) {
                            self.failed_syncs += 1;
                            self.nodes[node as usize].lose(seq + 1, &mut self.rng);
                            Err(-libc::EIO)
                        } else {
                            self.nodes[node as usize].settle_range(seq, op.offset, end);
                            Ok(count)
                        }
                    }
                    other => other,
                }
            }
            Code::Sync { .. } if self.rng.chance(self.knobs.sync_error) => {
                self.failed_syncs += 1;
                self.nodes[node as usize].lose(op.began, &mut self.rng);
                Err(-libc::EIO)
            }
            Code::Sync { .. } => {
                self.nodes[node as usize].settle(op.began);
                Ok(0)
            }
            Code::Fallocate { .. } if self.rng.chance(self.knobs.allocate_error) => Err(-libc::EIO),
            Code::Fallocate { mode, len } => {
                let punches = self.knobs.punches;
                self.seq += 1;
                let seq = self.seq;
                let node = &mut self.nodes[node as usize];
                match allocate(node, seq, mode, op.offset, len, punches) {
                    0 => Ok(0),
                    errno => Err(errno),
                }
            }
        };
        match done {
            Ok(count) => {
                op.done += count;
                op.result = i32::try_from(op.done).unwrap_or(i32::MAX);
            }
            // What was transferred before counts, as in the kernel.
            Err(_) if op.done > 0 && matches!(op.code, Code::Read(_) | Code::Write(0)) => {
                last = true
            }
            Err(errno) => {
                op.result = errno;
                last = true;
            }
        }
        last
    }
}
