//! Text that somebody else wrote, for people.

use std::borrow::Cow;

/// As much of `text` as so many characters, with a sign where that is not all.
pub fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((at, _)) => Cow::Owned(format!("{}…", &text[..at])),
        None => Cow::Borrowed(text),
    }
}

/// Whether a character ends a line, moves what a terminal shows, or turns its direction.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text that may be shown on a terminal: what [`is_hidden`] finds is written out.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_hidden(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_and_never_obeyed() {
        assert_eq!(printable("größe 👩\u{200d}🔧"), "größe 👩\u{200d}🔧");
        assert_eq!(printable("a\x1b[31m\n\u{9b}2J"), "a\\u{1b}[31m\\n\\u{9b}2J");
        assert_eq!(printable("abc\u{202e}gpj.exe\u{2028}"), "abc\\u{202e}gpj.exe\\u{2028}");
    }

    #[test]
    fn what_is_cut_is_cut_between_characters_and_says_so() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 3), "äöü…");
        assert_eq!(shortened("x", 0), "…");
        assert_eq!(shortened("", 0), "");
    }
}
