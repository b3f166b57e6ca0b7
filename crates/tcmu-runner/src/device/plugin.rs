// SPDX-License-Identifier: Apache-2.0
//! Devices of handlers written in C. A handler that reads and writes blocks is a store under the
//! logical unit. One that handles commands sees every CDB first, and what it leaves goes on to the
//! logical unit; one that does nothing else answers alone, be it a disk, a tape or a CD.
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use block::{AnyStore, BoxedStore};
use lun::Lun;
use lun::alua::{Alua, Snapshot};
use scsi::opcodes::{Opcode, Reach};
use scsi::sense::{Sense, Status};
use tcmu::Command;
use tcmu_plugin::{
    Finished, Handler, Operation, PluginDevice, PluginStore, Scope, Setup, Verdict, config,
};

use super::DeviceSpec;
use super::alua::ConfigfsAlua;
use super::commands::{self, Aborted, Done, Ending};
use super::open::OpenError;
use super::serve::DiskLun;

/// Operation codes of commands whose answer may be shorter than their buffer. What earlier
/// commands left in it is erased before a handler gets it.
const ANSWERS: &[u8] = &[
    0x03, 0x12, 0x1a, 0x23, 0x25, 0x3c, 0x43, 0x46, 0x4a, 0x4d, 0x51, 0x52, 0x5a, 0x5c, 0x5e, 0x95,
    0x9e, 0xa0, 0xa3, 0xa4, 0xab, 0xac, 0xad, 0xb9, 0xbd, 0xbe,
];

/// Between two looks at target port groups, while no lock is held.
const LOOK: Duration = Duration::from_secs(1);

/// The device of a handler that a logical unit is on, if it is.
pub(super) fn of(lun: &Lun<AnyStore>) -> Option<&Rc<PluginDevice>> {
    lun.store().downcast_ref::<PluginStore>().map(PluginStore::device)
}

/// Has a handler open a device; the store, and its block size.
pub(super) async fn open(
    spec: &DeviceSpec,
    handler: Arc<Handler>,
    config: &str,
) -> Result<(AnyStore, u32), OpenError> {
    let setup = Setup {
        name: spec.name.clone(),
        uio: spec.uio.clone(),
        config: config.into(),
        configfs: spec.configfs.clone(),
        size: spec.size,
        block_size: spec.block_size,
        max_transfer: spec.max_transfer,
        write_cache: spec.write_cache,
    };
    let device = PluginDevice::open(handler, setup).await;
    let device = device.map_err(|error| OpenError::new(error.errno, error.reason))?;
    let block_size = device.block_size();
    Ok((AnyStore::Boxed(BoxedStore::new(device.store())), block_size))
}

/// Has the handler take another configuration string; the time after which a command counts as
/// stuck.
pub(super) async fn reconfigure(
    device: &PluginDevice,
    config: &str,
) -> io::Result<Option<Duration>> {
    let (_, time_out) = config::split(config).map_err(io::Error::other)?;
    device.reconfigure(config).await?;
    Ok(time_out)
}

/// What executes the commands of a device.
pub(super) struct Host {
    device: Rc<PluginDevice>,
    /// Where the lock of the handler belongs to a target port group.
    alua: ConfigfsAlua,
    looked: Cell<Option<Instant>>,
}

impl Host {
    pub(super) fn new(device: Rc<PluginDevice>, spec: &DeviceSpec) -> Rc<Host> {
        let alua = ConfigfsAlua::new(spec.configfs.clone());
        Rc::new(Host { device, alua, looked: Cell::default() })
    }

    /// Executes a command.
    pub(super) fn execute(
        self: &Rc<Self>,
        lun: DiskLun,
        command: Command,
        aborted: Aborted,
    ) -> impl Future<Output = Done> + use<> {
        let host = self.clone();
        async move { host.run(lun, command, aborted).await }
    }

    async fn run(&self, lun: DiskLun, command: Command, aborted: Aborted) -> Done {
        if let Err(status) = self.lock(command.cdb()).await {
            return Done { ending: ending(status.verdict(), None, 0), command };
        }
        let handler = self.device.handler();
        if handler.handles_commands() {
            let finished = self.handle(&command).await;
            match finished.status.verdict() {
                Verdict::NotHandled if !handler.is_passthrough() => {}
                verdict => {
                    let read = command.data().len();
                    return Done { ending: ending(verdict, Some(&finished), read), command };
                }
            }
        }
        let scope = Scope::new(command.id(), command.cdb());
        // Pinned here: it is large, and each move would copy it.
        let mut done = scope.run(pin!(commands::execute(lun, command, aborted))).await;
        if let (Some(failure), Ending::Outcome(outcome)) = (scope.failure(), &done.ending)
            && outcome.status != Status::Good
        {
            let own = failure.status.verdict();
            let same = |a: Sense| outcome.sense.is_some_and(|b| (a.key, a.asc) == (b.key, b.asc));
            // The logical unit says the same, and for which block.
            if !matches!(own, Verdict::Check(sense) if same(sense)) {
                done.ending = ending(own, Some(&failure), 0);
            }
        }
        done
    }

    /// Has the handler look at a command.
    async fn handle(&self, command: &Command) -> Finished {
        let (cdb, data) = (command.cdb(), command.data());
        if cdb.first().is_some_and(|opcode| ANSWERS.contains(opcode)) {
            data.fill(0..data.len(), 0);
        }
        self.device.execute((command.id(), cdb), Operation::HandleCommand, data).await
    }

    /// Takes the lock of the handler for the port group through which commands come, where there is
    /// such a group and the command needs access to the medium.
    async fn lock(&self, cdb: &[u8]) -> Result<(), tcmu_plugin::Status> {
        let needs = || Opcode::of(cdb).is_ok_and(|row| row.reach == Reach::Active);
        if !self.device.handler().locks() || !needs() {
            return Ok(());
        }
        let now = Instant::now();
        if self.looked.get().is_none_or(|looked| now.duration_since(looked) > LOOK) {
            self.looked.set(Some(now));
            self.alua.refresh().await;
        }
        match tag(&self.alua.snapshot()) {
            Some(tag) => self.device.acquire(tag).await,
            None => Ok(()),
        }
    }
}

/// The group that a lock is taken for: that of the port, where access changes by itself. The
/// default group, which every device has, is none.
fn tag(snapshot: &Snapshot) -> Option<u16> {
    let port = snapshot.port.and_then(|port| port.group);
    let group = port.or_else(|| snapshot.groups.first().map(|group| group.id));
    group.filter(|group| snapshot.implicit && *group != 0)
}

/// How a command ends of which a handler has said this.
fn ending(verdict: Verdict, finished: Option<&Finished>, read_len: usize) -> Ending {
    let check =
        |sense| lun::Outcome { status: Status::CheckCondition, sense: Some(sense), read_len: 0 };
    match (verdict, finished) {
        (Verdict::Ended(status), _) => {
            Ending::Outcome(lun::Outcome { status, sense: None, read_len })
        }
        (Verdict::Check(sense), _) => Ending::Outcome(check(sense)),
        (Verdict::OwnSense, finished) => match finished.and_then(|it| it.sense.as_ref()) {
            Some(sense) if is_sense(&sense[..]) => Ending::Sense(sense.clone()),
            _ => Ending::Outcome(check(Sense::INTERNAL_TARGET_FAILURE)),
        },
        (Verdict::NotHandled, _) => Ending::Outcome(check(Sense::INVALID_COMMAND_OPERATION_CODE)),
    }
}

/// Whether there is a response code of current or deferred sense data (SPC-4 4.5.1).
fn is_sense(sense: &[u8]) -> bool {
    sense.first().is_some_and(|code| (0x70..=0x73).contains(&(code & 0x7f)))
}

#[cfg(test)]
mod tests {
    use scsi::alua::PortGroup;

    use super::*;

    fn snapshot(implicit: bool, ids: &[u16]) -> Snapshot {
        let group = |&id: &u16| PortGroup {
            id,
            state: lun::alua::AccessState::Optimized,
            preferred: false,
            supported: 1,
            status: 0,
            ports: Vec::new(),
        };
        Snapshot { groups: ids.iter().map(group).collect(), implicit, ..Snapshot::default() }
    }

    #[test]
    fn a_lock_belongs_to_a_group_that_somebody_has_made() {
        assert_eq!(tag(&snapshot(true, &[16])), Some(16));
        assert_eq!(tag(&snapshot(true, &[0])), None, "the default group");
        assert_eq!(tag(&snapshot(false, &[16])), None, "access does not change by itself");
        assert_eq!(tag(&snapshot(true, &[])), None);
    }

    #[test]
    fn a_handler_that_names_no_sense_has_failed() {
        let Ending::Outcome(outcome) = ending(Verdict::OwnSense, None, 0) else {
            panic!("no sense of its own")
        };
        assert_eq!(outcome.sense, Some(Sense::INTERNAL_TARGET_FAILURE));
        assert!(is_sense(&[0xf0]) && is_sense(&[0x72]) && !is_sense(&[0; 96]) && !is_sense(&[]));
    }
}
