// SPDX-License-Identifier: Apache-2.0
//! Capabilities of files: the kernel's form (security.capability, see capabilities(7)) and the text of
//! cap_to_text(3) and cap_from_text(3).

/// Names of capabilities, by number.
const NAMES: [&str; 41] = [
    "cap_chown",
    "cap_dac_override",
    "cap_dac_read_search",
    "cap_fowner",
    "cap_fsetid",
    "cap_kill",
    "cap_setgid",
    "cap_setuid",
    "cap_setpcap",
    "cap_linux_immutable",
    "cap_net_bind_service",
    "cap_net_broadcast",
    "cap_net_admin",
    "cap_net_raw",
    "cap_ipc_lock",
    "cap_ipc_owner",
    "cap_sys_module",
    "cap_sys_rawio",
    "cap_sys_chroot",
    "cap_sys_ptrace",
    "cap_sys_pacct",
    "cap_sys_admin",
    "cap_sys_boot",
    "cap_sys_nice",
    "cap_sys_resource",
    "cap_sys_time",
    "cap_sys_tty_config",
    "cap_mknod",
    "cap_lease",
    "cap_audit_write",
    "cap_audit_control",
    "cap_setfcap",
    "cap_mac_override",
    "cap_mac_admin",
    "cap_syslog",
    "cap_wake_alarm",
    "cap_block_suspend",
    "cap_audit_read",
    "cap_perfmon",
    "cap_bpf",
    "cap_checkpoint_restore",
];

/// Most capabilities that the kernel's form has room for.
const MOST: usize = 64;
/// Revisions of the kernel's form; the flag in the same word.
const REVISION: u32 = 0xff00_0000;
const REVISION_1: u32 = 0x0100_0000;
const REVISION_2: u32 = 0x0200_0000;
const REVISION_3: u32 = 0x0300_0000;
const EFFECTIVE: u32 = 1;

/// In which sets a capability is. The order of values is that of clauses in texts.
type Sets = u8;
const E: Sets = 1;
const P: Sets = 2;
const I: Sets = 4;
/// Letters, in the order in which they are written.
const LETTERS: [(Sets, char); 3] = [(E, 'e'), (I, 'i'), (P, 'p')];

/// Which capabilities a program gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities([Sets; MOST]);

impl Capabilities {
    /// From the kernel's form, if it is one.
    pub fn from_xattr(value: &[u8]) -> Option<Self> {
        let words: Vec<u32> =
            value.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let (magic, words) = words.split_first()?;
        let pairs = match (magic & REVISION, value.len()) {
            (REVISION_1, 12) => 1,
            (REVISION_2, 20) | (REVISION_3, 24) => 2,
            _ => return None,
        };
        let mut sets = [0; MOST];
        for (n, set) in sets.iter_mut().enumerate().take(32 * pairs) {
            let bit = |word: usize| words[word] >> (n % 32) & 1 != 0;
            *set |= if bit(2 * (n / 32)) { P } else { 0 };
            *set |= if bit(2 * (n / 32) + 1) { I } else { 0 };
            *set |= if *set != 0 && magic & EFFECTIVE != 0 { E } else { 0 };
        }
        Some(Self(sets))
    }

    /// The kernel's form. None if some capabilities are effective and others are not: for files there is
    /// only all or nothing.
    pub fn to_xattr(self) -> Option<Vec<u8>> {
        let effective = self.0.iter().any(|s| s & E != 0);
        if effective && self.0.iter().any(|s| (s & (P | I) != 0) != (s & E != 0)) {
            return None;
        }
        let word = |set: Sets, from: usize| {
            let bits = self.0[from..from + 32].iter().enumerate();
            bits.filter(|(_, s)| **s & set != 0).fold(0u32, |word, (n, _)| word | 1 << n)
        };
        let magic = REVISION_2 | if effective { EFFECTIVE } else { 0 };
        let words = [magic, word(P, 0), word(I, 0), word(P, 32), word(I, 32)];
        Some(words.iter().flat_map(|w| w.to_le_bytes()).collect())
    }

    /// As text. `known` is how many capabilities the kernel knows.
    pub fn to_text(self, known: usize) -> String {
        let (known, others) = self.0.split_at(known.min(MOST));
        // What most of them have goes without saying which they are.
        let count = |sets: Sets| known.iter().filter(|s| **s == sets).count();
        let base = (0..8).rev().max_by_key(|sets| count(*sets)).unwrap_or(0);
        let mut text = String::new();
        if base != 0 {
            text.push('=');
            push_letters(&mut text, base);
        }
        for sets in (0..8).rev().filter(|sets| *sets != base && count(*sets) > 0) {
            let begin = text.is_empty();
            push_names(&mut text, known, 0, sets);
            push_change(&mut text, if begin { '=' } else { '+' }, sets & !base);
            push_change(&mut text, '-', base & !sets);
        }
        if text.is_empty() {
            text.push('=');
        }
        for sets in (1..8).rev().filter(|sets| others.contains(sets)) {
            push_names(&mut text, others, known.len(), sets);
            push_change(&mut text, '+', sets);
        }
        text
    }

    /// From text; `known` is how many capabilities the kernel knows, which are `all`. None if it makes no
    /// sense.
    pub fn from_text(text: &str, known: usize) -> Option<Self> {
        let mut sets = [0; MOST];
        for clause in text.split_ascii_whitespace() {
            let (names, mut actions) = clause.split_at(clause.find(['=', '+', '-'])?);
            let mut chosen = [false; MOST];
            match names {
                "" if actions.starts_with('=') => chosen[..known.min(MOST)].fill(true),
                names => {
                    for name in names.split(',') {
                        if name.eq_ignore_ascii_case("all") {
                            chosen[..known.min(MOST)].fill(true);
                        } else {
                            *chosen.get_mut(number(name)?)? = true;
                        }
                    }
                }
            }
            let mut first = true;
            while let Some(operator) = actions.chars().next() {
                let rest = &actions[1..];
                let end = rest.find(['=', '+', '-']).unwrap_or(rest.len());
                let (letters, after) = rest.split_at(end);
                actions = after;
                let flags = letters.chars().try_fold(0, |flags, letter| {
                    let found = LETTERS.iter().find(|(_, l)| *l == letter)?;
                    Some(flags | found.0)
                })?;
                if (operator == '=' && !first) || (operator != '=' && flags == 0) {
                    return None;
                }
                for (set, _) in sets.iter_mut().zip(chosen).filter(|(_, chosen)| *chosen) {
                    *set = match operator {
                        '=' => flags,
                        '+' => *set | flags,
                        _ => *set & !flags,
                    };
                }
                first = false;
            }
        }
        Some(Self(sets))
    }
}

/// How many capabilities this machine's kernel knows.
pub fn known() -> usize {
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap");
    last.ok().and_then(|text| text.trim().parse::<usize>().ok()).map_or(NAMES.len(), |n| n + 1)
}

fn number(name: &str) -> Option<usize> {
    let by_name = NAMES.iter().position(|n| n.eq_ignore_ascii_case(name));
    by_name.or_else(|| name.parse().ok().filter(|n| *n < MOST && !name.starts_with('+')))
}

fn push_letters(text: &mut String, sets: Sets) {
    text.extend(LETTERS.iter().filter(|(set, _)| sets & set != 0).map(|(_, letter)| letter));
}

fn push_change(text: &mut String, operator: char, sets: Sets) {
    if sets != 0 {
        text.push(operator);
        push_letters(text, sets);
    }
}

/// Names of the capabilities that are in exactly these sets, after a space.
fn push_names(text: &mut String, all: &[Sets], first: usize, sets: Sets) {
    let mut separator = if text.is_empty() { "" } else { " " };
    for (n, _) in all.iter().enumerate().filter(|(_, s)| **s == sets) {
        text.push_str(separator);
        match NAMES.get(first + n) {
            Some(name) => text.push_str(name),
            None => text.push_str(&(first + n).to_string()),
        }
        separator = ",";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(permitted: u64, inheritable: u64, effective: bool) -> String {
        let halves = |v: u64| v.to_le_bytes().as_chunks::<4>().0.to_vec();
        let (p, i) = (halves(permitted), halves(inheritable));
        let magic = REVISION_2 | u32::from(effective);
        let value = [magic.to_le_bytes(), p[0], i[0], p[1], i[1]].concat();
        let capabilities = Capabilities::from_xattr(&value).unwrap();
        let text = capabilities.to_text(41);
        assert_eq!(Capabilities::from_text(&text, 41), Some(capabilities), "{text}");
        text
    }

    const ALL: u64 = (1 << 41) - 1;

    #[test]
    fn texts_are_those_of_cap_to_text() {
        for (permitted, inheritable, effective, expected) in [
            (0, 0, true, "="),
            (1, 0, true, "cap_chown=ep"),
            (1, 1, true, "cap_chown=eip"),
            (3, 1, false, "cap_chown=ip cap_dac_override+p"),
            (1, 2, true, "cap_dac_override=ei cap_chown+ep"),
            (ALL, ALL, true, "=eip"),
            (ALL ^ 3, 1, true, "=ep cap_chown+i-p cap_dac_override-ep"),
            (ALL, 1, true, "=ep cap_chown+i"),
            (1 << 41 | 1, 0, true, "cap_chown=ep 41+ep"),
            (1 << 63, 0, false, "= 63+p"),
            (ALL | 1 << 41, 0, false, "=p 41+p"),
            (
                0x3c,
                ALL ^ 0xf0,
                true,
                "=ei cap_dac_read_search,cap_fowner+p cap_fsetid,cap_kill+p-i cap_setgid,cap_setuid-ei",
            ),
        ] {
            assert_eq!(text(permitted, inheritable, effective), expected);
        }
    }

    #[test]
    fn what_more_have_goes_without_saying_and_of_as_many_the_fewest_sets() {
        let from = |a: u32, b: u32| ((1u64 << b) - 1) & !((1 << a) - 1);
        assert!(text(from(0, 28), from(14, 28), false).starts_with("=p "));
        assert!(text(from(0, 14), from(14, 27), false).starts_with("cap_"));
        assert!(text(from(0, 27), from(14, 41), false).starts_with("=p "));
    }

    #[test]
    fn texts_are_read_as_cap_from_text_reads_them() {
        let same = |a: &str, b: &str| {
            let read = |t| Capabilities::from_text(t, 41);
            assert!(read(a).is_some(), "{a}");
            assert_eq!(read(a), read(b), "{a} and {b}");
        };
        same("CAP_SYS_ADMIN=ep", "21+pe");
        same("all=p cap_chown-p", "=p cap_chown=");
        same("cap_chown=p+i-p", "cap_chown=i");
        same("  cap_chown=p \n ", "cap_chown=pp");
        same("=p =i", "all+i");
        same("", "=");
        for nonsense in [
            "cap_chown",
            "cap_chown+",
            "cap_chown+p=i",
            "+p",
            "-p",
            "cap_chown,=p",
            "64=p",
            "+1=p",
            "cap_chown=x",
            "cap_chown=p-",
            "cap_chown= p",
            "cap_chown==p",
            "cap_none=p",
            "=é",
        ] {
            assert_eq!(Capabilities::from_text(nonsense, 41), None, "{nonsense}");
        }
    }

    #[test]
    fn for_files_effective_is_all_or_nothing() {
        let form = |t| Capabilities::from_text(t, 41).unwrap().to_xattr();
        assert_eq!(form("cap_chown=ep cap_kill=p"), None);
        assert_eq!(form("cap_chown=e"), None);
        assert_eq!(form("cap_chown=ep").unwrap()[..8], [1, 0, 0, 2, 1, 0, 0, 0]);
        assert_eq!(form("").unwrap().len(), 20);
    }

    #[test]
    fn what_is_not_the_kernels_form_is_none() {
        for value in [&b""[..], b"\x01", &[0; 20], &[1; 19], &[0xff; 24]] {
            assert_eq!(Capabilities::from_xattr(value), None);
        }
    }
}
