// SPDX-License-Identifier: Apache-2.0
//! A guestfish that is asked one question after the other.

use std::io::{Read, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::run::{self, Kept};

/// For one answer.
const LIMIT: Duration = Duration::from_secs(120);

/// A running guestfish; it ends when this value goes.
pub(super) struct Fish {
    guestfish: Kept,
    questions: ChildStdin,
    output: Receiver<Vec<u8>>,
    /// What comes after each answer: no file's name or content has it by chance.
    mark: String,
}

impl Fish {
    /// Starts a command that reads guestfish's commands from its standard input.
    pub(super) fn start(command: &mut Command) -> Result<Fish> {
        // One pipe, so that what a call prints and its error come in their order.
        let (mut reader, writer) = std::io::pipe()?;
        command.stdin(Stdio::piped()).stdout(writer.try_clone()?).stderr(writer);
        let what = run::describe(command);
        let child = command.spawn().with_context(|| format!("cannot start {what}"))?;
        let mut guestfish = Kept(child);
        // The command holds the pipe's other end: without it, the end of the file is seen.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let questions = guestfish.0.stdin.take().context("no pipe")?;
        let (sender, output) = mpsc::sync_channel(64);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mark = format!("end-of-answer-{:x}", tag());
        Ok(Fish { guestfish, questions, output, mark })
    }

    /// What a call prints; its message, when it fails.
    pub(super) fn ask(&mut self, words: &[&str]) -> Result<Result<String, String>> {
        let mut line = String::from("-");
        for word in words {
            line += &quote(word);
            line.push(' ');
        }
        let said = match writeln!(self.questions, "{line}\necho {}", self.mark) {
            Ok(()) => self.answer(words)?,
            Err(_) => self.last_words(),
        };
        let Some(text) = said.strip_suffix(&format!("{}\n", self.mark)) else {
            bail!("guestfish ended at {}: {}", words.join(" "), said.trim());
        };
        // "*stdin*:3: libguestfs: error: inspect_os: ..."
        Ok(match text.split_once("libguestfs: error: ") {
            Some((before, error)) if before.is_empty() || before.starts_with("*stdin*:") => {
                Err(error.trim_end().to_owned())
            }
            _ => Ok(text.to_owned()),
        })
    }

    /// All up to the mark, or to the end of guestfish.
    fn answer(&mut self, words: &[&str]) -> Result<String> {
        let end = Instant::now() + LIMIT;
        let mark = format!("{}\n", self.mark);
        let mut said = Vec::new();
        loop {
            run::check_interrupt()?;
            match self.output.recv_timeout(Duration::from_millis(100)) {
                Ok(bytes) => said.extend(bytes),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if Instant::now() > end => {
                    bail!("no answer to {} in {} s", words.join(" "), LIMIT.as_secs());
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if said.ends_with(mark.as_bytes()) {
                break;
            }
        }
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    fn last_words(&mut self) -> String {
        String::from_utf8_lossy(&self.output.iter().flatten().collect::<Vec<u8>>()).into_owned()
    }

    /// Ends the session, as the end of its input does.
    pub(super) fn end(self) -> Result<()> {
        let Fish { mut guestfish, questions, output, .. } = self;
        drop(questions);
        let rest: Vec<u8> = output.iter().flatten().collect();
        match guestfish.wait(Duration::from_secs(20))? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("guestfish: {status}: {}", String::from_utf8_lossy(&rest).trim()),
            None => bail!("guestfish does not end"),
        }
    }
}

/// A number that an image cannot know.
fn tag() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// A word as guestfish takes it: in double quotes, with the escapes of C.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut quoted = String::from("\"");
    for byte in word.bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=b'~' => quoted.push(char::from(byte)),
            other => quoted += &format!("\\x{other:02x}"),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_as_guestfish_needs_it() {
        assert_eq!(quote("/dev/sda1"), "/dev/sda1");
        assert_eq!(quote("a b|c"), "\"a b|c\"");
        assert_eq!(quote("\"\\\n"), r#""\"\\\x0a""#);
        assert_eq!(quote("é"), r#""\xc3\xa9""#);
        assert_eq!(quote(""), "\"\"");
    }

    /// Answers as guestfish does: the first call prints, the second fails, at the third it ends.
    const STAND_IN: &str = "read x; read e; echo one; echo ${e#echo }; \
        read x; read e; echo '*stdin*:3: libguestfs: error: cat: /x: no'; echo ${e#echo }; \
        read x; echo oops >&2";

    #[test]
    fn answers_errors_and_an_early_end_are_told_apart() {
        let mut fish = Fish::start(Command::new("sh").args(["-c", STAND_IN])).unwrap();
        assert_eq!(fish.ask(&["ls", "/"]).unwrap(), Ok("one\n".to_owned()));
        assert_eq!(fish.ask(&["cat", "/x"]).unwrap(), Err("cat: /x: no".to_owned()));
        let error = fish.ask(&["ls", "/"]).unwrap_err().to_string();
        assert!(error.contains("oops"), "{error}");
        assert!(fish.ask(&["ls", "/"]).is_err());
    }
}
