// SPDX-License-Identifier: Apache-2.0
//! Connections over TCP, which are TLS with certificates on both sides.

use crate::Stream;
use guestfs_tls::Directory;
use guestfs_tls::rustls::{ClientConnection, StreamOwned};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long a server may take for its part of the handshake.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a daemon that has shown a certificate of the authority for its name.
#[derive(Debug)]
pub struct TlsStream(StreamOwned<ClientConnection, TcpStream>);

impl TlsStream {
    /// Connects to a daemon, whose certificate has to be for this host: its DNS name or IP address. The directory
    /// has `ca-cert.pem`, `client-cert.pem` and `client-key.pem`.
    ///
    /// # Errors
    ///
    /// Those of the connection, the certificates and the handshake. A daemon that does not accept the client's
    /// certificate says so after the handshake: the first read fails.
    pub fn connect(host: &str, port: u16, certificates: &Directory) -> io::Result<Self> {
        let wrong =
            || io::Error::new(io::ErrorKind::InvalidInput, format!("{host}: no host's name"));
        let name = guestfs_tls::name(host).ok_or_else(wrong)?;
        let config = certificates.client().map_err(io::Error::other)?;
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let socket = TcpStream::connect((host, port))?;
        // Calls are sent whole: waiting for more would only delay them.
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        stream.sock.set_read_timeout(None)?;
        Ok(Self(stream))
    }

    /// The socket below, to set its timeouts.
    pub fn socket(&self) -> &TcpStream {
        &self.0.sock
    }
}

impl Read for TlsStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for TlsStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Stream for TlsStream {
    fn readable(&mut self) -> io::Result<bool> {
        loop {
            let state = self.0.conn.process_new_packets().map_err(io::Error::other)?;
            if state.plaintext_bytes_to_read() > 0 || state.peer_has_closed() {
                return Ok(true);
            }
            let mut fds = [PollFd::from_borrowed_fd(self.0.sock.as_fd(), PollFlags::IN)];
            if poll(&mut fds, Some(&Timespec::default()))? == 0 {
                return Ok(false);
            }
            if self.0.conn.read_tls(&mut self.0.sock)? == 0 {
                return Ok(true);
            }
        }
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        // Tells the daemon that the connection was not cut off. The daemon may be gone already.
        self.0.conn.send_close_notify();
        self.0.flush().ok();
    }
}
