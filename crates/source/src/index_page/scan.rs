//! Just enough HTML: anchors with the text that follows them, and headings. One pass, no tree,
//! nothing to overflow.

/// A link and the text between it and whatever begins the next row.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Anchor {
    /// The reference, entities resolved, bytes that are not ASCII percent-encoded.
    pub href: String,
    /// Text after the link: the columns beside a name.
    pub after: String,
}

/// Longest text kept behind a link or in a heading.
const MAX_TEXT_BYTES: usize = 512;

/// Longest reference taken: a name of 255 bytes, percent-encoded, is 765.
const MAX_HREF_BYTES: usize = 8192;

/// A tag (`name` in lower case, `/` first when it closes; the rest of it) or the text between tags.
enum Token<'a> {
    Tag(String, &'a [u8]),
    Text(&'a [u8]),
}

struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let first = *self.rest.first()?;
            if first != b'<' {
                let end = find(self.rest, b"<").unwrap_or(self.rest.len());
                return Some(Token::Text(self.take(end)));
            }
            if self.rest.starts_with(b"<!--") {
                let end = find(self.rest, b"-->").map_or(self.rest.len(), |at| at + 3);
                self.take(end);
                continue;
            }
            let end = tag_end(self.rest);
            let tag = self.take(end);
            let inside = tag.get(1..tag.len() - 1).unwrap_or_default();
            let stop = |byte: &u8| byte.is_ascii_whitespace();
            let name_end = inside.iter().position(stop).unwrap_or(inside.len());
            let name = String::from_utf8_lossy(&inside[..name_end]).to_ascii_lowercase();
            if name == "script" || name == "style" {
                self.skip_raw(&name);
                continue;
            }
            return Some(Token::Tag(name, &inside[name_end..]));
        }
    }
}

impl<'a> Tokens<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// Passes over what is not HTML inside HTML.
    fn skip_raw(&mut self, name: &str) {
        let closing = format!("</{name}").into_bytes();
        let end =
            self.rest.windows(closing.len()).position(|part| part.eq_ignore_ascii_case(&closing));
        self.take(end.unwrap_or(self.rest.len()));
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|part| part == what)
}

/// Length of the tag at the start of `text`, its `>` included; one in quotes does not end it.
fn tag_end(text: &[u8]) -> usize {
    let mut quote = None;
    for (at, byte) in text.iter().enumerate() {
        match (quote, *byte) {
            (None, b'>') => return at + 1,
            (None, b'"' | b'\'') => quote = Some(*byte),
            (Some(open), byte) if open == byte => quote = None,
            _ => {}
        }
    }
    text.len()
}

/// The value of `href` among a tag's attributes.
fn href(attributes: &[u8]) -> Option<&[u8]> {
    let mut rest = attributes;
    loop {
        rest = rest.trim_ascii_start();
        let name_end = rest.iter().position(|b| *b == b'=' || b.is_ascii_whitespace())?;
        let name = &rest[..name_end];
        rest = rest[name_end..].trim_ascii_start();
        let Some(after) = rest.strip_prefix(b"=") else { continue };
        rest = after.trim_ascii_start();
        let quote = rest.first().copied().filter(|byte| matches!(byte, b'"' | b'\''));
        let (value, next) = match quote {
            Some(quote) => {
                let end = rest[1..].iter().position(|byte| *byte == quote)?;
                (&rest[1..=end], &rest[end + 2..])
            }
            None => {
                rest.split_at(rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len()))
            }
        };
        rest = next;
        if name.eq_ignore_ascii_case(b"href") {
            return Some(value);
        }
    }
}

/// Resolves the entities that servers write; unknown ones stay as they are.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == b'&') {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let end = rest.iter().take(12).position(|byte| *byte == b';');
        match end.and_then(|end| entity(&rest[1..end]).map(|resolved| (end, resolved))) {
            Some((end, resolved)) => {
                out.extend_from_slice(resolved.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[end + 1..];
            }
            None => {
                out.push(b'&');
                rest = &rest[1..];
            }
        }
    }
    out.extend_from_slice(rest);
    out
}

fn entity(name: &[u8]) -> Option<char> {
    Some(match name {
        b"amp" => '&',
        b"lt" => '<',
        b"gt" => '>',
        b"quot" => '"',
        b"apos" => '\'',
        b"nbsp" => ' ',
        _ => {
            let number = std::str::from_utf8(name.strip_prefix(b"#")?).ok()?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)?
        }
    })
}

/// A reference as a URL parser takes it: raw bytes that are not ASCII are themselves, not some
/// other character.
fn reference(raw: &[u8]) -> Option<String> {
    if raw.len() > MAX_HREF_BYTES {
        return None;
    }
    let bytes = unescape(raw);
    Some(percent_encoding::percent_encode(&bytes, percent_encoding::CONTROLS).to_string())
}

fn append(text: &mut String, part: &[u8]) {
    if text.len() < MAX_TEXT_BYTES {
        let room = (MAX_TEXT_BYTES - text.len()).min(part.len());
        text.push_str(&String::from_utf8_lossy(&unescape(&part[..room])));
    }
}

/// The links of a page, each with the text of its row.
pub(super) fn anchors(page: &[u8]) -> impl Iterator<Item = Anchor> + '_ {
    let mut tokens = Tokens { rest: page };
    let mut open: Option<Anchor> = None;
    let mut inside = false;
    std::iter::from_fn(move || {
        loop {
            let Some(token) = tokens.next() else { return open.take() };
            match token {
                Token::Tag(name, attributes) if name == "a" => {
                    inside = true;
                    let next = href(attributes).and_then(reference);
                    let next = next.map(|href| Anchor { href, after: String::new() });
                    if let Some(done) = std::mem::replace(&mut open, next) {
                        return Some(done);
                    }
                }
                Token::Tag(name, _) if name == "/a" => inside = false,
                Token::Tag(name, _) if ends_row(&name) => {
                    if let Some(done) = open.take() {
                        return Some(done);
                    }
                }
                // A cell's border parts words.
                Token::Tag(..) => open.iter_mut().for_each(|anchor| anchor.after.push(' ')),
                Token::Text(text) if !inside => {
                    open.iter_mut().for_each(|anchor| append(&mut anchor.after, text));
                }
                Token::Text(_) => {}
            }
        }
    })
}

fn ends_row(tag: &str) -> bool {
    matches!(tag, "tr" | "/tr" | "li" | "/li" | "/ul" | "/table" | "/pre" | "hr")
}

/// The texts of `title` and `h1`.
pub(super) fn headings(page: &[u8]) -> impl Iterator<Item = String> + '_ {
    let mut tokens = Tokens { rest: page };
    std::iter::from_fn(move || {
        loop {
            if !matches!(tokens.next()?, Token::Tag(name, _) if name == "title" || name == "h1") {
                continue;
            }
            let mut text = String::new();
            for token in tokens.by_ref() {
                match token {
                    Token::Text(part) => append(&mut text, part),
                    Token::Tag(name, _) if name == "/title" || name == "/h1" => break,
                    Token::Tag(..) => {}
                }
            }
            return Some(text);
        }
    })
}
