//! Names and passwords: a file as `htpasswd -B` writes it.
//!
//! A password is held against its bcrypt hash, by few at a time and away from everything else; whoever is nobody is held
//! against one too, so that the time it takes does not tell who is known. What was right stays so for a while, as a keyed hash.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dfs_model::{printable, shortened};
use dfs_source::Credentials;
use dfs_source::oci::login_of;
use hyper::header::HeaderValue;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::file;

/// Most names in a file.
const MAX_USERS: usize = 10_000;

/// The work that a hash may ask for, as a power of two: 15 is about two seconds.
const MAX_COST: u32 = 15;

/// The longest password that all of bcrypt looks at.
const MAX_PASSWORD: usize = 72;

/// How long a password that was right needs no looking at, and how many are remembered.
const RIGHT_FOR: Duration = Duration::from_secs(300);
const MOST_RIGHT: usize = 4096;

/// Passwords that are looked at beside each other, and how long one may wait for that.
const BESIDE: usize = 2;
const TURN_WITHIN: Duration = Duration::from_secs(10);

/// A file that holds no users.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The file.
    #[error("cannot read the users in {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// A line of it.
    #[error("line {} of {}: {}", .1, .0.display(), .2)]
    Line(PathBuf, usize, String),
    /// Nobody is in it.
    #[error("{} names nobody: write a line with `htpasswd -B`", .0.display())]
    Nobody(PathBuf),
}

/// See the module.
pub struct Users {
    hashes: HashMap<String, String>,
    /// What somebody unknown is held against, at the highest cost of all.
    nobodys: String,
    cost: u32,
    right: Mutex<HashMap<[u8; 32], Instant>>,
    key: [u8; 32],
    turns: Arc<Semaphore>,
}

impl Users {
    /// Those in a file.
    pub fn load(path: &Path) -> Result<Self, UsersError> {
        let failed = |error| UsersError::File(path.to_owned(), error);
        Self::parse(path, &file::read(path).map_err(failed)?)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, UsersError> {
        let mut hashes = HashMap::new();
        let mut cost = 0;
        for (line, number) in text.lines().map(str::trim).zip(1..) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: String| UsersError::Line(path.to_owned(), number, why);
            let (user, hash) = user(line).map_err(wrong)?;
            let own_cost = cost_of(hash).map_err(wrong)?;
            cost = cost.max(own_cost);
            if hashes.insert(user.to_owned(), hash.to_owned()).is_some() {
                return Err(wrong(format!("'{}' stands there twice", printable(user))));
            }
            if hashes.len() > MAX_USERS {
                return Err(wrong(format!("there are more than {MAX_USERS}")));
            }
        }
        if hashes.is_empty() {
            return Err(UsersError::Nobody(path.to_owned()));
        }
        let nobodys = nobodys_hash(cost);
        let turns = Arc::new(Semaphore::new(BESIDE));
        let (right, key) = (Mutex::default(), blake3::derive_key("dfs.proxy.users.v1", &random()));
        Ok(Self { hashes, nobodys, cost, right, key, turns })
    }

    /// Whether a client that shows this may ask.
    pub async fn let_in(&self, shown: Option<&HeaderValue>) -> bool {
        let shown = shown.and_then(|shown| shown.to_str().ok()).map(login_of);
        let Some(Credentials::Basic { user, password }) = shown else { return false };
        let password = password.expose().to_owned();
        if password.len() > MAX_PASSWORD || password.contains('\0') {
            return false;
        }
        let name = blake3::keyed_hash(&self.key, format!("{user}\0{password}").as_bytes());
        if self.is_right(name.as_bytes(), Instant::now()) {
            return true;
        }
        let hashes = self.held_against(&user);
        let turn = tokio::time::timeout(TURN_WITHIN, Arc::clone(&self.turns).acquire_owned());
        let Ok(Ok(turn)) = turn.await else { return false };
        let looking = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            hashes.iter().fold(false, |is_right, (hash, is_users)| {
                bcrypt::verify(&password, hash).unwrap_or(false) && *is_users || is_right
            })
        });
        // It fails with the runtime.
        let is_right = looking.await.unwrap_or(false);
        if is_right {
            self.note(*name.as_bytes(), Instant::now());
        }
        is_right
    }

    /// The hashes that a password is held against, and which is the user's. Who is cheaper than others is held against
    /// nobody's, too: all take as long as the most expensive one.
    fn held_against(&self, user: &str) -> Vec<(String, bool)> {
        let own = self.hashes.get(user);
        let is_cheaper = own.is_none_or(|hash| cost_of(hash) != Ok(self.cost));
        let nobodys = is_cheaper.then(|| (self.nobodys.clone(), false));
        own.map(|hash| (hash.clone(), true)).into_iter().chain(nobodys).collect()
    }

    fn is_right(&self, name: &[u8; 32], now: Instant) -> bool {
        let right = self.right.lock();
        right.get(name).is_some_and(|since| now.duration_since(*since) < RIGHT_FOR)
    }

    fn note(&self, name: [u8; 32], now: Instant) {
        let mut right = self.right.lock();
        if right.len() >= MOST_RIGHT {
            right.retain(|_, since| now.duration_since(*since) < RIGHT_FOR);
        }
        if right.len() < MOST_RIGHT {
            right.insert(name, now);
        }
    }
}

fn user(line: &str) -> Result<(&str, &str), String> {
    let (user, hash) = line.split_once(':').ok_or("write it as USER:HASH")?;
    match user.is_empty() || user.len() > 255 {
        true => Err(format!("'{}' is no name", printable(&shortened(user, 40)))),
        false => Ok((user, hash)),
    }
}

/// What a hash asks for; it is looked at before it costs anything.
fn cost_of(hash: &str) -> Result<u32, String> {
    let other = "the password is not hashed with bcrypt, as `htpasswd -B` does";
    let is_bcrypt = ["$2y$", "$2b$", "$2a$"].iter().any(|kind| hash.starts_with(kind));
    let parts = hash.parse::<bcrypt::HashParts>().ok().filter(|_| is_bcrypt).ok_or(other)?;
    match parts.get_cost() {
        cost if cost > MAX_COST => Err(format!("a cost of {cost} is too much: {MAX_COST} at most")),
        cost => Ok(cost),
    }
}

/// A hash of this cost that nobody knows a password of.
fn nobodys_hash(cost: u32) -> String {
    let (salt, hash) = ("abcdefghijklmnopqrstuu", "abcdefghijklmnopqrstuvwxyz0123u");
    format!("$2b${cost:02}${salt}{hash}")
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    // Without a source of randomness the names of what was right could be guessed by who reads this memory.
    let _ = getrandom::fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    /// `htpasswd -bnB -C 4 ada hunter2`.
    const ADA: &str = "ada:$2y$04$Z0Oj9jAvN5asG1efPDsTCOEB8F7.8KwOqtZvwye14DaaA7zFa/W0i";

    fn parse(text: &str) -> Result<Users, String> {
        Users::parse(Path::new("users"), text).map_err(|error| error.to_string())
    }

    fn basic(pair: &str) -> HeaderValue {
        let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
        format!("Basic {encoded}").parse().unwrap()
    }

    #[tokio::test]
    async fn who_shows_the_password_is_let_in_and_nobody_else() {
        let users = parse(&format!("# people\n\n{ADA}\n")).unwrap();
        for _ in 0..2 {
            assert!(users.let_in(Some(&basic("ada:hunter2"))).await);
        }
        assert_eq!(users.right.lock().len(), 1);
        let long = format!("ada:{}", "x".repeat(100));
        for wrong in ["ada:hunter3", "ada:", "eve:hunter2", ":", "ada", "ada:hunter2\0", &long] {
            assert!(!users.let_in(Some(&basic(wrong))).await, "{wrong}");
        }
        for wrong in ["Bearer hunter2", "Basic !", "Basic", "x"] {
            assert!(!users.let_in(Some(&wrong.parse().unwrap())).await, "{wrong}");
        }
        assert!(!users.let_in(None).await);
    }

    #[test]
    fn what_was_right_is_looked_at_again_after_a_while() {
        let (users, now) = (parse(ADA).unwrap(), Instant::now());
        users.note([7; 32], now);
        assert!(users.is_right(&[7; 32], now) && !users.is_right(&[8; 32], now));
        assert!(!users.is_right(&[7; 32], now + RIGHT_FOR));
    }

    #[test]
    fn what_nobody_is_held_against_costs_as_much_as_the_others() {
        assert_eq!(cost_of(&nobodys_hash(12)), Ok(12));
        let bob = ADA.replace("ada", "bob").replace("$04$", "$06$");
        let users = parse(&format!("{ADA}\n{bob}")).unwrap();
        for (user, costs) in [("ada", vec![4, 6]), ("bob", vec![6]), ("eve", vec![6])] {
            let held = users.held_against(user);
            let held = held.iter().map(|(hash, _)| cost_of(hash).unwrap());
            assert_eq!(held.collect::<Vec<_>>(), costs, "{user}");
        }
    }

    #[test]
    fn what_names_nobody_is_refused_and_said_so() {
        for (text, says) in [
            ("", "users names nobody"),
            ("ada", "line 1 of users: write it as USER:HASH"),
            ("\nada:hunter2", "line 2 of users: the password is not hashed with bcrypt"),
            ("ada:{SHA}x", "not hashed with bcrypt"),
            (&ADA.replace("$04$", "$31$"), "a cost of 31 is too much"),
            (&format!("{ADA}\n{ADA}"), "'ada' stands there twice"),
            (&ADA.replace("ada", ""), "'' is no name"),
        ] {
            let error = parse(text).err().unwrap();
            assert!(error.contains(says), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
