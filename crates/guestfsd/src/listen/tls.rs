// SPDX-License-Identifier: Apache-2.0
//! TLS of a session, in a process of its own: the only one that knows the private key, and one that no other
//! client waits for.
//!
//! The process lets the client prove who it is, says so to the listener, starts the session with one end of a
//! socket pair, and moves bytes between that and the client until either hangs up. Sessions without TLS have no
//! such process: they read the client's socket.

use guest_error::{Context, Errno, Error, Result};
use guestfs_tls::rustls::{self, CertificateError, ServerConfig, ServerConnection};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A client has so long to say who it is, and to take the last bytes of a session that has ended.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes moved at once: four of TLS's records.
const PIECE: usize = 64 << 10;

/// A client that has proven who it is.
pub(super) struct Proven {
    connection: ServerConnection,
    client: TcpStream,
}

/// Lets a client prove who it is.
pub(super) fn accept(config: Arc<ServerConfig>, client: TcpStream) -> Result<Proven> {
    let peer = client.peer_addr().map_or_else(|_| "a client".to_owned(), |a| a.to_string());
    client.set_nonblocking(true).on(&peer)?;
    let refuse = |why: String| Error::new(Errno::EACCES, why).within(&peer);
    let mut connection = ServerConnection::new(config).map_err(|e| refuse(format!("TLS: {e}")))?;
    let deadline = Instant::now() + PATIENCE;
    // What is to be sent at the end of the handshake belongs to it.
    while connection.is_handshaking() || connection.wants_write() {
        let (read, write) = (connection.wants_read(), connection.wants_write());
        let interest = [(read, PollFlags::IN), (write, PollFlags::OUT)];
        let interest = interest.into_iter().filter(|(wanted, _)| *wanted).map(|(_, flag)| flag);
        let mut fds = [PollFd::new(&client, interest.collect())];
        if !wait(&mut fds, Some(deadline)).on(&peer)? {
            return Err(refuse(format!(
                "turned away: no TLS handshake within {} s",
                PATIENCE.as_secs()
            )));
        }
        let ready = fds[0].revents();
        if write && ready.contains(PollFlags::OUT) {
            done(connection.write_tls(&mut &client)).on(&peer)?;
        }
        if read && ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            match done(connection.read_tls(&mut &client)).on(&peer)? {
                Some(0) => return Err(refuse("hung up during the TLS handshake".to_owned())),
                _ => connection.process_new_packets().map(drop).map_err(|e| {
                    // The reason, for the client.
                    connection.write_tls(&mut &client).ok();
                    refuse(format!("turned away: {}", reason(&e)))
                })?,
            }
        }
    }
    connection.set_buffer_limit(None);
    Ok(Proven { connection, client })
}

/// What was wrong with a client, for those who look after the daemon.
fn reason(error: &rustls::Error) -> String {
    use rustls::Error::{InvalidCertificate, InvalidMessage, NoCertificatesPresented};
    match error {
        InvalidMessage(_) => "it does not speak TLS".to_owned(),
        NoCertificatesPresented => "it has shown no certificate".to_owned(),
        InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
            "its certificate has none of the names of --tls-client".to_owned()
        }
        InvalidCertificate(CertificateError::Revoked) => "its certificate was revoked".to_owned(),
        InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "its certificate is not one of the authority's".to_owned()
        }
        InvalidCertificate(why) => format!("its certificate: {why}"),
        other => format!("TLS: {other}"),
    }
}

/// What a system call that does not wait has done; none where it would have had to.
fn done(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Waits for any of these until the deadline; false when it has passed.
fn wait(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<bool> {
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        let timeout = left.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        match poll(fds, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

impl Proven {
    /// Moves bytes between the client and the session until either hangs up.
    pub(super) fn pump(mut self, session: &UnixStream) -> io::Result<()> {
        session.set_nonblocking(true)?;
        let mut piece = vec![0; PIECE];
        // For the session, of which so much it has taken.
        let (mut inbound, mut taken) = (Vec::new(), 0);
        let (mut client_ended, mut session_ended, mut deadline) = (false, false, None);
        // The client may have sent more than the handshake.
        self.take_plaintext(&mut inbound)?;
        loop {
            if taken < inbound.len() {
                match done((&*session).write(&inbound[taken..])) {
                    Ok(n) => taken += n.unwrap_or(0),
                    // What the session has to say is still in the socket.
                    Err(e) if e.kind() == ErrorKind::BrokenPipe => taken = inbound.len(),
                    Err(e) => return Err(e),
                }
            }
            if taken == inbound.len() && taken > 0 {
                (inbound, taken) = (Vec::new(), 0);
                if client_ended {
                    session.shutdown(Shutdown::Write).ok();
                }
            }
            if self.connection.wants_write() {
                done(self.connection.write_tls(&mut &self.client))?;
            }
            if session_ended && !self.connection.wants_write() {
                self.client.shutdown(Shutdown::Write).ok();
                return Ok(());
            }
            let flags = |wanted: [(bool, PollFlags); 2]| {
                wanted.into_iter().filter(|(is, _)| *is).map(|(_, flag)| flag).collect()
            };
            let from_client = inbound.is_empty() && !client_ended;
            let to_client = self.connection.wants_write();
            let from_session = !to_client && !session_ended;
            let to_session = !inbound.is_empty();
            let mut fds = Vec::with_capacity(2);
            // A descriptor that nothing is wanted of would still say that its other end is gone, again and again.
            let client_is_wanted = from_client || to_client;
            if client_is_wanted {
                let flags = flags([(from_client, PollFlags::IN), (to_client, PollFlags::OUT)]);
                fds.push(PollFd::from_borrowed_fd(self.client.as_fd(), flags));
            }
            if from_session || to_session {
                let flags = flags([(from_session, PollFlags::IN), (to_session, PollFlags::OUT)]);
                fds.push(PollFd::from_borrowed_fd(session.as_fd(), flags));
            }
            if !wait(&mut fds, deadline)? {
                return Err(ErrorKind::TimedOut.into());
            }
            let ended = PollFlags::HUP | PollFlags::ERR;
            let client_has = client_is_wanted && fds[0].revents().intersects(PollFlags::IN | ended);
            let session_has = fds
                .get(usize::from(client_is_wanted))
                .is_some_and(|fd| fd.revents().intersects(PollFlags::IN | ended));
            if from_client && client_has {
                client_ended = self.receive(&mut piece, &mut inbound)?;
                if client_ended && inbound.is_empty() {
                    session.shutdown(Shutdown::Write).ok();
                }
            }
            if from_session && session_has {
                match done((&*session).read(&mut piece))? {
                    Some(0) => {
                        session_ended = true;
                        deadline = Some(Instant::now() + PATIENCE);
                        self.connection.send_close_notify();
                    }
                    Some(n) => self.connection.writer().write_all(&piece[..n])?,
                    None => {}
                }
            }
        }
    }

    /// Takes what the client has sent; true at its end.
    fn receive(&mut self, piece: &mut [u8], inbound: &mut Vec<u8>) -> io::Result<bool> {
        let Some(n) = done(self.client.read(piece))? else { return Ok(false) };
        let mut wire = &piece[..n];
        while !wire.is_empty() {
            self.connection.read_tls(&mut wire)?;
            let state = self.connection.process_new_packets().map_err(|e| {
                self.connection.write_tls(&mut &self.client).ok();
                io::Error::new(ErrorKind::InvalidData, format!("TLS: {e}"))
            })?;
            if self.take_plaintext(inbound)? || state.peer_has_closed() {
                return Ok(true);
            }
        }
        Ok(n == 0)
    }

    /// Takes what has been decrypted; true after the client's last byte.
    fn take_plaintext(&mut self, inbound: &mut Vec<u8>) -> io::Result<bool> {
        match self.connection.reader().read_to_end(inbound) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }
}
