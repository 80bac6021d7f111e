//! What is to be done, step by step, in a file without a name: a million steps cost no memory, and go with the
//! process.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

use super::item::Item;
use crate::backend::{Entry, EntryKind};

/// What happens to one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A file that was not there.
    New,
    /// A file that gives way to another content.
    Change,
    /// A symbolic link that was not there.
    Link,
    /// A symbolic link that takes the place of something.
    Relink,
    /// A directory that was not there.
    Make,
    /// A directory that is there; its time is set when all else is done.
    Keep,
    /// Only permissions and time are set.
    Touch,
    /// It goes.
    Delete,
}

const ACTIONS: [Action; 8] = [
    Action::New,
    Action::Change,
    Action::Link,
    Action::Relink,
    Action::Make,
    Action::Keep,
    Action::Touch,
    Action::Delete,
];
const KINDS: [EntryKind; 4] =
    [EntryKind::File, EntryKind::Directory, EntryKind::Symlink, EntryKind::Other];

/// Longest field that is read back.
const MAX_FIELD: u32 = 64 * 1024;

impl Action {
    /// For people and programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Change => "change",
            Self::Link | Self::Relink => "link",
            Self::Make => "mkdir",
            Self::Keep => "keep",
            Self::Touch => "touch",
            Self::Delete => "delete",
        }
    }
}

/// One of them: what is done, with what the source has there, or of what is deleted, the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub action: Action,
    /// With what.
    pub item: Item,
}

/// Steps being written down.
pub struct Draft {
    file: BufWriter<File>,
    steps: u64,
}

/// Steps that can be gone through again and again.
pub struct Plan {
    file: File,
    steps: u64,
}

impl Draft {
    /// None yet; the file lies in `dir`.
    pub fn new(dir: &Path) -> io::Result<Self> {
        Ok(Self { file: BufWriter::new(tempfile::tempfile_in(dir)?), steps: 0 })
    }

    /// Adds one.
    pub fn push(&mut self, step: &Step) -> io::Result<()> {
        let entry = &step.item.entry;
        let numbers = [
            ACTIONS.iter().position(|action| *action == step.action).unwrap_or(0) as u64,
            KINDS.iter().position(|kind| *kind == entry.kind).unwrap_or(0) as u64,
            entry.length,
            entry.mtime.0.cast_unsigned(),
            entry.mtime.1.into(),
            entry.mode.into(),
            step.item.tag.is_some().into(),
        ];
        for number in numbers {
            self.file.write_all(&number.to_le_bytes())?;
        }
        let tag = step.item.tag.as_deref().unwrap_or_default().as_bytes();
        for field in [&entry.path[..], &entry.link_target, tag] {
            self.file.write_all(&(field.len() as u32).to_le_bytes())?;
            self.file.write_all(field)?;
        }
        self.steps += 1;
        Ok(())
    }

    /// No more.
    pub fn finish(self) -> io::Result<Plan> {
        let file = self.file.into_inner().map_err(|error| error.into_error())?;
        Ok(Plan { file, steps: self.steps })
    }
}

impl Plan {
    /// More behind them.
    pub fn go_on(self) -> io::Result<Draft> {
        let mut file = self.file;
        file.seek(io::SeekFrom::End(0))?;
        Ok(Draft { file: BufWriter::new(file), steps: self.steps })
    }

    /// Those that delete. One pass at a time.
    pub fn deletions(&self) -> io::Result<impl Iterator<Item = io::Result<Step>>> {
        let deletes = |step: &io::Result<Step>| {
            step.as_ref().map_or(true, |step| step.action == Action::Delete)
        };
        Ok(self.steps()?.filter(deletes))
    }

    /// From the first to the last. One pass at a time.
    pub fn steps(&self) -> io::Result<impl Iterator<Item = io::Result<Step>>> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        let mut file = BufReader::new(file);
        Ok((0..self.steps).map(move |_| read(&mut file)))
    }
}

fn read(file: &mut impl Read) -> io::Result<Step> {
    let mut number = || -> io::Result<u64> {
        let mut bytes = [0; 8];
        file.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    };
    let numbers = [number()?, number()?, number()?, number()?, number()?, number()?, number()?];
    let mut field = || -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        file.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length).min(MAX_FIELD);
        let mut bytes = vec![0; length as usize];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    let (path, link_target, tag) = (field()?, field()?, field()?);
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let at = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let small = |number: u64| u32::try_from(number).map_err(|_| bad());
    let entry = Entry {
        path,
        kind: *KINDS.get(at(numbers[1])).ok_or_else(bad)?,
        length: numbers[2],
        mode: small(numbers[5])?,
        mtime: (numbers[3].cast_signed(), small(numbers[4])?),
        uid: 0,
        gid: 0,
        link_target,
    };
    let tag = (numbers[6] > 0).then(|| String::from_utf8_lossy(&tag).into_owned());
    let action = *ACTIONS.get(at(numbers[0])).ok_or_else(bad)?;
    Ok(Step { action, item: Item { entry, tag } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::fake::entry;

    #[test]
    fn steps_read_back_as_they_were_written_more_than_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut draft = Draft::new(dir.path()).unwrap();
        let mut odd = entry("x", EntryKind::Symlink, 0);
        (odd.path, odd.mtime) = (b"\xff/\n".to_vec(), (-5, 999_999_999));
        let items = [
            Item { entry: odd, tag: None },
            Item { entry: entry("f", EntryKind::File, u64::MAX), tag: Some("\"e\"".into()) },
            Item { entry: entry("d", EntryKind::Directory, 0), tag: Some(String::new()) },
        ];
        let steps: Vec<_> = ACTIONS
            .iter()
            .flat_map(|&action| items.clone().map(|item| Step { action, item }))
            .collect();
        let (first, rest) = steps.split_at(3);
        first.iter().for_each(|step| draft.push(step).unwrap());
        let plan = draft.finish().unwrap();
        assert_eq!(plan.steps().unwrap().count(), 3);
        let mut draft = plan.go_on().unwrap();
        rest.iter().for_each(|step| draft.push(step).unwrap());
        let plan = draft.finish().unwrap();
        for _ in 0..2 {
            let read: Vec<_> = plan.steps().unwrap().map(Result::unwrap).collect();
            assert_eq!(read, steps);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
