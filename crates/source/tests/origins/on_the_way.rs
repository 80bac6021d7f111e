//! What lies between us and an origin: one HTTP/2 connection for many reads, proxies.

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use dfs_source::{HttpOptions, ProxyOptions, SourceError};
use futures::future::join_all;

use crate::listing::Process;
use crate::scripted::{Server, file};
use crate::tls::{certificate, trusting_with};
use crate::{content, failure, options};

#[tokio::test]
async fn many_ranges_share_one_connection_of_http2_and_one_version() {
    let (certificate, key, authority) = certificate("127.0.0.1");
    let mut nginx = Process::nginx_http2(&certificate, &key);
    let path = nginx.home.path().join("tree/ranges.bin");
    fs::write(&path, content(3_000_000)).unwrap();
    let retry = dfs_source::RetryPolicy { attempts: 100, ..options().retry };
    let (client, _ca) = trusting_with(&authority, HttpOptions { retry, ..options() });
    let url = format!("https://{}/ranges.bin", nginx.address);
    let stat = client.stat(&url).await.unwrap();
    let bytes = content(3_000_000);
    let reads = (0..48).map(|at| (at * 60_000, at * 60_000 + 50_000)).map(|(start, end)| {
        let (client, url, pin, bytes) = (&client, &url, &stat.validator, &bytes);
        async move {
            let got = client.read(url, Some((start, end)), pin).await.unwrap();
            assert!(got == bytes[start as usize..end as usize], "{start}..{end}");
        }
    });
    join_all(reads).await;
    assert_eq!(client.counted().requests - client.counted().retries, 49);

    let mut other = content(3_000_000);
    other.push(1);
    fs::write(&path, other).unwrap();
    let error = failure(client.read(&url, Some((5, 50)), &stat.validator).await);
    assert!(matches!(error, SourceError::Changed { .. }), "{error:?}");

    nginx.stop();
    let log = fs::read_to_string(nginx.home.path().join("access.log")).unwrap();
    let lines: Vec<Vec<&str>> = log.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!(lines.len(), 50, "{log}");
    assert!(lines.iter().all(|line| line[0] == "HTTP/2.0" && line[1] == lines[0][1]), "{log}");
    assert_eq!(lines.iter().filter(|line| line[3] == "206").count(), 48);
}

/// A proxy that writes down the heads it gets and leads every connection to one place.
struct Proxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&heads);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let log = Arc::clone(&log);
                thread::spawn(move || lead(stream.unwrap(), to, &log));
            }
        });
        Self { address, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

#[expect(clippy::disallowed_methods, reason = "the proxy is the test's own")]
fn lead(client: TcpStream, to: SocketAddr, log: &Mutex<Vec<String>>) {
    let origin = TcpStream::connect(to).unwrap();
    let mut reader = BufReader::new(client.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    log.lock().unwrap().push(head.clone());
    let mut back = client.try_clone().unwrap();
    if head.starts_with("CONNECT ") {
        back.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").unwrap();
    } else {
        (&origin).write_all(head.as_bytes()).unwrap();
    }
    let answers = origin.try_clone().unwrap();
    let answering = thread::spawn(move || pour(answers, back));
    pour(reader, origin);
    let _ = answering.join();
}

fn pour(mut from: impl Read, to: TcpStream) {
    // Whoever leaves ends it.
    let _ = std::io::copy(&mut from, &mut &to);
    let _ = to.shutdown(Shutdown::Write);
}

fn through(proxy: &Proxy) -> HttpOptions {
    let at = Some(format!("http://ada:p%40ss@{}", proxy.address));
    let except = vec!["direct.example".to_owned()];
    let proxy = ProxyOptions { http: at.clone(), https: at, except, loopback: false };
    HttpOptions { proxy, ..options() }
}

#[tokio::test]
async fn plain_requests_are_sent_to_the_proxy_with_its_credentials_only() {
    let server = Server::start(|_, request| file(&content(100), "\"e\"", request));
    let proxy = Proxy::start(server.address);
    let client = crate::Client::with(through(&proxy));
    let stat = client.stat("http://u:secret@origin.example/x").await.unwrap();
    assert_eq!(stat.length, Some(100));
    let head = proxy.heads().remove(0);
    assert!(head.starts_with("HEAD http://origin.example/x HTTP/1.1\r\n"), "{head}");
    // ada:p@ss
    assert!(head.to_lowercase().contains("proxy-authorization: basic ywrhonbac3m="), "{head}");

    // This machine is asked directly, and so is who is excepted.
    client.stat(&server.url("/x")).await.unwrap();
    assert_eq!(proxy.heads().len(), 1);
    let error = failure(client.stat("http://direct.example/x").await);
    assert!(matches!(error, SourceError::Unavailable { .. }), "{error:?}");
    assert_eq!(proxy.heads().len(), 1);
}

#[tokio::test]
async fn encrypted_requests_go_through_a_tunnel_that_sees_nothing() {
    let (config, authority) = crate::tls::signed_for("origin.example");
    let server = Server::start_tls(config, |_, request| file(&content(100), "\"e\"", request));
    let proxy = Proxy::start(server.address);
    let (client, _ca) = trusting_with(&authority, through(&proxy));
    let url = "https://u:secret@origin.example/x";
    let stat = client.stat(url).await.unwrap();
    let got = client.read(url, Some((3, 50)), &stat.validator).await.unwrap();
    assert_eq!(got, content(100)[3..50]);
    let heads = proxy.heads();
    assert_eq!(heads.len(), 1, "one tunnel for all: {heads:?}");
    assert!(heads[0].starts_with("CONNECT origin.example:443 HTTP/1.1\r\n"), "{heads:?}");
    assert!(heads[0].to_lowercase().contains("proxy-authorization: basic ywrhonbac3m="));
    let requests = server.requests();
    assert!(requests.iter().all(|request| request.header("proxy-authorization").is_none()));
    assert!(!heads[0].to_lowercase().contains("\r\nauthorization"));
}

#[test]
fn a_proxy_that_makes_no_sense_is_said_at_the_start() {
    let proxy = ProxyOptions { https: Some("ftp://u:hunter2@h".into()), ..ProxyOptions::default() };
    let options = HttpOptions { proxy, ..options() };
    let error = failure(dfs_source::Sources::builder().http(options).build());
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("the proxy 'h'") && !cause.contains("hunter2"), "{cause}");
}
