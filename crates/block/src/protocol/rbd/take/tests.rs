// SPDX-License-Identifier: Apache-2.0
//! Owners of every kind, and a cluster that shuts them out.
use std::sync::{Arc, Mutex, MutexGuard};

use super::*;

/// What an owner does that is asked for the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// It gives it back.
    Gives,
    /// It answers, but keeps it: it knows nothing of the question.
    Keeps,
    /// It answers, keeps it once, and gives it when it is asked again.
    GivesLater,
    /// It does not answer.
    Silent,
    /// It gives it to who takes it, and hears no questions.
    Writes,
    /// As that, but it does not answer any more.
    Dead,
}

#[derive(Debug, Default)]
struct State {
    owner: Option<(String, Owner)>,
    shut_out: Vec<String>,
    asked: u32,
    told: Option<(String, u16)>,
    /// What the next one that is to be broken has changed into, by then.
    faster: Option<(String, Owner)>,
}

/// The client "me".
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<State>>);

impl Fake {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// A lock that somebody has.
    fn owned(owner: Owner) -> Self {
        let fake = Fake::default();
        fake.state().owner = Some(("other".into(), owner));
        fake
    }
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

impl Place for Fake {
    fn owner(&self) -> io::Result<Option<String>> {
        Ok(self.state().owner.as_ref().map(|(name, _)| name.clone()))
    }

    fn is_ours(&self) -> io::Result<bool> {
        Ok(self.owner()?.as_deref() == Some("me"))
    }

    fn ask(&self, _: &str) -> bool {
        let mut state = self.state();
        state.asked += 1;
        match state.owner.as_mut().map(|(_, kind)| kind) {
            Some(Owner::Gives) => state.owner = None,
            Some(kind @ Owner::GivesLater) => *kind = Owner::Gives,
            Some(Owner::Silent) => return false,
            _ => {}
        }
        true
    }

    fn take(&self) -> io::Result<()> {
        loop {
            let mut state = self.state();
            match state.owner.as_ref().map(|(_, kind)| *kind) {
                None | Some(Owner::Writes) => {
                    state.owner = Some(("me".into(), Owner::Gives));
                    return Ok(());
                }
                Some(Owner::Dead) => {}
                Some(_) => return Err(errno(libc::EROFS)),
            }
            drop(state);
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn break_lock(&self, owner: &str) -> io::Result<()> {
        let mut state = self.state();
        if let Some(faster) = state.faster.take() {
            state.owner = Some(faster);
        }
        match &state.owner {
            None => Err(errno(libc::ENOENT)),
            Some((now, _)) if now != owner => Err(errno(libc::EBUSY)),
            Some(_) => {
                state.shut_out.push(owner.into());
                state.owner = None;
                Ok(())
            }
        }
    }

    fn tell(&self, owner: &str, group: u16) -> io::Result<()> {
        self.state().told = Some((owner.into(), group));
        Ok(())
    }
}

#[test]
fn an_owner_that_gives_is_not_shut_out_and_one_that_keeps_it_is() {
    for (owner, shut_out) in [
        (Owner::Gives, false),
        (Owner::GivesLater, false),
        (Owner::Writes, false),
        (Owner::Keeps, true),
        (Owner::Silent, true),
        (Owner::Dead, true),
    ] {
        let place = Fake::owned(owner);
        assert_eq!(take(&place, 7).unwrap(), "me", "{owner:?}");
        let state = place.state();
        assert_eq!(state.shut_out.contains(&"other".to_owned()), shut_out, "{owner:?}");
        assert_eq!(state.told, Some(("me".into(), 7)));
    }
}

#[test]
fn what_is_free_is_taken_without_a_question() {
    let place = Fake::default();
    assert_eq!(take(&place, 7).unwrap(), "me");
    assert_eq!(take(&place, 8).unwrap(), "me");
    let state = place.state();
    assert_eq!((state.asked, &state.told), (0, &Some(("me".into(), 8))));
}

#[test]
fn who_was_faster_is_asked_and_not_shut_out() {
    let place = Fake::owned(Owner::Silent);
    place.state().faster = Some(("third".into(), Owner::Gives));
    assert_eq!(take(&place, 7).unwrap(), "me");
    assert_eq!(place.state().shut_out, Vec::<String>::new());
}
