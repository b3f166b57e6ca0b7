// SPDX-License-Identifier: Apache-2.0
//! Devices of handlers written in C. A handler that reads and writes blocks is a store under the
//! logical unit. One that handles commands sees every CDB first, and what it leaves goes on to the
//! logical unit; one that does nothing else answers alone, be it a disk, a tape or a CD.
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use block::{AnyStore, BoxedStore};
use lun::Lun;
use scsi::sense::{Sense, Status};
use tcmu::Command;
use tcmu_plugin::{
    Finished, Handler, Operation, PluginDevice, PluginStore, Scope, Setup, Verdict, config,
};

use super::DeviceSpec;
use super::commands::{self, Aborted, Done, Ending};
use super::open::OpenError;
use super::serve::SharedLun;

/// Operation codes of commands whose answer may be shorter than their buffer. What earlier
/// commands left in it is erased before a handler gets it.
const ANSWERS: &[u8] = &[
    0x03, 0x12, 0x1a, 0x23, 0x25, 0x3c, 0x43, 0x46, 0x4a, 0x4d, 0x51, 0x52, 0x5a, 0x5c, 0x5e, 0x95,
    0x9e, 0xa0, 0xab, 0xac, 0xad, 0xb9, 0xbd, 0xbe,
];

/// Whether the answer of a command may be shorter than its buffer.
fn answers(cdb: &[u8]) -> bool {
    match *cdb {
        // MAINTENANCE IN; without a service action it is SEND KEY of an optical drive.
        [0xa3, action, ..] => action & 0x1f != 0,
        // MAINTENANCE OUT; without a service action it is REPORT KEY of an optical drive.
        [0xa4, action, ..] => action & 0x1f == 0,
        [opcode, ..] => ANSWERS.contains(&opcode),
        [] => false,
    }
}

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
        patience: spec.patience,
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
}

impl Host {
    pub(super) fn new(device: Rc<PluginDevice>) -> Rc<Host> {
        Rc::new(Host { device })
    }

    /// Executes a command.
    pub(super) fn execute(
        self: &Rc<Self>,
        lun: SharedLun,
        command: Command,
        aborted: Aborted,
    ) -> impl Future<Output = Done> + use<> {
        let host = self.clone();
        async move { host.run(lun, command, aborted).await }
    }

    async fn run(&self, lun: SharedLun, command: Command, aborted: Aborted) -> Done {
        if let Some(attention) = lun.attention_before(command.cdb()) {
            return Done { ending: ending(Verdict::Check(attention), None, 0), command };
        }
        let handler = self.device.handler();
        if handler.handles_commands() {
            // The logical unit asks by itself for what the handler leaves to it.
            let finished = match lun.admit(command.cdb()).await {
                Ok(_access) => self.handle(&command).await,
                Err(outcome) => return Done { ending: Ending::Outcome(outcome), command },
            };
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
        if answers(cdb) {
            data.fill(0..data.len(), 0);
        }
        self.device.execute((command.id(), cdb), Operation::HandleCommand, data).await
    }
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
    use super::*;

    #[test]
    fn what_an_initiator_sends_is_never_erased() {
        assert!(answers(&[0x12, 0]) && answers(&[0xa3, 0x0a]) && answers(&[0xa4, 0]));
        assert!(!answers(&[0x2a, 0]) && !answers(&[0xa3, 0]) && !answers(&[0xa4, 0x0a]));
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
