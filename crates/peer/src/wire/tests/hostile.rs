//! Peers that break the protocol, on either side.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dfs_model::{GroupRange, HostId};

use super::rig::*;
use crate::dial::{Acceptor, Dialer};
use crate::limits::SlotLimits;
use crate::wire::frame::{Frame, MAGIC, SKIPPABLE};
use crate::wire::*;

const STRANGER: HostId = HostId::from_bytes([0xba; 16]);

#[tokio::test(start_paused = true)]
async fn whoever_does_not_greet_is_closed_and_counted() {
    let rig = Rig::new();
    let mut garbage = Raw::over(rig.network.dial(ADDR).await.unwrap().0);
    garbage.say_bytes(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n").await;
    let mut wrong_magic = Raw::over(rig.network.dial(ADDR).await.unwrap().0);
    wrong_magic.say_header(1, 0, 36, 0).await;
    wrong_magic.say_bytes(&[b'x'; 36]).await;
    let mut request_first = Raw::over(rig.network.dial(ADDR).await.unwrap().0);
    request_first.say(Frame::Request { id: 0, request: Script::Gives.ask(0, 1) }).await;
    let mut silent = Raw::over(rig.network.dial(ADDR).await.unwrap().0);
    for raw in [&mut garbage, &mut wrong_magic, &mut request_first, &mut silent] {
        let heard = raw.hear_to_the_end().await;
        assert!(matches!(heard[..], [Frame::Hello(_)]), "{heard:?}");
    }
    assert_eq!(rig.server.numbers().failed_greetings, 4);
    assert_eq!((rig.opened(), rig.server.numbers().open), (0, 0));
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn children_that_break_the_protocol_are_closed_and_counted() {
    let rig = Rig::new();
    let huge = (2, 0, u32::MAX, 0);
    let unknown = (99, 0, 4, 0);
    let data = (3, 0, 1 << 20, 0);
    let hello_again = (1, 0, 36, 0);
    let ping_with_body = (9, 0, 1, 0);
    let empty_request = (2, 0, 0, 0);
    let frames = [huge, unknown, data, hello_again, ping_with_body, empty_request];
    for (nth, (kind, flags, length, id)) in frames.into_iter().enumerate() {
        let mut raw = rig.raw(STRANGER).await;
        raw.say_header(kind, flags, length, id).await;
        let heard = raw.hear_to_the_end().await;
        assert!(matches!(heard[..], [Frame::Goodbye { .. }]), "{heard:?}");
        assert_eq!(rig.server.numbers().violations, nth as u64 + 1);
    }
    let mut raw = rig.raw(STRANGER).await;
    for _ in 0..2 {
        raw.say(Frame::Request { id: 5, request: Script::Hangs.ask(0, 1) }).await;
    }
    assert!(matches!(raw.hear_to_the_end().await[..], [Frame::Goodbye { .. }]));
    eventually("its answer is dropped", || rig.opened() == rig.ended()).await;
    assert_eq!(collect(rig.connect().await.request(Script::Gives.ask(0, 4))).await, Ok(4));
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn skippable_frames_of_a_later_version_are_skipped() {
    let rig = Rig::new();
    let mut raw = Raw::over(rig.network.dial(ADDR).await.unwrap().0);
    // A later version's hello says more.
    raw.say_header(1, 0, 40, 0).await;
    raw.say_bytes(&[&MAGIC[..], &[9, 0, 0, 0], &[0; 8], &[0xba; 16], b"more"].concat()).await;
    assert!(matches!(raw.hear().await, Some(Frame::Hello(_))));
    raw.say_header(77, SKIPPABLE, 300_000, 0).await;
    raw.say_bytes(&vec![0xff; 300_000]).await;
    raw.say(Frame::Ping { id: 4 }).await;
    assert_eq!(raw.hear().await, Some(Frame::Pong { id: 4 }));
    drop(raw);
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_allowed_are_busy() {
    let rig = Rig::new();
    let mut raw = rig.raw(STRANGER).await;
    for id in 0..65 {
        raw.say(Frame::Request { id, request: Script::Hangs.ask(0, 1) }).await;
    }
    let Some(Frame::Error { id: 64, refusal }) = raw.hear().await else { panic!("not refused") };
    assert_eq!(refusal.code, ErrorCode::Busy);
    for id in 0..64 {
        raw.say(Frame::Cancel { id }).await;
    }
    raw.say(Frame::Request { id: 64, request: Script::Gives.ask(0, 1) }).await;
    assert!(matches!(raw.hear().await, Some(Frame::Data { id: 64, last: true, .. })));
    assert_eq!(rig.server.numbers().cancelled, 64);
    drop(raw);
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_child_that_asks_without_reading_is_held_back() {
    let rig = Rig::new();
    let mut raw = rig.raw(STRANGER).await;
    let mut asked = 0;
    let flood = async {
        while raw.try_say(Frame::Request { id: asked, request: Script::Refuses.ask(0, 1) }).await {
            asked += 1;
        }
    };
    tokio::time::timeout(Duration::from_secs(100), flood).await.expect("it is cut off");
    assert_eq!(rig.server.numbers().stalls, 1);
    let taken = rig.server.numbers().requests;
    // What fits its link and the bounded queues, and no more.
    assert!((100..5000).contains(&taken), "{taken} of {asked}");
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn connections_beyond_the_limit_are_dropped() {
    let server = ServerOptions { connections: 2, ..ServerOptions::default() };
    let rig = Rig::with(server, SlotLimits::default(), PoolOptions::default());
    let kept = [rig.raw(STRANGER).await, rig.raw(STRANGER).await];
    let mut third = Raw::over(rig.network.dial(ADDR).await.unwrap().0);
    assert_eq!(third.hear_to_the_end().await, []);
    drop(kept);
    eventually("room again", || rig.server.numbers().open == 0).await;
    drop(rig.raw(STRANGER).await);
    rig.finish().await;
}

/// A parent that greets properly and then answers the first request with `answer`.
async fn lie(rig: &Rig, answer: impl Fn(u32) -> Vec<Frame> + Send + 'static) -> PieceError {
    let addr = "127.0.0.1:4666".parse().unwrap();
    let liar = Arc::new(rig.network.listen(addr));
    rig.tracker.spawn(async move {
        let mut raw = Raw::over(liar.accept().await.unwrap().0);
        raw.greet(STRANGER).await;
        while let Some(frame) = raw.hear().await {
            let Frame::Request { id, .. } = frame else { continue };
            for frame in answer(id) {
                raw.say(frame).await;
            }
        }
    });
    let connection = rig.pool.connect(STRANGER, &[addr]).await.unwrap();
    let error = collect(connection.request(Script::Gives.ask(8, 2))).await.unwrap_err();
    assert!(!connection.is_usable());
    error
}

fn data(id: u32, first: u64, count: u16) -> Frame {
    let payload = content(GroupRange::new(first, u64::from(count)));
    let segment = Segment { first, count, payload, ..Segment::default() };
    Frame::Data { id, segment, last: false }
}

#[tokio::test(start_paused = true)]
async fn parents_that_break_the_protocol_lose_their_connection() {
    type Lie = fn(u32) -> Vec<Frame>;
    let lies: [(&str, Lie); 6] = [
        ("not asked for", |id| vec![data(id, 0, 2)]),
        ("not asked for", |id| vec![data(id, 9, 2)]),
        ("sent before", |id| vec![data(id, 9, 1), data(id, 9, 1)]),
        ("answer to nothing", |id| vec![data(id + 1, 8, 2)]),
        ("not expected here", |_| vec![Frame::Cancel { id: 0 }]),
        ("nobody asked for", |id| {
            let payload = Bytes::from_static(b"zstd");
            let codec = Codec::Zstd;
            let segment = Segment { first: 8, count: 1, codec, payload, ..Segment::default() };
            vec![Frame::Data { id, segment, last: false }]
        }),
    ];
    for (nth, (expected, lie_with)) in lies.into_iter().enumerate() {
        let rig = Rig::new();
        let PieceError::Disconnected(reason) = lie(&rig, lie_with).await else {
            panic!("lie {nth} went through");
        };
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(rig.pool.counters().numbers().violations, 1);
        rig.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn endless_news_is_not_an_answer() {
    let rig = Rig::new();
    let error = lie(&rig, |id| (0..100).map(|_| data(id, 8, 0)).collect()).await;
    assert!(matches!(error, PieceError::Disconnected(_)), "{error}");
    assert_eq!(rig.pool.counters().numbers().violations, 1);
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_falls_silent_is_noticed() {
    let rig = Rig::new();
    let addr = "127.0.0.1:4667".parse().unwrap();
    let mute = rig.network.listen(addr);
    let accepted = async {
        let mut raw = Raw::over(mute.accept().await.unwrap().0);
        raw.greet(STRANGER).await;
        raw
    };
    let addrs = [addr];
    let (mut raw, connection) = tokio::join!(accepted, rig.pool.connect(STRANGER, &addrs));
    let connection = connection.unwrap();
    let deadline = Duration::from_secs(3600);
    let request = PieceRequest { deadline, ..Script::Gives.ask(0, 1) };
    let answer = collect(connection.request(request)).await;
    assert_eq!(answer, Err(PieceError::Disconnected("the peer fell silent".into())));
    assert_eq!(rig.pool.counters().numbers().stalls, 1);
    let heard = raw.hear_to_the_end().await;
    assert!(heard.contains(&Frame::Ping { id: 0 }), "{heard:?}");
    drop(connection);
    rig.finish().await;
}
