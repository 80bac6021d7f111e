//! A mount that switches under a kernel that believes what it was told for ever, against a model: random snapshots,
//! switches, open files and directories, and daemons that take over in between.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use dfs_model::{GroupSet, TaskId};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::content::MemoryContent;
use crate::tree::{Extent, MemoryTree, MemoryTreeBuilder, Unchanged};

/// Bytes of a content; all that there are lie in one space.
const LENGTH: u64 = 16;
const CONTENTS: u8 = 6;

/// Contents of files by path; a directory is what has something in it.
type Files = BTreeMap<String, u8>;

fn files() -> impl Strategy<Value = Files> {
    prop::collection::btree_map("[ab]/[ab]/[abc]|[ab]/[cd]|[cde]", 0..CONTENTS, 0..10)
}

#[derive(Debug, Clone)]
enum Step {
    /// Whatever is at a path, if anything, is looked up and may be opened.
    Walk(String, bool),
    /// A directory is opened to be listed later.
    OpenDir(Index),
    List(Index),
    Close(Index),
    /// The kernel drops names that nobody uses.
    Shrink(Index),
    Begin(Files),
    Commit,
    GiveUp,
    TakeOver,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<Index>;
    let path = "[ab]/[ab]/[abc]|[ab]/[cd]|[cde]|[ab]|[ab]/[ab]";
    let step = prop_oneof![
        8 => (path, any::<bool>()).prop_map(|(path, open)| Step::Walk(path, open)),
        1 => index().prop_map(Step::OpenDir),
        1 => index().prop_map(Step::List),
        2 => index().prop_map(Step::Close),
        1 => index().prop_map(Step::Shrink),
        2 => files().prop_map(Step::Begin),
        2 => Just(Step::Commit),
        1 => Just(Step::GiveUp),
        1 => Just(Step::TakeOver),
    ];
    prop::collection::vec(step, 1..80)
}

fn build(files: &Files) -> MemoryTree {
    let mut tree = MemoryTreeBuilder::new();
    for (path, content) in files {
        for (at, _) in path.match_indices('/') {
            // It is there already where a neighbour is.
            let _ = tree.dir(&path[..at], 0o755);
        }
        let offset = u64::from(*content) * LENGTH;
        let extent = Extent::Data { space: 0, offset, length: LENGTH };
        tree.file(path, 0o644, vec![extent]).unwrap();
    }
    tree.build()
}

fn bytes(content: u8) -> Vec<u8> {
    vec![content + 1; LENGTH as usize]
}

/// What is in a directory of these.
fn names(files: &Files, dir: &str) -> BTreeSet<String> {
    let below = if dir.is_empty() { String::new() } else { format!("{dir}/") };
    let rests = files.keys().filter_map(|path| path.strip_prefix(&below));
    rests.map(|rest| rest.split('/').next().unwrap().to_owned()).collect()
}

/// What a daemon leaves to the next one.
#[derive(Clone, Default)]
struct Left {
    generation: u32,
    earlier: Vec<(u32, Files)>,
    nodes: Vec<(NodeId, Place)>,
}

/// A file that is open, or a directory that somebody is in.
struct Open {
    node: NodeId,
    /// The kernel forgets no directory while it remembers something in it.
    above: Vec<NodeId>,
    path: String,
    content: Option<u8>,
    /// In which switch it was opened.
    since: usize,
    /// Whether it has been the same ever since.
    stays: bool,
}

struct Kernel {
    core: Core,
    runtime: tokio::runtime::Runtime,
    /// What is shown.
    files: Files,
    next: Option<Files>,
    left: Left,
    switches: usize,
    taken_over: bool,
    /// Names that hold for ever.
    names: BTreeMap<(u64, String), Option<NodeId>>,
    lookups: HashMap<NodeId, u64>,
    open: Vec<Open>,
    dirs: Vec<(NodeId, Place, BTreeSet<String>, usize)>,
}

fn generation(number: u32) -> Generation {
    Generation::new(number).unwrap()
}

fn snapshot(number: u32, files: &Files) -> Snapshot {
    let space = (0..CONTENTS).flat_map(bytes).collect();
    Snapshot {
        generation: self::generation(number),
        tree: Arc::new(build(files)),
        content: Arc::new(MemoryContent::cached(vec![space])),
        recorder: None,
    }
}

fn core(files: &Files, left: Option<&Left>, runtime: &tokio::runtime::Runtime) -> Core {
    let now = snapshot(left.map_or(0, |left| left.generation), files);
    let left = left.map(|left| snapshots::Left {
        earlier: left.earlier.iter().map(|(number, files)| snapshot(*number, files)).collect(),
        nodes: left.nodes.clone(),
    });
    let options = CoreOptions {
        generation: now.generation,
        versions: Versions::Followed,
        left,
        ..CoreOptions::default()
    };
    Core::new(now.tree, now.content, options, runtime.handle().clone())
}

impl Kernel {
    fn new(files: Files) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self {
            core: core(&files, None, &runtime),
            runtime,
            files,
            next: None,
            left: Left::default(),
            switches: 0,
            taken_over: false,
            names: BTreeMap::new(),
            lookups: HashMap::new(),
            open: Vec::new(),
            dirs: Vec::new(),
        }
    }

    /// As the kernel walks: by the names that it was told of, asking for others.
    fn walk(&mut self, path: &str) -> Option<NodeId> {
        self.walk_through(path)?.pop()
    }

    fn walk_through(&mut self, path: &str) -> Option<Vec<NodeId>> {
        let mut at = NodeId::ROOT;
        let mut way = Vec::new();
        for name in path.split('/') {
            if let Some(known) = self.names.get(&(at.raw(), name.to_owned())) {
                at = (*known)?;
                way.push(at);
                continue;
            }
            let answer = match self.core.lookup(at, name.as_bytes()) {
                Err(FsError::Tree(TreeError::NotADirectory(_))) => return None,
                answer => answer.unwrap(),
            };
            let node = answer.value.map(|entry| entry.node);
            if let Some(node) = node {
                *self.lookups.entry(node).or_default() += 1;
            }
            if answer.validity == Validity::ForEver {
                self.names.insert((at.raw(), name.to_owned()), node);
            }
            at = node?;
            way.push(at);
        }
        Some(way)
    }

    fn forget_name(&mut self, dir: NodeId, name: &str) {
        let mut gone = vec![(dir.raw(), name.to_owned())];
        while let Some(name) = gone.pop() {
            if let Some(Some(node)) = self.names.remove(&name) {
                let below = self.names.keys().filter(|(dir, _)| *dir == node.raw()).cloned();
                gone.extend(below.collect::<Vec<_>>());
            }
        }
    }

    /// Forgets nodes that nobody uses.
    fn evict(&mut self) {
        let named = self.names.values().flatten().copied();
        let within = self.names.keys().map(|(dir, _)| NodeId::from_raw(*dir));
        let open = self.open.iter().flat_map(|open| open.above.iter().chain([&open.node])).copied();
        let listed = self.dirs.iter().map(|dir| dir.0);
        let used: BTreeSet<u64> =
            named.chain(within).chain(open).chain(listed).map(NodeId::raw).collect();
        let gone: Vec<_> =
            self.lookups.keys().filter(|node| !used.contains(&node.raw())).copied().collect();
        for node in gone {
            let lookups = self.lookups.remove(&node).unwrap();
            self.core.forget(node, lookups);
        }
    }

    fn read(&self, node: NodeId) -> Result<Vec<u8>, FsError> {
        self.runtime.block_on(self.core.read(node, 0, 100))
    }

    fn begin(&mut self, next: Files) {
        if self.next.is_none() {
            self.core.snapshots.begin_switch();
            self.next = Some(next);
        }
    }

    /// Whoever walks now sees what is shown, all of it and nothing else.
    fn check(&mut self) {
        let all: BTreeSet<String> = self.files.keys().cloned().collect();
        for path in &all {
            let node = self.walk(path).unwrap_or_else(|| panic!("{path} is not there"));
            assert_eq!(self.read(node), Ok(bytes(self.files[path])), "{path}");
            assert_eq!(self.core.attr(node).unwrap().ino, node.raw());
        }
        for Open { node, path, .. } in self.open.iter().filter(|open| open.stays) {
            if self.core.attr(*node).unwrap().kind == Kind::Directory {
                let mut listed = BTreeSet::new();
                let listing = self.core.read_dir(*node, None, 0, &mut |line| {
                    listed.insert(String::from_utf8(line.name.to_vec()).unwrap());
                    ControlFlow::Continue(())
                });
                listing.unwrap();
                listed.retain(|name| !matches!(&**name, "." | ".."));
                assert_eq!(listed, names(&self.files, path), "who is in {path} sees what is there");
            }
            let entry = self.core.snapshots.look().inode(*node).unwrap();
            assert_eq!(entry.snapshot.generation, self.core.generation(), "{path}");
        }
        let same: Vec<_> = self.open.iter().filter(|open| open.stays).collect();
        let same: Vec<_> = same.iter().map(|open| (open.path.clone(), open.node)).collect();
        for (path, node) in same {
            assert_eq!(self.walk(&path), Some(node), "{path} is what it was");
        }
        for open in &self.open {
            let is_too_old = self.switches - open.since > EARLIER;
            match (self.read(open.node), open.content) {
                (Ok(read), Some(content)) => assert_eq!(read, bytes(content)),
                (Err(FsError::Stale(_)), _) if is_too_old => {}
                (Err(FsError::Tree(_)), None) => {}
                (other, _) => panic!("{other:?} of {:?}", open.node),
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Walk(path, open) => {
                let found = self.walk_through(&path);
                let is_there =
                    self.files.contains_key(&path) || !names(&self.files, &path).is_empty();
                assert_eq!(found.is_some(), is_there, "{path}");
                if let Some(mut above) = found.filter(|_| open) {
                    let (node, content) = (above.pop().unwrap(), self.files.get(&path).copied());
                    let since = self.switches;
                    self.open.push(Open { node, above, path, content, since, stays: true });
                }
            }
            Step::OpenDir(which) => {
                let dirs: Vec<_> = ["", "a", "b", "a/a", "b/b"].into();
                let dir = *which.get(&dirs);
                let node = if dir.is_empty() { Some(NodeId::ROOT) } else { self.walk(dir) };
                if let Some(node) = node {
                    let opened = self.core.open_dir(node).unwrap();
                    self.dirs.push((node, opened, names(&self.files, dir), self.switches));
                }
            }
            Step::List(which) if !self.dirs.is_empty() => {
                let (node, opened, expected, since) = &self.dirs[which.index(self.dirs.len())];
                let mut listed = BTreeSet::new();
                let outcome = self.core.read_dir(*node, Some(*opened), 0, &mut |line| {
                    listed.insert(String::from_utf8(line.name.to_vec()).unwrap());
                    ControlFlow::Continue(())
                });
                if outcome.is_err() && self.switches - since > EARLIER {
                    return;
                }
                outcome.unwrap();
                listed.retain(|name| !matches!(&**name, "." | ".."));
                assert_eq!(&listed, expected);
            }
            Step::Close(which) if !self.open.is_empty() => {
                self.open.swap_remove(which.index(self.open.len()));
                self.evict();
            }
            Step::Shrink(which) if !self.names.is_empty() => {
                let (dir, name) =
                    self.names.keys().nth(which.index(self.names.len())).unwrap().clone();
                self.forget_name(NodeId::from_raw(dir), &name);
                self.evict();
            }
            Step::Begin(next) => self.begin(next),
            Step::Commit => self.commit(),
            Step::GiveUp => {
                self.next = None;
                self.core.snapshots.end_switch();
            }
            Step::TakeOver => {
                // A switch that was begun is not made.
                self.next = None;
                self.taken_over = true;
                self.core = core(&self.files, Some(&self.left), &self.runtime);
            }
            Step::List(_) | Step::Close(_) | Step::Shrink(_) => {}
        }
    }

    fn commit(&mut self) {
        let Some(files) = self.next.take() else { return };
        let number = self.core.snapshots.look().next_generation().unwrap();
        let next = snapshot(number.number(), &files);
        let mut stale = Vec::new();
        for open in &mut self.open {
            let is = (files.get(&open.path).copied(), names(&files, &open.path).is_empty());
            open.stays &= is == (open.content, open.content.is_some());
        }
        let switch = self.core.begin_switch().unwrap();
        let knows = |node| node == NodeId::ROOT || self.lookups.contains_key(&node);
        let kept = switch
            .compare(&*next.tree, &|a, b| a == b, &knows, &mut |one| {
                if let Stale::Name(dir, name) = one {
                    stale.push((dir, String::from_utf8(name.to_vec()).unwrap()));
                }
            })
            .unwrap();
        let earlier = self.core.earlier();
        let mut left =
            Left { generation: number.number(), nodes: switch.nodes(&kept), earlier: Vec::new() };
        left.earlier = self.left.earlier.clone();
        left.earlier.retain(|(number, _)| earlier.contains(&generation(*number)));
        left.earlier.push((self.core.generation().number(), self.files.clone()));
        drop(switch);
        self.core.snapshots.begin_switch();
        // What is walked meanwhile is what was.
        self.check_while_switching(&stale);
        self.core.snapshots.switch(next, &kept);
        self.core.snapshots.settle();
        (self.left, self.files) = (left, files);
        self.switches += 1;
        self.check();
    }

    fn check_while_switching(&mut self, stale: &[(NodeId, String)]) {
        for (dir, name) in stale {
            self.forget_name(*dir, name);
        }
        self.evict();
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whoever_walks_sees_what_is_shown_and_whoever_has_something_open_what_was(
        first in files(),
        steps in steps(),
    ) {
        let mut kernel = Kernel::new(first);
        for step in steps {
            kernel.step(step);
            kernel.check();
        }
        // Nothing of what nobody uses is held on to.
        kernel.next = None;
        kernel.open.clear();
        for (_, opened, ..) in std::mem::take(&mut kernel.dirs) {
            kernel.core.close_dir(opened);
        }
        kernel.names.clear();
        kernel.evict();
        if !kernel.taken_over {
            prop_assert_eq!(kernel.core.earlier(), vec![]);
        }
    }
}

#[test]
fn what_is_still_the_same_keeps_its_node_and_what_changed_gets_another() {
    let before = Files::from([("a/c".into(), 1), ("a/d".into(), 2), ("c".into(), 3)]);
    let after = Files::from([("a/a/a".into(), 0), ("a/c".into(), 1), ("a/d".into(), 5)]);
    let mut kernel = Kernel::new(before);
    let nodes = ["a", "a/c", "a/d"].map(|path| kernel.walk(path).unwrap());
    kernel.begin(after);
    kernel.commit();
    let now = ["a", "a/c", "a/d"].map(|path| kernel.walk(path).unwrap());
    assert_eq!((now[0], now[1]), (nodes[0], nodes[1]));
    assert_ne!(now[2], nodes[2]);
    assert_eq!(kernel.walk("c"), None);
}

#[test]
fn after_a_take_over_only_what_changed_is_forgotten() {
    let before: Files = [("a/a/a", 1), ("a/c", 2), ("a/d", 3), ("b/c", 4), ("c", 5)]
        .map(|(path, content)| (path.to_owned(), content))
        .into();
    let mut after = before.clone();
    after.insert("a/d".into(), 0);
    after.insert("a/a/b".into(), 0);
    after.remove("c");
    let mut kernel = Kernel::new(before);
    for path in ["a/a", "a/c", "a/d"] {
        kernel.step(Step::Walk(path.into(), true));
    }
    let [a, aa] = ["a", "a/a"].map(|path| kernel.walk(path).unwrap());
    kernel.step(Step::TakeOver);
    let asked = std::cell::RefCell::new(Vec::new());
    let next = snapshot(1, &after);
    let mut stale = Vec::new();
    let switch = kernel.core.begin_switch().unwrap();
    let knows = |node| {
        asked.borrow_mut().push(node);
        node == NodeId::ROOT || kernel.lookups.contains_key(&node)
    };
    let mut show = |one: Stale<'_>| {
        if let Stale::Name(dir, name) = one {
            stale.push((dir, String::from_utf8(name.to_vec()).unwrap()));
        }
    };
    let unchanged = switch.compare(&*next.tree, &|a, b| a == b, &knows, &mut show).unwrap();
    stale.sort_by(|one, other| one.1.cmp(&other.1));
    assert_eq!(stale, [(aa, "b".to_owned()), (a, "d".to_owned())]);
    assert_eq!(unchanged.len(), 4, "the root, two directories and a file");
    // Of what is below a directory that the kernel does not know it cannot know anything.
    assert_eq!(asked.borrow()[0], NodeId::ROOT);
    assert_eq!(asked.borrow().len(), 1 + 3 + 3 + 1);
}

#[test]
fn what_the_kernel_has_forgotten_and_looks_up_again_has_the_number_that_it_had_also_for_the_next_daemon()
 {
    let files = |content| Files::from([("a/c".to_owned(), 1), ("c".to_owned(), content)]);
    let mut kernel = Kernel::new(files(0));
    let first = kernel.walk("a").unwrap();
    kernel.begin(files(1));
    kernel.commit();
    kernel.names.clear();
    kernel.evict();
    assert!(kernel.lookups.is_empty());
    kernel.step(Step::Walk("a".into(), true));
    assert_eq!(kernel.open[0].node, first);
    kernel.step(Step::TakeOver);
    kernel.names.clear();
    assert_eq!(kernel.walk("a"), Some(first), "another number would be another directory");
    kernel.begin(files(2));
    kernel.commit();
}

#[test]
fn what_an_earlier_daemon_told_of_is_let_go_once_the_kernel_gives_it_back() {
    let files = |content| Files::from([("c".to_owned(), content)]);
    let mut kernel = Kernel::new(files(0));
    kernel.step(Step::Walk("c".into(), true));
    kernel.step(Step::TakeOver);
    // The first switch keeps what it was, the second does not.
    kernel.begin(Files::from([("c".into(), 0), ("d".into(), 1)]));
    kernel.commit();
    kernel.begin(files(2));
    kernel.commit();
    let uses = |kernel: &Kernel| kernel.core.earlier();
    assert_eq!(uses(&kernel), [generation(0), generation(1)]);
    assert_eq!(kernel.read(kernel.open[0].node), Ok(bytes(0)));
    kernel.open.clear();
    kernel.evict();
    assert_eq!(uses(&kernel), [generation(0)], "of which more may be open");
}

#[test]
fn what_is_given_back_late_is_not_taken_for_what_the_kernel_was_told_since() {
    let files = |c, d| Files::from([("c".to_owned(), c), ("d".to_owned(), d)]);
    let mut kernel = Kernel::new(files(0, 0));
    let node = kernel.walk("c").unwrap();
    kernel.core.lookup(NodeId::ROOT, b"c").unwrap();
    kernel.step(Step::TakeOver);
    // The next daemon learns that the kernel knows it.
    kernel.begin(files(0, 1));
    kernel.commit();
    // The kernel lets go of it and asks again, and the second is answered first.
    kernel.core.lookup(NodeId::ROOT, b"c").unwrap();
    kernel.core.forget(node, 2);
    kernel.begin(files(2, 1));
    kernel.commit();
    assert_ne!(kernel.walk("c"), Some(node));
}

#[test]
fn a_mount_switches_to_the_last_version_that_it_can_count_and_no_further() {
    let number = Generation::LAST.number() - 1;
    let left = Left { generation: number, ..Left::default() };
    let mut kernel = Kernel::new(Files::from([("c".into(), 0)]));
    kernel.core = core(&kernel.files, Some(&left), &kernel.runtime);
    kernel.left = left;
    let before = kernel.walk("c").unwrap();
    kernel.begin(Files::from([("c".into(), 1)]));
    kernel.commit();
    assert_ne!(kernel.walk("c").unwrap(), before);
    assert!(kernel.core.begin_switch().is_none());
}

#[test]
fn more_snapshots_than_are_kept_are_told_to_whoever_uses_the_first() {
    let mut kernel = Kernel::new(Files::from([("c".into(), 0)]));
    kernel.step(Step::Walk("c".into(), true));
    for number in 0..EARLIER + 2 {
        let content = 1 + (number % 2) as u8;
        kernel.begin(Files::from([("c".into(), content)]));
        kernel.commit();
        kernel.step(Step::Walk("c".into(), true));
    }
    assert_eq!(kernel.core.earlier().len(), EARLIER);
    let first = kernel.open[0].node;
    assert_eq!(kernel.read(first), Err(FsError::Stale(first.raw())));
}

#[test]
fn more_snapshots_than_are_kept_are_told_also_after_daemons_took_over() {
    let mut kernel = Kernel::new(Files::from([("c".into(), 0)]));
    kernel.step(Step::Walk("c".into(), true));
    for number in 0..EARLIER + 2 {
        kernel.step(Step::TakeOver);
        kernel.begin(Files::from([("c".into(), 1 + (number % 2) as u8)]));
        kernel.commit();
        kernel.step(Step::Walk("c".into(), true));
    }
    assert_eq!(kernel.core.earlier().len(), EARLIER);
    let first = kernel.open[0].node;
    assert_eq!(kernel.read(first), Err(FsError::Stale(first.raw())));
    let last = kernel.open.last().unwrap().node;
    assert_eq!(kernel.read(last), Ok(bytes(1 + ((EARLIER + 1) % 2) as u8)));
}

#[test]
fn a_listing_that_fails_half_way_tells_of_what_was_counted_and_of_nothing_else() {
    let mut tree = MemoryTreeBuilder::new();
    tree.file("a", 0o644, Vec::new()).unwrap();
    tree.file("b", 0o644, Vec::new()).unwrap();
    tree.link("c", 99_999).unwrap();
    let kernel = Kernel::new(Files::new());
    let (core, opened) = (&kernel.core, kernel.core.open_dir(NodeId::ROOT).unwrap());
    core.close_dir(opened);
    let torn = Snapshot { tree: Arc::new(tree.build()), ..snapshot(1, &Files::new()) };
    core.snapshots.switch(torn, &Unchanged::new());
    core.snapshots.settle();
    let opened = core.open_dir(NodeId::ROOT).unwrap();
    let list = |from, most: usize| {
        let mut told = Vec::new();
        let listing = core.look_up_all(NodeId::ROOT, Some(opened), from, &mut |line| {
            if told.len() == most {
                return Room::None;
            }
            told.push((line.entry.node, line.cookie));
            Room::Found
        });
        listing.map(|()| told)
    };
    let told = list(0, 9).unwrap();
    assert_eq!(told.len(), 4, "itself, its parent, and two files");
    assert!(matches!(list(told[3].1, 9), Err(FsError::Tree(_))), "who goes on is told");
    assert_eq!(list(0, 2).unwrap().len(), 2, "there is no room for a file");
    core.close_dir(opened);
    told[2..].iter().for_each(|(node, _)| core.forget(*node, 1));
    core.snapshots.switch(snapshot(2, &Files::new()), &Unchanged::new());
    core.snapshots.settle();
    assert_eq!(core.earlier(), [], "nothing of it is known any more");
}

#[test]
fn what_lies_over_damage_is_found_in_every_version_that_is_used() {
    let mut kernel = Kernel::new(Files::from([("a/c".into(), 0), ("c".into(), 1)]));
    kernel.step(Step::Walk("c".into(), true));
    let old = kernel.open[0].node;
    kernel.begin(Files::from([("a/c".into(), 0), ("c".into(), 2)]));
    kernel.commit();
    let new = ["a/c", "c"].map(|path| kernel.walk(path).unwrap());
    let task = kernel.core.content().task(0).unwrap();
    let over = kernel.core.nodes_over(&task, &GroupSet::full(1)).unwrap();
    assert!(over.contains(&old) && new.iter().all(|node| over.contains(node)), "{over:?}");
    assert!(kernel.core.shows(&task));
    assert!(!kernel.core.shows(&TaskId::from_bytes([9; 32])));
}

#[test]
fn a_table_of_nodes_that_contradicts_itself_harms_nobody_else() {
    let files = Files::from([("a/c".into(), 0), ("c".into(), 1)]);
    let honest = Kernel::new(files.clone());
    let at = |path: &str| {
        let node = honest.core.lookup(NodeId::ROOT, path.as_bytes()).unwrap().value.unwrap().node;
        node.names()
    };
    let strange = NodeId::from_raw(7 << 36 | 5);
    let nowhere = Place { generation: generation(9), nid: 77 };
    let nodes = vec![
        (strange, at("a")),
        (strange, at("c")),
        (NodeId::from_raw(8 << 36 | 5), at("c")),
        (NodeId::from_raw(at("c").raw()), nowhere),
        (NodeId::ROOT, nowhere),
    ];
    let mut kernel = Kernel::new(files.clone());
    kernel.step(Step::Walk("a/c".into(), true));
    kernel.left = Left { nodes, ..Left::default() };
    kernel.step(Step::TakeOver);
    kernel.check();
    for content in [2, 3] {
        let mut next = files.clone();
        next.insert("c".into(), content);
        kernel.begin(next);
        kernel.commit();
    }
}
