//! Asking and answering.

use std::sync::Arc;
use std::time::Duration;

use dfs_model::{ByteSize, HostId, Rate};
use futures::{FutureExt, StreamExt, future};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::rig::*;
use crate::limits::SlotLimits;
use crate::wire::frame::Frame;
use crate::wire::*;

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_answered_out_of_order() {
    let rig = Rig::new();
    let gate = Arc::new(Semaphore::new(0));
    *rig.played.gate.lock() = Some(Arc::clone(&gate));
    let connection = rig.connect().await;
    let mut held: Vec<_> = [false, true]
        .into_iter()
        .map(|fetch| collect(connection.request(PieceRequest { fetch, ..Script::Gated.ask(0, 8) })))
        .map(Box::pin)
        .collect();
    let later = (0..20).map(|at| collect(connection.request(Script::Gives.ask(at * 16, 16))));
    assert_eq!(future::join_all(later).await, vec![Ok(16); 20]);
    assert!(held.iter_mut().all(|answer| answer.now_or_never().is_none()));
    gate.add_permits(100);
    assert_eq!(future::join_all(held).await, [Ok(8), Ok(8)]);
    let counted = rig.pool.counters().numbers();
    assert_eq!(counted.payload_received, (20 * 16 + 16) << 16);
    assert_eq!(rig.server.numbers().payload_sent, counted.payload_received);
    assert_eq!(rig.server.numbers().wire_sent, counted.wire_received);
    assert_eq!(rig.network.dials(), 1);
    drop(connection);
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_large_request_comes_whole() {
    let rig = Rig::new();
    let connection = rig.connect().await;
    assert_eq!(collect(connection.request(Script::Gives.ask(1 << 30, 256))).await, Ok(256));
    let too_much = collect(connection.request(Script::Gives.ask(0, 257))).await;
    assert!(matches!(too_much, Err(PieceError::OutOfBounds(_))));
    drop(connection);
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_no_reaches_the_child() {
    let rig = Rig::new();
    let connection = rig.connect().await;
    let code = |answer| match answer {
        Err(PieceError::Refused(refusal)) => refusal.code,
        other => panic!("not refused: {other:?}"),
    };
    let refused = collect(connection.request(Script::Refuses.ask(0, 4))).await;
    assert_eq!(code(refused), ErrorCode::NotHeld);
    let failed = collect(connection.request(Script::FailsHalfway.ask(0, 16))).await;
    assert_eq!(code(failed), ErrorCode::OriginFailed);
    let broken = collect(connection.request(Script::Breaks.ask(0, 4))).await;
    assert_eq!(code(broken), ErrorCode::Internal);
    assert_eq!(collect(connection.request(Script::GivesHalf.ask(0, 16))).await, Ok(8));
    assert_eq!(rig.pool.counters().numbers().refusals, 3);
    assert_eq!(rig.server.numbers().refusals, 3);
    drop(connection);
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn cancelling_stops_the_provider() {
    let rig = Rig::new();
    let connection = rig.connect().await;
    for fetch in [false, true] {
        let cancelled = rig.server.numbers().cancelled;
        let segments = connection.request(PieceRequest { fetch, ..Script::Hangs.ask(0, 4) });
        let opened = rig.opened();
        eventually("the provider is asked", || rig.opened() > opened).await;
        drop(segments);
        eventually("the provider stops", || rig.ended() == rig.opened()).await;
        assert_eq!(rig.server.numbers().cancelled, cancelled + 1);
    }
    assert_eq!(collect(connection.request(Script::Gives.ask(0, 4))).await, Ok(4));
    drop(connection);
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_hanging_answer_meets_its_deadline_and_others_go_on() {
    let rig = Rig::new();
    let connection = rig.connect().await;
    let deadline = Duration::from_secs(3);
    let hanging: Vec<_> = (0..40)
        .map(|_| connection.request(PieceRequest { deadline, ..Script::Hangs.ask(0, 1) }))
        .map(collect)
        .collect();
    assert_eq!(collect(connection.request(Script::Gives.ask(0, 16))).await, Ok(16));
    for answer in future::join_all(hanging).await {
        let late = match &answer {
            Err(PieceError::Deadline) => true,
            Err(PieceError::Refused(refusal)) => refusal.code == ErrorCode::Deadline,
            _ => false,
        };
        assert!(late, "{answer:?}");
    }
    eventually("the provider stops", || rig.ended() == rig.opened()).await;
    drop(connection);
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn however_many_wait_for_an_origin_what_is_here_is_served_meanwhile() {
    let rig = Rig::new();
    let in_flight = u32::try_from(ServerOptions::default().in_flight).unwrap();
    let deadline = Duration::from_secs(60);
    let hangs = PieceRequest { fetch: true, deadline, ..Script::Hangs.ask(0, 16) };
    let mut waiting = Vec::new();
    for child in 1..=20 {
        let mut raw = rig.raw(HostId::from_bytes([child; 16])).await;
        for id in 0..in_flight {
            raw.say(Frame::Request { id, request: hangs.clone() }).await;
        }
        waiting.push(raw);
    }
    let hanging = waiting.len() * ServerOptions::default().in_flight;
    eventually("all of them wait", || rig.opened() == hanging).await;
    let connection = rig.connect().await;
    let here = PieceRequest { fetch: true, ..Script::Gives.ask(0, 64) };
    let begun = Instant::now();
    assert_eq!(collect(connection.request(here)).await, Ok(64));
    // Virtual time: it did not have to wait for one of the others to meet its deadline.
    assert!(begun.elapsed() < deadline);
    assert_eq!(rig.ended(), 1, "the others wait still");
    drop((waiting, connection));
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_stalls_holds_up_nobody_for_ever() {
    let connection = ConnectionOptions { buffer: ByteSize(1), ..ConnectionOptions::default() };
    let pool = PoolOptions { connection, ..PoolOptions::default() };
    let rig = Rig::with(ServerOptions::default(), SlotLimits::default(), pool);
    let connection = rig.connect().await;
    let deadline = Duration::from_secs(20);
    let mut stalled = connection.request(PieceRequest { deadline, ..Script::Gives.ask(0, 256) });
    let buffered = || rig.pool.counters().numbers().buffered;
    eventually("all of it waits for its consumer", || buffered() == 256 << 16).await;
    // The room for bulk is taken; demand reads have their own, the rest waits for the deadline.
    let mut next = Box::pin(collect(connection.request(Script::Gives.ask(0, 64))));
    assert_eq!(collect(connection.request(urgent(Script::Gives.ask(0, 64)))).await, Ok(64));
    assert!(next.as_mut().now_or_never().is_none());
    assert_eq!(next.await, Ok(64));
    assert_eq!(stalled.next().await, Some(Err(PieceError::Deadline)));
    assert!(stalled.next().await.is_none());
    assert_eq!(buffered(), 0);
    drop((stalled, connection));
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_makes_room_before_the_answer_ends() {
    let connection = ConnectionOptions { buffer: ByteSize(1), ..ConnectionOptions::default() };
    let pool = PoolOptions { connection, ..PoolOptions::default() };
    let rig = Rig::with(ServerOptions::default(), SlotLimits::default(), pool);
    let gate = Arc::new(Semaphore::new(32));
    *rig.played.gate.lock() = Some(Arc::clone(&gate));
    let connection = rig.connect().await;
    let mut half = connection.request(Script::Gated.ask(0, 256));
    for _ in 0..32 {
        assert_eq!(half.next().await.unwrap().unwrap().count, 4);
    }
    let deadline = Duration::from_secs(5);
    let next = PieceRequest { deadline, ..Script::Gives.ask(0, 64) };
    assert_eq!(collect(connection.request(next)).await, Ok(64));
    gate.add_permits(32);
    assert_eq!(collect(half).await, Ok(128));
    drop(connection);
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_fails_what_is_open() {
    let rig = Rig::new();
    let connection = rig.connect().await;
    let open: Vec<_> =
        (0..5).map(|_| collect(connection.request(Script::Hangs.ask(0, 4)))).collect();
    eventually("all are asked", || rig.opened() == 5).await;
    connection.close("pulled the plug");
    for answer in future::join_all(open).await {
        assert_eq!(answer, Err(PieceError::Disconnected("pulled the plug".into())));
    }
    eventually("the provider stops", || rig.ended() == 5).await;
    let late = collect(connection.request(Script::Gives.ask(0, 4))).await;
    assert!(matches!(late, Err(PieceError::Disconnected(_))));
    drop(connection);
    assert_eq!(collect(rig.connect().await.request(Script::Gives.ask(0, 4))).await, Ok(4));
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_read_costs_little_and_delays_nobody() {
    let slots = SlotLimits { slots: 1, demand_extra: 0, per_child: 2 };
    let rig = Rig::with(ServerOptions::default(), slots, PoolOptions::default());
    let mut deaf = rig.raw(HostId::from_bytes([0xdf; 16])).await;
    for id in 0..60 {
        deaf.say(Frame::Request { id, request: Script::Gives.ask(0, 256) }).await;
    }
    eventually("its requests are open", || rig.opened() == 60 || rig.slots.waiting() > 0).await;
    let connection = rig.connect().await;
    let soon = Duration::from_secs(10);
    let ask = |at| PieceRequest { deadline: soon, ..Script::Gives.ask(at, 16) };
    let answers = (0..10).map(|at| collect(connection.request(ask(at))));
    assert_eq!(future::join_all(answers).await, vec![Ok(16); 10]);
    assert_eq!(rig.server.numbers().stalls, 0, "the deaf child is still there");
    // Its own share at most: two segments of four groups, besides those the other child had.
    let yielded = rig.played.yielded.load(std::sync::atomic::Ordering::Relaxed);
    assert!(yielded <= (160 + 3 * 4) << 16, "{yielded}");
    eventually("it is given up", || rig.server.numbers().stalls == 1).await;
    eventually("its answers end", || rig.ended() == rig.opened()).await;
    drop((deaf, connection));
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn demand_overtakes_bulk() {
    let slots = SlotLimits { slots: 1, demand_extra: 1, per_child: 1 };
    let rig = Rig::with(ServerOptions::default(), slots, PoolOptions::default());
    let connection = rig.connect().await;
    let bulk: Vec<_> = (0..30).map(|at| connection.request(Script::Gives.ask(at, 64))).collect();
    let sent = || rig.server.numbers().payload_sent;
    eventually("bulk is flowing", || sent() > 1 << 20).await;
    assert_eq!(collect(connection.request(urgent(Script::Gives.ask(0, 1)))).await, Ok(1));
    assert!(sent() < (30 * 64) << 16, "bulk was not finished: {}", sent());
    let answers = future::join_all(bulk.into_iter().map(collect)).await;
    assert_eq!(answers, vec![Ok(64); 30]);
    drop(connection);
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_rate_holds_where_bytes_leave() {
    let rig = Rig::new();
    rig.rate.set_rate(Some(Rate(1 << 20)));
    let connection = rig.connect().await;
    let start = Instant::now();
    let deadline = Duration::from_secs(60);
    let request = || PieceRequest { deadline, ..Script::Gives.ask(0, 64) };
    let answers = [collect(connection.request(request())), collect(connection.request(request()))];
    assert_eq!(future::join_all(answers).await, [Ok(64), Ok(64)]);
    // Virtual time: 8 MiB at 1 MiB/s, less one burst.
    assert!(start.elapsed() >= Duration::from_millis(7900), "{:?}", start.elapsed());
    drop(connection);
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_stopping_server_ends_what_is_in_flight_and_takes_nothing_new() {
    let rig = Rig::new();
    let gate = Arc::new(Semaphore::new(0));
    *rig.played.gate.lock() = Some(Arc::clone(&gate));
    let connection = rig.connect().await;
    let in_flight = collect(connection.request(Script::Gated.ask(0, 8)));
    eventually("it is asked", || rig.opened() == 1).await;
    rig.stop_server.cancel();
    eventually("the goodbye arrives", || !connection.is_usable()).await;
    let late = collect(connection.request(Script::Gives.ask(0, 1))).await;
    assert!(matches!(late, Err(PieceError::Disconnected(_))));
    gate.add_permits(10);
    assert_eq!(in_flight.await, Ok(8));
    assert!(connection.closed().await.contains("shutting down"));
    drop(connection);
    rig.finish().await;
}
