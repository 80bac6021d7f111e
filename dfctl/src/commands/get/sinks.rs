//! Where received bytes go: a part file, a stream, or a comparison with what is there.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use dfs_model::ByteRange;
use dfs_peer::hashtree::Cv;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::codes;
use crate::commands::inside::interrupted;
use crate::context::Context;
use crate::error::CliError;
use crate::part::{Hasher, PartFile};
use crate::transfer::Sink;

/// How often a write that waits looks whether it is still wanted.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Into a part file.
pub struct IntoPart<'a> {
    /// The file.
    pub part: &'a mut PartFile,
    /// Content offset of its first byte.
    pub origin: u64,
    /// Whether it is to hold the content from end to end.
    pub is_whole: bool,
}

impl Sink for IntoPart<'_> {
    fn data(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        let result = self.part.append(bytes);
        result.map_err(|error| CliError::output("write", &self.part.path(), &error))
    }

    fn written(&mut self, range: ByteRange, digests: &[Cv]) -> Result<(), CliError> {
        let at = |offset: u64| offset.saturating_sub(self.origin);
        let digests = if self.is_whole { digests } else { &[] };
        let result = self.part.written(ByteRange::new(at(range.start), at(range.end)), digests);
        result.map_err(|error| CliError::output("write", &self.part.path(), &error))
    }

    fn take_over(&mut self, content: &Path) -> Result<bool, CliError> {
        let result = self.part.take_over(content);
        result.map_err(|error| CliError::output("write", &self.part.path(), &error))
    }
}

/// Into the standard output.
pub struct IntoStdout<'a> {
    /// Whose output.
    pub context: &'a Context,
    /// Digest in the making.
    pub hasher: Option<Hasher>,
}

impl Sink for IntoStdout<'_> {
    fn data(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        // Who reads it may wait for these bytes, and the next may be long in coming.
        self.context.output.bytes(bytes)?;
        self.context.output.flush()
    }

    fn written(&mut self, _range: ByteRange, _digests: &[Cv]) -> Result<(), CliError> {
        Err(no_file())
    }
}

/// Into a device or pipe.
pub struct IntoDevice<'a> {
    /// Who may interrupt it.
    pub context: &'a Context,
    /// It.
    pub file: File,
    /// Its name.
    pub path: PathBuf,
    /// Digest in the making.
    pub hasher: Option<Hasher>,
}

impl IntoDevice<'_> {
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), CliError> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait()?,
                Err(error) => return Err(CliError::output("write to", &self.path, &error)),
            }
        }
        Ok(())
    }

    /// Until there is room in the pipe, for a while.
    fn wait(&self) -> Result<(), CliError> {
        let mut polled = [PollFd::new(&self.file, PollFlags::OUT)];
        match rustix::event::poll(&mut polled, Some(&LOOK_EVERY)) {
            _ if self.context.interrupted.is_cancelled() => Err(interrupted()),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(CliError::output("write to", &self.path, &error.into())),
        }
    }
}

impl Sink for IntoDevice<'_> {
    fn data(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.write(bytes)
    }

    fn written(&mut self, _range: ByteRange, _digests: &[Cv]) -> Result<(), CliError> {
        Err(no_file())
    }
}

/// Against a file that is there already; the first difference ends it.
pub struct Compare<'a> {
    file: &'a File,
    path: &'a Path,
    at: u64,
    buffer: Vec<u8>,
}

impl<'a> Compare<'a> {
    /// From the file's first byte.
    pub fn new(file: &'a File, path: &'a Path) -> Self {
        Self { file, path, at: 0, buffer: Vec::new() }
    }

    /// Whether the file ends where the content did.
    pub fn ends_here(&self) -> Result<(), CliError> {
        match self.file.metadata() {
            Ok(status) if status.len() == self.at => Ok(()),
            Ok(_) => Err(exists(self.path)),
            Err(error) => Err(CliError::output("read", self.path, &error)),
        }
    }
}

impl Sink for Compare<'_> {
    fn data(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.buffer.resize(bytes.len(), 0);
        match self.file.read_exact_at(&mut self.buffer, self.at) {
            Ok(()) if self.buffer == bytes => {
                self.at += bytes.len() as u64;
                Ok(())
            }
            Ok(()) => Err(exists(self.path)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(exists(self.path)),
            Err(error) => Err(CliError::output("read", self.path, &error)),
        }
    }

    fn written(&mut self, _range: ByteRange, _digests: &[Cv]) -> Result<(), CliError> {
        Err(no_file())
    }
}

/// The output is there, and it is another one.
pub fn exists(path: &Path) -> CliError {
    CliError::new(&codes::TARGET_EXISTS, format!("{} exists and is different", path.display()))
        .hint("the same command with --force to replace it, or with -o for another name")
}

fn no_file() -> CliError {
    CliError::new(&codes::UNEXPECTED, "bytes were written to a file that was never handed out")
}
