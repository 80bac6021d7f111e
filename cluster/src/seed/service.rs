//! A seed put together: host, piece server, and what the cluster is told of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dfs_artifact::image::attached::{IndexKey, IndexTrust};
use dfs_model::{Capacity, Location, Rate};
use dfs_peer::engine::{Lifetime, Role};
use dfs_peer::host::{Host, HostError, HostOptions, Network};
use dfs_peer::limits::SlotLimits;
use dfs_peer::store::{Medium, MediumChoice};
use dfs_peer::swarm::Channels;
use dfs_peer::wire::Compression;
use dfs_proto::seed::seed_server::SeedServer;
use dfs_service::Tracker;
use dfs_service::data_dir::{DataDir, DataDirError};
use dfs_source::{FileOptions, HttpOptions, OciOptions, S3Options, SourcesBuilder};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Answers, SeedService};
use crate::membership::Members;

/// Largest message that goes to a scheduler: the index of what is held of one task.
const MAX_MESSAGE: usize = 16 << 20;

/// How a seed behaves.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Options {
    /// Disk that its store may take, at least 64MiB; all of the file system when not given.
    pub capacity: Option<Capacity>,
    /// Where its store lies: on `disk`; in `memory`, which it gives back when it ends; or `layered`, in memory until
    /// that is needed for what comes next, and then on disk.
    pub cache_medium: MediumChoice,
    /// Memory that such a store takes at most, at least 64MiB; a quarter of the machine's, or its control group's,
    /// when not given.
    pub cache_memory: Option<Capacity>,
    /// Bytes in a second that it uploads at most.
    pub upload_rate: Option<Rate>,
    /// Uploads at a time; 0 is the usual number.
    pub upload_slots: u32,
    /// PEM files of certificate authorities that origins may be signed by, beside the system's.
    pub ca_files: Vec<PathBuf>,
    /// A file that says which registries have mirrors: `registries.conf` of podman and CRI-O.
    pub registries_conf: Option<PathBuf>,
    /// Whether pieces travel compressed to its children: `auto` where samples of the content and the rate of the link
    /// say that it is quicker, `off` never.
    pub compression: Compression,
    /// Keys that are believed of indexes that somebody attached to an image: Ed25519 public keys of 64 hexadecimal
    /// digits. A layer whose index is attached is read in parts, and never as a whole.
    pub index_keys: Vec<IndexKey>,
    /// Registries of which all attached indexes are believed, whoever made them.
    pub index_registries: Vec<String>,
}

/// Why a seed cannot start.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum Error {
    /// Its directory.
    DataDir(#[from] DataDirError),
    /// Store, identity, sources.
    Host(#[from] HostError),
}

/// What a seed is given by the process it runs in.
pub struct Given {
    /// Name for people.
    pub name: String,
    /// Where it stands.
    pub location: Location,
    /// What the site compiled in; the usual sources are added.
    pub sources: SourcesBuilder,
    /// Where it serves pieces, and how it reaches others.
    pub network: Network,
}

/// A running seed.
pub struct Service {
    host: Host,
    channels: Arc<dyn Channels>,
    tracker: Tracker,
    answers: Answers,
}

impl Service {
    /// Starts a seed that keeps everything below `data_dir`.
    pub fn start(
        options: &Options,
        given: Given,
        data_dir: &DataDir,
        tracker: &Tracker,
    ) -> Result<Self, Error> {
        // Seeds serve whole clusters: more at a time than a node.
        let usual = SlotLimits { slots: 16, demand_extra: 16, per_child: 4 };
        let slots = match usize::try_from(options.upload_slots).unwrap_or(usize::MAX) {
            0 => usual,
            slots => SlotLimits { slots, ..usual },
        };
        let Given { name, location, sources, network } = given;
        let http = HttpOptions { ca_files: options.ca_files.clone(), ..HttpOptions::of_process() };
        let mut oci = OciOptions::for_others();
        oci.registries_conf = options.registries_conf.clone().or(oci.registries_conf);
        let capacity = options.capacity.map(Capacity::size);
        let memory = options.cache_memory.map(Capacity::size);
        let medium = Medium::of(options.cache_medium, memory, capacity).map_err(HostError::from)?;
        let host = HostOptions {
            role: Role::Seed,
            data_dir: data_dir.subdir("seed")?,
            name,
            location,
            medium,
            capacity,
            upload_rate: options.upload_rate,
            slots,
            patience: Duration::from_secs(3),
            managers: Vec::new(),
            // Nobody's keys but those of whoever asks.
            sources: sources
                .http(http)
                .s3(S3Options::default())
                .oci(oci)
                .file(FileOptions::default()),
            lifetime: Lifetime::Lasting,
            compression: options.compression,
            index_trust: IndexTrust {
                keys: options.index_keys.clone(),
                registries: options.index_registries.clone(),
            },
            lent: dfs_peer::store::Lent::default(),
        };
        let channels = Arc::clone(&network.channels);
        let host = Host::start(host, network, tracker.tasks(), tracker.token())?;
        let answers = Answers::in_dir(data_dir.subdir("answers")?);
        Ok(Self { host, channels, tracker: tracker.clone(), answers })
    }

    /// Has it know those of other areas, as the member list names them.
    pub fn follow(&self, mut members: watch::Receiver<Arc<Members>>) {
        let own = self.host.info.location.area.clone();
        let (areas, known) = watch::channel(Arc::new(members.borrow_and_update().areas(&own)));
        self.host.engine.take_from_nearer(known);
        let stop = self.tracker.token().clone();
        self.tracker.tasks().spawn(async move {
            while let Some(Ok(())) = stop.run_until_cancelled(members.changed()).await {
                let now = Arc::new(members.borrow_and_update().areas(&own));
                areas.send_replace(now);
            }
        });
    }

    /// The host that it is to the swarm.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its gRPC face.
    pub fn grpc(&self) -> SeedServer<SeedService> {
        let (engine, name) = (self.host.engine.clone(), self.host.info.name.clone());
        let (channels, tracker) = (Arc::clone(&self.channels), self.tracker.clone());
        let answers = self.answers.clone();
        SeedServer::new(SeedService::new(engine, name, channels, tracker, answers))
            .max_encoding_message_size(MAX_MESSAGE)
    }
}
