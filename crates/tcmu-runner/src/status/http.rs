// SPDX-License-Identifier: Apache-2.0
//! As much of HTTP/1.1 as somebody needs who asks for one thing: a request is read, of bounded length
//! and in bounded time, and answered; then the connection ends (RFC 9112).
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// The longest request that is read, in bytes.
const MAX_REQUEST: usize = 8 << 10;
/// The most header fields of one.
const MAX_FIELDS: usize = 64;

/// A connection: what both kinds of sockets have.
pub(super) trait Stream: Read + Write {
    /// How long one read or write may wait; more than zero.
    ///
    /// # Errors
    /// Of the system.
    fn set_time_out(&self, time: Duration) -> io::Result<()>;
}

/// What is answered.
pub(super) struct Response {
    pub(super) status: &'static str,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Response {
    /// An error, with a text for people.
    pub(super) fn error(status: &'static str, text: &str) -> Response {
        Response { status, content_type: "text/plain; charset=utf-8", body: format!("{text}\n") }
    }
}

/// Reads a request for something, whose name `answer` gets, and answers it. All of that takes `limit`
/// at most.
///
/// # Errors
/// Of the connection; `TimedOut` or `WouldBlock` if it is too slow.
pub(super) fn serve(
    stream: &mut impl Stream,
    limit: Duration,
    answer: impl FnOnce(&str) -> Response,
) -> io::Result<()> {
    let until = Instant::now() + limit;
    let response = match read_request(stream, until)? {
        Ok(target) => answer(&target),
        Err(response) => response,
    };
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        response.status,
        response.content_type,
        response.body.len()
    );
    for mut bytes in [head.as_bytes(), response.body.as_bytes()] {
        while !bytes.is_empty() {
            stream.set_time_out(left(until)?)?;
            let n = stream.write(bytes)?;
            bytes = bytes.get(n..).unwrap_or_default();
        }
    }
    stream.flush()
}

/// What a request asks for, or what is wrong with it.
fn read_request(stream: &mut impl Stream, until: Instant) -> io::Result<Result<String, Response>> {
    let mut bytes = Vec::new();
    let mut piece = [0; 1024];
    loop {
        stream.set_time_out(left(until)?)?;
        match stream.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => bytes.extend_from_slice(piece.get(..n).unwrap_or_default()),
        }
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(&bytes) {
            Ok(httparse::Status::Partial) if bytes.len() < MAX_REQUEST => {}
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                let status = "431 Request Header Fields Too Large";
                return Ok(Err(Response::error(status, "the request is too long")));
            }
            Err(error) => {
                return Ok(Err(Response::error("400 Bad Request", &error.to_string())));
            }
            Ok(httparse::Status::Complete(_)) => {
                return Ok(match (request.method, request.path) {
                    (Some("GET"), Some(path)) => Ok(path.to_owned()),
                    _ => Err(Response::error("405 Method Not Allowed", "only GET is answered")),
                });
            }
        }
    }
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said, in pieces of this length, and what is answered.
    struct Said<'a>(&'a [u8], usize, Vec<u8>);

    impl Read for Said<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    impl Write for Said<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(3);
            self.2.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Stream for Said<'_> {
        fn set_time_out(&self, _: Duration) -> io::Result<()> {
            Ok(())
        }
    }

    fn answer(request: &[u8], piece: usize) -> io::Result<String> {
        let mut said = Said(request, piece, Vec::new());
        let found = |target: &str| match target {
            "/a" => Response { status: "200 OK", content_type: "text/plain", body: "it".into() },
            _ => Response::error("404 Not Found", "nothing"),
        };
        serve(&mut said, Duration::from_secs(20), found)?;
        Ok(String::from_utf8(said.2).unwrap())
    }

    #[test]
    fn a_request_in_any_pieces_is_answered() {
        for piece in [1, 7, 1000] {
            let text = answer(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", piece).unwrap();
            assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
            assert!(text.contains("\r\nContent-Length: 2\r\n"), "{text}");
            assert!(text.ends_with("\r\n\r\nit"), "{text}");
        }
    }

    #[test]
    fn what_is_no_such_request_gets_an_error() {
        let status = |request: &[u8]| answer(request, 100).unwrap()[9..12].to_owned();
        assert_eq!(status(b"GET /b HTTP/1.0\r\n\r\n"), "404");
        assert_eq!(status(b"POST /a HTTP/1.1\r\n\r\n"), "405");
        assert_eq!(status(b"\x16\x03\x01\x02\x00\x01\r\n\r\n"), "400");
        assert_eq!(status(&[b"GET /a HTTP/1.1\r\nX: ", &[b'x'; 20_000][..]].concat()), "431");
        assert_eq!(status(&[b"GET /a HTTP/1.1\r\n", &b"A: b\r\n".repeat(100)[..]].concat()), "431");
        assert!(answer(b"GET /a HT", 100).is_err());
    }
}
