//! What tasks want the schedulers to know, merged until it is sent.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use dfs_model::TaskInfo;
use dfs_model::{GroupRange, GroupSet, HostId, Priority, TaskId};
use dfs_proto::common::GroupRun;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};

use crate::conductor::{Failure, LeaseEnd};
use crate::engine::{Command, Ledger};

/// Failures reported in one batch of one task.
const MAX_FAILURES: usize = 256;

/// Reads that waited, reported in one batch of one task: beyond these they are not told.
const MAX_BLOCKED: usize = 256;

/// Batches of digests waiting to be sent of one task; the oldest go first, children get them with the bytes.
const MAX_SIGNED: usize = 4096;

/// Words on who leads that wait to be heeded.
const MAX_DELEGATED: usize = 4096;

/// A task that takes part.
#[derive(Clone)]
pub(super) struct Registration {
    pub(super) task: TaskInfo,
    pub(super) priority: Priority,
    pub(super) commands: mpsc::Sender<Command>,
    /// What it wants in any order, and what of that it reads next.
    pub(super) wants: Vec<GroupRun>,
    pub(super) reads_next: Option<GroupRun>,
}

/// What happened in one task since the last batch.
#[derive(Default)]
pub(super) struct News {
    /// How the part in it ended that came before this registration.
    pub(super) earlier_end: Option<PeerEnd>,
    /// What it held before that is gone.
    pub(super) forget: bool,
    pub(super) register: bool,
    /// What it wants in any order has changed.
    pub(super) wants: bool,
    /// It reads on.
    pub(super) reads_on: bool,
    /// Digests that this host has signed.
    pub(super) signed: VecDeque<Bytes>,
    /// What it held that is not here any more; it may have come again since.
    pub(super) lost: GroupSet,
    pub(super) done: BTreeMap<Option<HostId>, Delivered>,
    pub(super) failed: Vec<(GroupRange, HostId, Failure)>,
    /// Whose bytes did not verify, by lease or not: also who does not lead is to hear of it.
    pub(super) lies: Vec<(GroupRange, HostId)>,
    pub(super) leases: Vec<LeaseEnd>,
    /// How long reads waited that found nothing.
    pub(super) blocked: Vec<Duration>,
    pub(super) reschedule: Option<Vec<HostId>>,
    pub(super) end: Option<PeerEnd>,
    /// It is registered no more; what is held all the same.
    pub(super) rest: Option<(Registration, Vec<GroupRun>)>,
    pub(super) leave: bool,
}

/// What one parent, or the source, delivered.
#[derive(Default)]
pub(super) struct Delivered {
    pub(super) groups: GroupSet,
    /// How long the last of it took.
    pub(super) cost: Duration,
}

/// How a peer's part in a task ended.
pub(super) struct PeerEnd {
    /// Why it failed; `None` when it has everything.
    pub(super) reason: Option<String>,
    pub(super) ledger: Ledger,
    /// How long it took, of a download.
    pub(super) took: Option<Duration>,
}

/// Somebody else leads this host in a task from now on.
pub(super) struct Delegated {
    pub(super) task: TaskId,
    /// Who says so.
    pub(super) by: HostId,
    /// Who leads, and where that is; none: the scheduler again.
    pub(super) to: Option<(HostId, Vec<SocketAddr>)>,
}

#[derive(Default)]
struct Inner {
    tasks: HashMap<TaskId, Registration>,
    news: BTreeMap<TaskId, News>,
    state: String,
    /// What was said of who leads, the oldest first.
    delegated: VecDeque<Delegated>,
    /// What this host has answered to who asked it to lead.
    leading: VecDeque<(TaskInfo, Option<String>)>,
    /// The host goes and does not come back.
    departs: bool,
}

impl Inner {
    /// Takes out the registration of the opening whose mailbox this is, not that of a later one.
    fn release(&mut self, task: &TaskId, closed: &mpsc::Sender<Command>) -> Option<Registration> {
        let registered = self.tasks.get(task)?;
        let is_it = registered.commands.same_channel(closed);
        is_it.then(|| self.tasks.remove(task)).flatten()
    }
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Outbox {
    inner: Mutex<Inner>,
    filled: Notify,
    /// Somebody waits for the answer.
    urgent: Notify,
    /// An uplink waits for its next lease.
    brisk: Notify,
    /// Schedulers that are being talked to.
    connected: watch::Sender<usize>,
}

impl Outbox {
    fn tell(&self, task: TaskId, change: impl FnOnce(&mut News)) {
        change(self.inner.lock().news.entry(task).or_default());
        self.filled.notify_one();
    }

    pub(super) fn register(
        &self,
        task: TaskInfo,
        priority: Priority,
        commands: mpsc::Sender<Command>,
    ) {
        let id = task.id;
        let mut inner = self.inner.lock();
        inner.tasks.insert(
            id,
            Registration { task, priority, commands, wants: Vec::new(), reads_next: None },
        );
        let news = inner.news.entry(id).or_default();
        // All of that was before, and a registration begins anew. That what was held is gone is told all the same:
        // otherwise it is held for there, and nobody is led to bring it.
        news.rest = None;
        news.forget |= std::mem::take(&mut news.leave);
        news.earlier_end = news.end.take().or(news.earlier_end.take());
        news.register = true;
        drop(inner);
        self.urgent.notify_one();
    }

    pub(super) fn done(
        &self,
        task: TaskId,
        groups: GroupRange,
        parent: Option<HostId>,
        cost: Duration,
    ) {
        self.tell(task, |news| {
            let delivered = news.done.entry(parent).or_default();
            delivered.groups.insert_range(groups);
            delivered.cost = cost;
        });
    }

    pub(super) fn lost(&self, task: TaskId, groups: GroupRange) {
        self.tell(task, |news| {
            news.lost.insert_range(groups);
            news.done.values_mut().for_each(|delivered| delivered.groups.remove_range(groups));
        });
    }

    pub(super) fn lease_ended(&self, task: TaskId, end: LeaseEnd) {
        self.tell(task, |news| news.leases.push(end));
        self.brisk.notify_one();
    }

    pub(super) fn want(&self, task: TaskId, groups: Vec<GroupRun>) {
        let mut inner = self.inner.lock();
        let Some(registration) = inner.tasks.get_mut(&task) else { return };
        registration.wants = groups;
        inner.news.entry(task).or_default().wants = true;
        drop(inner);
        self.urgent.notify_one();
    }

    pub(super) fn reads_next(&self, task: TaskId, groups: GroupRun) {
        let mut inner = self.inner.lock();
        let Some(registration) = inner.tasks.get_mut(&task) else { return };
        registration.reads_next = Some(groups);
        inner.news.entry(task).or_default().reads_on = true;
        drop(inner);
        self.urgent.notify_one();
    }

    pub(super) fn signed(&self, task: TaskId, batch: Bytes) {
        self.tell(task, |news| {
            if news.signed.len() >= MAX_SIGNED {
                news.signed.pop_front();
            }
            news.signed.push_back(batch);
        });
    }

    pub(super) fn ended(&self, task: TaskId, end: PeerEnd) {
        self.tell(task, |news| news.end = Some(end));
    }

    pub(super) fn failed(&self, task: TaskId, groups: GroupRange, host: HostId, why: Failure) {
        self.tell(task, |news| {
            if news.failed.len() < MAX_FAILURES {
                news.failed.push((groups, host, why));
            }
        });
    }

    pub(super) fn lied(&self, task: TaskId, groups: GroupRange, host: HostId) {
        self.tell(task, |news| {
            if news.lies.len() < MAX_FAILURES {
                news.lies.push((groups, host));
            }
        });
    }

    pub(super) fn blocked(&self, task: TaskId, waited: Duration) {
        self.tell(task, |news| {
            if news.blocked.len() < MAX_BLOCKED {
                news.blocked.push(waited);
            }
        });
    }

    pub(super) fn reschedule(&self, task: TaskId, bad: Vec<HostId>) {
        self.tell(task, |news| news.reschedule.get_or_insert_default().extend(bad));
        self.urgent.notify_one();
    }

    /// What was registered is released: the scheduler is told what is still held, or that nothing is.
    /// Nothing is said of what was opened again since it was `closed`.
    pub(super) fn rest(&self, task: TaskId, held: Vec<GroupRun>, closed: &mpsc::Sender<Command>) {
        let mut inner = self.inner.lock();
        let Some(registration) = inner.release(&task, closed) else { return };
        let news = inner.news.entry(task).or_default();
        match held.is_empty() {
            true => news.leave = true,
            false => news.rest = Some((registration, held)),
        }
        drop(inner);
        self.filled.notify_one();
    }

    /// Nothing is held any more. What was opened again since it was `closed` leaves and registers anew, so that the
    /// scheduler forgets what was held.
    pub(super) fn leave(&self, task: TaskId, closed: Option<&mpsc::Sender<Command>>) {
        let mut inner = self.inner.lock();
        if let Some(closed) = closed {
            inner.release(&task, closed);
        }
        let opened_again =
            inner.tasks.get(&task).map(|registration| !registration.wants.is_empty());
        let news = inner.news.entry(task).or_default();
        if let Some(wants) = opened_again {
            (news.forget, news.register, news.wants) = (true, true, wants);
        } else {
            // What was kept before is gone.
            (news.done, news.leases, news.signed) = Default::default();
            news.leave = true;
        }
        drop(inner);
        self.filled.notify_one();
    }

    /// Waits until there is something to send.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Waits until there is something to send whose answer somebody waits for.
    pub(super) async fn urgent(&self) {
        self.urgent.notified().await;
    }

    /// Waits until there is something to send that somebody waits for by and by.
    pub(super) async fn brisk(&self) {
        self.brisk.notified().await;
    }

    /// Beyond what is kept nothing is taken: whoever is not gone to leads nobody, and says so.
    pub(super) fn delegated(&self, delegated: Delegated) {
        let mut inner = self.inner.lock();
        if inner.delegated.len() < MAX_DELEGATED {
            inner.delegated.push_back(delegated);
        }
        drop(inner);
        self.urgent.notify_one();
    }

    pub(super) fn take_delegated(&self) -> VecDeque<Delegated> {
        std::mem::take(&mut self.inner.lock().delegated)
    }

    /// This host leads others in a task, or does not, for a reason.
    pub(super) fn leading(&self, task: TaskInfo, refusal: Option<String>) {
        self.inner.lock().leading.push_back((task, refusal));
        self.urgent.notify_one();
    }

    pub(super) fn take_leading(&self) -> VecDeque<(TaskInfo, Option<String>)> {
        std::mem::take(&mut self.inner.lock().leading)
    }

    pub(super) fn take(&self) -> BTreeMap<TaskId, News> {
        std::mem::take(&mut self.inner.lock().news)
    }

    /// Drops complaints about parents: they were made while their scheduler was away, and a new one must
    /// not judge its peers by them.
    pub(super) fn forget_complaints(&self) {
        for news in self.inner.lock().news.values_mut() {
            news.failed.clear();
            news.lies.clear();
            news.leases.retain(|end| end.outcome.tells_groups());
            news.reschedule = None;
        }
    }

    pub(super) fn registration(&self, task: &TaskId) -> Option<Registration> {
        self.inner.lock().tasks.get(task).cloned()
    }

    pub(super) fn registrations(&self) -> Vec<Registration> {
        self.inner.lock().tasks.values().cloned().collect()
    }

    pub(super) fn set_state(&self, state: impl Into<String>) {
        self.inner.lock().state = state.into();
    }

    pub(super) fn state(&self) -> String {
        let inner = self.inner.lock();
        if inner.state.is_empty() { "a scheduler".to_owned() } else { inner.state.clone() }
    }

    pub(super) fn connected(&self, change: isize) {
        self.connected
            .send_modify(|connected| *connected = connected.saturating_add_signed(change));
    }

    /// From now on there is nothing to say but that the host goes.
    pub(super) fn depart(&self) {
        self.inner.lock().departs = true;
        self.urgent.notify_one();
    }

    pub(super) fn departs(&self) -> bool {
        self.inner.lock().departs
    }

    pub(super) fn is_connected(&self) -> bool {
        *self.connected.borrow() > 0
    }

    /// Waits until so many schedulers are talked to.
    pub(super) async fn until(&self, so_many: impl Fn(usize) -> bool) {
        // The sender is here: it is not dropped meanwhile.
        let _ = self.connected.subscribe().wait_for(|connected| so_many(*connected)).await;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use dfs_model::{CanonicalUrl, TaskKey, TaskKind, Transform, Validator};
    use dfs_proto::scheduler::host_message::Kind as Up;

    use super::super::messages;
    use super::*;

    pub(in crate::swarm) fn task() -> TaskInfo {
        let key = TaskKey {
            domain: TaskKey::PUBLIC.into(),
            kind: TaskKind::Blob,
            url: CanonicalUrl::parse("http://origin.test/x").unwrap(),
            headers: Vec::new(),
            validator: Validator::default(),
            transform: Transform::Identity,
        };
        TaskInfo::new(key, Some(1 << 20), true)
    }

    fn kinds(outbox: &Outbox) -> Vec<Up> {
        let news = outbox.take();
        let messages = news
            .iter()
            .flat_map(|(task, news)| messages::news(task, news, outbox.registration(task)));
        messages.filter_map(|message| message.kind).collect()
    }

    #[test]
    fn how_long_reads_and_downloads_took_is_told_within_bounds() {
        let outbox = Outbox::default();
        let task = task();
        (0..1000).for_each(|_| outbox.blocked(task.id, Duration::from_micros(1500)));
        let end = |took| PeerEnd { reason: None, ledger: Ledger::default(), took };
        outbox.ended(task.id, end(Some(Duration::from_micros(10))));
        let said = kinds(&outbox);
        let [Up::Progress(progress), Up::Result(result)] = &said[..] else { panic!("{said:?}") };
        assert_eq!(progress.blocked_us, vec![1500; MAX_BLOCKED]);
        assert_eq!(result.cost_ms, 1, "nothing would be that it is not known");
        outbox.ended(task.id, end(None));
        let said = kinds(&outbox);
        let [Up::Result(result)] = &said[..] else { panic!("{said:?}") };
        assert_eq!(result.cost_ms, 0);
    }

    #[test]
    fn a_task_that_rests_wants_no_more_than_it_holds_and_is_registered_no_more() {
        let outbox = Outbox::default();
        let (task, (commands, _mailbox)) = (task(), mpsc::channel(1));
        let held = vec![GroupRun { first: 2, count: 3 }];
        outbox.rest(task.id, held.clone(), &commands);
        assert!(kinds(&outbox).is_empty(), "it was not registered");
        outbox.register(task.clone(), Priority::Bulk, commands.clone());
        outbox.rest(task.id, held.clone(), &commands);
        assert!(outbox.registration(&task.id).is_none());
        let said = kinds(&outbox);
        let Some(Up::Register(register)) = said.last() else { panic!("{said:?}") };
        assert_eq!((&register.wanted, &register.held), (&held, &held));
        outbox.register(task.clone(), Priority::Bulk, commands.clone());
        outbox.rest(task.id, Vec::new(), &commands);
        assert!(matches!(kinds(&outbox).last(), Some(Up::Leave(_))), "it holds nothing");
    }

    #[test]
    fn what_is_opened_again_stays_registered_when_its_earlier_opening_ends() {
        let outbox = Outbox::default();
        let (task, (earlier, _mailbox)) = (task(), mpsc::channel(1));
        let (later, _mailbox) = mpsc::channel(1);
        outbox.register(task.clone(), Priority::Bulk, earlier.clone());
        outbox.register(task.clone(), Priority::Bulk, later.clone());
        kinds(&outbox);
        outbox.rest(task.id, vec![GroupRun { first: 2, count: 3 }], &earlier);
        assert!(kinds(&outbox).is_empty());
        outbox.leave(task.id, Some(&earlier));
        outbox.leave(task.id, None);
        let registration = outbox.registration(&task.id).unwrap();
        assert!(registration.commands.same_channel(&later));
        let said = kinds(&outbox);
        let is_anew = matches!(said[..], [Up::Leave(_), Up::Register(_)]);
        assert!(is_anew, "the scheduler forgets what was held: {said:?}");
        outbox.leave(task.id, Some(&later));
        assert!(matches!(kinds(&outbox).last(), Some(Up::Leave(_))));
    }

    #[test]
    fn a_registration_comes_after_how_the_last_one_ended_and_before_what_it_brings() {
        let (outbox, task, (commands, _mailbox)) = (Outbox::default(), task(), mpsc::channel(1));
        let end = || PeerEnd { reason: None, ledger: Ledger::default(), took: None };
        outbox.ended(task.id, end());
        outbox.leave(task.id, None);
        outbox.register(task.clone(), Priority::Bulk, commands.clone());
        outbox.done(task.id, GroupRange::new(0, 1), None, Duration::ZERO);
        let said = kinds(&outbox);
        let is_anew =
            matches!(said[..], [Up::Result(_), Up::Leave(_), Up::Register(_), Up::Progress(_)]);
        assert!(is_anew, "what was held before it left is forgotten: {said:?}");
        outbox.done(task.id, GroupRange::new(1, 1), None, Duration::ZERO);
        outbox.ended(task.id, end());
        outbox.leave(task.id, Some(&commands));
        assert!(matches!(kinds(&outbox)[..], [Up::Result(_), Up::Leave(_)]), "nothing is kept");
    }

    #[test]
    fn what_is_signed_goes_out_before_the_groups_and_is_bounded() {
        let (outbox, task) = (Outbox::default(), task());
        outbox.done(task.id, GroupRange::new(0, 1), None, Duration::ZERO);
        for at in 0..MAX_SIGNED + 5 {
            outbox.signed(task.id, Bytes::from(at.to_string()));
        }
        let said = kinds(&outbox);
        assert_eq!(said.len(), MAX_SIGNED + 1);
        let newest = Bytes::from((MAX_SIGNED + 4).to_string());
        assert!(matches!(&said[MAX_SIGNED - 1], Up::Digests(signed) if signed.encoded == newest));
        assert!(matches!(said.last(), Some(Up::Progress(_))));
    }
}
