// SPDX-License-Identifier: Apache-2.0
//! Snapshots of the driven image: in turn among themselves, beside everything else. The model is
//! told when one begins to be made, applied or deleted, and how that ends.
use crate::crash::life::Life;
use crate::crash::model::{Begun, Fate, Value};
use crate::crash::target::{Fault, Target};
use crate::crash::workload::{Kind, Op, Saving};

/// The most snapshots that are there at the same time.
const MOST: usize = 3;
/// Refcounts of as many bits as 2 to the power of this may be too small for snapshots.
const NARROW: u32 = 3;

/// The name of the snapshot that an operation makes.
pub(crate) fn name(number: Value) -> String {
    format!("s{number}")
}

/// The number of the operation that made a snapshot of this name.
pub(crate) fn number(name: &str) -> Option<Value> {
    name.strip_prefix('s')?.parse().ok()
}

/// An operation on a snapshot, which ends, uncertain, when it is dropped.
struct Change<'a> {
    life: &'a Life<'a>,
    what: Saving,
    number: Value,
    begun: Begun,
    /// `None`: nothing has changed.
    fate: Option<Fate>,
}

impl<'a> Change<'a> {
    fn new(life: &'a Life<'a>, what: Saving, number: Value) -> Self {
        life.saving.set(life.saving.get() + 1);
        let mut model = life.model.borrow_mut();
        let begun = match what {
            Saving::Create => model.begin_create(number),
            Saving::Apply => model.begin_apply(number),
            Saving::Delete => model.begin_delete(number),
        };
        Change { life, what, number, begun, fate: Some(Fate::Open) }
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        let &mut Change { life, what, number, begun, fate } = self;
        life.saving.set(life.saving.get().saturating_sub(1));
        let mut model = life.model.borrow_mut();
        match (what, fate) {
            (Saving::Create, Some(fate)) => model.end_create(number, begun, fate),
            (Saving::Create, None) => model.withdraw_create(number, begun),
            (Saving::Apply, Some(fate)) => model.end_apply(begun, fate),
            (Saving::Apply, None) => model.withdraw_apply(begun),
            (Saving::Delete, fate) => {
                model.end_presence(number, begun, fate.unwrap_or(Fate::Open));
            }
        }
    }
}

impl Life<'_> {
    /// The snapshot that an operation means, and whether it is certainly there; `None`: there is
    /// nothing to be done.
    fn chosen(&self, number: Value, what: Saving, nth: u32) -> Option<(Value, bool)> {
        let there = self.model.borrow().snapshots();
        match what {
            Saving::Create => (there.len() < MOST).then_some((number, true)),
            _ if there.is_empty() => None,
            _ => there.get(usize::try_from(nth).unwrap_or(0) % there.len()).copied(),
        }
    }

    /// Whether an operation runs while no other does. Going back to a snapshot of another size does:
    /// what is inside of the disk is not certain meanwhile.
    pub(crate) fn is_alone(&self, op: &Op) -> bool {
        match op.kind {
            Kind::Resize(_) | Kind::Reopen => true,
            Kind::Snapshot(Saving::Apply, nth) => {
                let chosen = self.chosen(op.number, Saving::Apply, nth);
                chosen.is_some_and(|(number, _)| !self.model.borrow().has_same_size(number))
            }
            _ => false,
        }
    }

    /// Whether an operation has to wait until another ends.
    pub(crate) fn has_to_wait(&self, op: &Op) -> bool {
        let saves = matches!(op.kind, Kind::Snapshot(..));
        self.is_alone(op) || (saves && self.saving.get() > 0)
    }

    /// Makes, applies or deletes a snapshot.
    pub(crate) async fn save(
        &self,
        number: Value,
        what: Saving,
        nth: u32,
        target: &impl Target,
    ) -> Result<(), Fault> {
        let Some((number, certain)) = self.chosen(number, what, nth) else { return Ok(()) };
        let mut change = Change::new(self, what, number);
        match target.snapshot(what, &name(number)).await {
            Ok(()) => {
                change.fate = Some(Fate::Durable);
                Ok(())
            }
            Err(Fault::Refused(why)) => {
                change.fate = None;
                let narrow = self.record.format.refcount_order <= NARROW;
                let too_high = narrow && why.contains("refcount_bits");
                let unknown = !certain && why.contains("no snapshot");
                if too_high || unknown { Ok(()) } else { Err(Fault::Refused(why)) }
            }
            Err(fault) => Err(fault),
        }
    }
}
