use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use dfs_model::Validator;
use dfs_source::ByteStream;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use proptest::prelude::*;

use super::*;
use crate::chunks::{ChunkDigest, Codec};
use crate::origin::Part;

/// A blob in memory.
struct Blob {
    bytes: Bytes,
    has_ranges: bool,
    requests: AtomicU64,
    given: AtomicU64,
    is_down: AtomicBool,
}

impl Blob {
    fn new(bytes: Vec<u8>, has_ranges: bool) -> Arc<Self> {
        let (requests, given) = (AtomicU64::new(0), AtomicU64::new(0));
        let is_down = AtomicBool::new(false);
        Arc::new(Self { bytes: bytes.into(), has_ranges, requests, given, is_down })
    }
}

fn url() -> CanonicalUrl {
    CanonicalUrl::parse("https://h/blob").unwrap()
}

#[async_trait]
impl Origin for Blob {
    fn length(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }

    fn ranges(&self) -> bool {
        self.has_ranges
    }

    async fn read(&self, range: Option<ByteRange>) -> Result<ByteStream, SourceError> {
        let attempt = Attempt::new(Action::Read(range), &url());
        if self.is_down.load(Ordering::Relaxed) {
            return Err(SourceError::NotFound { attempt });
        }
        if range.is_some() && !self.has_ranges {
            return Err(SourceError::RangeIgnored { attempt });
        }
        let range = range.unwrap_or(ByteRange::new(0, self.bytes.len() as u64));
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.given.fetch_add(range.len(), Ordering::Relaxed);
        let bytes = self.bytes.slice(range.start as usize..range.end as usize);
        let steps = bytes.chunks(7000).map(|step| Ok(bytes.slice_ref(step))).collect::<Vec<_>>();
        Ok(stream::iter(steps).boxed())
    }
}

fn pack(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    match codec {
        Codec::Stored => bytes.to_vec(),
        Codec::Gzip => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(bytes).unwrap();
            gzip.finish().unwrap()
        }
        Codec::Zstd => zstd::encode_all(bytes, 1).unwrap(),
        Codec::Lz4 => lz4_flex::block::compress(bytes),
    }
}

fn content(seed: u8, length: usize) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Few letters: it can be packed.
        b'a' + (state >> 28) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn digest(is_blake3: bool, bytes: &[u8]) -> ChunkDigest {
    let empty = if is_blake3 { ChunkDigest::Blake3([0; 32]) } else { ChunkDigest::Sha256([0; 32]) };
    empty.like(bytes)
}

/// Chunks of one member: how it is packed, their lengths, the zeros in front of each, and what lies before it in the blob.
#[derive(Debug, Clone)]
struct Member {
    codec: Codec,
    lengths: Vec<usize>,
    zeros: u64,
    gap: usize,
    is_blake3: bool,
}

fn member() -> impl Strategy<Value = Member> {
    let codec =
        prop_oneof![Just(Codec::Stored), Just(Codec::Gzip), Just(Codec::Zstd), Just(Codec::Lz4)];
    let lengths = proptest::collection::vec(1usize..60_000, 1..4);
    let zeros = prop_oneof![Just(0u64), 0u64..70_000];
    let gap = prop_oneof![Just(0usize), 0usize..2000, Just(200_000usize)];
    (codec, lengths, zeros, gap, any::<bool>()).prop_map(
        |(codec, mut lengths, zeros, gap, is_blake3)| {
            if codec == Codec::Lz4 {
                lengths.truncate(1);
            }
            Member { codec, lengths, zeros, gap, is_blake3 }
        },
    )
}

/// A space and the blob that its chunks are in.
#[derive(Debug, Default)]
struct Made {
    space: Vec<u8>,
    blob: Vec<u8>,
    chunks: Vec<Chunk>,
}

impl Made {
    fn of(members: &[Member]) -> Self {
        let mut made = Self::default();
        for (seed, member) in (0..).zip(members) {
            made.add(seed, member);
        }
        made
    }

    fn add(&mut self, seed: u8, member: &Member) {
        self.blob.resize(self.blob.len() + member.gap, b'-');
        let bytes = content(seed, member.lengths.iter().sum());
        let packed = pack(member.codec, &bytes);
        let mut skip = 0;
        for &length in &member.lengths {
            self.space.resize(self.space.len() + member.zeros as usize, 0);
            let bytes = &bytes[skip..][..length];
            self.chunks.push(Chunk {
                offset: self.space.len() as u64,
                length: length as u32,
                from: self.blob.len() as u64,
                packed: packed.len() as u32,
                skip: skip as u32,
                codec: member.codec,
                digest: digest(member.is_blake3, bytes),
            });
            self.space.extend(bytes);
            skip += length;
        }
        self.blob.extend(packed);
    }

    fn origin(&self, blob: &Arc<Blob>) -> ChunkedOrigin {
        let (blob_length, length) = (self.blob.len() as u64, self.space.len() as u64);
        let table = ChunkTable::new(Validator::default(), blob_length, length, self.chunks.clone());
        ChunkedOrigin::new(blob.clone(), url(), Arc::new(table.unwrap()))
    }
}

async fn read(origin: &ChunkedOrigin, range: ByteRange) -> Result<Vec<u8>, SourceError> {
    let stream = origin.read(Some(range)).await?;
    stream.try_fold(Vec::new(), async |sum, next| Ok([sum, next.to_vec()].concat())).await
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// All bytes of the space of a table over this blob.
pub(crate) fn space_of(table: ChunkTable, blob: &[u8]) -> Result<Vec<u8>, SourceError> {
    let whole = ByteRange::new(0, table.length());
    let origin = ChunkedOrigin::new(Blob::new(blob.to_vec(), true), url(), Arc::new(table));
    run(read(&origin, whole))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_range_is_what_the_chunks_make(
        members in proptest::collection::vec(member(), 1..8),
        places in proptest::collection::vec((0.0..1.0, 0.0..1.0), 1..5),
        has_ranges: bool,
    ) {
        let made = Made::of(&members);
        let blob = Blob::new(made.blob.clone(), has_ranges);
        let origin = made.origin(&blob);
        let length = made.space.len() as f64;
        run(async {
            for (start, end) in places {
                let (start, end) = ((start * length) as u64, (end * length) as u64);
                let range = ByteRange::new(start.min(end), start.max(end));
                let got = read(&origin, range).await.unwrap();
                assert!(got == made.space[range.start as usize..range.end as usize]);
            }
            let beyond = ByteRange::new(0, u64::MAX);
            assert!(read(&origin, beyond).await.unwrap() == made.space);
        });
    }

    #[test]
    fn an_altered_blob_never_gives_another_byte(
        members in proptest::collection::vec(member(), 1..6),
        at in 0.0..1.0,
        mask in 1u8..,
    ) {
        let made = Made::of(&members);
        let mut altered = made.blob.clone();
        let at = (at * altered.len() as f64) as usize;
        altered[at] ^= mask;
        let blob = Blob::new(altered, true);
        let origin = made.origin(&blob);
        run(async {
            let parts = origin.read_parts(ByteRange::new(0, made.space.len() as u64)).await.unwrap();
            let parts: Vec<Part> = parts.try_collect().await.unwrap();
            let mut place = 0usize;
            for part in parts {
                match part {
                    Part::Bytes(bytes) => {
                        assert!(bytes == made.space[place..][..bytes.len()]);
                        place += bytes.len();
                    }
                    Part::Void { length, error } => {
                        let range = ByteRange::at(place as u64, length);
                        let chunk = made.chunks.iter().find(|chunk| chunk.range() == range);
                        let chunk = chunk.expect("a hole is one chunk");
                        let extent = chunk.extent();
                        let is_hit = extent.start <= at as u64 && (at as u64) < extent.end;
                        assert!(is_hit, "{chunk:?}: {error}");
                        assert!(matches!(error, SourceError::Damaged { .. }), "{error}");
                        place += length as usize;
                    }
                }
            }
            assert_eq!(place, made.space.len());
        });
    }
}

fn plain(codec: Codec, lengths: &[usize], gap: usize) -> Member {
    Member { codec, lengths: lengths.to_vec(), zeros: 0, gap, is_blake3: false }
}

#[test]
fn neighbours_come_with_one_request_and_stay_for_their_other_parts() {
    let members: Vec<_> = (0..20).map(|_| plain(Codec::Zstd, &[50_000], 700)).collect();
    let made = Made::of(&members);
    let blob = Blob::new(made.blob.clone(), true);
    let origin = made.origin(&blob);
    run(async {
        read(&origin, ByteRange::new(100_001, 500_000)).await.unwrap();
        assert_eq!(blob.requests.load(Ordering::Relaxed), 1);
        let given = blob.given.load(Ordering::Relaxed);
        assert!(given <= 8 * (made.blob.len() as u64 / 20 + 1000), "{given}");
        read(&origin, ByteRange::new(100_000, 500_000)).await.unwrap();
        assert_eq!(blob.requests.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_chunk_that_several_want_parts_of_at_a_time_is_fetched_once() {
    let made = Made::of(&[plain(Codec::Gzip, &[900_000], 0)]);
    let blob = Blob::new(made.blob.clone(), true);
    let origin = made.origin(&blob);
    run(async {
        let parts = (0..9).map(|part| read(&origin, ByteRange::at(part * 100_000, 100_000)));
        let parts = futures::future::join_all(parts.collect::<Vec<_>>()).await;
        let all: Vec<u8> = parts.into_iter().flat_map(Result::unwrap).collect();
        assert!(all == made.space);
        assert_eq!(blob.requests.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn members_that_lie_far_apart_are_asked_for_one_by_one() {
    let members = [(); 3].map(|()| plain(Codec::Gzip, &[1000], 500_000));
    let made = Made::of(&members);
    let blob = Blob::new(made.blob.clone(), true);
    let origin = made.origin(&blob);
    run(async {
        assert!(read(&origin, ByteRange::new(0, 3000)).await.unwrap() == made.space);
        assert_eq!(blob.requests.load(Ordering::Relaxed), 3);
        assert!(blob.given.load(Ordering::Relaxed) < 10_000);
    });
}

#[test]
fn what_is_wrong_with_a_chunk_is_told_of_it() {
    let made = Made::of(&[plain(Codec::Stored, &[10, 10], 5)]);
    let mut altered = made.blob.clone();
    altered[17] ^= 1;
    let blob = Blob::new(altered, true);
    let origin = made.origin(&blob);
    run(async {
        assert!(read(&origin, ByteRange::new(0, 10)).await.unwrap() == made.space[..10]);
        let error = read(&origin, ByteRange::new(5, 15)).await.unwrap_err().to_string();
        let expected = "cannot read bytes 5..25 of https://h/blob: the chunk is not the one that the \
            image has there: its digest is sha256:";
        assert!(error.starts_with(expected), "{error}");
        blob.is_down.store(true, Ordering::Relaxed);
        let error = read(&origin, ByteRange::new(10, 15)).await.unwrap_err();
        assert!(matches!(error, SourceError::NotFound { .. }), "{error}");
    });
}

#[test]
fn packed_bytes_that_give_less_or_more_than_a_chunk_are_refused() {
    for codec in [Codec::Gzip, Codec::Zstd, Codec::Lz4] {
        let mut made = Made::of(&[plain(codec, &[5000], 0)]);
        let all = made.space.clone();
        made.chunks[0].length = 5001;
        made.chunks[0].digest = digest(false, &[&all[..], b"x"].concat());
        made.space.push(b'x');
        let origin = made.origin(&Blob::new(made.blob.clone(), true));
        let error = run(read(&origin, ByteRange::new(0, 10))).unwrap_err();
        assert!(error.to_string().ends_with("the chunk that the image has there is cut off"));
        let mut made = Made::of(&[plain(codec, &[5000], 0)]);
        made.chunks[0].packed -= 9;
        let origin = made.origin(&Blob::new(made.blob.clone(), true));
        assert!(run(read(&origin, ByteRange::new(0, 10))).is_err() || codec == Codec::Gzip);
    }
}
