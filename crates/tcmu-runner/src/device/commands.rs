// SPDX-License-Identifier: Apache-2.0
//! The commands of one device that did not end at once: their futures, for how long they have been
//! under way, and which of them are to be dropped.
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use block::Store;
use io_engine::{Sleep, Started, TaskSet, sleep};
use lun::{Lun, Outcome};
use tcmu::{Command, Tmr, TmrKind};

/// The resolution in which commands are timed: no clock is read for one that ends at once.
const TICK: Duration = Duration::from_secs(1);

/// Ids of commands that are to be dropped.
pub(super) type Aborted = Rc<RefCell<BTreeSet<u16>>>;

/// A command that has ended.
pub(super) struct Done {
    pub(super) command: Command,
    pub(super) ending: Ending,
}

/// How a command has ended.
pub(super) enum Ending {
    /// So says the logical unit.
    Outcome(Outcome),
    /// In CHECK CONDITION with sense data that are not ours.
    Sense(Box<[u8; SENSE_LEN]>),
    /// It was aborted.
    Aborted,
}

impl Ending {
    /// Whether the initiator hears of a failure.
    pub(super) fn has_failed(&self) -> bool {
        match self {
            Ending::Outcome(outcome) => outcome.sense.is_some(),
            Ending::Sense(_) | Ending::Aborted => true,
        }
    }
}

/// The length of sense data that a handler gives, in bytes.
const SENSE_LEN: usize = 96;

/// A command that has been under way for too long.
pub(super) struct Overdue {
    pub(super) id: u16,
    pub(super) opcode: u8,
    pub(super) after: Duration,
}

struct Pending {
    opcode: u8,
    /// The tick in which it came.
    since: u32,
    /// Whether it has been found overdue.
    told: bool,
}

/// The commands under way; `F` is the future of one.
pub(super) struct Commands<F: Future<Output = Done>> {
    set: TaskSet<F>,
    /// By id, which the kernel takes from the smallest numbers that are free.
    pending: Vec<Option<Pending>>,
    aborted: Aborted,
    /// `None`: commands may take for ever.
    deadline: Option<Duration>,
    /// Ticks only while something is pending.
    clock: Option<Pin<Box<Sleep>>>,
    ticks: u32,
}

/// Executes one command, unless it is aborted between two of its steps: a command that waits for
/// the kernel is left to end there, as the kernel may use its memory until then.
pub(super) async fn execute<B: Store>(lun: Rc<Lun<B>>, command: Command, aborted: Aborted) -> Done {
    let ending = {
        let mut run = pin!(lun.execute(command.cdb(), command.data()));
        let mut begun = false;
        poll_fn(|cx| {
            if begun && aborted.borrow().contains(&command.id()) {
                return Poll::Ready(Ending::Aborted);
            }
            begun = true;
            run.as_mut().poll(cx).map(Ending::Outcome)
        })
        .await
    };
    Done { command, ending }
}

impl<F: Future<Output = Done>> Commands<F> {
    /// No commands yet; one counts as overdue after `deadline`.
    pub(super) fn new(deadline: Option<Duration>) -> Self {
        Commands {
            set: TaskSet::new(),
            pending: Vec::new(),
            aborted: Aborted::default(),
            deadline,
            clock: None,
            ticks: 0,
        }
    }

    /// Whether none is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Lets commands count as overdue after another time.
    pub(super) fn set_deadline(&mut self, deadline: Option<Duration>) {
        self.deadline = deadline;
    }

    /// How many are under way.
    pub(super) fn len(&self) -> usize {
        self.set.len()
    }

    /// Starts a command with `execute`; the result if it has ended already.
    #[inline]
    pub(super) fn start(
        &mut self,
        command: Command,
        execute: impl FnOnce(Command, Aborted) -> F,
    ) -> Option<Done> {
        let id = command.id();
        let opcode = command.cdb().first().copied().unwrap_or(0);
        match self.set.push(execute(command, self.aborted.clone())) {
            Started::Done(done) => Some(done),
            Started::Running(_) => {
                let index = usize::from(id);
                if self.pending.len() <= index {
                    self.pending.resize_with(index + 1, || None);
                }
                if let Some(slot) = self.pending.get_mut(index) {
                    *slot = Some(Pending { opcode, since: self.ticks, told: false });
                }
                None
            }
        }
    }

    /// A command that has ended. `Pending`: none has, or none is under way.
    pub(super) fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        let Poll::Ready((_, done)) = self.set.poll_next(cx) else { return Poll::Pending };
        let id = done.command.id();
        if let Some(slot) = self.pending.get_mut(usize::from(id)) {
            *slot = None;
        }
        self.aborted.borrow_mut().remove(&id);
        Poll::Ready(done)
    }

    /// Acts on a task management notice; returns how many commands it aborts.
    pub(super) fn abort(&mut self, tmr: &Tmr) -> usize {
        let mut aborted = self.aborted.borrow_mut();
        let before = aborted.len();
        let is_pending = |id: &u16| matches!(self.pending.get(usize::from(*id)), Some(Some(_)));
        aborted.extend(tmr.ids.iter().filter(|id| is_pending(id)));
        if resets_lun(tmr.kind) {
            let all = (0..=u16::MAX).zip(&self.pending);
            aborted.extend(all.filter(|(_, pending)| pending.is_some()).map(|(id, _)| id));
        }
        aborted.len() - before
    }

    /// Commands that have been under way for too long, each once. Wakes `cx` for the next look.
    pub(super) fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Vec<Overdue> {
        let Some(deadline) = self.deadline else { return Vec::new() };
        if self.is_empty() {
            self.clock = None;
            return Vec::new();
        }
        let clock = self.clock.get_or_insert_with(|| Box::pin(sleep(TICK)));
        let mut ticked = false;
        while clock.as_mut().poll(cx).is_ready() {
            clock.set(sleep(TICK));
            self.ticks = self.ticks.wrapping_add(1);
            ticked = true;
        }
        if !ticked {
            return Vec::new();
        }
        let mut overdue = Vec::new();
        for (id, slot) in (0..=u16::MAX).zip(&mut self.pending) {
            let Some(pending) = slot else { continue };
            // It may have come at the end of its tick.
            let after = TICK * self.ticks.wrapping_sub(pending.since).saturating_sub(1);
            if after >= deadline && !pending.told {
                pending.told = true;
                overdue.push(Overdue { id, opcode: pending.opcode, after });
            }
        }
        overdue
    }
}

/// Whether a task management function ends every command of the logical unit, named or not.
pub(super) fn resets_lun(kind: TmrKind) -> bool {
    matches!(kind, TmrKind::LunReset | TmrKind::TargetWarmReset | TmrKind::TargetColdReset)
}
