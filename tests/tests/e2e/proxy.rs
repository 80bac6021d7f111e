//! The proxy, as `curl`, `pip`, `apt` and `skopeo` see it.

mod access;
mod programs;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use dfs_tests::origin::{Body, Fault};
use dfs_tests::{Cluster, Origin};
use serde_json::Value;

use crate::support::authority::Authority;
use crate::support::canned::Canned;
use crate::support::curl::{self, Answer, curl};
use crate::support::images::sha256;
use crate::support::servers::Server;
use crate::support::trees::{noise, put};
use crate::support::{Agent, Place, all, binaries, until};

const MIB: u64 = 1 << 20;

/// What asks an agent for a proxy of its own.
const PROXY: &[&str] = &["--proxy-listen", "127.0.0.1:0"];

/// Everything through the swarm that can go there.
const ALL: &str = "[[rule]]\nurl = '^https?://'\naction = 'swarm'\n";

/// What an agent is told that stands in for the origins of one authority, by the operator's own.
fn looks_into<'a>(operator: &'a Authority, origins: &'a Authority) -> [&'a str; 6] {
    [
        "--proxy-ca-cert",
        text(&operator.certificate),
        "--proxy-ca-key",
        text(&operator.key),
        "--ca-file",
        text(&origins.certificate),
    ]
}

/// An agent with a proxy.
struct Proxy<'a> {
    agent: &'a Agent,
    place: &'a Place,
}

impl Proxy<'_> {
    fn address(&self) -> SocketAddr {
        self.agent.node.process().address("proxy").unwrap()
    }

    fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Asks by it as `curl` does.
    fn curl(&self, words: &[&str], url: &str) -> Answer {
        curl(self.place, &[&["--proxy", &self.url()], words].concat(), url)
    }

    /// Requests that it answered in this way.
    fn answers(&self, way: &str) -> u64 {
        self.agent.metric(&format!("dfs_node_proxy_answers_total{{way=\"{way}\"}}"))
    }

    /// Bytes that it gave from there.
    fn given(&self, from: &str) -> u64 {
        self.agent.metric(&format!("dfs_node_proxy_given_bytes_total{{from=\"{from}\"}}"))
    }
}

/// A file of rules.
fn rules(place: &Place, text: &str) -> PathBuf {
    let file = place.path("rules.toml");
    put(&file, text.as_bytes());
    file
}

/// The words that name a file of rules.
fn ruled(place: &Place, text: &str) -> [String; 2] {
    ["--proxy-rules".to_owned(), rules(place, text).display().to_string()]
}

fn solo(place: &Place, text: &str) -> Agent {
    solo_with(place, text, &[])
}

fn solo_with(place: &Place, text: &str, more: &[&str]) -> Agent {
    let [flag, file] = ruled(place, text);
    Agent::solo_with(place, "agent", &[PROXY, &[&flag, &file], more].concat())
}

/// What the echo was asked.
fn echoed(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{}", answer.text()))
}

fn heard(echo: &Value, name: &str) -> Vec<String> {
    let head = echo["head"].as_array().unwrap().iter();
    let named = head.filter(|line| line[0] == name);
    named.map(|line| line[1].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_no_rule_names_comes_and_goes_as_it_is() {
    let place = Place::new();
    let (echo, origin) = (Server::echo(), Origin::start().unwrap());
    let agent = Agent::solo_with(&place, "agent", PROXY);
    let proxy = Proxy { agent: &agent, place: &place };

    let upload = place.path("upload");
    put(&upload, &noise(7, 3_000_000));
    let upload = format!("@{}", upload.display());
    let url = format!("{}a/b?c=d&c=e", echo.url());
    for method in ["POST", "PUT", "PATCH"] {
        let answer = proxy.curl(&["--request", method, "--data-binary", &upload], &url);
        let said = echoed(&answer);
        assert_eq!((answer.exit, answer.status), (0, 203), "{method}");
        assert_eq!(
            (said["method"].as_str(), said["path"].as_str()),
            (Some(method), Some("/a/b?c=d&c=e"))
        );
        assert_eq!(said["sha256"], sha256(&noise(7, 3_000_000)).trim_start_matches("sha256:"));
    }
    let chunked = ["-H", "Transfer-Encoding: chunked", "--data-binary", &upload];
    let said = echoed(&proxy.curl(&chunked, &url));
    assert_eq!(
        (said["length"].as_u64(), heard(&said, "transfer-encoding").len()),
        (Some(3_000_000), 1)
    );

    let said = proxy.curl(
        &["-H", "Connection: X-Own", "-H", "X-Own: 1", "-H", "Cookie: a=1", "-H", "X-Mine: 2"],
        &echo.url(),
    );
    assert_eq!((said.header("x-between"), said.status), (None, 203));
    let cookies = said.head.iter().filter(|(name, _)| name == "set-cookie").count();
    assert_eq!(cookies, 2);
    let said = echoed(&said);
    assert_eq!((heard(&said, "x-own").len(), heard(&said, "proxy-connection").len()), (0, 0));
    assert_eq!(
        (heard(&said, "cookie"), heard(&said, "x-mine")),
        (vec!["a=1".to_owned()], vec!["2".to_owned()])
    );
    assert_eq!(
        heard(&said, "host"),
        [echo.url().trim_start_matches("http://").trim_end_matches('/')]
    );
    assert!(heard(&said, "user-agent")[0].starts_with("curl/"), "{said}");
    assert!(heard(&said, "via")[0].starts_with("1.1 dfs-"), "{said}");
    let trailers = proxy.curl(&["-H", "TE: trailers"], &format!("{}trailers", echo.url()));
    assert_eq!((trailers.exit, trailers.text().as_str()), (0, "abc"));

    origin.put("/file", Body::noise(1, MIB));
    let whole = all(&Body::noise(1, MIB));
    let url = origin.url("/file");
    let head = proxy.curl(&["--head"], &url);
    assert_eq!((head.status, head.header("content-length")), (200, Some("1048576")));
    let part = proxy.curl(&["--range", "1000-1999"], &url);
    assert_eq!((part.status, part.body == whole[1000..2000]), (206, true));
    let beyond = proxy.curl(&["--range", "99999999-"], &url);
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */1048576")));
    let site = place.dir("site");
    put(&site.join("file"), b"abc");
    let server = Server::nginx(&place, &site);
    let url_there = format!("{}file", server.url());
    let etag = proxy.curl(&[], &url_there).header("etag").unwrap().to_owned();
    let same = proxy.curl(&["-H", &format!("If-None-Match: {etag}")], &url_there);
    assert_eq!((same.exit, same.status, same.body.len()), (0, 304, 0));
    assert_eq!(proxy.curl(&[], &origin.url("/none")).status, 404);
    origin.inject(Fault::no_length().on("/file"));
    let chunked = proxy.curl(&[], &url);
    assert_eq!(
        (chunked.header("transfer-encoding"), chunked.body == whole),
        (Some("chunked"), true)
    );
    assert_eq!((proxy.given("task"), proxy.answers("task")), (0, 0));
    assert!(proxy.given("origin") > MIB && proxy.answers("direct") > 8);
}

#[test]
fn the_origin_gives_one_copy_to_two_agents_of_a_cluster() {
    let place = Place::new();
    let (origin, body) = (Origin::start().unwrap(), Body::noise(2, 24 * MIB));
    let whole = all(&body);
    origin.put("/large.bin", body);
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let [flag, file] = ruled(&place, ALL);
    let extra = [PROXY, &[&flag, &file]].concat();
    let agents = ["a", "b"].map(|name| Agent::of_with(&cluster, &place, name, &extra));
    let url = origin.url("/large.bin");
    for agent in &agents {
        let proxy = Proxy { agent, place: &place };
        for _ in 0..2 {
            let answer = proxy.curl(&[], &url);
            assert_eq!((answer.exit, answer.status, answer.body == whole), (0, 200, true));
        }
        for (range, wanted) in [("0-0", 0..1), ("5000000-5999999", 5_000_000..6_000_000)] {
            let part = proxy.curl(&["--range", range], &url);
            assert_eq!((part.status, part.body == whole[wanted.clone()]), (206, true), "{range}");
            let told = format!("bytes {}-{}/{}", wanted.start, wanted.end - 1, 24 * MIB);
            assert_eq!(part.header("content-range"), Some(&*told));
        }
        assert_eq!((proxy.answers("task"), proxy.given("origin")), (4, 0));
        assert!(proxy.given("task") > 48 * MIB);
    }
    let sent = origin.counters().path("/large.bin").body_bytes;
    assert!((24 * MIB..25 * MIB).contains(&sent), "{sent}");
    // Each asked whether it may have it, and which version there is.
    let log = origin.log();
    let asked = |method: &str| log.iter().filter(|logged| logged.method == method).count();
    assert!(asked("HEAD") >= 8, "{}", asked("HEAD"));

    origin.put("/large.bin", Body::noise(3, MIB));
    let proxy = Proxy { agent: &agents[0], place: &place };
    let answer = proxy.curl(&[], &url);
    assert!(answer.body == all(&Body::noise(3, MIB)), "{} {}", answer.status, answer.body.len());
}

#[test]
fn what_is_for_one_alone_goes_past_the_cache() {
    let place = Place::new();
    let origin = Origin::start().unwrap();
    origin.put("/a", Body::noise(4, 200_000));
    origin.put("/b", Body::noise(5, 200_000));
    let own = Canned::answering(|_, path| {
        let kept = if path == "/kept" { "max-age=9" } else { "private, max-age=9" };
        let body = "mine";
        format!("200 OK\r\nETag: \"1\"\r\nCache-Control: {kept}\r\nContent-Length: 4\r\n\r\n{body}")
    });
    let text = format!(
        "[[rule]]\nurl = '/b$'\naction = 'swarm'\nwith-login = true\n\n{ALL}ignore-query = ['session']\n"
    );
    let agent = solo(&place, &text);
    let proxy = Proxy { agent: &agent, place: &place };
    // A client may have all of an answer before the origin has counted the last of it.
    let counted = |path: &str, bytes: u64, by_task: u64| {
        let sent = || origin.counters().path(path).body_bytes;
        until("the origin has counted what it sent", || sent() >= bytes);
        assert_eq!((sent(), proxy.answers("task")), (bytes, by_task), "{path}");
    };

    for login in ["Authorization: Bearer x", "Cookie: session=1"] {
        let answer = proxy.curl(&["-H", login], &origin.url("/a"));
        assert!(answer.status == 200 && answer.body.len() == 200_000);
    }
    counted("/a", 400_000, 0);
    for _ in 0..2 {
        proxy.curl(&[], &origin.url("/a"));
    }
    counted("/a", 600_000, 2);
    let site = place.dir("site");
    put(&site.join("query"), &noise(6, 200_000));
    let server = Server::nginx(&place, &site);
    for session in ["1", "2"] {
        let answer = proxy.curl(&[], &format!("{}query?session={session}", server.url()));
        assert_eq!(answer.body.len(), 200_000);
    }
    let copies = server.sent("GET", "query");
    assert_eq!((copies.iter().sum(), proxy.answers("task")), (200_000, 4), "of all sessions");

    // Whoever shows the right login gets what was fetched with it; whoever shows a wrong one, what the origin says.
    origin.inject(Fault::require_authorization("Bearer right").on("/b"));
    for _ in 0..2 {
        let answer = proxy.curl(&["-H", "Authorization: Bearer right"], &origin.url("/b"));
        assert_eq!((answer.status, answer.body.len()), (200, 200_000));
    }
    counted("/b", 200_000, 6);
    for wrong in [&["-H", "Authorization: Bearer wrong"][..], &[]] {
        assert_eq!(proxy.curl(wrong, &origin.url("/b")).status, 401);
    }

    for _ in 0..2 {
        assert_eq!(proxy.curl(&[], &own.url("/own")).text(), "mine");
    }
    assert_eq!(proxy.answers("task"), 6);
    assert!(own.asked().iter().filter(|path| *path == "/own").count() >= 4);
    assert_eq!(proxy.curl(&[], &own.url("/kept")).exit, 0);
    assert_eq!(proxy.answers("task"), 7);
}

#[test]
fn an_answer_whose_agent_is_killed_is_broken_and_whole_when_it_is_asked_for_again() {
    let place = Place::new();
    let (origin, body) = (Origin::start().unwrap(), Body::noise(5, 24 * MIB));
    let digest = sha256(&all(&body));
    origin.put("/large.bin", body);
    let slow = origin.inject(Fault::pace(MIB).on("/large.bin").method("GET"));
    let mut agent = solo(&place, ALL);
    let (out, url) = (place.path("answer"), origin.url("/large.bin"));
    let proxied = format!("http://{}", Proxy { agent: &agent, place: &place }.address());
    let command = curl::command(&["--proxy", &proxied], &url, &out);
    curl::cut_off(command, &out, 24 * MIB, &mut agent);
    slow.lift();
    agent.start_again();
    let again = Proxy { agent: &agent, place: &place }.curl(&[], &url);
    assert_eq!((again.exit, sha256(&again.body)), (0, digest));
}

#[test]
fn an_origin_that_gives_too_little_or_something_else_breaks_the_connection() {
    let place = Place::new();
    let origin = Origin::start().unwrap();
    for path in ["/shared/short", "/direct/short", "/direct/long"] {
        origin.put(path, Body::noise(6, 2 * MIB));
    }
    let agent = solo(&place, "[[rule]]\nurl = '/shared/'\naction = 'swarm'\n");
    let proxy = Proxy { agent: &agent, place: &place };
    for path in ["/shared/short", "/direct/short"] {
        let cut = origin.inject(Fault::cut_after(300_000).on(path).method("GET"));
        let whole = origin.inject(Fault::ignore_range().on(path).method("GET"));
        let answer = proxy.curl(&[], &origin.url(path));
        assert!(
            answer.exit == 18 && answer.body.len() < 2 * MIB as usize,
            "{path} {}",
            answer.exit
        );
        assert!(cut.struck() > 0, "{path}");
        cut.lift();
        whole.lift();
        let answer = proxy.curl(&[], &origin.url(path));
        assert_eq!((answer.exit, answer.body.len() as u64), (0, 2 * MIB), "{path}");
    }
    let liar = origin.inject(Fault::length_off(5).on("/direct/long"));
    let answer = proxy.curl(&[], &origin.url("/direct/long"));
    assert!(answer.exit == 18 && liar.struck() == 1, "{}", answer.exit);
    assert!(agent.metric("dfs_node_proxy_broken_total") >= 2);

    // One version when it is looked at, another one when it is read.
    let turns = std::sync::atomic::AtomicU64::new(0);
    let fickle = Canned::answering(move |method, _| {
        let turn = turns.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let body = if method == "HEAD" { String::new() } else { format!("{turn:04}") };
        format!("200 OK\r\nETag: \"{turn}\"\r\nContent-Length: 4\r\n\r\n{body}")
    });
    let answer = proxy.curl(&[], &fickle.url("/shared/fickle"));
    let etag = answer.header("etag").unwrap_or_default().trim_matches('"').to_owned();
    let is_one_version = answer.exit == 0 && answer.text() == format!("{:0>4}", etag);
    assert!(is_one_version || answer.exit != 0, "{etag} {}", answer.text());
}

/// A server with TLS that has `large.bin`, and whom it is signed by.
fn secured(place: &Place) -> (Authority, Server) {
    let authority = Authority::new(place, "origins");
    let signed = authority.sign(place, "DNS:localhost,IP:127.0.0.1");
    let site = place.dir("site");
    put(&site.join("large.bin"), &noise(8, 5_000_000));
    let server = Server::nginx_secured(place, &site, &signed);
    (authority, server)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_tunnel_is_not_looked_into() {
    let place = Place::new();
    let (authority, server) = secured(&place);
    let address = server.url().trim_start_matches("https://").trim_end_matches('/').to_owned();
    let agent = solo_with(&place, ALL, &["--proxy-allow", &address]);
    let proxy = Proxy { agent: &agent, place: &place };
    let url = format!("{}large.bin", server.url());
    let trusting = ["--cacert", text(&authority.certificate)];
    let answer = proxy.curl(&trusting, &url);
    assert!(answer.exit == 0 && answer.body == noise(8, 5_000_000), "{}", answer.said);
    let part = proxy.curl(&[&trusting[..], &["--range", "5-9"]].concat(), &url);
    assert_eq!((part.status, part.body == noise(8, 5_000_000)[5..10]), (206, true));
    assert_eq!(proxy.curl(&[], &url).exit, 60, "curl itself does not trust the origin");
    assert_eq!((proxy.answers("tunnel"), proxy.answers("task")), (3, 0));
    until("all of it was counted", || {
        agent.metric("dfs_node_proxy_tunnelled_bytes_total") > 5_000_000
    });
}

#[test]
fn a_connection_that_is_looked_into_is_served_from_the_cache() {
    let place = Place::new();
    let (origins, server) = secured(&place);
    let operator = Authority::new(&place, "operator");
    let address = server.url().trim_start_matches("https://").trim_end_matches('/').to_owned();
    let text_of = format!("intercept = ['{address}']\n\n{ALL}");
    let more = looks_into(&operator, &origins);
    let agent = solo_with(&place, &text_of, &more);
    let proxy = Proxy { agent: &agent, place: &place };
    let url = format!("{}large.bin", server.url());
    let trusting = ["--cacert", text(&operator.certificate)];
    for _ in 0..3 {
        let answer = proxy.curl(&trusting, &url);
        assert!(answer.exit == 0 && answer.body == noise(8, 5_000_000), "{}", answer.said);
    }
    let part = proxy.curl(&[&trusting[..], &["--range", "-5"]].concat(), &url);
    assert_eq!((part.status, part.body == noise(8, 5_000_000)[4_999_995..]), (206, true));
    assert_eq!(server.sent("GET", "large.bin").iter().sum::<u64>(), 5_000_000);
    assert_eq!((proxy.answers("intercepted"), proxy.answers("task")), (4, 4));
    assert_eq!(proxy.curl(&trusting, &format!("{}none", server.url())).status, 404);
    assert_eq!(proxy.curl(&["--cacert", text(&origins.certificate)], &url).exit, 60);
    drop(agent);

    // An origin that the agent does not trust is nobody's.
    let agent = Agent::solo_with(
        &place,
        "careful",
        &[PROXY, &["--proxy-rules", text(&rules(&place, &text_of))], &more[..4]].concat(),
    );
    let answer = Proxy { agent: &agent, place: &place }.curl(&trusting, &url);
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("the connection is not secure"), "{}", answer.text());
}

#[test]
fn rules_lead_elsewhere_or_nowhere() {
    let place = Place::new();
    let (echo, origin) = (Server::echo(), Origin::start().unwrap());
    origin.put("/new/x", Body::noise(9, 100_000));
    let text = format!(
        "[[rule]]\nurl = '^http://old\\.test/(.*)$'\nto = '{}$1'\naction = 'redirect'\n\n\
         [[rule]]\nurl = '^http://echo\\.test/'\nto = '{}'\naction = 'redirect'\n\n\
         [[rule]]\nurl = '/secret'\naction = 'refuse'\n\n\
         [[rule]]\nurl = '/new/'\nheader = {{ x-share = 'yes' }}\nquery = {{ v = '^[0-9]+$' }}\naction = 'swarm'\n",
        origin.url("/new/"),
        echo.url(),
    );
    let agent = solo(&place, &text);
    let proxy = Proxy { agent: &agent, place: &place };
    let answer = proxy.curl(&["-H", "X-Share: yes"], "http://old.test/x?v=7");
    assert_eq!((answer.status, answer.body.len(), proxy.answers("task")), (200, 100_000, 1));
    let answer = proxy.curl(&[], "http://old.test/x?v=7");
    assert_eq!((answer.status, proxy.answers("task"), proxy.answers("direct")), (200, 1, 1));
    let said = echoed(&proxy.curl(
        &["-H", "Cookie: a=1", "-H", "Authorization: Bearer x", "-H", "X-Mine: 1"],
        "http://echo.test/p",
    ));
    assert_eq!((said["path"].as_str(), heard(&said, "x-mine").len()), (Some("/p"), 1));
    assert_eq!((heard(&said, "cookie").len(), heard(&said, "authorization").len()), (0, 0));
    let refused = proxy.curl(&[], "http://other.test/secret");
    assert_eq!(
        (refused.status, refused.text().as_str()),
        (403, "rule 3 of this proxy refuses that  DFS-4161\n")
    );
}
