//! What it takes in memory to index a layer of very many entries, and to lay it over another one.

use dfs_artifact::erofs::{BlockSize, Image, ImageOptions, Space, write_image};
use dfs_artifact::image::{Layer, merge};
use dfs_artifact::tar::{RECORD, ScannedTar, TarScan};
use dfs_artifact::tree::Mtime;

use super::counting;

/// More than any honest image has.
const ENTRIES: u64 = 2_000_000;

/// The header of an empty file, made up when it is wanted; what follows the last one is the end of the tar.
fn record(number: u64) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    if number >= ENTRIES {
        return record;
    }
    let mut write = |at: usize, text: &[u8]| record[at..at + text.len()].copy_from_slice(text);
    write(0, format!("d{:04}/{number:07}", number / 1000).as_bytes());
    write(100, b"0000644\0000000005\0000000005\00000000000000\00000000000000\0        0");
    write(257, b"ustar\x0000");
    let sum: u32 = record.iter().map(|&byte| u32::from(byte)).sum();
    record[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    record
}

#[test]
fn a_layer_of_two_million_entries_is_indexed_and_laid_over_another_in_little_memory() {
    let each = |bytes: usize| bytes as u64 / ENTRIES;
    let length = (ENTRIES + 2) * RECORD as u64;
    let before = counting::start();
    let mut scan = TarScan::new(length);
    while let Some(wanted) = scan.wanted() {
        scan.feed(&record(wanted.start / RECORD as u64)).unwrap();
    }
    let (ScannedTar { tree, .. }, links) = scan.finish_layer().unwrap();
    let written = |tree: &_, spaces: u64| {
        let spaces = (0..spaces).map(|_| Space { length, tag: [0; 64] }).collect();
        let build_time = Mtime::default();
        write_image(tree, &ImageOptions { block_size: BlockSize::B512, build_time, spaces })
            .unwrap()
            .bytes
    };
    let image = Image::open(written(&tree, 1)).unwrap();
    let peak = each(counting::peak() - before);
    assert!(peak <= 450, "{peak} bytes at once for each entry of a layer");
    drop(tree);
    let before = counting::start();
    let layer =
        |first_space| Layer { image: &image, first_space, links: &links, digest: &|_| None };
    let merged = merge(&[layer(0), layer(1)]).unwrap();
    let image = Image::open(written(&merged.tree, 2)).unwrap();
    let peak = each(counting::peak() - before);
    assert!(peak <= 450, "{peak} bytes at once for each entry of an image");
    let files = image.walk().filter(|visit| visit.as_ref().unwrap().path.contains(&b'/'));
    assert_eq!(files.count() as u64, ENTRIES);
}
