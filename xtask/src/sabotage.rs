//! Each invariant of the design is broken on purpose, and its test seen to fail.
//!
//! A build of its own, which no release is made from: in it `SABOTAGE` names the invariant to break. Without the
//! variable it is like any other, and all tests are run with it.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use dfs_model::Invariant;

use crate::run::{self, Failure};
use crate::workspace::cargo;

/// What cargo-nextest ends with when a test failed.
const A_TEST_FAILED: i32 = 100;

/// What makes that build.
pub const FEATURE: &[&str] = &["--features", "dfs-model/sabotage"];

/// Where the tests are that must notice.
const GUARDED: &[&str] = &["dfs-model", "dfs-source", "dfs-peer", "dfs-cluster", "dfs-tests"];

/// The test that must notice.
fn guard(invariant: Invariant) -> &'static str {
    match invariant {
        Invariant::NoWrongByte => {
            "a_peer_that_sends_wrong_bytes_is_dropped_and_the_reader_never_notices"
        }
        Invariant::NoHoleIsRead => {
            "a_tree_that_is_shown_by_the_kernel_as_it_comes_is_the_same_entry_by_entry"
        }
        Invariant::VersionsNeverMix => {
            "without_a_strong_etag_every_answer_must_equal_the_pinned_version"
        }
        Invariant::SourcePaysOnce => "however_many_ask_a_group_is_fetched_once",
        Invariant::SwarmIsOptional => {
            "left_alone_a_node_reads_the_origin_itself_and_serves_nobody_from_it"
        }
        Invariant::MemoryIsBounded => "a_consumer_that_stalls_holds_up_nobody_for_ever",
        Invariant::NothingInUseIsTaken => "eviction_takes_the_expired_and_never_what_is_in_use",
        Invariant::DoubtIsResolved => "after_a_power_cut_only_what_still_matches_is_used",
        Invariant::MountsSurvive => {
            "the_next_agent_needs_neither_the_origin_nor_the_credentials_for_what_is_here"
        }
        Invariant::NobodyReadsWhatIsNotTheirs => {
            "what_was_found_with_credentials_is_for_their_owner_only"
        }
        Invariant::WhatIsHereStaysUsable => {
            "with_the_cluster_gone_a_node_reads_on_from_what_it_has_and_then_from_the_origin"
        }
        Invariant::UnitsAreClear => "ambiguous_units_name_both_readings",
    }
}

/// Shows of every invariant that its test can fail.
pub fn run() -> Result<(), Failure> {
    let build = ["build", "--quiet", "--workspace", "--bins"];
    run::run(&mut cargo(&[&build, FEATURE].concat())?)?;
    let guards: BTreeSet<_> = Invariant::ALL.into_iter().map(guard).collect();
    let all: Vec<_> = guards.into_iter().map(only).collect();
    run::run(tests(&all.join(" | "))?.args(["--status-level", "fail"]))?;
    for invariant in Invariant::ALL {
        breaks(invariant)?;
    }
    Ok(())
}

fn breaks(invariant: Invariant) -> Result<(), Failure> {
    let test = guard(invariant);
    let mut command = tests(&only(test))?;
    command.env("SABOTAGE", invariant.name()).stdin(Stdio::null());
    let output = command
        .output()
        .map_err(|error| Failure::Other(format!("cargo could not be started: {error}")))?;
    match output.status.code() {
        Some(A_TEST_FAILED) => {
            println!("{}: broken on purpose, and {test} fails", invariant.name());
            Ok(())
        }
        Some(0) => Err(Failure::Other(format!(
            "{} is broken, and {test} passes all the same: it tests nothing",
            invariant.name()
        ))),
        _ => Err(Failure::Program {
            line: run::line(&command),
            end: format!(
                "ended with {} before its test could fail:\n{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            ),
        }),
    }
}

/// The filter for the test of this name, in whatever module it is.
fn only(test: &str) -> String {
    format!("test(/(^|::){test}$/)")
}

fn tests(filter: &str) -> Result<Command, Failure> {
    let run = ["nextest", "run", "--profile", "sabotage", "-E", filter];
    let of = GUARDED.iter().flat_map(|package| ["--package", package]).collect::<Vec<_>>();
    cargo(&[&run, &of[..], FEATURE].concat())
}
