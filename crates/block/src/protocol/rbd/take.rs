// SPDX-License-Identifier: Apache-2.0
//! How a lock is taken from whoever has it: by asking, and where that does not help, by breaking it.
use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// For so long an owner may take to give a lock that it is asked for.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// For so long an owner that has answered may keep it: it may have got it while it was asked.
const GRACE: Duration = Duration::from_secs(1);
/// Between two attempts meanwhile.
const PAUSE: Duration = Duration::from_millis(50);
/// After so long it is given up: others were faster each time.
const LIMIT: Duration = Duration::from_secs(30);

/// Where a lock is taken. All of it blocks.
pub(super) trait Place: Clone + Send + 'static {
    /// Who has it.
    fn owner(&self) -> io::Result<Option<String>>;
    /// Whether that is who asks.
    fn is_ours(&self) -> io::Result<bool>;
    /// Asks who has it; false: somebody who could be that has not answered within [`PATIENCE`].
    fn ask(&self, owner: &str) -> bool;
    /// Takes it if it is free. Where an owner lives that gives it to anybody, that is asked. EROFS:
    /// somebody has it and keeps it.
    fn take(&self) -> io::Result<()>;
    /// Shuts out an owner, if it is still the owner, and breaks its lock.
    fn break_lock(&self, owner: &str) -> io::Result<()>;
    /// Tells others which group it was taken for.
    fn tell(&self, owner: &str, group: u16) -> io::Result<()>;
}

/// How an attempt has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Taken,
    /// Somebody has it and keeps it.
    Kept,
    /// Nobody answers.
    Waits,
}

/// Takes it, for a group; the owner that it then has.
///
/// # Errors
/// EBUSY: others were faster each time. Of the cluster.
pub(super) fn take(place: &impl Place, group: u16) -> io::Result<String> {
    let begun = Instant::now();
    // Who keeps it, and since when that is known.
    let mut keeps: Option<(String, Instant)> = None;
    while begun.elapsed() < LIMIT {
        let Some(owner) = place.owner()? else {
            attempt(place)?;
            continue;
        };
        if place.is_ours()? {
            place.tell(&owner, group)?;
            return Ok(owner);
        }
        let answered = place.ask(&owner);
        if answered {
            match attempt(place)? {
                Attempt::Taken => continue,
                Attempt::Kept => {
                    let known = keeps.take().filter(|(who, _)| *who == owner);
                    let (who, since) = known.unwrap_or_else(|| (owner.clone(), Instant::now()));
                    keeps = Some((who, since));
                    if since.elapsed() < GRACE {
                        thread::sleep(PAUSE);
                        continue;
                    }
                }
                Attempt::Waits => {}
            }
        }
        match place.break_lock(&owner) {
            // It is another's by now, or nobody's.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EBUSY | libc::ENOENT)) => {}
            other => other?,
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

/// Tries to take it.
fn attempt(place: &impl Place) -> io::Result<Attempt> {
    let (sender, result) = mpsc::channel();
    let theirs = place.clone();
    // It may wait for an owner that has died, until that is shut out.
    thread::Builder::new().name("lock".into()).spawn(move || sender.send(theirs.take()))?;
    match result.recv_timeout(PATIENCE) {
        Ok(Ok(())) => Ok(Attempt::Taken),
        Ok(Err(e)) if e.raw_os_error() == Some(libc::EROFS) => Ok(Attempt::Kept),
        Ok(Err(e)) => Err(e),
        Err(_) => Ok(Attempt::Waits),
    }
}

#[cfg(test)]
mod tests;
