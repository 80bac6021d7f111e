//! Doing what is planned: directories, files and links as they come, several at a time; then what is deleted; then
//! the times of directories, which all of that has changed.

use std::cell::RefCell;
use std::io;

use futures::stream::{self, StreamExt};
use rustix::fs::{Access, AtFlags};
use rustix::io::Errno;
use tokio::sync::Semaphore;

use super::destination::Destination;
use super::into_bucket::ROOM_MIB;
use super::into_directory::Done;
use super::plan::{Action, Step};
use super::planning::Planned;
use super::{Run, add};
use crate::backend::EntryKind;
use crate::codes;
use crate::commands::inside::interrupted;
use crate::commands::saving::is_final;
use crate::error::CliError;
use crate::outdir::{OutDir, Replace};
use crate::output::printable_name;

/// Steps under way at a time.
const FILES_AT_ONCE: usize = 8;
const OBJECTS_AT_ONCE: usize = 16;

/// Steps put off that are remembered: files where directories are to go.
const MAX_LATER: usize = 100_000;

/// Steps that wait until what stands in their way is deleted.
type Later = RefCell<Vec<Step>>;

/// What a destination is worked on with.
enum Place {
    Directory(OutDir),
    Bucket(Semaphore),
}

impl Run<'_> {
    /// Does all of it; what fails alone is told and counted.
    pub async fn carry_out(&self, planned: &Planned) -> Result<(), CliError> {
        if planned.totals.is_nothing(self.deletes)
            && matches!(self.destination, Destination::Bucket { .. })
        {
            return Ok(());
        }
        let place = self.place(planned)?;
        let later = Later::default();
        self.each(planned, &place, self.deletes.then_some(&later)).await?;
        if self.deletes && self.tally.failed.get() == 0 {
            self.delete(planned, &place).await?;
            for (number, step) in later.take().into_iter().enumerate() {
                let done = self.step(&place, number as u64, &step).await;
                // What stands in its way still is there to stay.
                self.count(&step, done, None).map_err(|error| self.stopped(error))?;
            }
        }
        if let Place::Directory(root) = &place {
            self.dress(planned, root)?;
        }
        Ok(())
    }

    fn place(&self, planned: &Planned) -> Result<Place, CliError> {
        let Destination::Directory { path, .. } = &self.destination else {
            return Ok(Place::Bucket(Semaphore::new(ROOM_MIB)));
        };
        let failed = |error: io::Error| CliError::output("write into", path, &error);
        let made = std::fs::create_dir_all(path).and_then(|()| OutDir::open(path));
        let root = made.map_err(failed)?;
        let writable = rustix::fs::accessat(root.fd(), ".", Access::WRITE_OK, AtFlags::EACCESS);
        // Said once, not of each file. What may not be written otherwise may lie in one that may.
        if writable == Err(Errno::ROFS) && !planned.totals.is_nothing(self.deletes) {
            return Err(failed(Errno::ROFS.into()));
        }
        Ok(Place::Directory(root))
    }

    async fn each(
        &self,
        planned: &Planned,
        place: &Place,
        later: Option<&Later>,
    ) -> Result<(), CliError> {
        let unreadable = |error: io::Error| planned.unreadable(&error);
        let at_once = match place {
            Place::Directory(_) => FILES_AT_ONCE,
            Place::Bucket(_) => OBJECTS_AT_ONCE,
        };
        let steps = planned.plan.steps().map_err(unreadable)?.enumerate();
        let wanted = steps.filter(|(_, step)| {
            step.as_ref().map_or(true, |step| !matches!(step.action, Action::Keep | Action::Delete))
        });
        let mut working = stream::iter(wanted)
            .map(|(number, step)| async move {
                let step = step.map_err(unreadable)?;
                let done = Box::pin(self.step(place, number as u64, &step)).await;
                Ok((step, done))
            })
            .buffer_unordered(at_once);
        while let Some(worked) = working.next().await {
            let (step, done) = worked?;
            if let Err(error) = self.count(&step, done, later) {
                // The others under way leave their part files first.
                drop(working);
                return Err(self.stopped(error));
            }
        }
        Ok(())
    }

    async fn step(&self, place: &Place, number: u64, step: &Step) -> Result<Done, CliError> {
        if self.context.interrupted.is_cancelled() {
            return Err(interrupted());
        }
        let (action, item) = (step.action, &step.item);
        match (place, action) {
            (Place::Bucket(room), Action::New | Action::Change) => {
                self.put(number, item, room).await.map(|()| Done::Yes)
            }
            (Place::Directory(_), Action::New | Action::Change)
                if item.entry.kind == EntryKind::Other =>
            {
                let name = printable_name(&item.entry.path);
                let what = format!("{name} is a device, pipe or socket");
                Err(CliError::new(&codes::UNSUPPORTED, what))
            }
            (Place::Directory(root), Action::New | Action::Change) => {
                self.file(root, number, (action, item)).await
            }
            (Place::Directory(root), Action::Link) => self.link(root, item, Replace::Never),
            (Place::Directory(root), Action::Relink) => self.link(root, item, Replace::Always),
            (Place::Directory(root), Action::Make) => {
                self.make(root, &item.entry.path).map(|()| Done::Yes)
            }
            (Place::Directory(root), Action::Touch) => self.touch(root, item).map(|()| Done::Yes),
            // A bucket has nothing of these; the others have their own turn.
            (Place::Bucket(_), _) | (_, Action::Keep | Action::Delete) => Ok(Done::Yes),
        }
    }

    /// Takes note of a step; an error after which nothing makes sense is given back.
    fn count(
        &self,
        step: &Step,
        done: Result<Done, CliError>,
        later: Option<&Later>,
    ) -> Result<(), CliError> {
        let later = later.filter(|later| later.borrow().len() < MAX_LATER);
        let is_file = matches!(step.action, Action::New | Action::Change);
        match (done, later) {
            (Ok(Done::Yes), _) if is_file => {
                add(&self.tally.files, 1);
                add(&self.tally.bytes, step.item.entry.length);
            }
            (Ok(Done::Yes), _) => {}
            (Ok(Done::Later), Some(later)) => later.borrow_mut().push(step.clone()),
            (Ok(Done::Later), None) => {
                let name = printable_name(&step.item.entry.path);
                let what = format!("cannot write {name}: a directory has the name");
                self.note(&CliError::new(&codes::TARGET_EXISTS, what));
            }
            (Err(error), _) if is_final(&error) => return Err(error),
            (Err(error), _) => self.note(&error),
        }
        Ok(())
    }

    /// Deletes what the source does not have: files, then the directories that are empty then, the deepest first.
    async fn delete(&self, planned: &Planned, place: &Place) -> Result<(), CliError> {
        let unreadable = |error: io::Error| planned.unreadable(&error);
        let deleted = planned.plan.deletions().map_err(unreadable)?;
        let directories = RefCell::new(Vec::new());
        let mut working = stream::iter(deleted)
            .map(|step| {
                let directories = &directories;
                async move {
                    let step = step.map_err(unreadable)?;
                    Ok(match place {
                        Place::Bucket(_) => self.take_away(&step.item).await.map(|()| true),
                        Place::Directory(_) if step.item.is_directory() => {
                            directories.borrow_mut().push(step.item);
                            Ok(false)
                        }
                        Place::Directory(root) => self.remove_one(root, &step.item),
                    })
                }
            })
            .buffered(OBJECTS_AT_ONCE);
        while let Some(worked) = working.next().await {
            self.count_deleted(worked?)?;
        }
        drop(working);
        let Place::Directory(root) = place else { return Ok(()) };
        for item in directories.take().iter().rev() {
            self.count_deleted(self.remove_one(root, item))?;
        }
        Ok(())
    }

    fn remove_one(&self, root: &OutDir, item: &super::Item) -> Result<bool, CliError> {
        if self.context.interrupted.is_cancelled() {
            return Err(interrupted());
        }
        self.remove(root, item)
    }

    fn count_deleted(&self, deleted: Result<bool, CliError>) -> Result<(), CliError> {
        match deleted {
            Ok(gone) => add(&self.tally.deleted, u64::from(gone)),
            Err(error) if is_final(&error) => return Err(self.stopped(error)),
            Err(error) => self.note(&error),
        }
        Ok(())
    }

    /// Gives directories the permissions and times of the source's, now that nothing is written any more.
    fn dress(&self, planned: &Planned, root: &OutDir) -> Result<(), CliError> {
        let unreadable = |error: io::Error| planned.unreadable(&error);
        for step in planned.plan.steps().map_err(unreadable)? {
            let step = step.map_err(unreadable)?;
            if !matches!(step.action, Action::Make | Action::Keep) {
                continue;
            }
            // One that could not be made was told when it was to be made.
            match self.touch(root, &step.item) {
                Err(error) if step.action == Action::Keep => self.note(&error),
                _ => {}
            }
        }
        Ok(())
    }
}
