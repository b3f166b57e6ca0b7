// SPDX-License-Identifier: Apache-2.0
//! Two gateways on one image, and an initiator with a path to each, in a world that a seed moves:
//! gateways stop and go on at any point, questions are lost, and who does not answer is shut out. The
//! initiator gives up a path that is silent, and sends newer data through the other. The judge: once
//! newer data is in the image, older data never is; and what was acknowledged stays.
use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use io_engine::{Backend, Engine};

use super::tests::{Still, snapshot};
use super::*;

/// Blocks that the initiator writes, each one write at a time.
const BLOCKS: usize = 3;
/// The length of a turn.
const TURN: Duration = Duration::from_millis(20);
/// After so many turns the initiator gives up a path: that are 10 seconds.
const PATIENCE: u32 = 500;
/// So often who wants a lock looks whether its owner has given it, at most 7 turns apart.
const ASK: u32 = 30;

/// Worlds, and the turns of each.
const SEEDS: u64 = 100;
const TURNS: u32 = 20_000;

/// A client of the cluster: the gateway, and the how many-th of it.
type Client = (usize, u32);

/// SplitMix64.
#[derive(Debug)]
struct Rng(Cell<u64>);

impl Rng {
    fn below(&self, n: u32) -> u32 {
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut z = self.0.get();
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((z ^ (z >> 31)) % u64::from(n)).unwrap()
    }
}

#[derive(Debug, Default)]
struct Cluster {
    owner: Option<Client>,
    shut_out: BTreeSet<Client>,
    /// The number of the last write of each block.
    blocks: [u32; BLOCKS],
    acknowledged: [u32; BLOCKS],
    /// Writes of what was older, and turns in which what was acknowledged is missing.
    wrong: u32,
    /// How often the lock was given, and broken.
    given: u32,
    broken: u32,
}

/// Why a write was refused.
enum Refused {
    ShutOut,
    Without,
}

impl Cluster {
    fn write(&mut self, client: Client, block: usize, number: u32) -> Result<(), Refused> {
        if self.shut_out.contains(&client) {
            return Err(Refused::ShutOut);
        }
        if self.owner != Some(client) {
            return Err(Refused::Without);
        }
        self.wrong += u32::from(number < self.blocks[block]);
        self.blocks[block] = number;
        Ok(())
    }
}

/// The lock, as a gateway sees it.
#[derive(Debug)]
struct Node {
    id: usize,
    cluster: Rc<RefCell<Cluster>>,
    rng: Rc<Rng>,
    /// The how many-th client it has.
    nth: Cell<u32>,
    view: Cell<LockView>,
    /// Which gateways are asked.
    asked: Rc<[Cell<bool>; 2]>,
}

impl Node {
    fn client(&self) -> Client {
        (self.id, self.nth.get())
    }

    /// Takes some turns.
    async fn pause(&self) {
        let mut left = self.rng.below(8);
        poll_fn(|_| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            Poll::Pending
        })
        .await;
    }

    /// A client has heard that it is shut out.
    fn lose(&self, client: Client) {
        if client == self.client() {
            let view = self.view.get();
            let losses = view.losses + u32::from(view.ours);
            self.view.set(LockView { losses, ..LockView::default() });
            self.nth.set(self.nth.get() + 1);
        }
    }

    async fn take(&self, group: u16) {
        loop {
            self.pause().await;
            if self.cluster.borrow().shut_out.contains(&self.client()) {
                self.lose(self.client());
            }
            let owner = self.cluster.borrow().owner;
            let Some(owner) = owner.filter(|owner| *owner != self.client()) else {
                self.cluster.borrow_mut().owner = Some(self.client());
                let view = self.view.get();
                self.view.set(LockView { group: Some(group), ours: true, ..view });
                return;
            };
            if self.rng.below(4) > 0 {
                self.asked[owner.0].set(true);
            }
            let mut left = ASK;
            while left > 0 && self.cluster.borrow().owner == Some(owner) {
                left -= 1;
                self.pause().await;
            }
            let mut cluster = self.cluster.borrow_mut();
            if cluster.owner == Some(owner) {
                cluster.shut_out.insert(owner);
                cluster.owner = None;
                cluster.broken += 1;
            }
        }
    }
}

impl ExclusiveLock for Node {
    fn view(&self) -> LockView {
        self.view.get()
    }

    fn look(&self) -> Later<'_, ()> {
        Box::pin(async {})
    }

    fn acquire(&self, group: u16) -> Later<'_, Result<(), LockError>> {
        Box::pin(async move {
            self.take(group).await;
            Ok(())
        })
    }

    fn release(&self, _: u16) -> Later<'_, Result<(), LockError>> {
        Box::pin(async {
            let client = self.client();
            self.view.set(LockView { group: None, ours: false, ..self.view.get() });
            self.pause().await;
            let mut cluster = self.cluster.borrow_mut();
            if cluster.owner == Some(client) {
                cluster.owner = None;
                cluster.given += 1;
            }
            Ok(())
        })
    }

    fn asked(&self) -> Later<'_, ()> {
        Box::pin(poll_fn(|_| match self.asked[self.id].take() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }))
    }
}

type Task<T> = Pin<Box<dyn Future<Output = T>>>;

/// A gateway: what the kernel has for it, and what it is doing.
struct Gateway {
    node: Rc<Node>,
    groups: Rc<LockedAlua<Still>>,
    ring: VecDeque<(usize, u32)>,
    commands: Vec<((usize, u32), Task<bool>)>,
    giving: Task<()>,
    /// For so many turns nothing of it moves.
    stopped: u32,
}

impl Gateway {
    fn new(node: Node, time: &Rc<Cell<Instant>>) -> Self {
        let (node, time) = (Rc::new(node), time.clone());
        let mut own = snapshot(true, false);
        own.local = vec![7 + u16::try_from(node.id).unwrap()];
        let clock = Box::new(move || time.get());
        let groups = Rc::new(LockedAlua::with_clock(Still(own), node.clone(), clock));
        let gives = groups.clone();
        let giving = Box::pin(async move { gives.give_way().await });
        let (ring, commands) = (VecDeque::new(), Vec::new());
        Gateway { node, groups, ring, commands, giving, stopped: 0 }
    }

    fn write(&self, block: usize, number: u32) -> Task<bool> {
        let (node, groups) = (self.node.clone(), self.groups.clone());
        Box::pin(async move {
            let Ok(_inside) = groups.admit().await else { return false };
            let client = node.client();
            node.pause().await;
            let written = node.cluster.borrow_mut().write(client, block, number);
            if let Err(Refused::ShutOut) = written {
                node.lose(client);
            }
            written.is_ok()
        })
    }

    /// One turn, as of the loop that serves a device; the commands that have ended.
    fn turn(&mut self, cx: &mut Context<'_>, careful: bool) -> Vec<((usize, u32), bool)> {
        let _: Poll<()> = self.giving.as_mut().poll(cx);
        let mut ended = Vec::new();
        let mut taken = 0;
        while taken < 2
            && let Some(command) = self.ring.pop_front()
        {
            taken += 1;
            self.commands.push((command, self.write(command.0, command.1)));
        }
        self.commands.retain_mut(|(command, task)| match task.as_mut().poll(cx) {
            Poll::Ready(done) => {
                ended.push((*command, done));
                false
            }
            Poll::Pending => true,
        });
        let drained = taken == 0 && ended.is_empty() && self.commands.is_empty();
        if self.groups.awaits_drain() && (drained || !careful) {
            self.groups.drained();
        }
        ended
    }
}

/// What the initiator does with a block.
#[derive(Clone, Copy, Default)]
struct Sent {
    number: u32,
    path: usize,
    /// Nobody has answered yet; for so many turns.
    waits: Option<u32>,
}

/// A world of so many turns. Without `careful`, commands that had come before a loss was seen count as
/// new.
fn world(seed: u64, turns: u32, careful: bool) -> Rc<RefCell<Cluster>> {
    let cluster = Rc::new(RefCell::new(Cluster::default()));
    let (rng, asked) = (Rc::new(Rng(Cell::new(seed))), Rc::default());
    let node = |id| Node {
        id,
        cluster: cluster.clone(),
        rng: rng.clone(),
        nth: Cell::default(),
        view: Cell::default(),
        asked: Rc::clone(&asked),
    };
    let time = Rc::new(Cell::new(Instant::now()));
    let mut gateways = [Gateway::new(node(0), &time), Gateway::new(node(1), &time)];
    let mut sent = [Sent::default(); BLOCKS];
    let mut path = 0;
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..turns {
        time.set(time.get() + TURN);
        let mut silent = None;
        for (block, sent) in sent.iter_mut().enumerate() {
            match &mut sent.waits {
                Some(turns) => {
                    *turns += 1;
                    silent = silent.or((*turns > PATIENCE).then_some(sent.path));
                }
                None if rng.below(4) == 0 => {
                    *sent = Sent { number: sent.number + 1, path, waits: Some(0) };
                    gateways[path].ring.push_back((block, sent.number));
                }
                None => {}
            }
        }
        // Also without a reason, when nothing is on its way.
        let idle = sent.iter().all(|sent| sent.waits.is_none());
        if let Some(silent) = silent {
            path = 1 - silent;
            let given_up = sent.iter_mut().filter(|sent| sent.path == silent);
            given_up.for_each(|sent| sent.waits = None);
        } else if idle && rng.below(20) == 0 {
            path = 1 - path;
        }
        for (id, gateway) in gateways.iter_mut().enumerate() {
            if rng.below(1500) == 0 {
                gateway.stopped = rng.below(1500);
            }
            if gateway.stopped > 0 {
                gateway.stopped -= 1;
                continue;
            }
            for ((block, number), done) in gateway.turn(&mut cx, careful) {
                let sent = &mut sent[block];
                if sent.number != number || sent.waits.is_none() {
                    continue;
                }
                sent.waits = None;
                match done {
                    true => cluster.borrow_mut().acknowledged[block] = number,
                    false if id == path => path = 1 - path,
                    false => {}
                }
            }
        }
        let mut cluster = cluster.borrow_mut();
        let lost = (0..BLOCKS).any(|block| cluster.acknowledged[block] > cluster.blocks[block]);
        cluster.wrong += u32::from(lost);
    }
    cluster
}

fn run<T>(work: impl Future<Output = T>) -> T {
    Engine::new(Backend::Pool).unwrap().block_on(work).unwrap()
}

#[test]
fn nothing_older_is_written_after_another_gateway_has_written() {
    run(async {
        let (mut given, mut broken, mut written) = (0, 0, 0);
        for seed in 0..SEEDS {
            let cluster = world(seed, TURNS, true);
            let cluster = cluster.borrow();
            assert_eq!(cluster.wrong, 0, "seed {seed}");
            given += cluster.given;
            broken += cluster.broken;
            written += cluster.acknowledged.iter().sum::<u32>();
        }
        assert!(given > 100 && broken > 100 && written > 1000, "{given} {broken} {written}");
    });
}

#[test]
fn a_gateway_that_is_not_careful_with_what_had_come_writes_what_is_older() {
    run(async {
        let mut wrong = 0;
        for seed in 0..SEEDS {
            wrong += world(seed, TURNS, false).borrow().wrong;
        }
        assert!(wrong > 0, "the judge sees nothing");
    });
}
