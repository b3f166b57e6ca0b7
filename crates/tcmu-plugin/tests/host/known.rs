// SPDX-License-Identifier: Apache-2.0
//! What handlers find behind `tcmu_dev_get_private`, where the C daemon has a structure of its own.
use block::Store;
use block::exclusive::ExclusiveLock;
use sgl::Sgl;
use tcmu_plugin::{Operation, PluginDevice, Status};

use crate::support::{Known, Right, run, until};

/// Has the plugin tell of something.
async fn tell(device: &PluginDevice, opcode: u8) {
    let cdb = [opcode, 0, 0, 0, 0, 0];
    let told = device.execute((1, &cdb), Operation::HandleCommand, &Sgl::empty()).await;
    assert_eq!(told.status, Status::OK);
}

#[test]
fn handlers_find_losses_and_the_lock_where_the_c_daemon_has_them() {
    const UNLOCKED: u64 = 1;
    const LOCKED: u64 = 5;
    let right = Right::new();
    run(async {
        let device = right.device("plock").await;
        let fresh = Known { lock_state: UNLOCKED, ..Known::default() };
        assert_eq!(right.known(), fresh);
        device.acquire(7).await.unwrap();
        tell(&device, 0xc5).await;
        until("the event was reported", || right.counts().events == 1).await;
        let held = Known { timed_out: 1, lock_state: LOCKED, ..Known::default() };
        assert_eq!(right.known(), held, "a command has timed out, and the lock is ours");
        for (opcode, events, known) in [
            (0xc4, 2, Known { timed_out: 1, lock_lost: 1, ..fresh }),
            (0xc3, 3, Known { timed_out: 1, lock_lost: 1, conn_lost: 1, ..fresh }),
        ] {
            tell(&device, opcode).await;
            until("the event was reported", || right.counts().events == events).await;
            assert_eq!(right.known(), known);
        }
        device.store().close().await.unwrap();
    });
}
