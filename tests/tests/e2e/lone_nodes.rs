//! Nodes whose scheduler, manager and registry are gone: what the seed knows of an image, and holds of it, is enough for a
//! node that never asked for it.

use std::fs;

use dfs_tests::Registry;
use dfs_tests::registry::Guard;

use crate::support::images::{Layout, Packing, here};
use crate::support::ledger::Account;
use crate::support::site::Site;
use crate::support::trees::{noise, put};
use crate::support::{Agent, Place, until};

const LENGTH: usize = 2_000_000;

/// A cluster of which the seed knows an image, and one node has read it.
struct Stage {
    site: Site,
    registry: Option<Registry>,
    url: String,
    _first: Agent,
    place: Place,
}

impl Stage {
    fn new() -> Self {
        let place = Place::new();
        let mut layout = Layout::new(place.path("layout"));
        let (base, app) = (place.dir("base"), place.dir("app"));
        put(&base.join("base"), &noise(1, LENGTH));
        put(&app.join("app"), &noise(2, LENGTH));
        layout.layer(&base, Packing::Gzip).layer(&app, Packing::Zstd);
        layout.name(layout.image(here()));
        let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
        registry.push(layout.dir(), "app:v1").unwrap();
        let url = registry.url("app:v1");
        let site = Site::start(&place);
        let first = site.agent(&place, "first");
        is_right(&first, &url, &place, "first-mount");
        Self { site, registry: Some(registry), url, _first: first, place }
    }

    /// A node that knows its cluster, and has asked it for nothing.
    fn node(&self) -> Agent {
        let node = self.site.agent(&self.place, "last");
        let members = node.data().join("members");
        until("the node knows its cluster", || members.exists());
        node
    }

    fn lose_all_but_the_seed(&mut self) {
        self.registry = None;
        self.site.scheduler.kill();
        self.site.manager.kill();
    }

    fn is_right_by_the_seed(&self, node: &Agent) {
        is_right(node, &self.url, &self.place, "last-mount");
        let account = Account::of_mount(node);
        assert!(account.seed + account.peers >= 2 * LENGTH as u64, "{account:?}");
        assert_eq!(account.source, 0, "{account:?}");
    }
}

/// An agent shows the image as it is.
fn is_right(agent: &Agent, url: &str, place: &Place, name: &str) {
    let dir = agent.mount(url, place.path(name));
    assert!(fs::read(dir.join("base")).unwrap() == noise(1, LENGTH));
    assert!(fs::read(dir.join("app")).unwrap() == noise(2, LENGTH));
}

#[test]
fn a_node_that_never_asked_for_an_image_starts_it_by_its_seed_alone() {
    let mut stage = Stage::new();
    let node = stage.node();
    stage.lose_all_but_the_seed();
    stage.is_right_by_the_seed(&node);
}

#[test]
fn so_does_one_that_is_started_when_nobody_else_is_left_and_so_does_the_seed_started_anew() {
    let mut stage = Stage::new();
    stage.site.keep_ports();
    let mut node = stage.node();
    node.kill();
    stage.lose_all_but_the_seed();
    stage.site.seed.kill();
    stage.site.seed.restart().unwrap();
    node.start_again();
    stage.is_right_by_the_seed(&node);
}

#[test]
fn a_scheduler_that_comes_back_after_the_registry_has_gone_says_what_an_image_was() {
    let mut stage = Stage::new();
    stage.site.keep_ports();
    let node = stage.node();
    stage.registry = None;
    stage.site.scheduler.kill();
    stage.site.scheduler.restart().unwrap();
    stage.is_right_by_the_seed(&node);
}

#[test]
fn what_no_seed_was_asked_for_is_one_error() {
    let mut stage = Stage::new();
    let node = stage.node();
    let other = stage.url.replace("app:v1", "app:v2");
    stage.lose_all_but_the_seed();
    let dir = stage.place.dir("refused");
    node.guard(&dir);
    let said = node.dfctl(&["mount", &other, dir.to_str().unwrap()]);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("DFS-") && said.stderr.contains("v2"), "{}", said.stderr);
    assert_eq!(node.shown(&dir), None);
}
