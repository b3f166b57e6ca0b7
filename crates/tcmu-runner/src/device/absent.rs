// SPDX-License-Identifier: Apache-2.0
//! A device whose image cannot be opened, while nobody waits for it in `enable`: it was there
//! before the daemon, and the image's file system may be mounted later. The image is tried again
//! with growing pauses, when something changes in its directory, and when the manager says so;
//! until then its commands wait, but not for so long that their initiator aborts them.
//!
//! In: the ring, and what the manager asks. Out: an open device with the commands that still wait.
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use block::AnyStore;
use io_engine::{Readiness, Receiver, Sleep, Started, TaskSet, sleep_until};
use lun::{Lun, Outcome};
use scsi::sense::{Sense, Status};
use tcmu::{Command, Entry, Ring, Tmr};
use tcmu_conf::Watch;

use super::commands::{Aborted, Done, Ending, execute, resets_lun};
use super::open::{OpenError, open_lun};
use super::respond::respond;
use super::serve::{Server, SharedLun, close};
use super::{Control, DeviceEvent, DeviceSpec, Request, Stop, Token};
use crate::events::Sender;

/// Between two tries: at first, and at most.
const PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// The least between two tries, however much happens in the image's directory.
const MIN_PAUSE: Duration = Duration::from_millis(500);

/// TEST UNIT READY and START STOP UNIT: they ask whether the medium is there, and need not wait.
const ASK_READINESS: [u8; 2] = [0x00, 0x1b];
const INQUIRY: u8 = 0x12;
/// REPORT TARGET PORT GROUPS and its like.
const MAINTENANCE_IN: u8 = 0xa3;
/// The first VPD page whose content depends on the image.
const VPD_BLOCK_LIMITS: u8 = 0xb0;

const NOT_READY: Outcome =
    Outcome { status: Status::CheckCondition, sense: Some(Sense::LUN_BECOMING_READY), read_len: 0 };
const BUSY: Outcome = Outcome { status: Status::Busy, sense: None, read_len: 0 };

/// How opening ended.
pub(super) enum Opening<'a> {
    /// With an open device.
    Open(Box<Server<'a>>),
    /// It was told to stop, or the ring failed.
    Stopped(Stop),
}

type Attempt<'a> = Pin<Box<dyn Future<Output = Result<Lun<AnyStore>, OpenError>> + 'a>>;

/// Waits for the image, after opening it has failed because of `why`. Commands wait for `hold`.
pub(super) async fn wait<'a>(
    spec: &'a DeviceSpec,
    why: OpenError,
    hold: Duration,
    ring: Ring,
    control: Receiver<Control>,
    events: &'a Sender,
) -> Opening<'a> {
    let doorbell = ring.as_fd().try_clone_to_owned().and_then(Readiness::new);
    let doorbell = match doorbell {
        Ok(doorbell) => doorbell,
        Err(e) => {
            return Opening::Stopped(Stop::Failed(format!("cannot wait for the kernel: {e}")));
        }
    };
    let now = Instant::now();
    let mut absent = Absent {
        spec,
        hold,
        ring,
        doorbell,
        control,
        events,
        stand_in: stand_in(spec).await,
        under_way: TaskSet::new(),
        held: VecDeque::new(),
        told: false,
        opened: None,
        reason: String::new(),
        asked: None,
        attempt: None,
        pause: PAUSE,
        last_try: now,
        next_try: now + PAUSE,
        arrival: arrival(&spec.config),
        timer: Box::pin(sleep_until(now)),
        deadline: None,
    };
    absent.failed(why, None);
    let end = poll_fn(|cx| absent.poll(cx)).await;
    match end {
        End::Open(lun) => {
            if absent.told {
                lun.raise_unit_attention(Sense::NOT_READY_TO_READY_CHANGE);
            }
            let held = absent.held.into_iter().map(|(command, _)| command).collect();
            let Absent { ring, control, .. } = absent;
            let lun = Rc::new(lun);
            Opening::Open(Box::new(Server { spec, lun, ring, control, events, held }))
        }
        End::Late(lun) => Opening::Stopped(match close(Rc::new(lun)).await {
            Ok(()) => Stop::Asked,
            Err(e) => Stop::Unclean(e.to_string()),
        }),
        End::Stopped => Opening::Stopped(Stop::Asked),
        End::Stuck => {
            // Dropping it would wait for the storage.
            mem::forget(absent);
            Opening::Stopped(Stop::Unclean("its image neither opens nor fails to".into()))
        }
        End::Failed(why) => Opening::Stopped(Stop::Failed(why)),
    }
}

/// Tells who the logical unit is; none of its blocks is ever asked for. What a handler answers
/// by itself, nobody else knows.
async fn stand_in(spec: &DeviceSpec) -> Option<SharedLun> {
    if spec.plugin.as_ref().is_some_and(|handler| handler.handles_commands()) {
        return None;
    }
    let spec = DeviceSpec { plugin: None, ..spec.clone() };
    open_lun(&spec, "null/", None).await.ok().map(Rc::new)
}

enum End {
    /// The image is open.
    Open(Lun<AnyStore>),
    /// It is, but the device was told to stop meanwhile.
    Late(Lun<AnyStore>),
    /// The device was told to stop.
    Stopped,
    /// It was told to stop, and the time for that is over.
    Stuck,
    /// The ring failed.
    Failed(String),
}

struct Absent<'a> {
    spec: &'a DeviceSpec,
    hold: Duration,
    ring: Ring,
    doorbell: Readiness<OwnedFd>,
    control: Receiver<Control>,
    events: &'a Sender,
    stand_in: Option<SharedLun>,
    /// Commands on the stand-in.
    under_way: TaskSet<Pin<Box<dyn Future<Output = Done>>>>,
    /// Commands that wait, the oldest first, and until when.
    held: VecDeque<(Command, Instant)>,
    /// Whether an initiator was told that the logical unit is not ready.
    told: bool,
    /// The image, once it is open.
    opened: Option<Lun<AnyStore>>,
    /// Why opening failed last.
    reason: String,
    /// A configuration string that was asked for, to be tried next.
    asked: Option<(String, Token)>,
    /// The try under way, and what is answered with its result.
    attempt: Option<(Option<Token>, Attempt<'a>)>,
    pause: Duration,
    last_try: Instant,
    next_try: Instant,
    /// `None` where it cannot be watched: the pauses have to do.
    arrival: Option<Readiness<Watch>>,
    timer: Pin<Box<Sleep>>,
    /// Set when told to stop.
    deadline: Option<Instant>,
}

/// A watch on the directory that the image is to appear in, or the nearest one that exists.
fn arrival(config: &str) -> Option<Readiness<Watch>> {
    let config = block::Config::parse(config).ok()?;
    let image = config.bottom();
    let nearest = image.ancestors().find(|path| path.parent().is_some_and(Path::is_dir))?;
    Watch::new(nearest).and_then(Readiness::new).ok()
}

impl Absent<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            self.take_control(cx);
            while let Some(Poll::Ready(event)) = self.arrival.as_ref().map(|a| a.poll_ready(cx)) {
                match event {
                    Ok(_) => self.notice_arrival(),
                    Err(_) => self.arrival = None,
                }
            }
            self.advance(cx);
            if let Err(e) = self.serve_commands(cx) {
                return Poll::Ready(End::Failed(e.to_string()));
            }
            if let Some(end) = self.end() {
                return Poll::Ready(end);
            }
            let next_try = self.next_try;
            let tries = self.attempt.is_none() && self.deadline.is_none() && self.opened.is_none();
            let next_try = tries.then_some(next_try);
            let expiry = self.held.front().map(|&(_, until)| until);
            let Some(due) = [next_try, expiry, self.deadline].into_iter().flatten().min() else {
                return Poll::Pending;
            };
            self.timer.set(sleep_until(due));
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn take_control(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(message)) = self.control.poll_recv(cx) {
            match message {
                Control::Request(Request::Reconfigure(config), token) => {
                    self.asked = Some((config, token));
                }
                Control::Request(_, token) => {
                    self.reply(token, Err(io::Error::from_raw_os_error(libc::ENODEV)));
                }
                // Whoever asks sees that nobody answers.
                Control::Job(_) => {}
                Control::Retry => self.hurry(),
                Control::Stop(within) => {
                    let within = within.min(Duration::from_secs(3600));
                    self.deadline = Some(Instant::now() + within);
                }
            }
        }
    }

    fn reply(&self, token: Token, result: io::Result<()>) {
        self.events.send(DeviceEvent::Reply { device: self.spec.key, token, result });
    }

    fn notice_arrival(&mut self) {
        if self.arrival.as_ref().is_some_and(|arrival| arrival.get_ref().drain()) {
            self.hurry();
        }
    }

    /// Tries again soon.
    fn hurry(&mut self) {
        self.next_try = self.next_try.min(self.last_try + MIN_PAUSE);
        self.pause = PAUSE;
    }

    /// Tries what is to be tried.
    fn advance(&mut self, cx: &mut Context<'_>) {
        while self.opened.is_none() {
            if let Some((token, attempt)) = &mut self.attempt {
                let token = *token;
                let Poll::Ready(result) = attempt.as_mut().poll(cx) else { return };
                self.attempt = None;
                match result {
                    Ok(lun) => {
                        if let Some(token) = token {
                            self.reply(token, Ok(()));
                        }
                        self.opened = Some(lun);
                        return;
                    }
                    Err(error) => self.failed(error, token),
                }
            }
            let now = Instant::now();
            if self.deadline.is_some() {
                return;
            }
            let (config, token) = match self.asked.take() {
                Some((config, token)) => (config, Some(token)),
                None if self.next_try <= now => (self.spec.config.clone(), None),
                None => return,
            };
            if token.is_none() {
                // Before the try: what appears after it is noticed.
                self.arrival = arrival(&config);
            }
            self.last_try = now;
            let spec = self.spec;
            self.attempt =
                Some((token, Box::pin(async move { open_lun(spec, &config, None).await })));
        }
    }

    /// How the wait ends, if it does: when the image is open or the device was told to stop, and
    /// nothing is under way any more.
    fn end(&mut self) -> Option<End> {
        if let Some(deadline) = self.deadline {
            return if self.attempt.is_none() && self.under_way.is_empty() {
                match self.answer_all(&BUSY) {
                    Ok(()) => Some(self.opened.take().map_or(End::Stopped, End::Late)),
                    Err(e) => Some(End::Failed(e.to_string())),
                }
            } else {
                (deadline <= Instant::now()).then_some(End::Stuck)
            };
        }
        if !self.under_way.is_empty() {
            return None;
        }
        self.opened.take().map(End::Open)
    }

    /// A try has failed.
    fn failed(&mut self, error: OpenError, token: Option<Token>) {
        if let Some(token) = token {
            return self.reply(token, Err(error.log(&self.spec.name)));
        }
        self.next_try = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        if error.reason != self.reason {
            self.reason.clone_from(&error.reason);
            let OpenError { errno, reason } = error;
            let (device, hold) = (self.spec.key, self.hold);
            self.events.send(DeviceEvent::Absent { device, errno, reason, hold });
        }
    }

    /// Takes commands from the ring, and answers those that have waited for long enough.
    fn serve_commands(&mut self, cx: &mut Context<'_>) -> Result<(), tcmu::Error> {
        while let Poll::Ready((_, done)) = self.under_way.poll_next(cx) {
            respond(&mut self.ring, &done)?;
        }
        // Before the ring is looked at, so that what comes in between is not missed.
        while let Poll::Ready(rung) = self.doorbell.poll_ready(cx) {
            rung.map_err(|source| tcmu::Error::Channel { action: "wait for the kernel", source })?;
        }
        loop {
            match self.ring.next() {
                Ok(Some(Entry::Command(command))) => self.take(command)?,
                Ok(Some(Entry::Tmr(tmr))) => self.abort(&tmr)?,
                Ok(None) => break,
                Err(tcmu::Error::Broken(why)) => {
                    tracing::error!("{}: the ring is broken: {why}", self.spec.name);
                    self.answer_all(&BUSY)?;
                    if self.under_way.is_empty() {
                        self.ring.reset(&self.spec.configfs)?;
                        cx.waker().wake_by_ref();
                    }
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let now = Instant::now();
        while self.held.front().is_some_and(|&(_, until)| until <= now) {
            let Some((command, _)) = self.held.pop_front() else { break };
            self.answer(command, NOT_READY)?;
        }
        self.ring.kick()
    }

    fn take(&mut self, command: Command) -> Result<(), tcmu::Error> {
        let cdb = command.cdb();
        let opcode = cdb.first().copied().unwrap_or_default();
        if ASK_READINESS.contains(&opcode) {
            return self.answer(command, NOT_READY);
        }
        let of_image = opcode == INQUIRY
            && matches!(cdb, [_, flags, page, ..] if flags & 1 == 1 && *page >= VPD_BLOCK_LIMITS);
        if let Some(stand_in) = &self.stand_in
            && [INQUIRY, MAINTENANCE_IN].contains(&opcode)
            && !of_image
        {
            let run = execute(stand_in.clone(), command, Aborted::default());
            return match self.under_way.push(Box::pin(run)) {
                Started::Done(done) => respond(&mut self.ring, &done),
                Started::Running(_) => Ok(()),
            };
        }
        self.held.push_back((command, Instant::now() + self.hold));
        Ok(())
    }

    fn answer(&mut self, command: Command, outcome: Outcome) -> Result<(), tcmu::Error> {
        self.told |= outcome == NOT_READY;
        respond(&mut self.ring, &Done { command, ending: Ending::Outcome(outcome) })
    }

    fn answer_all(&mut self, outcome: &Outcome) -> Result<(), tcmu::Error> {
        for (command, _) in mem::take(&mut self.held) {
            self.answer(command, *outcome)?;
        }
        self.ring.kick()
    }

    /// Drops the commands that an initiator has aborted.
    fn abort(&mut self, tmr: &Tmr) -> Result<(), tcmu::Error> {
        let aborts = |command: &Command| tmr.ids.contains(&command.id()) || resets_lun(tmr.kind);
        let (aborted, kept) = mem::take(&mut self.held).into_iter().partition(|(c, _)| aborts(c));
        self.held = kept;
        let aborted: VecDeque<(Command, Instant)> = aborted;
        for (command, _) in aborted {
            respond(&mut self.ring, &Done { command, ending: Ending::Aborted })?;
        }
        Ok(())
    }
}
