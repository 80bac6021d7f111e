//! Random operations on random trees, each answer compared with a model's: names, attributes, listings in any
//! portions from any cookie, bytes that come and go, and daemons that take over from each other in between.
//!
//! The tree goes through the real index, so that what programs see is what was put into it.

use std::collections::{BTreeMap, BTreeSet};

use dfs_artifact::erofs::{BlockSize, Image, ImageOptions, Space, write_image};
use dfs_artifact::tree::{Content as Put, Location, Meta, Mtime, Run, SparseFile, TreeBuilder};
use dfs_model::ByteRange;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::content::MemoryContent;
use crate::tree::{IndexTree, Timestamp};

const BLOCK: usize = 4096;
const SPACES: u16 = 3;

/// What is put somewhere below what is there already.
#[derive(Debug, Clone)]
enum Thing {
    Directory,
    /// Its blocks, each in a space or a hole, and how much of the last one is its own.
    File(Vec<Option<u16>>, usize),
    Symlink(Vec<u8>),
    Fifo,
    /// One more name of something.
    Link(Index),
}

#[derive(Debug, Clone)]
struct Made {
    below: Index,
    name: Vec<u8>,
    thing: Thing,
    meta: (u16, u32, u32, i64),
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a program may do next; indexes choose among what it has seen so far.
#[derive(Debug, Clone)]
enum Step {
    Lookup(Index, Index),
    LookupNothing(Index, Vec<u8>),
    Attr(Index),
    List(Index, Index, usize),
    Read(Index, u64, usize),
    ReadLink(Index),
    Xattrs(Index),
    Open(Index, bool),
    Stale(Index, u16),
    Evict(u16, u64, u64),
    /// Another daemon goes on with the same snapshot, or shows another one.
    TakeOver(Option<u16>),
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => b'a'..=b'e', 1 => any::<u8>()];
    let short = prop::collection::vec(byte.clone(), 1..4);
    prop_oneof![6 => short, 1 => prop::collection::vec(byte, 200..256)].prop_map(|name| {
        let name: Vec<u8> =
            name.into_iter().map(|b| if matches!(b, 0 | b'/') { b'_' } else { b }).collect();
        if name == b"." || name == b".." { b"dot".to_vec() } else { name }
    })
}

fn things() -> impl Strategy<Value = Thing> {
    let blocks = prop::collection::vec(prop::option::weighted(0.8, 0..SPACES), 0..40);
    prop_oneof![
        3 => Just(Thing::Directory),
        5 => (blocks, 1..=BLOCK).prop_map(|(blocks, last)| Thing::File(blocks, last)),
        1 => prop::collection::vec(1u8.., 1..200).prop_map(Thing::Symlink),
        1 => Just(Thing::Fifo),
        1 => any::<Index>().prop_map(Thing::Link),
    ]
}

fn trees() -> impl Strategy<Value = Vec<Made>> {
    let xattrs = prop::collection::btree_map(
        "user\\.[a-c]{1,3}",
        prop::collection::vec(any::<u8>(), 0..40),
        0..3,
    )
    .prop_map(|all| all.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect());
    let meta = (0u16..0o7777, 0..70_000u32, 0..70_000u32, -1_000_000_000..5_000_000_000i64);
    let made = (any::<Index>(), names(), things(), meta, xattrs)
        .prop_map(|(below, name, thing, meta, xattrs)| Made { below, name, thing, meta, xattrs });
    prop::collection::vec(made, 1..120)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<Index>;
    let step = prop_oneof![
        6 => (index(), index()).prop_map(|(at, name)| Step::Lookup(at, name)),
        1 => (index(), names()).prop_map(|(at, name)| Step::LookupNothing(at, name)),
        2 => index().prop_map(Step::Attr),
        3 => (index(), index(), 1..20usize).prop_map(|(at, from, portion)| Step::List(at, from, portion)),
        8 => (index(), 0..200_000u64, 0..150_000usize).prop_map(|(at, from, length)| Step::Read(at, from, length)),
        1 => index().prop_map(Step::ReadLink),
        2 => index().prop_map(Step::Xattrs),
        1 => (index(), any::<bool>()).prop_map(|(at, write)| Step::Open(at, write)),
        1 => (index(), 1u16..).prop_map(|(at, other)| Step::Stale(at, other)),
        2 => (0..SPACES, 0..40u64, 1..20u64).prop_map(|(space, first, groups)| Step::Evict(space, first, groups)),
        1 => prop::option::weighted(0.5, any::<u16>()).prop_map(Step::TakeOver),
    ];
    prop::collection::vec(step, 1..120)
}

/// What the model says of one thing.
#[derive(Debug, Clone)]
struct Known {
    kind: Kind,
    meta: Meta,
    names: u32,
    children: BTreeMap<Vec<u8>, usize>,
    parent: usize,
    target: Vec<u8>,
    bytes: Vec<u8>,
}

/// A tree as the model has it, the same in an index, and the bytes that it lies over.
struct World {
    known: Vec<Known>,
    image: Vec<u8>,
    spaces: Vec<Vec<u8>>,
}

impl World {
    fn of(made: &[Made]) -> Self {
        let root = Known {
            kind: Kind::Directory,
            meta: Meta::with_mode(0o755),
            names: 2,
            children: BTreeMap::new(),
            parent: 0,
            target: Vec::new(),
            bytes: Vec::new(),
        };
        let mut world =
            Self { known: vec![root], image: Vec::new(), spaces: vec![Vec::new(); SPACES.into()] };
        let mut builder = TreeBuilder::new();
        builder.add(b"", world.known[0].meta.clone(), Put::Directory).unwrap();
        let mut paths: Vec<Vec<u8>> = vec![Vec::new()];
        for one in made {
            let directories: Vec<_> = (0..world.known.len())
                .filter(|at| world.known[*at].kind == Kind::Directory)
                .collect();
            let below = *one.below.get(&directories);
            if world.known[below].children.contains_key(&one.name) || paths[below].len() > 3000 {
                continue;
            }
            let path = match paths[below].is_empty() {
                true => one.name.clone(),
                false => [&paths[below][..], b"/", &one.name].concat(),
            };
            if let Thing::Link(to) = &one.thing {
                let to = to.index(world.known.len());
                if world.known[to].kind != Kind::Directory {
                    builder.link(&path, &paths[to]).unwrap();
                    world.known[to].names += 1;
                    world.known[below].children.insert(one.name.clone(), to);
                }
                continue;
            }
            let (known, put) = world.thing(one, below);
            builder.add(&path, known.meta.clone(), put).unwrap();
            world.known[below].names += u32::from(known.kind == Kind::Directory);
            let next = world.known.len();
            world.known[below].children.insert(one.name.clone(), next);
            world.known.push(known);
            paths.push(path);
        }
        let spaces =
            world.spaces.iter().map(|space| Space { length: space.len() as u64, tag: [0; 64] });
        let options = ImageOptions {
            block_size: BlockSize::B4096,
            build_time: Mtime::default(),
            spaces: spaces.collect(),
        };
        world.image = write_image(&builder, &options).unwrap().bytes;
        world
    }

    fn thing(&mut self, made: &Made, below: usize) -> (Known, Put) {
        let (mode, uid, gid, secs) = made.meta;
        let mut known = Known {
            kind: Kind::Fifo,
            meta: Meta { uid, gid, mtime: Mtime { secs, nanos: 5 }, ..Meta::with_mode(mode) },
            names: 1,
            children: BTreeMap::new(),
            parent: below,
            target: Vec::new(),
            bytes: Vec::new(),
        };
        known.meta.xattrs = made.xattrs.clone();
        let put = match &made.thing {
            Thing::Directory => {
                (known.kind, known.names) = (Kind::Directory, 2);
                Put::Directory
            }
            Thing::Symlink(target) => {
                (known.kind, known.target) = (Kind::Symlink, target.clone());
                Put::Symlink(target.clone())
            }
            Thing::File(blocks, last) => {
                known.kind = Kind::File;
                let (bytes, file) = self.file(blocks, *last);
                known.bytes = bytes;
                Put::Sparse(file)
            }
            Thing::Fifo | Thing::Link(_) => Put::Fifo,
        };
        (known, put)
    }

    /// Lays the blocks of a file at the ends of their spaces.
    fn file(&mut self, blocks: &[Option<u16>], last: usize) -> (Vec<u8>, SparseFile) {
        let mut bytes = Vec::new();
        let mut runs = Vec::new();
        for (at, space) in blocks.iter().enumerate() {
            let length = if at + 1 == blocks.len() { last } else { BLOCK };
            match space {
                None => bytes.resize(bytes.len() + length, 0),
                Some(number) => {
                    let space = &mut self.spaces[usize::from(*number)];
                    let offset = space.len();
                    space.extend(
                        (0..BLOCK).map(|byte| (((offset + byte) * 31) >> 4) as u8 ^ *number as u8),
                    );
                    let location = Location { space: *number, offset: offset as u64 };
                    runs.push(Run { at: bytes.len() as u64, length: length as u64, location });
                    bytes.extend(&space[offset..offset + length]);
                }
            }
        }
        let file = SparseFile::new(bytes.len() as u64, runs).unwrap();
        (bytes, file)
    }

    fn core(
        &self,
        content: &MemoryContent,
        generation: u16,
        runtime: &tokio::runtime::Runtime,
    ) -> Core {
        let image = Image::open(self.image.clone()).unwrap();
        let tree = IndexTree::new(image, Totals::default());
        let generation = Generation::new(u32::from(generation)).unwrap();
        let options = CoreOptions { generation, ..CoreOptions::default() };
        Core::new(Arc::new(tree), Arc::new(content.clone()), options, runtime.handle().clone())
    }
}

/// A program at work on a mount: what it has seen, and what it holds on to.
struct Program<'a> {
    world: &'a World,
    runtime: &'a tokio::runtime::Runtime,
    content: MemoryContent,
    core: Core,
    generation: u16,
    /// Nodes that it has looked up in this snapshot, and what they are.
    seen: Vec<(NodeId, usize)>,
    /// Cookies of listings begun, and the directory's names before each.
    cookies: Vec<(usize, u64, BTreeSet<Vec<u8>>)>,
}

impl Program<'_> {
    fn pick(&self, at: Index) -> (NodeId, &Known) {
        let (node, known) = *at.get(&self.seen);
        (node, &self.world.known[known])
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Lookup(at, name) => self.lookup(*at, *name),
            Step::LookupNothing(at, name) => {
                let (node, known) = self.pick(*at);
                let answer = self.core.lookup(node, name).map(|answer| answer.value);
                match (known.kind, known.children.contains_key(name)) {
                    (Kind::Directory, false) => assert_eq!(answer, Ok(None)),
                    (Kind::Directory, true) => assert!(answer.unwrap().is_some()),
                    _ => assert!(matches!(answer, Err(FsError::Tree(TreeError::NotADirectory(_))))),
                }
            }
            Step::Attr(at) => {
                let (node, known) = self.pick(*at);
                assert_attr(&self.core.attr(node).unwrap(), known);
            }
            Step::List(at, from, portion) => self.list(*at, *from, *portion),
            Step::Read(at, from, length) => self.read(*at, *from, *length),
            Step::ReadLink(at) => {
                let (node, known) = self.pick(*at);
                match known.kind {
                    Kind::Symlink => {
                        assert_eq!(self.core.read_link(node).as_ref(), Ok(&known.target))
                    }
                    _ => assert!(self.core.read_link(node).is_err()),
                }
            }
            Step::Xattrs(at) => {
                let (node, known) = self.pick(*at);
                let listed = self.core.list_xattr(node).unwrap();
                assert!(listed.iter().eq(known.meta.xattrs.keys()));
                for (name, value) in &known.meta.xattrs {
                    assert_eq!(self.core.get_xattr(node, name).as_ref(), Ok(value));
                }
                assert_eq!(self.core.get_xattr(node, b"user.none"), Err(FsError::NoAttribute));
            }
            Step::Open(at, write) => {
                let (node, known) = self.pick(*at);
                let access = if *write { Access::Write } else { Access::Read };
                let expected = match known.kind {
                    _ if *write => Err(FsError::ReadOnly),
                    Kind::Directory => Err(FsError::IsADirectory),
                    _ => Ok(()),
                };
                assert_eq!(self.core.open(node, access), expected);
                assert_eq!(self.core.open_dir(node).is_ok(), known.kind == Kind::Directory);
            }
            Step::Stale(at, other) => {
                let (node, _) = self.pick(*at);
                if node != NodeId::ROOT {
                    let raw = node.raw() ^ u64::from(*other) << 36;
                    let stale = self.core.attr(NodeId::from_raw(raw));
                    assert_eq!(stale, Err(FsError::Stale(raw)));
                }
            }
            Step::Evict(space, first, groups) => {
                let range = ByteRange::at(first * GROUP_BYTES, groups * GROUP_BYTES);
                self.content.evict(*space, range);
            }
            Step::TakeOver(generation) => {
                self.core.stop();
                if let Some(generation) = generation.filter(|other| *other != self.generation) {
                    // What was looked up is of the snapshot before.
                    self.generation = generation;
                    self.seen.truncate(1);
                }
                self.core = self.world.core(&self.content, self.generation, self.runtime);
            }
        }
    }

    fn lookup(&mut self, at: Index, name: Index) {
        let (node, known) = self.pick(at);
        if known.children.is_empty() {
            return;
        }
        let (name, child) = known.children.iter().nth(name.index(known.children.len())).unwrap();
        let entry = self.core.lookup(node, name).unwrap().value.unwrap();
        assert_attr(&entry.attr, &self.world.known[*child]);
        let before = self.seen.iter().find(|(_, known)| known == child);
        assert!(before.is_none_or(|(node, _)| *node == entry.node), "a thing has one node");
        self.seen.push((entry.node, *child));
    }

    /// Lists a portion of a directory from its beginning or from any cookie of it seen before.
    fn list(&mut self, at: Index, from: Index, portion: usize) {
        let (node, which) = *at.get(&self.seen);
        let known = &self.world.known[which];
        if known.kind != Kind::Directory {
            assert!(self.core.read_dir(node, None, 0, &mut |_| ControlFlow::Continue(())).is_err());
            return;
        }
        let begun: Vec<_> = self.cookies.iter().filter(|(of, ..)| *of == which).collect();
        let (mut cookie, mut names) = match from.index(begun.len() + 1) {
            0 => (0, BTreeSet::new()),
            one => (begun[one - 1].1, begun[one - 1].2.clone()),
        };
        let (mut left, mut ended) = (portion, true);
        let mut cookies = Vec::new();
        let listing = self.core.read_dir(node, None, cookie, &mut |listed| {
            if left == 0 {
                ended = false;
                return ControlFlow::Break(());
            }
            left -= 1;
            cookie = listed.cookie;
            let child = match listed.name {
                b"." => which,
                b".." => known.parent,
                name => *known.children.get(name).expect("only what is there is listed"),
            };
            assert_eq!(listed.entry.attr.kind, self.world.known[child].kind);
            assert!(names.insert(listed.name.to_vec()), "{:?} twice", listed.name.escape_ascii());
            cookies.push((which, cookie, names.clone()));
            ControlFlow::Continue(())
        });
        listing.unwrap();
        if ended {
            assert_eq!(names.len(), known.children.len() + 2, "everything was listed");
        }
        self.cookies.extend(cookies);
    }

    fn read(&mut self, at: Index, from: u64, length: usize) {
        let (node, known) = self.pick(at);
        let read = self.runtime.block_on(self.core.read(node, from, length));
        if known.kind != Kind::File {
            assert!(read.is_err(), "{:?} was read", known.kind);
            return;
        }
        let start = usize::try_from(from).unwrap().min(known.bytes.len());
        let expected = &known.bytes[start..(start + length).min(known.bytes.len())];
        assert!(read.unwrap() == expected, "wrong bytes at {from}+{length}");
        let mut buf = vec![0xee; length];
        match self.core.read_now(node, from, &mut buf).unwrap() {
            Read::Here(here, _) => assert!(buf[..here] == *expected),
            Read::Missing(_) => panic!("what was just read is here"),
        }
    }
}

fn assert_attr(attr: &Attr, known: &Known) {
    let size = match known.kind {
        Kind::File => known.bytes.len() as u64,
        Kind::Symlink => known.target.len() as u64,
        _ => attr.size,
    };
    assert_eq!((attr.kind, attr.size, attr.nlink), (known.kind, size, known.names));
    assert_eq!(
        (attr.permissions, attr.uid, attr.gid),
        (known.meta.mode, known.meta.uid, known.meta.gid)
    );
    let (seconds, nanoseconds) = (known.meta.mtime.secs, known.meta.mtime.nanos);
    assert_eq!(attr.mtime, Timestamp { seconds, nanoseconds });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whatever_a_program_does_it_sees_what_the_model_says(made in trees(), steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let world = World::of(&made);
        let content = MemoryContent::missing(world.spaces.clone());
        let core = world.core(&content, 0, &runtime);
        let seen = vec![(NodeId::ROOT, 0)];
        let mut program = Program {
            world: &world, runtime: &runtime, content, core, generation: 0, seen, cookies: Vec::new(),
        };
        for step in &steps {
            program.step(step);
        }
        program.core.stop();
    }
}
