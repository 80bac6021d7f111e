//! Whose keys are used, for whom, and until when; regions; a store under pressure.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use dfs_source::s3::Environment;
use dfs_source::{Asking, Credentials, S3Options, Source, SourceError, Target};

use crate::moto::{Moto, asked_by, client, stranger};
use crate::scripted::{Request, Server, Step, file, head};
use crate::{Client, content, failure, options, target};

fn environment(variables: &[(&str, &str)]) -> Environment {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    variables.iter().map(own).collect()
}

/// A client in these surroundings, whose store is at `address`.
fn in_surroundings(address: &str, variables: &[(&str, &str)]) -> Client {
    let endpoint = Some(format!("http://{address}"));
    let environment = Some(environment(variables));
    client(S3Options { endpoint, environment, ..S3Options::default() }, options())
}

fn text(body: &str) -> Vec<Step> {
    let length = body.len().to_string();
    vec![head(200, &[("Content-Length", &length)]), Step::Send(body.as_bytes().to_vec())]
}

/// A refusal as stores send it: with a body that says why, except to HEAD.
fn refusal(request: &Request, status: u16, headers: &[(&str, &str)], code: &str) -> Vec<Step> {
    let body = format!("<Error><Code>{code}</Code></Error>");
    let length = body.len().to_string();
    let mut all = vec![("Content-Length", &*length)];
    all.extend_from_slice(headers);
    let body = if request.method == "HEAD" { Vec::new() } else { body.into_bytes() };
    vec![head(status, &all), Step::Send(body)]
}

/// The id of the keys that signed a request.
fn signer(request: &Request) -> Option<&str> {
    request.header("authorization")?.split("Credential=").nth(1)?.split('/').next()
}

async fn meant(client: &Client, url: &str) -> (Arc<dyn Source>, Target) {
    let bare = target(url);
    let source = client.source(&bare);
    let meant = source.complete(&bare, Asking::Own).await.unwrap();
    (source, meant)
}

#[tokio::test]
async fn keys_of_variables_are_used_for_their_own_user_and_store_only() {
    let server = Server::start(|_, request| file(&content(10), "\"e\"", request));
    let address = server.address.to_string();
    let variables = [("AWS_ACCESS_KEY_ID", "AKIA1"), ("AWS_SECRET_ACCESS_KEY", "s")];
    let client = in_surroundings(&address, &variables);
    let (source, own) = meant(&client, "s3://lab/a").await;
    source.stat(&own).await.unwrap();

    let other = source.complete(&target("s3://lab/a"), Asking::Other).await.unwrap();
    assert!(other.credentials.is_none());
    source.stat(&other).await.unwrap();
    // A URL may name any store: nobody's keys go there unasked.
    let elsewhere = meant(&client, "s3://lab/a?endpoint=http://elsewhere.example").await.1;
    assert!(elsewhere.credentials.is_none());
    let anonymous = meant(&client, "s3://anonymous@lab/a").await.1;
    assert!(anonymous.credentials.is_none());

    let signers: Vec<_> = server.requests().iter().map(|r| signer(r).map(str::to_owned)).collect();
    assert_eq!(signers, [Some("AKIA1".to_owned()), None]);
}

#[tokio::test]
async fn a_web_identity_is_exchanged_at_a_real_token_service_and_its_keys_are_taken() {
    let store = Moto::start();
    store.bucket("lab").await;
    store.put("lab", b"a", &content(100)).await;
    let form = "Action=CreateRole&RoleName=reader&AssumeRolePolicyDocument=%7B%7D";
    store.call("iam", form).await;
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "a.web.token\n").unwrap();
    let sts = format!("http://{}", store.address);
    let client = in_surroundings(
        &store.address,
        &[
            ("AWS_ENDPOINT_URL_STS", &sts),
            ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", token.path().to_str().unwrap()),
        ],
    );
    store.forget().await;
    let (source, own) = meant(&client, "s3://lab/a").await;
    let Credentials::Keys(keys) = &own.credentials else { panic!("{own:?}") };
    assert!(keys.id.starts_with("ASIA") && keys.token.is_some());
    assert!(keys.expires.unwrap() > SystemTime::now() + Duration::from_secs(60));
    assert!(!format!("{own:?}").contains(keys.secret.expose()));
    assert_eq!(source.stat(&own).await.unwrap().length, Some(100));
    // Kept while they last: one exchange for all.
    for _ in 0..3 {
        assert_eq!(meant(&client, "s3://lab/a").await.1, own);
    }
    assert_eq!(store.requests(2).len(), 2);
}

/// Keys as the container's service hands them out: those of request `n`, which end at once when
/// `short`.
fn handed(number: usize, short: bool) -> Vec<Step> {
    let year = if short { 1999 } else { 2999 };
    text(&format!(
        r#"{{"AccessKeyId":"ASIA{number}","SecretAccessKey":"s","Token":"t","Expiration":"{year}-01-01T00:00:00Z"}}"#
    ))
}

#[tokio::test]
async fn keys_that_end_are_followed_by_newer_ones_also_for_what_is_open() {
    let keys = Server::start(|number, request| {
        assert_eq!(request.header("authorization"), Some("Bearer of-the-container"));
        handed(number, number == 0)
    });
    let server = Server::start(|_, request| file(&content(10), "\"e\"", request));
    let client = in_surroundings(
        &server.address.to_string(),
        &[
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &keys.url("/keys")),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "Bearer of-the-container"),
        ],
    );
    let (source, own) = meant(&client, "s3://lab/a").await;
    for _ in 0..3 {
        source.stat(&own).await.unwrap();
    }
    let signers: Vec<_> = server.requests().iter().map(|r| signer(r).unwrap().to_owned()).collect();
    assert_eq!(signers, ["ASIA1"; 3]);
    assert_eq!(keys.requests().len(), 2);
}

#[tokio::test]
async fn a_store_that_calls_keys_expired_is_asked_once_more_with_new_ones() {
    let keys = Server::start(|number, _| handed(number, false));
    let expired = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&expired);
    let server = Server::start(move |_, request| match signer(request) {
        Some("ASIA0") => {
            seen.fetch_add(1, Ordering::SeqCst);
            refusal(request, 400, &[], "ExpiredToken")
        }
        _ => file(&content(10), "\"e\"", request),
    });
    let variables = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*keys.url("/keys"))];
    let client = in_surroundings(&server.address.to_string(), &variables);
    let (source, own) = meant(&client, "s3://lab/a").await;
    let pin = crate::tagged("\"e\"", 10);
    let read = source.read(&own, None, &pin).await.unwrap();
    assert_eq!(crate::collect(read).await.unwrap(), content(10));
    assert_eq!((expired.load(Ordering::SeqCst), keys.requests().len()), (1, 2));
    // Keys of somebody else are not replaced.
    let theirs = dfs_source::AccessKeys {
        id: "ASIA0".into(),
        secret: "s".into(),
        token: None,
        expires: None,
    };
    let theirs = asked_by(own.url.as_str(), &theirs);
    let stranger = stranger();
    let error = failure(stranger.source(&theirs).read(&theirs, None, &pin).await);
    assert!(error.to_string().contains("400 ExpiredToken"), "{error}");
}

#[tokio::test]
async fn a_program_of_the_users_own_is_run_once_and_again_when_its_keys_have_ended() {
    let home = tempfile::tempdir().unwrap();
    let (config, printed) = (home.path().join("config"), home.path().join("printed"));
    let line = format!("echo ran >> {0}.runs; cat {0}", printed.display());
    std::fs::write(&config, format!("[profile made]\ncredential_process = {line}\n")).unwrap();
    let print = |id: &str| {
        let keys = format!(
            r#"{{"Version":1,"AccessKeyId":"{id}","SecretAccessKey":"s","Expiration":"2999-01-01T00:00:00Z"}}"#
        );
        std::fs::write(&printed, keys).unwrap();
    };
    let server = Server::start(move |_, request| match signer(request) {
        Some("ASIA0") => refusal(request, 400, &[], "ExpiredToken"),
        _ => file(&content(10), "\"e\"", request),
    });
    let variables = [("AWS_PROFILE", "made"), ("AWS_CONFIG_FILE", config.to_str().unwrap())];
    let client = in_surroundings(&server.address.to_string(), &variables);
    print("ASIA0");
    let (source, own) = meant(&client, "s3://lab/a").await;
    assert!(matches!(&own.credentials, Credentials::Keys(keys) if keys.id == "ASIA0"), "{own:?}");
    print("ASIA1");
    let pin = crate::tagged("\"e\"", 10);
    for _ in 0..2 {
        let read = source.read(&own, None, &pin).await.unwrap();
        assert_eq!(crate::collect(read).await.unwrap(), content(10));
    }
    let runs = std::fs::read_to_string(home.path().join("printed.runs")).unwrap();
    assert_eq!(runs.lines().count(), 2);

    std::fs::write(&printed, "nothing").unwrap();
    let client = in_surroundings(&server.address.to_string(), &variables);
    let bare = target("s3://lab/a");
    let error = failure(client.source(&bare).complete(&bare, Asking::Own).await);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        cause.starts_with("the credential_process of profile 'made' printed no JSON"),
        "{cause}"
    );
}

/// A profile whose program leaves a line in a file each time it runs, and what it prints.
fn program(home: &std::path::Path, line: &str) -> (String, std::path::PathBuf) {
    let (config, runs) = (home.join("config"), home.join("runs"));
    let line = format!("echo ran >> {}; {line}", runs.display());
    std::fs::write(&config, format!("[profile made]\ncredential_process = {line}\n")).unwrap();
    (config.to_str().unwrap().to_owned(), runs)
}

fn times(runs: &std::path::Path) -> usize {
    std::fs::read_to_string(runs).unwrap().lines().count()
}

#[tokio::test]
async fn a_program_whose_keys_are_about_to_end_is_not_run_for_each_request() {
    let home = tempfile::tempdir().unwrap();
    let line = r#"printf '{"Version":1,"AccessKeyId":"A","SecretAccessKey":"s","Expiration":"%s"}' $(date -u -d '4 minutes' +%Y-%m-%dT%H:%M:%SZ)"#;
    let (config, runs) = program(home.path(), line);
    let server = Server::start(|_, request| file(&content(10), "\"e\"", request));
    let variables = [("AWS_PROFILE", "made"), ("AWS_CONFIG_FILE", &*config)];
    let client = in_surroundings(&server.address.to_string(), &variables);
    let (source, own) = meant(&client, "s3://lab/a").await;
    let pin = crate::tagged("\"e\"", 10);
    for _ in 0..3 {
        let read = source.read(&own, None, &pin).await.unwrap();
        assert_eq!(crate::collect(read).await.unwrap(), content(10));
    }
    assert!(server.requests().iter().all(|request| signer(request) == Some("A")));
    assert_eq!(times(&runs), 1);
}

#[tokio::test]
async fn a_program_that_fails_is_not_run_for_each_who_waits() {
    let home = tempfile::tempdir().unwrap();
    let (config, runs) = program(home.path(), "exit 3");
    let variables = [("AWS_PROFILE", "made"), ("AWS_CONFIG_FILE", &*config)];
    let client = in_surroundings("127.0.0.1:9", &variables);
    let bare = target("s3://lab/a");
    let source = client.source(&bare);
    let ask = || async { failure(source.complete(&bare, Asking::Own).await).to_string() };
    let (one, other) = tokio::join!(ask(), ask());
    assert_eq!(one, other);
    assert_eq!(times(&runs), 1);
}

#[tokio::test]
async fn the_machine_is_asked_in_a_session_and_its_absence_is_no_failure() {
    let machine = Server::start(|_, request| match (&*request.method, &*request.path) {
        ("PUT", "/latest/api/token") => text("session"),
        (_, path) => {
            assert_eq!(request.header("x-aws-ec2-metadata-token"), Some("session"));
            match path.strip_prefix("/latest/meta-data/iam/security-credentials/") {
                Some("") => text("reader"),
                Some("reader") => handed(7, false),
                _ => crate::scripted::status(404),
            }
        }
    });
    let endpoint = format!("http://{}", machine.address);
    let client =
        in_surroundings("store.example", &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint)]);
    let own = meant(&client, "s3://lab/a").await.1;
    assert!(matches!(&own.credentials, Credentials::Keys(keys) if keys.id == "ASIA7"), "{own:?}");

    let nobody = Server::start(|_, _| crate::scripted::status(404));
    let endpoint = format!("http://{}", nobody.address);
    let client =
        in_surroundings("store.example", &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint)]);
    for _ in 0..3 {
        assert!(meant(&client, "s3://lab/a").await.1.credentials.is_none());
    }
    assert_eq!(nobody.requests().len(), 1, "that there are none is remembered");
    let far = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://far.example/keys")];
    let client = in_surroundings("store.example", &far);
    let bare = target("s3://lab/a");
    let error = failure(client.source(&bare).complete(&bare, Asking::Own).await);
    assert!(error.to_string().contains("neither https nor on this machine"), "{error}");
}

#[tokio::test]
async fn a_service_that_refuses_keys_is_not_asked_by_each_who_waits() {
    let service = Server::start(|_, _| crate::scripted::status(403));
    let at = format!("http://{}/keys", service.address);
    let client = in_surroundings("store.example", &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &at)]);
    let names: Vec<_> = (0..8).map(|n| target(&format!("s3://lab/{n}"))).collect();
    let source = client.source(&names[0]);
    let asked = names.iter().map(|name| source.complete(name, Asking::Own));
    for (name, answer) in names.iter().zip(futures::future::join_all(asked).await) {
        let error = failure(answer).to_string();
        assert!(error.contains(name.url.as_str()), "{error} is not about {}", name.url);
    }
    assert_eq!(service.requests().len(), 1);
}

#[tokio::test]
async fn the_right_region_is_learned_once_for_a_bucket() {
    let server = Server::start(|_, request| {
        let scope = request.header("authorization").unwrap().split("Credential=").nth(1).unwrap();
        match scope.split('/').nth(2).unwrap() {
            "eu-west-3" => file(&content(10), "\"e\"", request),
            _ => {
                refusal(request, 301, &[("x-amz-bucket-region", "eu-west-3")], "PermanentRedirect")
            }
        }
    });
    let keys =
        dfs_source::AccessKeys { id: "A".into(), secret: "s".into(), token: None, expires: None };
    let own = asked_by(&format!("s3://lab/a?endpoint=http://{}", server.address), &keys);
    let client = stranger();
    for _ in 0..3 {
        client.source(&own).stat(&own).await.unwrap();
    }
    assert_eq!(server.requests().len(), 4);

    let lost = Server::start(|_, request| {
        refusal(request, 301, &[("x-amz-bucket-region", "us-east-1")], "X")
    });
    let own = asked_by(&format!("s3://lab/a?endpoint=http://{}", lost.address), &keys);
    let error = failure(client.source(&own).stat(&own).await);
    assert!(matches!(error, SourceError::Redirect { .. }), "{error:?}");
    assert_eq!(lost.requests().len(), 1);
}

#[tokio::test]
async fn a_store_under_pressure_is_asked_again_and_a_clock_that_is_wrong_is_named() {
    let server = Server::start(|number, request| match number {
        0 | 1 => refusal(request, 503, &[], "SlowDown"),
        2 => refusal(request, 400, &[], "RequestTimeout"),
        _ => file(&content(10), "\"e\"", request),
    });
    let url = |server: &Server| format!("s3://lab/a?endpoint=http://{}", server.address);
    let client = stranger();
    assert_eq!(
        client.read(&url(&server), None, &crate::tagged("\"e\"", 10)).await.unwrap(),
        content(10)
    );
    assert_eq!((server.requests().len(), client.counted().retries), (4, 3));

    let date = [("Date", "Sun, 06 Nov 1994 08:49:37 GMT")];
    let server =
        Server::start(move |_, request| refusal(request, 403, &date, "RequestTimeTooSkewed"));
    let error = failure(client.stat(&url(&server)).await).to_string();
    assert!(error.contains("the clock here is") && error.contains("minutes ahead"), "{error}");
    // Once by HEAD, whose answer says nothing, and once to learn why.
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn who_may_list_a_prefix_and_not_read_it_is_refused() {
    let server = Server::start(|_, request| match request.method.as_str() {
        "HEAD" => crate::scripted::status(403),
        _ => text(
            "<ListBucketResult><Contents><Key>d/a</Key><Size>1</Size></Contents></ListBucketResult>",
        ),
    });
    let url = format!("s3://lab/d/?endpoint=http://{}", server.address);
    let keys =
        dfs_source::AccessKeys { id: "A".into(), secret: "s".into(), token: None, expires: None };
    let own = asked_by(&url, &keys);
    let error = failure(stranger().source(&own).stat(&own).await);
    assert!(error.to_string().contains("its objects not read"), "{error}");
    assert_eq!(server.requests().len(), 2);
    // Nobody in particular is given what anybody reads.
    stranger().stat(&url).await.unwrap();
    assert_eq!(server.requests().len(), 3);
}
