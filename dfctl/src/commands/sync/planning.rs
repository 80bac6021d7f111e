//! From two listings to a plan.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use futures::stream::{self, StreamExt};

use super::Wishes;
use super::destination::Destination;
use super::into_directory::last_of;
use super::item::{Item, Pair, Side, next_pair};
use super::origin::Origin;
use super::plan::{Action, Draft, Plan, Step};
use crate::backend::{EntryKind, Missing};
use crate::commands::inside::next;
use crate::commands::saving::parent_of;
use crate::context::Context;
use crate::error::CliError;
use crate::output::{count, counted};
use crate::part::part_name;

/// Names looked at at a time, where a look costs a request.
const AT_ONCE: usize = 16;

/// The destination's part files that are looked at in one run.
const MAX_PARTS: usize = 100_000;

/// What a plan comes to.
#[derive(Debug, Default)]
pub struct Totals {
    /// Entries of the source.
    pub listed: u64,
    /// Files to be copied, and their bytes.
    pub files: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Files and links that are there as they should be.
    pub unchanged: u64,
    /// Links to be made.
    pub links: u64,
    /// Directories to be made.
    pub directories: u64,
    /// Files of which only permissions or time are set.
    pub touched: u64,
    /// What the source does not have.
    pub deletes: u64,
    /// Symbolic links, which a bucket cannot hold.
    pub unheld: u64,
    /// What transfers left unfinished in the source.
    pub parts: u64,
    /// Part files of the destination that are left for another run to look at.
    pub parts_beyond: u64,
}

impl Totals {
    /// Whether there is nothing to be done.
    pub fn is_nothing(&self, delete: bool) -> bool {
        let done = [self.files, self.links, self.directories, self.touched];
        done.iter().all(|number| *number == 0) && (!delete || self.deletes == 0)
    }
}

/// A plan, and what is to be said of it.
pub struct Planned {
    /// The steps.
    pub plan: Plan,
    /// Their sums.
    pub totals: Totals,
    /// What could not be looked at.
    pub holes: Vec<Missing>,
    /// Whether no pattern narrowed it.
    pub is_of_all: bool,
    /// Where the steps are written down.
    dir: PathBuf,
}

impl Planned {
    /// The plan itself cannot be read back.
    pub fn unreadable(&self, error: &io::Error) -> CliError {
        CliError::output("read what is to be done in", &self.dir, error)
    }

    /// What is not taken for content, and what is not looked at, each said once.
    pub fn parts_left(&self) -> impl Iterator<Item = String> {
        let said = |number: u64, what: &str| {
            let parts = counted(number, "part file", "part files");
            (number > 0).then(|| format!("{parts} {what}"))
        };
        let unfinished = "of unfinished transfers in the source: not copied";
        let beyond = "more in the destination: the next run looks at them";
        [said(self.totals.parts, unfinished), said(self.totals.parts_beyond, beyond)]
            .into_iter()
            .flatten()
    }

    /// What the destination cannot hold, said once.
    pub fn left_out(&self, origin: &Origin, destination: &Destination) -> Option<String> {
        let is_bucket = matches!(destination, Destination::Bucket { .. });
        let moved = self.totals.files > 0 || self.totals.unheld > 0;
        if !is_bucket || !moved || !(origin.has_modes() || self.totals.unheld > 0) {
            return None;
        }
        let links = match self.totals.unheld {
            0 => String::new(),
            1 => "1 symbolic link, ".to_owned(),
            links => format!("{} symbolic links, ", count(links)),
        };
        Some(format!(
            "a bucket does not hold, and is not given: {links}permissions, empty directories"
        ))
    }
}

/// Looks at both sides and decides.
pub async fn plan(
    context: &Context,
    wishes: &Wishes,
    origin: &Origin,
    destination: &Destination,
    shown: &str,
) -> Result<Planned, CliError> {
    let dir = crate::launch::private(&context.settings.sync_dir()?)?;
    let mut draft = Draft::new(&dir).map_err(|error| CliError::output("write in", &dir, &error))?;
    let (mut source, mut there) = (
        Side::new(origin.list(), shown.to_owned()),
        Side::new(destination.list(), destination.shown()),
    );
    let (mut totals, mut parts) = (Totals::default(), Vec::new());
    let unwritten = |error: io::Error| CliError::output("write in", &dir, &error);
    {
        let sides = (&mut source, &mut there);
        let pairs = stream::try_unfold(sides, async |sides| {
            Ok(next_pair(sides.0, sides.1).await?.map(|pair| (pair, sides)))
        });
        let decided = pairs
            .map(|pair| async move { decide(wishes, origin, destination, pair?).await })
            .buffered(AT_ONCE);
        let mut decided = std::pin::pin!(decided);
        while let Some(decision) = next(context, &mut decided).await? {
            let decision = decision?;
            totals.add(&decision);
            match decision {
                Decision::Do(step) => draft.push(&step).map_err(unwritten)?,
                Decision::Part(part) if parts.len() < MAX_PARTS => parts.push(part),
                Decision::Part(_) => totals.parts_beyond += 1,
                _ => {}
            }
        }
    }
    let wanted = |hole: &Missing| wishes.filter.may_have(&hole.path);
    let holes = source.holes.into_iter().chain(there.holes).filter(wanted).collect();
    let mut plan = draft.finish().map_err(unwritten)?;
    let stale = stale(&plan, parts).map_err(unwritten)?;
    if !stale.is_empty() {
        let mut draft = plan.go_on().map_err(unwritten)?;
        for item in stale {
            let step = Step { action: Action::Delete, item };
            draft.push(&step).map_err(unwritten)?;
            totals.add(&Decision::Do(step));
        }
        plan = draft.finish().map_err(unwritten)?;
    }
    Ok(Planned { plan, totals, holes, is_of_all: wishes.filter.is_open(), dir })
}

/// Those of the destination's part files that no step of the plan takes up.
fn stale(plan: &Plan, mut parts: Vec<Item>) -> io::Result<Vec<Item>> {
    if parts.is_empty() {
        return Ok(parts);
    }
    let mut taken_up = HashSet::new();
    for step in plan.steps()? {
        let step = step?;
        if matches!(step.action, Action::New | Action::Change) {
            taken_up.extend(part_of(&step.item.entry.path, &parts));
        }
    }
    parts.retain(|part| !taken_up.contains(&part.entry.path));
    Ok(parts)
}

/// The part file of what stands at `path`, if it is one of `parts`, which are in order.
fn part_of(path: &[u8], parts: &[Item]) -> Option<Vec<u8>> {
    let dir = parent_of(path);
    let part = part_name(last_of(path));
    let part = if dir.is_empty() { part.into_vec() } else { [dir, b"/", part.as_bytes()].concat() };
    parts.binary_search_by(|known| known.entry.path.cmp(&part)).is_ok().then_some(part)
}

/// What comes of one name.
enum Decision {
    /// This.
    Do(Step),
    /// It is as it should be.
    Same,
    /// The source has it, and the destination cannot.
    Unheld,
    /// What a transfer left unfinished in the source.
    Unfinished,
    /// What a transfer left unfinished in the destination: it goes unless it is taken up.
    Part(Item),
    /// It is none of ours.
    Nothing,
}

impl Totals {
    fn add(&mut self, decision: &Decision) {
        let step = match decision {
            Decision::Do(step) => step,
            Decision::Same => {
                (self.listed, self.unchanged) = (self.listed + 1, self.unchanged + 1);
                return;
            }
            Decision::Unheld => {
                (self.listed, self.unheld) = (self.listed + 1, self.unheld + 1);
                return;
            }
            Decision::Unfinished => {
                self.parts += 1;
                return;
            }
            Decision::Part(_) | Decision::Nothing => return,
        };
        let counted = match step.action {
            Action::New | Action::Change => {
                self.bytes = self.bytes.saturating_add(step.item.entry.length);
                &mut self.files
            }
            Action::Link | Action::Relink => &mut self.links,
            Action::Make => &mut self.directories,
            Action::Touch => &mut self.touched,
            Action::Delete => &mut self.deletes,
            Action::Keep => &mut self.listed,
        };
        *counted += 1;
        if !matches!(step.action, Action::Delete | Action::Keep) {
            self.listed += 1;
        }
    }
}

async fn decide(
    wishes: &Wishes,
    origin: &Origin,
    destination: &Destination,
    pair: Pair,
) -> Result<Decision, CliError> {
    let is_bucket = matches!(destination, Destination::Bucket { .. });
    let first = pair.source.as_ref().or(pair.there.as_ref());
    if let Some(whole) = first.and_then(Item::is_part_of) {
        let is_wanted = wishes.filter.has(as_path(whole));
        return Ok(match (pair.source, pair.there) {
            _ if !is_wanted => Decision::Nothing,
            // What stands under its name in the destination is none that the source does not have.
            (Some(_), _) => Decision::Unfinished,
            (None, Some(part)) if wishes.delete && wishes.filter.may_have(&part.entry.path) => {
                match is_bucket {
                    // Nothing takes it up there.
                    true => Decision::Do(Step { action: Action::Delete, item: part }),
                    false => Decision::Part(part),
                }
            }
            (None, _) => Decision::Nothing,
        });
    }
    let Some(item) = pair.source else {
        let Some(item) = pair.there.filter(|there| is_ours(wishes, &there.entry)) else {
            return Ok(Decision::Nothing);
        };
        let step = Step { action: Action::Delete, item };
        return Ok(if wishes.delete { Decision::Do(step) } else { Decision::Nothing });
    };
    if !is_ours(wishes, &item.entry) {
        return Ok(Decision::Nothing);
    }
    let stands = if pair.there.is_some() { Action::Change } else { Action::New };
    let there = pair.there.filter(|there| there.entry.kind == item.entry.kind);
    let action = match (item.entry.kind, there) {
        (EntryKind::Directory, _) if is_bucket => return Ok(Decision::Nothing),
        (EntryKind::Symlink | EntryKind::Other, _) if is_bucket => return Ok(Decision::Unheld),
        (EntryKind::Directory, None) => Some(Action::Make),
        (EntryKind::Directory, Some(_)) => {
            // What is written into it changes its time, so it is looked at again at the end.
            Some(Action::Keep)
        }
        (EntryKind::Symlink, Some(there)) if there.entry.link_target == item.entry.link_target => {
            (!destination.has_time_of(&item, there.entry.mtime)).then_some(Action::Touch)
        }
        (EntryKind::Symlink, _) if stands == Action::New => Some(Action::Link),
        (EntryKind::Symlink, _) => Some(Action::Relink),
        (EntryKind::File, Some(there)) => {
            destination.compare(origin, &item, &there, wishes.checksum).await?
        }
        // What cannot be made is told when its turn comes.
        (EntryKind::File | EntryKind::Other, _) => Some(stands),
    };
    Ok(action.map_or(Decision::Same, |action| Decision::Do(Step { action, item })))
}

/// Whether a pattern leaves it to us; directories are nobody's where only some files are wanted.
fn is_ours(wishes: &Wishes, entry: &crate::backend::Entry) -> bool {
    let path = as_path(&entry.path);
    match entry.kind {
        EntryKind::Directory => wishes.filter.is_open() && wishes.filter.has(path),
        _ => wishes.filter.has(path),
    }
}

fn as_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}
