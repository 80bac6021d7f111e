//! Reads the index pages that web servers write for directories: nginx, Apache (plain, fancy,
//! table) and Python.
//!
//! Pure: bytes and the page's URL in, names directly below it out. Whatever else is on the page —
//! links to the parent, to other sites, that sort the table, that lead deeper or nowhere — is not a
//! member.

mod scan;

use std::collections::HashMap;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::entry::escaped;
use crate::{Timestamp, check_path};
use scan::{Anchor, anchors, headings};

/// A member of a directory as its index page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// One path element, percent-decoded; always passes [`check_path`](crate::check_path) and has no slash.
    pub name: Vec<u8>,
    /// Its name is none that a file can have: this is what can be shown of it.
    pub unusable: bool,
    /// Whether its link ends in a slash.
    pub directory: bool,
    /// Bytes, where the page shows an exact number of them.
    pub length: Option<u64>,
    /// When it was last changed, where the listing tells that exactly.
    pub modified: Option<Timestamp>,
}

impl Link {
    /// A member of which nothing but its name is known; none where that stands for a directory itself.
    pub(crate) fn new(name: Vec<u8>, directory: bool) -> Option<Self> {
        if matches!(&name[..], b"" | b"." | b"..") {
            return None;
        }
        let unusable = name.contains(&b'/') || check_path(&name).is_err();
        let name = if unusable { escaped(&name) } else { name };
        Some(Self { name, unusable, directory, length: None, modified: None })
    }
}

/// Why a page lists nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IndexPageError {
    /// Neither its title nor its heading is one that servers give to listings.
    #[error("it is a web page but not an index page of nginx, Apache or Python's http.server")]
    NotAnIndex,
}

/// The members that an index page at `base` shows, in its order, each name once.
pub fn parse_index_page(page: &[u8], base: &Url) -> Result<Vec<Link>, IndexPageError> {
    if !headings(page).any(|heading| names_a_listing(&heading)) {
        return Err(IndexPageError::NotAnIndex);
    }
    let mut found: Vec<Link> = Vec::new();
    let mut places = HashMap::new();
    for link in anchors(page).filter_map(|anchor| member(&anchor, base)) {
        // An icon may link to the same member; the columns stand behind the name only.
        let place = (link.name.clone(), link.unusable);
        match places.get(&place) {
            Some(&place) => {
                let known: &mut Link = &mut found[place];
                known.length = known.length.or(link.length);
            }
            None => {
                places.insert(place, found.len());
                found.push(link);
            }
        }
    }
    Ok(found)
}

fn names_a_listing(heading: &str) -> bool {
    let heading = heading.trim_start().to_ascii_lowercase();
    heading.starts_with("index of") || heading.starts_with("directory listing")
}

fn member(anchor: &Anchor, base: &Url) -> Option<Link> {
    let url = base.join(&anchor.href).ok()?;
    // A query marks a view of the page (Apache's sort order), not a member.
    if url.origin() != base.origin() || url.query().is_some() {
        return None;
    }
    let rest = below(url.path(), base.path())?;
    let (rest, directory) = match rest.strip_suffix('/') {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let name: Vec<u8> = percent_decode_str(rest).collect();
    if rest.contains('/') {
        return None;
    }
    let length = if directory { None } else { exact_length(&anchor.after) };
    Some(Link { length, ..Link::new(name, directory)? })
}

/// What of `path` lies below the directory that `base` is in, whatever either chose to
/// percent-encode.
fn below<'a>(path: &'a str, base: &str) -> Option<&'a str> {
    let directory = &base[..=base.rfind('/')?];
    if let Some(rest) = path.strip_prefix(directory) {
        return Some(rest);
    }
    let mut rest = path;
    for element in directory.split_inclusive('/') {
        let end = rest.find('/')? + 1;
        let same = percent_decode_str(&rest[..end]).eq(percent_decode_str(element));
        rest = same.then(|| &rest[end..])?;
    }
    Some(rest)
}

/// The size column, which stands after date and time; only bare digits are exact: `1.2M` is
/// rounded.
fn exact_length(after: &str) -> Option<u64> {
    let words: Vec<&str> = after.split_ascii_whitespace().collect();
    let at = words.windows(2).position(|pair| is_date(pair[0]) && is_time(pair[1]))?;
    let size = words.get(at + 2)?;
    let digits = size.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| size.parse().ok())?
}

/// `20-Nov-2026` or `2026-11-20`.
fn is_date(word: &str) -> bool {
    let lengths: Vec<usize> = word.split('-').map(str::len).collect();
    let characters = word.bytes().all(|byte| byte == b'-' || byte.is_ascii_alphanumeric());
    characters && matches!(lengths[..], [2, 3, 4] | [4, 2, 2] | [4, 3, 2])
}

/// `09:07` or `09:07:22`.
fn is_time(word: &str) -> bool {
    let characters = word.bytes().all(|byte| byte == b':' || byte.is_ascii_digit());
    characters && matches!(word.len(), 5 | 8) && word.as_bytes()[2] == b':'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn links(page: &str, base: &str) -> Vec<(String, bool, Option<u64>)> {
        let links = parse_index_page(page.as_bytes(), &Url::parse(base).unwrap()).unwrap();
        let shown =
            |link: Link| (link.name.escape_ascii().to_string(), link.directory, link.length);
        links.into_iter().map(shown).collect()
    }

    fn row(name: &str, directory: bool, length: Option<u64>) -> (String, bool, Option<u64>) {
        (name.to_owned(), directory, length)
    }

    #[test]
    fn nginx_shows_exact_sizes() {
        let page = include_str!("index_page/fixtures/nginx.html");
        let expected = [
            row("sub", true, None),
            row("a & b.txt", false, Some(5)),
            row("big.bin", false, Some(1_048_576)),
            row("c:d", false, Some(0)),
            row("\\xff.bin", false, Some(1)),
            row("a-name-so-long-that-nginx-cuts-it-in-the-visible-text.bin", false, Some(12)),
        ];
        assert_eq!(links(page, "http://h/dir/"), expected);
    }

    #[test]
    fn apache_rounds_sizes_and_links_its_columns() {
        for page in [
            include_str!("index_page/fixtures/apache_fancy.html"),
            include_str!("index_page/fixtures/apache_table.html"),
        ] {
            let expected = [
                row("sub", true, None),
                row("a & b.txt", false, Some(5)),
                row("big.bin", false, None),
                row("c:d", false, Some(0)),
            ];
            assert_eq!(links(page, "http://h/dir/"), expected);
        }
    }

    #[test]
    fn plain_pages_show_names_only() {
        let expected =
            [row("sub", true, None), row("a & b.txt", false, None), row("big.bin", false, None)];
        let apache = include_str!("index_page/fixtures/apache_plain.html");
        assert_eq!(links(apache, "http://h/dir/"), expected);
        let python = include_str!("index_page/fixtures/python.html");
        assert_eq!(links(python, "http://h/dir/"), expected);
    }

    #[test]
    fn links_that_leave_the_directory_are_not_members() {
        let page = r##"<title>Index of /dir</title>
            <a href="..">a</a><a href="../">b</a><a href="/">c</a><a href="/other/x">d</a><a href=".">e</a>
            <a href="/dir/">f</a><a href="">g</a><a href="?C=N;O=D">h</a><a href="x?y">i</a><a href="#top">j</a>
            <a href="http://evil/dir/k">k</a><a href="https://h/dir/l">l</a><a href="//evil/dir/m">m</a>
            <a href="mailto:n">n</a><a href="javascript:o">o</a><a href="a/b">p</a><a href="a%2fb">q</a>
            <a href="%2e%2e/">r</a><a href="%2e%2e%2fs">s</a><a href="%00">t</a><a href="sub//">u</a>
            <a href="file:///etc/passwd">v</a><a href="..%5cw">w</a><a name="x">x</a><a href=>y</a>"##;
        let links =
            parse_index_page(page.as_bytes(), &Url::parse("http://h/dir/").unwrap()).unwrap();
        let (told, members): (Vec<_>, Vec<_>) = links.iter().partition(|link| link.unusable);
        assert_eq!(members.iter().map(|link| &link.name[..]).collect::<Vec<_>>(), [b"..\\w"]);
        let told: Vec<_> = told.iter().map(|link| str::from_utf8(&link.name).unwrap()).collect();
        assert_eq!(told, ["a%2Fb", "%2E%2E%2Fs", "%00"], "they are shown, and lead nowhere");
    }

    #[test]
    fn absolute_links_into_the_directory_are_members_however_they_are_encoded() {
        let page = "<h1>Index of /</h1><a href='/a%2Db/x'>x</a><a href=http://h/a-b/y>y</a><a href='./z'>z</a>
            <!-- <a href='hidden'> --><script>'<a href=\"code\">'</script><A HREF=\"y\">again</A>";
        let expected = [row("x", false, None), row("y", false, None), row("z", false, None)];
        assert_eq!(links(page, "http://h/a-b/"), expected);
    }

    #[test]
    fn an_ordinary_web_page_is_not_a_listing() {
        let base = Url::parse("http://h/").unwrap();
        let page = b"<title>Welcome</title><h1>Hello</h1><a href=x>x</a>";
        assert_eq!(parse_index_page(page, &base), Err(IndexPageError::NotAnIndex));
        assert_eq!(parse_index_page(b"", &base), Err(IndexPageError::NotAnIndex));
    }

    proptest! {
        #[test]
        fn no_page_makes_it_panic_or_leave_the_directory(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just(b"<a href=\"".to_vec()), Just(b"\">".to_vec()), Just(b"</a>".to_vec()),
                    Just(b"../".to_vec()), Just(b"/".to_vec()), Just(b"%2f".to_vec()), Just(b"%2e".to_vec()),
                    Just(b"&#x2f;".to_vec()), Just(b"&amp;".to_vec()), Just(b"<!--".to_vec()),
                    Just(b"<script>".to_vec()), Just(b" 2026-01-02 03:04 ".to_vec()),
                    proptest::collection::vec(any::<u8>(), 0..12),
                ],
                0..60,
            ),
        ) {
            let page = [&b"<title>Index of /</title>"[..], &parts.concat()].concat();
            let base = Url::parse("http://h/dir/").unwrap();
            for link in parse_index_page(&page, &base).unwrap() {
                prop_assert!(check_path(&link.name).is_ok() && !link.name.contains(&b'/'));
            }
        }

        #[test]
        fn any_name_survives_the_page(name in proptest::collection::vec(1u8.., 1..60)) {
            prop_assume!(check_path(&name).is_ok() && !name.contains(&b'/'));
            let href = percent_encoding::percent_encode(&name, percent_encoding::NON_ALPHANUMERIC);
            let page = format!("<title>Index of /</title><pre><a href=\"{href}\">x</a> 01-Jan-2026 00:00 7\n");
            let links = parse_index_page(page.as_bytes(), &Url::parse("http://h/dir/").unwrap()).unwrap();
            prop_assert_eq!(links, vec![Link { length: Some(7), ..Link::new(name, false).unwrap() }]);
        }
    }
}
