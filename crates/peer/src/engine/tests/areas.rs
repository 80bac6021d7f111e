//! A seed of one area takes from that of another, which is nearer to the origin.

use std::sync::atomic::Ordering::Relaxed;

use dfs_model::{GroupRange, HostId, Nearest, rank_areas};

use super::*;

/// An origin that nobody can read.
struct Failing;

#[async_trait]
impl Origin for Failing {
    fn length(&self) -> Option<u64> {
        None
    }

    fn ranges(&self) -> bool {
        true
    }

    async fn read(&self, range: Option<ByteRange>) -> Result<ByteStream, SourceError> {
        Err(forbidden(range.unwrap_or(ByteRange::new(0, 0))))
    }
}

/// Areas, the nearest to the origin first.
fn names() -> [&'static str; 3] {
    rank_areas("origin.test", ["a", "b", "c"]).try_into().unwrap()
}

/// Seeds of these areas, the nearest to the origin first: each is told of all.
fn tell(seeds: &mut [&mut Member]) -> Vec<watch::Sender<Arc<Areas>>> {
    tell_each(seeds, |_| Nearest::new())
}

/// The same, where each has another word of the operator.
fn tell_each(
    seeds: &mut [&mut Member],
    nearest: impl Fn(&str) -> Nearest,
) -> Vec<watch::Sender<Arc<Areas>>> {
    for (seed, name) in seeds.iter_mut().zip(names()) {
        seed.info.location.area = name.to_owned();
    }
    let infos: Vec<HostInfo> = seeds.iter().map(|seed| seed.info.clone()).collect();
    let told = seeds.iter().map(|seed| {
        let (sender, known) = watch::channel(Arc::new(Areas {
            own: seed.info.location.area.clone(),
            seeds: infos.clone(),
            schedulers: infos.iter().map(|info| (info.clone(), info.addresses[0])).collect(),
            nearest: nearest(&seed.info.location.area),
        }));
        seed.engine.take_from_nearer(known);
        sender
    });
    told.collect()
}

async fn open(member: &Member, origin: &Arc<FakeOrigin>) -> Task {
    member.engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_hands_on_what_the_nearest_one_signed_and_the_origin_pays_once() {
    for (announces_length, length) in [(true, 64 * GROUP + 5), (false, 64 * GROUP + 5), (true, 0)] {
        let field = Field::new();
        let mut near = field.honest(Role::Seed, 1, &[]);
        let mut far = field.honest(Role::Seed, 2, &[&near]);
        let _told = tell(&mut [&mut near, &mut far]);
        let mut origin = FakeOrigin::new(length);
        (origin.announces_length, origin.has_ranges) = (announces_length, announces_length);
        let origin = Arc::new(origin);
        open(&near, &origin).await;
        let seed = open(&far, &origin).await;
        // Its children know the keys of all seeds.
        let node = field.honest(Role::Node, 3, &[&near, &far]);
        let task = node.engine.open(&origin.info(), None, None).await.unwrap();
        give_parents(&task, &[&far]).await;
        assert_eq!(read_all(&task).await, origin.content);
        assert_eq!(origin.sent.load(Relaxed), length);
        assert_eq!((seed.ledger().source_bytes, seed.ledger().parent_bytes(None)), (0, length));
        let signers: Vec<HostId> = task
            .stored()
            .signed_for(GroupRange::new(0, 65))
            .iter()
            .map(|signed| signed.batch().signer)
            .collect();
        assert!(signers.iter().all(|signer| *signer == near.info.id), "{signers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_wanted_is_taken() {
    let field = Field::new();
    let mut near = field.honest(Role::Seed, 1, &[]);
    let mut far = field.honest(Role::Seed, 2, &[&near]);
    let _told = tell(&mut [&mut near, &mut far]);
    let origin = Arc::new(FakeOrigin::new(640 * GROUP));
    open(&near, &origin).await;
    let task = open(&far, &origin).await;
    task.ensure(ByteRange::new(100 * GROUP, 102 * GROUP), Priority::Demand).await.unwrap();
    assert_eq!(task.cached_bytes(), 2 * GROUP);
    assert_eq!(origin.sent.load(Relaxed), 2 * GROUP);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_nearer_ones_do_not_know_it_asks_the_origin_for_and_signs() {
    let field = Field::new();
    let mut near = field.honest(Role::Seed, 1, &[]);
    let mut far = field.honest(Role::Seed, 2, &[&near]);
    let mut farther = field.honest(Role::Seed, 3, &[&near]);
    let _told = tell(&mut [&mut near, &mut far, &mut farther]);
    let origin = Arc::new(FakeOrigin::new(40 * GROUP));
    let first = open(&far, &origin).await;
    let second = open(&farther, &origin).await;
    // Patience is long: it is told that the nearest does not have it.
    assert_eq!(read_all(&second).await, origin.content);
    assert_eq!(
        origin.sent.load(Relaxed),
        origin.content.len() as u64,
        "of each other they have it"
    );
    let by_far = |task: &Task| {
        let signed = task.stored().signed_for(GroupRange::new(0, 40));
        signed.iter().all(|signed| signed.batch().signer == far.info.id)
    };
    assert!(by_far(&first) && by_far(&second));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_take_each_other_for_the_nearer_one_do_not_wait_for_each_other() {
    let field = Field::new();
    let mut one = field.honest(Role::Seed, 1, &[]);
    let mut other = field.honest(Role::Seed, 2, &[&one]);
    // The operator has just changed his mind: each has heard of the other's area.
    let [first, second, _] = names();
    let _told = tell_each(&mut [&mut one, &mut other], |own| {
        let nearer = if own == first { second } else { first };
        Nearest::from([("origin.test".to_owned(), nearer.to_owned())])
    });
    let origin = Arc::new(FakeOrigin::new(64 * GROUP));
    let tasks = [open(&one, &origin).await, open(&other, &origin).await];
    let reading = async { tokio::join!(read_all(&tasks[0]), read_all(&tasks[1])) };
    // Patience is longer.
    let read = tokio::time::timeout(Duration::from_secs(20), reading).await;
    let (by_one, by_other) = read.expect("they wait for each other");
    assert!(by_one == origin.content && by_other == origin.content);
    assert_eq!(origin.sent.load(Relaxed), origin.content.len() as u64, "one of them reads it");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_fails_there_is_asked_here() {
    let field = Field::new();
    let mut near = field.honest(Role::Seed, 1, &[]);
    let mut far = field.honest(Role::Seed, 2, &[&near]);
    let _told = tell(&mut [&mut near, &mut far]);
    let info = FakeOrigin::new(40 * GROUP).info();
    near.engine.open(&info, None, Some(Arc::new(Failing))).await.unwrap();
    let origin = Arc::new(FakeOrigin::new(40 * GROUP));
    let task = open(&far, &origin).await;
    let read = task.read(ByteRange::new(0, GROUP), Priority::Demand).await;
    assert!(read.is_ok(), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_gone_is_not_waited_for_again_and_one_that_came_back_is_asked() {
    let field = Field::new();
    let mut near = field.honest(Role::Seed, 1, &[]);
    let mut far = field.honest(Role::Seed, 2, &[&near]);
    let absent = SocketAddr::from(([10, 0, 0, 99], 1));
    near.info.addresses = vec![absent];
    let _told = tell(&mut [&mut near, &mut far]);
    let origin = Arc::new(FakeOrigin::new(40 * GROUP));
    open(&near, &origin).await;
    let task = open(&far, &origin).await;
    let first = ByteRange::new(0, GROUP);
    task.ensure(first, Priority::Demand).await.unwrap();
    assert_eq!(task.ledger().source_bytes, GROUP);
    let nearer = far.engine.nearer().unwrap();
    let now = Instant::now();
    assert_eq!(nearer.seed_for(task.info(), now), None);
    let later = now + Duration::from_secs(31);
    let again = nearer.seed_for(task.info(), later);
    assert_eq!(again.map(|seed| seed.id), Some(near.info.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn for_another_area_it_finds_out_by_itself_what_a_url_is() {
    let field = Field::new();
    let mut near = field.honest(Role::Seed, 1, &[]);
    let mut far = field.honest(Role::Seed, 2, &[&near]);
    let _told = tell(&mut [&mut near, &mut far]);
    let url = FakeOrigin::new(0).info().key.url;
    let now = Instant::now();
    let asked = |member: &Member, by: &str| {
        member.engine.nearer().unwrap().schedulers_for(&url, by, now).len()
    };
    let [nearest, own, _] = names();
    assert_eq!(asked(&far, own), 1);
    assert_eq!(asked(&far, "elsewhere"), 0);
    assert_eq!(asked(&far, nearest), 0, "both would wait for each other");
    assert_eq!(asked(&near, nearest), 0);
    far.engine.nearer().unwrap().doubt(near.info.id, None, now);
    assert_eq!(asked(&far, own), 0);
}
