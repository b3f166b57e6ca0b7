// SPDX-License-Identifier: Apache-2.0
//! What a tar header has no room for: pax extended headers (POSIX.1-2017, pax, "pax Extended Header"), with
//! GNU's keywords for sparse files.

use crate::tar::fault::invalid;
use guest_error::Result;
use rustix::fs::Timespec;

/// Most pieces of a sparse file.
pub(super) const MAX_PIECES: usize = 1 << 16;

/// What pax headers and GNU long names say of the next member.
#[derive(Clone, Debug, Default)]
pub(super) struct Extra {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) uname: Option<Vec<u8>>,
    pub(super) gname: Option<Vec<u8>>,
    pub(super) mtime: Option<Timespec>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Of a sparse file: its real name and size, and its map where that is in the header.
    pub(super) sparse_name: Option<Vec<u8>>,
    pub(super) sparse_size: Option<u64>,
    pub(super) sparse_major: Option<u64>,
    pub(super) sparse_map: Vec<(u64, u64)>,
    pub(super) sparse_offset: u64,
}

/// Records of a pax header.
pub(super) fn records(mut bytes: &[u8], into: &mut Extra) -> Result<()> {
    while !bytes.is_empty() {
        let space =
            bytes.iter().position(|&b| b == b' ').ok_or_else(|| invalid("extended header"))?;
        let len: usize = text(&bytes[..space])?.parse().map_err(|_| invalid("extended header"))?;
        if len <= space + 1 || len > bytes.len() || bytes[len - 1] != b'\n' {
            return Err(invalid("extended header"));
        }
        let record = &bytes[space + 1..len - 1];
        bytes = &bytes[len..];
        let equals =
            record.iter().position(|&b| b == b'=').ok_or_else(|| invalid("extended header"))?;
        set(into, &record[..equals], &record[equals + 1..])?;
    }
    Ok(())
}

fn set(into: &mut Extra, key: &[u8], value: &[u8]) -> Result<()> {
    let own = || Some(value.to_vec());
    let number = || {
        text(value)?.parse::<u64>().map(Some).map_err(|_| invalid("number in an extended header"))
    };
    let id = || -> Result<Option<u32>> { Ok(number()?.and_then(|n| u32::try_from(n).ok())) };
    match key {
        b"path" => into.path = own(),
        b"linkpath" => into.link = own(),
        b"uname" => into.uname = own(),
        b"gname" => into.gname = own(),
        b"size" => into.size = number()?,
        b"uid" => into.uid = id()?,
        b"gid" => into.gid = id()?,
        b"mtime" => into.mtime = Some(time(text(value)?)?),
        b"GNU.sparse.name" => into.sparse_name = own(),
        b"GNU.sparse.size" | b"GNU.sparse.realsize" => into.sparse_size = number()?,
        b"GNU.sparse.major" => into.sparse_major = number()?,
        b"GNU.sparse.offset" => into.sparse_offset = number()?.unwrap_or(0),
        b"GNU.sparse.numbytes" => {
            let piece = (into.sparse_offset, number()?.unwrap_or(0));
            into.sparse_map.push(piece);
        }
        b"GNU.sparse.map" => {
            let numbers = text(value)?.split(',').filter(|n| !n.is_empty());
            let numbers: Vec<u64> = numbers
                .map(str::parse)
                .collect::<std::result::Result<_, _>>()
                .map_err(|_| invalid("sparse map"))?;
            into.sparse_map = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        }
        key if key.starts_with(b"SCHILY.") || key.starts_with(b"RHT.") => {
            into.xattrs.push((key.to_vec(), value.to_vec()));
        }
        // Comments, access times and the extensions of others.
        _ => {}
    }
    if into.sparse_map.len() > MAX_PIECES {
        return Err(invalid("sparse file has too many pieces"));
    }
    Ok(())
}

/// A time as an extended header has it: seconds, and decimals of them where there are any.
pub(super) fn decimal(time: Timespec) -> String {
    match (time.tv_sec, time.tv_nsec) {
        (seconds, 0) => seconds.to_string(),
        // Before 1970, decimals count towards the past.
        (seconds @ ..0, n) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - n),
        (seconds, n) => format!("{seconds}.{n:09}"),
    }
}

/// Seconds, and decimals of them.
fn time(text: &str) -> Result<Timespec> {
    let wrong = || invalid("time in an extended header");
    let (seconds, decimals) = text.split_once('.').unwrap_or((text, ""));
    let tv_sec: i64 = seconds.parse().map_err(|_| wrong())?;
    if !decimals.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let nine: String = decimals.chars().chain("000000000".chars()).take(9).collect();
    let tv_nsec: i64 = nine.parse().map_err(|_| wrong())?;
    // Before 1970, decimals count towards the past.
    Ok(match (seconds.starts_with('-'), tv_nsec) {
        (true, 1..) => {
            Timespec { tv_sec: tv_sec.saturating_sub(1), tv_nsec: 1_000_000_000 - tv_nsec }
        }
        _ => Timespec { tv_sec, tv_nsec },
    })
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| invalid("extended header"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records_say_what_headers_cannot() {
        let mut extra = Extra::default();
        records(b"12 path=abc\n20 mtime=1.500000001\n16 SCHILY.xattr\n", &mut extra).unwrap_err();
        records(b"12 path=abc\n21 mtime=1.500000001\n12 size=17\n", &mut extra).unwrap_err();
        let mut extra = Extra::default();
        records(b"12 path=abc\n21 mtime=1.500000001\n", &mut extra).unwrap();
        assert_eq!(extra.path.as_deref(), Some(&b"abc"[..]));
        assert_eq!(extra.mtime, Some(Timespec { tv_sec: 1, tv_nsec: 500_000_001 }));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for bytes in
            [&b"x"[..], b"5 a=b", b"99 path=x\n", b"0 path=x\n", b"4 a=\n", b"7 path=\n", b"3 \n"]
        {
            assert!(records(bytes, &mut Extra::default()).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn times_are_read_as_they_were_written(tv_sec: i64, tv_nsec in 0..1_000_000_000_i64) {
            let written = Timespec { tv_sec, tv_nsec };
            prop_assert_eq!(time(&decimal(written)).unwrap(), written);
        }
    }

    #[test]
    fn times_before_1970_count_towards_the_past() {
        assert_eq!(time("-1.25").unwrap(), Timespec { tv_sec: -2, tv_nsec: 750_000_000 });
        assert!(time("1.x").is_err() && time("").is_err());
    }
}
