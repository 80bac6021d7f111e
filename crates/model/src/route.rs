//! Who is responsible for what: rendezvous hashing over the member list (design §4).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::task::FieldHasher;
use crate::{CanonicalUrl, HostId};

/// Key of one thing whatever its version: all versions and askers in an area meet at one scheduler.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouteKey([u8; 32]);

impl RouteKey {
    /// The key of a URL in a domain; frozen by test vectors.
    pub fn of(domain: &str, url: &CanonicalUrl) -> Self {
        let mut hasher = FieldHasher::new("dfs.route.v1");
        hasher.field(domain);
        hasher.field(url.as_str());
        Self(hasher.finish())
    }

    /// A number below `whole`, the same for ever: what is divided into shares is divided by it. It has nothing to do
    /// with [`rank`]. Frozen by test vectors.
    pub fn drawn_of(&self, whole: u32) -> u32 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"dfs.arm.v1").update(&self.0);
        let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
        let drawn = u64::from_be_bytes([a, b, c, d, e, f, g, h]) % u64::from(whole.max(1));
        u32::try_from(drawn).expect("it is less than a u32")
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RouteKey({:02x}{:02x}{:02x}…)", self.0[0], self.0[1], self.0[2])
    }
}

/// Members ranked for a key, the responsible one first (highest random weight).
///
/// Every client with the same member list ranks alike; adding or losing a member moves only its
/// share. Load is not an input on purpose.
pub fn rank<'m>(key: &RouteKey, members: impl IntoIterator<Item = &'m HostId>) -> Vec<HostId> {
    let mut weighted: Vec<([u8; 32], HostId)> = members
        .into_iter()
        .map(|member| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(b"dfs.rank.v1").update(key.as_bytes()).update(member.as_bytes());
            (*hasher.finalize().as_bytes(), *member)
        })
        .collect();
    weighted.sort_unstable_by(|a, b| b.cmp(a));
    weighted.into_iter().map(|(_, member)| member).collect()
}

/// Areas in the order in which they are nearer to an [`origin`](CanonicalUrl::origin), the nearest first, as far as
/// nobody knows better: each origin has an area that asks it for all others.
///
/// Whoever knows the same areas ranks alike. By origin, not by URL: what an artifact consists of has URLs of its own, and
/// must be known where it was found out what the artifact is. Frozen by test vectors.
pub fn rank_areas<'a>(origin: &str, areas: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let weight = |area: &str| {
        let mut hasher = FieldHasher::new("dfs.area.v1");
        hasher.field(origin);
        hasher.field(area);
        hasher.finish()
    };
    let mut weighted: Vec<_> = areas.into_iter().map(|area| (weight(area), area)).collect();
    weighted.sort_unstable_by(|a, b| b.cmp(a));
    weighted.dedup();
    weighted.into_iter().map(|(_, area)| area).collect()
}

/// Areas by the origin that they are nearest to, as the operator says: a host, `host:port`, or a bucket.
pub type Nearest = BTreeMap<String, String>;

/// Areas, the nearest to the origin of `url` first: the one that the operator names, then as they rank.
pub fn order_areas<'a>(
    url: &CanonicalUrl,
    nearest: &Nearest,
    areas: impl IntoIterator<Item = &'a str>,
) -> Vec<&'a str> {
    let origin = url.origin();
    // A host is the same in capital letters; a bucket need not be.
    let in_capitals = |name: &str| {
        nearest.iter().find(|(named, _)| named.eq_ignore_ascii_case(name)).map(|(_, area)| area)
    };
    let named = |name: &str| nearest.get(name).or_else(|| in_capitals(name));
    let named = named(origin).or_else(|| named(url.url().host_str()?));
    let mut order = rank_areas(origin, areas);
    // It keeps the order of the others.
    order.sort_by_key(|area| named.is_none_or(|named| named != area));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(path: &str) -> CanonicalUrl {
        CanonicalUrl::parse(&format!("https://example.org/{path}")).unwrap()
    }

    fn members(count: u8) -> Vec<HostId> {
        (0..count).map(|n| HostId::from_bytes([n; 16])).collect()
    }

    #[test]
    fn key_and_ranking_are_frozen() {
        let key = RouteKey::of("public", &url("a"));
        let hex: String = key.as_bytes().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "d6d15f1b6df38618403416fe8d8fcff1ae646dea1bd36b1efdcb9283039a3f6c");
        let ranked: Vec<u8> = rank(&key, &members(8)).iter().map(|m| m.as_bytes()[0]).collect();
        assert_eq!(ranked, [3, 1, 4, 6, 5, 7, 0, 2]);
    }

    #[test]
    fn what_is_drawn_is_frozen() {
        let drawn = |path| RouteKey::of("public", &url(path)).drawn_of(10_000);
        assert_eq!(["a", "b", "c"].map(drawn), [1423, 1951, 1402]);
    }

    #[test]
    fn the_order_of_areas_is_frozen() {
        let order = |origin| rank_areas(origin, ["eu", "us", "ap", "eu"]);
        let orders = ["example.org", "example.org:8080", "bucket"].map(order);
        let [first, second, third] = orders;
        assert_eq!([first, second], [["ap", "eu", "us"]; 2]);
        assert_eq!(third, ["us", "ap", "eu"]);
    }

    #[test]
    fn an_area_that_is_gone_moves_only_what_it_was_the_nearest_of() {
        let all = ["a", "b", "c", "d"];
        for n in 0..500 {
            let origin = format!("host{n}");
            let before = rank_areas(&origin, all);
            let after = rank_areas(&origin, all.into_iter().filter(|area| *area != "d"));
            let kept: Vec<_> = before.into_iter().filter(|area| *area != "d").collect();
            assert_eq!(kept, after);
        }
    }

    #[test]
    fn losing_a_member_moves_only_its_share() {
        let all = members(10);
        let fewer = &all[..9];
        for n in 0..500 {
            let key = RouteKey::of("public", &url(&n.to_string()));
            let before = rank(&key, &all);
            let after = rank(&key, fewer);
            let kept: Vec<HostId> = before.into_iter().filter(|m| fewer.contains(m)).collect();
            assert_eq!(kept, after);
        }
    }

    #[test]
    fn shares_are_even() {
        let all = members(10);
        let mut count = [0u32; 10];
        for n in 0..5_000 {
            let key = RouteKey::of("public", &url(&n.to_string()));
            count[usize::from(rank(&key, &all)[0].as_bytes()[0])] += 1;
        }
        assert!(count.iter().all(|&n| (400..600).contains(&n)), "{count:?}");
    }

    #[test]
    fn the_operator_has_the_first_word_and_the_port_may_be_left_out() {
        let nearest = |origin: &str, area: &str| Nearest::from([(origin.into(), area.into())]);
        let first = |text: &str, nearest: &Nearest| {
            order_areas(&CanonicalUrl::parse(text).unwrap(), nearest, ["ap", "eu", "us"])[0]
                .to_owned()
        };
        for area in ["ap", "eu", "us"] {
            assert_eq!(first("https://example.org/x", &nearest("example.org", area)), area);
            assert_eq!(first("http://example.org:81/", &nearest("example.org", area)), area);
            assert_eq!(first("http://example.org:81/", &nearest("example.org:81", area)), area);
            assert_eq!(first("s3://bucket/key", &nearest("bucket", area)), area);
            assert_eq!(first("https://example.org/x", &nearest("Example.ORG", area)), area);
            let mut of_both = nearest("bucket", area);
            of_both.insert("Bucket".into(), "none".into());
            assert_eq!(first("s3://bucket/key", &of_both), area);
        }
        let usual = rank_areas("example.org", ["ap", "eu", "us"]);
        let moved = order_areas(&url("x"), &nearest("example.org", usual[2]), ["ap", "eu", "us"]);
        assert_eq!(moved, [usual[2], usual[0], usual[1]]);
        let unknown = order_areas(&url("x"), &nearest("example.org", "xx"), usual.clone());
        assert_eq!(unknown, usual, "an area that is not there is nearest to nothing");
    }
}
