//! What the documents say is shown by a test is shown by one that there is.

use std::fs;
use std::path::Path;

/// Names of tests in a text: in backticks, a module and what it shows.
fn named(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    let is_name = |part: &str| part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    quoted.filter_map(|quoted| quoted.split_once("::")).filter(move |(module, test)| {
        is_name(module) && is_name(test) && test.contains('_') && !module.is_empty()
    })
}

#[test]
fn every_test_that_is_named_for_a_promise_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("../docs/testing.md")).unwrap();
    let promises = text.split_once("## What a mount promises").unwrap().1;
    let promises = promises.split_once("\n## ").unwrap().0;
    let all: Vec<_> = named(promises).collect();
    assert!(all.len() > 30, "{all:?}");
    for (module, test) in all {
        let source = root.join("tests/e2e").join(module).with_extension("rs");
        let source = fs::read_to_string(&source).unwrap_or_default();
        assert!(source.contains(&format!("\nfn {test}()")), "there is no {module}::{test}");
    }
}
