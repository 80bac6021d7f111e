//! Random requests, cancels, stalls and disconnects: every request ends exactly once, every byte is right,
//! memory stays within its bound, and nothing is left behind.

use std::sync::Arc;
use std::time::Duration;

use dfs_model::{ByteSize, GroupSet, Priority};
use futures::{StreamExt, future};
use proptest::prelude::*;
use tokio::sync::Semaphore;

use super::rig::*;
use crate::limits::SlotLimits;
use crate::wire::*;

#[derive(Debug, Clone)]
enum Step {
    Ask {
        script: Script,
        first: u64,
        count: u64,
        priority: u8,
        fetch: bool,
        deadline: u64,
        consumer: Consumer,
    },
    OpenGate(usize),
    Wait(u64),
    Disconnect,
}

#[derive(Debug, Clone, Copy)]
enum Consumer {
    Reads,
    ReadsSlowly,
    /// Drops the stream after so many segments.
    Cancels(usize),
    /// Keeps the stream without reading until its deadline is past.
    Stalls,
}

fn any_step() -> impl Strategy<Value = Step> {
    let consumer = prop_oneof![
        4 => Just(Consumer::Reads),
        1 => Just(Consumer::ReadsSlowly),
        2 => (0usize..4).prop_map(Consumer::Cancels),
        1 => Just(Consumer::Stalls),
    ];
    let ask = (
        prop::sample::select(&Script::ALL[..]),
        (0u64..1000, 1u64..40),
        0u8..5,
        any::<bool>(),
        1u64..5000,
        consumer,
    );
    let ask = ask.prop_map(|(script, (first, count), priority, fetch, deadline, consumer)| {
        Step::Ask { script, first, count, priority, fetch, deadline, consumer }
    });
    prop_oneof![
        12 => ask,
        2 => (1usize..8).prop_map(Step::OpenGate),
        3 => (0u64..500).prop_map(Step::Wait),
        1 => Just(Step::Disconnect),
    ]
}

/// Takes an answer as `consumer` does and checks it; whether it ended by itself.
async fn consume(mut segments: Segments, request: PieceRequest, consumer: Consumer) -> bool {
    if let Consumer::Stalls = consumer {
        tokio::time::sleep(request.deadline + Duration::from_millis(1)).await;
    }
    let mut seen = GroupSet::new();
    let mut taken = 0;
    loop {
        if matches!(consumer, Consumer::Cancels(after) if after == taken) {
            return false;
        }
        if let Consumer::ReadsSlowly = consumer {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        match segments.next().await {
            Some(Ok(segment)) => {
                assert!(segment.payload == content(segment.groups()), "wrong bytes");
                for group in segment.groups().iter() {
                    assert!(request.groups.contains(group) && seen.insert(group));
                }
                taken += 1;
            }
            Some(Err(error)) => {
                assert!(!matches!(error, PieceError::OutOfBounds(_)));
                break;
            }
            None => {
                let half = request.task == Script::GivesHalf.task();
                let expected = if half { request.groups.count / 2 } else { request.groups.count };
                assert_eq!(seen.len(), expected, "ended without an error");
                break;
            }
        }
    }
    for _ in 0..3 {
        assert!(segments.next().await.is_none(), "an answer ends once");
    }
    true
}

async fn play(steps: Vec<Step>) {
    let buffer = ByteSize(24 << 20);
    let connection = ConnectionOptions { buffer, in_flight: 12, ..ConnectionOptions::default() };
    let pool = PoolOptions { connection, buffer, ..PoolOptions::default() };
    let slots = SlotLimits { slots: 2, demand_extra: 1, per_child: 1 };
    let server = ServerOptions { in_flight: 12, ..ServerOptions::default() };
    let rig = Rig::with(server, slots, pool);
    let gate = Arc::new(Semaphore::new(0));
    *rig.played.gate.lock() = Some(Arc::clone(&gate));
    let (mut asked, mut consumers) = (0, Vec::new());
    for step in steps {
        match step {
            Step::Ask { script, first, count, priority, fetch, deadline, consumer } => {
                let request = PieceRequest {
                    priority: Priority::from_wire(priority),
                    fetch,
                    deadline: Duration::from_millis(deadline),
                    ..script.ask(first, count)
                };
                let segments = rig.connect().await.request(request.clone());
                asked += 1;
                consumers.push(rig.tracker.spawn(consume(segments, request, consumer)));
            }
            Step::OpenGate(permits) => gate.add_permits(permits),
            Step::Wait(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            Step::Disconnect => rig.connect().await.close("for the test"),
        }
        // Two lanes, each with room for at least one full request.
        assert!(rig.pool.counters().numbers().buffered <= 40 << 20);
        assert!(rig.slots.used() <= 3);
    }
    let ends = tokio::time::timeout(Duration::from_secs(600), future::join_all(consumers)).await;
    let ends = ends.expect("every request ends");
    assert_eq!(ends.len(), asked);
    assert!(ends.into_iter().all(|end| end.is_ok()), "a consumer found something wrong");
    eventually("the provider is left", || rig.opened() == rig.ended()).await;
    assert_eq!(rig.pool.counters().numbers().violations, 0);
    assert_eq!(rig.server.numbers().violations, 0);
    rig.finish().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_request_ends_exactly_once(steps in prop::collection::vec(any_step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(play(steps));
    }
}
