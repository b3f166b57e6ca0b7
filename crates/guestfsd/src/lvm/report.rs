// SPDX-License-Identifier: Apache-2.0
//! What `lvm` reports of volumes, groups and physical volumes, as JSON: names and tags are a guest's, and cannot be
//! taken for the end of a field there.

use crate::tool::Tool;
use guest_error::{Errno, Error, Result};
use serde_json::{Map, Value};
use std::ffi::OsStr;

/// A report: a row for each thing.
#[derive(Debug)]
pub(crate) struct Report(Vec<Map<String, Value>>);

/// One row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'r>(&'r Map<String, Value>);

impl Report {
    /// Runs a command that reports, and has it report these fields of what is named, or of all if nothing is.
    pub(crate) fn run(command: Tool, fields: &[&str], names: &[&OsStr]) -> Result<Self> {
        let format = ["--reportformat", "json", "--units", "b", "--nosuffix", "-o"];
        let output = command.args(format).arg(fields.join(",")).arg("--").args(names).output()?;
        Self::parse(&String::from_utf8_lossy(&output))
            .ok_or_else(|| Error::new(Errno::EIO, "lvm: its report cannot be understood"))
    }

    /// `{"report": [{"lv": [{"lv_name": "x", ...}, ...]}]}`, a row a line. Where metadata is damaged, lines that are no
    /// JSON stand before it, after it, and in it ("Retrying metadata scan.").
    fn parse(text: &str) -> Option<Self> {
        let begins = |line: &&str, with: &[char]| line.trim_start().starts_with(with);
        let lines = text.lines().skip_while(|line| !begins(line, &['{']));
        let lines = lines.filter(|line| begins(line, &['{', '}', '[', ']', '"', ',']));
        let report = lines.collect::<Vec<_>>().join("\n");
        let mut values = serde_json::Deserializer::from_str(&report).into_iter();
        let Value::Object(mut whole) = values.next()?.ok()? else { return None };
        let Some(Value::Array(parts)) = whole.remove("report") else { return None };
        let mut rows = Vec::new();
        for part in parts {
            let Value::Object(lists) = part else { return None };
            for (_, list) in lists {
                let Value::Array(list) = list else { return None };
                for row in list {
                    let Value::Object(row) = row else { return None };
                    rows.push(row);
                }
            }
        }
        Some(Self(rows))
    }

    /// Its rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.0.iter().map(Row)
    }

    /// One field of all rows.
    pub(crate) fn column(&self, field: &str) -> Result<Vec<String>> {
        self.rows().map(|row| row.text(field).map(str::to_owned)).collect()
    }
}

impl Row<'_> {
    /// A field as it is.
    pub(crate) fn text(&self, field: &str) -> Result<&str> {
        self.0.get(field).and_then(Value::as_str).ok_or_else(|| wrong(field, "is not there"))
    }

    /// A number; -1 where there is none.
    pub(crate) fn number(&self, field: &str) -> Result<i64> {
        match self.text(field)? {
            "" => Ok(-1),
            text => text.parse().map_err(|_| wrong(field, "is not a number")),
        }
    }

    /// A percentage; -1 where there is none.
    pub(crate) fn percent(&self, field: &str) -> Result<f32> {
        match self.text(field)? {
            "" => Ok(-1.0),
            text => text.parse().map_err(|_| wrong(field, "is not a number")),
        }
    }

    /// A UUID without its dashes.
    pub(crate) fn uuid(&self, field: &str) -> Result<[u8; 32]> {
        let id: Vec<u8> = self.text(field)?.bytes().filter(|&c| c != b'-').collect();
        id.try_into().map_err(|_| wrong(field, "is not a UUID"))
    }
}

fn wrong(field: &str, why: &str) -> Error {
    Error::new(Errno::EIO, format!("lvm: its report: {field} {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_found_by_name() {
        let text = r#"{"report": [{"pv": [
            {"pv_name":"/dev/sda", "pv_uuid":"abcdef-ghij-klmn-opqr-stuv-wxyz-ABCDEF",
             "pv_size":"4096", "pv_tags":"a\"b,c", "snap_percent":"", "data_percent":"12.50"},
            {"pv_name":"[unknown]"}]}], "log": []}"#;
        let report = Report::parse(text).unwrap();
        assert_eq!(report.column("pv_name").unwrap(), ["/dev/sda", "[unknown]"]);
        let row = report.rows().next().unwrap();
        assert_eq!(row.text("pv_tags").unwrap(), "a\"b,c");
        assert_eq!(row.number("pv_size").unwrap(), 4096);
        assert_eq!(row.uuid("pv_uuid").unwrap(), *b"abcdefghijklmnopqrstuvwxyzABCDEF");
        assert_eq!(row.percent("snap_percent").unwrap(), -1.0);
        assert_eq!(row.percent("data_percent").unwrap(), 12.5);
        assert_eq!(row.number("snap_percent").unwrap(), -1);
    }

    #[test]
    fn lines_around_and_in_a_report_are_not_read() {
        let text = "  Retrying metadata scan.\n  {\n \"report\": [ {\"vg\": [ {\"vg_name\":\"VG\"} ] } ]\n  }\n  more\n";
        assert_eq!(Report::parse(text).unwrap().column("vg_name").unwrap(), ["VG"]);
        assert!(Report::parse("  Retrying metadata scan.\n").is_none());
        let text = "  {\n    \"report\": [\n  Retrying metadata scan.\n  {\n  \"pv\": [\n  {\"pv_name\":\"/dev/sda\"}\n  ,\n\
                    {\"pv_name\":\"/dev/sdb\"}\n  ]\n  }\n  ]\n  }\n";
        assert_eq!(
            Report::parse(text).unwrap().column("pv_name").unwrap(),
            ["/dev/sda", "/dev/sdb"]
        );
    }

    #[test]
    fn what_is_no_report_or_lacks_a_field_is_an_error() {
        for text in ["", "[]", "{}", r#"{"report": 1}"#, r#"{"report": [{"pv": [1]}]}"#] {
            assert!(Report::parse(text).is_none(), "{text}");
        }
        let report = Report::parse(r#"{"report": [{"pv": [{"a": "x"}]}]}"#).unwrap();
        let row = report.rows().next().unwrap();
        for e in [
            row.text("b").unwrap_err(),
            row.number("a").unwrap_err(),
            row.percent("a").unwrap_err(),
            row.uuid("a").unwrap_err(),
        ] {
            assert_eq!(e.errno(), Errno::EIO);
        }
    }

    proptest! {
        #[test]
        fn any_tag_comes_back_and_none_becomes_another_field(tag in "\\PC{0,40}") {
            let row = serde_json::json!({"lv_tags": tag, "lv_name": "x"});
            let text = serde_json::json!({"report": [{"lv": [row]}]}).to_string();
            let report = Report::parse(&text).unwrap();
            let row = report.rows().next().unwrap();
            prop_assert_eq!(row.text("lv_tags").unwrap(), tag);
            prop_assert_eq!(row.text("lv_name").unwrap(), "x");
        }

        #[test]
        fn any_text_is_a_report_or_not(text in "[\\[\\]{}:,\"a-z ]{0,60}") {
            if let Some(report) = Report::parse(&text) {
                report.column("a").ok();
            }
        }
    }
}
