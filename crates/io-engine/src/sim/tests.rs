// SPDX-License-Identifier: Apache-2.0
use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use sgl::Sgl;

use super::*;
use crate::{Engine, Readiness, Started, TaskSet, channel, sleep, timeout, unblock};

const RANDOM: Knobs =
    Knobs { inline: 300_000, slow: 300_000, split: 500_000, short: 50_000, ..Knobs::CALM };

async fn write(file: &File, byte: u8, offset: u64, len: usize) -> io::Result<()> {
    let data = Sgl::zeroed(len);
    data.fill(0..len, byte);
    file.write_at(&data, offset, false).await
}

async fn read(file: &File, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let n = file.read_at(&Sgl::from_slice(&mut bytes), offset).await.unwrap();
    bytes.truncate(n);
    bytes
}

fn run<T>(world: &World, work: impl Future<Output = T>) -> T {
    Engine::simulated(world).unwrap().block_on(work).unwrap()
}

/// Many operations at a time; what was in the log.
fn storm(seed: u64) -> (u64, u64, Vec<Event>) {
    let world = World::new(seed, RANDOM);
    world.set_log(50);
    let file = Rc::new(world.create("a"));
    run(&world, async {
        let mut rng = Rng::new(seed);
        let mut set = TaskSet::new();
        for i in 0..400u64 {
            let (file, draw) = (file.clone(), rng.draw());
            let task = async move {
                let (at, len) = (draw % 100_000, usize::try_from(draw >> 50).unwrap());
                match draw >> 40 & 7 {
                    0 => drop(read(&file, at, len).await),
                    1 => file.sync(true).await.unwrap(),
                    2 => file.fallocate(3, at, 1 + len as u64).await.unwrap(),
                    3 => drop(timeout(Duration::from_micros(50), write(&file, 7, at, len)).await),
                    4 => sleep(Duration::from_millis(draw & 15)).await,
                    _ => write(&file, u8::try_from(i & 255).unwrap(), at, len).await.unwrap(),
                }
            };
            if let Started::Running(_) = set.push(task)
                && set.len() == 16
            {
                set.next().await;
            }
        }
        while !set.is_empty() {
            set.next().await;
        }
    });
    (world.fingerprint(), world.now(), world.log())
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    for seed in 0..5 {
        assert_eq!(storm(seed), storm(seed));
        assert_ne!(storm(seed).0, storm(seed + 1).0);
    }
}

#[test]
fn what_was_written_is_read_whatever_the_way() {
    for seed in 0..50 {
        let world = World::new(seed, Knobs { very_slow: 10_000, ..RANDOM });
        let file = world.create("a");
        run(&world, async {
            write(&file, 1, 1000, 100_000).await.unwrap();
            file.write_at(&Sgl::zeroed(5000), 3000, true).await.unwrap();
            let bytes = read(&file, 0, 200_000).await;
            assert_eq!(bytes.len(), 101_000);
            let expected = |i| u8::from(i >= 1000 && !(3000..8000).contains(&i));
            assert!(bytes.iter().enumerate().all(|(i, &b)| b == expected(i)));
            file.set_len(500).unwrap();
            file.set_len(2000).unwrap();
            assert_eq!(read(&file, 0, 3000).await, vec![0; 2000]);
            assert_eq!(file.len().unwrap(), 2000);
            file.set_len(1 << 40).unwrap();
            write(&file, 9, 1 << 39, 1).await.unwrap();
            assert_eq!(file.data_extent(4096).unwrap(), Some(1 << 39..(1 << 39) + 4096));
        });
    }
}

#[test]
fn time_jumps_and_other_waits_work() {
    let world = World::new(1, RANDOM);
    let began = std::time::Instant::now();
    run(&world, async {
        sleep(Duration::from_secs(86_400)).await;
        let never = std::future::pending::<()>();
        timeout(Duration::from_secs(3600), never).await.unwrap_err();
        assert_eq!(unblock(|| 5).await, 5);
        let (sender, mut receiver) = channel();
        sender.send(7).unwrap();
        assert_eq!(receiver.recv().await, Some(7));
        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        let ready = Readiness::new(OwnedFd::from(a)).unwrap();
        sleep(Duration::from_secs(1)).await;
        std::io::Write::write_all(&mut &b, b"x").unwrap();
        ready.ready().await.unwrap();
    });
    assert!(world.now() >= 90_000_000_000_000);
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_clock_that_leaps_ends_waits_and_loses_nothing() {
    let world = World::new(5, Knobs { leap: 500_000, slow: 500_000, ..Knobs::CALM });
    let file = world.create("a");
    run(&world, async {
        for i in 0..50u8 {
            let before = world.now();
            sleep(Duration::from_secs(1)).await;
            assert!(world.now() >= before + 1_000_000_000);
            write(&file, i, u64::from(i), 1).await.unwrap();
        }
        assert_eq!(read(&file, 0, 50).await, (0..50).collect::<Vec<u8>>());
    });
    // Ten leaps of two hours are more than all else takes.
    assert!(world.now() > 20 * 3600 * 1_000_000_000, "{} ns", world.now());
}

#[test]
fn a_world_in_which_nothing_can_go_on_says_so() {
    let world = World::new(1, Knobs { hang: 1_000_000, inline: 0, ..Knobs::CALM });
    let file = world.create("a");
    let stuck = Engine::simulated(&world).unwrap().block_on(write(&file, 1, 0, 1));
    assert!(stuck.unwrap_err().to_string().contains("stands still"));
}

#[test]
fn a_file_of_another_world_is_refused() {
    let (one, other) = (World::new(1, Knobs::CALM), World::new(1, Knobs::CALM));
    let file = one.create("a");
    run(&other, async {
        assert!(write(&file, 1, 0, 1).await.is_err());
        assert!(file.len().is_err());
    });
}

#[test]
fn after_a_kill_the_cache_is_there_and_after_a_loss_of_power_what_was_synced() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let world = World::new(seed, RANDOM);
        let file = world.create("a");
        run(&world, async {
            write(&file, 1, 0, 1024).await.unwrap();
            file.sync(true).await.unwrap();
            write(&file, 2, 0, 2048).await.unwrap();
            write(&file, 3, 512, 512).await.unwrap();
        });
        let killed = world.crash(Crash::Kill, seed);
        assert_eq!(killed.content("a"), world.content("a"));
        // A kill does not make it stable.
        for world in [&world, &killed] {
            let after = world.crash(Crash::Power(Power::drawn(&mut rng)), seed);
            let found = after.content("a").unwrap();
            assert!(found.len() == 1024 || found.len() == 1536 || found.len() == 2048);
            let sector = |n: usize| {
                found.get(n * 512..(n + 1) * 512).map_or(0, |sector| {
                    assert!(sector.iter().all(|b| *b == sector[0]), "a torn sector");
                    sector[0]
                })
            };
            assert!([1, 2].contains(&sector(0)) && [1, 2, 3].contains(&sector(1)));
            assert!([0, 2].contains(&sector(2)) && [0, 2].contains(&sector(3)));
            seen.insert([sector(0), sector(1), sector(2), sector(3)]);
        }
        let nothing = world.crash(Crash::Power(Power::Nothing), seed);
        assert_eq!(nothing.content("a").unwrap(), vec![1; 1024]);
        let everything = world.crash(Crash::Power(Power::Everything), seed);
        assert_eq!(everything.content("a"), world.content("a"));
    }
    assert!(seen.len() > 15, "{seen:?}");
}

#[test]
fn a_durable_write_is_stable_and_what_was_written_before_it_elsewhere_is_not() {
    for seed in 0..50 {
        let world = World::new(seed, RANDOM);
        let file = world.create("a");
        run(&world, async {
            write(&file, 1, 0, 4096).await.unwrap();
            let data = Sgl::zeroed(512);
            data.fill(0..512, 2);
            file.write_at(&data, 1024, true).await.unwrap();
        });
        let found = world.crash(Crash::Power(Power::Nothing), seed).content("a").unwrap();
        assert_eq!(found[1024..1536], [2; 512]);
        assert!(found[..1024].iter().all(|&b| b == 0));
    }
}

#[test]
fn an_operation_in_flight_at_a_kill_has_happened_wholly_in_part_or_not() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..300 {
        let world = World::new(seed, Knobs { inline: 0, ..RANDOM });
        let file = world.put("a", &[1; 16384]);
        let engine = Engine::simulated(&world).unwrap();
        let mut work = pin!(write(&file, 2, 0, 16384));
        assert!(engine.run_until(1 + seed % 2, work.as_mut()).unwrap().is_none());
        let found = world.crash(Crash::Kill, seed).content("a").unwrap();
        let pages: Vec<u8> = found.chunks(4096).map(|page| page[0]).collect();
        assert!(found.chunks(4096).all(|page| page.iter().all(|b| *b == page[0])));
        seen.insert(pages);
        // The world itself goes on as if nothing had been.
        while engine.run_until(u64::MAX, work.as_mut()).unwrap().is_none() {}
        assert_eq!(world.content("a").unwrap(), vec![2; 16384]);
    }
    assert!(seen.contains(&vec![1; 4]) && seen.contains(&vec![2; 4]) && seen.len() > 4, "{seen:?}");
}

#[test]
fn a_failed_sync_is_told_once_and_has_lost_pages() {
    let mut lost = 0;
    for seed in 0..40 {
        let world = World::new(seed, Knobs { sync_error: 1_000_000, ..RANDOM });
        let file = world.create("a");
        let again = world.open("a").unwrap();
        run(&world, async {
            write(&file, 1, 0, 8192).await.unwrap();
            assert_eq!(file.sync(true).await.unwrap_err().raw_os_error(), Some(libc::EIO));
            world.set_knobs(RANDOM);
            // This open file has a memory; another sees a success.
            assert!(file.sync(true).await.is_err());
            again.sync(true).await.unwrap();
            assert_eq!(read(&file, 0, 8192).await, vec![1; 8192]);
        });
        let found = world.crash(Crash::Power(Power::Everything), seed).content("a").unwrap();
        lost += usize::from(found != vec![1; 8192]);
    }
    assert!((10..40).contains(&lost), "{lost}");
}

#[test]
fn a_full_world_takes_what_fits_and_refuses_the_rest() {
    let world = World::new(1, Knobs { space: 8192, longest: 1 << 20, ..RANDOM });
    let file = world.create("a");
    run(&world, async {
        let e = write(&file, 1, 0, 12288).await.unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ENOSPC));
        assert_eq!(file.len().unwrap(), 8192);
        write(&file, 2, 100, 100).await.unwrap();
        file.fallocate(3, 0, 4096).await.unwrap();
        write(&file, 3, 100_000, 10).await.unwrap();
        let e = write(&file, 1, 1 << 20, 1).await.unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::EFBIG));
    });
}

/// `cargo test --release -p io-engine --features sim -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout, reason = "a measurement")]
fn a_million_steps_a_second() {
    let world = World::new(1, Knobs::drawn(&mut Rng::new(3)));
    let file = Rc::new(world.put("a", &vec![1; 1 << 20]));
    let count = Cell::new(0u64);
    let began = std::time::Instant::now();
    run(&world, async {
        let mut set = TaskSet::new();
        while world.steps() < 5_000_000 {
            let (file, n) = (file.clone(), count.get());
            count.set(n + 1);
            let task = async move {
                if n % 50 == 0 {
                    file.sync(true).await.unwrap();
                } else if n % 2 == 0 {
                    write(&file, 1, n * 7919 % 2048 * 512, 512).await.unwrap();
                } else {
                    drop(read(&file, n * 7919 % 2048 * 512, 512).await);
                }
            };
            if let Started::Running(_) = set.push(task)
                && set.len() == 16
            {
                set.next().await;
            }
        }
        while !set.is_empty() {
            set.next().await;
        }
    });
    let rate = world.steps() as f64 / began.elapsed().as_secs_f64();
    println!("{rate:.0} steps a second, {} operations", count.get());
}
