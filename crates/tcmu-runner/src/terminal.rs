// SPDX-License-Identifier: Apache-2.0
//! What others say, such as plugins and names of files, as a person's terminal gets it.

/// A text on one line, without what moves a terminal's cursor.
pub(crate) fn line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// The same of a text whose line ends are ours.
pub(crate) fn lines(text: &str) -> String {
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}
