//! A web server that answers with exactly what it is given, for pages that no honest server writes.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Path, content type, content.
type Page = (&'static str, &'static str, &'static str);

/// See the module. It ends with the process.
pub struct Canned {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Canned {
    /// Serves these pages and nothing else.
    pub fn serve(pages: Vec<Page>) -> Self {
        Self::answering(move |method, path| {
            let (status, kind, content) = match pages.iter().find(|page| page.0 == path) {
                Some((_, kind, content)) => ("200 OK", *kind, *content),
                None => ("404 Not Found", "text/plain", "no"),
            };
            let head =
                format!("{status}\r\nContent-Type: {kind}\r\nContent-Length: {}", content.len());
            let content = if method == "HEAD" { "" } else { content };
            format!("{head}\r\n\r\n{content}")
        })
    }

    /// Gives the answer that `answer` makes of a method and a target: all that follows `HTTP/1.1 `.
    pub fn answering(answer: impl Fn(&str, &str) -> String + Send + Sync + 'static) -> Self {
        Self::answering_heads(move |method, path, _| answer(method, path))
    }

    /// The same of a method, a target and the lines that follow these.
    pub fn answering_heads(
        answer: impl Fn(&str, &str, &[String]) -> String + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (answer, seen) = (Arc::new(answer), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                // A client that leaves in the middle is its own affair.
                std::thread::spawn(move || drop(serve_one(&stream, &*answer, &seen)));
            }
        });
        Self { address, asked }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path, as it is.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The targets that were asked for, as they came.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// One request, then the connection ends.
fn serve_one(
    stream: &TcpStream,
    answer: &dyn Fn(&str, &str, &[String]) -> String,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut head = Vec::new();
    while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
        head.push(line);
    }
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    asked.lock().unwrap().push(path.to_owned());
    let answer = answer(method, path, &head).replacen("\r\n", "\r\nConnection: close\r\n", 1);
    (&*stream).write_all(format!("HTTP/1.1 {answer}").as_bytes())
}
