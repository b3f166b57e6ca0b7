// SPDX-License-Identifier: Apache-2.0
//! The handlers that are there: those built in, and external ones with the bus connection that each
//! belongs to.
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::PATH;

/// External handlers that may be registered at once: a client must not use up our memory.
const MAX_EXTERNAL: usize = 64;
/// Length of a subtype, and of a description, in bytes.
const MAX_SUBTYPE: usize = 64;
const MAX_DESCRIPTION: usize = 16 << 10;

/// A handler, as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handler {
    /// What configuration strings of it begin with.
    pub subtype: String,
    /// What people read about its configuration strings.
    pub description: String,
}

impl Handler {
    /// Its D-Bus object.
    pub fn path(&self) -> String {
        path(&self.subtype)
    }
}

/// The D-Bus object of a subtype.
pub(super) fn path(subtype: &str) -> String {
    format!("{PATH}/{subtype}")
}

#[derive(Debug)]
struct Entry {
    description: String,
    /// The unique name of an external handler's connection.
    owner: Option<String>,
}

/// The table of handlers.
#[derive(Debug)]
pub struct Handlers(Mutex<BTreeMap<String, Entry>>);

impl Handlers {
    /// A table with the built-in handlers.
    pub fn new(builtin: impl IntoIterator<Item = Handler>) -> Handlers {
        let entries = builtin
            .into_iter()
            .map(|h| (h.subtype, Entry { description: h.description, owner: None }));
        Handlers(Mutex::new(entries.collect()))
    }

    /// Whether a handler in a process of its own has registered for a subtype.
    pub fn has_external(&self, subtype: &str) -> bool {
        self.lock().get(subtype).is_some_and(|entry| entry.owner.is_some())
    }

    /// Forgets all external handlers: the bus that they were on is gone.
    pub(super) fn forget_external(&self) {
        self.lock().retain(|_, entry| entry.owner.is_none());
    }

    /// Those built in.
    pub(super) fn builtin(&self) -> Vec<Handler> {
        let mut all = self.all();
        all.retain(|handler| !self.has_external(&handler.subtype));
        all
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them.
    pub fn all(&self) -> Vec<Handler> {
        let entry = |(subtype, entry): (&String, &Entry)| Handler {
            subtype: subtype.clone(),
            description: entry.description.clone(),
        };
        self.lock().iter().map(entry).collect()
    }

    /// Why `handler` may not be registered, if so, before the bus is asked for its owner.
    pub(super) fn refuses(&self, handler: &Handler) -> Option<String> {
        let subtype = &handler.subtype;
        let is_name = |s: &str| {
            s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && s.bytes().next().is_some_and(|b| !b.is_ascii_digit())
        };
        let entries = self.lock();
        if !is_name(subtype) || subtype.len() > MAX_SUBTYPE || subtype == "HandlerManager1" {
            Some(format!(
                "not a subtype: \"{}\" (letters, digits and _, not a digit first, at most \
                 {MAX_SUBTYPE})",
                subtype.chars().take(MAX_SUBTYPE).collect::<String>().escape_debug()
            ))
        } else if handler.description.len() > MAX_DESCRIPTION {
            Some(format!("the description is longer than {MAX_DESCRIPTION} bytes"))
        } else if entries.get(subtype).is_some_and(|entry| entry.owner.is_none()) {
            Some(format!("the handler {subtype} is built in"))
        } else if !entries.contains_key(subtype) && entries.len() >= MAX_EXTERNAL {
            Some("there are too many handlers".to_owned())
        } else {
            None
        }
    }

    /// Registers an external handler, or updates it; false if the subtype was there already.
    pub(super) fn add_external(&self, handler: &Handler, owner: String) -> bool {
        let entry = Entry { description: handler.description.clone(), owner: Some(owner) };
        self.lock().insert(handler.subtype.clone(), entry).is_none()
    }

    /// Removes an external handler, unless its owner is `still`; whether it was removed.
    pub(super) fn remove_external(&self, subtype: &str, still: Option<&str>) -> bool {
        let mut entries = self.lock();
        let gone = entries
            .get(subtype)
            .is_some_and(|entry| entry.owner.is_some() && entry.owner.as_deref() != still);
        gone && entries.remove(subtype).is_some()
    }

    /// The description of a handler that is there.
    pub(super) fn description(&self, subtype: &str) -> Option<String> {
        self.lock().get(subtype).map(|entry| entry.description.clone())
    }
}
