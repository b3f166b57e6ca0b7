// SPDX-License-Identifier: Apache-2.0
//! A plugin that does everything wrong: each fault stays with its command.
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use block::{ErrorClass, Store};
use sgl::Sgl;
use tcmu_plugin::{PluginDevice, Plugins, Scope, Status, Verdict};

use crate::support::{Built, SIZE, open, run};

fn wrong() -> (Built, Plugins) {
    let built = Built::new();
    built.add("handler_wrong.c", "handler_wrong.so", &[]);
    let plugins = built.load();
    (built, plugins)
}

async fn device(plugins: &Plugins, fault: &str) -> Rc<PluginDevice> {
    open(plugins, &format!("wrong/{fault}"), SIZE, 512).await.unwrap_or_else(|e| panic!("{e}"))
}

/// The class of the error with which a read fails, if it does.
async fn read(device: &PluginDevice, store: &impl Store) -> Option<ErrorClass> {
    assert_eq!(device.size(), SIZE);
    store.read(&Sgl::zeroed(512), 0).await.err().map(|error| error.class())
}

#[test]
fn a_command_that_is_completed_twice_is_completed_once() {
    let (_built, plugins) = wrong();
    run(async {
        let device = device(&plugins, "twice").await;
        for _ in 0..100 {
            assert_eq!(read(&device, &device.store()).await, None);
        }
        device.store().close().await.unwrap();
    });
}

#[test]
fn a_command_that_is_over_is_not_taken_for_the_next_one() {
    let (_built, plugins) = wrong();
    run(async {
        let device = device(&plugins, "late").await;
        for _ in 0..500 {
            assert_eq!(read(&device, &device.store()).await, None);
        }
        device.store().close().await.unwrap();
    });
}

#[test]
fn commands_and_devices_that_there_are_not_are_refused() {
    let (_built, plugins) = wrong();
    run(async {
        let device = device(&plugins, "unknown").await;
        assert_eq!(read(&device, &device.store()).await, None);
        device.store().close().await.unwrap();
    });
}

#[test]
fn garbage_is_an_error_of_the_medium_or_the_target() {
    let (_built, plugins) = wrong();
    run(async {
        for (fault, class) in [
            ("garbage", Some(ErrorClass::Media)),
            ("sense", Some(ErrorClass::Media)),
            ("nothandled", Some(ErrorClass::Unsupported)),
            ("move", None),
        ] {
            let device = device(&plugins, fault).await;
            assert_eq!(read(&device, &device.store()).await, class, "{fault}");
            device.store().close().await.unwrap();
        }
        assert!(matches!(Status(0x7fff_0000).verdict(), Verdict::Check(_)));
    });
}

#[test]
fn sense_that_a_handler_leaves_out_is_empty_and_not_an_older_one() {
    let (_built, plugins) = wrong();
    run(async {
        let device = device(&plugins, "sense").await;
        let scope = Scope::new(1, &[0x28; 10]);
        let store = device.store();
        assert!(scope.run(store.read(&Sgl::zeroed(512), 0)).await.is_err());
        let failure = scope.failure().unwrap();
        assert_eq!((failure.status, failure.sense), (Status(2), Some(Box::new([0; 96]))));
        store.close().await.unwrap();
    });
}

#[test]
fn an_open_that_returns_nonsense_has_failed() {
    let (_built, plugins) = wrong();
    let error = run(open(&plugins, "wrong/open", SIZE, 512)).unwrap_err();
    assert_eq!(error.errno, libc::EIO);
}

#[test]
fn a_command_that_never_ends_holds_up_nothing_but_its_device() {
    let (_built, plugins) = wrong();
    run(async {
        for fault in ["never", "forget"] {
            // Without a time-out, this thread would be stuck with it.
            let stuck = device(&plugins, &format!("{fault};tcmur_cmd_time_out=3")).await;
            let store = stuck.store();
            let data = Sgl::zeroed(512);
            {
                let mut hangs = Box::pin(store.read(&data, 131_072));
                let mut pending = 0;
                for _ in 0..20 {
                    io_engine::sleep(Duration::from_millis(2)).await;
                    let poll = poll_fn(|cx| Poll::Ready(hangs.as_mut().poll(cx).is_pending()));
                    pending += u32::from(poll.await);
                }
                assert_eq!(pending, 20, "{fault}");
            }
            // It would wait for the command; whoever closes it has a deadline.
            let close = io_engine::timeout(Duration::from_millis(50), store.close()).await;
            assert!(close.is_err(), "{fault}");
        }
        let other = device(&plugins, "nothing").await;
        assert_eq!(read(&other, &other.store()).await, None);
        other.store().close().await.unwrap();
    });
}
