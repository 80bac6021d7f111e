//! What of a listing's members is here already as part of another space: of an earlier version of the listing.
//!
//! Members lie side by side in spaces, and a space is another task as soon as one of them changes, or comes, or goes. What
//! is the same in both versions is copied from the one to the other when it is wanted, where every byte of a group
//! is known so; what is left of a group is asked of the origin, member by member ([`dfs_artifact::MembersHere`]). Bytes are
//! looked at against the digests of the task that they come from: what this host signs of the next one is what was
//! proven of the one before.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use dfs_artifact::members::{Member, MemberTable};
use dfs_artifact::{OriginRecipe, Place, Recipe};
use dfs_model::{ByteRange, GroupRange, TaskId, TaskKey};
use dfs_source::Credentials;
use parking_lot::Mutex;

use super::task::{Shared, Task};
use super::{Engine, Inner};
use crate::hashtree::{self, Node};
use crate::store::{StoredTask, Use};

/// Members that are looked up in another table to see whether it has some of the same: paths decide by their hash which
/// space they are in, so a few tell.
const PROBES: usize = 8;

/// Groups that are kept together.
const TOGETHER: u64 = 16;

/// The members of a space.
pub(super) struct Listed {
    /// Which listing's.
    base: Place,
    /// Who may have it.
    domain: String,
    /// Who has shown that: what one may have of what is not everybody's is not given to another.
    readers: Credentials,
    table: Arc<MemberTable>,
    /// The same in memory of its own, for later versions.
    detached: OnceLock<Arc<MemberTable>>,
}

impl Listed {
    /// Those of a recipe that has some, which is opened with these credentials.
    fn of(recipe: &Recipe, readers: &Credentials) -> Option<Self> {
        let OriginRecipe::Members { base, table } = &recipe.origin else { return None };
        let (base, table) = (base.clone(), Arc::clone(table));
        let (domain, readers) = (recipe.key.domain.clone(), readers.clone());
        Some(Self { base, domain, readers, table, detached: OnceLock::new() })
    }

    /// Whether both are of one listing and have members in common.
    fn is_akin(&self, other: &Self) -> bool {
        let (few, many) = match self.table.count() <= other.table.count() {
            true => (&self.table, &other.table),
            false => (&other.table, &self.table),
        };
        let is_for_the_same = self.domain == TaskKey::PUBLIC || self.readers == other.readers;
        let probes = (0..PROBES).filter_map(|probe| few.member(probe * few.count() / PROBES));
        is_for_the_same
            && self.domain == other.domain
            && self.base == other.base
            && probes.into_iter().any(|member| many.find(&member.path).is_some())
    }

    fn detached(&self) -> Arc<MemberTable> {
        Arc::clone(self.detached.get_or_init(|| Arc::new(self.table.detached())))
    }
}

/// See the module.
pub(super) struct Earlier {
    engine: Weak<Inner>,
    table: Arc<MemberTable>,
    /// None any more once all is here.
    others: Mutex<Vec<(TaskId, Arc<MemberTable>)>>,
    #[cfg(test)]
    pub(super) reads: std::sync::atomic::AtomicU64,
}

/// Groups of another task that are what its digests say.
pub(super) struct Proven {
    task: TaskId,
    range: ByteRange,
    bytes: Bytes,
}

impl Proven {
    /// Some of it, where it has that.
    fn part(&self, task: TaskId, range: ByteRange) -> Option<Bytes> {
        let is_in = task == self.task && range.intersection(self.range) == range;
        let at = |byte: u64| usize::try_from(byte - self.range.start).ok();
        is_in.then(|| Some(self.bytes.slice(at(range.start)?..at(range.end)?))).flatten()
    }
}

impl Engine {
    /// Finds out which other open tasks have some of what is in these, that are the spaces of one tree by their recipes.
    pub(crate) async fn look_for_earlier(
        &self,
        tasks: &[Task],
        recipes: &[Recipe],
        credentials: &Credentials,
    ) {
        for (task, recipe) in tasks.iter().zip(recipes) {
            if let Some(listed) = Listed::of(recipe, credentials) {
                // It says the same each time.
                let _ = task.shared.listed.set(listed);
            }
        }
        let own: HashSet<_> = tasks.iter().map(Task::id).collect();
        let others = self.inner.tasks.listed();
        let others: Vec<_> = others.into_iter().filter(|(id, _)| !own.contains(id)).collect();
        let lacks = |task: &&Task| task.shared.earlier.get().is_none() && !task.is_complete();
        let new: Vec<_> = tasks.iter().filter(lacks).cloned().collect();
        if others.is_empty() || new.is_empty() {
            return;
        }
        let engine = Arc::clone(&self.inner);
        let look = move || new.iter().for_each(|task| Earlier::find(&engine, task, &others));
        // Without it all is fetched.
        let _ = self.inner.tracker.spawn_blocking(look).await;
    }
}

impl Earlier {
    /// Looks for what others have of a task.
    fn find(engine: &Arc<Inner>, task: &Task, others: &[(TaskId, Arc<Shared>)]) {
        let Some(listed) = task.shared.listed.get() else { return };
        let others = others.iter().filter_map(|(id, other)| Some((*id, other.listed.get()?)));
        let akin = others.filter(|(_, other)| listed.is_akin(other));
        let others: Vec<_> = akin.map(|(id, other)| (id, other.detached())).collect();
        if others.is_empty() {
            return;
        }
        let (engine, table) = (Arc::downgrade(engine), Arc::clone(&listed.table));
        let earlier = Arc::new(Self {
            engine,
            table,
            others: Mutex::new(others),
            #[cfg(test)]
            reads: Default::default(),
        });
        if let Some(origin) = &*task.shared.origin.lock() {
            origin.take_from(Arc::clone(&earlier) as Arc<dyn dfs_artifact::MembersHere>);
        }
        // Another one that opens it has found the same.
        let _ = task.shared.earlier.set(earlier);
    }

    /// Whether there is anything to take from.
    pub fn has_others(&self) -> bool {
        !self.others.lock().is_empty()
    }

    /// All is here: what it takes to find the others is let go.
    pub fn is_done(&self) {
        drop(std::mem::take(&mut *self.others.lock()));
    }

    /// The groups of `missing` that are here, some at a time, each with the first of them. What was read last stays in
    /// `last`: small members of a group lie together where they are taken from, too.
    pub async fn next_of(
        &self,
        missing: &mut GroupRange,
        last: &mut Option<Proven>,
    ) -> Option<(u64, Bytes)> {
        let mut together = BytesMut::new();
        let mut first = missing.first;
        while !missing.is_empty() && missing.first - first < TOGETHER {
            let group = self.group(missing.first, last).await;
            let is_wanting = group.is_none();
            if is_wanting && !together.is_empty() {
                break;
            }
            *missing = GroupRange::new(missing.first + 1, missing.count - 1);
            match group {
                Some(bytes) => together.extend_from_slice(&bytes),
                None => first = missing.first,
            }
        }
        (!together.is_empty()).then(|| (first, together.freeze()))
    }

    /// A group, of which every member is here.
    async fn group(&self, group: u64, last: &mut Option<Proven>) -> Option<Bytes> {
        let range = GroupRange::new(group, 1).bytes(self.table.length());
        let members: Vec<_> = self.table.touched(range).collect();
        let mut bytes = BytesMut::zeroed(usize::try_from(range.len()).ok()?);
        for member in &members {
            let wanted = member.range().intersection(range);
            let within = |at: u64, start: u64| usize::try_from(at - start).ok();
            let part = ByteRange::new(wanted.start - member.offset, wanted.end - member.offset);
            let found = self.find_part(member, part, last).await?;
            let place = within(wanted.start, range.start)?..within(wanted.end, range.start)?;
            bytes.get_mut(place)?.copy_from_slice(&found);
        }
        (!members.is_empty()).then(|| bytes.freeze())
    }

    /// Where a member lies, in this very version: in which spaces, and where they have it.
    fn places(&self, member: &Member) -> Vec<(TaskId, u64)> {
        let others = self.others.lock();
        let has = others.iter().filter_map(|(task, table)| {
            let other = table.find(&member.path).filter(|other| member.is_as(other))?;
            Some((*task, other.offset))
        });
        has.collect()
    }

    /// A part of a member, where another task has it.
    async fn find_part(
        &self,
        member: &Member,
        part: ByteRange,
        last: &mut Option<Proven>,
    ) -> Option<Bytes> {
        for (task, offset) in self.places(member) {
            let range = ByteRange::new(offset + part.start, offset + part.end);
            let known = last.as_ref().and_then(|last| last.part(task, range));
            if known.is_some() {
                return known;
            }
            if let Some(proven) = self.read(task, range).await {
                let bytes = proven.part(task, range);
                *last = Some(proven);
                return bytes;
            }
        }
        None
    }

    /// The groups around bytes of a task that is open, or stored.
    async fn read(&self, task: TaskId, range: ByteRange) -> Option<Proven> {
        #[cfg(test)]
        self.reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let engine = Engine { inner: self.engine.upgrade()? };
        let task = engine.held(&task).await?;
        if !task.has(range) {
            return None;
        }
        let used = task.in_use(Use::Fetch).ok()?;
        let stored = task.stored().clone();
        let read = tokio::task::spawn_blocking(move || {
            let _used = used;
            read_proven(&stored, range.groups())
        });
        read.await.ok()?
    }
}

#[async_trait]
impl dfs_artifact::MembersHere for Earlier {
    async fn part_of(&self, member: &Member, part: ByteRange) -> Option<Bytes> {
        self.find_part(member, part, &mut None).await
    }
}

/// Groups of a task, if they are what its digests say. Blocks.
fn read_proven(stored: &StoredTask, groups: GroupRange) -> Option<Proven> {
    let shape = stored.shape();
    let range = groups.bytes(shape.length()?);
    let bytes = stored.read(range).ok()?;
    let digests = hashtree::group_digests(shape, groups, &bytes).ok()?;
    let is_proven = groups.iter().map(Node::group).map(|node| stored.node(node));
    is_proven.eq(digests.into_iter().map(Some)).then(|| Proven { task: stored.id(), range, bytes })
}

#[cfg(test)]
mod tests {
    use dfs_model::{CanonicalUrl, Validator};
    use dfs_source::Secret;

    use super::*;

    fn member(number: u64) -> Member {
        let etag = Some(format!("\"{number}\""));
        let validator = Validator { etag, length: Some(100), ..Validator::default() };
        let path = format!("m{number:03}").into_bytes();
        Member { path, offset: number * 4096, length: 100, validator }
    }

    fn listed(numbers: std::ops::Range<u64>, domain: &str, readers: &Credentials) -> Listed {
        let url = CanonicalUrl::parse("https://origin.test/d/").unwrap();
        Listed {
            base: Place { url, headers: Vec::new() },
            domain: domain.to_owned(),
            readers: readers.clone(),
            table: Arc::new(MemberTable::new(numbers.map(member)).unwrap()),
            detached: OnceLock::new(),
        }
    }

    #[test]
    fn spaces_are_akin_that_share_members_also_where_the_first_or_the_last_of_them_went() {
        let nobody = Credentials::None;
        let akin = |one, other| {
            let [one, other] = [one, other].map(|range| listed(range, TaskKey::PUBLIC, &nobody));
            assert_eq!(one.is_akin(&other), other.is_akin(&one));
            one.is_akin(&other)
        };
        assert!(akin(0..100, 0..100) && akin(0..100, 40..300) && akin(60..100, 0..90));
        assert!(akin(0..1, 0..400) && !akin(0..100, 100..200));
    }

    #[test]
    fn what_one_may_have_of_what_is_private_is_not_given_to_another() {
        let token = |text: &str| Credentials::Bearer(Secret::new(text));
        let of = |domain, readers: &Credentials| listed(0..10, domain, readers);
        let (ada, bob) = (token("ada"), token("bob"));
        assert!(of("private", &ada).is_akin(&of("private", &ada)));
        assert!(!of("private", &ada).is_akin(&of("private", &bob)));
        assert!(!of(TaskKey::PUBLIC, &ada).is_akin(&of("private", &ada)));
        assert!(of(TaskKey::PUBLIC, &ada).is_akin(&of(TaskKey::PUBLIC, &bob)));
    }
}
