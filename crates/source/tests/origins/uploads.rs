//! Uploads to registries that lose answers, parts, or all of it.

use std::sync::{Arc, Mutex};

use dfs_source::oci::{ContentDigest, PushContent, PushFrom, Put};
use dfs_source::{Credentials, OciOptions, OciSource, SourceError};

use crate::scripted::{Request, Server, Step, head};
use crate::{options, target};

/// More than two parts.
const LENGTH: usize = 20_000_000;

/// What happens to the parts that are sent, by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Taken,
    /// Half of it is kept, and nothing is said.
    Halved,
    /// It is kept, and nothing is said.
    Unsaid,
    /// Nothing is known of the upload any more.
    Forgotten,
    /// No parts are taken at all.
    Whole,
}

#[derive(Default)]
struct State {
    /// What lies in the upload, where there is one.
    upload: Option<Vec<u8>>,
    begun: usize,
    parts: usize,
    /// Bytes that came, again or not.
    came: usize,
    blob: Option<Vec<u8>>,
}

/// A registry with these fates; parts behind the last are taken.
struct Registry {
    fates: Vec<Fate>,
    for_ever: bool,
    state: Arc<Mutex<State>>,
}

fn plain(status: u16, headers: &[(&str, &str)]) -> Vec<Step> {
    vec![head(status, &[headers, &[("Content-Length", "0")]].concat())]
}

impl Registry {
    fn start(fates: &[Fate], for_ever: bool) -> (Server, Arc<Mutex<State>>) {
        let state = Arc::new(Mutex::new(State::default()));
        let registry = Self { fates: fates.to_vec(), for_ever, state: Arc::clone(&state) };
        (Server::start(move |_, request| registry.answer(request)), state)
    }

    fn answer(&self, request: &Request) -> Vec<Step> {
        let mut state = self.state.lock().unwrap();
        match request.method.as_str() {
            "HEAD" => plain(if state.blob.is_some() { 200 } else { 404 }, &[]),
            "POST" => {
                (state.upload, state.begun) = (Some(Vec::new()), state.begun + 1);
                plain(202, &[("Location", "/up?state=0")])
            }
            "PATCH" => self.part(&mut state, request),
            "GET" => match &state.upload {
                None => plain(404, &[]),
                Some(there) => {
                    let range = format!("0-{}", there.len().saturating_sub(1));
                    plain(204, &[("Location", "/up?state=1"), ("Range", &range)])
                }
            },
            "PUT" => {
                let all = match request.body.is_empty() {
                    true => state.upload.take(),
                    false => Some(request.body.clone().into_bytes()),
                };
                let Some(all) = all else { return plain(404, &[]) };
                assert!(request.path.contains("digest=sha256"), "{}", request.path);
                state.blob = Some(all);
                plain(201, &[])
            }
            other => panic!("{other}"),
        }
    }

    fn part(&self, state: &mut State, request: &Request) -> Vec<Step> {
        let last = self.fates.last().filter(|_| self.for_ever);
        let fate = *self.fates.get(state.parts).or(last).unwrap_or(&Fate::Taken);
        state.parts += 1;
        state.came += request.body.len();
        if fate == Fate::Whole {
            return plain(405, &[]);
        }
        let Some(there) = &mut state.upload else { return plain(404, &[]) };
        let (first, _) = request.header("content-range").unwrap().split_once('-').unwrap();
        if first.parse() != Ok(there.len()) {
            return plain(416, &[]);
        }
        let kept = if fate == Fate::Halved { request.body.len() / 2 } else { request.body.len() };
        there.extend_from_slice(&request.body.as_bytes()[..kept]);
        let range = format!("0-{}", there.len() - 1);
        match fate {
            Fate::Halved | Fate::Unsaid => vec![Step::Close],
            Fate::Forgotten => {
                state.upload = None;
                vec![Step::Close]
            }
            Fate::Taken | Fate::Whole => {
                plain(202, &[("Location", "/up?state=2"), ("Range", &range)])
            }
        }
    }
}

/// Text of which no two parts are the same.
fn text() -> Vec<u8> {
    (0..).flat_map(|number: u32| format!("{number} ").into_bytes()).take(LENGTH).collect()
}

async fn push(server: &Server, text: &[u8]) -> Result<(Put, u64), SourceError> {
    push_beside(server, text, None).await
}

/// The same where another repository may have it.
async fn push_beside(
    server: &Server,
    text: &[u8],
    from: Option<&str>,
) -> Result<(Put, u64), SourceError> {
    let registry = OciSource::new(OciOptions::default(), options(), Arc::default())?;
    let pusher = registry.pusher(&target(&format!("oci://{}/a/b:1", server.address)))?;
    let moved = std::sync::atomic::AtomicU64::new(0);
    let count = |bytes| {
        moved.fetch_add(bytes, std::sync::atomic::Ordering::SeqCst);
    };
    let content = PushContent::Bytes(text.to_vec().into());
    let blob = (ContentDigest::sha256(text), text.len() as u64);
    let put = pusher.blob(blob, &content, from, &count).await?;
    Ok((put, moved.into_inner()))
}

#[tokio::test]
async fn an_upload_goes_on_where_the_registry_says_that_it_stands() {
    let text = text();
    for fates in [
        &[Fate::Taken][..],
        &[Fate::Halved],
        &[Fate::Taken, Fate::Halved, Fate::Unsaid],
        &[Fate::Unsaid, Fate::Unsaid, Fate::Unsaid],
    ] {
        let (server, state) = Registry::start(fates, false);
        let (_, moved) = push(&server, &text).await.unwrap();
        let state = state.lock().unwrap();
        assert!(state.blob.as_deref() == Some(&text[..]), "{fates:?}");
        assert_eq!((state.begun, moved), (1, LENGTH as u64), "{fates:?}");
        assert!(state.came <= LENGTH + (8 << 20), "{fates:?}: {} bytes came", state.came);
    }
}

#[tokio::test]
async fn an_upload_that_is_forgotten_is_begun_anew_and_not_for_ever() {
    let text = text();
    let (server, state) = Registry::start(&[Fate::Taken, Fate::Forgotten], false);
    push(&server, &text).await.unwrap();
    assert!(state.lock().unwrap().blob.as_deref() == Some(&text[..]));
    assert_eq!(state.lock().unwrap().begun, 2);

    let (server, state) = Registry::start(&[Fate::Forgotten], true);
    let error = push(&server, &text).await.unwrap_err().to_string();
    assert!(error.contains("again and again") || error.contains("given up"), "{error}");
    assert!(state.lock().unwrap().begun <= 7);
    assert!(state.lock().unwrap().blob.is_none());
}

#[tokio::test]
async fn a_registry_that_takes_no_parts_is_sent_all_at_once() {
    let text = text();
    let (server, state) = Registry::start(&[Fate::Whole], false);
    let (put, moved) = push(&server, &text).await.unwrap();
    assert_eq!((put, moved), (Put::Sent, LENGTH as u64));
    assert!(state.lock().unwrap().blob.as_deref() == Some(&text[..]));
}

#[tokio::test]
async fn what_another_repository_does_not_give_away_is_sent() {
    for status in [400, 403, 404, 405] {
        let state = Arc::new(Mutex::new(State::default()));
        let registry = Registry { fates: Vec::new(), for_ever: false, state: Arc::clone(&state) };
        let server = Server::start(move |_, request| match request.path.contains("mount=") {
            true => plain(status, &[]),
            false => registry.answer(request),
        });
        let (put, _) = push_beside(&server, b"bytes", Some("other/app")).await.unwrap();
        assert_eq!(put, Put::Sent, "{status}");
        assert!(state.lock().unwrap().blob.as_deref() == Some(&b"bytes"[..]));
    }
}

#[tokio::test]
async fn what_leads_elsewhere_without_tls_is_not_followed() {
    let server = Server::start(|_, request| match request.method.as_str() {
        "HEAD" => plain(404, &[]),
        _ => plain(202, &[("Location", "http://192.0.2.7/up")]),
    });
    let error = push(&server, b"x").await.unwrap_err().to_string();
    assert!(error.contains("not asked over TLS"), "{error}");
}

#[tokio::test]
async fn bytes_are_read_in_order_of_a_source_without_ranges_and_again_where_they_are_sent_again() {
    let text = text();
    let served = text.clone();
    let origin = Server::start(move |_, _| {
        let length = served.len().to_string();
        vec![
            head(200, &[("Content-Length", &length), ("ETag", "\"e\"")]),
            Step::Send(served.clone()),
        ]
    });
    for (fates, reads) in [(&[Fate::Taken][..], 1), (&[Fate::Taken, Fate::Forgotten], 2)] {
        let (server, state) = Registry::start(fates, false);
        let registry = OciSource::new(OciOptions::default(), options(), Arc::default()).unwrap();
        let pusher = registry.pusher(&target(&format!("oci://{}/a/b:1", server.address))).unwrap();
        let from = target(&origin.url("/file"));
        let source = crate::Client::new().source(&from);
        let pin = crate::tagged("\"e\"", LENGTH);
        let before = origin.requests().len();
        let content = PushContent::At(Box::new(PushFrom { source, target: from, pin }));
        let blob = (ContentDigest::sha256(&text), LENGTH as u64);
        pusher.blob(blob, &content, None, &|_| {}).await.unwrap();
        assert!(state.lock().unwrap().blob.as_deref() == Some(&text[..]));
        let asked = origin.requests();
        assert_eq!(asked.len() - before, reads, "{fates:?}");
    }
}

#[tokio::test]
async fn where_an_upload_goes_on_elsewhere_no_login_goes_along() {
    let store = Registry { fates: Vec::new(), for_ever: false, state: Arc::default() };
    let state = Arc::clone(&store.state);
    // The same as the registry, at another port: parts and the end go there.
    let elsewhere = Server::start(move |_, request| store.answer(request));
    state.lock().unwrap().upload = Some(Vec::new());
    let at = elsewhere.url("/up?state=0");
    let server = Server::start(move |_, request| match request.header("authorization") {
        Some("Basic YWRhOnB3") if request.method == "HEAD" => plain(404, &[]),
        Some("Basic YWRhOnB3") => plain(202, &[("Location", &at)]),
        _ => plain(401, &[("WWW-Authenticate", "Basic realm=x")]),
    });
    let registry = OciSource::new(OciOptions::default(), options(), Arc::default()).unwrap();
    let login = Credentials::Basic { user: "ada".into(), password: "pw".into() };
    let named = target(&format!("oci://{}/a/b:1", server.address)).with_credentials(login);
    let pusher = registry.pusher(&named).unwrap();
    let content = PushContent::Bytes(b"bytes".to_vec().into());
    let put = pusher.blob((ContentDigest::sha256(b"bytes"), 5), &content, None, &|_| {}).await;
    assert_eq!(put.unwrap(), Put::Sent);
    assert!(state.lock().unwrap().blob.as_deref() == Some(&b"bytes"[..]));
    let asked = elsewhere.requests();
    assert_eq!(asked.len(), 2, "a part, and the end");
    assert!(asked.iter().all(|asked| asked.header("authorization").is_none()), "{asked:?}");
}

#[tokio::test]
async fn a_document_has_the_name_that_it_was_named_by() {
    let server = Server::start(|_, _| plain(201, &[]));
    let registry = OciSource::new(OciOptions::default(), options(), Arc::default()).unwrap();
    let pusher = registry.pusher(&target(&format!("oci://{}/a/b:1", server.address))).unwrap();
    let document = bytes::Bytes::from_static(b"{}");
    let named = ContentDigest::sha512(&document);
    pusher.document(named, "application/json", &document).await.unwrap();
    let asked = server.requests().pop().unwrap();
    assert_eq!(asked.path, format!("/v2/a/b/manifests/{named}"));
    let other = ContentDigest::sha512(b"other");
    let refused = pusher.document(other, "application/json", &document).await.unwrap_err();
    assert!(refused.to_string().contains(&format!("not {other}")), "{refused}");
}
