//! `cargo xtask demo fleet`: a fleet of machines starts an image of an ordinary registry that nobody converted, and goes on
//! through what days are like: a new version, a container that is deleted, a neighbour that has other bytes than it says,
//! and a registry, a scheduler and a manager that are gone.
//!
//! Each machine is a network namespace behind a shaped link. What left the registry is counted in front of it.

mod contained;
mod screen;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use dfs_model::Rate;
use dfs_tests::cluster::join_token;
use dfs_tests::registry::Guard;
use dfs_tests::testbed::{Fleet, Layout, Machine, Role};
use dfs_tests::{Binaries, Distance, Mount, Node, Registry, Testbed, wait};
use serde_json::{Value, json};

use self::contained::{Contained, sums_of};
use self::screen::{Line, Screen};
use super::Format;
use super::ledger::COPIES;
use crate::image::{Image, NAME, PLAIN, PROGRAMS};
use crate::interrupt::Interrupt;
use crate::prepare;
use crate::run::{Failure, failed, run};
use crate::units::{bytes, count};

/// What the second version has and the first has not.
const NEW: &str = "usr/lib/python3/dist-packages/fleet.py";
const NEW_TEXT: &str = "version = 2\n";

/// How often a mount looks whether its tag has moved.
const FOLLOW: &str = "--follow=2s";

/// How long a fleet may take to follow.
const FOLLOWED: Duration = Duration::from_secs(120);

/// How many, behind what.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Machines that start the image at once; one more waits for the end
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u8).range(2..=32))]
    machines: u8,
    /// What each machine's link carries, each way
    #[arg(long, value_name = "RATE", default_value = "1Gbit")]
    link: Rate,
}

/// What all acts share.
struct Field<'a> {
    screen: Screen,
    interrupt: &'a Interrupt,
    testbed: &'a Testbed,
    fleet: Fleet<'a>,
    registry: Option<Registry>,
    way: Distance,
    image: &'a Image,
    binaries: Binaries,
    work: &'a Path,
}

/// How a machine started.
struct Ready {
    name: String,
    took: Duration,
    moved: u64,
    mount: Mount,
}

/// What is told at the end.
#[derive(Default)]
struct Story {
    content: u64,
    origin: u64,
    ready: Vec<(String, Duration, u64)>,
    second_origin: u64,
    second_moved: u64,
    dropped: u64,
    alone: Duration,
}

/// Runs it.
pub fn run_fleet(
    args: &Args,
    format: Format,
    binaries: Binaries,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    if !prepare::is_root() {
        return Err(Failure::Other("a fleet is made of namespaces: run it as root".into()));
    }
    for packages in [prepare::FOR_TESTBED, prepare::FOR_IMAGES, prepare::FOR_FLEET] {
        prepare::packages(packages)?;
    }
    prepare::packages(prepare::FOR_DEBIAN_ROOT)?;
    let work = tempfile::Builder::new().prefix("dfs-demo-").tempdir();
    let work = work.map_err(|error| Failure::Other(format!("no temporary directory: {error}")))?;
    let screen = Screen::new();
    screen.act(&format!("{} machines, each behind a link of its own", args.machines));
    let begun = Instant::now();
    let image = Image::make(&work.path().join("image"))?;
    let made = format!("an image of three layers, {}, as any registry has it", bytes(image.packed));
    screen.done(&made, Some(begun.elapsed()));
    let testbed = Testbed::build(&Layout::flat(usize::from(args.machines) + 1, args.link))?;
    let reaper = testbed.reaper();
    interrupt.on_signal(move || reaper.reap());
    let mut field = Field::start(screen, interrupt, &testbed, &image, binaries, work.path())?;
    let story = field.play(args.machines.into())?;
    drop(field);
    if format == Format::Json {
        println!("{}", story.json());
    }
    story.judge()
}

impl<'a> Field<'a> {
    /// Starts a registry that has the image, a cluster, and an agent on each machine.
    fn start(
        screen: Screen,
        interrupt: &'a Interrupt,
        testbed: &'a Testbed,
        image: &'a Image,
        binaries: Binaries,
        work: &'a Path,
    ) -> Result<Self, Failure> {
        let begun = Instant::now();
        let far = testbed.first(Role::Origin)?;
        let registry = far.inside(|| Registry::start(work, Guard::Nobody))?;
        far.inside(|| registry.push(&image.layout, NAME))?;
        let to = registry.address().parse();
        let to = to.map_err(|_| Failure::Other("a registry without an address".to_owned()))?;
        let way = far.inside(|| Distance::start((far.address(), 0).into(), to, Duration::ZERO))?;
        let binaries = binaries.with(PLAIN, &way.address().to_string());
        let own = work.join("fleet");
        fs::create_dir_all(&own).map_err(failed(&own))?;
        let fleet = Fleet::start(testbed, &binaries, &own)?;
        let started = "manager, scheduler, seed, registry, and an agent on each machine";
        screen.done(started, Some(begun.elapsed()));
        let registry = Some(registry);
        Ok(Self { screen, interrupt, testbed, fleet, registry, way, image, binaries, work })
    }

    fn url(&self) -> String {
        format!("oci://{}/{NAME}", self.way.address())
    }

    fn machines(&self) -> impl Iterator<Item = (&'a Machine, &Node)> {
        self.testbed.all(Role::Node).zip(self.fleet.nodes())
    }

    /// One act after another.
    fn play(&mut self, machines: usize) -> Result<Story, Failure> {
        let mut story = Story { content: self.image.packed, ..Story::default() };
        let mounts = self.all_start(machines, &mut story)?;
        self.interrupt.check()?;
        self.follow(&mounts, &mut story)?;
        self.interrupt.check()?;
        self.lie_and_delete(&mut story)?;
        self.interrupt.check()?;
        self.alone(machines, &mut story)?;
        Ok(story)
    }

    /// All at once.
    fn all_start(&self, machines: usize, story: &mut Story) -> Result<Vec<Ready>, Failure> {
        self.screen.act("All start the image at once. Nobody has anything of it.");
        let begun = Instant::now();
        let ready: Vec<_> = thread::scope(|scope| {
            let starting: Vec<_> = self
                .machines()
                .take(machines)
                .map(|(machine, node)| {
                    let line = self.screen.line(node.name());
                    scope.spawn(move || self.ready(machine, node, &[FOLLOW], &line))
                })
                .collect();
            let joined = starting
                .into_iter()
                .map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            joined.collect()
        });
        let ready = ready.into_iter().collect::<Result<Vec<_>, Failure>>()?;
        let answered = format!("{} machines answer", ready.len());
        self.screen.done(&answered, Some(begun.elapsed()));
        story.origin = self.way.sent_back();
        story.ready = ready.iter().map(|one| (one.name.clone(), one.took, one.moved)).collect();
        let copies = story.origin as f64 / story.content as f64;
        let sent = format!("the registry sent {}: {copies:.3} copies", bytes(story.origin));
        self.screen.done(&sent, None);
        let most = ready.iter().map(|one| one.moved).max().unwrap_or(0);
        self.screen.done(&format!("at most {} came to one machine", bytes(most)), None);
        Ok(ready)
    }

    /// Has a machine mount the image, and its programs answer.
    fn ready(
        &self,
        machine: &Machine,
        node: &Node,
        options: &[&str],
        line: &Line,
    ) -> Result<Ready, Failure> {
        let (before, begun) = (machine.traffic()?, Instant::now());
        let mount = self.mount(machine, node, options, line)?;
        start(mount.dir(), line, begun)?;
        let took = begun.elapsed();
        let moved = (machine.traffic()? - before).received;
        line.says(format!("answers after {took:.2?}, {} moved", bytes(moved)));
        Ok(Ready { name: node.name().to_owned(), took, moved, mount })
    }

    fn mount(
        &self,
        machine: &Machine,
        node: &Node,
        options: &[&str],
        line: &Line,
    ) -> Result<Mount, Failure> {
        let dir = self.work.join("roots").join(node.name());
        fs::create_dir_all(&dir).map_err(failed(&dir))?;
        let mount = Mount::guard(&dir);
        line.says("mounts".to_owned());
        let mut dfctl = node.dfctl_command()?;
        dfctl.args(["-q", "mount"]).args(options).arg(self.url()).arg(&dir);
        machine.inside(|| Ok(run(&mut dfctl)))??;
        Ok(mount)
    }

    /// A second version, of which one layer was made again.
    fn follow(&self, ready: &[Ready], story: &mut Story) -> Result<(), Failure> {
        self.screen.act("A second version is pushed: of its three layers one was made again.");
        let more = self.work.join("more");
        let new = more.join(NEW);
        fs::create_dir_all(new.parent().unwrap_or(&more)).map_err(failed(&new))?;
        fs::write(&new, NEW_TEXT).map_err(failed(&new))?;
        let next = self.image.next(&self.work.join("next"), &more)?;
        let before = self.machines().map(|(machine, _)| Ok(machine.traffic()?.received));
        let before = before.collect::<Result<Vec<_>, Failure>>()?;
        let (sent, begun) = (self.way.sent_back(), Instant::now());
        let far = self.testbed.first(Role::Origin)?;
        let registry = self.registry.as_ref();
        let registry = registry.ok_or_else(|| Failure::Other("no registry".to_owned()))?;
        far.inside(|| registry.push(&next, NAME))?;
        for one in ready {
            let file = one.mount.path(NEW);
            let followed = || fs::read(&file).ok().filter(|text| text == NEW_TEXT.as_bytes());
            wait::find(&format!("{} follows", one.name), FOLLOWED, followed)?;
            PROGRAMS.iter().try_for_each(|program| program.start(one.mount.dir()))?;
        }
        self.screen.done("every mount shows it, and its programs answer", Some(begun.elapsed()));
        story.second_origin = self.way.sent_back() - sent;
        let moved = self
            .machines()
            .zip(before)
            .map(|((machine, _), before)| Ok::<_, Failure>(machine.traffic()?.received - before));
        story.second_moved = moved.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or(0);
        let (origin, most) = (bytes(story.second_origin), bytes(story.second_moved));
        self.screen
            .done(&format!("the registry sent {origin}, at most {most} came to a machine"), None);
        Ok(())
    }

    /// Everything is read by who has nothing, from neighbours of whom one has other bytes than it says; meanwhile the
    /// container of the agent that reads is deleted.
    fn lie_and_delete(&mut self, story: &mut Story) -> Result<(), Failure> {
        self.screen.act(
            "sha256sum reads all of the image through an agent in a container, which is deleted.",
        );
        let truth = sums_of(&self.image.root)?;
        let liar = &self.fleet.nodes()[1];
        let altered = alter(&liar.data_dir().join("tasks"))?;
        self.screen.done(
            &format!("{} has {} other bytes now, and does not know", liar.name(), count(altered)),
            None,
        );
        let dropped = self.blacklisted()?;
        let dir = self.work.join("contained");
        fs::create_dir_all(&dir).map_err(failed(&dir))?;
        let token = join_token(&self.binaries, &self.work.join("fleet/manager"), "node", 1)?;
        let machine = self.testbed.first(Role::Node)?;
        let variables = [format!("{PLAIN}={}", self.way.address())];
        let mut contained = Contained::start(machine, &self.binaries, &dir, &token, &variables)?;
        contained.mount(&self.url())?;
        let begun = Instant::now();
        let sums = contained.sums(truth.lines().count(), &dir.join("sums"))?;
        let (new, same): (Vec<_>, Vec<_>) = sums.lines().partition(|line| line.ends_with(NEW));
        if new.len() != 1 || !same.iter().copied().eq(truth.lines()) {
            return Err(Failure::Other("the sums are not those of the image".to_owned()));
        }
        let summed = format!(
            "{} sums, all right; the reader waited for the next container",
            count(sums.lines().count() as u64)
        );
        self.screen.done(&summed, Some(begun.elapsed()));
        story.dropped = self.blacklisted()? - dropped;
        let dropped = story.dropped;
        let seen =
            format!("{dropped} times a neighbour was dropped, each after its first wrong piece");
        self.screen.done(&seen, None);
        Ok(())
    }

    /// Hosts of whom the scheduler knows that they served what did not verify.
    fn blacklisted(&mut self) -> Result<u64, Failure> {
        let (machine, scheduler) = self.fleet.part("scheduler")?;
        let metric = || scheduler.metric("dfs_scheduler_blacklisted_total");
        Ok(machine.inside(metric).unwrap_or_default() as u64)
    }

    /// Nobody is left whom a cluster asks.
    fn alone(&mut self, machines: usize, story: &mut Story) -> Result<(), Failure> {
        self.screen.act("Registry, scheduler and manager are killed. One more machine, which never asked for the image, starts it.");
        self.registry = None;
        for name in ["scheduler", "manager"] {
            self.fleet.kill(name)?;
        }
        let last = self.machines().nth(machines);
        let (machine, node) =
            last.ok_or_else(|| Failure::Other("no machine is left".to_owned()))?;
        let line = self.screen.line(node.name());
        let ready = self.ready(machine, node, &[], &line)?;
        story.alone = ready.took;
        let answered = format!("{} answers, by the neighbours that it knows", ready.name);
        self.screen.done(&answered, Some(ready.took));
        Ok(())
    }
}

/// Has the programs of the image answer, one after another.
fn start(root: &Path, line: &Line, begun: Instant) -> Result<(), Failure> {
    for program in PROGRAMS {
        line.says(format!("starts {} after {:.2?}", program.name, begun.elapsed()));
        program.start(root)?;
    }
    Ok(())
}

impl Story {
    fn json(&self) -> Value {
        let seconds = |took: &Duration| (took.as_secs_f64() * 1e3).round() / 1e3;
        let nodes = self.ready.iter().map(|(name, took, moved)| {
            json!({"name": name, "ready_seconds": seconds(took), "moved_bytes": moved})
        });
        json!({
            "content_bytes": self.content,
            "origin_bytes": self.origin,
            "nodes": nodes.collect::<Vec<_>>(),
            "second_origin_bytes": self.second_origin,
            "second_moved_bytes_most": self.second_moved,
            "liars_dropped": self.dropped,
            "without_cluster_seconds": seconds(&self.alone),
        })
    }

    /// An error unless the registry was paid once, and nobody believed a liar for long.
    fn judge(&self) -> Result<(), Failure> {
        if self.dropped == 0 {
            return Err(Failure::Other("nobody noticed who has other bytes".to_owned()));
        }
        let copies = self.origin as f64 / self.content.max(1) as f64;
        if copies > COPIES {
            let most = format!("at most {COPIES} may");
            return Err(Failure::Other(format!("{copies:.3} copies left the registry; {most}")));
        }
        Ok(())
    }
}

/// Alters what a store has of every task, group by group; how many bytes.
fn alter(tasks: &Path) -> Result<u64, Failure> {
    let mut altered = 0;
    for content in contents(tasks)? {
        let file = File::options().read(true).write(true).open(&content);
        altered += file.and_then(|file| alter_file(&file)).map_err(failed(&content))?;
    }
    Ok(altered)
}

fn contents(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed(dir))? {
        let path = entry.map_err(failed(dir))?.path();
        match path.is_dir() {
            true => found.extend(contents(&path)?),
            false if path.ends_with("content") => found.push(path),
            false => {}
        }
    }
    Ok(found)
}

/// A byte in each block that is there: what is all zero may be a hole, and is left alone.
fn alter_file(file: &File) -> io::Result<u64> {
    let mut block = vec![0; 64 << 10];
    let (mut at, mut altered) = (0, 0);
    loop {
        let read = file.read_at(&mut block, at)?;
        if read == 0 {
            return Ok(altered);
        }
        if let Some(place) = block[..read].iter().position(|byte| *byte != 0) {
            file.write_all_at(&[!block[place]], at + place as u64)?;
            altered += 1;
        }
        at += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_was_paid_twice_fails() {
        let story = |origin| Story { content: 100, origin, dropped: 1, ..Story::default() };
        assert!(story(101).judge().is_ok());
        assert!(Story { dropped: 0, ..story(100) }.judge().is_err());
        assert!(story(200).judge().unwrap_err().to_string().contains("2.000 copies"));
    }

    #[test]
    fn what_is_there_is_altered_and_holes_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("00/id/content");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = File::create(&path).unwrap();
        file.set_len(200 << 10).unwrap();
        file.write_all_at(b"there", 70 << 10).unwrap();
        assert_eq!(alter(dir.path()).unwrap(), 1);
        let content = fs::read(&path).unwrap();
        assert_eq!(content.len(), 200 << 10);
        assert_eq!(content[70 << 10..][..5], [!b't', b'h', b'e', b'r', b'e']);
    }
}
