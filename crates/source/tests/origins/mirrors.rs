//! Mirrors of registries, as `registries.conf` names them: some have it, some not, some lie, and some break off.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dfs_source::oci::{ContentDigest, Extent, Passed, Reference, Sought, digest_of, validator};
use dfs_source::{Credentials, OciOptions, SourceError, Sources};
use reqwest::header::HeaderMap;
use tempfile::TempDir;

use crate::scripted::{Request, Server, Step, file, head, status};
use crate::{Client, content, failure, options, target};

const DOCUMENT: &[u8] = br#"{"schemaVersion":2}"#;

/// A client of a registry with these mirrors, by what stands in `registries.conf` for each.
struct Stage {
    client: Client,
    registry: Server,
    _dir: TempDir,
}

impl Stage {
    fn new(registry: Server, mirrors: &[(&Server, &str)]) -> Self {
        let mut conf = format!("[[registry]]\nlocation = \"{}\"\n", registry.address);
        for (mirror, more) in mirrors {
            let at = mirror.address;
            conf += &format!("[[registry.mirror]]\nlocation = \"{at}/mirrored\"\n{more}\n");
        }
        Self::told(registry, &conf)
    }

    fn told(registry: Server, conf: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registries.conf");
        std::fs::write(&path, conf).unwrap();
        let oci = OciOptions { registries_conf: Some(path), ..OciOptions::default() };
        let sources = Sources::builder().http(options()).oci(oci).build().unwrap();
        Self { client: Client::over(sources), registry, _dir: dir }
    }

    fn at(&self, reference: &str) -> String {
        format!("oci://{}/{reference}", self.registry.address)
    }

    /// The bytes from 10 to 20 of a blob, which nobody here can hold against its digest.
    async fn part(&self, repository: &str, bytes: &[u8]) -> Result<Vec<u8>, SourceError> {
        let digest = ContentDigest::sha256(bytes);
        let pin = validator(&digest, Some(bytes.len() as u64));
        let named = self.at(&format!("{repository}?blob={digest}"));
        self.client.read(&named, Some((10, 20)), &pin).await
    }

    async fn blob(&self, bytes: &[u8]) -> Result<Vec<u8>, SourceError> {
        let digest = ContentDigest::sha256(bytes);
        let pin = validator(&digest, Some(bytes.len() as u64));
        self.client.read(&self.at(&format!("team/app?blob={digest}")), None, &pin).await
    }
}

/// Has this blob, and one manifest by any name.
fn having(bytes: &[u8]) -> Server {
    let bytes = bytes.to_vec();
    Server::start(move |_, request| match request.path.contains("/blobs/") {
        true => file(&bytes, "\"x\"", request),
        false => document(request),
    })
}

fn document(request: &Request) -> Vec<Step> {
    let (length, digest) =
        (DOCUMENT.len().to_string(), ContentDigest::sha256(DOCUMENT).to_string());
    let headers = [("Content-Length", &length[..]), ("Docker-Content-Digest", &digest[..])];
    let body = if request.method == "HEAD" { Vec::new() } else { DOCUMENT.to_vec() };
    vec![head(200, &headers), Step::Send(body)]
}

fn failing(code: u16) -> Server {
    Server::start(move |_, _| status(code))
}

#[tokio::test]
async fn what_a_mirror_has_the_registry_is_not_asked_for() {
    let bytes = content(300_000);
    let (mirror, registry) = (having(&bytes), having(&bytes));
    let stage = Stage::new(registry, &[(&mirror, "")]);
    let stat = stage.client.stat(&stage.at("team/app:v1")).await.unwrap();
    assert_eq!(digest_of(&stat.validator), Some(ContentDigest::sha256(DOCUMENT)));
    assert_eq!(stat.url.as_str(), stage.at("team/app:v1"), "it is still the registry's");
    let read = stage.client.read(&stage.at("team/app:v1"), None, &stat.validator).await.unwrap();
    assert_eq!(read, DOCUMENT);
    assert_eq!(stage.blob(&bytes).await.unwrap(), bytes);
    let digest = ContentDigest::sha256(&bytes);
    let url = stage.at(&format!("team/app?blob={digest}"));
    let pin = validator(&digest, Some(300_000));
    let part = stage.client.read(&url, Some((1000, 2000)), &pin).await.unwrap();
    assert_eq!(part, bytes[1000..2000]);
    assert_eq!(stage.registry.requests().len(), 0);
    let asked = mirror.requests();
    assert!(
        asked.iter().all(|asked| asked.path.starts_with("/v2/mirrored/team/app/")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn mirrors_that_lack_it_or_fail_are_passed_over_and_the_dead_left_alone() {
    let bytes = content(100_000);
    let (lacks, fails, refuses, has) = (failing(404), failing(503), failing(403), having(&bytes));
    let mirrors = [(&lacks, ""), (&fails, ""), (&refuses, ""), (&has, "")];
    let stage = Stage::new(failing(500), &mirrors);
    for _ in 0..3 {
        assert_eq!(stage.blob(&bytes).await.unwrap(), bytes);
    }
    assert_eq!(stage.registry.requests().len(), 0);
    assert_eq!(lacks.requests().len(), 1, "it was asked for it a moment ago");
    assert_eq!(fails.requests().len(), 1);
    // Nobody has it but the registry.
    let stage = Stage::new(having(&bytes), &[(&lacks, ""), (&fails, "")]);
    assert_eq!(stage.blob(&bytes).await.unwrap(), bytes);
    stage.client.stat(&stage.at("team/app:v1")).await.unwrap();
    // Nobody has it at all: that is the registry's word.
    let stage = Stage::new(failing(404), &[(&lacks, "")]);
    let error = failure(stage.client.stat(&stage.at("team/app:v1")).await);
    assert!(matches!(error, SourceError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn what_a_mirror_gives_is_what_its_digest_says_or_it_is_asked_no_more() {
    let bytes = content(200_000);
    let mut other = bytes.clone();
    other[1234] ^= 1;
    let lies = having(&other);
    let stage = Stage::new(having(&bytes), &[(&lies, "")]);
    assert_eq!(stage.blob(&bytes).await.unwrap(), bytes);
    assert_eq!(lies.requests().len(), 1);
    assert_eq!(stage.blob(&bytes).await.unwrap(), bytes);
    assert_eq!(lies.requests().len(), 1);

    let honest = ContentDigest::sha256(DOCUMENT).to_string();
    let lies = Server::start(move |_, _| {
        let headers = [("Content-Length", "2"), ("Docker-Content-Digest", &honest[..])];
        vec![head(200, &headers), Step::Send(b"{}".to_vec())]
    });
    let stage = Stage::new(having(&bytes), &[(&lies, "")]);
    let digest = ContentDigest::sha256(DOCUMENT);
    let pin = validator(&digest, None);
    for reference in ["team/app:v1".to_owned(), format!("team/app@{digest}")] {
        let read = stage.client.read(&stage.at(&reference), None, &pin).await.unwrap();
        assert_eq!(read, DOCUMENT);
    }
    assert_eq!(lies.requests().len(), 1);
}

#[tokio::test]
async fn a_long_blob_that_a_mirror_lies_about_is_an_error_at_its_end_and_right_the_next_time() {
    let bytes = content(5_000_000);
    let mut other = bytes.clone();
    other[4_000_000] ^= 1;
    let lies = having(&other);
    let stage = Stage::new(having(&bytes), &[(&lies, "")]);
    let error = failure(stage.blob(&bytes).await);
    assert!(matches!(error, SourceError::Malformed { .. }), "{error}");
    assert!(stage.blob(&bytes).await.unwrap() == bytes);
    assert_eq!(lies.requests().len(), 1);
    // Who holds parts of it together says so.
    let lies = having(&other);
    let stage = Stage::new(having(&bytes), &[(&lies, "")]);
    let digest = ContentDigest::sha256(&bytes);
    let (pin, all) = (validator(&digest, Some(5_000_000)), Some((3_999_999, 4_000_009)));
    let named = stage.at(&format!("team/app?blob={digest}"));
    assert_eq!(stage.client.read(&named, all, &pin).await.unwrap(), other[3_999_999..4_000_009]);
    let sources = &stage.client.sources;
    assert!(sources.doubt_mirrors(&target(&stage.at("team/app:v1"))));
    assert!(!sources.doubt_mirrors(&target(&stage.at("team/app:v1"))), "there is no other");
    assert_eq!(stage.client.read(&named, all, &pin).await.unwrap(), bytes[3_999_999..4_000_009]);
}

#[tokio::test]
async fn what_a_mirror_breaks_off_the_next_place_goes_on_with() {
    let bytes = content(400_000);
    let half = bytes[..150_000].to_vec();
    let breaks = Server::start(move |_, _| {
        let headers = [("Content-Length", "400000"), ("Accept-Ranges", "bytes")];
        vec![head(200, &headers), Step::Send(half.clone()), Step::Close]
    });
    let stage = Stage::new(having(&bytes), &[(&breaks, "")]);
    assert!(stage.blob(&bytes).await.unwrap() == bytes);
    let asked = stage.registry.requests();
    let first = asked[0].range().expect("the rest is asked for").0;
    assert_eq!(first, 150_000);
    assert_eq!(breaks.requests().len(), 1);
}

#[tokio::test]
async fn a_mirror_is_asked_for_what_it_is_for_and_shown_no_login() {
    let bytes = content(1000);
    let (digests, tags) = (having(&bytes), having(&bytes));
    let told = [
        (&digests, "pull-from-mirror = \"digest-only\""),
        (&tags, "pull-from-mirror = \"tag-only\""),
    ];
    let stage = Stage::new(having(&bytes), &told);
    stage.client.stat(&stage.at("team/app:v1")).await.unwrap();
    assert_eq!((digests.requests().len(), tags.requests().len()), (0, 1));
    let digest = ContentDigest::sha256(DOCUMENT);
    stage.client.stat(&stage.at(&format!("team/app@{digest}"))).await.unwrap();
    assert_eq!((digests.requests().len(), tags.requests().len()), (1, 1));
    assert_eq!(stage.registry.requests().len(), 0);
    // Whether who shows a login may have it, the registry says; the bytes are the same.
    let named = target(&stage.at("team/app:v1"));
    let login = Credentials::Bearer("hush".into());
    let named = named.with_credentials(login);
    let source = stage.client.source(&named);
    let stat = source.stat(&named).await.unwrap();
    assert_eq!(stage.registry.requests().len(), 1);
    let read = source.read(&named, None, &stat.validator).await.unwrap();
    assert_eq!(crate::collect(read).await.unwrap(), DOCUMENT);
    assert_eq!(stage.registry.requests().len(), 1);
    let shown = [&digests, &tags].into_iter().flat_map(Server::requests);
    assert!(shown.into_iter().all(|asked| asked.header("authorization").is_none()));
}

#[tokio::test]
async fn a_name_may_lie_elsewhere_or_be_blocked() {
    let bytes = content(1000);
    let there = having(&bytes);
    let conf = format!(
        "[[registry]]\nprefix = \"name.test/team\"\nlocation = \"{}/kept\"\n\
         [[registry]]\nprefix = \"*.blocked.test\"\nblocked = true\n",
        there.address
    );
    let stage = Stage::told(there, &conf);
    let stat = stage.client.stat("oci://name.test/team/app:v1").await.unwrap();
    assert_eq!(stat.url.as_str(), "oci://name.test/team/app:v1");
    let asked = stage.registry.requests().pop().unwrap();
    assert_eq!(asked.path, "/v2/kept/app/manifests/v1");
    let error = failure(stage.client.stat("oci://a.blocked.test/app").await).to_string();
    assert!(error.contains("registries.conf blocks what begins with *.blocked.test"), "{error}");
}

#[tokio::test]
async fn a_mirror_that_is_not_named_insecure_is_asked_over_tls() {
    let bytes = content(1000);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let plain = Server::start(move |_, request| {
        counted.fetch_add(1, Ordering::SeqCst);
        document(request)
    });
    // Not this machine by its name, as far as anybody knows.
    let port = plain.address.port();
    for (insecure, times) in [("", 0), ("insecure = true\n", 1)] {
        let registry = having(&bytes);
        let conf = format!(
            "[[registry]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"127.1:{port}\"\n{insecure}",
            registry.address
        );
        let stage = Stage::told(registry, &conf);
        stage.client.stat(&stage.at("team/app:v1")).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), times);
    }
}

#[tokio::test]
async fn what_is_insecure_is_so_for_its_prefix_alone() {
    let there = having(&content(1000));
    // Not this machine by its name, as far as anybody knows.
    let host = format!("127.1:{}", there.address.port());
    let conf = format!(
        "[[registry]]\nlocation = \"{host}/open\"\ninsecure = true\n\
         [[registry]]\nlocation = \"mirrored.test\"\n\
         [[registry.mirror]]\nlocation = \"{host}\"\ninsecure = true\n"
    );
    let stage = Stage::told(there, &conf);
    stage.client.stat(&format!("oci://{host}/open/app:v1")).await.unwrap();
    stage.client.stat("oci://mirrored.test/app:v1").await.unwrap();
    assert_eq!(stage.registry.requests().len(), 2);
    failure(stage.client.stat(&format!("oci://{host}/closed/app:v1")).await);
    assert_eq!(stage.registry.requests().len(), 2, "it is asked over TLS");
}

#[tokio::test]
async fn what_a_client_asks_is_passed_on_to_where_it_lies_and_not_at_all_where_it_is_blocked() {
    let (there, mirror) = (tokened(), having(&content(1000)));
    let host = format!("127.1:{}", there.address.port());
    let conf = format!(
        "[[registry]]\nprefix = \"name.test/team\"\nlocation = \"{host}/kept\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"{}\"\n\
         [[registry]]\nprefix = \"*.blocked.test\"\nblocked = true\n",
        mirror.address
    );
    let stage = Stage::told(there, &conf);
    let registries = stage.client.sources.registries().unwrap();
    let passed = |url: &str, sought, login| Passed {
        reference: Reference::of(&target(url).url).unwrap(),
        sought,
        extent: Extent::All,
        headers: HeaderMap::new(),
        login,
    };
    let named = "oci://name.test/team/app:v1";
    for (sought, login, shown) in [
        (Sought::Named, Credentials::None, "Bearer nobody"),
        (Sought::Tags(String::new()), Credentials::Bearer("hush".into()), "Bearer hush"),
    ] {
        let answer = registries.pass(&passed(named, sought, login)).await.unwrap();
        assert_eq!(answer.status(), 200);
        let asked = stage.registry.requests().pop().unwrap();
        assert!(asked.path.starts_with("/v2/kept/app/"), "{}", asked.path);
        assert_eq!(asked.header("authorization"), Some(shown));
    }
    let asked = stage.registry.requests();
    let token = asked.iter().find(|asked| asked.path.starts_with("/token")).unwrap();
    assert!(token.path.contains("repository%3Akept%2Fapp%3Apull"), "{}", token.path);
    assert_eq!(registries.scheme(&Reference::of(&target(named).url).unwrap()), "http");
    assert_eq!(mirror.requests().len(), 0, "the registry is passed on to");

    let blocked = passed("oci://a.blocked.test/app:v1", Sought::Named, Credentials::None);
    let error = failure(registries.pass(&blocked).await).to_string();
    assert!(error.contains("registries.conf blocks what begins with *.blocked.test"), "{error}");
}

/// Wants a token of itself, which it gives to nobody in particular.
fn tokened() -> Server {
    Server::start(|_, request| match request.header("authorization") {
        _ if request.path.starts_with("/token") => {
            let token = br#"{"token":"nobody"}"#;
            vec![head(200, &[("Content-Length", "18")]), Step::Send(token.to_vec())]
        }
        Some(_) => document(request),
        None => {
            let host = request.header("host").unwrap_or_default();
            let realm = format!("Bearer realm=\"http://{host}/token\"");
            vec![head(401, &[("Content-Length", "0"), ("WWW-Authenticate", &realm)])]
        }
    })
}

#[tokio::test]
async fn what_proved_right_is_not_doubted_and_a_wrong_image_costs_others_no_mirror() {
    let bytes = content(5_000_000);
    let mirror = having(&bytes);
    let stage = Stage::new(having(&bytes), &[(&mirror, "")]);
    let sources = &stage.client.sources;
    let doubt = |repository: &str| sources.doubt_mirrors(&target(&stage.at(repository)));
    assert!(stage.blob(&bytes).await.unwrap() == bytes);
    assert!(!doubt("team/app"), "all of it came, and is what its digest says");
    stage.part("team/app", &bytes).await.unwrap();
    let digest = ContentDigest::sha256(&bytes);
    sources.proved(&target(&stage.at(&format!("team/app?blob={digest}"))));
    assert!(!doubt("team/app"), "who read it held it against another");
    assert_eq!(stage.registry.requests().len(), 0);

    stage.part("evil/app", &bytes).await.unwrap();
    assert!(!doubt("team/app"), "nothing of it is unproven");
    assert!(doubt("evil/app"));
    let asked = mirror.requests().len();
    stage.part("team/app", &bytes).await.unwrap();
    assert_eq!((mirror.requests().len(), stage.registry.requests().len()), (asked + 1, 0));
    stage.part("evil/app", &bytes).await.unwrap();
    assert_eq!((mirror.requests().len(), stage.registry.requests().len()), (asked + 1, 1));
}

#[tokio::test]
async fn a_mirror_is_not_asked_again_at_once_for_what_it_does_not_give() {
    let (bytes, more) = (content(1000), content(2000));
    let (given, other) = (bytes.clone(), more.clone());
    let (lacks, refuses) = (failing(404), failing(403));
    let gives_all = Server::start(move |_, request| {
        let all = match request.path.ends_with(&ContentDigest::sha256(&given).to_string()) {
            true => &given,
            false => &other,
        };
        let length = all.len().to_string();
        vec![head(200, &[("Content-Length", &length)]), Step::Send(all.clone())]
    });
    let (given, other) = (bytes.clone(), more.clone());
    let registry = Server::start(move |_, request| {
        let is_first = request.path.ends_with(&ContentDigest::sha256(&given).to_string());
        file(if is_first { &given } else { &other }, "\"x\"", request)
    });
    let stage = Stage::new(registry, &[(&lacks, ""), (&refuses, ""), (&gives_all, "")]);
    let asked = || [&lacks, &refuses, &gives_all, &stage.registry].map(|at| at.requests().len());
    for times in 1..4 {
        assert_eq!(stage.part("team/app", &bytes).await.unwrap(), bytes[10..20]);
        assert_eq!(asked(), [1, 1, 1, times]);
    }
    assert_eq!(stage.part("team/app", &more).await.unwrap(), more[10..20]);
    assert_eq!(asked(), [2, 2, 1, 4], "another blob they may have; parts it gives of none");
    assert_eq!(stage.blob(&bytes).await.unwrap(), bytes);
    assert_eq!(asked(), [2, 2, 2, 4], "all of it is given");
}
