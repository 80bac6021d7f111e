//! The guide tells the truth: every command in it is run, in a small world made for it, and answers as it says.
//!
//! A page is one session of a shell: its `console` blocks, in their order. What a command prints must be what stands
//! below it, but for numbers, names of processes and spaces; a line `…` stands for any lines. `GUIDE_WRITE=1` puts
//! into the pages what was printed instead.

mod page;
mod world;

use std::path::{Path, PathBuf};

use page::Page;
use world::World;

fn follow(name: &str) {
    follow_page(Page::read(&at("docs/guide").join(name)));
}

fn at(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn follow_page(page: Page) {
    let said = World::new().run(&page.commands());
    if std::env::var_os("GUIDE_WRITE").is_some() {
        return page.write(&said);
    }
    page.compare(&said);
}

#[test]
fn getting() {
    follow("get.md");
}

#[test]
fn mounting() {
    follow("mount.md");
}

#[test]
fn images() {
    follow("images.md");
}

#[test]
fn the_image_of_the_readme() {
    follow_page(Page::section(&at("README.md"), "### An image"));
}

#[test]
fn the_mirror() {
    follow("mirror.md");
}

#[test]
fn the_proxy() {
    follow("proxy.md");
}

#[test]
fn keeping_copies() {
    follow("sync.md");
}

#[test]
fn settings() {
    follow("settings.md");
}

#[test]
fn clusters() {
    follow("cluster.md");
}

#[test]
fn troubleshooting() {
    follow("trouble.md");
}

#[test]
fn every_page_is_followed() {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide");
    let mut pages: Vec<_> =
        std::fs::read_dir(pages).unwrap().map(|page| page.unwrap().file_name()).collect();
    pages.sort();
    let followed = [
        "cluster.md",
        "get.md",
        "images.md",
        "mirror.md",
        "mount.md",
        "proxy.md",
        "settings.md",
        "sync.md",
        "trouble.md",
    ];
    // Its settings are those of the containerd that the tests start (support/containerd.rs).
    pages.retain(|page| page != "containerd.md");
    pages.retain(|page| page != "README.md" && page != "install.md");
    assert_eq!(pages, followed);
}
