//! A fill beside somebody who waits.

use futures::FutureExt;
use futures::future::pending;

use super::*;

/// An origin that is asked, and never answers.
struct Silent(FakeOrigin);

#[async_trait]
impl Origin for Silent {
    fn length(&self) -> Option<u64> {
        self.0.length()
    }

    fn ranges(&self) -> bool {
        true
    }

    fn count_in(&self, count: &RequestCount) {
        self.0.count_in(count);
    }

    async fn read(&self, _: Option<ByteRange>) -> Result<ByteStream, SourceError> {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        pending().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_takes_turns_while_somebody_waits_and_goes_on_to_its_end() {
    let field = Field::new();
    let (engine, _dir) = field.engine(Role::Solo, &[]);
    let takes_turns = || {
        let (task, groups) = (TaskId::from_bytes([7; 32]), GroupRange::new(0, 1));
        let turn = engine.inner.turns.turn(Priority::Background, task, groups).now_or_never();
        !matches!(turn, Some(None))
    };
    let (silent, origin) =
        (Arc::new(Silent(FakeOrigin::new(GROUP))), Arc::new(FakeOrigin::new(100 * GROUP)));
    let mut key = silent.0.info().key;
    key.url = CanonicalUrl::parse("http://origin.test/silent").unwrap();
    let info = TaskInfo::new(key, Some(GROUP), true);
    let waited = engine.open(&info, None, Some(silent.clone())).await.unwrap();
    let filled = engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    assert!(!takes_turns());
    let reader = field
        .tracker
        .spawn(async move { waited.ensure(ByteRange::new(0, GROUP), Priority::Demand).await });
    wait_until(|| silent.0.requests.load(Ordering::Relaxed) > 0).await;
    assert!(takes_turns());
    filled.ensure(ByteRange::new(0, 100 * GROUP), Priority::Background).await.unwrap();
    assert_eq!(origin.sent.load(Ordering::Relaxed), 100 * GROUP);
    // Who gives up waits no more.
    reader.abort();
    assert!(reader.await.is_err());
    assert!(!takes_turns());
}
