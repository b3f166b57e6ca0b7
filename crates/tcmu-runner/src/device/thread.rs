// SPDX-License-Identifier: Apache-2.0
//! The thread of one device: opens it, says so, serves until told to stop, closes.
//!
//! The thread may get stuck in the kernel with its backstore (a dead NFS server, a frozen file
//! system). Nothing of it is shared, so only its own device waits.
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use io_engine::{Engine, Receiver};

use super::absent::Opening;
use super::open::{OpenError, open};
use super::peers::Listing;
use super::{Control, DeviceEvent, DeviceSpec, Stop};
use crate::events::Sender;

/// The thread's whole life. The event that says how it ended is its last act.
pub(super) fn run(
    spec: &DeviceSpec,
    control: (io_engine::Sender<Control>, Receiver<Control>),
    events: &Sender,
) {
    let (own, control) = control;
    let device = spec.key;
    let life = AssertUnwindSafe(|| {
        let engine = Engine::new(spec.backend);
        let engine = engine.map_err(|e| OpenError::new(libc::ENOMEM, format!("no I/O: {e}")))?;
        let end = engine.block_on(async {
            let server = match open(spec, control, events).await? {
                Opening::Open(server) => server,
                Opening::Stopped(why) => return Ok(why),
            };
            let _listing = Listing::new(server.lun.identity().naa(), own);
            events.send(DeviceEvent::Opened(device));
            Ok(server.run().await)
        });
        end.unwrap_or_else(|e| Ok(Stop::Failed(format!("cannot wait for I/O: {e}"))))
    });
    events.send(match catch_unwind(life) {
        Ok(Ok(why)) => DeviceEvent::Stopped { device, why },
        Ok(Err(OpenError { errno, reason })) => DeviceEvent::OpenFailed { device, errno, reason },
        Err(panic) => {
            DeviceEvent::Stopped { device, why: Stop::Panicked(panic_text(panic.as_ref())) }
        }
    });
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").into()
}
