//! The layout, frozen: these bytes never change under the same version.

use std::time::Duration;

use bytes::{Buf, Bytes};
use dfs_model::{GROUP_BYTES, GroupRange, HostId, Priority, TaskId};
use proptest::prelude::*;

use super::*;
use crate::wire::message::{Codec, Codecs, ErrorCode, SealedCredentials};

fn bytes_of(frame: Frame) -> Vec<u8> {
    let mut encoded = encode(frame).unwrap();
    encoded.copy_to_bytes(encoded.remaining()).to_vec()
}

fn read(bytes: &[u8]) -> Result<Frame, FrameError> {
    let (header, body) = bytes.split_first_chunk().ok_or(FrameError::Truncated)?;
    let header = Header::parse(*header);
    let Some(kind) = header.check()? else { return Err(FrameError::Unexpected(header.kind)) };
    let body = body.get(..header.length()).ok_or(FrameError::Truncated)?;
    decode(kind, &header, Bytes::copy_from_slice(body))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn request() -> PieceRequest {
    PieceRequest {
        task: TaskId::from_bytes([0xaa; 32]),
        groups: GroupRange::new(0x0102, 3),
        priority: Priority::ReadAhead,
        codecs: Codecs::RAW,
        want_signed: true,
        fetch: true,
        grant: Bytes::from_static(b"g"),
        credentials: SealedCredentials::default(),
        deadline: Duration::from_millis(1500),
    }
}

#[test]
fn the_layout_is_frozen() {
    let task = TaskId::from_bytes([0xaa; 32]);
    let aa = "aa".repeat(32);
    let hello = Hello {
        version: 1,
        capabilities: 2,
        host: HostId::from_bytes([0xbb; 16]),
        name: "n1".into(),
    };
    let segment = Segment {
        first: 5,
        count: 1,
        length: Some(5 * GROUP_BYTES + 2),
        signed: vec![Bytes::from_static(b"sig")],
        proof: Bytes::from_static(b"pr"),
        codec: Codec::Raw,
        payload: Bytes::from_static(b"xy"),
    };
    let update = HaveUpdate {
        length: Some(9),
        full: false,
        snapshot: true,
        groups: vec![GroupRange::new(1, 2)],
    };
    let bb = "bb".repeat(16);
    let vectors = [
        (
            Frame::Hello(hello),
            format!("010000002600000000000000646673706965636501000200020000000000000 0{bb}6e31"),
        ),
        (
            Frame::Request { id: 7, request: request() },
            format!("020300003500000007000000{aa}020100000000000003000000010101 00dc05000067"),
        ),
        (
            Frame::Data { id: 7, segment, last: true },
            "030300002700000007000000 0500000000000000 0100 00 01 0200050000000000 02000000 02000000 \
             03000000 736967 7072 7879"
                .to_owned(),
        ),
        (
            Frame::Error { id: 8, refusal: Refusal::new(ErrorCode::OriginFailed, "no") },
            "040000000500000008000000 07 0200 6e6f".to_owned(),
        ),
        (Frame::Cancel { id: 8 }, "050000000000000008000000".to_owned()),
        (
            Frame::Watch(WatchRequest { task, grant: Bytes::new() }),
            format!("060000002200000000000000{aa}0000"),
        ),
        (Frame::Unwatch { task }, format!("070000002000000000000000{aa}")),
        (
            Frame::Have { task, update },
            format!(
                "080600003c00000000000000{aa}0900000000000000 01000000 0100000000000000 0200000000000000"
            ),
        ),
        (Frame::Gone { task }, format!("080800002c00000000000000{aa}000000000000000000000000")),
        (Frame::Ping { id: 1 }, "090000000000000001000000".to_owned()),
        (Frame::Pong { id: 1 }, "0a0000000000000001000000".to_owned()),
        (Frame::Goodbye { reason: "bye".into() }, "0b00000005000000000000000300627965".to_owned()),
    ];
    for (frame, expected) in vectors {
        let expected = expected.replace(' ', "");
        let bytes = bytes_of(frame.clone());
        assert_eq!(hex(&bytes), expected, "{frame:?}");
        assert_eq!(read(&bytes), Ok(frame));
    }
}

#[test]
fn credentials_come_last_in_a_request() {
    let credentials = SealedCredentials(Bytes::from_static(b"cr"));
    let plain = bytes_of(Frame::Request { id: 7, request: request() });
    let frame = Frame::Request { id: 7, request: PieceRequest { credentials, ..request() } };
    let bytes = bytes_of(frame.clone());
    assert_eq!(bytes[..5], [0x02, 0x07, 0, 0, plain[4] + 2]);
    assert_eq!(bytes[5..], [&plain[5..], b"cr"].concat());
    assert_eq!(read(&bytes), Ok(frame));
}

#[test]
fn what_is_compressed_says_so_and_is_shorter_than_its_groups() {
    let content = 3 * GROUP_BYTES + 2;
    let payload = Bytes::from_static(b"xyz");
    let (length, codec) = (Some(4 * GROUP_BYTES + 2), Codec::Zstd);
    let segment = Segment { first: 1, count: 4, length, codec, payload, ..Segment::default() };
    assert_eq!(segment.content_bytes(), content);
    let frame = Frame::Data { id: 7, segment: segment.clone(), last: false };
    let bytes = bytes_of(frame.clone());
    assert_eq!(
        hex(&bytes),
        "030200001f00000007000000010000000000000004000100020004000000000000000000030000 0078797a"
            .replace(' ', "")
    );
    assert_eq!(read(&bytes), Ok(frame));
    let bad = [
        // As long as its groups.
        Segment { payload: vec![0; content as usize].into(), ..segment.clone() },
        // No groups to stand for, and more than the content has.
        Segment { count: 0, ..segment.clone() },
        Segment { count: 5, ..segment.clone() },
        Segment { first: 9, ..segment.clone() },
        Segment { count: 17, length: None, ..segment },
    ];
    for segment in bad {
        let frame = Frame::Data { id: 1, segment, last: false };
        assert!(matches!(encode(frame), Err(FrameError::Malformed(_))));
    }
}

#[test]
fn payload_and_proofs_are_passed_on_without_a_copy() {
    let payload = Bytes::from(vec![1; GROUP_BYTES as usize]);
    let segment = Segment { count: 1, payload: payload.clone(), ..Segment::default() };
    let frame = Frame::Data { id: 1, segment, last: false };
    let encoded = encode(frame).unwrap();
    assert_eq!(encoded.chunks.len(), 2);
    assert_eq!(encoded.chunks[1].as_ptr(), payload.as_ptr());
    let carried =
        Carried { content: payload.len(), payload: payload.len(), groups: 1, codec: Codec::Raw };
    assert_eq!(encoded.carried(), carried);
}

#[test]
fn messages_out_of_bounds_are_neither_written_nor_read() {
    let data = |segment| Frame::Data { id: 1, segment, last: false };
    let group = Bytes::from(vec![0; GROUP_BYTES as usize]);
    let bad = [
        Frame::Request {
            id: 1,
            request: PieceRequest { groups: GroupRange::new(0, 257), ..request() },
        },
        Frame::Request {
            id: 1,
            request: PieceRequest { groups: GroupRange::new(0, 0), ..request() },
        },
        Frame::Request {
            id: 1,
            request: PieceRequest { groups: GroupRange::new(u64::MAX, 1), ..request() },
        },
        Frame::Request {
            id: 1,
            request: PieceRequest { grant: Bytes::from(vec![0; MAX_GRANT + 1]), ..request() },
        },
        Frame::Request {
            id: 1,
            request: PieceRequest {
                credentials: SealedCredentials(Bytes::from(vec![0; MAX_CREDENTIALS + 1])),
                ..request()
            },
        },
        data(Segment { count: 2, payload: group.clone(), ..Segment::default() }),
        data(Segment { count: 0, payload: group.clone(), ..Segment::default() }),
        data(Segment {
            first: GROUP_LIMIT,
            count: 1,
            payload: group.clone(),
            ..Segment::default()
        }),
        data(Segment { count: 17, payload: group, ..Segment::default() }),
        data(Segment { proof: Bytes::from(vec![0; MAX_PROOF + 1]), ..Segment::default() }),
        data(Segment { signed: vec![Bytes::new(); 256], ..Segment::default() }),
        data(Segment { signed: vec![Bytes::from(vec![0; MAX_SIGNED + 1])], ..Segment::default() }),
    ];
    for frame in bad {
        assert!(encode(frame.clone()).is_err(), "{frame:?}");
    }
    let mut long = bytes_of(Frame::Request { id: 1, request: request() });
    long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(read(&long), Err(FrameError::TooLong { kind: 2, .. })));
    let mut descending = bytes_of(Frame::Have {
        task: TaskId::from_bytes([1; 32]),
        update: HaveUpdate { groups: vec![GroupRange::new(4, 2)], ..HaveUpdate::default() },
    });
    let run = descending.len() - 16;
    descending[run..].fill(0xff);
    assert!(matches!(read(&descending), Err(FrameError::Malformed(_))));
}

#[test]
fn unknown_frames_are_skippable_only_when_they_say_so() {
    let header = |flags, length| Header { kind: 200, flags, length, id: 0 };
    assert_eq!(header(SKIPPABLE, 10).check(), Ok(None));
    assert_eq!(header(0, 10).check(), Err(FrameError::Unexpected(200)));
    assert!(matches!(header(SKIPPABLE, u32::MAX).check(), Err(FrameError::TooLong { .. })));
}

#[test]
fn texts_are_cut_and_cleaned() {
    let reason = format!("\u{1b}[31m{}", "é".repeat(600));
    let Ok(Frame::Goodbye { reason }) = read(&bytes_of(Frame::Goodbye { reason })) else {
        panic!("not a goodbye");
    };
    assert!(reason.starts_with(" [31mé") && reason.len() <= MAX_TEXT, "{reason}");
}

fn any_request() -> impl Strategy<Value = PieceRequest> {
    (any::<[u8; 32]>(), 0..GROUP_LIMIT - 256, 1u64..=256, 0u8..5, any::<(u8, bool, bool, u32)>())
        .prop_map(|(task, first, count, priority, (codecs, want_signed, fetch, ms))| PieceRequest {
            task: TaskId::from_bytes(task),
            groups: GroupRange::new(first, count),
            priority: Priority::from_wire(priority),
            codecs: Codecs(codecs),
            want_signed,
            fetch,
            grant: Bytes::from(task[..usize::from(codecs) % 32].to_vec()),
            credentials: SealedCredentials(Bytes::from(task[usize::from(codecs) % 33..].to_vec())),
            deadline: Duration::from_millis(u64::from(ms.max(1))),
        })
}

proptest! {
    #[test]
    fn requests_read_back(id: u32, request in any_request()) {
        let frame = Frame::Request { id, request };
        prop_assert_eq!(read(&bytes_of(frame.clone())), Ok(frame));
    }

    #[test]
    fn hostile_bytes_never_panic(
        kind in 0u8..14,
        flags: u8,
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let header = Header { kind, flags, length: body.len() as u32, id: 3 };
        let _ = read(&[&header.to_bytes()[..], &body].concat());
    }

    #[test]
    fn damaged_frames_never_panic(
        request in any_request(),
        at: prop::sample::Index,
        value: u8,
        keep: prop::sample::Index,
    ) {
        let mut bytes = bytes_of(Frame::Request { id: 1, request });
        let at = at.index(bytes.len());
        bytes[at] = value;
        bytes.truncate(keep.index(bytes.len() + 1));
        let _ = read(&bytes);
    }

    #[test]
    fn frames_written_in_steps_read_the_same(
        first in 0u64..1000,
        lengths in prop::collection::vec(0usize..50, 0..4),
        step in 1usize..60,
    ) {
        let signed: Vec<Bytes> = lengths.iter().map(|n| Bytes::from(vec![7; *n])).collect();
        let segment = Segment {
            first,
            count: 1,
            signed,
            payload: Bytes::from_static(b"tail"),
            ..Segment::default()
        };
        let frame = Frame::Data { id: 9, segment, last: false };
        let mut encoded = encode(frame.clone()).unwrap();
        let mut all = Vec::new();
        while encoded.has_remaining() {
            let step = step.min(encoded.remaining());
            let mut slices = [std::io::IoSlice::new(&[]); 8];
            let filled = encoded.chunks_vectored(&mut slices);
            let ahead: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
            prop_assert_eq!(ahead.len(), encoded.remaining());
            all.extend_from_slice(&ahead[..step]);
            encoded.advance(step);
        }
        prop_assert_eq!(read(&all), Ok(frame));
    }
}

#[test]
fn a_frame_of_zstd_by_hand_is_read_and_decoded() {
    // A group of one letter: a window of 64 KiB, and one block that repeats it.
    let payload = Bytes::from_static(b"\x28\xb5\x2f\xfd\0\x30\x03\0\x08a");
    let segment = Segment { first: 5, count: 1, codec: Codec::Zstd, payload, ..Segment::default() };
    let bytes = bytes_of(Frame::Data { id: 1, segment: segment.clone(), last: true });
    assert_eq!(count_frames(&bytes), Ok(1));
    let decoded = segment.decoded().unwrap();
    assert!(decoded.payload == vec![b'a'; GROUP_BYTES as usize]);
}
