#[test]
fn a_private_image_that_is_here_is_read_after_a_crash_without_registry_and_login() {
    let place = Place::new();
    let mut layout = Layout::new(place.path("layout"));
    let tree = place.dir("tree");
    put(&tree.join("secret"), &noise(61, 2_000_000));
    put(&tree.join("small"), b"for ada");
    layout.layer(&tree, Packing::Gzip);
    layout.name(layout.image(here()));
    let registry = Registry::start(place.root(), Guard::Password).unwrap();
    registry.push(layout.dir(), "private/app:v1").unwrap();
    let docker = logged_in(&place, LOGIN.0, LOGIN.1, &registry.address());
    let holder = Holder::start(&place, 300);
    let mut agent = holder.agent(&place);
    let dir = place.dir("mount");
    agent.guard(&dir);
    let mut command = agent.node.dfctl_command().unwrap();
    command.args(["mount", &registry.url("private/app:v1")]).arg(&dir);
    dfs_tests::process::Said::by(command.env("DOCKER_CONFIG", docker)).unwrap().done();
    assert!(fs::read(dir.join("secret")).unwrap() == noise(61, 2_000_000));
    assert_eq!(fs::read(dir.join("small")).unwrap(), b"for ada");
    agent.kill();
    drop(registry);
    agent.start_again();
    until("the mount is there", || {
        agent.shown(&dir).is_some_and(|shown| shown["state"] == "complete: works offline")
    });
    assert!(fs::read(dir.join("secret")).unwrap() == noise(61, 2_000_000));
    assert_eq!(fs::read(dir.join("small")).unwrap(), b"for ada");
    assert_eq!(entries::walk(&dir).len(), 3);
}

