//! End to end: the real binaries, real origins, real mounts. Every test reads as a statement.
//!
//! Each test has a place, ports and processes of its own, so that all may run at once; what it broke on purpose
//! it has seen broken, in the origin's counters or the processes' own numbers.

// The helpers of a test may fail it.
#![allow(clippy::unwrap_used)]

mod advice;
mod archives;
mod areas;
mod arms;
mod away;
mod bad_days;
mod bad_mounts;
mod bad_origins;
mod bad_registries;
mod buckets;
mod certificates;
mod changes;
mod clocks;
mod commands;
mod completion;
mod compression;
mod containers;
mod crowd;
mod cut_off;
mod delegates;
mod disks;
mod doctor;
mod evictions;
mod fixtures;
mod follow;
mod footprint;
mod formats;
mod full;
mod guide;
mod hangs;
mod herd;
mod holes;
mod image_commands;
mod images;
mod keeping;
mod kills;
mod lanes;
mod layouts;
mod liars;
mod lone_nodes;
mod media;
mod mirror;
mod model;
mod mounts;
mod origins;
mod outputs;
mod own_source;
mod pins;
mod power;
mod preheat;
mod promises;
mod proxy;
mod push;
mod rafs;
mod reaching;
mod recovery;
mod registry;
mod remembered;
mod roles;
mod runtimes;
mod secrets;
mod semantics;
mod shortage;
mod sieges;
mod small;
mod snapshots;
mod snapshotter;
mod state;
mod suites;
mod support;
mod survival;
mod swarm;
mod sync;
mod sync_adverse;
mod tables;
mod testbed;
mod traces;
mod upgrades;
mod versions;
mod why;
