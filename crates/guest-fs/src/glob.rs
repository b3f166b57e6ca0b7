// SPDX-License-Identifier: Apache-2.0
//! Shell patterns, matched as bytes: `*`, `?`, `[...]` and `\`.

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<u8>);

impl Pattern {
    /// A pattern of this text.
    pub fn new(text: &[u8]) -> Self {
        Self(text.to_vec())
    }

    /// Whether it matches the whole text; `/` is a character as any other.
    pub fn matches(&self, text: &[u8]) -> bool {
        matches(&self.0, text)
    }

    /// Whether it leaves a member out of an archive: it matches the member's path, or the end of it from
    /// after a slash on.
    pub fn matches_member(&self, path: &[u8]) -> bool {
        let after_slashes =
            path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i + 1);
        std::iter::once(0).chain(after_slashes).any(|i| i < path.len() && self.matches(&path[i..]))
    }
}

/// Goes on after the last `*` that was met, one byte further each time: never worse than quadratic.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
            continue;
        }
        if let Some(next) = one(pattern, p, text[t]) {
            p = next;
            t += 1;
            continue;
        }
        let Some((after, from)) = star else { return false };
        star = Some((after, from + 1));
        p = after;
        t = from + 1;
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

/// Where the pattern goes on if its next element matches this byte.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match pattern.get(p)? {
        b'?' => Some(p + 1),
        b'\\' if p + 1 < pattern.len() => (pattern[p + 1] == byte).then_some(p + 2),
        b'[' => match set(pattern, p + 1, byte) {
            Some((true, next)) => Some(next),
            Some((false, _)) => None,
            // A bracket that nothing closes is one.
            None => (byte == b'[').then_some(p + 1),
        },
        &literal => (literal == byte).then_some(p + 1),
    }
}

/// Whether a set holds a byte, and where the pattern goes on after it.
fn set(pattern: &[u8], begin: usize, byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(pattern.get(begin), Some(b'!' | b'^'));
    let first = begin + usize::from(negated);
    let mut i = first;
    let mut found = false;
    loop {
        match *pattern.get(i)? {
            b']' if i > first => return Some((found != negated, i + 1)),
            b'[' if pattern.get(i + 1) == Some(&b':') => {
                let rest = &pattern[i + 2..];
                let end = rest.windows(2).position(|w| w == b":]")?;
                found |= class(&rest[..end], byte);
                i += end + 4;
                continue;
            }
            mut low => {
                if low == b'\\' {
                    i += 1;
                    low = *pattern.get(i)?;
                }
                let high = match (pattern.get(i + 1), pattern.get(i + 2)) {
                    (Some(b'-'), Some(&high)) if high != b']' => {
                        i += 2;
                        high
                    }
                    _ => low,
                };
                found |= (low..=high).contains(&byte);
                i += 1;
            }
        }
    }
}

fn class(name: &[u8], byte: u8) -> bool {
    match name {
        b"alpha" => byte.is_ascii_alphabetic(),
        b"digit" => byte.is_ascii_digit(),
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"upper" => byte.is_ascii_uppercase(),
        b"lower" => byte.is_ascii_lowercase(),
        b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
        b"blank" => matches!(byte, b' ' | b'\t'),
        b"punct" => byte.is_ascii_punctuation(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"graph" => byte.is_ascii_graphic(),
        b"cntrl" => byte.is_ascii_control(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn m(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern.as_bytes()).matches(text.as_bytes())
    }

    #[test]
    fn patterns_match_as_in_the_shell() {
        assert!(m("*", "") && m("*.txt", "a.txt") && m("a*b*c", "axxbyyc") && m("?b", "ab"));
        assert!(!m("*.txt", "a.txtx") && !m("?", "") && !m("a", "A"));
        assert!(m("[a-c]x", "bx") && m("[!a-c]x", "dx") && !m("[^a-c]x", "ax"));
        assert!(
            m("[]]", "]") && m("[a-]", "-") && m("[[:digit:]]*", "1a") && !m("[[:digit:]]", "a")
        );
        assert!(m("\\*", "*") && !m("\\*", "a") && m("[", "[") && m("[\\]]", "]"));
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        assert!(!m(&"*a".repeat(200), &"a".repeat(10_000).replace('a', "b")));
    }

    #[test]
    fn a_member_is_left_out_by_the_end_of_its_path() {
        let p = Pattern::new(b"*.o");
        assert!(p.matches_member(b"./src/x.o") && !p.matches_member(b"./src/x.c"));
        assert!(Pattern::new(b"src").matches_member(b"./src"));
        assert!(Pattern::new(b"./src").matches_member(b"./src"));
        assert!(!Pattern::new(b"rc").matches_member(b"./src"));
        assert!(Pattern::new(b"a/b").matches_member(b"./a/b"));
    }
}
