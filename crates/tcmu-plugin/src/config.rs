// SPDX-License-Identifier: Apache-2.0
//! The configuration string of a plugin's device. What stands in it is the handler's own, but for
//! one option, which is taken out before the handler sees the string: `tcmur_cmd_time_out=SECONDS`,
//! between semicolons or at the end.
use std::time::Duration;

use block::{COMMAND_TIME_OUT, command_timeout};

/// A string as the handler gets it, and after how long a running command is reported.
///
/// # Errors
/// What the value of the option has to be.
pub fn split(config: &str) -> Result<(String, Option<Duration>), String> {
    let Some((subtype, rest)) = config.split_once('/') else { return Ok((config.into(), None)) };
    let mut time_out = None;
    let mut kept = String::new();
    // The semicolon that ends the option belongs to it: `;tcmur_cmd_time_out=5;/path`.
    let mut separator = "";
    for part in rest.split(';') {
        let option = part.split_once('=').filter(|(name, _)| *name == COMMAND_TIME_OUT);
        if let Some((_, value)) = option {
            time_out = command_timeout(value)
                .map_err(|what| format!("{config}: {part}: it has to be {what}"))?;
            separator = "";
            continue;
        }
        kept.push_str(separator);
        kept.push_str(part);
        separator = ";";
    }
    Ok((format!("{subtype}/{kept}"), time_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_option_is_taken_out_and_all_else_is_the_handlers() {
        for (config, kept, seconds) in [
            ("qcow//a/b", "qcow//a/b", None),
            ("qcow//a/b;tcmur_cmd_time_out=30", "qcow//a/b", Some(30)),
            ("qcow//a/b;tcmur_cmd_time_out=30;", "qcow//a/b", Some(30)),
            ("qcow/;tcmur_cmd_time_out=5;/a", "qcow//a", Some(5)),
            (
                "rbd/pool/x;conf=/etc/c;osd_op_timeout=3",
                "rbd/pool/x;conf=/etc/c;osd_op_timeout=3",
                None,
            ),
            ("rbd/pool/x;conf=/etc/c;tcmur_cmd_time_out=0", "rbd/pool/x;conf=/etc/c", None),
            ("zbc/model-HM/zsize-4@/x;y;", "zbc/model-HM/zsize-4@/x;y;", None),
            ("odd", "odd", None),
        ] {
            let time_out = seconds.map(Duration::from_secs);
            assert_eq!(split(config), Ok((kept.to_owned(), time_out)), "{config}");
        }
    }

    #[test]
    fn a_time_that_is_no_number_is_refused() {
        let why = split("qcow//a;tcmur_cmd_time_out=soon").unwrap_err();
        assert!(why.ends_with("it has to be a number of seconds below 2^32"), "{why}");
    }
}
