//! Images that are shown: mounted whole when the first of their layers is asked for, given back when the last is gone.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dfs_artifact::resolve::ImageLayers;
use dfs_model::UrlError;
use dfs_peer::error_chain;
use dfs_peer::opener::OpenUrlError;
use dfs_source::oci::{ContentDigest, Reference};
use dfs_source::{SourceError, Target};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedMutexGuard};

use super::dirs::Dirs;
use super::logins::Logins;
use super::named::Named;
use super::store::Layer;
use crate::agent::{Agent, BlobTasks, CallError, Freed, MountTableError};

/// How long it is believed of what layers an image is made, and that it cannot be shown: as long as its other layers are asked
/// for, one after the other.
const BELIEVED: Duration = Duration::from_secs(60);

/// Images of which that is known.
const KNOWN: usize = 32;

/// How long an image stays mounted of which the last layer was not asked for.
const PULLED_WITHIN: Duration = Duration::from_secs(300);

/// How often it is tried to give back what something still uses.
const TRY_EVERY: Duration = Duration::from_millis(500);
const TRIES: u32 = 120;

/// What is known of an image.
struct Known {
    target: Target,
    layers: Result<Arc<ImageLayers>, String>,
    since: Instant,
}

/// An image whose layers are being asked for.
struct Pulled {
    since: Instant,
    /// What is read of it to show it, whether its layer is asked for or not.
    blobs: Vec<ContentDigest>,
}

/// See the module.
pub(super) struct Shown {
    agent: Agent,
    dirs: Dirs,
    tasks: Arc<BlobTasks>,
    logins: Arc<Logins>,
    known: Mutex<VecDeque<Known>>,
    /// Images whose layers are being asked for, by the name of the stack of all of them.
    pulled: Mutex<HashMap<String, Pulled>>,
    /// Who mounts or takes away a stack does so alone.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Blobs to be given back, and how often that was tried.
    freeing: Mutex<BTreeMap<ContentDigest, u32>>,
    wanted: Notify,
}

impl Shown {
    pub fn new(agent: Agent, dirs: Dirs) -> Self {
        Self {
            agent,
            dirs,
            tasks: Arc::default(),
            logins: Arc::default(),
            known: Mutex::default(),
            pulled: Mutex::default(),
            turns: Mutex::default(),
            freeing: Mutex::default(),
            wanted: Notify::new(),
        }
    }

    /// Logins that came with requests to pull images.
    pub fn logins(&self) -> Arc<Logins> {
        Arc::clone(&self.logins)
    }

    /// The layer that is named, of an image that is mounted; what else comes keeps that from being taken away. Why that
    /// cannot be, in words.
    pub async fn image_of(
        &self,
        named: &Named,
        is_lowest: bool,
    ) -> Result<(Layer, OwnedMutexGuard<()>), String> {
        let target = self.logins.with(named.target.clone());
        let image = self.layers_of(&target).await?;
        let is_it = |layer: &dfs_artifact::resolve::NamedLayer| {
            layer.blob == named.blob && layer.chain == named.chain
        };
        let at = image.layers.iter().position(is_it);
        let at = at.filter(|at| (*at == 0) == is_lowest);
        let at = at.ok_or("the image has no such layer in this place")?;
        let top = image.layers.last().ok_or("the image has no layers")?.chain.to_string();
        let count = u32::try_from(image.layers.len()).map_err(|error| error.to_string())?;
        let of_number = |number: u32, blob: &ContentDigest| Layer {
            image: image.image.url().as_str().to_owned(),
            number,
            of: count,
            top: top.clone(),
            digest: blob.to_string(),
        };
        let blobs = image.layers.iter().map(|layer| layer.blob).collect();
        self.pulled.lock().insert(top.clone(), Pulled { since: Instant::now(), blobs });
        // Whoever waits looks after it from now on: it may be given up.
        self.wanted.notify_one();
        let turn = self.turn(&top).await;
        let whole = of_number(count, &named.blob);
        if let Err(error) = self.show_now(&top, &whole).await {
            self.pulled.lock().remove(&top);
            let why = error_chain(&error);
            self.believe(target, Err(why.clone()));
            return Err(why);
        }
        // Counted from one.
        let number = u32::try_from(at + 1).map_err(|error| error.to_string())?;
        Ok((of_number(number, &named.blob), turn))
    }

    async fn layers_of(&self, target: &Target) -> Result<Arc<ImageLayers>, String> {
        let is_it = |known: &&Known| known.target == *target && known.since.elapsed() < BELIEVED;
        if let Some(known) = self.known.lock().iter().find(is_it) {
            return known.layers.clone();
        }
        let layers = self.agent.image_layers(target).await;
        let layers = layers.map(Arc::new).map_err(|error| error_chain(&error));
        self.believe(target.clone(), layers.clone());
        layers
    }

    fn believe(&self, target: Target, layers: Result<Arc<ImageLayers>, String>) {
        let mut known = self.known.lock();
        known.retain(|known| known.target != target && known.since.elapsed() < BELIEVED);
        if known.len() == KNOWN {
            known.pop_front();
        }
        known.push_back(Known { target, layers, since: Instant::now() });
    }

    /// Has the stack of this name be mounted, which is that of all layers up to this one.
    pub async fn show(&self, name: &str, layer: &Layer) -> Result<(), CallError> {
        let _turn = self.turn(name).await;
        self.show_now(name, layer).await
    }

    /// To be called in turn.
    async fn show_now(&self, name: &str, layer: &Layer) -> Result<(), CallError> {
        let dir = self.dirs.image(name);
        if self.agent.shows_image(&dir) {
            return Ok(());
        }
        let target = stack_of(layer).map_err(|reason| {
            let unusable = UrlError::Unusable { url: layer.image.clone(), reason };
            CallError::Open(Arc::new(OpenUrlError::Source(SourceError::from(unusable))))
        })?;
        // What an agent without a holder left is of no use to anybody.
        self.agent.unmount_image(&dir).await?;
        let made = tokio::task::spawn_blocking({
            let dir = dir.clone();
            move || std::fs::create_dir_all(dir)
        });
        let made = made.await.map_err(|_| MountTableError::Stopping)?;
        made.map_err(|source| {
            MountTableError::Mount(crate::mount::MountError::Refused { dir: dir.clone(), source })
        })?;
        Box::pin(self.agent.mount_image(&self.logins.with(target), dir)).await
    }

    /// Takes away what is mounted there.
    pub async fn hide(&self, dir: &Path) -> Result<(), MountTableError> {
        self.agent.unmount_image(dir).await?;
        let dir = dir.to_owned();
        // It stays where it is not empty, as where something else is mounted.
        let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir(dir)).await;
        Ok(())
    }

    /// Waits for the turn of whoever wants to change something about the mount of a stack.
    pub async fn turn(&self, name: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock();
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(name.to_owned()).or_default())
        };
        turn.lock_owned().await
    }

    /// Whether the layers of this stack are being asked for.
    pub fn is_pulled(&self, name: &str) -> bool {
        self.pulled.lock().get(name).is_some_and(|pulled| pulled.since.elapsed() < PULLED_WITHIN)
    }

    /// The same of that which is mounted there.
    pub fn is_pulled_in(&self, dir: &Path) -> bool {
        let pulled: Vec<String> = self.pulled.lock().keys().cloned().collect();
        pulled.iter().any(|name| self.dirs.image(name) == dir && self.is_pulled(name))
    }

    /// All layers of this one are there by their names.
    pub fn is_whole(&self, top: &str) {
        self.pulled.lock().remove(top);
    }

    /// Nobody asks for the layers of this one any more: what was read of those that nobody has asked for is given back.
    pub fn give_up(&self, top: &str) {
        let given_up = self.pulled.lock().remove(top);
        self.free_all(given_up.into_iter().flat_map(|pulled| pulled.blobs));
    }

    /// The same of all whose last layer was not asked for in time; their names.
    pub fn give_up_late(&self) -> Vec<String> {
        let late = |_: &String, pulled: &mut Pulled| pulled.since.elapsed() >= PULLED_WITHIN;
        let given_up: Vec<_> = self.pulled.lock().extract_if(late).collect();
        let (names, pulled): (Vec<_>, Vec<_>) = given_up.into_iter().unzip();
        self.free_all(pulled.into_iter().flat_map(|pulled| pulled.blobs));
        names
    }

    /// Disk that the content of a layer takes.
    pub async fn stored(&self, digest: &str) -> u64 {
        match digest.parse() {
            Ok(blob) => self.agent.stored_of_blob(&self.tasks, blob).await,
            Err(_) => 0,
        }
    }

    /// Has the content of a layer be given back.
    pub fn free_later(&self, digest: &str) {
        self.free_all(digest.parse());
    }

    fn free_all(&self, blobs: impl IntoIterator<Item = ContentDigest>) {
        let mut freeing = self.freeing.lock();
        let before = freeing.len();
        freeing.extend(blobs.into_iter().map(|blob| (blob, 0)));
        // Who gives back asks this too: with nothing new he is not to be woken by it.
        if freeing.len() > before {
            self.wanted.notify_one();
        }
    }

    /// Waits until there may be something to do.
    pub async fn wait(&self) {
        let is_quiet = self.freeing.lock().is_empty() && self.pulled.lock().is_empty();
        match is_quiet {
            true => self.wanted.notified().await,
            false => tokio::time::sleep(TRY_EVERY).await,
        }
    }

    /// Blobs to be given back.
    pub fn to_free(&self) -> Vec<ContentDigest> {
        self.freeing.lock().keys().copied().collect()
    }

    /// Gives a blob back, unless it is wanted again.
    pub async fn free(&self, blob: ContentDigest, is_wanted: bool) {
        let freed = match is_wanted {
            true => Ok(Freed::All),
            false => self.agent.free_blob(&self.tasks, blob).await,
        };
        let is_done = match freed {
            Ok(freed) => freed == Freed::All,
            Err(error) => {
                let error = error_chain(&error);
                tracing::warn!(%blob, error, "what is stored of a layer is not given back");
                true
            }
        };
        let mut freeing = self.freeing.lock();
        let tries = freeing.entry(blob).or_default();
        *tries += 1;
        // A mount of somebody's own may use it for ever.
        if is_done || *tries >= TRIES {
            freeing.remove(&blob);
        }
    }
}

/// The URL of an image's layers up to this one.
fn stack_of(layer: &Layer) -> Result<Target, String> {
    let target = Target::parse(&layer.image).map_err(|error| error.to_string())?;
    let image = Reference::of(&target.url)?;
    let stack = match layer.number == layer.of {
        true => image,
        false => image.with_layers(u8::try_from(layer.number).map_err(|error| error.to_string())?),
    };
    Ok(Target::new(stack.url()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_the_image_or_its_lower_layers() {
        let digest = ContentDigest::sha256(b"image");
        let image = format!("oci://h.test:5000/team/app@{digest}");
        let layer = |number| Layer {
            image: image.clone(),
            number,
            of: 3,
            top: String::new(),
            digest: String::new(),
        };
        assert_eq!(stack_of(&layer(3)).unwrap().url.as_str(), image);
        assert_eq!(stack_of(&layer(1)).unwrap().url.as_str(), format!("{image}?layers=1"));
        assert!(stack_of(&layer(1000)).is_err());
    }
}
