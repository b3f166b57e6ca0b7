// SPDX-License-Identifier: Apache-2.0
//! Names in the log what does not come to its end: the kernel waits for a device that does not answer, and nothing
//! can be done but to say which.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// After how long it is said, before whoever waits for the session's end loses patience, and how long until it is
/// said again.
const PATIENCE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

/// Does something that may hang in the kernel; from time to time it is said that it still does.
pub fn watched<T>(what: &str, work: impl FnOnce() -> T) -> T {
    watched_for(PATIENCE, what, work)
}

fn watched_for<T>(patience: [Duration; 2], what: &str, work: impl FnOnce() -> T) -> T {
    let (done, is_done) = channel::<()>();
    let (what, started) = (what.to_owned(), Instant::now());
    let watch = move || {
        let [mut patience, again] = patience;
        while is_done.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            let seconds = started.elapsed().as_secs();
            tracing::warn!("{what}: not at its end after {seconds} s");
            patience = again;
        }
    };
    // Without it, nothing is said.
    let thread = Builder::new().name("watch".to_owned()).spawn(watch).ok();
    let result = work();
    drop(done);
    thread.map(|thread| thread.join().ok());
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_hangs_is_named_and_what_does_not_is_not() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        let short = [Duration::from_millis(5); 2];
        let slow = || std::thread::sleep(Duration::from_millis(50));
        assert_eq!(
            watched_for(short, "taking down dm-7", || {
                slow();
                3
            }),
            3
        );
        watched_for([Duration::from_secs(60); 2], "taking down dm-8", slow);
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("taking down dm-7: not at its end after 0 s"), "{text}");
        assert!(!text.contains("dm-8"), "{text}");
    }
}
