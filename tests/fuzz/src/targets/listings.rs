//! What origins answer that is meant to be a list.

use dfs_source::s3::parse_object_page;
use dfs_source::{check_path, parse_index_page, parse_json_listing};
use url::Url;

/// Longest result that a listing of `bytes` can honestly have.
fn check(names: impl ExactSizeIterator<Item = Vec<u8>>, bytes: &[u8]) {
    assert!(names.len() <= bytes.len(), "more members than bytes");
    for name in names {
        assert!(check_path(&name).is_ok() && !name.contains(&b'/'), "{:?}", name.escape_ascii());
    }
}

pub(super) fn index_page(page: &[u8]) {
    let base = Url::parse("http://host/dir/sub/").expect("it is an address");
    if let Ok(links) = parse_index_page(page, &base) {
        check(links.into_iter().map(|link| link.name), page);
    }
}

pub(super) fn json(document: &[u8]) {
    if let Ok(links) = parse_json_listing(document) {
        check(links.into_iter().map(|link| link.name), document);
    }
}

pub(super) fn objects(page: &[u8]) {
    if let Ok(found) = parse_object_page(page) {
        assert!(found.objects.len() + found.prefixes.len() <= page.len());
    }
}

/// As nginx, Apache and Python's http.server write them.
pub(super) fn pages() -> Vec<Vec<u8>> {
    let nginx = r#"<html><head><title>Index of /dir/sub/</title></head><body>
<h1>Index of /dir/sub/</h1><hr><pre><a href="../">../</a>
<a href="d/">d/</a>                                               12-Mar-2026 10:00       -
<a href="a%20b.txt">a b.txt</a>                                   12-Mar-2026 10:00    1234
</pre><hr></body></html>"#;
    let apache = r#"<!DOCTYPE HTML><html><head><title>Index of /dir/sub</title></head><body>
<h1>Index of /dir/sub</h1><table><tr><th><a href="?C=N;O=D">Name</a></th></tr>
<tr><td valign="top"><img src="/icons/folder.gif" alt="[DIR]"></td><td><a href="d/">d/</a></td><td>2026-03-12 10:00  </td><td>  - </td></tr>
<tr><td><a href="x.bin"><img src="/icons/b.gif"></a></td><td><a href="x.bin">x.bin</a></td><td>2026-03-12</td><td>4.0K</td></tr>
</table></body></html>"#;
    let python = r#"<!DOCTYPE HTML><html lang="en"><head><meta charset="utf-8">
<title>Directory listing for /dir/sub/</title></head><body><h1>Directory listing for /dir/sub/</h1>
<ul><li><a href="%FF%2Fx">x</a></li><li><a href="link@">link@</a></li><li><a href="&amp;a">&amp;a</a></li></ul></body></html>"#;
    [nginx, apache, python].map(|page| page.as_bytes().to_vec()).to_vec()
}

/// As Caddy and nginx write them.
pub(super) fn documents() -> Vec<Vec<u8>> {
    let caddy = r#"[{"name":"d/","size":0,"url":"./d/","mod_time":"2026-03-12T10:00:00Z","mode":2147484141,"is_dir":true,"is_symlink":false},
{"name":"a b","size":12,"url":"./a%20b","mod_time":"2026-03-12T10:00:00.123456789Z","mode":420,"is_dir":false,"is_symlink":false}]"#;
    let nginx = r#"[{"name":"d","type":"directory","mtime":"Thu, 12 Mar 2026 10:00:00 GMT"},
{"name":"f","type":"file","mtime":"Thu, 12 Mar 2026 10:00:00 GMT","size":12}]"#;
    [caddy, nginx].map(|document| document.as_bytes().to_vec()).to_vec()
}

/// As S3 writes them.
pub(super) fn object_pages() -> Vec<Vec<u8>> {
    let page = r#"<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b=</NextContinuationToken>
<Contents><Key>d/a+b%2Bc%0A%FF</Key><LastModified>2009-10-12T17:50:30.000Z</LastModified><ETag>&quot;fba9&quot;</ETag><Size>434234</Size></Contents>
<CommonPrefixes><Prefix>d/x%2F/</Prefix></CommonPrefixes></ListBucketResult>"#;
    vec![page.as_bytes().to_vec()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_sound() {
        let base = Url::parse("http://host/dir/sub/").unwrap();
        assert!(pages().iter().all(|page| !parse_index_page(page, &base).unwrap().is_empty()));
        assert!(documents().iter().all(|page| parse_json_listing(page).is_ok()));
        assert!(object_pages().iter().all(|page| parse_object_page(page).is_ok()));
    }
}
