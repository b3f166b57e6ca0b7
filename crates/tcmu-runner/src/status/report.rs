// SPDX-License-Identifier: Apache-2.0
//! What is told of the daemon and its devices, and how it looks in JSON. Fields are only added, never
//! renamed: scripts read them.
use std::collections::BTreeMap;

use block::ErrorClass;
use block::statistics::{Kind, Operations};
use serde_derive::{Deserialize, Serialize};

use crate::device::Doing;

/// How the daemon does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Of the daemon.
    pub version: String,
    /// Of its process.
    pub pid: u32,
    /// Since it started, in seconds.
    pub uptime: u64,
    /// All devices, those included that are opening or closing.
    pub devices: Vec<Device>,
}

/// Where a device is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its image is being opened.
    Opening,
    /// Its image cannot be opened yet.
    Absent,
    /// It serves commands.
    Serving,
    /// It is being closed.
    Closing,
}

impl State {
    /// All of them.
    pub const ALL: [State; 4] = [State::Opening, State::Absent, State::Serving, State::Closing];

    /// As JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            State::Opening => "opening",
            State::Absent => "absent",
            State::Serving => "serving",
            State::Closing => "closing",
        }
    }
}

/// What the manager knows of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// "user_0/disk0", as configfs and targetcli call it.
    pub name: String,
    /// The configuration string; it names the stack of stores from the top down.
    pub config: String,
    /// Where it is in its life.
    pub state: State,
    /// Why it is absent.
    pub reason: Option<String>,
    /// In bytes; `None` while a change has left it open.
    pub size: Option<u64>,
    /// In bytes.
    pub block_size: u32,
    /// Whether there is a volatile write cache; `None` while a change has left it open.
    pub write_cache: Option<bool>,
    /// Whether a change of it is under way.
    pub is_changing: bool,
    /// Commands that the log was told of, as they took longer than tcmur_cmd_time_out.
    pub timed_out: u64,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// What the manager knows of it.
    #[serde(flatten)]
    pub facts: Facts,
    /// The files that it has open: its image, and those that the image names.
    pub files: Vec<String>,
    /// The exclusive lock of its storage, where there is one.
    pub lock: Option<Lock>,
    /// Its commands.
    pub commands: Commands,
    /// The operations of its disk, by kind.
    pub operations: BTreeMap<String, Counts>,
    /// Operations that failed, by the class of their errors.
    pub errors: BTreeMap<String, u64>,
}

/// Who has an exclusive lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// This host.
    Us,
    /// Another one.
    Other,
    /// Nobody, as far as is known.
    Nobody,
}

/// An exclusive lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Who has it.
    pub owner: Owner,
    /// The target port group that it is held for.
    pub group: Option<u16>,
    /// Whether this host is taking it or giving it back.
    pub changing: bool,
    /// How often it was taken away from this host.
    pub losses: u32,
}

/// The commands of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commands {
    /// Those that wait for the storage.
    pub under_way: u64,
    /// Those that were answered.
    pub done: u64,
    /// Those of them that failed, for whatever reason, or were aborted.
    pub failed: u64,
}

/// Operations of one kind that succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// How many.
    pub count: u64,
    /// The bytes that they concerned.
    pub bytes: u64,
    /// How many of them ended without waiting: the page cache had the data.
    pub immediate: u64,
    /// For how long the others have waited together, in microseconds.
    pub waited_us: u64,
    /// How many have waited for less than 1 µs, 2 µs, 4 µs and so on, and not for less than the one
    /// before; the last number is that of all others.
    pub waits: Vec<u64>,
}

impl Counts {
    fn new(operations: &Operations) -> Counts {
        Counts {
            count: operations.count,
            bytes: operations.bytes,
            immediate: operations.immediate(),
            waited_us: operations.waited_us,
            waits: operations.waited.to_vec(),
        }
    }

    /// A time in microseconds than which `share` of 100 of those that waited have waited less; `None`:
    /// none has waited, or it was longer than is counted.
    pub fn waited_less(&self, share: u64) -> Option<u64> {
        let all: u64 = self.waits.iter().sum();
        let wanted = all.saturating_mul(share).div_ceil(100);
        let mut sum = 0;
        for (n, waits) in self.waits.iter().enumerate() {
            sum += waits;
            if sum >= wanted && all > 0 {
                return (n + 1 < self.waits.len()).then(|| 1 << n);
            }
        }
        None
    }
}

impl Device {
    /// A device of which the manager knows this and whose thread shows that.
    pub fn new(facts: Facts, doing: Doing) -> Device {
        let kinds = Kind::ALL.into_iter().zip(&doing.operations.operations);
        let classes = ErrorClass::ALL.into_iter().zip(doing.operations.errors);
        let lock = doing.lock.map(|view| Lock {
            owner: match view.group {
                _ if view.ours => Owner::Us,
                Some(_) => Owner::Other,
                None => Owner::Nobody,
            },
            group: view.group,
            changing: view.changing,
            losses: view.losses,
        });
        Device {
            facts,
            files: doing.files.iter().map(|file| file.to_string_lossy().into_owned()).collect(),
            lock,
            commands: Commands {
                under_way: doing.under_way,
                done: doing.done,
                failed: doing.failed,
            },
            operations: kinds
                .map(|(kind, operations)| (kind.name().to_owned(), Counts::new(operations)))
                .collect(),
            errors: classes.map(|(class, count)| (class.name().to_owned(), count)).collect(),
        }
    }
}

/// A report with a bit of everything.
#[cfg(test)]
pub(super) fn sample() -> Report {
    let mut doing = Doing { under_way: 2, done: 9, failed: 1, ..Doing::default() };
    doing.files = vec!["/srv/a.img".into(), "/srv/base.img".into()];
    doing.lock = Some(block::exclusive::LockView {
        group: Some(3),
        losses: 2,
        ..block::exclusive::LockView::default()
    });
    let operations = &mut doing.operations;
    operations.errors[ErrorClass::Media as usize] = 7;
    operations.operations[Kind::Read as usize] =
        Operations { count: 5, bytes: 20 << 10, ..Operations::default() };
    let write = &mut operations.operations[Kind::Write as usize];
    *write = Operations { count: 3, bytes: 512, waited_us: 2_100, ..Operations::default() };
    write.waited[7] = 1;
    write.waited[12] = 1;
    let facts = Facts {
        name: "user_0/a".into(),
        config: "qcow//srv/a.img".into(),
        state: State::Serving,
        reason: None,
        size: Some(3 << 29),
        block_size: 512,
        write_cache: Some(true),
        is_changing: false,
        timed_out: 4,
    };
    let absent = Facts {
        name: "user_0/b".into(),
        config: "file//srv/b\u{1b}[2J.img".into(),
        state: State::Absent,
        reason: Some("no such\n file".into()),
        size: None,
        timed_out: 0,
        ..facts.clone()
    };
    let devices = vec![Device::new(facts, doing), Device::new(absent, Doing::default())];
    Report { version: "9.9".into(), pid: 7, uptime: 3_660, devices }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_waits_is_less_than_the_end_of_a_bucket() {
        let mut waits = vec![0; 32];
        let counts = |waits: &Vec<u64>| Counts {
            count: 0,
            bytes: 0,
            immediate: 0,
            waited_us: 0,
            waits: waits.clone(),
        };
        assert_eq!(counts(&waits).waited_less(50), None);
        waits[7] = 98;
        waits[10] = 1;
        waits[31] = 1;
        assert_eq!(counts(&waits).waited_less(50), Some(128));
        assert_eq!(counts(&waits).waited_less(99), Some(1024));
        assert_eq!(counts(&waits).waited_less(100), None);
    }

    #[test]
    fn a_report_goes_through_json_and_may_have_more_than_is_known() {
        let text = serde_json::to_string(&sample()).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), sample());
        let more = text.replacen('{', r#"{"new":[1],"#, 1);
        assert_eq!(serde_json::from_str::<Report>(&more).unwrap(), sample());
    }

    #[test]
    fn the_names_of_states_are_those_of_json() {
        for state in State::ALL {
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{}\"", state.name()));
        }
    }
}
