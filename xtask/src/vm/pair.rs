// SPDX-License-Identifier: Apache-2.0
//! A second VM beside one, both of User-Mode Linux, and the Ethernet between them: a pair of sockets,
//! so that nothing of the host's network takes part. The second one's control directory is in that of
//! the first, whose script tells it what to do (`guest/peer`). It ends with the first.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;

use anyhow::Result;

use super::machine::Machine;
use super::options::Options;
use super::{Guest, control};

const SCRIPT: &str = include_str!("guest/peer");
/// In the control directory: the second VM's.
const PEER: &str = "peer";

/// The second VM.
pub(super) struct Pair {
    /// It runs until this is dropped.
    _guest: Guest,
    /// The first VM's end of the Ethernet, until it is taken.
    card: Option<OwnedFd>,
}

impl Pair {
    /// Starts the second VM of one whose control directory is `dir`.
    pub(super) fn start(options: &Options, machine: &Machine, dir: &Path) -> Result<Pair> {
        let dir = dir.join(PEER);
        std::fs::create_dir_all(&dir)?;
        let script = dir.join("peer.sh");
        std::fs::write(&script, SCRIPT)?;
        let own =
            Options { script: vec![script.to_string_lossy().into_owned()], ..options.clone() };
        control::write(&dir, &own)?;
        let (ours, theirs) = UnixDatagram::pair()?;
        let theirs = Stdio::from(OwnedFd::from(theirs));
        let guest = Guest::start(&own, machine, &dir, theirs)?;
        Ok(Pair { _guest: guest, card: Some(ours.into()) })
    }

    /// What the first VM has for a network card.
    pub(super) fn card(&mut self) -> Stdio {
        self.card.take().map_or_else(Stdio::piped, Stdio::from)
    }
}
