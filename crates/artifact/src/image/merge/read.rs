//! Entries of a layer as the tree takes them, and what may be spent on those of all layers together.

use super::{Fault, Layer};
use crate::erofs::{Attr, FormatError, Kind};
use crate::placing::{MAX_ENTRIES, MAX_SPARSE_CHUNKS, MAX_TEXT};
use crate::tree::{Content, FileData, Location, Meta, Run, SparseFile};

/// What was spent on all layers so far.
#[derive(Debug, Default)]
pub(super) struct Spent {
    entries: usize,
    text: u64,
    runs: u64,
}

impl Spent {
    /// Admits so many nodes with so many bytes of names.
    pub fn entries(&mut self, count: usize, text: usize) -> Result<(), Fault> {
        self.entries += count;
        if self.entries > MAX_ENTRIES {
            return Err(Fault::TooMuch("entries"));
        }
        self.text(text)
    }

    fn text(&mut self, bytes: usize) -> Result<(), Fault> {
        self.text += bytes as u64;
        let much = self.text > MAX_TEXT;
        if much { Err(Fault::TooMuch("names and attributes")) } else { Ok(()) }
    }

    fn run(&mut self) -> Result<(), Fault> {
        self.runs += 1;
        if self.runs > MAX_SPARSE_CHUNKS { Err(Fault::TooMuch("holes")) } else { Ok(()) }
    }
}

impl<D: AsRef<[u8]> + Send + Sync + 'static> Layer<'_, D> {
    pub(super) fn meta(&self, attr: &Attr, spent: &mut Spent) -> Result<Meta, Fault> {
        let xattrs = self.image.xattrs(attr.nid)?;
        spent.text(xattrs.iter().map(|(name, value)| name.len() + value.len()).sum())?;
        let &Attr { mode, uid, gid, mtime, .. } = attr;
        Ok(Meta { mode, uid, gid, mtime, xattrs })
    }

    pub(super) fn content(&self, attr: &Attr, spent: &mut Spent) -> Result<Content, Fault> {
        let nid = attr.nid;
        let device = attr.device.ok_or(FormatError::WrongKind { nid, wanted: "a device" });
        Ok(match attr.kind {
            Kind::Directory => Content::Directory,
            Kind::File => self.file(attr, spent)?,
            Kind::Symlink => {
                let target = self.image.read_link(nid)?;
                spent.text(target.len())?;
                Content::Symlink(target)
            }
            Kind::CharDevice => Content::CharDevice(device?),
            Kind::BlockDevice => Content::BlockDevice(device?),
            Kind::Fifo => Content::Fifo,
            Kind::Socket => Content::Socket,
        })
    }

    /// A file with the numbers that its spaces have in the tree.
    fn file(&self, attr: &Attr, spent: &mut Spent) -> Result<Content, Fault> {
        let nid = attr.nid;
        let (mut runs, mut at) = (Vec::new(), 0);
        while let Some(extent) = self.image.extent(nid, at)? {
            if let Some(space) = extent.space {
                let space = self.first_space + space;
                let location = Location { space, offset: extent.offset };
                runs.push(Run { at, length: extent.length, location });
            }
            if at > 0 {
                spent.run()?;
            }
            at += extent.length;
        }
        let corrupt = FormatError::Corrupt { nid, what: "its runs overlap" };
        let file = SparseFile::new(attr.size, runs).ok_or(corrupt)?;
        let whole = match file.runs() {
            [] if attr.size == 0 => Some(Location { space: 0, offset: 0 }),
            [run] if run.length == attr.size => Some(run.location),
            _ => None,
        };
        let Some(location) = whole else { return Ok(Content::Sparse(file)) };
        let digest = (self.digest)(nid).map(Box::new);
        Ok(Content::File(FileData { length: attr.size, location, digest }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_layers_may_take_is_bounded() {
        let mut spent = Spent { entries: MAX_ENTRIES - 1, text: MAX_TEXT - 8, ..Spent::default() };
        assert!(spent.entries(1, 8).is_ok());
        assert!(matches!(spent.text(1), Err(Fault::TooMuch("names and attributes"))));
        assert!(matches!(spent.entries(1, 0), Err(Fault::TooMuch("entries"))));
        let mut spent = Spent { runs: MAX_SPARSE_CHUNKS - 1, ..Spent::default() };
        assert!(spent.run().is_ok());
        assert!(matches!(spent.run(), Err(Fault::TooMuch("holes"))));
    }
}
