//! Random layers over one another. `IMAGES` says how many images, `SEED` which.

use std::collections::BTreeMap;

use super::*;

/// Images of one run.
const IMAGES: u64 = 6;

/// What is at a path, as far as the next layer must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Directory,
    File,
    Other,
}

/// Numbers that follow from a seed.
struct Drawn(u64);

impl Drawn {
    fn below(&mut self, most: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % most
    }
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// A layer over what is there; every directory on the way to an entry is described before it.
fn layer(drawn: &mut Drawn, there: &mut BTreeMap<String, Is>) -> Vec<u8> {
    let lower = there.clone();
    let mut own: BTreeMap<String, Is> = BTreeMap::new();
    let (mut entries, mut marks) = (Vec::new(), Vec::new());
    for _ in 0..3 + drawn.below(12) {
        let mut dir = String::new();
        for _ in 0..drawn.below(3) {
            let path = format!("{dir}{}", NAMES[drawn.below(NAMES.len())]);
            match own.get(&path) {
                None => {
                    entries
                        .push(Entry::dir(&format!("{path}/")).mode(0o700 + drawn.below(64) as u32));
                    own.insert(path.clone(), Is::Directory);
                }
                Some(Is::Directory) => {}
                Some(_) => break,
            }
            dir = format!("{path}/");
        }
        let path = format!("{dir}{}", NAMES[drawn.below(NAMES.len())]);
        let is_free = !own.contains_key(&path);
        let is_entry = |entry: &Is| *entry == Is::File;
        match drawn.below(9) {
            0..=2 if is_free => {
                let content = vec![drawn.below(256) as u8; drawn.below(3000)];
                let owner = drawn.below(5) as u32;
                entries.push(Entry::file(&path, &content).owner(owner, owner));
                own.insert(path, Is::File);
            }
            3 if is_free => {
                entries.push(Entry::symlink(&path, NAMES[drawn.below(NAMES.len())]));
                own.insert(path, Is::Other);
            }
            4 if is_free => {
                entries.push(Entry::fifo(&path));
                own.insert(path, Is::Other);
            }
            5 if is_free => {
                let files: Vec<&String> =
                    own.iter().filter(|(_, is)| is_entry(is)).map(|(path, _)| path).collect();
                if files.is_empty() {
                    continue;
                }
                let target = files[drawn.below(files.len())].clone();
                entries.push(Entry::hard_link(&path, &target));
                own.insert(path, Is::File);
            }
            6 if lower.contains_key(&path) => {
                let name = path.rsplit('/').next().unwrap();
                marks.push(Entry::file(&format!("{dir}.wh.{name}"), b""));
            }
            7 if !dir.is_empty() => marks.push(Entry::file(&format!("{dir}.wh..wh..opq"), b"")),
            _ => {}
        }
    }
    // Above or below: what a layer hides is never its own.
    for mark in marks {
        let least = mark.path.rfind('/').map_or(0, |at| {
            let dir = &mark.path[..=at];
            entries.iter().position(|entry| entry.path == dir).map_or(0, |place| place + 1)
        });
        let place = least + drawn.below(entries.len() - least + 1);
        entries.insert(place, mark);
    }
    there.extend(own);
    Tar::of(&entries)
}

#[test]
fn random_layers_are_as_they_are_unpacked() {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse().ok());
    let seed = number("SEED")
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    let scene = Scene::new();
    for round in 0..number("IMAGES").unwrap_or(IMAGES) {
        let seed = seed.wrapping_add(round);
        println!("SEED={seed} IMAGES=1");
        let mut drawn = Drawn(seed);
        let mut there = BTreeMap::new();
        let layers: Vec<_> =
            (0..2 + drawn.below(3)).map(|_| layer(&mut drawn, &mut there)).collect();
        let layout = scene.image(&format!("random-{round}"), &layers);
        let dir = scene.compare(&layout, &format!("random-{round}"));
        scene.umount(&dir);
    }
}
