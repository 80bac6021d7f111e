//! As much of the Redis protocol (RESP 2) as reading values needs.

use std::future::Future;
use std::io::{self, Error, ErrorKind};
use std::pin::Pin;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Longest line, and most elements of one array: what a server sends is not to be trusted.
const MAX_LINE: u64 = 4096;
const MAX_ELEMENTS: u64 = 100_000;

/// What a server answers.
#[derive(Debug)]
pub enum Reply {
    Nothing,
    Number(i64),
    Bytes(Vec<u8>),
    List(Vec<Reply>),
    /// The server's own words.
    Refused(String),
}

/// A connection to one server.
pub struct Connection {
    stream: BufReader<TcpStream>,
    /// Longest value that is taken.
    max_bytes: u64,
}

impl Connection {
    pub async fn open(address: &str, max_bytes: u64) -> io::Result<Self> {
        let stream = BufReader::new(TcpStream::connect(address).await?);
        Ok(Self { stream, max_bytes })
    }

    /// Sends several commands at once; the answers come in their order.
    pub async fn ask(&mut self, commands: &[Vec<&[u8]>]) -> io::Result<Vec<Reply>> {
        let mut text = Vec::new();
        for words in commands {
            text.extend(format!("*{}\r\n", words.len()).into_bytes());
            for word in words {
                text.extend(format!("${}\r\n", word.len()).into_bytes());
                text.extend_from_slice(word);
                text.extend(b"\r\n");
            }
        }
        self.stream.write_all(&text).await?;
        let mut replies = Vec::with_capacity(commands.len());
        for _ in commands {
            replies.push(self.reply(0).await?);
        }
        Ok(replies)
    }

    fn reply(&mut self, depth: u8) -> Pin<Box<dyn Future<Output = io::Result<Reply>> + Send + '_>> {
        Box::pin(async move {
            let line = self.line().await?;
            let Some((kind, rest)) = line.split_at_checked(1) else { return Err(nonsense()) };
            Ok(match kind {
                "+" => Reply::Bytes(rest.as_bytes().to_vec()),
                "-" => Reply::Refused(rest.to_owned()),
                ":" => Reply::Number(rest.parse().map_err(|_| nonsense())?),
                "$" | "*" if rest == "-1" => Reply::Nothing,
                "$" => Reply::Bytes(self.bytes(size(rest, self.max_bytes)?).await?),
                // A server nests no deeper than this.
                "*" if depth < 4 => {
                    let mut list = Vec::new();
                    for _ in 0..size(rest, MAX_ELEMENTS)? {
                        list.push(self.reply(depth + 1).await?);
                    }
                    Reply::List(list)
                }
                _ => return Err(nonsense()),
            })
        })
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        (&mut self.stream).take(MAX_LINE).read_line(&mut line).await?;
        line.strip_suffix("\r\n").map(ToOwned::to_owned).ok_or_else(nonsense)
    }

    async fn bytes(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut self.stream).take(length).read_to_end(&mut bytes).await?;
        let mut end = [0; 2];
        self.stream.read_exact(&mut end).await?;
        if bytes.len() as u64 == length && end == *b"\r\n" { Ok(bytes) } else { Err(nonsense()) }
    }
}

fn size(text: &str, limit: u64) -> io::Result<u64> {
    text.parse().ok().filter(|size| *size <= limit).ok_or_else(nonsense)
}

fn nonsense() -> Error {
    Error::new(ErrorKind::InvalidData, "that is no answer of a Redis server, or one too long")
}
