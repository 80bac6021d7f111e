//! The tree inside a zip: its directory is read, and of the members only links and what may lie at a block.

use std::collections::HashMap;
use std::sync::Arc;

use dfs_model::ByteRange;
use dfs_source::SourceError;

use super::{Artifact, Context, Planned, ResolveError};
use crate::erofs::BlockSize;
use crate::origin::{Forward, Origin, part_of};
use crate::placing::{Placing, TooMuch};
use crate::recipe::Recipe;
use crate::tree::{Content, FileData, Location, MAX_SYMLINK};
use crate::zip::member::{LOCAL_BYTES, extent, head_bytes};
use crate::zip::{
    Directory, ENTRY_BYTES, Entry, Kind, Laid, Layout, TAIL, ZipError, find_directory,
};

/// Where the directory of a zip of `length` bytes is.
pub(super) async fn find(
    origin: Arc<dyn Origin>,
    length: u64,
) -> Result<Result<Directory, ZipError>, SourceError> {
    let tail = ByteRange::new(length.saturating_sub(TAIL), length);
    let bytes = Forward::new(origin, length).read(tail).await?;
    Ok(find_directory(&bytes, tail.start))
}

impl Context<'_> {
    pub(super) async fn zip(
        &self,
        recipe: Recipe,
        origin: Arc<dyn Origin>,
        length: u64,
        directory: Directory,
    ) -> Result<Artifact, ResolveError> {
        let entries = self.directory(Forward::new(Arc::clone(&origin), length), directory).await?;
        let layout = Layout::new(&entries, directory.shift, directory.at);
        let layout = layout.map_err(|error| self.refused(error))?;
        let (links, direct) =
            self.looked_into(Forward::new(origin, length), &layout, &entries).await?;
        let is_file = |at: usize| entries[at].kind == Kind::File;
        let (laid, spaces) = layout.lay_out(is_file, &direct);
        let mut placing = Placing::default();
        for (at, entry) in entries.iter().enumerate() {
            let content = content(entry, laid[at], links.get(&at));
            let put = match content {
                Ok(content) => placing.put(&entry.path, entry.meta.clone(), content),
                Err(reason) => {
                    placing.skip(&entry.path, reason);
                    Ok(())
                }
            };
            put.map_err(|TooMuch(what)| self.refused(ZipError::TooMuch(what)))?;
        }
        placing.finish();
        let mut tasks = Vec::with_capacity(spaces.parts.len() + 1);
        for (bytes, parts) in spaces.parts {
            tasks.push(self.parts(&recipe, length, bytes, parts)?);
        }
        if spaces.archive {
            tasks.insert(0, recipe);
        }
        let Placing { tree, newest: build_time, left_out, .. } = placing;
        let block_size = BlockSize::B512;
        let image = None;
        self.finish(Planned { tree, block_size, build_time, tasks, left_out, image }).await
    }

    fn refused(&self, source: ZipError) -> ResolveError {
        ResolveError::Zip { url: self.url(), source }
    }

    async fn directory(
        &self,
        mut reader: Forward,
        directory: Directory,
    ) -> Result<Vec<Entry>, ResolveError> {
        let end = directory.at + directory.length;
        let mut at = directory.at;
        let mut entries = Vec::new();
        while (entries.len() as u64) < directory.entries && at < end {
            let corrupt = || self.refused(ZipError::Corrupt { at });
            let fixed = reader.read(ByteRange::at(at, ENTRY_BYTES as u64)).await?;
            let fixed: &[u8; ENTRY_BYTES] = fixed.first_chunk().ok_or_else(corrupt)?;
            let rest = Entry::rest_bytes(fixed).ok_or_else(corrupt)?;
            let rest = ByteRange::at(at + ENTRY_BYTES as u64, rest);
            if rest.end > end {
                return Err(corrupt());
            }
            let entry = Entry::parse(fixed, &reader.read(rest).await?, at);
            entries.push(entry.map_err(|error| self.refused(error))?);
            at = rest.end;
        }
        Ok(entries)
    }

    /// The targets of links, and where stored members begin that lie at a block of the zip.
    async fn looked_into(
        &self,
        mut reader: Forward,
        layout: &Layout<'_>,
        entries: &[Entry],
    ) -> Result<(HashMap<usize, Vec<u8>>, HashMap<usize, u64>), ResolveError> {
        let (mut links, mut direct) = (HashMap::new(), HashMap::new());
        for at in layout.in_order() {
            let (part, entry) = (layout.part(at), &entries[at]);
            if entry.kind == Kind::Symlink && entry.length <= MAX_SYMLINK as u64 {
                let extent = extent(&part);
                let bytes = reader.read(extent).await?;
                if let Ok(target) = part_of(&bytes, extent.start, &part) {
                    links.insert(at, target.to_vec());
                }
            } else if entry.kind == Kind::File && layout.may_be_direct(at) {
                let head = reader.read(ByteRange::at(part.from, LOCAL_BYTES)).await?;
                let begin = head_bytes(&head).ok().map(|head| part.from + head);
                let whole = |begin: &u64| begin + part.packed <= part.until;
                if let Some(begin) = begin.filter(whole)
                    && begin.is_multiple_of(BlockSize::B512.bytes())
                {
                    direct.insert(at, begin);
                }
            }
        }
        Ok((links, direct))
    }
}

/// What a member is in a tree, or why it cannot be in one.
fn content(entry: &Entry, laid: Laid, link: Option<&Vec<u8>>) -> Result<Content, String> {
    match entry.kind {
        Kind::Directory => Ok(Content::Directory),
        Kind::Symlink => {
            let target = link.ok_or("the target of the symbolic link cannot be read")?;
            Ok(Content::Symlink(target.clone()))
        }
        Kind::Other => Err("it is neither a file nor a directory nor a link".to_owned()),
        Kind::File => {
            let location = match laid {
                Laid::Empty => Location { space: 0, offset: 0 },
                Laid::At(location) => location,
                Laid::TooLong => return Err("it is longer than an index can hold".to_owned()),
            };
            Ok(Content::File(FileData { length: entry.length, location, digest: None }))
        }
    }
}
