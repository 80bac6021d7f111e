//! A short run of every target: what is kept, and what a seed makes of it.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use dfs_fuzz::mutation::{Numbers, mutate};
use dfs_fuzz::{TARGETS, Target};

/// Feeds `target` and says how to keep what broke it.
fn feed(target: &Target, input: &[u8], origin: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        let hash = blake3::hash(input).to_hex();
        let file = std::env::temp_dir().join(format!("{}-{}", target.name, &hash[..16]));
        std::fs::write(&file, input).unwrap();
        panic!(
            "{origin} broke it; mend it, and keep {} in {}",
            file.display(),
            target.corpus_dir().display()
        );
    }
}

/// Feeds what is kept, and `rounds` inputs that are made of it.
fn run(name: &str, rounds: u32) {
    let target = Target::named(name).unwrap();
    let corpus = target.corpus().unwrap();
    assert!(!corpus.is_empty());
    corpus.iter().for_each(|input| feed(target, input, "a file of the corpus"));
    let seed = std::env::var("FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut numbers = Numbers::new(seed);
    for round in 0..rounds {
        let input = mutate(&corpus, &mut numbers);
        feed(target, &input, &format!("round {round} of FUZZ_SEED={seed}"));
    }
}

macro_rules! short_runs {
    ($($test:ident: $name:literal, $rounds:literal;)*) => {
        $(#[test]
        fn $test() {
            run($name, $rounds);
        })*

        #[test]
        fn every_target_has_a_short_run() {
            let here = [$($name),*];
            assert!(TARGETS.iter().map(|target| target.name).eq(here));
        }
    };
}

short_runs! {
    archive: "archive", 1000;
    tar: "tar", 4000;
    unpack: "unpack", 20000;
    index: "index", 10000;
    image: "image", 10000;
    index_page: "index-page", 5000;
    json_listing: "json-listing", 20000;
    object_page: "object-page", 20000;
    frames: "frames", 20000;
    digests: "digests", 20000;
    proof: "proof", 20000;
    members: "members", 20000;
    parts: "parts", 20000;
    chunks: "chunks", 20000;
    checkpoints: "checkpoints", 20000;
    layer: "layer", 20000;
    toc: "toc", 20000;
    rafs: "rafs", 3000;
}
