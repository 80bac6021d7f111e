//! A mount that switches under a kernel that believes what it was told for ever, against a model: random snapshots,
//! switches, open files and directories, and daemons that take over in between.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::content::MemoryContent;
use crate::tree::{Extent, MemoryTree, MemoryTreeBuilder};

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
    content: Option<u8>,
    /// In which switch it was opened.
    since: usize,
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
        let mut at = NodeId::ROOT;
        for name in path.split('/') {
            if let Some(known) = self.names.get(&(at.raw(), name.to_owned())) {
                at = (*known)?;
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
        }
        Some(at)
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
        let open = self.open.iter().map(|open| open.node);
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
                let found = self.walk(&path);
                let is_there =
                    self.files.contains_key(&path) || !names(&self.files, &path).is_empty();
                assert_eq!(found.is_some(), is_there, "{path}");
                if let Some(node) = found.filter(|_| open) {
                    let content = self.files.get(&path).copied();
                    self.open.push(Open { node, content, since: self.switches });
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
        let switch = self.core.begin_switch().unwrap();
        let kept = switch
            .compare(&*next.tree, &|a, b| a == b, &mut |one| {
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
