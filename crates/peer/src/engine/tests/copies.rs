//! What other tasks have of a listing's members.

use dfs_artifact::members::{Member, MemberTable};
use dfs_artifact::{OriginRecipe, Place};
use dfs_source::Credentials;

use super::super::earlier::Earlier;
use super::*;

/// A version of a listing: members of `length` bytes, each where it is named.
pub(in crate::engine) fn version(members: &[(u64, u64)], length: u64) -> (Recipe, FakeOrigin) {
    let member = |&(number, offset): &(u64, u64)| {
        let etag = Some(format!("\"{number}\""));
        let validator = Validator { etag, length: Some(length), ..Validator::default() };
        // A thousand more is another version of it.
        let path = format!("m{:03}", number % 1000).into_bytes();
        Member { path, offset, length, validator }
    };
    let table = MemberTable::new(members.iter().map(member)).unwrap();
    let mut content = vec![0; table.length() as usize];
    for (number, offset) in members {
        let own = &mut content[*offset as usize..(offset + length) as usize];
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(own);
    }
    let mut origin = FakeOrigin::new(0);
    origin.content = content.into();
    let mut key = origin.info().key;
    key.validator.etag = Some(format!("{members:?}"));
    let place = Place { url: key.url.clone(), headers: Vec::new() };
    let length = Some(table.length());
    let origin_of = OriginRecipe::Members { base: place, table: Arc::new(table) };
    (Recipe { key, length, origin: origin_of }, origin)
}

/// Opens the only space of a version.
pub(in crate::engine) async fn open(
    engine: &Engine,
    (recipe, origin): (Recipe, FakeOrigin),
) -> (Task, Arc<FakeOrigin>) {
    let origin = Arc::new(origin);
    let info = TaskInfo::new(recipe.key.clone(), recipe.length, true);
    let task = engine.open(&info, Some(recipe.clone()), Some(origin.clone())).await.unwrap();
    let nobody = Credentials::None;
    engine.look_for_earlier(std::slice::from_ref(&task), &[recipe], &nobody).await;
    (task, origin)
}

fn earlier(task: &Task) -> &Earlier {
    task.shared.earlier.get().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_version_has_is_copied_wherever_it_lies_and_only_the_rest_is_fetched() {
    let (field, groups) = (Field::new(), |range: std::ops::Range<u64>| range.map(|at| at * GROUP));
    let (engine, _dir) = field.engine(Role::Solo, &[]);
    let before: Vec<_> = (1..=400).zip(groups(0..400)).collect();
    let (first, _) = open(&engine, version(&before, GROUP)).await;
    read_all(&first).await;
    // One comes first, and one changes: the others lie elsewhere.
    let numbers = (0..=200).chain([1201]).chain(202..=400);
    let after: Vec<_> = numbers.zip(groups(0..401)).collect();
    let (second, origin) = open(&engine, version(&after, GROUP)).await;
    assert!(earlier(&second).has_others());
    assert_eq!(read_all(&second).await, origin.content);
    assert_eq!(origin.sent.load(Ordering::Relaxed), 2 * GROUP);
    assert_eq!(second.ledger().cache_bytes, 399 * GROUP);
    assert!(!earlier(&second).has_others(), "what is all here needs nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_members_that_lie_together_are_read_together() {
    let (field, at) = (Field::new(), |number: u64| (number, number * 4096));
    let (engine, _dir) = field.engine(Role::Solo, &[]);
    let before: Vec<_> = (0..160).map(at).collect();
    let (first, _) = open(&engine, version(&before, 4000)).await;
    read_all(&first).await;
    let after: Vec<_> = (3..160).map(|number| (number, (number - 3) * 4096)).collect();
    let (second, origin) = open(&engine, version(&after, 4000)).await;
    assert_eq!(read_all(&second).await, origin.content);
    assert_eq!(origin.sent.load(Ordering::Relaxed), 0);
    // Each of ten groups has the members of two.
    let reads = earlier(&second).reads.load(Ordering::Relaxed);
    assert!((10..=20).contains(&reads), "{reads} reads for 157 members");
}
