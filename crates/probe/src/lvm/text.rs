// SPDX-License-Identifier: Apache-2.0
//! The grammar of LVM's texts, as lvm.conf(5) has it: sections in braces, of values and of more sections. Metadata is
//! written in it, and so is the configuration.
//!
//! What is out of the ordinary (names that are paths, references) is refused: it is for `lvm` to read.

use super::Doubt;
use std::borrow::Cow;

/// Sections in sections: metadata has four.
const MAX_DEPTH: usize = 8;

/// What is between two braces, or all of a text: names and what they stand for, in the text's order.
#[derive(Debug, Default, PartialEq)]
pub struct Section<'t>(pub Vec<(&'t str, Node<'t>)>);

/// What a name stands for.
#[derive(Debug, PartialEq)]
pub enum Node<'t> {
    /// More names.
    Section(Section<'t>),
    /// A value.
    Value(Value<'t>),
}

/// A value.
#[derive(Debug, PartialEq)]
pub enum Value<'t> {
    /// A whole number.
    Number(i64),
    /// Another number, which nothing here needs: a fraction, an octal one.
    Other,
    /// A text in quotes.
    Text(Cow<'t, str>),
    /// Values in brackets, none of which is a list.
    List(Vec<Value<'t>>),
}

impl<'t> Section<'t> {
    /// Reads a whole text.
    pub fn parse(text: &'t str) -> Result<Self, Doubt> {
        let mut reader = Reader { rest: text };
        let section = reader.section(0)?;
        match reader.rest {
            "" => Ok(section),
            _ => Err(WRONG),
        }
    }
}

const WRONG: Doubt = Doubt("a text is not of the known grammar");

#[derive(Debug)]
struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    /// Up to the brace that ends it, or the end of the text.
    fn section(&mut self, depth: usize) -> Result<Section<'t>, Doubt> {
        let mut entries = Vec::new();
        loop {
            self.skip();
            if self.rest.is_empty() || self.rest.starts_with('}') {
                return Ok(Section(entries));
            }
            let name = self.name()?;
            self.skip();
            let node = if self.take('=') {
                self.skip();
                Node::Value(self.value()?)
            } else if self.take('{') && depth < MAX_DEPTH {
                let section = self.section(depth + 1)?;
                self.expect('}')?;
                Node::Section(section)
            } else {
                return Err(WRONG);
            };
            entries.push((name, node));
        }
    }

    fn value(&mut self) -> Result<Value<'t>, Doubt> {
        if !self.take('[') {
            return self.scalar();
        }
        let mut list = Vec::new();
        loop {
            self.skip();
            if self.take(']') {
                return Ok(Value::List(list));
            }
            list.push(self.scalar()?);
            self.skip();
            if !self.take(',') {
                self.expect(']')?;
                return Ok(Value::List(list));
            }
        }
    }

    fn scalar(&mut self) -> Result<Value<'t>, Doubt> {
        match self.rest.bytes().next() {
            Some(b'"') => self.quoted().map(Value::Text),
            Some(b'0'..=b'9' | b'-' | b'+' | b'.') => self.number(),
            _ => Err(WRONG),
        }
    }

    fn number(&mut self) -> Result<Value<'t>, Doubt> {
        let text = self.while_(|c| c.is_ascii_digit() || matches!(c, b'-' | b'+' | b'.'));
        let octal = text.len() > 1 && text.starts_with('0') && !text.contains('.');
        match text.parse() {
            Ok(number) if !octal => Ok(Value::Number(number)),
            Ok(_) => Ok(Value::Other),
            Err(_) if text.contains('.') && text.parse::<f64>().is_ok() => Ok(Value::Other),
            Err(_) => Err(WRONG),
        }
    }

    /// A backslash makes the character that follows a part of the text.
    fn quoted(&mut self) -> Result<Cow<'t, str>, Doubt> {
        let inner = self.rest.get(1..).ok_or(WRONG)?;
        let mut escaped = false;
        let end = inner.bytes().position(|c| {
            let ends = c == b'"' && !escaped;
            escaped = c == b'\\' && !escaped;
            ends
        });
        let (text, rest) = inner.split_at(end.ok_or(WRONG)?);
        self.rest = &rest[1..];
        if !text.contains('\\') {
            return Ok(Cow::Borrowed(text));
        }
        let mut plain = String::with_capacity(text.len());
        let mut characters = text.chars();
        while let Some(c) = characters.next() {
            plain.extend(if c == '\\' { characters.next() } else { Some(c) });
        }
        Ok(Cow::Owned(plain))
    }

    fn name(&mut self) -> Result<&'t str, Doubt> {
        match self.while_(|c| c.is_ascii_alphanumeric() || b"_.+-".contains(&c)) {
            "" => Err(WRONG),
            name => Ok(name),
        }
    }

    /// Skips blanks and comments.
    fn skip(&mut self) {
        loop {
            self.rest = self.rest.trim_ascii_start();
            let Some(comment) = self.rest.strip_prefix('#') else { return };
            self.rest = comment.find('\n').map_or("", |end| &comment[end..]);
        }
    }

    fn while_(&mut self, is: impl Fn(u8) -> bool) -> &'t str {
        let end = self.rest.bytes().position(|c| !is(c)).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        text
    }

    fn take(&mut self, c: char) -> bool {
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, c: char) -> Result<(), Doubt> {
        if self.take(c) { Ok(()) } else { Err(WRONG) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(s: &str) -> Node<'_> {
        Node::Value(Value::Text(s.into()))
    }

    #[test]
    fn sections_values_lists_and_comments_are_read() {
        let read = "# a comment\nVG {\nid = \"a\" # another\nseqno=3\nstatus = [\"READ\", \"WRITE\"]\n\
            flags = []\nstripes = [\n\"pv0\", 0,\n\"pv1\", 7\n]\nlv-1.x+ { }\n}\nrate = 0.5 mask = 077";
        let list = |values| Node::Value(Value::List(values));
        let of = |s: &'static str| Value::Text(s.into());
        let stripes = vec![of("pv0"), Value::Number(0), of("pv1"), Value::Number(7)];
        let group = vec![
            ("id", text("a")),
            ("seqno", Node::Value(Value::Number(3))),
            ("status", list(vec![of("READ"), of("WRITE")])),
            ("flags", list(Vec::new())),
            ("stripes", list(stripes)),
            ("lv-1.x+", Node::Section(Section::default())),
        ];
        let other = || Node::Value(Value::Other);
        let whole =
            vec![("VG", Node::Section(Section(group))), ("rate", other()), ("mask", other())];
        assert_eq!(Section::parse(read).unwrap(), Section(whole));
        assert_eq!(Section::parse(" \n# nothing").unwrap(), Section::default());
    }

    #[test]
    fn quotes_and_backslashes_in_texts_are_escaped() {
        let read = Section::parse(r#"a = "x\"y\\" b = "z{}#""#).unwrap();
        assert_eq!(read.0, [("a", text("x\"y\\")), ("b", text("z{}#"))]);
    }

    #[test]
    fn what_is_out_of_the_ordinary_is_refused() {
        for wrong in [
            "a",
            "a =",
            "a = b",
            "a = @b",
            "a/b = 1",
            "\"a\" = 1",
            "a = \"x",
            "a = \"x\\\"",
            "a {",
            "a }",
            "}",
            "a = [1",
            "a = [1 2]",
            "a = [[1]]",
            "a = 0x10",
            "a = 1-2",
            "a = [,]",
            "a = 99999999999999999999",
            "a = 'x'",
            "a\0= 1",
        ] {
            assert!(Section::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Section::parse(&"a{".repeat(1 << 16)).is_err());
        let deep = |n| format!("{}{}", "a{".repeat(n), "}".repeat(n));
        assert!(Section::parse(&deep(MAX_DEPTH)).is_ok());
        assert!(Section::parse(&deep(MAX_DEPTH + 1)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z0-9{}\\[\\]=,#\"\\\\ \n.+-]{0,80}") {
            Section::parse(&text).ok();
        }

        #[test]
        fn any_quoted_text_comes_back(value in "\\PC{0,40}") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            let whole = format!("a = \"{escaped}\"");
            prop_assert_eq!(Section::parse(&whole).unwrap().0, [("a", text(&value))]);
        }
    }
}
