//! The snapshots of one mount: the one that it shows, and earlier ones that somebody still uses.
//!
//! Of a mount whose artifact is followed it is written down which nodes the kernel knows: it says when it looks one up
//! and when it forgets it. When the mount switches, nodes that are still what they were keep their ids and are found
//! in the new snapshot from then on; any other stays what it was, in its own snapshot, until the kernel forgets it.
//! When nothing of an earlier snapshot is known any more that one is let go.
//!
//! While a switch is being made nothing that is answered holds for longer than the answer ([`Validity::Once`]). Whoever
//! looks something up holds the state until it is written down, so who begins a switch knows of all that was answered
//! for ever.
//!
//! A daemon that takes over does not know what the kernel knows: it takes earlier snapshots for used until there are too
//! many, and before its first switch asks for each node of what is shown ([`Look::notice`]). How often the earlier daemon
//! told of a node it never learns; but the kernel forgets a node all at once, so what it gives back says when.
//!
//! A node that has another id than its place keeps that as long as its snapshot is shown, also when the kernel forgets
//! it meanwhile: what was written down of it stays so.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use dfs_model::TaskId;
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
use tokio::sync::Notify;

use super::node::{Generation, NodeId, Place};
use super::{FsError, Validity};
use crate::content::Content;
use crate::trace::Recorder;
use crate::tree::{Tree, Unchanged};

/// Earlier snapshots that are kept at most; who still uses an older one is told that it is gone.
pub const EARLIER: usize = 16;

/// A version of what is mounted.
#[derive(Clone)]
pub struct Snapshot {
    /// Its number.
    pub generation: Generation,
    /// Its names and attributes.
    pub tree: Arc<dyn Tree>,
    /// Its bytes.
    pub content: Arc<dyn Content>,
    /// Who watches what is read of it.
    pub recorder: Option<Arc<Recorder>>,
}

impl Snapshot {
    /// Which of its spaces a task is.
    pub(super) fn space_of(&self, task: &TaskId) -> Option<u16> {
        let mut tasks = (0..=u16::MAX).map_while(|space| Some((space, self.content.task(space)?)));
        tasks.find_map(|(space, id)| (id == *task).then_some(space))
    }
}

/// Whether a mount ever shows another snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Versions {
    /// The one that it began with.
    #[default]
    One,
    /// Later ones, too.
    Followed,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// What an earlier daemon left of a mount.
#[derive(Debug, Clone, Default)]
pub struct Left {
    /// Earlier snapshots, the oldest first.
    pub earlier: Vec<Snapshot>,
    /// Where nodes are that do not say so themselves.
    pub nodes: Vec<(NodeId, Place)>,
}

/// A node, found.
pub(super) struct Inode {
    pub snapshot: Arc<Snapshot>,
    pub nid: u64,
    pub node: NodeId,
}

impl Inode {
    /// Tells it from all other files of the mount.
    pub fn key(&self) -> u64 {
        self.node.raw()
    }
}

/// See the module.
pub(super) struct Snapshots {
    versions: Versions,
    state: RwLock<State>,
    /// Where both are taken the state is first.
    table: Mutex<Table>,
    released: Notify,
}

struct State {
    current: Arc<Snapshot>,
    /// The oldest first.
    earlier: Vec<Former>,
    validity: Validity,
}

struct Former {
    snapshot: Arc<Snapshot>,
    /// Whether an earlier daemon showed it: nobody knows what of it is used.
    is_uncounted: bool,
}

/// What the kernel knows.
#[derive(Default)]
struct Table {
    nodes: HashMap<NodeId, Known>,
    /// The ids of places that have others' than their own.
    ids: HashMap<Place, NodeId>,
    /// Nodes known of each snapshot, and directories that are open there.
    uses: HashMap<Generation, u64>,
    /// Whether it knows of more, from an earlier daemon.
    is_partial: bool,
}

struct Known {
    at: Place,
    /// How often the kernel was told of it and has not given that back, as far as that is counted here.
    lookups: u64,
    counted: Counted,
}

/// Which lookups of a node are counted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    All,
    /// Not those that an earlier daemon answered.
    SinceTakeOver,
}

impl Known {
    fn to_an_earlier_daemon(at: Place) -> Self {
        Self { at, lookups: 0, counted: Counted::SinceTakeOver }
    }
}

impl Table {
    fn use_of(&mut self, generation: Generation) {
        *self.uses.entry(generation).or_default() += 1;
    }

    /// Whether that was the last one.
    fn no_use_of(&mut self, generation: Generation) -> bool {
        match self.uses.get_mut(&generation) {
            Some(uses) if *uses > 1 => {
                *uses -= 1;
                false
            }
            known => {
                let was_used = known.is_some();
                self.uses.remove(&generation);
                was_used
            }
        }
    }

    /// The kernel looks a node up once more.
    fn remember(&mut self, node: NodeId, at: Place) -> Result<(), FsError> {
        if node == NodeId::ROOT {
            return Ok(());
        }
        match self.nodes.get_mut(&node) {
            Some(known) if known.at == at => known.lookups += 1,
            Some(_) => return Err(FsError::Stale(node.raw())),
            None => self.enter(node, Known { at, lookups: 1, counted: Counted::All }),
        }
        Ok(())
    }

    fn enter(&mut self, node: NodeId, known: Known) {
        self.use_of(known.at.generation);
        self.nodes.insert(node, known);
    }

    /// The snapshot of which nothing is used any more by that; `current` is shown.
    fn forget(&mut self, node: NodeId, lookups: u64, current: Generation) -> Option<Generation> {
        let known = self.nodes.get_mut(&node)?;
        let left = known.lookups.checked_sub(lookups);
        let was_told_since = known.lookups > 0;
        known.lookups = left.unwrap_or(0);
        match (left, known.counted) {
            (Some(0), Counted::All) => {}
            (Some(_), _) => return None,
            // It gives back what an earlier daemon told it: with what it was told since, or before it was told that, which
            // only the next switch finds out. Of an earlier snapshot it is told nothing any more.
            (None, Counted::SinceTakeOver) if was_told_since && known.at.generation == current => {
                return None;
            }
            (None, _) => {}
        }
        let at = self.nodes.remove(&node)?.at;
        self.no_use_of(at.generation).then_some(at.generation)
    }

    /// See [`Look::notice`].
    fn notice(&mut self, node: NodeId, at: Place, is_known: bool) -> bool {
        match self.nodes.get(&node) {
            None if is_known => {
                self.enter(node, Known::to_an_earlier_daemon(at));
                true
            }
            Some(known) if known.at == at && (is_known || known.lookups > 0) => true,
            // Only written down. Who is told of it right now was counted before.
            Some(known) if known.at == at => {
                self.nodes.remove(&node);
                self.no_use_of(at.generation);
                false
            }
            Some(_) | None => false,
        }
    }

    /// The id of a place that has another one than its own.
    fn id_of(&self, place: Place) -> Option<NodeId> {
        let is_there = |node: &NodeId| self.nodes.get(node).is_none_or(|known| known.at == place);
        self.ids.get(&place).copied().filter(is_there)
    }

    fn at(&self, node: NodeId) -> Place {
        self.nodes.get(&node).map_or(node.names(), |known| known.at)
    }
}

impl State {
    fn snapshot(&self, generation: Generation) -> Option<&Arc<Snapshot>> {
        let earlier = self.earlier.iter().map(|earlier| &earlier.snapshot);
        std::iter::once(&self.current).chain(earlier).find(|known| known.generation == generation)
    }
}

impl Snapshots {
    pub fn new(versions: Versions, current: Snapshot, left: Option<Left>) -> Self {
        let mut table = Table { is_partial: left.is_some(), ..Table::default() };
        let Left { mut earlier, nodes } = left.unwrap_or_default();
        // The last daemon wrote down one more than there may be, and did not live to let go of it.
        drop(earlier.drain(..earlier.len().saturating_sub(EARLIER)));
        for (node, at) in nodes {
            table.enter(node, Known::to_an_earlier_daemon(at));
            table.ids.insert(at, node);
        }
        let uncounted = |snapshot| Former { snapshot: Arc::new(snapshot), is_uncounted: true };
        let state = State {
            current: Arc::new(current),
            earlier: earlier.into_iter().map(uncounted).collect(),
            validity: Validity::ForEver,
        };
        let (state, table) = (RwLock::new(state), Mutex::new(table));
        Self { versions, state, table, released: Notify::new() }
    }

    pub fn versions(&self) -> Versions {
        self.versions
    }

    /// Holds what is so now. Whoever has it takes no second one before it is given back.
    pub fn look(&self) -> Look<'_> {
        Look { all: self, state: self.state.read() }
    }

    pub fn find(&self, node: NodeId) -> Result<Inode, FsError> {
        self.look().inode(node)
    }

    pub fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.state.read().current)
    }

    /// All that are there, the one that is shown last.
    pub fn all(&self) -> Vec<Arc<Snapshot>> {
        let state = self.state.read();
        let earlier = state.earlier.iter().map(|earlier| &earlier.snapshot);
        earlier.chain([&state.current]).map(Arc::clone).collect()
    }

    /// The numbers of the earlier ones that are there, the oldest first.
    pub fn earlier(&self) -> Vec<Generation> {
        let state = self.state.read();
        state.earlier.iter().map(|earlier| earlier.snapshot.generation).collect()
    }

    /// Told when one was let go.
    pub async fn released(&self) {
        self.released.notified().await;
    }

    /// The kernel forgets so many lookups of a node.
    pub fn forget(&self, node: NodeId, lookups: u64) {
        if self.versions == Versions::One {
            return;
        }
        let current = self.current().generation;
        let unused = self.table.lock().forget(node, lookups, current);
        // Nothing is said of the one that is shown.
        if unused.is_some_and(|unused| unused != self.current().generation) {
            self.let_go();
        }
    }

    /// A directory that was open at this place is not any more.
    pub fn close_dir(&self, at: Place) {
        if self.table.lock().no_use_of(at.generation) {
            self.let_go();
        }
    }

    /// Lets go of all that nobody uses.
    fn let_go(&self) {
        let mut state = self.state.write();
        let table = self.table.lock();
        let is_used = |earlier: &Former| {
            earlier.is_uncounted || table.uses.contains_key(&earlier.snapshot.generation)
        };
        let gone: Vec<_> = state.earlier.extract_if(.., |earlier| !is_used(earlier)).collect();
        drop((table, state));
        if !gone.is_empty() {
            // With nothing locked: their tasks are given back.
            drop(gone);
            self.released.notify_one();
        }
    }

    /// From now on no answer holds.
    pub fn begin_switch(&self) {
        self.state.write().validity = Validity::Once;
    }

    /// Answers hold again.
    pub fn end_switch(&self) {
        self.state.write().validity = Validity::ForEver;
    }

    /// Where nodes will be that do not say so themselves.
    pub fn nodes_after(&self, next: Generation, unchanged: &Unchanged) -> Vec<(NodeId, Place)> {
        let state = self.state.read();
        let table = self.table.lock();
        let known = table.nodes.iter().map(|(node, known)| (*node, known.at));
        // Whoever looks up what is forgotten meanwhile is told of it by the same id.
        let forgotten = table.ids.iter().filter(|(_, node)| !table.nodes.contains_key(node));
        let all = known.chain(forgotten.map(|(at, node)| (*node, *at)));
        let was = state.current.generation;
        let after = all.map(|(node, at)| (node, moved(at, was, next, unchanged).unwrap_or(at)));
        after.filter(|(node, at)| node.names() != *at).collect()
    }

    /// Shows `next` from now on.
    pub fn switch(&self, next: Snapshot, unchanged: &Unchanged) {
        let mut states = self.state.write();
        let state = &mut *states;
        let mut guard = self.table.lock();
        let table = &mut *guard;
        let (was, is) = (state.current.generation, next.generation);
        for known in table.nodes.values_mut() {
            let Some(now) = moved(known.at, was, is, unchanged) else { continue };
            known.at = now;
            if let Some(uses) = table.uses.get_mut(&was) {
                *uses -= 1;
                *table.uses.entry(is).or_default() += 1;
            }
        }
        table.uses.retain(|_, uses| *uses > 0);
        let elsewhere = table.nodes.iter().filter(|(node, known)| node.names() != known.at);
        table.ids = elsewhere.map(|(node, known)| (known.at, *node)).collect();
        let before = std::mem::replace(&mut state.current, Arc::new(next));
        state.earlier.push(Former { snapshot: before, is_uncounted: table.is_partial });
        table.is_partial = false;
        let one_too_many = (state.earlier.len() > EARLIER).then(|| {
            let uncounted = state.earlier.iter().position(|earlier| earlier.is_uncounted);
            state.earlier.remove(uncounted.unwrap_or(0))
        });
        // Of those that an earlier daemon wrote down the kernel may know nothing, and then never forgets them.
        let is_gone = |known: &Known| {
            known.counted == Counted::SinceTakeOver && state.snapshot(known.at.generation).is_none()
        };
        for (_, known) in table.nodes.extract_if(|_, known| is_gone(known)).collect::<Vec<_>>() {
            table.ids.remove(&known.at);
            table.no_use_of(known.at.generation);
        }
        state.validity = Validity::ForEver;
        drop((guard, states));
        if one_too_many.is_some() {
            self.released.notify_one();
        }
    }

    /// Lets go of what the last switch left unused.
    pub fn settle(&self) {
        self.let_go();
    }
}

/// Where a place of the snapshot before is in the next one.
fn moved(at: Place, was: Generation, is: Generation, unchanged: &Unchanged) -> Option<Place> {
    let now = unchanged.get(&at.nid).filter(|_| at.generation == was)?;
    Some(Place { generation: is, nid: *now })
}

/// What is so now.
pub(super) struct Look<'a> {
    all: &'a Snapshots,
    state: RwLockReadGuard<'a, State>,
}

impl Look<'_> {
    fn counts(&self) -> bool {
        self.all.versions == Versions::Followed
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.all.table.lock()
    }

    pub fn validity(&self) -> Validity {
        self.state.validity
    }

    pub fn inode(&self, node: NodeId) -> Result<Inode, FsError> {
        if node == NodeId::ROOT {
            let snapshot = Arc::clone(&self.state.current);
            return Ok(Inode { nid: snapshot.tree.root(), snapshot, node });
        }
        let at = if self.counts() { self.table().at(node) } else { node.names() };
        let snapshot = self.state.snapshot(at.generation).ok_or(FsError::Stale(node.raw()))?;
        Ok(Inode { snapshot: Arc::clone(snapshot), nid: at.nid, node })
    }

    /// The snapshot of a place.
    pub fn snapshot(&self, at: Place) -> Result<&Arc<Snapshot>, FsError> {
        self.state.snapshot(at.generation).ok_or(FsError::Stale(at.raw()))
    }

    /// The node id of an inode.
    pub fn node(&self, snapshot: &Snapshot, nid: u64) -> Result<NodeId, FsError> {
        if nid == snapshot.tree.root() {
            return Ok(NodeId::ROOT);
        }
        let place = Place { generation: snapshot.generation, nid };
        let other = self.counts().then(|| self.table().id_of(place)).flatten();
        other.map_or_else(|| place.node(), Ok)
    }

    /// The kernel is told of a node by a name.
    pub fn remember(&self, node: NodeId, snapshot: &Snapshot, nid: u64) -> Result<(), FsError> {
        let place = Place { generation: snapshot.generation, nid };
        if self.counts() { self.table().remember(node, place) } else { Ok(()) }
    }

    /// The kernel is not told after all of what was remembered last.
    pub fn take_back(&self, node: NodeId) {
        if self.counts() {
            // Whoever lists a snapshot has a directory of it open, so it is used.
            self.table().forget(node, 1, self.state.current.generation);
        }
    }

    /// A directory is open.
    pub fn open_dir(&self, at: Place) {
        self.table().use_of(at.generation);
    }

    /// Whether the kernel may know an inode of the snapshot that is shown.
    pub fn is_known(&self, nid: u64) -> bool {
        let Ok(node) = self.node(&self.state.current, nid) else { return false };
        let place = Place { generation: self.state.current.generation, nid };
        let table = self.table();
        node == NodeId::ROOT || table.nodes.get(&node).is_some_and(|known| known.at == place)
    }

    /// Whether the kernel may know more than is known here.
    pub fn is_partial(&self) -> bool {
        self.table().is_partial
    }

    /// Whether only the kernel can say if it knows a node: an earlier daemon told it, and nobody since.
    pub fn is_uncertain(&self, node: NodeId) -> bool {
        self.table()
            .nodes
            .get(&node)
            .is_some_and(|known| known.counted == Counted::SinceTakeOver && known.lookups == 0)
    }

    /// The kernel says whether it knows an inode of the snapshot that is shown; whether it may.
    pub fn notice(&self, node: NodeId, nid: u64, is_known: bool) -> bool {
        let at = Place { generation: self.state.current.generation, nid };
        node == NodeId::ROOT || self.table().notice(node, at, is_known)
    }

    /// A number for the next snapshot: one that nothing has.
    pub fn next_generation(&self) -> Option<Generation> {
        let table = self.table();
        let ids = table.nodes.keys().map(|node| node.names().generation);
        let earlier = self.state.earlier.iter().map(|earlier| earlier.snapshot.generation);
        let taken: BTreeSet<_> =
            ids.chain(earlier).chain([self.state.current.generation]).collect();
        taken.last().and_then(|last| last.next())
    }
}
