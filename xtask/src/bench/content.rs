//! What is in a file that is moved: what nothing can compress, or what people write.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use clap::ValueEnum;

use crate::run::{Failure, failed};

/// Bytes of text made at a time: further than zstd looks back, so that none of it is found again.
const TEXT: usize = 64 << 20;

/// What is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Content {
    /// Bytes that nothing can compress
    Random,
    /// Text that zstd makes a third or a quarter of
    Text,
}

impl Content {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::Random, Self::Text];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Text => "text",
        }
    }

    /// Writes a file of `size` bytes of it.
    pub fn write(self, path: &Path, size: u64) -> Result<(), Failure> {
        match self {
            Self::Random => write_noise(path, size),
            Self::Text => write_text(path, size),
        }
    }
}

fn write_text(path: &Path, size: u64) -> Result<(), Failure> {
    let mut file = File::create(path).map_err(failed(path))?;
    let mut left = size;
    for seed in 0.. {
        let count = left.min(TEXT as u64);
        file.write_all(&dfs_tests::origin::prose(seed, count as usize)).map_err(failed(path))?;
        left -= count;
        if left == 0 {
            break;
        }
    }
    Ok(())
}

/// Writes `size` bytes that nothing can compress.
pub fn write_noise(path: &Path, size: u64) -> Result<(), Failure> {
    let mut file = File::create(path).map_err(failed(path))?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < size {
        let count = (size - at).min(buffer.len() as u64) as usize;
        dfs_tests::origin::fill(4, at, &mut buffer[..count]);
        file.write_all(&buffer[..count]).map_err(failed(path))?;
        at += count as u64;
    }
    Ok(())
}
