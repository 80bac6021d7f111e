//! Into a tar that docker and podman load: a layout, and beside it what older ones read. It has its name once all of it is
//! there.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use dfs_artifact::image::graph;
use dfs_source::oci::{Named, Reference};
use serde_json::json;

use super::blob_path;
use super::draft::{Draft, take_away_left};
use super::layout::{empty_index, named};
use crate::codes;
use crate::error::CliError;

/// A tar's record.
const RECORD: u64 = 512;

/// By what name docker knows an image once it has loaded it.
pub enum Tagged {
    /// A whole one.
    By(Reference),
    /// A tag, of which nobody says of what repository it is: docker names it by its digest.
    Bare(String),
}

impl Tagged {
    /// What somebody means by a name: one without a registry is of docker's.
    pub fn of(name: &str) -> Result<Self, String> {
        let reference = Reference::of_name(name)?;
        match reference.named() {
            Named::Tag(_) if reference.layers().is_none() => Ok(Self::By(reference)),
            _ => Err("it is REPOSITORY:TAG, as docker has it".to_owned()),
        }
    }

    fn tag(&self) -> &str {
        match self {
            Self::Bare(tag) => tag,
            Self::By(reference) => match reference.named() {
                Named::Tag(tag) => tag,
                Named::Manifest(_) | Named::Blob(_) => "",
            },
        }
    }

    /// All of it.
    fn whole(&self) -> Option<String> {
        let Self::By(reference) = self else { return None };
        let (registry, repository) = (reference.registry(), reference.repository());
        Some(format!("{registry}/{repository}:{}", self.tag()))
    }
}

pub struct ArchiveWriter {
    path: PathBuf,
    file: BufWriter<Draft>,
    /// Bytes of the member under way.
    written: u64,
}

impl ArchiveWriter {
    /// A new file.
    pub fn open(path: &Path) -> Result<Self, CliError> {
        if fs::symlink_metadata(path).is_ok() {
            let what = format!("cannot write an archive to {}", path.display());
            return Err(CliError::new(&codes::TARGET_EXISTS, what)
                .because("there is something by this name")
                .hint("name a file that is new"));
        }
        let dir = path.parent().unwrap_or(Path::new("/"));
        take_away_left(dir);
        let file = Draft::new(dir).map_err(|error| CliError::output("write", path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(1 << 20, file),
            written: 0,
        })
    }

    /// Begins a member.
    pub fn begin(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.file.write_all(&header(name, length)?)?;
        self.written = 0;
        Ok(())
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// Ends it.
    pub fn end(&mut self) -> io::Result<()> {
        let padding = self.written.next_multiple_of(RECORD) - self.written;
        self.file.write_all(&vec![0; padding as usize])
    }

    fn member(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.begin(name, bytes.len() as u64)?;
        self.write(bytes)?;
        self.end()
    }

    /// Says by which name it has which image, and gives the file its own.
    pub fn finish(mut self, root: &graph::Named, name: &Tagged) -> io::Result<()> {
        let no_image = || io::Error::new(io::ErrorKind::InvalidInput, "an archive is of an image");
        let manifest = root.manifest.as_ref().ok_or_else(no_image)?;
        let layers: Vec<String> =
            manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect();
        let whole = name.whole();
        let saved = json!([{
            "Config": blob_path(&manifest.config.digest),
            "RepoTags": whole.iter().collect::<Vec<_>>(),
            "Layers": layers,
        }]);
        let mut index = empty_index();
        let mut entry = named(root, name.tag());
        if let Some(whole) = whole {
            entry["annotations"]["io.containerd.image.name"] = whole.into();
        }
        index["manifests"] = json!([entry]);
        self.member("manifest.json", saved.to_string().as_bytes())?;
        self.member("index.json", index.to_string().as_bytes())?;
        self.member("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        self.file.write_all(&[0; 2 * RECORD as usize])?;
        self.file.into_inner().map_err(io::IntoInnerError::into_error)?.place(&self.path)
    }
}

/// The header of a file, as POSIX has it; of what is longer than its digits tell, as GNU has it.
fn header(name: &str, length: u64) -> io::Result<[u8; RECORD as usize]> {
    let mut header = [0; RECORD as usize];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    if name.len() > 100 {
        let why = "an archive takes no digest of SHA-512: export to a layout";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if length < 1 << 33 {
        put(124, format!("{length:011o}\0").as_bytes());
    } else {
        put(124, &[0x80, 0, 0, 0]);
        put(128, &length.to_be_bytes());
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(header)
}
