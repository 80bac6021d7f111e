//! A plan carried out, and what must be true of it.
//!
//! However things go wrong: no byte that is seen is wrong; when all is well again everybody has soon seen everything;
//! nobody is told an error while the origin was reached; the origin sends each content once, and once more at most
//! for each who had to help themselves; tasks stay few; and in the end everything stops in time and leaves nothing.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::reading::{Manner, Progress};
use crate::ring::Ring;
use crate::troubles::{FRESH_CONTENT, Kind, OVER_BY, Plan, Reader, Trouble};

/// How long everybody may take to see everything when all is well again, and beside it the time in which the origin
/// alone would give everything to everybody.
const DONE_WITHIN: Duration = Duration::from_secs(30);

/// How long it may take, when all is well again, until everybody has what nobody had.
const WELL_WITHIN: Duration = Duration::from_secs(30);

/// How long a cluster rests before its end.
const REST: Duration = Duration::from_secs(20);

/// What the origin may send in vain when something goes wrong: what is asked for at a time, over again.
const LOST: u64 = 1 << 20;

/// How long a node may stand still that is well and reaches the origin, whatever is wrong with the others.
const STILL: Duration = Duration::from_secs(30);

/// Most tasks that a machine of so small a cluster needs.
const MOST_TASKS: usize = 250;

/// Panics since the first story began.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Counts panics of all threads from now on.
pub fn count_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            usual(panic);
        }));
    });
}

struct UnderWay {
    reader: Reader,
    progress: Arc<Mutex<Progress>>,
    /// Whether it reads, as long as its node runs.
    is_begun: bool,
}

/// What came of a story.
#[derive(Debug, Default)]
pub struct Outcome {
    /// When everybody had seen everything.
    pub done_at: Duration,
    /// How long a node stood still that need not.
    pub still: Duration,
    /// Copies of each content that left the origin.
    pub copies: Vec<f64>,
    /// How long it took, all being well, until everybody had what nobody had.
    pub well_after: Duration,
    /// Errors that readers were told.
    pub errors: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done_at, still, copies, well_after, errors } = self;
        let told = errors.len();
        write!(f, "done at {done_at:.1?}, stood still {still:.1?}, copies {copies:.2?}, well ")?;
        write!(f, "after {well_after:.1?}, {told} errors told")
    }
}

/// Carries out a plan; says what was not as it must be.
pub fn tell(plan: &Plan) -> Result<Outcome, String> {
    count_panics();
    let panics = PANICS.load(Ordering::Relaxed);
    let mut ring = Ring::new(plan.seed, &plan.size);
    let begin = ring.world.now;
    let mut readers: Vec<_> = plan
        .readers
        .iter()
        .map(|reader| UnderWay { reader: *reader, progress: Arc::default(), is_begun: false })
        .collect();
    let mut outcome = go_through(plan, &mut ring, &mut readers, begin)?;
    outcome.errors =
        readers.iter().flat_map(|reader| reader.progress.lock().errors.clone()).collect();
    outcome.copies = (0..ring.shelf.len()).map(|content| ring.copies(content)).collect();
    check(plan, &ring, &outcome, begin)?;
    let is_well = see_that_all_is_well(&mut ring, &mut outcome);
    is_well.map_err(|why| format!("{why}\n{}", ring.explain(0)))?;
    end(&mut ring)?;
    match PANICS.load(Ordering::Relaxed) - panics {
        0 => Ok(outcome),
        panics => Err(format!("{panics} panics")),
    }
}

fn go_through(
    plan: &Plan,
    ring: &mut Ring,
    readers: &mut [UnderWay],
    begin: Duration,
) -> Result<Outcome, String> {
    let mut events: Vec<(Duration, bool, Kind)> = Vec::new();
    for trouble in &plan.troubles {
        events.push((trouble.at, true, trouble.kind));
        events.push((trouble.at + trouble.lasts, false, trouble.kind));
    }
    events.sort_by_key(|(at, begins, _)| (*at, *begins));
    let mut events = events.into_iter().peekable();
    let mut watch = Watch::new(ring.nodes.len());
    loop {
        let now = ring.world.now - begin;
        while let Some((_, begins, kind)) = events.next_if(|(at, ..)| *at <= now) {
            tracing::info!(?kind, begins, "trouble");
            if begins {
                kind.begin(ring);
            } else {
                kind.end(ring);
            }
        }
        begin_reading(ring, readers, now);
        let progress = readers.iter().map(|reader| reader.progress.lock().clone());
        let progress: Vec<Progress> = progress.collect();
        if let Some(wrong) = progress.iter().find_map(|progress| progress.wrong.as_ref()) {
            return Err(format!("wrong bytes: {wrong}"));
        }
        watch.look(plan, ring, readers, now);
        if watch.longest.0 > STILL {
            return Err(format!("node{} stands still at {now:?}", watch.longest.1 + 1));
        }
        let all = progress.iter().all(|progress| progress.is_done);
        if all && events.peek().is_none() {
            return Ok(Outcome { done_at: now, still: watch.longest.0, ..Outcome::default() });
        }
        let alone = plan.size.contents.iter().sum::<usize>() * plan.size.nodes;
        let alone = Duration::from_secs_f64(alone as f64 / plan.size.rate as f64);
        if now > OVER_BY + DONE_WITHIN + alone {
            let waiting = readers.iter().zip(progress).filter(|(_, p)| !p.is_done);
            let waiting: Vec<_> = waiting.map(|(reader, p)| (reader.reader, p)).collect();
            return Err(format!("not done: {waiting:#?}"));
        }
        ring.world.step();
    }
}

/// How long nodes stand still that need not.
struct Watch {
    /// What each node has, and since when.
    has: Vec<(u64, Duration)>,
    /// The longest time, and whose.
    longest: (Duration, usize),
}

impl Watch {
    fn new(nodes: usize) -> Self {
        Self { has: vec![(0, Duration::ZERO); nodes], longest: (Duration::ZERO, 0) }
    }

    fn look(&mut self, plan: &Plan, ring: &Ring, readers: &[UnderWay], now: Duration) {
        for (node, which) in ring.nodes.iter().enumerate() {
            let is_its = |under_way: &&UnderWay| under_way.reader.node == node;
            let mine = || readers.iter().filter(is_its);
            let waits = mine().any(|its| {
                let is_patient = !matches!(its.reader.manner, Manner::Impatient(_));
                is_patient && its.is_begun && !its.progress.lock().is_done
            });
            let is_halted = plan.troubles.iter().any(|trouble| {
                let is_now = trouble.at <= now && now <= trouble.at + trouble.lasts;
                is_now && trouble.kind.halts(*which, ring.origin)
            });
            let kept = ring.host(*which).map_or(0, |host| host.engine.store().used_bytes());
            let has = kept + mine().map(|its| its.progress.lock().bytes).sum::<u64>();
            if has != self.has[node].0 || !waits || is_halted {
                self.has[node] = (has, now);
            }
            self.longest = self.longest.max((now - self.has[node].1, node));
        }
    }
}

/// Begins what is due, and what went down with its node.
fn begin_reading(ring: &Ring, readers: &mut [UnderWay], now: Duration) {
    for under_way in readers.iter_mut().filter(|under_way| under_way.reader.at <= now) {
        let Reader { node, content, manner, .. } = under_way.reader;
        let which = ring.nodes[node];
        if ring.host(which).is_none() {
            under_way.is_begun = false;
            continue;
        }
        if std::mem::replace(&mut under_way.is_begun, true) || under_way.progress.lock().is_done {
            continue;
        }
        ring.go_on_reading(which, content, manner, &under_way.progress);
    }
}

/// Who was told an error, and who asked the origin for what, may have had to.
fn check(plan: &Plan, ring: &Ring, outcome: &Outcome, begin: Duration) -> Result<(), String> {
    let strikes = |machine| plan.troubles.iter().any(|trouble| trouble.kind.strikes(machine));
    if !strikes(ring.origin) && !outcome.errors.is_empty() {
        return Err(format!("errors: {:?}", outcome.errors));
    }
    let is_service = |which| !ring.nodes.contains(&which);
    for content in 0..ring.shelf.len() {
        let length = ring.shelf.content(content).len() as u64;
        for (ip, (at, bytes)) in ring.shelf.counts(content).by {
            let machine = ring.world.machines.iter().position(|machine| machine.ip == ip);
            let which = machine.expect("a machine");
            let excuses = |trouble: &&Trouble| trouble.kind.excuses(which, is_service);
            let excuses: Vec<&Trouble> = plan.troubles.iter().filter(excuses).collect();
            let (at, troubles) = (at.saturating_sub(begin), excuses.len() as u64);
            let is_due_to = |trouble: &&Trouble| trouble.has_effect(at);
            let name = &ring.world.machines[which].name;
            if !excuses.iter().any(is_due_to) && !is_service(which) {
                return Err(format!("{name} reads {bytes} bytes of {content} from {at:?} on"));
            }
            if bytes > length + troubles * LOST {
                return Err(format!("{name} reads {bytes} bytes of {content} over {length}"));
            }
        }
    }
    Ok(())
}

/// What was wrong is no more: what nobody has comes to all at once, and what somebody has from there.
fn see_that_all_is_well(ring: &mut Ring, outcome: &mut Outcome) -> Result<(), String> {
    ring.settle();
    let begin = ring.world.now;
    let before = ring.copies(0);
    let nodes = ring.nodes.clone();
    let fresh = nodes.iter().map(|node| ring.read(*node, FRESH_CONTENT, Manner::Whole));
    let known = nodes.iter().map(|node| ring.read(*node, 0, Manner::Forward));
    let readers: Vec<_> = fresh.chain(known).collect();
    let are_done = ring.wait(WELL_WITHIN, |_| readers.iter().all(|reader| reader.lock().is_done));
    let progress: Vec<Progress> = readers.iter().map(|reader| reader.lock().clone()).collect();
    outcome.well_after = ring.world.now - begin;
    outcome.copies.push(ring.copies(FRESH_CONTENT));
    if !are_done || progress.iter().any(|progress| !progress.errors.is_empty()) {
        return Err(format!("not well again: {progress:#?}"));
    }
    // Of the other one there may be copies only of those who helped themselves, which they give to nobody.
    if ring.copies(0) > before + 1.1 || ring.copies(FRESH_CONTENT) > 1.1 {
        let now = [ring.copies(0), ring.copies(FRESH_CONTENT)];
        return Err(format!(
            "well again, the origin sends {now:?} copies, after {before} and none"
        ));
    }
    Ok(())
}

/// Everything stops, and leaves nothing.
pub fn end(ring: &mut Ring) -> Result<(), String> {
    ring.settle();
    ring.world.pass(REST);
    for which in (0..ring.world.machines.len()).rev() {
        let most = ring.world.machines[which].most_tasks;
        let left = ring.world.stop(which)?;
        let name = &ring.world.machines[which].name;
        if left > 0 {
            return Err(format!("{name} leaves {left} tasks"));
        }
        if most > MOST_TASKS {
            return Err(format!("{name} had {most} tasks at a time"));
        }
    }
    match ring.world.network.connections() {
        0 => Ok(()),
        left => Err(format!("{left} connections are left")),
    }
}
