//! Payloads that travel compressed, and peers that know nothing of it.

use std::sync::Arc;

use bytes::Bytes;
use dfs_model::{GROUP_BYTES, GroupRange, HostId, Rate};

use super::rig::*;
use crate::dial::Acceptor;
use crate::limits::SlotLimits;
use crate::wire::frame::Frame;
use crate::wire::*;

const STRANGER: HostId = HostId::from_bytes([0xba; 16]);

/// What a link has to be slower than for the provider's content to be compressed, however busy this machine is.
const SLOW: Rate = Rate(1 << 20);

fn accepting(codecs: u8, first: u64, count: u64) -> PieceRequest {
    PieceRequest { codecs: Codecs(codecs), ..Script::Gives.ask(first, count) }
}

#[tokio::test(start_paused = true)]
async fn over_a_slow_link_fewer_bytes_travel_and_the_same_arrive() {
    let rig = Rig::new();
    rig.rate.set_rate(Some(SLOW));
    let connection = rig.connect().await;
    for nth in 0..4 {
        let request = PieceRequest { codecs: Codecs::ALL, ..Script::Gives.ask(nth * 100, 64) };
        assert_eq!(collect(connection.request(request)).await, Ok(64));
    }
    let (server, child) = (rig.server.numbers(), rig.pool.counters().numbers());
    let content = 4 * 64 * GROUP_BYTES;
    assert_eq!([server.payload_sent, child.payload_received], [content; 2]);
    assert_eq!((server.zstd_groups_sent, server.raw_groups_sent), (256, 0));
    assert_eq!(server.encoded_sent, child.encoded_received);
    assert!(server.encoded_sent < content / 100, "{server:?}");
    // To the byte: whatever else was said.
    eventually("all is read", || {
        rig.server.numbers().wire_sent == rig.pool.counters().numbers().wire_received
    })
    .await;
    assert!(child.wire_received < content / 50, "{child:?}");
    drop(connection);
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_told_not_to_sends_as_it_is() {
    let server = ServerOptions { compression: Compression::Off, ..ServerOptions::default() };
    let rig = Rig::with(server, SlotLimits::default(), PoolOptions::default());
    rig.rate.set_rate(Some(SLOW));
    let connection = rig.connect().await;
    assert_eq!(collect(connection.request(accepting(0xff, 0, 16))).await, Ok(16));
    let server = rig.server.numbers();
    assert_eq!((server.zstd_groups_sent, server.raw_groups_sent), (0, 16));
    assert_eq!(server.encoded_sent, server.payload_sent);
    drop(connection);
    rig.finish().await;
}

/// What a child hears that asks for 16 groups and says that it accepts these encodings.
async fn heard(rig: &Rig, id: u32, codecs: u8) -> Vec<Frame> {
    let mut raw = rig.raw(STRANGER).await;
    raw.say(Frame::Request { id, request: accepting(codecs, 0, 16) }).await;
    let mut frames = Vec::new();
    while let Some(frame) = raw.hear().await {
        let last = matches!(frame, Frame::Data { last: true, .. });
        frames.push(frame);
        if last {
            break;
        }
    }
    frames
}

fn codecs_of(frames: &[Frame]) -> Vec<Option<Codec>> {
    let codec = |frame: &Frame| match frame {
        Frame::Data { segment, .. } => Some(segment.codec),
        _ => None,
    };
    frames.iter().map(codec).collect()
}

#[tokio::test(start_paused = true)]
async fn an_older_child_hears_what_it_always_heard_and_a_later_one_what_both_know() {
    let rig = Rig::new();
    rig.rate.set_rate(Some(SLOW));
    // The version before sends 1; 0 was never sent, and means the same.
    for codecs in [1, 0, 0b1111_1100] {
        let frames = heard(&rig, 3, codecs).await;
        assert_eq!(codecs_of(&frames), [Some(Codec::Raw); 4], "{codecs}");
    }
    assert_eq!(codecs_of(&heard(&rig, 3, 0xff).await), [Some(Codec::Zstd); 4]);
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_child_that_accepts_is_asked_for_a_sign_and_goes_on_without_giving_one() {
    let rig = Rig::new();
    let mut raw = rig.raw(STRANGER).await;
    for id in 0..200 {
        raw.say(Frame::Request { id, request: accepting(0xff, 0, 4) }).await;
        while !matches!(raw.hear().await, Some(Frame::Data { last: true, .. })) {}
    }
    // Nothing is known of its link: it gets the bytes as they are.
    assert_eq!(rig.server.numbers().zstd_groups_sent, 0);
    raw.say(Frame::Pong { id: 4_000_000_000 }).await;
    raw.say(Frame::Ping { id: 7 }).await;
    let mut pings = 0;
    loop {
        match raw.hear().await {
            Some(Frame::Ping { .. }) => pings += 1,
            heard => break assert_eq!(heard, Some(Frame::Pong { id: 7 })),
        }
    }
    assert!(pings <= 1, "all others came before");
    drop(raw);
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_older_parent_that_sends_as_it_always_did_is_understood() {
    let rig = Rig::new();
    let addr = "127.0.0.1:4668".parse().unwrap();
    let older = Arc::new(rig.network.listen(addr));
    rig.tracker.spawn(async move {
        let mut raw = Raw::over(older.accept().await.unwrap().0);
        raw.greet(STRANGER).await;
        while let Some(frame) = raw.hear().await {
            let Frame::Request { id, request } = frame else { continue };
            let PieceRequest { groups, .. } = request;
            let (payload, count) = (content(groups), groups.count as u16);
            let segment = Segment { first: groups.first, count, payload, ..Segment::default() };
            raw.say(Frame::Data { id, segment, last: true }).await;
        }
    });
    let connection = rig.pool.connect(STRANGER, &[addr]).await.unwrap();
    let asked = connection.request(accepting(0xff, 5, 3));
    assert_eq!(collect(asked).await, Ok(3));
    drop(connection);
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_decode_reaches_whoever_verifies_and_is_refused_there() {
    let rig = Rig::new();
    let addr = "127.0.0.1:4669".parse().unwrap();
    let liar = Arc::new(rig.network.listen(addr));
    rig.tracker.spawn(async move {
        let mut raw = Raw::over(liar.accept().await.unwrap().0);
        raw.greet(STRANGER).await;
        while let Some(frame) = raw.hear().await {
            let Frame::Request { id, .. } = frame else { continue };
            let (codec, payload) = (Codec::Zstd, Bytes::from_static(b"no such thing"));
            let segment = Segment { first: 8, count: 2, codec, payload, ..Segment::default() };
            raw.say(Frame::Data { id, segment, last: true }).await;
        }
    });
    let connection = rig.pool.connect(STRANGER, &[addr]).await.unwrap();
    let mut asked = connection.request(accepting(0xff, 8, 2));
    let segment = futures::StreamExt::next(&mut asked).await.unwrap().unwrap();
    assert_eq!(segment.groups(), GroupRange::new(8, 2));
    assert!(matches!(segment.decoded(), Err(DecodeError::Corrupt(_))));
    drop((asked, connection));
    rig.finish().await;
}
