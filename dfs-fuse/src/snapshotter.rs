//! A snapshotter for containerd: where the roots of its containers are put together.
//!
//! It does what containerd's own for overlayfs does, and one thing more: a layer of an image of a registry is not fetched and
//! unpacked, it is shown. Such an image is mounted once, whole, and its layers are committed snapshots from the
//! moment that they are asked for. What a container, or another image, stands on in the middle of an image is mounted as the
//! stack of the layers up to there. Whatever keeps an image from being shown, containerd fetches the layer itself then.
//!
//! What there is stands in a database and changes in transactions ([`store`]): killed at any moment, a snapshot is there
//! whole, or is not there. Mounts outlive the process with their holder; what no snapshot has is taken away at the next
//! start, and whenever containerd has it cleaned up.

mod cri;
mod dirs;
mod filter;
mod logins;
mod mounts;
mod named;
mod service;
mod shown;
mod store;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use dfs_peer::error_chain;
use dfs_proto::snapshots::Mount;
use dfs_proto::snapshots::snapshots_server::SnapshotsServer;
use tonic::service::Routes;

use self::dirs::Dirs;
use self::filter::Filters;
use self::mounts::mounts_of;
use self::named::Named;
use self::shown::Shown;
pub use self::store::SnapshotError;
use self::store::{Below, Change, Info, Kind, Store, Usable, Usage, UsageOf};
use crate::agent::Agent;

/// Says whether the kernel's overlay knows of `index=off`.
const INDEX: &str = "/sys/module/overlay/parameters/index";

struct Inner {
    store: Store,
    dirs: Dirs,
    shown: Shown,
}

/// See the module. Copies are the same.
#[derive(Clone)]
pub struct Snapshotter {
    inner: Arc<Inner>,
}

/// What a request to prepare one came to.
enum Prepared {
    /// It can be used, so mounted.
    Usable(Vec<Mount>),
    /// What it was to become is there already.
    Known(String),
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

impl Snapshotter {
    /// One over an agent whose mounts are there again. What a killed one left is taken away.
    pub async fn start(agent: Agent) -> Result<Self, SnapshotError> {
        let data_dir = agent.facts().data_dir.clone();
        let opening = tokio::task::spawn_blocking(move || {
            let dirs = Dirs::in_dir(&data_dir)?;
            let store = Store::open(&dirs.database())?;
            Ok::<_, SnapshotError>((dirs, store))
        });
        let (dirs, store) = opening.await.map_err(|_| SnapshotError::Stopping)??;
        let shown = Shown::new(agent, dirs.clone());
        let snapshotter = Self { inner: Arc::new(Inner { store, dirs, shown }) };
        snapshotter.clean_up().await?;
        Ok(snapshotter)
    }

    /// What is served to containerd.
    pub fn routes(&self) -> Routes {
        Routes::new(SnapshotsServer::new(self.clone()))
    }

    /// What is served to a kubelet in the place of the runtime that listens at `runtime`, so that images are shown that
    /// its pull secrets are for.
    pub fn cri_routes(&self, runtime: &Path) -> Routes {
        let channel = dfs_service::net::grpc_local_channel(runtime, None);
        Routes::from(cri::passing(channel, self.inner.shown.logins()))
    }

    /// Gives back what images that are gone have left, as soon as nothing uses it. Never ends by itself.
    pub async fn keep_house(&self) {
        loop {
            self.inner.shown.wait().await;
            if let Err(error) = self.free().await {
                tracing::warn!(error = error_chain(&error), "what images left is not given back");
            }
        }
    }

    async fn free(&self) -> Result<(), SnapshotError> {
        for name in self.inner.shown.give_up_late() {
            self.hide(&name).await?;
        }
        for blob in self.inner.shown.to_free() {
            let digest = blob.to_string();
            let is_wanted = self.blocking(move |inner| inner.store.has_blob(&digest)).await?;
            self.inner.shown.free(blob, is_wanted).await;
        }
        Ok(())
    }

    /// Does something that blocks, to its end.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, SnapshotError> + Send + 'static,
    ) -> Result<T, SnapshotError> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.unwrap_or(Err(SnapshotError::Stopping))
    }

    /// Makes one that can be used; where it is to become a layer of an image that can be shown, that is what is there.
    async fn prepare(
        &self,
        kind: Kind,
        key: String,
        parent: String,
        labels: BTreeMap<String, String>,
    ) -> Result<Prepared, SnapshotError> {
        if kind == Kind::Active
            && let Some(named) = Named::of(&labels)
            && let Some(name) = self.take_layer(named, &parent, &labels).await?
        {
            return Ok(Prepared::Known(name));
        }
        let under = parent.clone();
        let below = self.blocking(move |inner| inner.store.below(&under)).await?;
        self.show_below(&below).await?;
        let (created_ns, updated_ns) = (now_ns(), now_ns());
        let info = Info { name: key, parent, kind, created_ns, updated_ns, labels };
        let create = move |inner: &Inner| {
            let like = below.first().map(|below| inner.dirs.below(below));
            inner
                .store
                .create(&info, |usable| inner.dirs.make(usable.id, usable.kind, like.as_deref()))
        };
        let usable = self.blocking(create).await?;
        Ok(Prepared::Usable(self.inner.mounts(&usable)))
    }

    /// Has the layer be there by its name, if it is there already or its image can be shown; why that cannot be, is told.
    async fn take_layer(
        &self,
        named: Result<Named, String>,
        parent: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<Option<String>, SnapshotError> {
        let named = match named {
            Ok(named) => named,
            Err(why) => {
                tracing::warn!(why, "containerd fetches a layer itself: it is named so");
                return Ok(None);
            }
        };
        let name = named.chain.to_string();
        let (layer, over) = (name.clone(), parent.to_owned());
        if self.blocking(move |inner| inner.store.has_layer(&layer, &over)).await? {
            return Ok(Some(name));
        }
        let shown = self.inner.shown.image_of(&named, parent.is_empty()).await;
        let (layer, _pulled) = match shown {
            Ok(shown) => shown,
            Err(why) => {
                let (image, layer) = (&named.reference, named.blob.to_string());
                tracing::warn!(image, layer, why, "containerd fetches a layer itself");
                return Ok(None);
            }
        };
        let now = now_ns();
        let info = Info {
            name: name.clone(),
            parent: parent.to_owned(),
            kind: Kind::Committed,
            created_ns: now,
            updated_ns: now,
            labels: labels.clone(),
        };
        let top = layer.top.clone();
        match self.blocking(move |inner| inner.store.create_layer(&info, &layer)).await {
            Ok(()) | Err(SnapshotError::AlreadyExists(_)) => {}
            Err(error) => return Err(error),
        }
        if name == top {
            self.inner.shown.is_whole(&top);
        }
        Ok(Some(name))
    }

    /// What is to be mounted for one that can be used.
    async fn mounts(&self, key: String) -> Result<Vec<Mount>, SnapshotError> {
        let usable = self.blocking(move |inner| inner.store.usable(&key)).await?;
        self.show_below(&usable.below).await?;
        Ok(self.inner.mounts(&usable))
    }

    /// Has the image be mounted that lies below, if one does.
    async fn show_below(&self, below: &[Below]) -> Result<(), SnapshotError> {
        match below.last() {
            Some(Below::Image { name, layer }) => {
                let shown = self.inner.shown.show(name, layer).await;
                shown.map_err(|error| SnapshotError::Image(error_chain(&error)))
            }
            Some(Below::Directory(_)) | None => Ok(()),
        }
    }

    /// Has what was written be a snapshot that others can lie over.
    async fn commit(
        &self,
        key: String,
        name: String,
        labels: BTreeMap<String, String>,
    ) -> Result<(), SnapshotError> {
        let now = now_ns();
        let (parent, kind) = (String::new(), Kind::Committed);
        let info = Info { name, parent, kind, created_ns: now, updated_ns: now, labels };
        self.blocking(move |inner| {
            let usage = match inner.store.active(&key) {
                Ok(id) => dirs::usage_of(&inner.dirs.written(id))?,
                // Which error it is says the commit.
                Err(_) => Usage::default(),
            };
            inner.store.commit(&key, &info, usage)
        })
        .await
    }

    /// Takes one away, and what nothing needs any more with it.
    async fn remove(&self, key: String) -> Result<(), SnapshotError> {
        let name = key.clone();
        let removed = self.blocking(move |inner| {
            let removed = inner.store.remove(&key)?;
            if removed.layer.is_none() {
                // It is gone by its name; what cannot be removed is cleaned up later.
                if let Err(error) = inner.dirs.remove(removed.id) {
                    tracing::warn!(error = error_chain(&error), "a snapshot's directory stays");
                }
            }
            Ok(removed)
        });
        let removed = removed.await?;
        let Some(layer) = removed.layer else { return Ok(()) };
        if removed.is_last_of_image || name == layer.top {
            self.inner.shown.give_up(&layer.top);
        }
        for name in [&name, &layer.top] {
            self.hide(name).await?;
        }
        if removed.is_last_of_blob {
            self.inner.shown.free_later(&layer.digest);
        }
        Ok(())
    }

    /// Takes away the mount of a stack that nothing needs.
    async fn hide(&self, name: &str) -> Result<(), SnapshotError> {
        let _turn = self.inner.shown.turn(name).await;
        let layer = name.to_owned();
        let is_there = self.blocking(move |inner| inner.store.is_layer(&layer)).await?;
        if is_there || self.inner.shown.is_pulled(name) {
            return Ok(());
        }
        if let Err(error) = self.inner.shown.hide(&self.inner.dirs.image(name)).await {
            tracing::warn!(
                error = error_chain(&error),
                "an image stays mounted that nothing needs"
            );
        }
        Ok(())
    }

    async fn info(&self, key: String) -> Result<Info, SnapshotError> {
        self.blocking(move |inner| inner.store.info(&key)).await
    }

    async fn update(&self, to: Info, paths: Vec<String>) -> Result<Info, SnapshotError> {
        self.blocking(move |inner| {
            let changes = paths.iter().map(|path| changed(path, &to.name));
            let mut changes: Vec<_> = changes.collect::<Result<_, _>>()?;
            if changes.is_empty() {
                changes.push(Change::Labels);
            }
            inner.store.update(&to, &changes, now_ns())
        })
        .await
    }

    async fn list(&self, filters: Vec<String>) -> Result<Vec<Info>, SnapshotError> {
        let filters = Filters::parse(&filters)?;
        let mut infos = self.blocking(|inner| inner.store.infos()).await?;
        infos.retain(|info| filters.wants(info));
        Ok(infos)
    }

    /// What one takes of the disk: of a layer that is shown what is stored of it, once however many have it.
    async fn usage(&self, key: String) -> Result<Usage, SnapshotError> {
        let usage = self.blocking(move |inner| match inner.store.usage(&key)? {
            UsageOf::Directory(id) => Ok(UsageOf::Known(dirs::usage_of(&inner.dirs.written(id))?)),
            usage => Ok(usage),
        });
        match usage.await? {
            UsageOf::Known(usage) => Ok(usage),
            UsageOf::Blob(digest) => {
                let size = self.inner.shown.stored(&digest).await;
                Ok(Usage { size: i64::try_from(size).unwrap_or(i64::MAX), inodes: 0 })
            }
            UsageOf::Directory(_) => Ok(Usage::default()),
        }
    }

    /// Takes away what no snapshot has.
    async fn clean_up(&self) -> Result<(), SnapshotError> {
        let left = self.blocking(|inner| {
            // First: what is made meanwhile is known by then.
            let there = inner.dirs.snapshots()?;
            let known = inner.store.directories()?;
            for id in there.difference(&known) {
                inner.dirs.remove(*id)?;
            }
            let images = inner.dirs.images()?;
            let layers = inner.store.layers()?;
            let is_known =
                |dir: &Path| layers.iter().any(|(name, _)| inner.dirs.image(name) == *dir);
            Ok(images.into_iter().filter(|dir| !is_known(dir)).collect::<Vec<_>>())
        });
        for dir in left.await? {
            if self.inner.shown.is_pulled_in(&dir) {
                continue;
            }
            if let Err(error) = self.inner.shown.hide(&dir).await {
                tracing::warn!(error = error_chain(&error), "what an image left stays mounted");
            }
        }
        Ok(())
    }
}

/// What a path of a field mask means: nothing but labels can be changed.
fn changed<'a>(path: &'a str, name: &str) -> Result<Change<'a>, SnapshotError> {
    match path.strip_prefix("labels.") {
        Some(label) => Ok(Change::Label(label)),
        None if path == "labels" => Ok(Change::Labels),
        None => {
            let path = dfs_model::printable(&dfs_model::shortened(path, 100));
            Err(SnapshotError::Invalid(format!("cannot update '{path}' of snapshot {name}")))
        }
    }
}

impl Inner {
    fn mounts(&self, usable: &Usable) -> Vec<Mount> {
        mounts_of(usable, &self.dirs, Path::new(INDEX).exists())
    }
}
