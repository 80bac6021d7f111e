//! A gate in front of a registry: it passes requests on, or does what a bad day does to them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request as it comes to the gate.
pub struct Asked {
    pub method: String,
    /// With its query.
    pub path: String,
    head: Vec<String>,
}

impl Asked {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// What becomes of a request.
pub enum Verdict {
    Pass,
    /// This answer, without asking the registry: status and reason, headers, body.
    Answer(&'static str, Vec<(String, String)>, Vec<u8>),
    /// The registry's answer, broken off behind so many bytes of its body.
    CutAnswer(u64),
    /// The registry's answer with this byte of its body turned over.
    Flip(u64),
    /// So many bytes of what is sent come to the registry, then the line breaks.
    CutRequest(u64),
    /// The registry is asked, and its answer never arrives.
    LoseAnswer,
    /// The registry's answer as that of one that knows no ranges: all of it, whatever part was asked for.
    Whole,
    /// The registry's answer, which does not say that parts of it can be asked for.
    Unsaid,
}

impl Verdict {
    /// Whether this line of a request comes to the registry.
    fn passes(&self, line: &str) -> bool {
        let is = |name: &str| has_name(line, name);
        let is_range = matches!(self, Self::Whole) && is("range");
        !is("connection") && !is_range
    }

    /// Whether this line of an answer comes back.
    fn passes_back(&self, line: &str) -> bool {
        !matches!(self, Self::Whole | Self::Unsaid) || !has_name(line, "accept-ranges")
    }
}

fn has_name(line: &str, name: &str) -> bool {
    line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name))
}

type Judge = dyn Fn(&Asked) -> Verdict + Send + Sync;

/// The gate; connections of a test that has ended come to nothing.
pub struct Gatekeeper {
    address: SocketAddr,
    judge: Arc<Mutex<Arc<Judge>>>,
    spoiled: Arc<AtomicUsize>,
}

impl Gatekeeper {
    /// One before `registry`, which passes everything.
    pub fn before(registry: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let judge: Arc<Mutex<Arc<Judge>>> =
            Arc::new(Mutex::new(Arc::new(|_: &Asked| Verdict::Pass)));
        let spoiled = Arc::new(AtomicUsize::new(0));
        let (judging, count) = (Arc::clone(&judge), Arc::clone(&spoiled));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (judge, count) = (Arc::clone(&judging.lock().unwrap()), Arc::clone(&count));
                thread::spawn(move || {
                    // Who has gone hears nothing.
                    let _ = serve(client, registry, &*judge, &count);
                });
            }
        });
        Self { address, judge, spoiled }
    }

    /// Host and port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of `reference`.
    pub fn url(&self, reference: &str) -> String {
        format!("oci://{}/{reference}", self.address)
    }

    /// From now on, requests are judged so.
    pub fn judge(&self, judge: impl Fn(&Asked) -> Verdict + Send + Sync + 'static) {
        *self.judge.lock().unwrap() = Arc::new(judge);
    }

    /// Lets everything pass again.
    pub fn open(&self) {
        self.judge(|_| Verdict::Pass);
    }

    /// How many requests did not just pass.
    pub fn spoiled(&self) -> usize {
        self.spoiled.load(Ordering::SeqCst)
    }
}

fn serve(
    client: TcpStream,
    registry: SocketAddr,
    judge: &Judge,
    spoiled: &AtomicUsize,
) -> io::Result<()> {
    let mut from_client = BufReader::new(client.try_clone()?);
    let mut line = String::new();
    from_client.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
    let (method, path) = (method.to_owned(), path.to_owned());
    let head = head_of(&mut from_client)?;
    let asked = Asked { method, path, head };
    let length = asked.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let verdict = judge(&asked);
    if !matches!(verdict, Verdict::Pass) {
        spoiled.fetch_add(1, Ordering::SeqCst);
    }
    if let Verdict::Answer(status, headers, body) = verdict {
        io::copy(&mut from_client.by_ref().take(length), &mut io::sink())?;
        return answer(client, status, &headers, &body);
    }
    #[expect(clippy::disallowed_methods, reason = "it stands between others' programs")]
    let mut upstream = TcpStream::connect(registry)?;
    write!(upstream, "{} {} HTTP/1.1\r\n", asked.method, asked.path)?;
    for line in asked.head.iter().filter(|line| verdict.passes(line)) {
        write!(upstream, "{line}\r\n")?;
    }
    write!(upstream, "Connection: close\r\n\r\n")?;
    let passed = if let Verdict::CutRequest(most) = verdict { most.min(length) } else { length };
    io::copy(&mut from_client.by_ref().take(passed), &mut upstream)?;
    if matches!(verdict, Verdict::CutRequest(_)) {
        return Ok(());
    }
    let mut from_registry = BufReader::new(upstream);
    if matches!(verdict, Verdict::LoseAnswer) {
        io::copy(&mut from_registry, &mut io::sink())?;
        return Ok(());
    }
    pass_back(client, &mut from_registry, &verdict)
}

/// The lines of a head, without the empty one.
fn head_of(from: &mut impl BufRead) -> io::Result<Vec<String>> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        match line.trim_end() {
            "" => return Ok(head),
            line => head.push(line.to_owned()),
        }
    }
}

fn answer(
    mut client: TcpStream,
    status: &str,
    headers: &[(String, String)],
    body: &[u8],
) -> io::Result<()> {
    write!(client, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len())?;
    for (name, value) in headers {
        write!(client, "{name}: {value}\r\n")?;
    }
    client.write_all(b"\r\n")?;
    client.write_all(body)
}

fn pass_back(mut client: TcpStream, from: &mut impl BufRead, verdict: &Verdict) -> io::Result<()> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    client.write_all(line.as_bytes())?;
    for line in head_of(from)?.iter().filter(|line| verdict.passes_back(line)) {
        write!(client, "{line}\r\n")?;
    }
    client.write_all(b"\r\n")?;
    match verdict {
        Verdict::CutAnswer(most) => {
            io::copy(&mut from.by_ref().take(*most), &mut client)?;
        }
        Verdict::Flip(at) => {
            io::copy(&mut from.by_ref().take(*at), &mut client)?;
            let mut byte = [0];
            if from.read(&mut byte)? == 1 {
                client.write_all(&[byte[0] ^ 1])?;
            }
            io::copy(from, &mut client)?;
        }
        _ => {
            io::copy(from, &mut client)?;
        }
    }
    Ok(())
}
