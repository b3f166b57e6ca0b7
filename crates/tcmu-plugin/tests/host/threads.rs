// SPDX-License-Identifier: Apache-2.0
//! On which thread a handler's functions are called.
use std::rc::Rc;
use std::time::{Duration, Instant};

use block::Store;
use sgl::Sgl;
use tcmu_plugin::PluginDevice;

use crate::support::{Right, SIZE, open, read_back_side_by_side, run};

/// Reads a block; whether the handler was called on this thread.
async fn is_own(right: &Right, device: &Rc<PluginDevice>) -> bool {
    device.store().read(&Sgl::zeroed(512), 0).await.unwrap();
    right.get("right_thread") == rustix::thread::gettid().as_raw_pid()
}

/// Reads until the handler is called on this thread: its own may be at the end of something.
async fn until_own(right: &Right, device: &Rc<PluginDevice>) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_own(right, device).await {
        assert!(Instant::now() < end, "it does not wait");
        io_engine::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_handler_with_one_thread_is_called_on_the_devices_own_while_it_does_not_wait() {
    let right = Right::new();
    run(async {
        let device = right.device("plock").await;
        assert!(is_own(&right, &device).await);
        right.set("right_delay", 20);
        let mut slow = 0;
        while is_own(&right, &device).await {
            slow += 1;
            assert!(slow < 50, "it waits, and is called on the device's own thread all the same");
        }
        right.set("right_delay", 0);
        until_own(&right, &device).await;
        device.store().close().await.unwrap();
    });
}

#[test]
fn a_handler_with_several_threads_or_with_a_time_out_is_called_on_others() {
    let right = Right::new();
    run(async {
        let device = right.device("psync").await;
        assert!(!is_own(&right, &device).await);
        device.store().close().await.unwrap();
        let config = format!("plock/{};tcmur_cmd_time_out=5", right.file.display());
        let device = open(&right.plugins, &config, SIZE, 512).await.unwrap();
        assert!(!is_own(&right, &device).await);
        device.reconfigure(&format!("plock/{}", right.file.display())).await.unwrap();
        until_own(&right, &device).await;
        device.store().close().await.unwrap();
    });
}

#[test]
fn a_handler_with_one_thread_is_never_called_twice_at_once() {
    let right = Right::new();
    run(async {
        let device = right.device("plock").await;
        for delay in [0, 5, 0, 5] {
            right.set("right_delay", delay);
            read_back_side_by_side(&device, 60).await;
            io_engine::sleep(Duration::from_millis(500)).await;
        }
        device.store().close().await.unwrap();
    });
    assert_eq!(right.get("right_most_at_once"), 1);
}
