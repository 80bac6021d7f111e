//! Moto, in a process of its own, that writes down every request it gets.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use dfs_source::{AccessKeys, Credentials, HttpOptions, S3Options, Sources};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use reqwest::{Client as Web, Method, Response};

use crate::{Client, options};

/// A request as the server logged it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    pub method: String,
    /// Path and query, as sent.
    pub path: String,
    pub status: u16,
}

/// The server, stopped with its test.
pub struct Moto {
    child: Child,
    pub address: String,
    log: Arc<Mutex<Vec<Logged>>>,
    web: Web,
}

impl Drop for Moto {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Moto {
    pub fn start() -> Self {
        let program = dfs_tests::bucket::installed("moto-5.2.1/bin/moto_server");
        let mut child = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env("NO_COLOR", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                let program = program.display();
                panic!("{program} is needed by this test, `cargo xtask test` installs it: {error}")
            });
        let log: Arc<Mutex<Vec<Logged>>> = Arc::default();
        let (found, address) = channel();
        let (stderr, logged) = (child.stderr.take().unwrap(), Arc::clone(&log));
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("Running on http://") {
                    let _ = found.send(address.trim().to_owned());
                }
                logged.lock().unwrap().extend(request(&line));
            }
        });
        let address = address.recv_timeout(Duration::from_secs(60)).expect("moto comes up");
        Self { child, address, log, web: Web::builder().no_proxy().build().unwrap() }
    }

    /// What was asked since the last time, by path; the log is written behind the answer.
    pub fn requests(&self, count: usize) -> Vec<Logged> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let mut log = self.log.lock().unwrap();
            if log.len() >= count {
                return std::mem::take(&mut *log);
            }
            assert!(Instant::now() < deadline, "{count} requests were expected: {log:?}");
            drop(log);
            thread::yield_now();
        }
    }

    /// Forgets what was asked so far: the mark is the last of it.
    pub async fn forget(&self) {
        let mark = "/moto-api/mark";
        self.send(Method::GET, mark, b"", &[]).await;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let mut log = self.log.lock().unwrap();
            if log.iter().any(|request| request.path == mark) {
                return log.clear();
            }
            assert!(Instant::now() < deadline, "the mark is logged");
            drop(log);
            thread::yield_now();
        }
    }

    /// The URL of something in a bucket.
    pub fn url(&self, path: &str) -> String {
        let joint = if path.contains('?') { '&' } else { '?' };
        format!("s3://{path}{joint}endpoint=http://{}", self.address)
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: &[u8],
        headers: &[(&str, &str)],
    ) -> Response {
        let mut request = self.web.request(method, format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(body.to_vec()).send().await.unwrap()
    }

    pub async fn bucket(&self, name: &str) {
        let made = self.send(Method::PUT, &format!("/{name}"), b"", &[]).await;
        assert_eq!(made.status(), 200);
    }

    /// Stores an object and tells its version where there are versions.
    pub async fn put(&self, bucket: &str, key: &[u8], body: &[u8]) -> Option<String> {
        const PATH: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'/');
        let path = format!("/{bucket}/{}", percent_encode(key, PATH));
        let headers = [("x-amz-acl", "public-read"), ("authorization", &*signed_for("s3"))];
        let put = self.send(Method::PUT, &path, body, &headers).await;
        assert_eq!(put.status(), 200, "{path}");
        let version = put.headers().get("x-amz-version-id")?;
        Some(version.to_str().unwrap().to_owned())
    }

    pub async fn delete(&self, path: &str) {
        let headers = [("authorization", &*signed_for("s3"))];
        assert_eq!(self.send(Method::DELETE, path, b"", &headers).await.status(), 204);
    }

    /// Calls one of the services beside S3.
    pub async fn call(&self, service: &str, form: &str) -> String {
        let kind = "application/x-www-form-urlencoded";
        let headers = [("authorization", &*signed_for(service)), ("content-type", kind)];
        let answer = self.send(Method::POST, "/", form.as_bytes(), &headers).await;
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, 200, "{text}");
        text
    }
}

/// What says which service is meant, before signatures are checked.
fn signed_for(service: &str) -> String {
    let scope = format!("Credential=x/20260101/us-east-1/{service}/aws4_request");
    format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=x")
}

/// `127.0.0.1 - - [date] "GET /path HTTP/1.1" 200 -`, perhaps with colours.
fn request(line: &str) -> Option<Logged> {
    let (_, rest) = line.split_once("] \"")?;
    let rest = rest.trim_start_matches(|c: char| !c.is_ascii_uppercase());
    let (request, status) = rest.rsplit_once("\" ")?;
    let mut words = request.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    Some(Logged { method, path, status: status.split(' ').next()?.parse().ok()? })
}

/// A client that knows object stores.
pub fn client(s3: S3Options, http: HttpOptions) -> Client {
    Client::over(Sources::builder().http(http).s3(s3).build().unwrap())
}

/// A client that is nobody.
pub fn stranger() -> Client {
    client(S3Options::default(), options())
}

/// A target of somebody.
pub fn asked_by(url: &str, keys: &AccessKeys) -> dfs_source::Target {
    crate::target(url).with_credentials(Credentials::Keys(keys.clone()))
}
