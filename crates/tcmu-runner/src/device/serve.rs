// SPDX-License-Identifier: Apache-2.0
//! The loop of an open device: entries come out of the ring, run as futures on the logical unit,
//! and their outcomes go back, the kernel being told once per batch, by entries or by bytes.
//!
//! Most commands end at their first poll (the page cache has the data); they cost little more than
//! the system calls. The others wait in [`Commands`]. Changes of the device itself (resize, another
//! image, a broken ring) happen here too, one after the other, between commands where they must.
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use block::exclusive::LockView;
use block::{AnyStore, Config, Store};
use io_engine::{Readiness, Receiver, Sleep, TaskSet, sleep_until, timeout};
use lun::Lun;
use tcmu::{Command, Entry, Ring};

use super::commands::{Aborted, Commands, Done, execute, resets_lun};
use super::open::{OpenError, open_lun};
use super::respond::respond;
use super::{Control, DeviceEvent, DeviceSpec, Request, Stop, Token, peers, plugin};
use crate::events::Sender;

/// Entries that are read before the kernel is told of those that are done: enough to spread the
/// cost of that system call, few enough to keep initiator and daemon busy side by side.
const BATCH: usize = 32;

/// The same in bytes of their data. While those of a longer batch are copied here, the initiator
/// would have nothing to do: with writes of 64 KiB at QD 32 both took turns.
const BATCH_BYTES: usize = 64 << 10;

/// The logical unit of a device, which its commands share.
pub(super) type SharedLun = Rc<Lun<AnyStore>>;

/// A change of the device under way. It yields what takes the place of the old image, if something
/// does.
type Change = Pin<Box<dyn Future<Output = io::Result<Option<Successor>>>>>;

/// What a new configuration string makes of a device.
struct Successor {
    lun: SharedLun,
    cmd_time_out: Option<Duration>,
}

/// An open device.
pub(super) struct Server<'a> {
    pub(super) spec: &'a DeviceSpec,
    pub(super) lun: SharedLun,
    pub(super) ring: Ring,
    pub(super) control: Receiver<Control>,
    pub(super) events: &'a Sender,
    /// Commands that have come out of the ring already.
    pub(super) held: Vec<Command>,
}

impl Server<'_> {
    /// Serves until told to stop, or until the device is gone.
    pub(super) async fn run(self) -> Stop {
        match plugin::of(&self.lun).cloned() {
            None => self.run_with(execute).await,
            Some(device) => {
                let host = plugin::Host::new(device);
                self.run_with(move |lun, command, aborted| host.execute(lun, command, aborted))
                    .await
            }
        }
    }

    /// Serves commands that `execute` makes futures of.
    async fn run_with<F: Future<Output = Done>>(
        mut self,
        execute: impl Fn(SharedLun, Command, Aborted) -> F,
    ) -> Stop {
        let held = mem::take(&mut self.held);
        let doorbell = self.ring.as_fd().try_clone_to_owned().and_then(Readiness::new);
        let doorbell = match doorbell {
            Ok(doorbell) => doorbell,
            Err(e) => return Stop::Failed(format!("cannot wait for the kernel: {e}")),
        };
        let mut serving = Serving {
            commands: Commands::new(self.spec.cmd_time_out),
            write_cache: self.lun.write_cache(),
            watch: watch(self.lun.clone()),
            server: self,
            execute,
            doorbell,
            jobs: TaskSet::new(),
            changes: VecDeque::new(),
            change: None,
            broken: false,
            deadline: None,
            passed: 0,
            lock: None,
        };
        for command in held {
            if let Err(e) = serving.take(Entry::Command(command)) {
                return Stop::Failed(e.to_string());
            }
        }
        match poll_fn(|cx| serving.poll(cx)).await {
            End::Drained(until) => serving.close(until).await,
            End::Stuck => {
                let why = format!(
                    "{} commands do not come back from the backstore",
                    serving.commands.len()
                );
                if let Some(device) = plugin::of(&serving.server.lun) {
                    device.abandon();
                }
                // Their memory is the kernel's until they do: it stays until the process ends.
                mem::forget(serving);
                Stop::Unclean(why)
            }
            End::Failed(why) => Stop::Failed(why),
        }
    }
}

/// Why the loop ended.
enum End {
    /// It was told to, and no command is under way; the backstore is to be closed until then.
    Drained(Instant),
    /// It was told to, and the time to end commands is over.
    Stuck,
    /// The device cannot be served any more.
    Failed(String),
}

/// A device being served. `F` is the future of a command, `E` makes one.
struct Serving<'a, F: Future<Output = Done>, E> {
    server: Server<'a>,
    execute: E,
    doorbell: Readiness<OwnedFd>,
    commands: Commands<F>,
    /// As the manager knows it; an initiator may change it (MODE SELECT).
    write_cache: bool,
    /// What other devices' copies want of this one.
    jobs: TaskSet<Pin<Box<dyn Future<Output = ()>>>>,
    /// Tells initiators and the log of what happens to the store by itself, and gives access to it away
    /// where another host asks. It never ends.
    watch: Pin<Box<dyn Future<Output = ()>>>,
    changes: VecDeque<(Request, Token)>,
    change: Option<(Token, Change)>,
    /// The ring cannot be read until it has been reset.
    broken: bool,
    /// Set when told to stop.
    deadline: Option<(Instant, Pin<Box<Sleep>>)>,
    /// Commands that came and that went, to see whether there were any.
    passed: usize,
    /// Who has the exclusive lock, as last shown.
    lock: Option<LockView>,
}

impl<F, E> Serving<'_, F, E>
where
    F: Future<Output = Done>,
    E: Fn(SharedLun, Command, Aborted) -> F,
{
    /// One turn of the loop: everything that can be done now.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.take_control(cx);
        while self.jobs.poll_next(cx).is_ready() {}
        let _: Poll<()> = self.watch.as_mut().poll(cx);
        self.advance_changes(cx);
        let passed = self.passed;
        match self.serve_commands(cx) {
            Ok(()) => self.look_for_drain(self.passed != passed, cx),
            Err(tcmu::Error::Broken(why)) => {
                tracing::error!("{}: the ring is broken: {why}", self.server.spec.name);
                self.broken = true;
            }
            Err(e) => return Poll::Ready(End::Failed(e.to_string())),
        }
        self.show();
        let write_cache = self.server.lun.write_cache();
        // While the administrator changes it, it is not what it is going to be.
        if self.change.is_none() && mem::replace(&mut self.write_cache, write_cache) != write_cache
        {
            let device = self.server.spec.key;
            self.server.events.send(DeviceEvent::WriteCacheSet { device, on: write_cache });
        }
        if self.broken
            && self.commands.is_empty()
            && let Err(e) = self.repair_ring(cx)
        {
            return Poll::Ready(End::Failed(format!(
                "the ring is broken and cannot be reset: {e}"
            )));
        }
        for overdue in self.commands.poll_overdue(cx) {
            let device = self.server.spec.key;
            let (command, opcode, after) = (overdue.id, overdue.opcode, overdue.after);
            if let Some(device) = plugin::of(&self.server.lun) {
                device.time_out(command);
            }
            self.server.events.send(DeviceEvent::CommandTimedOut {
                device,
                command,
                opcode,
                after,
            });
        }
        let Some((until, timer)) = &mut self.deadline else { return Poll::Pending };
        if self.commands.is_empty() && self.jobs.is_empty() && self.change.is_none() {
            return Poll::Ready(End::Drained(*until));
        }
        timer.as_mut().poll(cx).map(|()| End::Stuck)
    }

    /// Shows how the device does.
    fn show(&mut self) {
        let shown = &self.server.spec.shown;
        shown.set_under_way(self.commands.len());
        let lock = self.server.lun.store().lock().map(|lock| lock.view());
        if lock != self.lock {
            self.lock = lock;
            shown.set_lock(lock);
        }
    }

    fn take_control(&mut self, cx: &mut Context<'_>) {
        // A handle that is dropped lets the device run: nothing more will come, that is all.
        while let Poll::Ready(Some(message)) = self.server.control.poll_recv(cx) {
            match message {
                Control::Request(request, token) => self.changes.push_back((request, token)),
                Control::Job(job) => {
                    let job = peers::serve(self.server.lun.clone(), job);
                    let _ = self.jobs.push(Box::pin(job));
                }
                Control::Retry => {}
                Control::Stop(within) => {
                    let until = Instant::now() + within.min(Duration::from_secs(3600));
                    self.deadline = Some((until, Box::pin(sleep_until(until))));
                }
            }
        }
    }

    /// Completes what has ended and starts what has come, until there is nothing of either.
    fn serve_commands(&mut self, cx: &mut Context<'_>) -> Result<(), tcmu::Error> {
        loop {
            while let Poll::Ready(done) = self.commands.poll_done(cx) {
                self.complete(&done)?;
            }
            // Before the ring is looked at, so that what comes in between is not missed.
            while let Poll::Ready(rung) = self.doorbell.poll_ready(cx) {
                rung.map_err(|source| tcmu::Error::Channel {
                    action: "wait for the kernel",
                    source,
                })?;
            }
            let (mut entries, mut bytes) = (BATCH, BATCH_BYTES);
            while entries > 0 && bytes > 0 && self.takes_commands() {
                let Some(entry) = self.server.ring.next()? else { break };
                entries -= 1;
                if let Entry::Command(command) = &entry {
                    bytes = bytes.saturating_sub(command.data().len());
                }
                self.take(entry)?;
            }
            self.server.ring.kick()?;
            if entries > 0 && bytes > 0 {
                return Ok(());
            }
        }
    }

    /// Tells the logical unit, where it wants to know, that all commands that had come are answered. The
    /// kernel may have some that find room in the ring when others leave it (`busy`).
    fn look_for_drain(&self, busy: bool, cx: &mut Context<'_>) {
        let lun = &self.server.lun;
        if !lun.awaits_drain() {
            return;
        }
        if busy {
            cx.waker().wake_by_ref();
        } else if self.takes_commands() && self.commands.is_empty() {
            lun.drained();
        }
    }

    fn takes_commands(&self) -> bool {
        let alone = matches!(self.changes.front(), Some((Request::Reconfigure(_), _)));
        !self.broken && !alone && self.change.is_none() && self.deadline.is_none()
    }

    fn take(&mut self, entry: Entry) -> Result<(), tcmu::Error> {
        match entry {
            Entry::Command(command) => {
                self.passed = self.passed.wrapping_add(1);
                let lun = self.server.lun.clone();
                let execute = &self.execute;
                let done =
                    self.commands.start(command, |command, aborted| execute(lun, command, aborted));
                if let Some(done) = done {
                    self.complete(&done)?;
                }
            }
            Entry::Tmr(tmr) => {
                let aborted = self.commands.abort(&tmr);
                tracing::warn!(
                    "{}: {:?} of {} commands; {aborted} of them are here and will be dropped",
                    self.server.spec.name,
                    tmr.kind,
                    tmr.ids.len(),
                );
                if resets_lun(tmr.kind) {
                    self.server.lun.reset();
                }
            }
        }
        Ok(())
    }

    /// Hands the kernel the outcome of a command.
    #[inline]
    fn complete(&mut self, done: &Done) -> Result<(), tcmu::Error> {
        self.passed = self.passed.wrapping_add(1);
        self.server.spec.shown.count(done.ending.has_failed());
        respond(&mut self.server.ring, done)
    }

    /// Starts the changes that can start, one at a time, and answers those that are done.
    fn advance_changes(&mut self, cx: &mut Context<'_>) {
        loop {
            if let Some((token, change)) = &mut self.change {
                let token = *token;
                let Poll::Ready(result) = change.as_mut().poll(cx) else { return };
                self.change = None;
                let result = result.map(|successor| {
                    if let Some(Successor { lun, cmd_time_out }) = successor {
                        self.watch = watch(lun.clone());
                        self.server.lun = lun;
                        self.commands.set_deadline(cmd_time_out);
                    }
                });
                let device = self.server.spec.key;
                self.server.events.send(DeviceEvent::Reply { device, token, result });
            }
            let Some((request, _)) = self.changes.front() else { return };
            let alone = matches!(request, Request::Reconfigure(_));
            if alone && !(self.commands.is_empty() && self.jobs.is_empty()) {
                return;
            }
            let Some((request, token)) = self.changes.pop_front() else { return };
            if let Request::SetWriteCache(on) = request {
                self.write_cache = on;
            }
            self.change = Some((token, change(&self.server, request)));
        }
    }

    /// Resets a ring that cannot be read, when no command is under way any more.
    fn repair_ring(&mut self, cx: &mut Context<'_>) -> Result<(), tcmu::Error> {
        self.server.ring.reset(&self.server.spec.configfs)?;
        self.broken = false;
        tracing::warn!("{}: the ring has been reset", self.server.spec.name);
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Flushes and closes the backstore, all commands being done.
    async fn close(self, until: Instant) -> Stop {
        let lun = self.server.lun;
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
        let mut closing = Box::pin(close(lun));
        match timeout(left, closing.as_mut()).await {
            Ok(Ok(())) => Stop::Asked,
            Ok(Err(e)) => Stop::Unclean(e.to_string()),
            Err(_) => {
                // Dropping it would wait for the backstore.
                mem::forget(closing);
                Stop::Unclean(format!(
                    "the backstore did not close within {:.1} s",
                    left.as_secs_f64()
                ))
            }
        }
    }
}

fn watch(lun: SharedLun) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        let mut events = pin!(async {
            loop {
                lun.watch().await;
            }
        });
        let mut giving = pin!(lun.give_way());
        poll_fn(|cx| {
            let _: Poll<()> = events.as_mut().poll(cx);
            giving.as_mut().poll(cx)
        })
        .await;
    })
}

/// Flushes and closes a store.
pub(super) async fn close(lun: SharedLun) -> Result<(), lun::Error> {
    lun.flush().await?;
    Ok(lun.store().close().await?)
}

/// The future of a change of the device.
fn change(server: &Server<'_>, request: Request) -> Change {
    let lun = server.lun.clone();
    let name = server.spec.name.clone();
    let failed = move |e: OpenError| e.log(&name);
    match request {
        Request::Resize(size) => Box::pin(async move {
            lun.resize(size).await.map_err(|e| failed(e.into()))?;
            Ok(None)
        }),
        Request::SetWriteCache(on) => Box::pin(async move {
            if let Some(device) = plugin::of(&lun) {
                device.set_write_cache(on).await?;
            }
            lun.set_write_cache(on);
            if !on {
                lun.flush().await.map_err(|e| failed(e.into()))?;
            }
            Ok(None)
        }),
        Request::Reconfigure(config) if plugin::of(&lun).is_some() => Box::pin(async move {
            let Some(device) = plugin::of(&lun) else { return Ok(None) };
            let cmd_time_out = plugin::reconfigure(device, &config).await?;
            Ok(Some(Successor { lun: lun.clone(), cmd_time_out }))
        }),
        Request::Reconfigure(config) => {
            let size = lun.blocks() * u64::from(lun.block_size());
            let write_cache = lun.write_cache();
            let spec = DeviceSpec { size, write_cache, ..server.spec.clone() };
            Box::pin(async move {
                let new = succeed(&lun, &spec, &config).await.map_err(failed)?;
                let cmd_time_out = Config::parse(&config).ok().and_then(|c| c.command_timeout);
                Ok(Some(Successor { lun: Rc::new(new), cmd_time_out }))
            })
        }
    }
}

/// Opens the image that `config` names in the place of that of `lun`, which stays as it is, with
/// its locks, until it is dropped.
async fn succeed(
    lun: &SharedLun,
    spec: &DeviceSpec,
    config: &str,
) -> Result<Lun<AnyStore>, OpenError> {
    let held = lun.store().held();
    // Both may be the same file, or one the other's backing file: so everything that the old one
    // has in memory is in its files before the new one reads them.
    let closed = close(lun.clone()).await;
    let new = open_lun(spec, config, Some(held.clone())).await?;
    if let Err(e) = closed {
        // What could not be written would be missing in the new image, too, and nobody be told.
        if new.store().held().overlaps(&held) {
            return Err(e.into());
        }
        tracing::error!("{}: closing the former image: {e}", spec.name);
    }
    Ok(new)
}
