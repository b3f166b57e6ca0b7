// SPDX-License-Identifier: Apache-2.0
//! The passphrase of an encrypted image, from where an option says that it is: it stands neither in
//! configuration strings, which everybody can read, nor in messages. In memory it is overwritten when
//! it is not needed any more.
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use luks::Secret;
use rustix::fs::OFlags;

use crate::{Error, SecretSource};

/// Longest passphrase, in bytes.
const MAX_LEN: u64 = 64 << 10;
/// What others must not have.
const OTHERS: u32 = 0o077;
const OPERATION: &str = "read the passphrase";
/// Where systemd has put the credentials of this service.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Reads a passphrase. Blocks.
pub(super) fn read(source: &SecretSource) -> Result<Secret, Error> {
    match source {
        SecretSource::File(path) => read_file(path, true),
        // Opened anew, from its beginning on. Whoever has the descriptor has decided who else has
        // it; the mode of a file without a name says nothing.
        SecretSource::Descriptor(number) => {
            read_file(Path::new(&format!("/proc/self/fd/{number}")), false)
        }
        // systemd keeps others away from the directory.
        SecretSource::Credential(name) => {
            read_file(&credential(std::env::var_os(CREDENTIALS), name)?, false)
        }
    }
}

/// Where a credential is.
fn credential(dir: Option<OsString>, name: &str) -> Result<PathBuf, Error> {
    let dir = dir.ok_or_else(|| {
        let text = format!(
            "systemd has given no credentials to this process (${CREDENTIALS} is not set): add \
             LoadCredential={name}:/path/to/file to the unit of the service"
        );
        Error::invalid(text, OPERATION, name)
    })?;
    Ok(Path::new(&dir).join(name))
}

fn read_file(path: &Path, judge_mode: bool) -> Result<Secret, Error> {
    let failed = |e| Error::new(e, OPERATION, path);
    let refuse = |text: String| Err(Error::invalid(text, OPERATION, path));
    // NONBLOCK: a FIFO is found out without waiting for a writer.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut file = File::options().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return refuse("it is no regular file".into());
    }
    if judge_mode && metadata.mode() & OTHERS != 0 {
        let mode = metadata.mode() & 0o7777;
        return refuse(format!(
            "its mode is {mode:04o}: others than its owner may use it; run `chmod 600 {}`",
            path.display()
        ));
    }
    let len = metadata.len();
    if len == 0 || len > MAX_LEN {
        return refuse(format!("it has {len} bytes; a passphrase has 1 to {MAX_LEN}"));
    }
    // Whole from the beginning: a buffer that grows leaves copies behind.
    let mut passphrase = vec![0; usize::try_from(len).unwrap_or_default()];
    let read = file.read_exact(&mut passphrase);
    let secret = Secret::new(passphrase);
    read.map(|()| secret).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn a_credential_is_in_the_directory_that_systemd_names() {
        let refused = credential(None, "disk").unwrap_err().to_string();
        assert!(refused.contains("LoadCredential=disk:/path/to/file"), "{refused}");
        let found = credential(Some("/run/credentials/x".into()), "disk").unwrap();
        assert_eq!(found, Path::new("/run/credentials/x/disk"));
    }

    #[test]
    fn what_a_descriptor_refers_to_is_read_from_its_beginning_each_time() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"secret").unwrap();
        file.seek(std::io::SeekFrom::End(0)).unwrap();
        let source = SecretSource::Descriptor(u32::try_from(file.as_raw_fd()).unwrap());
        for _ in 0..2 {
            assert_eq!(read(&source).unwrap().expose(), b"secret");
        }
        let (pipe, _) = std::io::pipe().unwrap();
        let source = SecretSource::Descriptor(u32::try_from(pipe.as_raw_fd()).unwrap());
        let refused = read(&source).unwrap_err().to_string();
        assert!(refused.contains("it is no regular file"), "{refused}");
        assert!(read(&SecretSource::Descriptor(i32::MAX as u32)).is_err());
    }
}
