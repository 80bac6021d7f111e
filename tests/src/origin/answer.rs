//! One connection: requests in, answers out, faults in between.

use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv, sockopt};

use super::content::Opened;
use super::fault::Wrong;
use super::request::{Head, encode, http_date};
use super::shelf::parameters;
use super::site::{File, Found};
use super::state::Shared;

const CHUNK: u64 = 256 * 1024;
const PACED_CHUNK: u64 = 16 * 1024;
/// How often somebody who is held is asked whether it is still there.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whether the connection takes another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Next,
    Close,
}

/// A body and how it is announced.
struct Part {
    status: u16,
    start: u64,
    end: u64,
    chunked: bool,
}

/// A body being sent.
struct Sending<'a> {
    head: &'a Head,
    body: Opened,
    part: Part,
    number: u64,
    /// Rules that may strike it: number and what they do.
    rules: Vec<(usize, Wrong)>,
}

/// Serves a connection until either side has enough.
pub fn serve(shared: &Shared, stream: &Arc<TcpStream>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(&**stream);
    while let Some(head) = Head::read(&mut reader)? {
        shared.change(|state| state.requested(&head));
        let connection = Connection { shared, stream, head: &head };
        if connection.answer()? == After::Close || !head.keep_alive {
            break;
        }
    }
    Ok(())
}

struct Connection<'a> {
    shared: &'a Shared,
    stream: &'a TcpStream,
    head: &'a Head,
}

impl Connection<'_> {
    fn answer(&self) -> io::Result<After> {
        for (number, wrong) in self.rules() {
            match wrong {
                Wrong::Gate if self.strike(number) && !self.hold(number) => {
                    return Ok(After::Close);
                }
                Wrong::Late(time)
                    if self.strike(number) && !self.wait_for(number, Instant::now() + time) =>
                {
                    return Ok(After::Close);
                }
                Wrong::Status(status, pause) if self.strike(number) => {
                    let pause = pause.map(|pause| format!("Retry-After: {pause}\r\n"));
                    return self.refuse(status, &pause.unwrap_or_default());
                }
                Wrong::RequireAuthorization(value)
                    if self.head.header("authorization") != Some(&value) && self.strike(number) =>
                {
                    return self.refuse(401, "WWW-Authenticate: Basic realm=\"origin\"\r\n");
                }
                Wrong::Around if self.strike(number) => {
                    let here = format!("Location: {}\r\n", encode(&self.head.path));
                    return self.refuse(302, &here);
                }
                _ => {}
            }
        }
        if !matches!(self.head.method.as_str(), "GET" | "HEAD") {
            return self.refuse(405, "Allow: GET, HEAD\r\n");
        }
        let found = self.shared.lock().site.find(&self.head.path);
        match found {
            Ok(Found::File(file)) => self.file(&file),
            Ok(Found::Page(page)) => self.page(&page),
            Ok(Found::Shelf(shelf)) => self.page(&shelf.page(&parameters(&self.head.query))),
            Ok(Found::Elsewhere) => {
                let location = format!("Location: {}/\r\n", encode(&self.head.path));
                self.refuse(301, &location)
            }
            Ok(Found::Nothing) => self.refuse(404, ""),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => self.refuse(403, ""),
            Err(_) => self.refuse(500, ""),
        }
    }

    fn log(&self, status: u16) {
        let from = self.stream.peer_addr().ok().map(|from| from.ip());
        self.shared.change(|state| state.answered(self.head, status, from));
    }

    /// The rules that are for this request, in the order in which they were injected.
    fn rules(&self) -> Vec<(usize, Wrong)> {
        let state = self.shared.lock();
        let sent = state.sent_of(self.head);
        let rules = state.rules.iter().enumerate();
        let rules = rules.filter(|(_, rule)| rule.applies(self.head, sent));
        rules.map(|(number, rule)| (number, rule.fault.wrong.clone())).collect()
    }

    fn strike(&self, number: usize) -> bool {
        self.shared.change(|state| state.strike(number, self.head))
    }

    /// Waits until the rule is lifted; false when nobody waits for the answer any more.
    fn hold(&self, number: usize) -> bool {
        loop {
            {
                let state = self.shared.lock();
                if state.stopping {
                    return false;
                }
                if state.rules[number].lifted {
                    return true;
                }
            }
            if self.is_deserted() {
                return false;
            }
            self.shared.rest(Instant::now() + LOOK_EVERY);
        }
    }

    fn is_deserted(&self) -> bool {
        let mut byte = [0; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match recv(self.stream, &mut byte, flags) {
            Ok((_, 0)) => true,
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
            Err(_) => true,
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        (&*self.stream).write_all(bytes)
    }

    fn refuse(&self, status: u16, headers: &str) -> io::Result<After> {
        let text = format!("{status} {}\n", reason(status));
        self.log(status);
        let length = text.len();
        let mut answer = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n{headers}\r\n",
            reason(status)
        );
        if self.head.method != "HEAD" {
            answer.push_str(&text);
        }
        self.write(answer.as_bytes())?;
        Ok(After::Next)
    }

    fn page(&self, page: &str) -> io::Result<After> {
        self.log(200);
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n",
            page.len()
        );
        self.write(head.as_bytes())?;
        if self.head.method == "GET" {
            self.write(page.as_bytes())?;
            self.shared.change(|state| state.counters.listing_bytes += page.len() as u64);
        }
        Ok(After::Next)
    }

    fn file(&self, file: &File) -> io::Result<After> {
        let body = match file.body.open() {
            Ok(body) => body,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return self.refuse(403, "");
            }
            Err(_) => return self.refuse(404, ""),
        };
        let rules = self.rules();
        let (etag, validators) = self.validators(file, &rules);
        if self.head.header("if-match").is_some_and(|tag| tag != "*" && tag != etag) {
            return self.refuse(412, "");
        }
        let Some(part) = self.part(&etag, body.length(), &rules) else {
            let total = format!("Content-Range: bytes */{}\r\n{validators}", body.length());
            return self.refuse(416, &total);
        };
        self.log(part.status);
        let off = self.length_off(&part, &rules);
        self.write(part.head(body.length(), off, &validators).as_bytes())?;
        if self.head.method == "HEAD" {
            return Ok(After::Next);
        }
        let left = part.end - part.start;
        let path = self.head.shown_path();
        let number = self.shared.change(|state| state.begin(path, left));
        let sending = Sending { head: self.head, body, part, number, rules };
        let after = self.send(&sending);
        self.shared.change(|state| state.in_flight.remove(&number));
        if off != 0 { Ok(After::Close) } else { after }
    }

    /// By how much the length that is announced of a body is off.
    fn length_off(&self, part: &Part, rules: &[(usize, Wrong)]) -> i64 {
        let has_body = self.head.method == "GET" && part.end > part.start;
        let off = rules.iter().find_map(|(number, wrong)| match wrong {
            Wrong::LengthOff(bytes) if has_body && self.strike(*number) => Some(*bytes),
            _ => None,
        });
        off.unwrap_or(0)
    }

    /// The ETag to compare with, and the headers.
    fn validators(&self, file: &File, rules: &[(usize, Wrong)]) -> (String, String) {
        let has = |wanted: &Wrong| {
            let rule = rules.iter().find(|(_, wrong)| wrong == wanted);
            rule.is_some_and(|(number, _)| self.strike(*number))
        };
        if has(&Wrong::NoValidator) {
            return (String::new(), String::new());
        }
        let weak = if has(&Wrong::WeakEtag) { "W/" } else { "" };
        let etag = format!("{weak}{}", file.etag);
        let modified = http_date(file.modified);
        let headers = format!("ETag: {etag}\r\nLast-Modified: {modified}\r\n");
        (etag, headers)
    }

    /// What to send of `length` bytes; `None` when the range has nothing of them.
    fn part(&self, etag: &str, length: u64, rules: &[(usize, Wrong)]) -> Option<Part> {
        let whole = Part { status: 200, start: 0, end: length, chunked: false };
        for (number, wrong) in rules {
            match wrong {
                Wrong::NoLength if self.strike(*number) => {
                    return Some(Part { chunked: true, ..whole });
                }
                Wrong::IgnoreRange
                    if self.head.header("range").is_some() && self.strike(*number) =>
                {
                    return Some(whole);
                }
                _ => {}
            }
        }
        let outdated = self.head.header("if-range").is_some_and(|tag| tag != etag);
        match self.head.range(length) {
            Some(Ok((start, end))) if !outdated => {
                Some(Part { status: 206, start, end, chunked: false })
            }
            Some(Err(_)) if !outdated => None,
            _ => Some(whole),
        }
    }

    fn send(&self, sending: &Sending<'_>) -> io::Result<After> {
        let mut buffer = vec![0; CHUNK as usize];
        let (mut at, mut paced) = (sending.part.start, false);
        while at < sending.part.end {
            let sent = at - sending.part.start;
            let mut room = CHUNK.min(sending.part.end - at);
            for (number, wrong) in &sending.rules {
                match wrong {
                    Wrong::ResetAfter(limit)
                    | Wrong::StallAfter(limit)
                    | Wrong::CutAfter(limit)
                        if sent < *limit =>
                    {
                        room = room.min(limit - sent);
                    }
                    Wrong::ResetAfter(limit) if sent == *limit && self.strike(*number) => {
                        sockopt::set_socket_linger(self.stream, Some(Duration::ZERO))?;
                        return Ok(After::Close);
                    }
                    Wrong::CutAfter(limit) if sent == *limit && self.strike(*number) => {
                        return Ok(After::Close);
                    }
                    Wrong::StallAfter(limit)
                        if sent == *limit && self.strike(*number) && !self.hold(*number) =>
                    {
                        return Ok(After::Close);
                    }
                    Wrong::Pace(rate) => {
                        room = room.min(PACED_CHUNK);
                        paced = paced || self.strike(*number);
                        if paced && !self.keep_pace(*number, room, *rate) {
                            return Ok(After::Close);
                        }
                    }
                    _ => {}
                }
            }
            let bytes = &mut buffer[..room as usize];
            // A file that shrank meanwhile: the client sees the connection end.
            sending.body.read_exact_at(at, bytes)?;
            self.write_body(bytes, sending.part.chunked)?;
            self.shared.change(|state| state.sent(sending.number, room));
            at += room;
        }
        if sending.part.chunked {
            self.write(b"0\r\n\r\n")?;
        }
        debug_assert_eq!(sending.head.method, "GET");
        Ok(After::Next)
    }

    fn write_body(&self, bytes: &[u8], chunked: bool) -> io::Result<()> {
        if !chunked {
            return self.write(bytes);
        }
        self.write(format!("{:x}\r\n", bytes.len()).as_bytes())?;
        self.write(bytes)?;
        self.write(b"\r\n")
    }

    /// Waits for its turn; false when nobody waits for the bytes any more.
    fn keep_pace(&self, number: usize, bytes: u64, rate: u64) -> bool {
        let turn = self.shared.lock().rules[number].book(bytes, rate);
        self.wait_for(number, turn)
    }

    /// Waits until it is time, or the rule is lifted; false when nobody waits for the answer any more.
    fn wait_for(&self, number: usize, turn: Instant) -> bool {
        loop {
            let now = Instant::now();
            {
                let state = self.shared.lock();
                if state.stopping {
                    return false;
                }
                if now >= turn || state.rules[number].lifted {
                    return true;
                }
            }
            if self.is_deserted() {
                return false;
            }
            self.shared.rest(turn.min(now + LOOK_EVERY));
        }
    }
}

impl Part {
    fn head(&self, length: u64, off: i64, validators: &str) -> String {
        let framing = match self.chunked {
            true => "Transfer-Encoding: chunked\r\n".to_owned(),
            false => {
                let announced = (self.end - self.start).saturating_add_signed(off);
                format!("Content-Length: {announced}\r\nAccept-Ranges: bytes\r\n")
            }
        };
        let range = match self.status {
            206 => format!("Content-Range: bytes {}-{}/{length}\r\n", self.start, self.end - 1),
            _ => String::new(),
        };
        let (status, reason) = (self.status, reason(self.status));
        format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: application/octet-stream\r\n\
             {framing}{range}{validators}\r\n"
        )
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        412 => "Precondition Failed",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}
