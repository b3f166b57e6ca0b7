// SPDX-License-Identifier: Apache-2.0
//! Behaviour of the engine as its users see it, with both backends.
use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};
use sgl::Sgl;

use super::*;
use crate::op::{Code, Descriptor, Op};

/// Runs a test with each backend. Where io_uring does not work the test fails: it has to be
/// tested somewhere.
fn both<F: Future<Output = ()>>(test: impl Fn() -> F) {
    for backend in [Backend::IoUring, Backend::Pool] {
        let engine = Engine::new(backend).unwrap();
        assert_eq!(engine.backend(), backend);
        engine.block_on(test()).unwrap();
    }
}

fn temp(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    File::from(file)
}

fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC).unwrap()
}

/// A read through the driver, never on the spot.
async fn driven_read(fd: &impl AsFd, data: &Sgl<'_>, offset: u64) -> std::io::Result<usize> {
    let fd = Arc::new(Descriptor::Os(fd.as_fd().try_clone_to_owned().unwrap()));
    Op::transfer(&fd, Code::Read(0), data, offset).await
}

#[test]
fn what_is_written_is_read_back() {
    both(|| async {
        let file = temp(b"");
        for dsync in [false, true] {
            let (mut a, mut b) = ([1u8; 3000], [2u8; 5000]);
            let data = Sgl::from_slices([&mut a[..], &mut b[..]]);
            file.write_at(&data, 777, dsync).await.unwrap();
            let mut back = vec![9u8; 8000];
            assert_eq!(file.read_at(&Sgl::from_slice(&mut back), 777).await.unwrap(), 8000);
            assert_eq!((&back[..3000], &back[3000..]), (&[1u8; 3000][..], &[2u8; 5000][..]));
            let n = driven_read(&file, &Sgl::from_slice(&mut back), 776).await.unwrap();
            assert_eq!((n, back[0], back[1]), (8000, 0, 1));
        }
        file.sync(true).await.unwrap();
        file.sync(false).await.unwrap();
    });
}

#[test]
fn a_read_ends_at_the_end_of_the_file() {
    both(|| async {
        let file = temp(b"0123456789");
        let mut back = [7u8; 16];
        assert_eq!(file.read_at(&Sgl::from_slice(&mut back), 4).await.unwrap(), 6);
        assert_eq!(&back, b"456789\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07");
        assert_eq!(file.read_at(&Sgl::from_slice(&mut back), 10).await.unwrap(), 0);
        assert_eq!(file.read_at(&Sgl::empty(), 0).await.unwrap(), 0);
    });
}

#[test]
fn more_pieces_than_a_system_call_takes_are_transferred() {
    both(|| async {
        let file = temp(b"");
        let mut buf: Vec<u8> = (0..5000u32).map(|i| i.to_le_bytes()[0]).collect();
        let want = buf.clone();
        let data = Sgl::from_slices(buf.chunks_mut(2));
        file.write_at(&data, 3, false).await.unwrap();
        file.write_at(&data, 6000, true).await.unwrap();
        data.fill(0..5000, 0);
        assert_eq!(file.read_at(&data, 6000).await.unwrap(), 5000);
        assert_eq!(buf, want);
        let data = Sgl::from_slices(buf.chunks_mut(2));
        data.fill(0..5000, 0);
        assert_eq!(file.read_at(&data, 3).await.unwrap(), 5000);
        assert_eq!(buf, want);
    });
}

#[test]
fn errors_carry_the_errno() {
    both(|| async {
        let (reader, _writer) = pipe();
        let mut buf = [0u8; 8];
        let file = File::new(reader);
        let e = file.read_at(&Sgl::from_slice(&mut buf), 0).await.unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ESPIPE));
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let e = File::from(full).write_at(&Sgl::from_slice(&mut buf), 0, false).await.unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ENOSPC));
        let e = temp(b"").fallocate(0x4000_0000, 0, 1).await.unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::EOPNOTSUPP));
    });
}

#[test]
fn operations_beyond_the_size_of_the_ring_all_complete() {
    both(|| async {
        let content: Vec<u8> = (0..=255).collect();
        let file = Rc::new(temp(&content));
        let mut set = TaskSet::new();
        for i in 0..1000u64 {
            let file = file.clone();
            let started = set.push(async move {
                let mut byte = [0u8];
                let n = driven_read(&*file, &Sgl::from_slice(&mut byte), i % 256).await.unwrap();
                (n, u64::from(byte[0]) == i % 256)
            });
            assert!(matches!(started, Started::Running(_)));
        }
        for _ in 0..1000 {
            assert_eq!(set.next().await.1, (1, true));
        }
        assert!(set.is_empty());
    });
}

#[test]
fn a_completion_whose_wake_has_been_spent_is_not_lost() {
    both(|| async {
        let file = temp(&[3; 512]);
        let mut byte = [0u8];
        let data = Sgl::from_slice(&mut byte);
        let mut read = pin!(driven_read(&file, &data, 0));
        let mut first = true;
        let done = poll_fn(|cx| {
            let polled = read.as_mut().poll(cx);
            if std::mem::take(&mut first) {
                // Time for a thread of the pool to finish and to wake the engine.
                std::thread::sleep(Duration::from_millis(50));
                crate::core::current().unwrap().notify.take();
            }
            polled
        });
        let begin = Instant::now();
        assert_eq!(timeout(Duration::from_secs(20), done).await.unwrap().unwrap(), 1);
        assert!(begin.elapsed() < Duration::from_secs(10), "the timer has found it");
    });
}

#[test]
fn a_cached_read_completes_at_its_first_poll() {
    both(|| async {
        let file = temp(&[5; 4096]);
        let mut set = TaskSet::new();
        let started = set.push(async {
            let mut buf = [0u8; 4096];
            file.read_at(&Sgl::from_slice(&mut buf), 0).await.unwrap()
        });
        assert!(matches!(started, Started::Done(4096)));
    });
}

#[test]
fn an_edge_is_reported_once_and_the_next_one_again() {
    both(|| async {
        let (reader, writer) = pipe();
        let ready = Readiness::new(reader).unwrap();
        assert_eq!(timeout(Duration::from_millis(30), ready.ready()).await.unwrap_err(), Elapsed);
        for _ in 0..100 {
            rustix::io::write(&writer, b"x").unwrap();
            assert_ne!(ready.ready().await.unwrap() & 1, 0, "POLLIN");
        }
        assert!(timeout(Duration::from_millis(30), ready.ready()).await.is_err());
        drop(writer);
        assert_ne!(ready.ready().await.unwrap() & 0x10, 0, "POLLHUP");
    });
}

#[test]
fn what_was_readable_before_watching_counts() {
    both(|| async {
        let (reader, writer) = pipe();
        rustix::io::write(&writer, b"x").unwrap();
        Readiness::new(&reader).unwrap().ready().await.unwrap();
        // Watched anew after the first watch ended.
        Readiness::new(&reader).unwrap().ready().await.unwrap();
    });
}

#[test]
fn a_watch_that_is_dropped_lets_go_of_the_descriptor() {
    both(|| async {
        let (reader, writer) = pipe();
        let ready = Readiness::new(reader).unwrap();
        assert!(timeout(Duration::from_millis(1), ready.ready()).await.is_err());
        drop(ready);
        // No reader is left, in the kernel either.
        assert_eq!(rustix::io::write(&writer, b"x").unwrap_err(), rustix::io::Errno::PIPE);
    });
}

#[test]
fn sleeping_takes_at_least_its_time_and_uses_no_cpu() {
    both(|| async {
        let cpu = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let (begin, spent) = (Instant::now(), cpu());
        let naps = [sleep(Duration::from_millis(150)), sleep(Duration::from_millis(50))];
        for nap in naps {
            nap.await;
        }
        assert!(begin.elapsed() >= Duration::from_millis(150));
        let used = cpu() - spent;
        assert!(used.tv_sec == 0 && used.tv_nsec < 20_000_000, "{used:?}");
    });
}

#[test]
fn items_from_other_threads_wake_the_engine() {
    both(|| async {
        let (sender, mut receiver) = channel();
        let threads: Vec<_> = (0..4u32)
            .map(|t| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    for i in 0..500 {
                        sender.send((t, i)).unwrap();
                        if i % 50 == 0 {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                    }
                })
            })
            .collect();
        drop(sender);
        let mut next = [0; 4];
        while let Some((t, i)) = receiver.recv().await {
            assert_eq!(next[t as usize], i, "in order");
            next[t as usize] += 1;
        }
        assert_eq!(next, [500; 4]);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn sending_to_nobody_gives_the_item_back() {
    let (sender, receiver) = channel();
    sender.send(1).unwrap();
    drop(receiver);
    assert_eq!(sender.send(2), Err(2));
}

#[test]
fn blocking_code_runs_beside_the_engine() {
    both(|| async {
        let mut set = TaskSet::new();
        for i in 0..4 {
            set.push(unblock(move || {
                std::thread::sleep(Duration::from_millis(100));
                i
            }));
        }
        let begin = Instant::now();
        let mut sum = 0;
        for _ in 0..4 {
            sum += set.next().await.1;
        }
        assert_eq!(sum, 6);
        assert!(begin.elapsed() < Duration::from_millis(350), "they ran one after the other");
    });
}

#[test]
fn a_panic_in_blocking_code_reaches_who_awaits_it() {
    both(|| async {
        let engine_lives = std::panic::AssertUnwindSafe(unblock(|| panic!("as planned")));
        let mut work = pin!(engine_lives.0);
        let outcome = poll_fn(|cx| {
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work.as_mut().poll(cx)))
            {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(())) => Poll::Ready(false),
                Err(panic) => Poll::Ready(panic.downcast_ref() == Some(&"as planned")),
            }
        });
        assert!(outcome.await);
        assert_eq!(unblock(|| 5).await, 5);
    });
}

#[test]
fn an_operation_that_is_dropped_half_way_leaves_its_buffer_alone() {
    both(|| async {
        let (reader, writer) = pipe();
        for round in 0..20u8 {
            let mut buf = vec![0u8; 64];
            {
                let data = Sgl::from_slice(&mut buf);
                let mut read = pin!(driven_stream(&reader, &data));
                let once = poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx).is_pending())).await;
                assert!(once);
                if round % 2 == 0 {
                    // In the kernel for sure.
                    sleep(Duration::from_millis(2)).await;
                }
                if engine_is_pool() {
                    // The thread cannot be called back: dropping waits for the data.
                    rustix::io::write(&writer, b"late").unwrap();
                }
            }
            let before = buf.clone();
            rustix::io::write(&writer, b"after").unwrap();
            sleep(Duration::from_millis(1)).await;
            assert_eq!(buf, before);
            let mut rest = [0; 64];
            rustix::io::read(&reader, &mut rest).unwrap();
        }
    });
}

fn engine_is_pool() -> bool {
    matches!(crate::core::current().unwrap().driver, crate::core::Driver::Pool(_))
}

/// A read of a pipe: offset -1 means the (absent) position.
async fn driven_stream(fd: &OwnedFd, data: &Sgl<'_>) -> std::io::Result<usize> {
    driven_read(fd, data, u64::MAX).await
}

#[test]
fn an_operation_that_was_never_begun_is_taken_back() {
    both(|| async {
        let (reader, writer) = pipe();
        let mut bufs = vec![[0u8; 4]; 30];
        let mut set = TaskSet::new();
        for buf in &mut bufs {
            let reader = &reader;
            set.push(async move { driven_stream(reader, &Sgl::from_slice(buf)).await });
        }
        // More than the pool's threads for one engine.
        if engine_is_pool() {
            sleep(Duration::from_millis(20)).await;
            rustix::io::write(&writer, &[1; 4 * 30]).unwrap();
        }
        drop(set);
        drop(bufs);
        drop(writer);
    });
}

/// Starts an operation, and leaks its future.
async fn start_and_leak<T>(operation: impl Future<Output = T>) {
    let mut operation = Box::pin(operation);
    poll_fn(|cx| {
        assert!(operation.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    std::mem::forget(operation);
}

#[test]
fn a_read_whose_future_is_leaked_never_writes_to_memory_that_was_borrowed() {
    both(|| async {
        let (reader, writer) = pipe();
        let mut buf = vec![0u8; 4];
        start_and_leak(driven_stream(&reader, &Sgl::from_slice(&mut buf))).await;
        // From here on nobody but this function has the buffer, says the compiler.
        buf.fill(1);
        sleep(Duration::from_millis(5)).await;
        rustix::io::write(&writer, &[7; 4]).unwrap();
        while rustix::io::ioctl_fionread(&reader).unwrap() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_millis(5)).await;
        assert_eq!(buf, [1; 4]);
    });
}

#[test]
fn an_operation_whose_future_is_leaked_keeps_its_memory_and_its_file() {
    both(|| async {
        let (reader, writer) = pipe();
        let memory = Sgl::zeroed(4);
        {
            let view = memory.slice(1..4);
            start_and_leak(driven_stream(&reader, &view)).await;
        }
        // Without a reader there would be EPIPE.
        drop(reader);
        sleep(Duration::from_millis(5)).await;
        assert_eq!(rustix::io::write(&writer, &[7; 3]), Ok(3));
        let mut back = [0; 4];
        while back[3] == 0 {
            sleep(Duration::from_millis(1)).await;
            memory.read_at(0, &mut back);
        }
        assert_eq!(back, [0, 7, 7, 7]);
    });
}

#[test]
fn a_cancelled_future_is_dropped_and_its_key_is_worth_nothing() {
    both(|| async {
        let dropped = Rc::new(Cell::new(0));
        struct Count(Rc<Cell<u32>>);
        impl Drop for Count {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let mut set = TaskSet::new();
        let make = |forever: bool| {
            let count = Count(dropped.clone());
            async move {
                let _count = count;
                if forever {
                    pending::<()>().await;
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        let Started::Running(key) = set.push(make(true)) else { panic!() };
        assert!(set.cancel(key));
        assert_eq!((dropped.get(), set.len()), (1, 0));
        assert!(!set.cancel(key));
        let Started::Running(other) = set.push(make(false)) else { panic!() };
        assert_ne!(key, other);
        assert!(!set.cancel(key));
        assert_eq!(set.next().await, (other, ()));
        assert_eq!(dropped.get(), 2);
    });
}

#[test]
fn one_engine_at_a_time_runs_on_a_thread() {
    let engine = Engine::new(Backend::Auto).unwrap();
    let inner = engine.block_on(async {
        Engine::new(Backend::Pool).unwrap().block_on(async {}).map_err(|e| e.to_string())
    });
    assert_eq!(inner.unwrap(), Err("an io-engine runs on this thread already".to_owned()));
    // And it can run again.
    assert_eq!(engine.block_on(async { 3 }).unwrap(), 3);
}

#[test]
fn without_an_engine_an_operation_is_an_error() {
    let file = temp(b"");
    let mut sync = pin!(file.sync(true));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let Poll::Ready(Err(e)) = sync.as_mut().poll(&mut cx) else { panic!() };
    assert_eq!(e.to_string(), "no io-engine runs on this thread");
}
