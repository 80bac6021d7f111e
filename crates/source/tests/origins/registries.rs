//! Registries that want tokens, lose them, send on, and give something else than was asked for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dfs_source::oci::{ContentDigest, OciSource, digest_of, validator};
use dfs_source::{Asking, Credentials, Environment, OciOptions, SourceError, Sources, Target};

use crate::scripted::{Request, Server, Step, file, head, status};
use crate::{Client, content, failure, options, target};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCUMENT: &[u8] = br#"{"schemaVersion":2}"#;

fn client(oci: OciOptions) -> Client {
    Client::over(Sources::builder().http(options()).oci(oci).build().unwrap())
}

/// The URL of `repository` in a registry of this machine.
fn at(server: &Server, repository: &str) -> String {
    format!("oci://{}/{repository}", server.address)
}

fn json(text: &str) -> Vec<Step> {
    let length = text.len().to_string();
    let headers = [("Content-Type", "application/json"), ("Content-Length", &length[..])];
    vec![head(200, &headers), Step::Send(text.as_bytes().to_vec())]
}

/// A manifest as a registry sends it, by the name of `digest`.
fn manifest(request: &Request, bytes: &[u8], digest: ContentDigest) -> Vec<Step> {
    let (length, digest) = (bytes.len().to_string(), digest.to_string());
    let headers = [
        ("Content-Type", MANIFEST),
        ("Content-Length", &length[..]),
        ("Docker-Content-Digest", &digest[..]),
    ];
    let body = if request.method == "HEAD" { Vec::new() } else { bytes.to_vec() };
    vec![head(200, &headers), Step::Send(body)]
}

/// A refusal that sends to `realm` for a token.
fn wants_token(realm: &str) -> Vec<Step> {
    let wants =
        format!(r#"Bearer realm="{realm}",service="registry.test",scope="repository:a/b:pull""#);
    vec![head(401, &[("WWW-Authenticate", &wants), ("Content-Length", "0")])]
}

fn document(request: &Request) -> Vec<Step> {
    manifest(request, DOCUMENT, ContentDigest::sha256(DOCUMENT))
}

/// Gives out tokens `t0`, `t1`, …; each is good for `uses` requests of a blob of `bytes`, and of the manifest.
struct Guarded {
    bytes: Vec<u8>,
    uses: usize,
    given: AtomicUsize,
    used: AtomicUsize,
}

impl Guarded {
    fn start(bytes: Vec<u8>, uses: usize) -> Server {
        let (given, used) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let guarded = Self { bytes, uses, given, used };
        Server::start(move |_, request| guarded.answer(request))
    }

    fn answer(&self, request: &Request) -> Vec<Step> {
        if request.path.starts_with("/token") {
            let number = self.given.fetch_add(1, Ordering::SeqCst);
            self.used.store(0, Ordering::SeqCst);
            return json(&format!(r#"{{"token":"t{number}","expires_in":300}}"#));
        }
        let given = self.given.load(Ordering::SeqCst);
        let newest = format!("Bearer t{}", given.saturating_sub(1));
        let is_known = given > 0 && request.header("authorization") == Some(&newest);
        if !is_known || self.used.fetch_add(1, Ordering::SeqCst) >= self.uses {
            let host = request.header("host").unwrap();
            return wants_token(&format!("http://{host}/token"));
        }
        match request.path.contains("/blobs/") {
            true => file(&self.bytes, "\"elsewhere\"", request),
            false => document(request),
        }
    }
}

fn tokens(server: &Server) -> Vec<Request> {
    server.requests().into_iter().filter(|request| request.path.starts_with("/token")).collect()
}

#[tokio::test]
async fn who_is_not_known_gets_a_token_once_however_many_ask() {
    let bytes = content(300_000);
    let digest = ContentDigest::sha256(&bytes);
    let server = Guarded::start(bytes.clone(), usize::MAX);
    let client = Arc::new(client(OciOptions::default()));
    let url = at(&server, &format!("a/b?blob={digest}"));
    let stat = client.stat(&url).await.unwrap();
    assert_eq!((stat.length, stat.ranges), (Some(300_000), true));
    assert_eq!(digest_of(&stat.validator), Some(digest));
    let reading = (0..8_u64).map(|part| {
        let (client, url, pin) = (Arc::clone(&client), url.clone(), stat.validator.clone());
        async move { client.read(&url, Some((part * 1000, part * 1000 + 500)), &pin).await }
    });
    for (part, read) in futures::future::join_all(reading).await.into_iter().enumerate() {
        assert_eq!(read.unwrap(), bytes[part * 1000..][..500]);
    }
    assert_eq!(client.read(&url, None, &stat.validator).await.unwrap(), bytes);
    let [asked] = &tokens(&server)[..] else { panic!("{:?}", server.requests()) };
    assert_eq!(asked.path, "/token?service=registry.test&scope=repository%3Aa%2Fb%3Apull");
    assert_eq!(asked.header("authorization"), None);
}

#[tokio::test]
async fn a_token_that_ends_in_the_middle_of_a_layer_is_followed_by_the_next() {
    let bytes = content(200_000);
    let digest = ContentDigest::sha256(&bytes);
    let server = Guarded::start(bytes.clone(), 3);
    let client = client(OciOptions::default());
    let url = at(&server, &format!("a/b?blob={digest}"));
    let pin = validator(&digest, Some(200_000));
    for start in (0..200_000).step_by(20_000) {
        let read = client.read(&url, Some((start, start + 20_000)), &pin).await.unwrap();
        assert_eq!(read, bytes[start as usize..][..20_000]);
    }
    assert_eq!(tokens(&server).len(), 4, "three requests each");
}

#[tokio::test]
async fn a_login_goes_to_who_gives_out_tokens_and_an_identity_token_is_exchanged() {
    let server = Guarded::start(Vec::new(), usize::MAX);
    let client = client(OciOptions::default());
    let ask = async |user: &str, password: &str| {
        let credentials = Credentials::Basic { user: user.into(), password: password.into() };
        let target = target(&at(&server, "a/b:v1")).with_credentials(credentials);
        client.source(&target).stat(&target).await.unwrap();
        tokens(&server).pop().unwrap()
    };
    let asked = ask("ada", "pw").await;
    assert_eq!(asked.header("authorization"), Some("Basic YWRhOnB3"));
    let asked = ask("<token>", "i/d").await;
    assert_eq!((asked.method.as_str(), asked.header("authorization")), ("POST", None));
    let said = "grant_type=refresh_token&service=registry.test&client_id=dfs\
        &scope=repository%3Aa%2Fb%3Apull&refresh_token=i%2Fd";
    assert_eq!(asked.body, said);
    let to_registry = server.requests().into_iter().filter(|asked| asked.path.starts_with("/v2/"));
    for asked in to_registry {
        let shown = asked.header("authorization").unwrap_or("Bearer");
        assert!(shown.starts_with("Bearer"), "the registry itself is shown tokens only: {shown}");
    }
}

#[tokio::test]
async fn basic_is_answered_with_the_login_and_without_one_it_is_said_what_to_do() {
    let server = Server::start(|_, request| match request.header("authorization") {
        Some("Basic YWRhOnB3") => document(request),
        _ => vec![head(401, &[("WWW-Authenticate", "Basic realm=x"), ("Content-Length", "0")])],
    });
    let client = client(OciOptions::default());
    let url = at(&server, "a/b:v1");
    let login = |password: &str| {
        let credentials = Credentials::Basic { user: "ada".into(), password: password.into() };
        target(&url).with_credentials(credentials)
    };
    let good = login("pw");
    assert!(client.source(&good).stat(&good).await.is_ok());
    let bad = login("other");
    for asked in [bad, target(&url)] {
        let error = failure(client.source(&asked).stat(&asked).await);
        assert!(matches!(error, SourceError::NotPermitted { status: Some(401), .. }), "{error}");
        let told = error.to_string();
        assert!(told.contains(&format!("docker login {}", server.address)), "{told}");
        assert!(!told.contains("other"), "{told}");
    }
}

#[tokio::test]
async fn nobody_is_sent_for_a_token_to_where_others_listen() {
    for realm in ["http://token.test/", "ftp://token.test/", "https://u:p@token.test/", "nonsense"]
    {
        let server = Server::start(move |_, _| wants_token(realm));
        let client = client(OciOptions::default());
        let error = failure(client.stat(&at(&server, "a/b")).await);
        assert!(matches!(error, SourceError::Malformed { .. }), "{realm}: {error}");
        assert_eq!(server.requests().len(), 1, "{realm}");
    }
}

#[tokio::test]
async fn a_token_that_is_refused_as_often_as_it_is_given_ends_in_one_error() {
    let server = Server::start(|_, request| match request.path.starts_with("/token") {
        true => json(r#"{"access_token":"t"}"#),
        false => wants_token(&format!("http://{}/token", request.header("host").unwrap())),
    });
    let error = failure(client(OciOptions::default()).stat(&at(&server, "a/b")).await);
    assert!(matches!(error, SourceError::NotPermitted { .. }), "{error}");
    assert!(server.requests().len() <= 6, "{:?}", server.requests());
}

#[tokio::test]
async fn a_manifest_is_what_its_digest_names_or_an_error() {
    let honest = ContentDigest::sha256(DOCUMENT);
    let server = Server::start(move |_, request| match request.path.rsplit('/').next() {
        Some("lies") => manifest(request, b"{}", honest),
        Some("silent") if request.method == "HEAD" => status(405),
        Some("silent") => json("{}"),
        Some("gone") => status(404),
        Some(_) => document(request),
        None => status(400),
    });
    let client = client(OciOptions::default());
    let stat = client.stat(&at(&server, "a/b:v1")).await.unwrap();
    assert_eq!(digest_of(&stat.validator), Some(honest));
    assert_eq!(stat.content_type.as_deref(), Some(MANIFEST));
    assert_eq!(stat.url.as_str(), at(&server, "a/b:v1"));
    let read = client.read(&at(&server, "a/b:v1"), None, &stat.validator).await.unwrap();
    assert_eq!(read, DOCUMENT);
    let asked = server.requests().pop().unwrap();
    assert!(asked.path.ends_with(&honest.to_string()), "it is asked for by digest: {}", asked.path);
    assert!(asked.header("accept").unwrap().contains("image.index.v1+json"));

    let silent = client.stat(&at(&server, "a/b:silent")).await.unwrap();
    assert_eq!(digest_of(&silent.validator), Some(ContentDigest::sha256(b"{}")));
    let error = failure(client.stat(&at(&server, "a/b:gone")).await);
    assert!(matches!(error, SourceError::NotFound { .. }), "{error}");

    let lying = Server::start(move |_, request| manifest(request, b"{}", honest));
    let url = at(&lying, "a/b:v1");
    let pin = client.stat(&url).await.unwrap().validator;
    let error = failure(client.read(&url, None, &pin).await);
    assert!(error.to_string().contains("the content that came is sha256:44136fa3"), "{error}");
    let other = at(&lying, &format!("a/b@{}", ContentDigest::sha256(b"other")));
    assert!(matches!(failure(client.stat(&other).await), SourceError::Malformed { .. }));
}

#[tokio::test]
async fn a_blob_that_is_another_is_an_error_at_its_end() {
    let (bytes, digest) = (content(100_000), ContentDigest::sha256(b"something else"));
    let served = bytes.clone();
    let server = Server::start(move |_, request| file(&served, "\"x\"", request));
    let client = client(OciOptions::default());
    let url = at(&server, &format!("a/b?blob={digest}"));
    let pin = validator(&digest, Some(100_000));
    let error = failure(client.read(&url, None, &pin).await);
    assert!(matches!(error, SourceError::Malformed { .. }), "{error}");
    assert!(error.to_string().contains(&digest.to_string()), "{error}");
    let other = validator(&ContentDigest::sha256(b"third"), None);
    assert!(matches!(failure(client.read(&url, None, &other).await), SourceError::Changed { .. }));
}

#[tokio::test]
async fn a_blob_may_lie_elsewhere_and_who_has_it_is_shown_no_token() {
    let bytes = content(50_000);
    let digest = ContentDigest::sha256(&bytes);
    let stored = bytes.clone();
    let store = Server::start(move |_, request| match request.method.as_str() {
        // Signed for GET alone.
        "HEAD" => status(403),
        _ => file(&stored, "\"of-the-store\"", request),
    });
    let elsewhere = store.url("/bucket?X-Amz-Signature=s");
    let server = Server::start(move |_, request| {
        if request.path.starts_with("/token") {
            return json(r#"{"token":"t"}"#);
        }
        match request.header("authorization") {
            Some("Bearer t") => {
                vec![head(307, &[("Location", &elsewhere), ("Content-Length", "0")])]
            }
            _ => wants_token(&format!("http://{}/token", request.header("host").unwrap())),
        }
    });
    let client = client(OciOptions::default());
    let url = at(&server, &format!("a/b?blob={digest}"));
    let stat = client.stat(&url).await.unwrap();
    assert_eq!((stat.length, stat.ranges), (Some(50_000), true));
    assert_eq!(client.read(&url, None, &stat.validator).await.unwrap(), bytes);
    let part = client.read(&url, Some((100, 200)), &stat.validator).await.unwrap();
    assert_eq!(part, bytes[100..200]);
    assert!(store.requests().iter().all(|asked| asked.header("authorization").is_none()));
}

#[tokio::test]
async fn a_registry_without_ranges_gives_blobs_whole() {
    let bytes = content(40_000);
    let digest = ContentDigest::sha256(&bytes);
    let served = bytes.clone();
    let server = Server::start(move |_, request| {
        let length = served.len().to_string();
        let body = if request.method == "HEAD" { Vec::new() } else { served.clone() };
        vec![head(200, &[("Content-Length", &length)]), Step::Send(body)]
    });
    let client = client(OciOptions::default());
    let url = at(&server, &format!("a/b?blob={digest}"));
    let stat = client.stat(&url).await.unwrap();
    assert_eq!((stat.length, stat.ranges), (Some(40_000), false));
    assert_eq!(client.read(&url, None, &stat.validator).await.unwrap(), bytes);
    let error = failure(client.read(&url, Some((10, 20)), &stat.validator).await);
    assert!(matches!(error, SourceError::RangeIgnored { .. }), "{error}");
}

#[tokio::test]
async fn a_busy_registry_is_asked_again_when_it_says() {
    let server = Server::start(|number, request| match number {
        0 => vec![head(429, &[("Retry-After", "0"), ("Content-Length", "0")])],
        1 => status(503),
        _ => document(request),
    });
    let client = client(OciOptions::default());
    client.stat(&at(&server, "a/b")).await.unwrap();
    assert_eq!((server.requests().len(), client.counted().retries), (3, 2));
}

#[tokio::test]
async fn this_users_logins_are_used_for_this_user_and_again_when_they_have_changed() {
    let server = Server::start(|number, request| {
        let wanted = if number < 3 { "Basic YWRhOm9uZQ==" } else { "Basic YWRhOnR3bw==" };
        match request.header("authorization") {
            Some(shown) if shown == wanted => document(request),
            _ => vec![head(401, &[("WWW-Authenticate", "Basic realm=x"), ("Content-Length", "0")])],
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let write = |password: &str| {
        let json = format!(
            r#"{{"auths":{{"{}":{{"username":"ada","password":"{password}"}}}}}}"#,
            server.address
        );
        std::fs::write(dir.path().join("config.json"), json).unwrap();
    };
    write("one");
    let environment = Environment::default().with("DOCKER_CONFIG", dir.path().to_str().unwrap());
    let client = client(OciOptions { environment: Some(environment), ..OciOptions::default() });
    let named = target(&at(&server, "a/b"));
    let source = client.source(&named);
    let complete = async |asking| source.complete(&named, asking).await.unwrap();
    assert_eq!(complete(Asking::Other).await.credentials, Credentials::None);
    let own: Target = complete(Asking::Own).await;
    assert_eq!(own.url.as_str(), at(&server, "a/b:latest"));
    source.stat(&own).await.unwrap();
    // Everybody has been asked to log in anew since.
    write("two");
    source.stat(&own).await.unwrap();
    source.stat(&own).await.unwrap();
}

/// An entry of a list of what refers to something, with a number for its digest.
fn entry(number: u32, kind: &str) -> String {
    let digest = ContentDigest::sha256(&number.to_le_bytes());
    format!(r#"{{"mediaType":"{MANIFEST}","digest":"{digest}","size":7,"artifactType":"{kind}"}}"#)
}

fn list(entries: &[String]) -> String {
    format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","))
}

#[tokio::test]
async fn what_refers_to_a_manifest_is_told_over_pages_and_never_from_elsewhere() {
    let stranger = Server::start(|_, _| json(&list(&[entry(9, "a/x")])));
    let elsewhere = stranger.url("/v2/a/b/referrers/more");
    let server = Server::start(move |_, request| {
        let page = |number: u32, link: Option<String>| {
            let body = list(&[entry(number, "a/x"), entry(number + 100, "a/y")]);
            let length = body.len().to_string();
            let mut headers = vec![("Content-Length", &length[..])];
            headers.extend(link.as_deref().map(|link| ("Link", link)));
            vec![head(200, &headers), Step::Send(body.into_bytes())]
        };
        match request.path.rsplit_once("page=").map(|(_, number)| number) {
            None => page(1, Some(format!("<{}&page=2>; rel=\"next\"", request.path))),
            Some("2") => page(2, Some("<?page=3>; rel=next".to_owned())),
            _ => page(2, Some(format!("<{elsewhere}>; rel=\"next\""))),
        }
    });
    let client = client(OciOptions::default());
    let target = target(&at(&server, "a/b:v1"));
    let digest = ContentDigest::sha256(DOCUMENT);
    let source = client.source(&target);
    let found = source.referrers(&target, &digest, Some("a/x")).await.unwrap();
    let wanted = [1_u32, 2].map(|number| ContentDigest::sha256(&number.to_le_bytes()));
    assert_eq!(found.iter().map(|one| one.digest).collect::<Vec<_>>(), wanted);
    let asked = format!("/v2/a/b/referrers/{digest}?artifactType=a%2Fx");
    assert_eq!(server.requests()[0].path, asked);
    assert_eq!(server.requests().len(), 3);
    assert!(stranger.requests().is_empty(), "another place has no say");
}

#[tokio::test]
async fn lists_without_an_end_and_what_is_no_list_are_bounded() {
    let endless = Server::start(|number, request| {
        let entries: Vec<_> = (0..10).map(|at| entry(number as u32 * 10 + at, "a/x")).collect();
        let (body, link) = (list(&entries), format!("<{}>; rel=next", request.path));
        let length = body.len().to_string();
        vec![
            head(200, &[("Content-Length", &length), ("Link", &link)]),
            Step::Send(body.into_bytes()),
        ]
    });
    let client = client(OciOptions::default());
    let digest = ContentDigest::sha256(DOCUMENT);
    let ask = async |server: &Server| {
        let target = target(&at(server, "a/b:v1"));
        client.source(&target).referrers(&target, &digest, None).await
    };
    assert_eq!(ask(&endless).await.unwrap().len(), 320);
    assert_eq!(endless.requests().len(), 32);
    let none = Server::start(|_, _| json("no list"));
    let error = ask(&none).await.unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
    let large = Server::start(|_, _| json(&" ".repeat(5 << 20)));
    assert!(ask(&large).await.is_err());
    let closed = Server::start(|_, _| status(403));
    assert!(matches!(ask(&closed).await, Err(SourceError::NotPermitted { .. })));
}

/// A registry that keeps no account of what is about what: it has documents by their names.
struct Plain {
    documents: Mutex<BTreeMap<String, String>>,
    /// What somebody else puts in place of a list, once, right after it was written.
    rival: Mutex<Option<String>>,
    /// Whether it says that it keeps account all the same.
    told: bool,
}

impl Plain {
    fn start(rival: Option<String>, told: bool) -> (Arc<Self>, Server) {
        let plain = Arc::new(Self { documents: Mutex::default(), rival: Mutex::new(rival), told });
        let own = Arc::clone(&plain);
        (plain, Server::start(move |_, request| own.answer(request)))
    }

    fn answer(&self, request: &Request) -> Vec<Step> {
        let Some((_, name)) = request.path.split_once("/manifests/") else { return status(404) };
        let mut documents = self.documents.lock().unwrap();
        if request.method == "PUT" {
            let rival = self.rival.lock().unwrap().take_if(|_| name.starts_with("sha256-"));
            documents.insert(name.to_owned(), rival.unwrap_or_else(|| request.body.clone()));
            let subject = [("OCI-Subject", "sha256:x"), ("Content-Length", "0")];
            return vec![head(201, if self.told { &subject[..] } else { &subject[1..] })];
        }
        documents.get(name).map_or_else(|| status(404), |found| json(found))
    }
}

#[tokio::test]
async fn what_is_pushed_about_something_is_found_by_it_where_the_registry_keeps_no_account() {
    let about = ContentDigest::sha256(DOCUMENT);
    let document = format!(r#"{{"artifactType":"a/x","subject":{{"digest":"{about}"}}}}"#);
    let theirs = entry(5, "a/theirs").replace("\"size\"", "\"urls\":[\"u\"],\"size\"");
    for rival in [None, Some(list(std::slice::from_ref(&theirs)))] {
        let had_rival = rival.is_some();
        let (plain, server) = Plain::start(rival, false);
        let client = client(OciOptions::default());
        let target = target(&at(&server, "a/b:about"));
        let registry = OciSource::new(OciOptions::default(), options(), Arc::default()).unwrap();
        let bytes = Bytes::from(document.clone());
        let digest = ContentDigest::sha256(&bytes);
        registry.pusher(&target).unwrap().document(digest, MANIFEST, &bytes).await.unwrap();
        let found = client.source(&target).referrers(&target, &about, Some("a/x")).await.unwrap();
        let [one] = &found[..] else { panic!("{found:?}") };
        assert_eq!((one.digest, one.size), (digest, bytes.len() as u64));
        let list = plain.documents.lock().unwrap()[&format!("sha256-{}", about.hex())].clone();
        assert_eq!(list.contains("a/theirs") && list.contains("urls"), had_rival, "{list}");
        // Again it is there already.
        let asked = server.requests().len();
        registry.pusher(&target).unwrap().document(digest, MANIFEST, &bytes).await.unwrap();
        let again: Vec<_> = server.requests()[asked..].to_vec();
        assert_eq!(again.iter().filter(|request| request.method == "PUT").count(), 1, "{again:?}");
    }
}

#[tokio::test]
async fn a_registry_that_keeps_account_needs_no_list_and_what_is_about_nothing_is_in_none() {
    let about = ContentDigest::sha256(DOCUMENT);
    let document = format!(r#"{{"artifactType":"a/x","subject":{{"digest":"{about}"}}}}"#);
    for (told, document) in [(true, document.as_str()), (false, "{}")] {
        let (plain, server) = Plain::start(None, told);
        let target = target(&at(&server, "a/b:about"));
        let registry = OciSource::new(OciOptions::default(), options(), Arc::default()).unwrap();
        let bytes = Bytes::from(document.to_owned());
        let digest = ContentDigest::sha256(&bytes);
        registry.pusher(&target).unwrap().document(digest, MANIFEST, &bytes).await.unwrap();
        let documents = plain.documents.lock().unwrap();
        assert!(!documents.keys().any(|name| name.starts_with("sha256-")), "{documents:?}");
    }
}
