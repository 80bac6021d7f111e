//! Join tokens in the database: by the hash of their secret, with what is left of them.
//!
//! A redemption is one transaction, so of two at once with one use left exactly one wins. It is remembered by the key
//! that it was for: who is killed before the answer was saved asks again and is answered again, until the token expires.

use dfs_model::HostId;
use dfs_service::tls::Role;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::Store;
use crate::manager::Error;

/// Tokens are remembered for so long after they expired, so that it can be said that they did: a day.
const REMEMBERED_MS: u64 = 24 * 3600 * 1000;

/// Most tokens at a time.
const MAX_TOKENS: i64 = 10_000;

/// A token that is made.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The hash of its secret.
    pub hash: [u8; 32],
    /// What it is for.
    pub role: Role,
    /// How often it is good.
    pub uses: u32,
    /// Until when, in milliseconds after 1970.
    pub expires_ms: u64,
}

/// Somebody has a token's secret and asks for a certificate.
#[derive(Debug, Clone)]
pub struct Redemption {
    /// The hash of the secret.
    pub token: [u8; 32],
    /// Stands for the key that the certificate is for.
    pub key: [u8; 32],
    /// What is asked for.
    pub role: Role,
    /// For whom, with the lasting key.
    pub host: (HostId, [u8; 32]),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redeemed {
    /// The certificate is due.
    Yes,
    /// It was given to this very key before, and is given again.
    Again,
    /// There is no such token, or not any more.
    Unknown,
    /// Its time is over.
    Expired,
    /// It was used as often as it is good.
    Used,
    /// It is for something else.
    For(Role),
    /// The host's id belongs to another key.
    ForeignId,
}

impl Store {
    /// Keeps a token; `false` where there are too many.
    pub async fn add_token(&self, token: NewToken, now_ms: u64) -> Result<bool, Error> {
        self.write(move |connection| add(connection, &token, now_ms)).await
    }

    /// Redeems a token.
    pub async fn redeem(&self, asked: Redemption, now_ms: u64) -> Result<Redeemed, Error> {
        self.write(move |connection| {
            let transaction = connection.transaction()?;
            let redeemed = redeem(&transaction, &asked, now_ms)?;
            transaction.commit()?;
            Ok(redeemed)
        })
        .await
    }

    /// The hosts of these whose id belongs to another key.
    pub async fn foreign(&self, hosts: Vec<(HostId, [u8; 32])>) -> Result<Vec<HostId>, Error> {
        self.write(move |connection| {
            let mut foreign = Vec::new();
            for (host, key) in hosts {
                if pinned(connection, &host)?.is_some_and(|known| known != key) {
                    foreign.push(host);
                }
            }
            Ok(foreign)
        })
        .await
    }
}

/// Reads all there is, so that what is damaged is found at the start and not by who wants to join.
pub(super) fn look_through(connection: &Connection) -> rusqlite::Result<()> {
    let bytes = |row: &rusqlite::Row<'_>| row.get::<_, Vec<u8>>(0);
    super::rows(connection, "SELECT hash FROM tokens", bytes)?;
    super::rows(connection, "SELECT token FROM redemptions", bytes)?;
    Ok(())
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn add(connection: &mut Connection, token: &NewToken, now_ms: u64) -> rusqlite::Result<bool> {
    let transaction = connection.transaction()?;
    let old = signed(now_ms.saturating_sub(REMEMBERED_MS));
    let forget =
        "DELETE FROM redemptions WHERE token IN (SELECT hash FROM tokens WHERE expires_ms < ?1)";
    transaction.execute(forget, params![old])?;
    transaction.execute("DELETE FROM tokens WHERE expires_ms < ?1", params![old])?;
    let count: i64 = transaction.query_row("SELECT count(*) FROM tokens", [], |row| row.get(0))?;
    if count >= MAX_TOKENS {
        return Ok(false);
    }
    let insert = "INSERT INTO tokens (hash, role, uses_left, expires_ms) VALUES (?1, ?2, ?3, ?4)";
    let role: i32 = token.role.wire().into();
    let values = params![token.hash.as_slice(), role, token.uses, signed(token.expires_ms)];
    transaction.execute(insert, values)?;
    transaction.commit()?;
    Ok(true)
}

fn redeem(
    transaction: &Transaction<'_>,
    asked: &Redemption,
    now_ms: u64,
) -> rusqlite::Result<Redeemed> {
    let query = "SELECT role, uses_left, expires_ms FROM tokens WHERE hash = ?1";
    let token = asked.token.as_slice();
    let read = |row: &rusqlite::Row<'_>| {
        Ok((row.get::<_, i32>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    };
    let found = transaction.query_row(query, params![token], read).optional()?;
    let Some((role, uses_left, expires_ms)) = found else { return Ok(Redeemed::Unknown) };
    if expires_ms <= signed(now_ms) {
        return Ok(Redeemed::Expired);
    }
    let wire = dfs_proto::manager::Role::try_from(role).unwrap_or_default();
    match Role::of_wire(wire) {
        Some(role) if role == asked.role => {}
        Some(role) => return Ok(Redeemed::For(role)),
        None => return Ok(Redeemed::Unknown),
    }
    let (host, public) = &asked.host;
    if pinned(transaction, host)?.is_some_and(|known| known != *public) {
        return Ok(Redeemed::ForeignId);
    }
    let before = "SELECT 1 FROM redemptions WHERE token = ?1 AND key = ?2";
    let key = asked.key.as_slice();
    let before = transaction.query_row(before, params![token, key], |_| Ok(())).optional()?;
    if before.is_some() {
        return Ok(Redeemed::Again);
    }
    if uses_left <= 0 {
        return Ok(Redeemed::Used);
    }
    let used = "UPDATE tokens SET uses_left = uses_left - 1 WHERE hash = ?1";
    transaction.execute(used, params![token])?;
    let remember = "INSERT INTO redemptions (token, key) VALUES (?1, ?2)";
    transaction.execute(remember, params![token, key])?;
    let pin = "INSERT OR IGNORE INTO keys (host_id, public_key) VALUES (?1, ?2)";
    transaction.execute(pin, params![host.as_bytes().as_slice(), public.as_slice()])?;
    Ok(Redeemed::Yes)
}

/// The key that a host came with first.
fn pinned(connection: &Connection, host: &HostId) -> rusqlite::Result<Option<[u8; 32]>> {
    let query = "SELECT public_key FROM keys WHERE host_id = ?1";
    let id = host.as_bytes().as_slice();
    let found = connection.query_row(query, params![id], |row| row.get::<_, Vec<u8>>(0));
    // A key of another length is nobody's.
    Ok(found.optional()?.map(|key| key.try_into().unwrap_or([0; 32])))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000_000;

    fn token(n: u8, uses: u32) -> NewToken {
        NewToken { hash: [n; 32], role: Role::Node, uses, expires_ms: NOW + 1000 }
    }

    fn asks(token: u8, n: u8) -> Redemption {
        let host = (HostId::from_bytes([n; 16]), [n; 32]);
        Redemption { token: [token; 32], key: [n; 32], role: Role::Node, host }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(&dir.path().join("manager.db")).unwrap();
        (dir, store)
    }

    #[tokio::test]
    async fn a_token_is_good_once_and_again_only_for_the_same_key() {
        let (_dir, store) = store();
        assert!(store.add_token(token(1, 1), NOW).await.unwrap());
        assert_eq!(store.redeem(asks(1, 1), NOW).await.unwrap(), Redeemed::Yes);
        assert_eq!(store.redeem(asks(1, 1), NOW).await.unwrap(), Redeemed::Again);
        assert_eq!(store.redeem(asks(1, 2), NOW).await.unwrap(), Redeemed::Used);
        assert_eq!(store.redeem(asks(2, 2), NOW).await.unwrap(), Redeemed::Unknown);
        assert_eq!(store.redeem(asks(1, 1), NOW + 1000).await.unwrap(), Redeemed::Expired);
    }

    #[tokio::test]
    async fn of_many_who_redeem_one_token_at_once_exactly_one_wins() {
        let (_dir, store) = store();
        store.add_token(token(1, 1), NOW).await.unwrap();
        let all = (1..=32).map(|n| store.redeem(asks(1, n), NOW));
        let all = futures::future::try_join_all(all).await.unwrap();
        let count = |which: Redeemed| all.iter().filter(|redeemed| **redeemed == which).count();
        assert_eq!((count(Redeemed::Yes), count(Redeemed::Used)), (1, 31));
    }

    #[tokio::test]
    async fn a_token_is_for_its_role_and_takes_nobodys_name_away() {
        let (_dir, store) = store();
        store.add_token(token(1, 2), NOW).await.unwrap();
        let as_seed = Redemption { role: Role::Seed, ..asks(1, 1) };
        assert_eq!(store.redeem(as_seed, NOW).await.unwrap(), Redeemed::For(Role::Node));
        assert_eq!(store.redeem(asks(1, 1), NOW).await.unwrap(), Redeemed::Yes);
        let thief = Redemption { host: (HostId::from_bytes([1; 16]), [9; 32]), ..asks(1, 2) };
        assert_eq!(store.redeem(thief, NOW).await.unwrap(), Redeemed::ForeignId);
        let (own, other) = (asks(1, 1).host, (HostId::from_bytes([1; 16]), [9; 32]));
        assert_eq!(store.foreign(vec![own, asks(1, 7).host]).await.unwrap(), []);
        assert_eq!(store.foreign(vec![other]).await.unwrap(), [other.0]);
        assert_eq!(store.redeem(asks(1, 3), NOW).await.unwrap(), Redeemed::Yes, "one was left");
    }

    #[tokio::test]
    async fn tokens_survive_a_restart_and_are_forgotten_a_day_after_their_end() {
        let (dir, store) = store();
        store.add_token(token(1, 1), NOW).await.unwrap();
        store.redeem(asks(1, 1), NOW).await.unwrap();
        drop(store);
        let (store, _) = Store::open(&dir.path().join("manager.db")).unwrap();
        assert_eq!(store.redeem(asks(1, 2), NOW).await.unwrap(), Redeemed::Used);
        let later = NOW + 1001 + REMEMBERED_MS;
        let next = NewToken { expires_ms: later + 1, ..token(2, 1) };
        store.add_token(next, later).await.unwrap();
        assert_eq!(store.redeem(asks(1, 1), later).await.unwrap(), Redeemed::Unknown);
        assert_eq!(store.redeem(asks(2, 2), later).await.unwrap(), Redeemed::Yes);
    }
}
