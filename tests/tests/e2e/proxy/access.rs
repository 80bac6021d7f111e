//! Who may ask the proxy, and for what.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use dfs_tests::Origin;
use dfs_tests::origin::Body;
use dfs_tests::process::Said;

use super::{PROXY, Proxy, rules, text};
use crate::support::authority::Authority;
use crate::support::trees::put;
use crate::support::{Agent, Expected, Place, binaries};

/// `htpasswd -bnB -C 4 ada hunter2`.
const ADA: &str = "ada:$2y$04$Z0Oj9jAvN5asG1efPDsTCOEB8F7.8KwOqtZvwye14DaaA7zFa/W0i\n";

/// An address of this machine that others can reach.
pub fn own_address() -> String {
    let mut command = Command::new("ip");
    let said = Said::by(command.args(["-4", "-o", "addr", "show", "scope", "global"])).unwrap();
    let text = said.done().text();
    let found = text.split_whitespace().skip_while(|word| *word != "inet").nth(1);
    if let Some(address) = found.and_then(|network| network.split('/').next()) {
        return address.to_owned();
    }
    // One of no network; it is there already where another test made it.
    let made = "198.18.77.1";
    let mut command = Command::new("ip");
    let _ = Said::by(command.args(["addr", "add", &format!("{made}/32"), "dev", "lo"])).unwrap();
    made.to_owned()
}

/// What is answered to exactly these bytes, until the connection ends.
#[expect(clippy::disallowed_methods, reason = "what no client would send is sent by hand")]
fn told(at: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    // Who refuses may have gone by then.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn who_has_no_password_is_asked_for_one() {
    let place = Place::new();
    let origin = Origin::start().unwrap();
    origin.put("/x", Body::noise(1, 1000));
    put(&place.path("users"), ADA.as_bytes());
    let users = place.path("users");
    let agent =
        Agent::solo_with(&place, "agent", &[PROXY, &["--proxy-users", text(&users)]].concat());
    let proxy = Proxy { agent: &agent, place: &place };
    let right = ["--proxy-user", "ada:hunter2"];
    for _ in 0..2 {
        assert_eq!(proxy.curl(&right, &origin.url("/x")).body.len(), 1000);
    }
    let asked = origin.counters().requests;
    for wrong in [&["--proxy-user", "ada:guessed"][..], &["--proxy-user", "eve:hunter2"], &[]] {
        let answer = proxy.curl(wrong, &origin.url("/x"));
        assert_eq!(answer.status, 407);
        let wanted = answer.header("proxy-authenticate");
        assert_eq!(wanted, Some("Basic realm=\"dfs proxy\", charset=\"UTF-8\""));
        assert_eq!(
            answer.text(),
            "this proxy wants a name and a password that it knows (proxy-users has them)  DFS-4161\n"
        );
        let tunnel = proxy.curl(wrong, "https://localhost/");
        assert!(tunnel.exit != 0 && tunnel.said.contains("407"), "{}", tunnel.said);
    }
    assert_eq!(origin.counters().requests, asked);
}

#[test]
fn clients_of_other_networks_are_refused_and_those_of_named_ones_are_not_led_to_this_machine() {
    let place = Place::new();
    let own = own_address();
    let here = Origin::start().unwrap();
    here.put("/x", Body::noise(1, 1000));
    put(&place.path("users"), ADA.as_bytes());
    let users = place.path("users");
    let at = format!("{own}:0");
    let open = |name: &str, network: &str| {
        let words =
            ["--proxy-listen", &at, "--proxy-client", network, "--proxy-users", text(&users)];
        Agent::solo_with(&place, name, &words)
    };
    let words = ["--proxy-user", "ada:hunter2", "--interface", &own];
    let agent = open("closed", "10.99.0.0/16");
    let refused = Proxy { agent: &agent, place: &place }.curl(&words, &here.url("/x"));
    assert_eq!(
        (refused.status, refused.text().as_str()),
        (
            403,
            "clients at this address may not ask this proxy (proxy-client names those that may)  DFS-4161\n"
        )
    );
    drop(agent);
    let agent = open("named", &own);
    let proxy = Proxy { agent: &agent, place: &place };
    let port = here.address().port();
    for hidden in [
        format!("http://127.0.0.1:{port}/x"),
        format!("http://localhost:{port}/x"),
        format!("http://[::ffff:127.0.0.1]:{port}/x"),
        format!("http://2130706433:{port}/x"),
        format!("http://{own}:{port}/x"),
    ] {
        let answer = proxy.curl(&words, &hidden);
        let says = "leads to an address that may not be asked for through here  DFS-4161\n";
        assert!(
            answer.status == 403 && answer.text().ends_with(says),
            "{hidden} {}",
            answer.text()
        );
    }
    let tunnel = proxy.curl(&words, "https://localhost/");
    assert!(tunnel.said.contains("403"), "{}", tunnel.said);
    assert_eq!(here.counters().requests, 0);
}

#[test]
fn nobody_is_led_where_nobody_may_go() {
    let place = Place::new();
    let origin = Origin::start().unwrap();
    origin.put("/x", Body::noise(1, 1000));
    let agent = Agent::solo_with(&place, "agent", PROXY);
    let proxy = Proxy { agent: &agent, place: &place };
    let at = proxy.address();
    let get = |url: &str| format!("GET {url} HTTP/1.1\r\nHost: x\r\n\r\n");
    let connect = |to: &str| format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n");
    let metrics = agent.node.process().address("metrics").unwrap();
    for (what, request, status, says) in [
        ("metadata", get("http://169.254.169.254/latest"), "403", "leads to an address"),
        ("the same as a number", get("http://2852039166/"), "403", "leads to an address"),
        ("the same in hexadecimal", get("http://0xa9fea9fe/"), "403", "leads to an address"),
        ("the same mapped", get("http://[::ffff:a9fe:a9fe]/"), "403", "leads to an address"),
        ("a tunnel there", connect("169.254.169.254:443"), "403", "leads to an address"),
        ("nobody", get("http://0.0.0.0/"), "403", "leads to an address"),
        ("another port", connect("127.0.0.1:22"), "403", "tunnels lead to port 443"),
        ("itself", get(&format!("http://{at}/")), "403", "is this agent itself"),
        ("its metrics", get(&format!("http://{metrics}/metrics")), "403", "is this agent itself"),
        ("a web server's form", get("/x"), "400", "this is a proxy and no web server"),
        ("another scheme", get("ftp://h.test/"), "400", "is no URL"),
        ("a user", get("http://u:pw@h.test/"), "400", "is no URL"),
        ("a tunnel without a port", connect("h.test"), "400", "is no URL"),
        ("a name that is none", get("http://nowhere.invalid/"), "502", "no answer from the origin"),
    ] {
        let answer = told(at, &request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
        assert!(answer.contains(says) && !answer.contains("pw@"), "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: {answer}");
    }
    let echo = crate::support::servers::Server::echo();
    let said = super::echoed(&proxy.curl(&[], &echo.url()));
    let own = super::heard(&said, "via")[0].clone();
    let looped = proxy.curl(&["-H", &format!("Via: {own}")], &origin.url("/x"));
    assert_eq!((looped.status, origin.counters().requests), (508, 0));
    // Where a request says in two ways where it ends, the chunks count and nothing stands behind them.
    let hidden = get(&origin.url("/x"));
    let both = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n\
         0\r\n\r\n{hidden}",
        echo.url(),
        hidden.len() + 5,
    );
    let answer = told(at, &both);
    assert!(answer.contains("\"length\": 0"), "{answer}");
    assert_eq!(
        (answer.matches("HTTP/1.1 ").count(), origin.counters().requests),
        (1, 0),
        "{answer}"
    );
}

#[test]
fn only_places_that_are_named_may_be_gone_to() {
    let place = Place::new();
    let (named, other) = (Origin::start().unwrap(), Origin::start().unwrap());
    for origin in [&named, &other] {
        origin.put("/x", Body::noise(1, 1000));
    }
    let allow = ["--proxy-allow", &named.address().to_string(), "--proxy-allow", "*.test"];
    let agent = Agent::solo_with(&place, "agent", &[PROXY, &allow].concat());
    let proxy = Proxy { agent: &agent, place: &place };
    assert_eq!(proxy.curl(&[], &named.url("/x")).status, 200);
    let refused = proxy.curl(&[], &other.url("/x"));
    let says = format!(
        "{} is none of the places that this proxy may ask (proxy-allow names them)  DFS-4161\n",
        other.address()
    );
    assert_eq!((refused.status, refused.text()), (403, says));
    assert_eq!(other.counters().requests, 0);
}

#[test]
fn what_would_be_an_open_proxy_or_half_of_one_does_not_start() {
    let place = Place::new();
    let operator = Authority::new(&place, "operator");
    let intercepting = rules(&place, "intercept = ['a.test']\n");
    let bad = place.path("bad.toml");
    put(&bad, b"[[rule]]\nurl = '('\naction = 'swarm'\n");
    put(&place.path("users"), b"ada:hunter2\n");
    let users = place.path("users");
    let (certificate, key) = (text(&operator.certificate), text(&operator.key));
    for (words, says) in [
        (&["--proxy-listen", "0.0.0.0:0"][..], "--proxy-client"),
        (&["--proxy-listen", "0.0.0.0:0", "--proxy-client", "10.0.0.0/8"], "--proxy-users"),
        (
            &["--proxy-listen", "127.0.0.1:0", "--proxy-rules", text(&intercepting)],
            "--proxy-ca-cert",
        ),
        (&["--proxy-listen", "127.0.0.1:0", "--proxy-rules", text(&bad)], "rule 1 of"),
        (&["--proxy-listen", "127.0.0.1:0", "--proxy-users", text(&users)], "htpasswd -B"),
        (&["--proxy-listen", "127.0.0.1:0", "--proxy-ca-cert", certificate], "--proxy-ca-key"),
        (
            &["--proxy-listen", "127.0.0.1:0", "--proxy-ca-cert", key, "--proxy-ca-key", key],
            "it holds no PEM certificate",
        ),
    ] {
        let mut command = Command::new(binaries().path("dfs-fuse").unwrap());
        command.arg("--data-dir").arg(place.path("refused")).args(words);
        let said = Said::by(&mut command).unwrap().exits(2);
        assert!(said.stderr.contains(says) && said.stderr.contains("DFS-1003"), "{}", said.stderr);
        assert!(!said.stderr.contains("hunter2"), "{}", said.stderr);
    }
}
