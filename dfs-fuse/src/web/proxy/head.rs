//! Heads on their way through: what is between two neighbours stays there, everything else goes on. Pure.

use hyper::HeaderMap;
use hyper::header::{
    AUTHORIZATION, CONNECTION, COOKIE, EXPECT, Entry, HOST, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};

/// What is between two neighbours (RFC 9110, 7.6.1), beside what `Connection` names.
const BETWEEN: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// What of a client's head goes on to the origin, by way of `via`. The body decides anew how it is framed, who is asked is
/// what the URL says, and whether somebody waits for a word before the body is between us and the client.
pub fn of_request(head: &HeaderMap, via: &HeaderValue) -> HeaderMap {
    let mut passed = end_to_end(head, via);
    passed.remove(HOST);
    passed.remove(EXPECT);
    let takes_trailers = |value: &HeaderValue| {
        value.to_str().is_ok_and(|value| value.split(',').any(|coding| coding.trim() == "trailers"))
    };
    if head.get_all(TE).iter().any(takes_trailers) {
        passed.insert(TE, HeaderValue::from_static("trailers"));
    }
    passed
}

/// What of an origin's head goes on to the client.
pub fn of_answer(head: &HeaderMap, via: &HeaderValue) -> HeaderMap {
    end_to_end(head, via)
}

fn end_to_end(head: &HeaderMap, via: &HeaderValue) -> HeaderMap {
    let mut passed = head.clone();
    let named: Vec<HeaderName> = head
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&BETWEEN) {
        if let Entry::Occupied(entry) = passed.entry(name) {
            entry.remove_entry_mult();
        }
    }
    passed.append(VIA, via.clone());
    passed
}

/// Whether somebody shows who they are.
pub fn has_login(head: &HeaderMap) -> bool {
    head.contains_key(AUTHORIZATION) || head.contains_key(COOKIE)
}

/// Takes away what shows who somebody is.
pub fn without_login(head: &mut HeaderMap) {
    head.remove(AUTHORIZATION);
    head.remove(COOKIE);
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn head(lines: &[(&str, &str)]) -> HeaderMap {
        let mut head = HeaderMap::new();
        for (name, value) in lines {
            head.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        head
    }

    fn shown(head: &HeaderMap) -> Vec<String> {
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", value.to_str().unwrap())
        };
        let mut lines: Vec<_> = head.iter().map(line).collect();
        lines.sort();
        lines
    }

    #[test]
    fn what_is_between_neighbours_stays_there() {
        let asked = head(&[
            ("host", "h.test"),
            ("connection", "close, X-Own"),
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("x-own", "1"),
            ("x-own", "2"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic eA=="),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("via", "1.1 before"),
            ("x-other", "3"),
        ]);
        let via = HeaderValue::from_static("1.1 dfs-1");
        let expected =
            ["cookie: a=1", "cookie: b=2", "te: trailers", "via: 1.1 before", "via: 1.1 dfs-1"];
        let expected = [&expected[..], &["x-other: 3"]].concat();
        assert_eq!(shown(&of_request(&asked, &via)), expected);
        let answered = head(&[("trailer", "x"), ("connection", "close"), ("content-length", "5")]);
        let expected = ["content-length: 5", "trailer: x", "via: 1.1 dfs-1"];
        assert_eq!(shown(&of_answer(&answered, &via)), expected);
    }
}
