//! Carries the outbox to the responsible schedulers, and reconnects.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dfs_model::{HostId, TaskId, TaskInfo};
use dfs_proto::scheduler::HostMessage;
use dfs_proto::scheduler::host_message::Kind as Up;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::delegates::Delegates;
use super::link::{Link, LinkParts};
use super::outbox::{Delegated, News, Outbox, Registration};
use super::{Charge, Holdings, Members, SwarmOptions, messages, route_of};
use crate::dial::Callee;
use crate::engine::Command;

/// News that nobody waits for gather for this long before they are sent.
const GATHER: Duration = Duration::from_millis(20);

/// News that an uplink waits for are sent no sooner than so long after the last ones.
const BRISK_EVERY: Duration = Duration::from_millis(2);

/// Pause between attempts to reach a scheduler, growing.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// How often links are looked after without news.
const UPKEEP: Duration = Duration::from_millis(250);

/// How long a delegate may take to answer: the schedulers wait meanwhile.
const REACHED_WITHIN: Duration = Duration::from_secs(2);
/// What one of its addresses is given at least, which is enough where it is only busy.
const ADDRESS_WITHIN: Duration = Duration::from_millis(500);

/// A delegate that was not reached is not tried again for so long: others wait meanwhile.
const NOT_REACHED_FOR: Duration = Duration::from_secs(60);

/// How long a scheduler may take to take a message: the others wait meanwhile.
const SEND_WITHIN: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Attempts {
    failures: u32,
    next: Option<Instant>,
}

pub(super) struct Session {
    options: Arc<SwarmOptions>,
    outbox: Arc<Outbox>,
    members: watch::Receiver<Arc<Members>>,
    holdings: Arc<dyn Holdings>,
    tracker: TaskTracker,
    links: HashMap<HostId, Link>,
    attempts: HashMap<HostId, Attempts>,
    /// When news were sent last.
    sent_at: Option<Instant>,
    /// The members that the links are to.
    followed: Arc<Members>,
    delegates: Delegates,
    /// Delegates that were not reached, and until when they are not tried.
    not_reached: HashMap<HostId, Instant>,
    charges: mpsc::Sender<Charge>,
}

impl Session {
    pub(super) fn new(
        options: Arc<SwarmOptions>,
        outbox: Arc<Outbox>,
        members: watch::Receiver<Arc<Members>>,
        holdings: Arc<dyn Holdings>,
        charges: mpsc::Sender<Charge>,
        tracker: TaskTracker,
    ) -> Self {
        Self {
            options,
            outbox,
            members,
            holdings,
            tracker,
            links: HashMap::new(),
            attempts: HashMap::new(),
            sent_at: None,
            followed: Arc::default(),
            delegates: Delegates::default(),
            not_reached: HashMap::new(),
            charges,
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = self.members.changed() => {}
                () = self.outbox.urgent() => {}
                () = self.outbox.brisk() => self.gather(self.brisk_in()).await,
                () = self.outbox.filled() => tokio::select! {
                    () = self.outbox.brisk() => self.gather(self.brisk_in()).await,
                    () = self.gather(GATHER) => {}
                },
                () = tokio::time::sleep(UPKEEP) => {}
            }
            if self.outbox.departs() {
                return self.depart().await;
            }
            let turn = async {
                self.upkeep(&stop).await;
                self.send_news().await;
            };
            if stop.run_until_cancelled(turn).await.is_none() {
                break;
            }
        }
        self.links.values().for_each(|link| link.stop.cancel());
    }

    /// How long until news that an uplink waits for may be sent.
    fn brisk_in(&self) -> Duration {
        self.sent_at.map_or(Duration::ZERO, |at| BRISK_EVERY.saturating_sub(at.elapsed()))
    }

    /// Lets more news come, unless somebody waits for the answer to them.
    async fn gather(&self, within: Duration) {
        tokio::select! {
            () = self.outbox.urgent() => {}
            () = tokio::time::sleep(within) => {}
        }
    }

    /// The last word on every link; the schedulers end the streams when they have read it.
    async fn depart(mut self) {
        let schedulers: Vec<HostId> = self.links.keys().copied().collect();
        for id in schedulers {
            self.send(id, messages::leave_for_good()).await;
        }
        self.links.clear();
    }

    /// Opens links to all schedulers: each is told of what it is responsible for.
    async fn upkeep(&mut self, stop: &CancellationToken) {
        let members = Arc::clone(&self.members.borrow_and_update());
        self.follow(&members).await;
        let gone = self.links.extract_if(|_, link| !link.is_open()).map(|(id, _)| id);
        for leader in gone.collect::<Vec<_>>() {
            match self.delegates.leads(&leader) {
                true => self.leave_delegate(&members, leader).await,
                false => self.release(&members, leader).await,
            }
        }
        if members.schedulers.is_empty() {
            self.outbox.set_state("the cluster: no manager names a scheduler");
        }
        for (host, address) in &members.schedulers {
            if !self.links.contains_key(&host.id) && self.due(host.id) {
                self.open(host.id, *address, stop).await;
            }
        }
        for delegated in self.outbox.take_delegated() {
            Box::pin(self.heed(&members, delegated, stop)).await;
        }
        let is_of_use = |id: &HostId| {
            self.delegates.leads(id) || members.schedulers.iter().any(|(host, _)| host.id == *id)
        };
        self.links.retain(|id, link| {
            let stays = is_of_use(id);
            if !stays {
                link.stop.cancel();
            }
            stays
        });
    }

    /// Other schedulers are listed than before: those that are no more are left, since what is not told to one that
    /// leads nothing would be missed when it leads again; and whoever leads now is told of what another one led.
    async fn follow(&mut self, members: &Arc<Members>) {
        if Arc::ptr_eq(&self.followed, members) {
            return;
        }
        let before = std::mem::replace(&mut self.followed, Arc::clone(members));
        let is_listed = |id: &HostId| members.schedulers.iter().any(|(host, _)| host.id == *id);
        let is_left = |id: &HostId| !is_listed(id) && !self.delegates.leads(id);
        self.links.iter().filter(|(id, _)| is_left(id)).for_each(|(_, link)| link.stop.cancel());
        for registration in self.outbox.registrations() {
            if self.delegates.of(&registration.task.id).is_some() {
                continue;
            }
            let route = route_of(&registration.task.key);
            let led_by = |members: &Members| members.scheduler_for(&route).map(|(id, _)| id);
            let (was, is) = (led_by(&before), led_by(members));
            if let Some(leader) = is.filter(|_| was.is_some() && was != is) {
                // The task may be closing.
                let _ = registration.commands.send(Command::Unled).await;
                self.register_at(leader, &registration).await;
            }
        }
        let ids = |members: &Members| -> BTreeSet<HostId> {
            members.schedulers.iter().map(|(host, _)| host.id).collect()
        };
        if ids(&before) != ids(members) {
            // They share anew what there is to be named.
            for (scheduler, _) in &members.schedulers {
                self.send(scheduler.id, messages::more_to_name()).await;
            }
        }
    }

    /// A scheduler is gone: those whose tasks it led choose for themselves, until they are led again.
    async fn release(&self, members: &Members, scheduler: HostId) {
        for registration in self.outbox.registrations() {
            let responsible = self.leader_of(members, &registration.task);
            if responsible.is_none_or(|id| id == scheduler) {
                // The task may be closing.
                let _ = registration.commands.send(Command::Unled).await;
            }
        }
    }

    fn due(&self, scheduler: HostId) -> bool {
        let next = self.attempts.get(&scheduler).and_then(|attempts| attempts.next);
        next.is_none_or(|next| Instant::now() >= next)
    }

    /// What a link to somebody who leads needs.
    fn parts(&self, id: HostId, leader: Callee, address: SocketAddr) -> LinkParts {
        LinkParts {
            options: Arc::clone(&self.options),
            outbox: Arc::clone(&self.outbox),
            holdings: Arc::clone(&self.holdings),
            members: self.members.clone(),
            scheduler: id,
            address,
            leader,
            delegates: self.delegates.clone(),
            charges: self.charges.clone(),
        }
    }

    async fn open(&mut self, id: HostId, address: SocketAddr, stop: &CancellationToken) {
        let parts = self.parts(id, Callee::Scheduler(id), address);
        match Link::open(parts, &self.tracker, stop.child_token()).await {
            Ok(link) => {
                self.attempts.remove(&id);
                self.outbox.set_state("the scheduler's choice of parents");
                self.links.insert(id, link);
                self.outbox.forget_complaints();
                self.register_again(id).await;
            }
            Err(status) => {
                let attempts = self.attempts.entry(id).or_default();
                attempts.failures = attempts.failures.saturating_add(1);
                let pause = FIRST_PAUSE * 2u32.saturating_pow(attempts.failures.min(8) - 1);
                attempts.next = Some(Instant::now() + pause.min(LONGEST_PAUSE));
                let why = format!("the scheduler at {address}: {}", status.message());
                self.outbox.set_state(why);
            }
        }
    }

    /// A scheduler that is new or was restarted is told of everything under way.
    async fn register_again(&self, scheduler: HostId) {
        let members = Arc::clone(&self.members.borrow());
        for registration in self.outbox.registrations() {
            if self.leader_of(&members, &registration.task) == Some(scheduler) {
                self.register_at(scheduler, &registration).await;
            }
        }
    }

    async fn register_at(&self, scheduler: HostId, registration: &Registration) {
        self.send(scheduler, messages::register(registration)).await;
        if !registration.wants.is_empty() {
            self.send(scheduler, messages::wants(registration)).await;
        }
    }

    async fn send_news(&mut self) {
        let mut news = self.outbox.take();
        if !news.is_empty() {
            self.sent_at = Some(Instant::now());
        }
        let members = Arc::clone(&self.members.borrow());
        self.leave_those_who_do_not_deliver(&members, &mut news).await;
        let responsible = |task: &TaskId, news: &News| -> Option<HostId> {
            let resting = news.rest.as_ref().map(|(registration, _)| registration.clone());
            let registration = self.outbox.registration(task).or(resting)?;
            members.scheduler_for(&route_of(&registration.task.key)).map(|(id, _)| id)
        };
        self.answer_charges(&members).await;
        let mut outgoing: BTreeMap<HostId, Vec<HostMessage>> = BTreeMap::new();
        for (task, news) in &news {
            let everyone: Vec<HostId> = match responsible(task, news) {
                // Who lied and how it ends both are told.
                scheduler if let Some(delegate) = self.delegates.of(task) => {
                    let words = messages::beside_delegate(task, news);
                    if let Some(scheduler) = scheduler {
                        outgoing.entry(scheduler).or_default().extend(words);
                    }
                    vec![delegate]
                }
                Some(id) => vec![id],
                None if news.leave => self.links.keys().copied().collect(),
                None => continue,
            };
            for id in everyone {
                let messages = messages::news(task, news, self.outbox.registration(task));
                outgoing.entry(id).or_default().extend(messages);
            }
        }
        for (id, messages) in outgoing {
            for message in messages {
                self.send(id, message).await;
            }
        }
        let ends = |news: &News| news.rest.is_some() || (news.leave && !news.register);
        for (task, _) in news.iter().filter(|(_, news)| ends(news)) {
            self.delegates.leave(task);
        }
    }

    /// Nothing comes, says a task that a delegate leads: who else gives it the scheduler knows.
    async fn leave_those_who_do_not_deliver(
        &self,
        members: &Members,
        news: &mut BTreeMap<TaskId, News>,
    ) {
        for (task, news) in news.iter_mut().filter(|(_, news)| news.reschedule.is_some()) {
            let registration = self.outbox.registration(task);
            if let Some(registration) = registration.filter(|_| self.delegates.of(task).is_some()) {
                self.come_back(members, &registration).await;
                // They are none of the scheduler's.
                news.leases.clear();
            }
        }
    }

    /// Who leads a task.
    fn leader_of(&self, members: &Members, task: &TaskInfo) -> Option<HostId> {
        let scheduler = || members.scheduler_for(&route_of(&task.key)).map(|(id, _)| id);
        self.delegates.of(&task.id).or_else(scheduler)
    }

    /// Goes to a delegate, or back from one, as it was told.
    async fn heed(&mut self, members: &Members, said: Delegated, stop: &CancellationToken) {
        let Delegated { task, by, to } = said;
        let Some(registration) = self.outbox.registration(&task) else { return };
        let delegate = self.delegates.of(&task);
        let Some((id, addresses)) = to else {
            if delegate.is_some_and(|delegate| delegate == by) {
                return self.come_back(members, &registration).await;
            }
            // Also where it never went. Of a delegate that it has left already it hears too late.
            let left = self.delegates.leave(&task);
            if let Some(delegate) = left {
                self.send(delegate, messages::leave(&task)).await;
            }
            if left.is_some() || self.leader_of(members, &registration.task) == Some(by) {
                self.tell_all(members, &registration, Command::Unled).await;
            }
            return;
        };
        if delegate == Some(id) {
            return;
        }
        let is_there = id != self.options.host.id
            && (self.links.contains_key(&id) || self.reach(id, &addresses, stop).await);
        self.delegates.follow(task, id);
        if !is_there {
            return self.come_back(members, &registration).await;
        }
        self.send(by, messages::went(&task)).await;
        self.tell_all(members, &registration, Command::Delegated).await;
    }

    /// Opens a link to a delegate; whether it is there.
    async fn reach(
        &mut self,
        id: HostId,
        addresses: &[SocketAddr],
        stop: &CancellationToken,
    ) -> bool {
        let now = Instant::now();
        self.not_reached.retain(|_, until| *until > now);
        if self.not_reached.contains_key(&id) {
            return false;
        }
        let deadline = now + REACHED_WITHIN;
        let mut opened = None;
        for (address, rest) in addresses.iter().zip((1..=addresses.len()).rev()) {
            let opening = self.open_to_delegate(id, *address, stop);
            let left = deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(share(left, rest), opening).await {
                Ok(Ok(link)) => opened = Some(link),
                Ok(Err(status)) => {
                    let error = status.message();
                    tracing::info!(%address, error, "a delegate is not reached");
                }
                Err(_) => tracing::info!(%address, "a delegate does not answer"),
            }
            if opened.is_some() {
                break;
            }
        }
        let Some(link) = opened else {
            tracing::info!(delegate = %id, "a delegate does not answer anywhere");
            self.not_reached.insert(id, Instant::now() + NOT_REACHED_FOR);
            return false;
        };
        self.links.insert(id, link);
        true
    }

    async fn open_to_delegate(
        &self,
        id: HostId,
        address: SocketAddr,
        stop: &CancellationToken,
    ) -> Result<Link, tonic::Status> {
        let parts = self.parts(id, Callee::Delegate(id), address);
        Link::open(parts, &self.tracker, stop.child_token()).await
    }

    /// A delegate is gone: the schedulers lead again.
    async fn leave_delegate(&mut self, members: &Members, delegate: HostId) {
        for task in self.delegates.tasks_of(delegate) {
            match self.outbox.registration(&task) {
                Some(registration) => self.come_back(members, &registration).await,
                None => drop(self.delegates.leave(&task)),
            }
        }
    }

    /// The delegate of a task failed this host: its scheduler hears of it, and leads again.
    async fn come_back(&self, members: &Members, registration: &Registration) {
        let task = registration.task.id;
        let Some(delegate) = self.delegates.leave(&task) else { return };
        tracing::info!(task = %task.short(), %delegate, "back from a delegate");
        // It may lead this host in other tasks, and would go on in this one.
        self.send(delegate, messages::leave(&task)).await;
        if let Some(scheduler) = self.leader_of(members, &registration.task) {
            self.send(scheduler, messages::came_back(&task, &delegate)).await;
        }
        self.tell_all(members, registration, Command::Unled).await;
    }

    /// Whoever leads a task now is told all of it: what is held, and what is wanted. `word`: what the task is told.
    async fn tell_all(&self, members: &Members, registration: &Registration, word: Command) {
        // The task may be closing.
        let _ = registration.commands.send(word).await;
        let Some(leader) = self.leader_of(members, &registration.task) else { return };
        let (holdings, task) = (Arc::clone(&self.holdings), registration.task.id);
        let held = self.tracker.spawn_blocking(move || holdings.held(&[task]).pop());
        if let Ok(Some(held)) = held.await {
            self.send(leader, messages::up(Up::Held(held))).await;
        }
        self.register_at(leader, registration).await;
    }

    /// Says whether this host leads where it was asked to, also once it takes the task no more.
    async fn answer_charges(&self, members: &Members) {
        for (task, refusal) in self.outbox.take_leading() {
            if let Some(scheduler) = self.leader_of(members, &task) {
                self.send(scheduler, messages::leading(&task.id, refusal)).await;
            }
        }
    }

    /// A lost message is no loss: on reconnection what is under way is announced again.
    async fn send(&self, scheduler: HostId, message: HostMessage) {
        let Some(link) = self.links.get(&scheduler) else { return };
        let sent = tokio::time::timeout(SEND_WITHIN, link.messages.send(message));
        if !matches!(sent.await, Ok(Ok(()))) {
            link.stop.cancel();
        }
    }
}

/// The time of the next of so many addresses: one that swallows everything leaves the others theirs.
fn share(left: Duration, addresses: usize) -> Duration {
    let equal = left / u32::try_from(addresses).unwrap_or(u32::MAX).max(1);
    equal.max(ADDRESS_WITHIN).min(left)
}

#[cfg(test)]
mod tests {
    use dfs_model::{HostInfo, HostKind, Location, Priority, TaskKey};
    use dfs_proto::scheduler;
    use tonic::transport::{Channel, Endpoint};

    use super::*;
    use crate::engine::Keyring;
    use crate::swarm::Channels;
    use crate::swarm::outbox::tests::task as some_task;

    /// Nobody is there, wherever one looks.
    #[derive(Default)]
    struct Nowhere(parking_lot::Mutex<Vec<SocketAddr>>);

    impl Channels for Nowhere {
        fn channel(&self, address: SocketAddr, _: Callee) -> Channel {
            self.0.lock().push(address);
            // A port that nobody listens at.
            Endpoint::from_static("http://127.0.0.1:1").connect_lazy()
        }
    }

    impl Holdings for Nowhere {
        fn held(&self, _: &[TaskId]) -> Vec<scheduler::Held> {
            Vec::new()
        }

        fn names(&self, _: &dyn Fn(&TaskKey) -> bool) -> Vec<TaskId> {
            Vec::new()
        }
    }

    fn host(number: u8) -> HostInfo {
        HostInfo {
            id: HostId::from_bytes([number; 16]),
            kind: HostKind::Node,
            name: format!("host{number}"),
            location: Location::default(),
            addresses: Vec::new(),
            public_key: [number; 32],
            upload_slots: 0,
        }
    }

    /// Takes part in one task; a scheduler (1) leads it, and a delegate (2) may.
    struct Scene {
        session: Session,
        members: Members,
        task: TaskId,
        heard: [mpsc::Receiver<HostMessage>; 2],
        nowhere: Arc<Nowhere>,
        _commands: mpsc::Receiver<Command>,
    }

    const SCHEDULER: HostId = HostId::from_bytes([1; 16]);
    const DELEGATE: HostId = HostId::from_bytes([2; 16]);

    impl Scene {
        fn new() -> Self {
            let mut members = Members::default();
            members.schedulers = vec![(host(1), ([127, 0, 0, 1], 1).into())];
            let nowhere = Arc::new(Nowhere::default());
            let options = SwarmOptions {
                managers: Vec::new(),
                host: host(9),
                channels: nowhere.clone(),
                keyring: Arc::new(Keyring::default()),
                call_timeout: Duration::from_secs(1),
                kept: None,
                leads_at: Vec::new(),
            };
            let outbox = Arc::new(Outbox::default());
            let watched = watch::channel(Arc::new(members.clone())).1;
            let (charges, _) = mpsc::channel(1);
            let (holdings, tracker) = (nowhere.clone(), TaskTracker::new());
            let mut session =
                Session::new(Arc::new(options), outbox, watched, holdings, charges, tracker);
            let heard = [SCHEDULER, DELEGATE].map(|id| {
                let (messages, heard) = mpsc::channel(100);
                session.links.insert(id, Link { messages, stop: CancellationToken::new() });
                heard
            });
            let (task, (commands, _commands)) = (some_task(), mpsc::channel(100));
            session.outbox.register(task.clone(), Priority::Bulk, commands);
            Self { session, members, task: task.id, heard, nowhere, _commands }
        }

        async fn hears(&mut self, by: HostId, to: Option<(HostId, Vec<SocketAddr>)>) {
            let said = Delegated { task: self.task, by, to };
            self.session.heed(&self.members, said, &CancellationToken::new()).await;
        }

        /// What the scheduler and the delegate have been told since.
        fn told(&mut self) -> [Vec<&'static str>; 2] {
            self.heard.each_mut().map(|heard| {
                let said = std::iter::from_fn(|| heard.try_recv().ok()?.kind);
                let name = |kind| match kind {
                    Up::Register(_) => "register",
                    Up::CameBack(_) => "came back",
                    Up::Want(want) if want.groups.is_empty() => "went",
                    Up::Reschedule(_) => "nothing comes",
                    Up::Leave(_) => "left",
                    Up::Progress(said) if !said.failed.is_empty() => "failed",
                    Up::Leading(said) if !said.leads => "resigns",
                    other => panic!("{other:?}"),
                };
                said.map(name).collect()
            })
        }
    }

    #[tokio::test]
    async fn who_goes_to_a_delegate_says_so_and_who_is_called_back_registers_again() {
        let mut scene = Scene::new();
        let there = Some((DELEGATE, Vec::new()));
        scene.hears(SCHEDULER, there.clone()).await;
        assert_eq!(scene.told(), [vec!["went"], vec!["register"]]);
        scene.hears(SCHEDULER, there).await;
        assert!(scene.told().concat().is_empty(), "it is there");
        scene.hears(SCHEDULER, None).await;
        assert_eq!(scene.told(), [vec!["register"], vec!["left"]]);
        scene.hears(DELEGATE, None).await;
        assert!(scene.told().concat().is_empty(), "it has left it");
        scene.hears(SCHEDULER, None).await;
        assert_eq!(scene.told(), [vec!["register"], vec![]], "it never went");
    }

    #[tokio::test]
    async fn who_cannot_go_where_it_is_handed_comes_back() {
        let mut scene = Scene::new();
        for (number, addresses) in [(3, vec![]), (9, vec![([127, 0, 0, 1], 2).into()])] {
            scene.hears(SCHEDULER, Some((HostId::from_bytes([number; 16]), addresses))).await;
            assert_eq!(scene.told(), [vec!["came back", "register"], vec![]]);
        }
    }

    #[tokio::test]
    async fn who_gets_nothing_from_a_delegate_goes_back_and_a_liar_is_told_of_everywhere() {
        let mut scene = Scene::new();
        scene.session.outbox.take();
        scene.hears(SCHEDULER, Some((DELEGATE, Vec::new()))).await;
        scene.told();
        let groups = dfs_model::GroupRange::new(0, 1);
        let outbox = Arc::clone(&scene.session.outbox);
        outbox.failed(scene.task, groups, DELEGATE, crate::conductor::Failure::BadDigest);
        outbox.lied(scene.task, groups, DELEGATE);
        scene.session.send_news().await;
        assert_eq!(scene.told(), [["failed"]; 2]);
        outbox.failed(scene.task, groups, DELEGATE, crate::conductor::Failure::Timeout);
        scene.session.send_news().await;
        assert_eq!(scene.told(), [vec![], vec!["failed"]], "it is the delegate's to know");
        outbox.reschedule(scene.task, vec![DELEGATE]);
        scene.session.send_news().await;
        let back = [vec!["came back", "register", "nothing comes"], vec!["left"]];
        assert_eq!(scene.told(), back);
    }

    #[tokio::test]
    async fn a_delegate_is_tried_wherever_it_is_and_not_for_each_task_again() {
        let mut scene = Scene::new();
        let all = [1, 2].map(|last| SocketAddr::from(([127, 0, 0, last], 4003)));
        for _ in 0..3 {
            scene.hears(SCHEDULER, Some((HostId::from_bytes([3; 16]), all.to_vec()))).await;
            assert_eq!(scene.told(), [vec!["came back", "register"], vec![]]);
        }
        assert_eq!(*scene.nowhere.0.lock(), all);
    }

    #[tokio::test]
    async fn whoever_leads_no_more_says_so_also_once_it_takes_the_task_no_more() {
        let mut scene = Scene::new();
        let registration = scene.session.outbox.registration(&scene.task).unwrap();
        let outbox = Arc::clone(&scene.session.outbox);
        outbox.rest(scene.task, Vec::new(), &registration.commands);
        outbox.take();
        outbox.leading(registration.task.clone(), Some("its cache is full".to_owned()));
        scene.session.send_news().await;
        assert_eq!(scene.told(), [vec!["resigns"], vec![]]);
    }
}
