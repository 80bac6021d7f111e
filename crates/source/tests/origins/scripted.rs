//! A web server that does what a test tells it: request in, steps out.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// First and, where given, last byte of its `Range`.
    pub fn range(&self) -> Option<(usize, Option<usize>)> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().unwrap(), last.parse().ok()))
    }
}

/// What the server does, in order. The connection stays open behind [`Step::Send`].
pub enum Step {
    Send(Vec<u8>),
    /// Goes on when the test says so.
    Await(Gate),
    /// Sends nothing until the client leaves.
    Stall,
    /// Ends the connection with a reset.
    Reset,
    /// Ends the connection.
    Close,
}

/// Lets a test decide when a fault strikes.
#[derive(Clone)]
pub struct Gate(Arc<Mutex<Receiver<()>>>);

impl Gate {
    pub fn new() -> (Sender<()>, Self) {
        let (opener, gate) = channel();
        (opener, Self(Arc::new(Mutex::new(gate))))
    }

    fn pass(&self) {
        let gate = self.0.lock().unwrap();
        gate.recv_timeout(Duration::from_secs(20)).expect("the test opens its gate");
    }
}

type Script = dyn Fn(usize, &Request) -> Vec<Step> + Send + Sync;

/// The server; it serves until the test process ends.
pub struct Server {
    pub address: SocketAddr,
    scheme: &'static str,
    log: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// `script` gets the number of the request, from 0, and the request.
    pub fn start(script: impl Fn(usize, &Request) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::listen(script, None)
    }

    pub fn start_tls(
        config: Arc<ServerConfig>,
        script: impl Fn(usize, &Request) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        Self::listen(script, Some(config))
    }

    fn listen(
        script: impl Fn(usize, &Request) -> Vec<Step> + Send + Sync + 'static,
        tls: Option<Arc<ServerConfig>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let log = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Script> = Arc::new(script);
        let logged = Arc::clone(&log);
        let connections = Arc::new(AtomicUsize::new(0));
        let accepted = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, tls) = (stream.unwrap(), tls.clone());
                accepted.fetch_add(1, Ordering::SeqCst);
                let (script, log) = (Arc::clone(&script), Arc::clone(&logged));
                thread::spawn(move || match tls {
                    None => converse(stream, &*script, &log),
                    Some(config) => {
                        let session = ServerConnection::new(config).unwrap();
                        converse(StreamOwned::new(session, stream), &*script, &log);
                    }
                });
            }
        });
        Self { address, scheme, log, connections }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }
}

/// A connection that can be reset.
trait Wire: Read + Write {
    fn socket(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Wire for StreamOwned<ServerConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }
}

/// Requests and answers until one side has enough.
fn converse(wire: impl Wire, script: &Script, log: &Mutex<Vec<Request>>) {
    let mut wire = BufReader::new(wire);
    while let Some(request) = read_request(&mut wire) {
        let number = {
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            log.len() - 1
        };
        for step in script(number, &request) {
            match step {
                Step::Send(bytes) => {
                    let sent =
                        wire.get_mut().write_all(&bytes).and_then(|()| wire.get_mut().flush());
                    if sent.is_err() {
                        return;
                    }
                }
                Step::Await(gate) => gate.pass(),
                Step::Stall => {
                    let _ = wire.read(&mut [0; 16]);
                    return;
                }
                Step::Reset => {
                    let socket = wire.get_ref().socket();
                    rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO)).unwrap();
                    return;
                }
                Step::Close => return,
            }
        }
    }
}

fn read_request(wire: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    wire.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        wire.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    wire.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

/// A head: status and header lines, then the empty line.
pub fn head(status: u16, headers: &[(&str, &str)]) -> Step {
    let mut text = format!("HTTP/1.1 {status} Word\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    Step::Send((text + "\r\n").into_bytes())
}

/// An answer with nothing in it.
pub fn status(status: u16) -> Vec<Step> {
    vec![head(status, &[("Content-Length", "0")])]
}

/// A well-behaved answer: HEAD, whole or range, `If-Range` honoured.
pub fn file(content: &[u8], etag: &str, request: &Request) -> Vec<Step> {
    let (first, last) = span(content, etag, request);
    let part = &content[first..last];
    let length = part.len().to_string();
    let range = format!("bytes {first}-{}/{}", last.max(1) - 1, content.len());
    let mut headers = vec![("ETag", etag), ("Accept-Ranges", "bytes"), ("Content-Length", &length)];
    let ranged = is_ranged(etag, request);
    if ranged {
        headers.push(("Content-Range", &range));
    }
    let body = if request.method == "HEAD" { Vec::new() } else { part.to_vec() };
    vec![head(if ranged { 206 } else { 200 }, &headers), Step::Send(body)]
}

fn is_ranged(etag: &str, request: &Request) -> bool {
    request.range().is_some() && request.header("if-range").is_none_or(|asked| asked == etag)
}

fn span(content: &[u8], etag: &str, request: &Request) -> (usize, usize) {
    match request.range() {
        Some((first, last)) if is_ranged(etag, request) => {
            (first, last.map_or(content.len(), |last| last + 1).min(content.len()))
        }
        _ => (0, content.len()),
    }
}

/// The same answer, which breaks with `fault` behind the first `kept` bytes of its body.
pub fn broken(
    content: &[u8],
    etag: &str,
    request: &Request,
    kept: usize,
    fault: Vec<Step>,
) -> Vec<Step> {
    let mut steps = file(content, etag, request);
    if let Some(Step::Send(body)) = steps.last_mut() {
        body.truncate(kept);
    }
    steps.extend(fault);
    steps
}

/// A body in chunks, without a length.
pub fn chunked(headers: &[(&str, &str)], parts: &[&[u8]], end: Step) -> Vec<Step> {
    let mut all = headers.to_vec();
    all.push(("Transfer-Encoding", "chunked"));
    let mut steps = vec![head(200, &all)];
    for part in parts {
        let mut chunk = format!("{:x}\r\n", part.len()).into_bytes();
        chunk.extend_from_slice(part);
        chunk.extend_from_slice(b"\r\n");
        steps.push(Step::Send(chunk));
    }
    steps.push(end);
    steps
}

/// The end of a body in chunks.
pub fn last_chunk() -> Step {
    Step::Send(b"0\r\n\r\n".to_vec())
}
