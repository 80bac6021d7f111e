//! Layers that mean harm: what is right of them is shown, or there is one error and nothing is left.

use crate::support::Expected;

use super::*;

/// How many entries the largest layer has; `IMAGE_ENTRIES` says another number.
const ENTRIES: usize = 300_000;

#[test]
fn nothing_of_a_hostile_layer_leads_out_of_its_tree() {
    let scene = Scene::new();
    let outside = scene.place.path("outside");
    fs::write(&outside, b"not in the image").unwrap();
    let outside = outside.to_str().unwrap();
    let base = Tar::of(&[
        Entry::dir("real/"),
        Entry::file("real/kept", b"kept"),
        Entry::symlink("within", "real"),
        Entry::symlink("out", "/"),
        Entry::symlink("up", "../../../.."),
        Entry::symlink("loop-a", "loop-b"),
        Entry::symlink("loop-b", "loop-a"),
    ]);
    let over = Tar::of(&[
        Entry::file("../escaped", b"above"),
        Entry::file("real/../../escaped", b"through the top"),
        Entry::file("/absolute", b"from the root"),
        Entry::hard_link("stolen", outside),
        Entry::hard_link("stolen-by-climbing", "../../../../etc/passwd"),
        Entry::file("loop-a/never", b"never"),
        Entry::file(".wh...", b""),
        Entry::file(".wh..", b""),
        Entry::file("real/.wh...", b""),
        Entry::file("fine", b"fine"),
    ]);
    let layout = scene.image("hostile", &[base, over]);
    let dir = scene.mount(&layout, "hostile");
    assert_eq!(fs::read(dir.join("fine")).unwrap(), b"fine");
    assert_eq!(fs::read(dir.join("absolute")).unwrap(), b"from the root");
    assert_eq!(fs::read(dir.join("real/kept")).unwrap(), b"kept");
    for gone in ["stolen", "stolen-by-climbing", "escaped"] {
        assert!(fs::symlink_metadata(dir.join(gone)).is_err(), "{gone}");
    }
    assert!(!scene.place.path("escaped").exists());
    assert_eq!(fs::read(outside).unwrap(), b"not in the image");
    // What is shown is this and nothing else, whatever an entry was called.
    let shown: Vec<_> =
        entries::walk(&dir).into_keys().filter(|path| path != Path::new("")).collect();
    let expected = [
        "absolute",
        "fine",
        "loop-a",
        "loop-a/never",
        "loop-b",
        "out",
        "real",
        "real/kept",
        "up",
        "within",
    ];
    assert_eq!(shown, expected.map(PathBuf::from));
}

#[test]
fn a_bomb_is_refused_before_it_has_unfolded_and_nothing_is_left() {
    let scene = Scene::new();
    let part = vec![0; 32 << 20];
    // A file that is as long as its header says, of nothing but zeros: streams one behind another are one stream.
    let mut begin = Tar::of(&[Entry::file("zeros", b"")]);
    begin.truncate(512);
    begin[124..135].copy_from_slice(b"37777777777");
    begin[148..156].copy_from_slice(b"        ");
    let sum: u32 = begin.iter().map(|byte| u32::from(*byte)).sum();
    begin[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    for (name, packing) in [("gzip", Packing::Gzip), ("zstd", Packing::Zstd)] {
        let (first, zeros) = (packing.of(&begin), packing.of(&part));
        let bomb = [first, zeros.repeat(255)].concat();
        assert!(bomb.len() < 16 << 20, "{}", bomb.len());
        let mut layout = scene.layout(name);
        layout.tar(&Tar::of(&[Entry::file("below", b"below")]), Packing::Gzip);
        layout.packed(&bomb, packing, &[]);
        layout.name(layout.image(here()));
        scene.registry.push(layout.dir(), &format!("{name}:1")).unwrap();
        let dir = scene.place.dir(&format!("refused-{name}"));
        let url = scene.registry.url(&format!("{name}:1"));
        let said = scene.agent.dfctl(&["mount", &url, dir.to_str().unwrap()]);
        assert_ne!(said.code, 0, "{name}");
        assert!(said.stderr.contains("taken for a bomb"), "{name}: {}", said.stderr);
        assert_eq!(scene.agent.shown(&dir), None, "{name}");
        let listed = scene.agent.dfctl(&["task", "ls", "--format", "json"]).done().json().unwrap();
        let items = listed["items"].as_array().unwrap().iter();
        let stored: u64 = items.filter_map(|item| item["cached_bytes"].as_u64()).sum();
        assert!(stored < 64 << 20, "{name}: {stored} bytes of it are kept");
    }
}

#[test]
fn devices_by_the_thousand_are_shown_and_not_opened() {
    let scene = Scene::new();
    let mut devices: Vec<_> = (0..4_000)
        .map(|number| Entry::char_device(&format!("dev-{number:04}"), (number % 4096, number)))
        .collect();
    devices.push(Entry::file("fine", b"fine"));
    let layout = scene.image("devices", &[Tar::of(&devices)]);
    let dir = scene.compare(&layout, "devices");
    assert!(fs::File::open(dir.join("dev-0001")).is_err(), "no device is opened on a mount");
}

#[test]
fn a_layer_of_very_many_entries_is_indexed() {
    let scene = Scene::new();
    let count = std::env::var("IMAGE_ENTRIES").ok().and_then(|count| count.parse().ok());
    let count = count.unwrap_or(ENTRIES);
    let mut tar = Tar::default();
    for number in 0..count {
        if number % 1000 == 0 {
            tar.add(&Entry::dir(&format!("d{:04}/", number / 1000)));
        }
        tar.add(&Entry::file(&format!("d{:04}/{number:07}", number / 1000), b""));
    }
    let layout = scene.image("many", &[tar.end()]);
    let dir = scene.mount(&layout, "many");
    let last = count - 1;
    assert!(dir.join(format!("d{:04}/{last:07}", last / 1000)).exists());
    let in_one = fs::read_dir(dir.join("d0000")).unwrap().count();
    assert_eq!(in_one, count.min(1000));
}

#[test]
fn layers_that_cannot_be_are_one_error_and_nothing_is_left() {
    let scene = Scene::new();
    let file = Entry::file("file", &[1; 5_000]);
    let mut cut = Tar::of(std::slice::from_ref(&file));
    cut.truncate(512 + 2_000);
    let mut torn = Tar::of(std::slice::from_ref(&file));
    torn[512 + 5_120 + 3] = 1;
    let mut header = Tar::of(std::slice::from_ref(&file));
    header[148] = b'9';
    let noise = crate::support::trees::noise(3, 10_000);
    for (name, tar) in [("cut", cut), ("torn", torn), ("header", header), ("noise", noise)] {
        let layout = scene.image(name, &[Tar::of(&[Entry::file("below", b"below")]), tar]);
        scene.registry.push(layout.dir(), &format!("{name}:1")).unwrap();
        let dir = scene.place.dir(&format!("refused-{name}"));
        let url = scene.registry.url(&format!("{name}:1"));
        let said = scene.agent.dfctl(&["mount", &url, dir.to_str().unwrap()]);
        assert_ne!(said.code, 0, "{name}");
        assert!(said.stderr.contains("layer 2 cannot be indexed"), "{name}: {}", said.stderr);
        assert_eq!(scene.agent.shown(&dir), None, "{name}");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "{name}");
    }
    assert!(!scene.agent.log().contains("panicked"), "{}", scene.agent.log());
}
