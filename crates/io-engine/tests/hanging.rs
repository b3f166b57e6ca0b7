// SPDX-License-Identifier: Apache-2.0
//! In a process of its own: it uses up the threads of the pool.
#![allow(clippy::unwrap_used, reason = "a test's helpers")]

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use io_engine::{Backend, Engine, TaskSet, timeout, unblock};

const ENGINES: usize = 20;
const JOBS: usize = 10;

#[test]
fn engines_whose_jobs_hang_do_not_hold_up_another() {
    let (release, hold) = mpsc::channel::<()>();
    let hold = Arc::new(Mutex::new(hold));
    let hang = |hold: Arc<Mutex<mpsc::Receiver<()>>>| {
        let engine = Engine::new(Backend::Pool).unwrap();
        engine
            .block_on(async {
                let mut set = TaskSet::new();
                for _ in 0..JOBS {
                    let hold = hold.clone();
                    set.push(unblock(move || hold.lock().unwrap().recv().unwrap()));
                }
                for _ in 0..JOBS {
                    set.next().await;
                }
            })
            .unwrap();
    };
    let threads: Vec<_> = (0..ENGINES)
        .map(|_| {
            let hold = hold.clone();
            thread::spawn(move || hang(hold))
        })
        .collect();
    thread::sleep(Duration::from_millis(300));
    let hanging = pool_threads();
    assert!((64..64 + ENGINES).contains(&hanging), "{hanging} threads");

    let engine = Engine::new(Backend::Pool).unwrap();
    let done = engine.block_on(timeout(Duration::from_secs(5), unblock(|| 1))).unwrap();
    assert_eq!(done, Ok(1));

    for _ in 0..ENGINES * JOBS {
        release.send(()).unwrap();
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

fn pool_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter(|task| {
            let name = task.as_ref().unwrap().path().join("comm");
            std::fs::read_to_string(name).is_ok_and(|name| name == "io-pool\n")
        })
        .count()
}
