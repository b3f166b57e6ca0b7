// SPDX-License-Identifier: Apache-2.0
//! A disk on a store in memory that wants alignment, lacks abilities and takes its time.
use std::cell::RefCell;
use std::task::{Context, Waker};
use std::time::Duration;

use io_engine::{Backend, Engine, TaskSet, sleep};

use super::*;
use crate::{Discard, ErrorClass};

#[derive(Debug)]
struct Memory {
    bytes: RefCell<Vec<u8>>,
    facts: RefCell<Facts>,
    /// Writes take this long, half of the bytes being there after half of it.
    slow: Cell<Duration>,
    fails: Cell<Option<i32>>,
    resized: Cell<bool>,
    log: RefCell<Vec<String>>,
}

impl Memory {
    fn new(size: usize, alignment: u32) -> Self {
        let facts = Facts {
            size: size as u64,
            read_only: false,
            optimal_io: 4096,
            request_alignment: alignment,
            shared: false,
            compare_and_write: None,
            discard: None,
            write_zeroes: false,
        };
        Memory {
            bytes: RefCell::new((0..size).map(|i| (i / 7) as u8 | 1).collect()),
            facts: RefCell::new(facts),
            slow: Cell::default(),
            fails: Cell::default(),
            resized: Cell::default(),
            log: RefCell::default(),
        }
    }

    fn with(self, change: impl FnOnce(&mut Facts)) -> Self {
        change(&mut self.facts.borrow_mut());
        self
    }

    fn enter(&self, what: &str, offset: u64, len: u64) -> Result<Range<usize>, Error> {
        let unit = u64::from(self.facts.borrow().request_alignment);
        assert!(offset.is_multiple_of(unit) && len.is_multiple_of(unit), "{what} {offset}+{len}");
        assert!(offset + len <= self.facts.borrow().size, "{what} {offset}+{len}");
        self.log.borrow_mut().push(format!("{what} {offset}+{len}"));
        match self.fails.get() {
            Some(errno) => {
                let e = std::io::Error::from_raw_os_error(errno);
                Err(Error::new(e, what, "memory"))
            }
            None => Ok(offset as usize..(offset + len) as usize),
        }
    }
}

impl Store for Memory {
    fn facts(&self) -> Facts {
        self.facts.borrow().clone()
    }

    async fn read(&self, data: &Sgl<'_>, offset: u64) -> Result<(), Error> {
        let range = self.enter("read", offset, data.len() as u64)?;
        data.write_at(0, &self.bytes.borrow()[range]);
        Ok(())
    }

    async fn write(&self, data: &Sgl<'_>, offset: u64, fua: bool) -> Result<(), Error> {
        let what = if fua { "write through" } else { "write" };
        let range = self.enter(what, offset, data.len() as u64)?;
        let half = range.start + range.len() / 2;
        data.read_at(0, &mut self.bytes.borrow_mut()[range.start..half]);
        if !self.slow.get().is_zero() {
            sleep(self.slow.get()).await;
        }
        data.read_at(half - range.start, &mut self.bytes.borrow_mut()[half..range.end]);
        Ok(())
    }

    async fn flush(&self) -> Result<(), Error> {
        self.enter("flush", 0, 0).map(drop)
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        let range = self.enter("discard", offset, len)?;
        self.bytes.borrow_mut()[range].fill(0);
        Ok(())
    }

    async fn write_zeroes(&self, offset: u64, len: u64, _: bool) -> Result<(), Error> {
        let range = self.enter("zero", offset, len)?;
        self.bytes.borrow_mut()[range].fill(0);
        Ok(())
    }

    async fn provisioning(&self, _: u64, len: u64) -> Result<(Provisioning, u64), Error> {
        Ok((Provisioning::Mapped, len))
    }

    async fn resize(&self, size: u64) -> Result<(), Error> {
        self.bytes.borrow_mut().resize(size as usize, 0);
        self.facts.borrow_mut().size = size;
        Ok(())
    }

    async fn close(&self) -> Result<(), Error> {
        self.enter("close", 0, 0).map(drop)
    }

    async fn event(&self) -> Event {
        poll_fn(|_| if self.resized.get() { Poll::Ready(Event::Resized) } else { Poll::Pending })
            .await
    }
}

fn run(test: impl Future<Output = ()>) {
    Engine::new(Backend::Auto).unwrap().block_on(test).unwrap();
}

fn disk(store: Memory) -> Disk<Memory> {
    Disk::new(store, "test", Options::default())
}

async fn bytes(disk: &Disk<Memory>, range: Range<usize>) -> Vec<u8> {
    let mut bytes = vec![0xee; range.len()];
    disk.read(&Sgl::from_slice(&mut bytes), range.start as u64).await.unwrap();
    bytes
}

async fn write(disk: &Disk<Memory>, offset: u64, len: usize, byte: u8) -> Result<(), Error> {
    disk.write(&Sgl::from_slice(&mut vec![byte; len]), offset, false).await
}

#[test]
fn what_is_not_inside_the_disk_is_refused() {
    run(async {
        let disk = disk(Memory::new(4096, 1));
        for (offset, len) in [(4096, 1), (4095, 2), (u64::MAX, 1), (u64::MAX - 1, 4096)] {
            let mut memory = vec![0; len];
            let data = Sgl::from_slice(&mut memory);
            let len = len as u64;
            for result in [
                disk.read(&data, offset).await,
                disk.write(&data, offset, false).await,
                disk.write_zeroes(offset, len, true).await,
            ] {
                let e = result.unwrap_err();
                assert!(matches!(e.kind, ErrorKind::OutOfBounds { size: 4096 }), "{e}");
            }
        }
        assert!(disk.store().log.borrow().is_empty());
        write(&disk, 4096, 0, 1).await.unwrap();
        write(&disk, 4095, 1, 1).await.unwrap();
    });
}

#[test]
fn ends_that_are_not_aligned_are_read_and_written_by_whole_units() {
    run(async {
        for (offset, len) in [(0, 512), (1, 510), (100, 1000), (511, 2), (512, 3000), (3, 4093)] {
            let disk = disk(Memory::new(4096, 512));
            let mut want = disk.store().bytes.borrow().clone();
            let range = offset as usize..offset as usize + len;
            assert_eq!(bytes(&disk, range.clone()).await, want[range.clone()], "{offset}+{len}");
            write(&disk, offset, len, 0xaa).await.unwrap();
            want[range].fill(0xaa);
            assert_eq!(*disk.store().bytes.borrow(), want, "{offset}+{len}");
        }
    });
}

#[test]
fn writes_of_one_unit_side_by_side_lose_nothing() {
    run(async {
        let disk = disk(Memory::new(4096, 4096));
        disk.store().slow.set(Duration::from_millis(5));
        let mut tasks = TaskSet::new();
        for i in 0..8u8 {
            let disk = &disk;
            let _ = tasks.push(async move {
                write(disk, u64::from(i) * 512, 512, 0x10 + i).await.unwrap();
            });
        }
        while !tasks.is_empty() {
            tasks.next().await;
        }
        let want: Vec<u8> = (0..4096).map(|i| 0x10 + (i / 512) as u8).collect();
        assert_eq!(*disk.store().bytes.borrow(), want);
    });
}

#[test]
fn two_writes_of_the_same_bytes_do_not_interleave() {
    run(async {
        let disk = disk(Memory::new(8192, 1));
        disk.store().slow.set(Duration::from_millis(5));
        let mut tasks = TaskSet::new();
        for byte in [2, 3, 4] {
            let disk = &disk;
            let _ = tasks.push(async move { write(disk, 1000, 4000, byte).await.unwrap() });
        }
        while !tasks.is_empty() {
            tasks.next().await;
        }
        let now = bytes(&disk, 1000..5000).await;
        assert!(now.iter().all(|byte| *byte == now[0]));
    });
}

#[test]
fn zeroes_reach_every_byte_and_no_other_whatever_the_store_can_do() {
    run(async {
        let zeroing = [Some(true), Some(false), None];
        for (discard, write_zeroes) in
            zeroing.into_iter().flat_map(|discard| [(discard, false), (discard, true)])
        {
            for (offset, len) in [(0, 8192), (5, 8000), (100, 50), (512, 512), (511, 514)] {
                let disk = disk(Memory::new(8192, 512).with(|facts| {
                    facts.write_zeroes = write_zeroes;
                    facts.discard = discard.map(|zeroes| Discard { granularity: 512, zeroes });
                }));
                let mut want = disk.store().bytes.borrow().clone();
                want[offset as usize..(offset + len) as usize].fill(0);
                for may_unmap in [true, false] {
                    disk.write_zeroes(offset, len, may_unmap).await.unwrap();
                    assert!(*disk.store().bytes.borrow() == want, "{discard:?} {offset}+{len}");
                }
            }
        }
    });
}

#[test]
fn a_discard_that_promises_zeroes_leaves_them_at_its_edges() {
    run(async {
        let disk = disk(Memory::new(4096, 512).with(|facts| {
            facts.discard = Some(Discard { granularity: 512, zeroes: true });
        }));
        disk.discard(&[100..1000, 2000..2010]).await.unwrap();
        let now = disk.store().bytes.borrow();
        assert!(now[100..1000].iter().chain(&now[2000..2010]).all(|byte| *byte == 0));
        assert!(now[99] != 0 && now[1000] != 0 && now[1999] != 0 && now[2010] != 0);
    });
}

#[test]
fn a_pattern_is_repeated_all_over_a_range() {
    run(async {
        let disk = disk(Memory::new(3 << 20, 1));
        let mut pattern: Vec<u8> = (0..520).map(|i| i as u8).collect();
        let (start, count) = (520, 4000);
        let range = start..start + 520 * count;
        disk.repeat(&Sgl::from_slice(&mut pattern), range.clone()).await.unwrap();
        let now = disk.store().bytes.borrow();
        let written = &now[range.start as usize..range.end as usize];
        assert!(written.chunks(520).all(|chunk| chunk == pattern));
        assert!(now[519] != 0 && now[range.end as usize] == (range.end / 7) as u8 | 1);
    });
}

#[test]
fn the_rest_of_a_sector_reads_as_zeroes_and_the_store_grows_when_it_is_written() {
    run(async {
        let disk = Disk::new(
            Memory::new(1000, 1).with(|facts| facts.write_zeroes = true),
            "test",
            Options { round_up: 512, ..Options::default() },
        );
        assert_eq!((disk.size(), disk.facts().size), (1024, 1024));
        let end = bytes(&disk, 990..1024).await;
        assert!(end[..10].iter().all(|byte| *byte != 0) && end[10..] == [0; 24]);
        disk.write_zeroes(999, 25, true).await.unwrap();
        write(&disk, 0, 1000, 1).await.unwrap();
        assert_eq!(disk.store().facts().size, 1000, "nothing of the rest was written");
        write(&disk, 1010, 14, 9).await.unwrap();
        assert_eq!(disk.store().facts().size, 1024);
        let end = bytes(&disk, 999..1024).await;
        assert_eq!((end[0], &end[1..11], &end[11..]), (1, &[0; 10][..], &[9; 14][..]));
    });
}

#[test]
fn without_a_write_cache_everything_is_stable_when_it_is_acknowledged() {
    run(async {
        let disk = disk(Memory::new(4096, 1).with(|facts| {
            facts.write_zeroes = true;
            facts.discard = Some(Discard { granularity: 512, zeroes: true });
        }));
        assert!(disk.set_write_cache(false));
        write(&disk, 0, 512, 1).await.unwrap();
        disk.write_zeroes(512, 512, true).await.unwrap();
        disk.discard(&[0..512, 512..1024]).await.unwrap();
        let want = [
            "write through 0+512",
            "zero 512+512",
            "flush 0+0",
            "discard 0+512",
            "discard 512+512",
            "flush 0+0",
        ];
        assert_eq!(*disk.store().log.borrow(), want);
    });
}

#[test]
fn a_compound_operation_is_atomic() {
    run(async {
        let disk = disk(Memory::new(4096, 1));
        let locked = disk.lock(0..512, Access::Alone).await.unwrap();
        let mut beside = pin!(write(&disk, 100, 10, 9));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(beside.as_mut().poll(&mut cx).is_pending());
        let mut now = [0; 512];
        locked.read(&Sgl::from_slice(&mut now), 0).await.unwrap();
        assert_ne!(now[100], 9);
        drop(locked);
        beside.await.unwrap();
        assert_eq!(bytes(&disk, 100..110).await, [9; 10]);
    });
}

#[test]
fn a_store_that_is_read_only_sees_no_change() {
    run(async {
        let disk = disk(Memory::new(4096, 512).with(|facts| facts.read_only = true));
        let mut block = [1; 512];
        for result in [
            write(&disk, 0, 512, 1).await,
            write(&disk, 3, 5, 1).await,
            disk.write_zeroes(0, 512, true).await,
            disk.repeat(&Sgl::from_slice(&mut block), 0..1024).await,
            disk.discard(&[]).await,
        ] {
            assert!(matches!(result.unwrap_err().kind, ErrorKind::ReadOnly));
        }
        assert!(disk.store().log.borrow().is_empty());
        disk.close().await.unwrap();
        assert_eq!(*disk.store().log.borrow(), ["close 0+0"]);
    });
}

#[test]
fn operations_are_counted_with_the_time_that_they_waited() {
    run(async {
        let disk = disk(Memory::new(8192, 1).with(|facts| facts.write_zeroes = true));
        bytes(&disk, 0..4096).await;
        bytes(&disk, 0..512).await;
        disk.write_zeroes(0, 1024, true).await.unwrap();
        disk.flush().await.unwrap();
        disk.store().slow.set(Duration::from_millis(20));
        write(&disk, 0, 512, 1).await.unwrap();
        disk.store().fails.set(Some(libc::ENOSPC));
        write(&disk, 0, 512, 1).await.unwrap_err();
        let now = disk.statistics();
        let of = |kind: Kind| now.operations[kind as usize];
        assert_eq!((of(Kind::Read).count, of(Kind::Read).bytes), (2, 4608));
        assert_eq!(of(Kind::Read).immediate(), 2);
        assert_eq!(
            (of(Kind::Zero).count, of(Kind::Zero).bytes, of(Kind::Flush).count),
            (1, 1024, 1)
        );
        let writes = of(Kind::Write);
        assert_eq!((writes.count, writes.immediate()), (1, 0));
        // 20 ms are more than 2^14 µs.
        assert_eq!(writes.waited[15..].iter().sum::<u64>(), 1, "{:?}", writes.waited);
        assert_eq!(now.errors[ErrorClass::Space as usize], 1);
        assert_eq!(now.errors.iter().sum::<u64>(), 1);
    });
}

#[test]
fn a_size_that_another_client_has_changed_is_taken_over() {
    run(async {
        let disk = disk(Memory::new(4096, 1));
        disk.store().resize(8192).await.unwrap();
        write(&disk, 4096, 1, 1).await.unwrap_err();
        disk.store().resized.set(true);
        assert!(matches!(disk.event().await, Event::Resized));
        assert_eq!(disk.size(), 8192);
        write(&disk, 4096, 1, 1).await.unwrap();
    });
}
