#[test]
fn a_layer_that_a_seed_has_evicted_is_read_by_ranges_for_its_nodes() {
    let place = Place::new();
    let (registry, layout) = two_layers(&place, Packing::Gzip);
    let config = place.path("cluster.toml");
    fs::write(&config, "[seed]\ncapacity = \"64MiB\"\n").unwrap();
    let config = ["--config", config.to_str().unwrap()];
    let cluster = Cluster::start_with(&binaries(), place.root(), &config).unwrap();
    let agents = ["first", "other", "last"].map(|name| Agent::of(&cluster, &place, name));
    let [first, other, last] = &agents;
    let url = registry.url("team/app:1");
    seen(first, &url, place.path("mount-1"), 0);
    // No node has what the seed is about to lose.
    assert!(first.forget_contents() >= 2);
    let origin = Origin::start().unwrap();
    for number in 0..3 {
        let (name, body) = (format!("/{number}"), Body::noise(number, 40 << 20));
        origin.put(&name, body.clone());
        let said = other.dfctl(&["cat", &origin.url(&name)]).done();
        assert!(said.stdout == body.read(0, 40 << 20).unwrap());
    }
    let digest = layout.layer_digest(1);
    let whole = registry.sent(200, &digest).len();
    assert_eq!((whole, registry.sent(206, &digest).len()), (1, 0), "it was read as a whole once");
    let dir = last.mount(&url, place.path("mount-2"));
    assert!(fs::read(dir.join("app/part-050")).unwrap() == noise(50, FILE_BYTES));
    let parts = registry.sent(206, &digest).iter().sum::<u64>();
    let all = layout.layer_bytes(1);
    assert!((1..all / 3).contains(&parts), "{parts} of {all} bytes");
    read_all(&dir, 0);
    assert_eq!(registry.sent(200, &digest).len(), 1, "and never again");
    assert_eq!(last.metric("dfs_node_source_bytes_total"), 0, "the seed reads it");
}
