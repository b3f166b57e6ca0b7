// SPDX-License-Identifier: Apache-2.0
//! BENCHMARKS.md: each subcommand has a section in it. What stands between the section's two markers
//! is replaced, the rest is written by people and kept.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;

/// Puts `text` between the markers of `section` in BENCHMARKS.md, which is made when it is not there.
pub(crate) fn replace(section: &str, text: &str) -> Result<()> {
    let file = run::root().join("BENCHMARKS.md");
    let old = match std::fs::read_to_string(&file) {
        Ok(old) => old,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "# Benchmarks\n".into(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let new = replaced(&old, section, text)?;
    std::fs::write(&file, new).with_context(|| format!("cannot write {}", file.display()))
}

fn replaced(old: &str, section: &str, text: &str) -> Result<String> {
    let begin = format!("<!-- begin {section}: written by cargo xtask bench, not by hand -->");
    let end = format!("<!-- end {section} -->");
    let new = format!("{begin}\n{}\n{end}", text.trim_end());
    match (old.find(&begin), old.find(&end)) {
        (Some(b), Some(e)) if b < e => Ok(format!("{}{new}{}", &old[..b], &old[e + end.len()..])),
        (None, None) => Ok(format!("{}\n\n{new}\n", old.trim_end())),
        _ => bail!("the markers of section {section} are damaged"),
    }
}

/// The commit that is measured.
pub(crate) fn commit() -> String {
    let mut git = Command::new("git");
    git.current_dir(run::root()).args(["describe", "--always", "--dirty"]);
    run::output(&mut git).map_or("unknown".into(), |text| text.trim().to_owned())
}

/// The processor's name.
pub(crate) fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name"));
    name.unwrap_or_default().trim_matches([' ', '\t', ':']).to_owned()
}

/// Breaks lines at 100 columns.
pub(crate) fn wrap(text: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        if column > 0 && column + 1 + word.len() > 100 {
            out.push('\n');
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_around_the_tables_is_kept() {
        let first = replaced("# Benchmarks\n\nWords.\n", "a", "1\n").unwrap();
        let second = replaced(&(first + "\nMore words.\n"), "b", "2").unwrap();
        let third = replaced(&second, "a", "3").unwrap();
        assert!(third.starts_with("# Benchmarks\n\nWords.\n"));
        assert!(third.contains("-->\n3\n<!-- end a -->\n\nMore words.\n"));
        assert!(third.contains("-->\n2\n<!-- end b -->"));
        assert!(!third.contains("\n1\n"));
    }

    #[test]
    fn damaged_markers_are_an_error() {
        assert!(replaced("<!-- end a -->", "a", "1").is_err());
    }
}
