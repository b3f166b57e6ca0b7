// SPDX-License-Identifier: Apache-2.0
//! The name of a file, as an image has it: a path, `file:` and a path, or `json:` and the options of
//! a block device of QEMU. In: the text. Out: the path, and the format where the options tell it.
//! Whatever is no file, or only a part of one, is refused.
use serde_json::{Map, Value};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What a name says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// Relative to the directory of the image.
    pub(crate) path: PathBuf,
    pub(crate) format: Option<String>,
}

/// Drivers whose data are the bytes of a file, and those of image formats. Others are judged like a
/// format that the image itself names.
const FILES: [&str; 2] = ["file", "host_device"];
/// Options of nodes that change nothing about their content.
const HARMLESS: [&str; 13] = [
    "aio",
    "auto-read-only",
    "cache.direct",
    "cache.no-flush",
    "detect-zeroes",
    "discard",
    "drop-cache",
    "force-share",
    "locking",
    "node-name",
    "pr-manager",
    "read-only",
    "x-check-cache-dropped",
];

/// Reads a name.
///
/// # Errors
/// Why it cannot be used; the text follows the name.
pub(crate) fn parse(name: &OsStr) -> Result<Name, String> {
    let name = name.as_bytes();
    if let Some(text) = name.strip_prefix(b"json:") {
        let options = serde_json::from_slice(text)
            .map_err(|e| format!("has options that are not a JSON object ({e})"))?;
        return from_options(&options);
    }
    let path = name.strip_prefix(b"file:").unwrap_or(name);
    if path.split(|&c| c == b'/').next().is_some_and(|first| first.contains(&b':')) {
        return Err("is not a file, which is not supported".into());
    }
    Ok(Name { path: OsStr::from_bytes(path).into(), format: None })
}

/// Puts the options of nested objects under the names that they have in dotted form.
fn flatten<'a>(options: &'a Map<String, Value>, prefix: &str, out: &mut Vec<(String, &'a Value)>) {
    for (key, value) in options {
        let key = format!("{prefix}{key}");
        match value {
            Value::Object(nested) => flatten(nested, &format!("{key}."), out),
            value => out.push((key, value)),
        }
    }
}

fn from_options(options: &Map<String, Value>) -> Result<Name, String> {
    let mut flat = Vec::new();
    flatten(options, "", &mut flat);
    let (mut driver, mut protocol) = (None, None);
    let (mut here, mut below) = (None, None);
    for (key, value) in flat {
        let place = match key.as_str() {
            "driver" => &mut driver,
            "filename" => &mut here,
            "file.driver" => &mut protocol,
            "file.filename" => &mut below,
            other if HARMLESS.contains(&other.strip_prefix("file.").unwrap_or(other)) => continue,
            other => {
                return Err(format!(
                    "has the option \"{}\", which is not supported",
                    other.escape_debug()
                ));
            }
        };
        let text = value.as_str().ok_or_else(|| format!("has a \"{key}\" that is not text"))?;
        if place.replace(text).is_some_and(|earlier| earlier != text) {
            return Err(format!("has the option \"{key}\" twice"));
        }
    }
    let is_file = |driver: &str| FILES.contains(&driver);
    let (format, protocol, path) = match (driver, here, below) {
        // The node is the file itself: its bytes, whatever they look like.
        (Some(driver), Some(path), None) if protocol.is_none() => {
            (is_file(driver).then_some("raw"), Some(driver), path)
        }
        (None, Some(path), None) => (None, protocol, path),
        (driver, None, Some(path)) => (driver, protocol, path),
        _ => return Err("has options that name no file, or several".into()),
    };
    if let Some(protocol) = protocol.filter(|protocol| !is_file(protocol)) {
        return Err(format!(
            "is not a file but \"{}\", which is not supported",
            protocol.escape_debug()
        ));
    }
    // QEMU would look from where it was started.
    if !path.starts_with('/') {
        return Err("has options with a relative path; name it with an absolute one \
                    (qemu-img rebase -u)"
            .into());
    }
    Ok(Name { path: path.into(), format: format.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Result<(String, Option<String>), String> {
        parse(text.as_ref())
            .map(|name| (name.path.into_os_string().into_string().unwrap(), name.format))
    }

    #[test]
    fn options_that_name_a_file_are_read_in_each_of_their_forms() {
        let qcow2 = Ok(("/x".to_owned(), Some("qcow2".to_owned())));
        for text in [
            r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"/x"}}"#,
            r#"json:{"driver":"qcow2","file.driver":"file","file.filename":"/x"}"#,
            r#"json:{"file.filename":"/x", "driver":"qcow2", "file":{"locking":"off"}}"#,
            r#"json:{"driver":"qcow2","file":{"filename":"/x","cache":{"direct":true}}}"#,
        ] {
            assert_eq!(name(text), qcow2, "{text}");
        }
        for text in [
            r#"json:{"driver":"file","filename":"/x"}"#,
            r#"json:{"driver":"host_device","filename":"/x"}"#,
            r#"json:{"driver":"raw","file":{"filename":"/x"}}"#,
        ] {
            assert_eq!(name(text), Ok(("/x".into(), Some("raw".into()))), "{text}");
        }
        assert_eq!(name(r#"json:{"file":{"filename":"/x:y"}}"#), Ok(("/x:y".into(), None)));
        assert_eq!(name("file:a/b"), Ok(("a/b".into(), None)));
        assert_eq!(name("a/b:c"), Ok(("a/b:c".into(), None)));
    }

    #[test]
    fn a_path_may_have_any_bytes_and_options_are_utf_8() {
        let path = parse(OsStr::from_bytes(b"file:a\xff/b:c")).unwrap().path;
        assert_eq!(path.as_os_str().as_bytes(), b"a\xff/b:c");
        let refused = parse(OsStr::from_bytes(b"json:{\"filename\":\"/\xff\"}")).unwrap_err();
        assert!(refused.contains("not a JSON object"), "{refused}");
    }

    #[test]
    fn what_is_no_whole_file_is_refused_with_its_reason() {
        for (text, reason) in [
            ("nbd:unix:/x", "is not a file"),
            ("json:", "not a JSON object"),
            ("json:[1]", "not a JSON object"),
            ("json:{}", "name no file"),
            (r#"json:{"driver":"file"}"#, "name no file"),
            (r#"json:{"driver":"nbd","host":"h"}"#, "option \"host\""),
            (r#"json:{"driver":"https","filename":"/x"}"#, "not a file but \"https\""),
            (r#"json:{"driver":"raw","file":{"driver":"nbd","filename":"/x"}}"#, "but \"nbd\""),
            (r#"json:{"driver":"raw","offset":512,"file.filename":"/x"}"#, "option \"offset\""),
            (r#"json:{"driver":"qcow2","file":"node0"}"#, "option \"file\""),
            (r#"json:{"driver":"file","filename":7}"#, "not text"),
            (r#"json:{"driver":"file","filename":"x"}"#, "relative"),
            (r#"json:{"filename":"/x","file.filename":"/y"}"#, "or several"),
            (r#"json:{"file":{"filename":"/x"},"file.filename":"/y"}"#, "twice"),
            (r#"json:{"file.filename":"/x","backing":null}"#, "option \"backing\""),
        ] {
            let refused = name(text).unwrap_err();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }
}
