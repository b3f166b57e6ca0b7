// SPDX-License-Identifier: Apache-2.0
//! /proc/mdstat: what arrays of md consist of (md(4)).

/// A device in an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<'t> {
    /// The kernel's name: `sda1`.
    pub name: &'t str,
    /// Its number in the array.
    pub index: i32,
    /// A letter for each thing to be said of it: `W` mostly written, `F` faulty, `S` spare, `R` replacement, `J` journal.
    pub flags: String,
}

/// What the array that the kernel calls so consists of, in the table's order; none if the table does not have it.
pub fn members<'t>(table: &'t str, array: &str) -> Option<Vec<Member<'t>>> {
    table.lines().find_map(|line| {
        let (name, rest) = line.split_once(':')?;
        (name.trim_end() == array)
            .then(|| rest.split_ascii_whitespace().filter_map(member).collect())
    })
}

/// `sda1[0](W)(F)`; other words (`active`, `raid1`, `(auto-read-only)`) are none.
fn member(word: &str) -> Option<Member<'_>> {
    let (name, rest) = word.split_once('[').filter(|(name, _)| !name.is_empty())?;
    let (index, mut rest) = rest.split_once(']')?;
    let mut flags = String::new();
    while !rest.is_empty() {
        let (flag, more) = rest.strip_prefix('(')?.split_once(')')?;
        flags.push_str(flag);
        rest = more;
    }
    Some(Member { name, index: index.parse().ok()?, flags })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TABLE: &str = "\
Personalities : [raid1] [raid6] [raid5] [raid4]
md1 : active (auto-read-only) raid5 sdd1[3](S) sdc1[2] sdb1[1](W)(F) sda1[0]
      129024 blocks super 1.2 level 5, 512k chunk, algorithm 2 [3/3] [UUU]

md127 : inactive cciss/c0d0p1[1](S)
      65535 blocks super 1.2

unused devices: <none>
";

    #[test]
    fn members_come_in_the_tables_order_with_number_and_flags() {
        let found = members(TABLE, "md1").unwrap();
        let texts: Vec<_> = found.iter().map(|m| (m.name, m.index, m.flags.as_str())).collect();
        assert_eq!(texts, [("sdd1", 3, "S"), ("sdc1", 2, ""), ("sdb1", 1, "WF"), ("sda1", 0, "")]);
        let inactive = members(TABLE, "md127").unwrap();
        assert_eq!((inactive[0].name, inactive.len()), ("cciss/c0d0p1", 1));
    }

    #[test]
    fn what_is_no_array_has_no_members() {
        assert_eq!(members(TABLE, "md12"), None);
        assert_eq!(members("", "md1"), None);
    }

    #[test]
    fn words_that_are_no_devices_are_left_out() {
        for word in
            ["active", "[UUU]", "[3/3]", "sda[x]", "sda[1", "sda[1](", "sda[1]S", "(read-only)"]
        {
            assert_eq!(member(word), None, "{word}");
        }
    }

    proptest! {
        #[test]
        fn any_table_is_read_and_what_was_written_comes_back(
            noise in "[ -~\n]{0,200}",
            list in proptest::collection::vec(("[a-z]{1,8}[0-9]{0,2}", any::<i32>(), "[WFSRJ]{0,3}"), 0..5),
        ) {
            members(&noise, "md0");
            let mut line = "md0 : active raid1".to_owned();
            for (name, index, flags) in &list {
                line += &format!(" {name}[{index}]");
                flags.chars().for_each(|flag| line += &format!("({flag})"));
            }
            let found = members(&line, "md0").unwrap();
            let found: Vec<_> = found.iter().map(|m| (m.name.to_owned(), m.index, m.flags.clone())).collect();
            prop_assert_eq!(found, list);
        }
    }
}
