//! `fuzz`: libFuzzer over the target that `FUZZ_TARGET` names; its seeds go to `FUZZ_SEEDS` first. `cargo xtask
//! fuzz` builds and starts it.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use dfs_fuzz::{TARGETS, Target};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    Target::named(&name).unwrap_or_else(|| panic!("FUZZ_TARGET is one of {}", names.join(", ")))
});

/// libFuzzer takes files.
fn write_seeds() {
    let dir = std::env::var_os("FUZZ_SEEDS").map(PathBuf::from).expect("FUZZ_SEEDS is a directory");
    for seed in (TARGET.seeds)() {
        let name = blake3::hash(&seed).to_hex();
        std::fs::write(dir.join(name.as_str()), seed).expect("FUZZ_SEEDS can be written to");
    }
}

libfuzzer_sys::fuzz_target!(
    init: write_seeds(),
    |bytes: &[u8]| (TARGET.run)(bytes)
);
