//! Reads the listings that web servers write as JSON: Caddy's, and nginx's `autoindex_format json`.
//!
//! Pure: bytes in, names directly below out. A name is plain text here.

use serde::Deserialize;

use crate::Timestamp;
use crate::index_page::Link;
use crate::s3::time::iso;

/// Why a document lists nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is JSON but not a listing of Caddy or nginx")]
pub struct NoJsonListing;

#[derive(Deserialize)]
struct Item {
    name: String,
    size: Option<u64>,
    /// Caddy's.
    is_dir: Option<bool>,
    mod_time: Option<String>,
    /// nginx's.
    r#type: Option<String>,
    mtime: Option<String>,
}

/// The members that a JSON listing shows, in its order, each name once.
pub fn parse_json_listing(document: &[u8]) -> Result<Vec<Link>, NoJsonListing> {
    let items: Vec<Item> = serde_json::from_slice(document).map_err(|_| NoJsonListing)?;
    let mut seen = std::collections::HashSet::new();
    let mut links = Vec::new();
    for item in items {
        let directory = match (item.is_dir, item.r#type.as_deref()) {
            (Some(is_dir), _) => is_dir,
            (None, Some(kind)) => kind == "directory",
            (None, None) => return Err(NoJsonListing),
        };
        let name = match directory {
            true => item.name.strip_suffix('/').unwrap_or(&item.name),
            false => &item.name,
        };
        let link = Link::new(name.as_bytes().to_vec(), directory);
        let Some(link) = link.filter(|link| seen.insert((link.name.clone(), link.unusable))) else {
            continue;
        };
        let length = item.size.filter(|_| !directory);
        let modified = item.mod_time.as_deref().and_then(iso);
        let modified = modified.or_else(|| item.mtime.as_deref().and_then(http_time));
        links.push(Link { length, modified, ..link });
    }
    Ok(links)
}

fn http_time(text: &str) -> Option<Timestamp> {
    let time = httpdate::parse_http_date(text).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp { seconds: i64::try_from(since.as_secs()).ok()?, nanos: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check_path;
    use proptest::prelude::*;

    fn link(name: &str, directory: bool, length: Option<u64>, seconds: Option<i64>) -> Link {
        let modified = seconds.map(|seconds| Timestamp { seconds, nanos: 0 });
        Link { length, modified, ..Link::new(name.into(), directory).unwrap() }
    }

    #[test]
    fn both_servers_are_read_with_exact_sizes() {
        let caddy = r#"[{"name":"sub/","size":4096,"url":"./sub/","mod_time":"2009-10-12T17:50:30Z",
            "mode":2147484141,"is_dir":true,"is_symlink":false},
            {"name":"a & b.txt","size":5,"url":"./a%20&%20b.txt","mod_time":"x","is_dir":false}]"#;
        let expected =
            [link("sub", true, None, Some(1_255_369_830)), link("a & b.txt", false, Some(5), None)];
        assert_eq!(parse_json_listing(caddy.as_bytes()).unwrap(), expected);
        let nginx = r#"[{"name":"sub","type":"directory","mtime":"Mon, 12 Oct 2009 17:50:30 GMT"},
            {"name":"b","type":"file","mtime":"Mon, 12 Oct 2009 17:50:30 GMT","size":7}]"#;
        let time = Some(1_255_369_830);
        let expected = [link("sub", true, None, time), link("b", false, Some(7), time)];
        assert_eq!(parse_json_listing(nginx.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn what_leaves_the_directory_is_no_member_and_other_json_no_listing() {
        let names = [".", "..", "../x", "/etc", "a/b", "a\\u0000b", "", "ok", "ok"];
        let items: Vec<_> =
            names.iter().map(|name| format!(r#"{{"name":"{name}","is_dir":false}}"#)).collect();
        let links = parse_json_listing(format!("[{}]", items.join(",")).as_bytes()).unwrap();
        let (told, members): (Vec<_>, Vec<_>) = links.into_iter().partition(|link| link.unusable);
        assert_eq!(members, [link("ok", false, None, None)]);
        assert_eq!(told.len(), 4, "{told:?}");
        for bad in [
            "{}",
            "[1]",
            "[{\"name\":\"x\"}]",
            "",
            "[{\"name\":\"x\",\"is_dir\":false,\"size\":-1}]",
        ] {
            assert_eq!(parse_json_listing(bad.as_bytes()), Err(NoJsonListing), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_member_is_one_element(names in proptest::collection::vec("[./a\u{0}\u{e9}]{0,6}", 0..20), is_dir: bool) {
            let items: Vec<_> = names.iter()
                .map(|name| serde_json::json!({"name": name, "is_dir": is_dir, "size": 1})).collect();
            let document = serde_json::to_vec(&items).unwrap();
            for link in parse_json_listing(&document).unwrap() {
                prop_assert!(check_path(&link.name).is_ok() && !link.name.contains(&b'/'));
            }
        }

        #[test]
        fn no_document_makes_it_panic(document in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse_json_listing(&document);
        }
    }
}
