// SPDX-License-Identifier: Apache-2.0
//! POSIX access control lists: the kernel's form and the text that archives hold.
//!
//! The kernel's form (linux/posix_acl_xattr.h): a version (2), then entries of tag, permissions and id, all
//! little-endian. Text: `user::rw-`, `user:1000:r--`, ... with ids as numbers.

/// Version of the kernel's form.
const VERSION: u32 = 2;
/// Tags and how text names them; whether an entry has an id.
const TAGS: [(u16, &str, bool); 6] = [
    (0x01, "user", false),
    (0x02, "user", true),
    (0x04, "group", false),
    (0x08, "group", true),
    (0x10, "mask", false),
    (0x20, "other", false),
];

/// The text of a list, an entry a line; none if it is not one.
pub fn to_text(value: &[u8]) -> Option<String> {
    let (version, entries) = value.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION || entries.len() % 8 != 0 {
        return None;
    }
    let mut text = String::new();
    for entry in entries.chunks_exact(8) {
        let (tag, entry) = entry.split_first_chunk::<2>()?;
        let (permissions, entry) = entry.split_first_chunk::<2>()?;
        let (id, _) = entry.split_first_chunk::<4>()?;
        let tag = u16::from_le_bytes(*tag);
        let (_, name, has_id) = TAGS.iter().find(|(t, ..)| *t == tag)?;
        let permissions = u16::from_le_bytes(*permissions);
        text.push_str(name);
        text.push(':');
        if *has_id {
            text.push_str(&u32::from_le_bytes(*id).to_string());
        }
        text.push(':');
        for (bit, letter) in [(4, 'r'), (2, 'w'), (1, 'x')] {
            text.push(if permissions & bit != 0 { letter } else { '-' });
        }
        text.push('\n');
    }
    Some(text)
}

/// The kernel's form of a text: entries by lines or commas, long or short (`u::rw-`), comments left out; `id`
/// knows names of users (true) and groups. None if it is no list.
pub fn from_text(text: &str, id: impl Fn(bool, &str) -> Option<u32>) -> Option<Vec<u8>> {
    let mut entries: Vec<(u16, u32, u16)> = Vec::new();
    for line in text.split(['\n', ',']) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let fields: Vec<&str> = line.split(':').map(str::trim).collect();
        let (name, who, permissions) = match fields[..] {
            [name, who, permissions] => (name, who, permissions),
            // What has an id after the permissions: `user:name:rw-:1000`.
            [name, _, permissions, number] if !number.is_empty() => (name, number, permissions),
            // `mask:rw-` and `other:r--`.
            [name, permissions] => (name, "", permissions),
            _ => return None,
        };
        let (tag, _, has_id) = TAGS.iter().find(|(_, tag, has_id)| {
            (*tag == name || tag.get(..1) == Some(name)) && *has_id != who.is_empty()
        })?;
        let who =
            if *has_id { who.parse().ok().or_else(|| id(*tag == 0x02, who))? } else { u32::MAX };
        entries.push((*tag, who, parse_permissions(permissions)?));
    }
    if entries.is_empty() {
        return None;
    }
    // The kernel takes them in this order only.
    entries.sort_unstable();
    let mut value = VERSION.to_le_bytes().to_vec();
    for (tag, who, permissions) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(&who.to_le_bytes());
    }
    Some(value)
}

fn parse_permissions(text: &str) -> Option<u16> {
    text.chars().try_fold(0, |bits, c| match c {
        'r' => Some(bits | 4),
        'w' => Some(bits | 2),
        'x' => Some(bits | 1),
        '-' => Some(bits),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_the_kernels_form_are_the_same_list() {
        let text = "user::rw-\nuser:1000:r--\ngroup::r-x\nmask::rwx\nother::---\n";
        let value = from_text(text, |_, _| None).unwrap();
        assert_eq!(value.len(), 4 + 5 * 8);
        assert_eq!(to_text(&value).unwrap(), text);
    }

    #[test]
    fn short_forms_names_and_comments_are_understood() {
        let long =
            from_text("user::rwx\nuser:7:r--\ngroup::---\nmask::r--\nother::---", |_, _| None);
        let short = from_text("g::-,u::rwx,o:-,m:r,u:joe:r #effective:r", |user, name| {
            (user && name == "joe").then_some(7)
        });
        assert_eq!(long, short);
        assert!(long.is_some());
    }

    #[test]
    fn what_is_no_list_is_none() {
        for text in ["", "nonsense", "user:joe:rw-", "user::q", "user:1:2:3:4"] {
            assert_eq!(from_text(text, |_, _| None), None, "{text}");
        }
        assert_eq!(to_text(b"\x02\0\0\0\x01"), None);
        assert_eq!(to_text(b"\x01\0\0\0"), None);
        assert_eq!(to_text(b"\x02\0\0\0\x03\0\0\0\0\0\0\0"), None);
    }
}
