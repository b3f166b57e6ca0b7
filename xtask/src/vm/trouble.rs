// SPDX-License-Identifier: Apache-2.0
//! Lines of the kernel's log that tell of trouble.

/// Pieces of such lines; all pieces of a row have to be in the line.
const SIGNS: [&[&str]; 12] = [
    &["Kernel panic"],
    &["BUG: "],
    &["Oops"],
    &["general protection"],
    &["WARNING: "],
    &["blocked for more than"],
    &["soft lockup"],
    &["rcu", "stall"],
    &["refcount_t"],
    &["list_add corruption"],
    &["list_del corruption"],
    &["Out of memory"],
];

/// The lines that tell of trouble, each once.
pub(crate) fn lines(log: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in log.lines() {
        let bad = SIGNS.iter().any(|pieces| pieces.iter().all(|piece| line.contains(piece)));
        if bad && !found.iter().any(|l| l == line) {
            found.push(line.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_from_talk() {
        let log = "[1] Linux version 6.1\n\
                   [2] WARNING: CPU: 0 PID: 1 at drivers/target/target_core_user.c:1\n\
                   [3] rcu: INFO: rcu_sched self-detected stall on CPU\n\
                   [4] rcu: Hierarchical RCU implementation.\n\
                   [5] INFO: task sh:7 blocked for more than 120 seconds.\n\
                   [5] INFO: task sh:7 blocked for more than 120 seconds.\n";
        let found = lines(log);
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|line| !line.contains("Linux version")));
    }
}
