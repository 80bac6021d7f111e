//! What the node agent can be told: flags and variables over configuration files over defaults.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{CommandFactory, Parser};
use dfs_artifact::image::attached::{IndexKey, IndexTrust};
use dfs_model::{Capacity, Rate};
use dfs_peer::store::MediumChoice;
use dfs_peer::wire::Compression;
use dfs_service::config::{self, ServiceAddress};
use dfs_service::net::SocketGroup;
use dfs_service::process;
use dfs_service::tls::JoinToken;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::holder::process::HolderFlags;
use crate::mount::Resend;
use crate::web::proxy::{Place, ProxyOptions};
use crate::web::{MirrorOptions, Network, RegistryHost};

/// The process's name in configuration files.
pub const PROCESS: &str = "dfs-fuse";

/// What a client means that names no registry.
const DOCKER: &str = "docker.io";

const EXAMPLES: &str = "\
Examples:
  dfs-fuse --data-dir /var/lib/dfs --listen 10.0.0.7 --join JOIN-TOKEN
  dfs-fuse --data-dir /var/lib/dfs --cluster 127.0.0.1:4000
  dfs-fuse --data-dir ~/.cache/dfs --socket /run/dfs/me.sock --exit-when-idle
  dfs-fuse --cache-medium memory --cache-memory 4GiB
  dfs-fuse --snapshotter-socket /run/dfs/snapshotter.sock
  dfs-fuse --proxy-listen 127.0.0.1:4051 --proxy-rules /etc/dfs/proxy.toml

Every flag can also be given as a variable: --data-dir is DFS_DATA_DIR.";

/// The node agent: mounts, cache and upload of one machine. People talk to it through dfctl.
#[derive(Debug, Clone, Default, Parser, Serialize)]
#[command(name = PROCESS, version, before_help = EXAMPLES, args_conflicts_with_subcommands = true)]
#[serde(rename_all = "kebab-case")]
pub struct Flags {
    /// Where the agent keeps its cache and its identity [default: /var/lib/dfs].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Unix socket that dfctl talks to [default: agent.sock in the data directory].
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Group whose members may use the socket too, by its name or its number.
    #[arg(long, value_name = "GROUP")]
    pub socket_group: Option<SocketGroup>,
    /// Unix socket at which containerd finds a snapshotter that shows images instead of unpacking them; root alone may
    /// use it. None is not served.
    #[arg(long, value_name = "PATH")]
    pub snapshotter_socket: Option<PathBuf>,
    /// Unix socket at which a kubelet finds containerd's CRI, passed on as it is: so the snapshotter learns the pull
    /// secrets of images. None is not served.
    #[arg(long, value_name = "PATH")]
    pub cri_socket: Option<PathBuf>,
    /// Unix socket at which containerd listens [default: /run/containerd/containerd.sock].
    #[arg(long, value_name = "PATH")]
    pub containerd_socket: Option<PathBuf>,
    /// The cluster to take part in, as host:port of its manager; repeatable. None is solo.
    #[arg(long, value_name = "ADDR")]
    pub cluster: Vec<ServiceAddress>,
    /// Token that this machine joins the cluster with, once; it says where the cluster is. `dfctl cluster up` and
    /// `dfctl cluster join-token` print it.
    #[arg(long, value_name = "JOIN-TOKEN")]
    pub join: Option<JoinToken>,
    /// Address that others reach this host's pieces at, where it is not the one it listens on; repeatable.
    #[arg(long, value_name = "ADDR:PORT")]
    pub advertise: Vec<SocketAddr>,
    /// Port of the piece plane; 0 is a free one [default: 4001, or a free one if that is taken].
    #[arg(long, value_name = "PORT")]
    pub port_pieces: Option<u16>,
    /// Port at which this host's neighbours find it where it leads them in its scheduler's place; 0 is a free one
    /// [default: 4003, or a free one if that is taken].
    #[arg(long, value_name = "PORT")]
    pub port_grpc: Option<u16>,
    /// Disk that the cache may take, as in 50GiB, at least 64MiB; all of the file system when not given.
    #[arg(long, value_name = "SIZE")]
    pub capacity: Option<Capacity>,
    /// Where the cache lies: on disk; in memory, which is lost with the machine and given back when the agent ends for
    /// good; or layered, in memory until that is needed and then on disk [default: disk].
    #[arg(long, value_name = "MEDIUM")]
    pub cache_medium: Option<MediumChoice>,
    /// Memory that a cache in memory or layered takes of it at most, as in 4GiB, at least 64MiB; a quarter of the
    /// machine's, or its control group's, when not given.
    #[arg(long, value_name = "SIZE")]
    pub cache_memory: Option<Capacity>,
    /// Bytes in a second that it uploads at most, as in 1Gbit/s.
    #[arg(long, value_name = "RATE")]
    pub upload_rate: Option<Rate>,
    /// PEM file of a certificate authority that origins may be signed by; repeatable.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Vec<PathBuf>,
    /// What a kubelet is told of its credential providers, a file or a directory of files: the agent asks them for its own
    /// logins to registries, before it looks for others. None are asked when not given.
    #[arg(long, value_name = "PATH")]
    pub image_credential_provider_config: Option<PathBuf>,
    /// Directory in which the programs of these credential providers lie.
    #[arg(long, value_name = "DIR")]
    pub image_credential_provider_bin_dir: Option<PathBuf>,
    /// A file that says which registries have mirrors, as `registries.conf` of podman and CRI-O does: what these give is held
    /// against its digest, and they are asked without a login. None is read when not given.
    #[arg(long, value_name = "FILE")]
    pub registries_conf: Option<PathBuf>,
    /// Directory that other users may name files in, each with their own rights; absolute; repeatable.
    #[arg(long, value_name = "DIR")]
    pub export: Vec<PathBuf>,
    /// Who keeps the mounts when the agent dies, until the next one goes on with them: own, a process that it starts
    /// and that starts it again; systemd, where the agent is a service of it; the path of the socket of one that is
    /// there already, as outside of a container; or off [default: own].
    #[arg(long, value_name = "HOLDER")]
    pub holder: Option<HolderChoice>,
    /// Address at which container runtimes pull through this agent (see the guide's mirror.md), as in 127.0.0.1:4050; port 0
    /// is a free one. No mirror when not given.
    #[arg(long, value_name = "ADDR:PORT")]
    pub mirror_listen: Option<SocketAddr>,
    /// Registry that may be asked through the mirror; repeatable. Any when none is given, by clients of this machine.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub mirror_registry: Vec<RegistryHost>,
    /// Network of other machines that may ask the mirror, as in 10.0.0.0/8; repeatable. Only this machine when none is given.
    #[arg(long, value_name = "NETWORK")]
    pub mirror_client: Vec<Network>,
    /// Registry that the mirror stands for where a client names none [default: docker.io].
    #[arg(long, value_name = "HOST[:PORT]")]
    pub mirror_default: Option<RegistryHost>,
    /// Address at which programs find a proxy for HTTP and HTTPS (see the guide's proxy.md), as in 127.0.0.1:4051; port 0 is
    /// a free one. No proxy when not given.
    #[arg(long, value_name = "ADDR:PORT")]
    pub proxy_listen: Option<SocketAddr>,
    /// File of rules: which URLs go through the swarm, elsewhere or nowhere, and whose connections are looked into. All
    /// is passed on as it is when not given.
    #[arg(long, value_name = "FILE")]
    pub proxy_rules: Option<PathBuf>,
    /// PEM file of the certificate authority that clients of the proxy trust, where connections are looked into.
    #[arg(long, value_name = "FILE")]
    pub proxy_ca_cert: Option<PathBuf>,
    /// PEM file of its key.
    #[arg(long, value_name = "FILE")]
    pub proxy_ca_key: Option<PathBuf>,
    /// Network of other machines that may ask the proxy, as in 10.0.0.0/8; repeatable. Only this machine when none is given.
    #[arg(long, value_name = "NETWORK")]
    pub proxy_client: Vec<Network>,
    /// File of names and passwords that the proxy asks for, as `htpasswd -B` writes it. It asks for none when not given.
    #[arg(long, value_name = "FILE")]
    pub proxy_users: Option<PathBuf>,
    /// Host that clients of the proxy may go to, as in example.org, *.example.org or example.org:8443; repeatable. Anywhere
    /// when none is given.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub proxy_allow: Vec<Place>,
    /// Key that is believed of indexes that somebody attached to an image, an Ed25519 public key of 64 hexadecimal digits;
    /// repeatable. No attached index is used when none is given.
    #[arg(long, value_name = "KEY")]
    pub index_key: Vec<IndexKey>,
    /// Registry of which all attached indexes are believed, whoever made them; repeatable.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub index_registry: Vec<RegistryHost>,
    /// Ends when nothing has been mounted and nothing asked for a while.
    #[arg(long)]
    #[serde(skip)]
    pub exit_when_idle: bool,
    /// What else this program does.
    #[command(subcommand)]
    #[serde(skip)]
    pub command: Option<Command>,
    /// What every process can be told.
    #[command(flatten)]
    #[serde(flatten)]
    pub shared: process::Flags,
}

/// What the program does beside being an agent.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Keeps the mounts of an agent that dies for the next one. Agents start it themselves; a machine runs it for those
    /// in containers.
    Holder(HolderFlags),
}

/// Who keeps the mounts when the agent dies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HolderChoice {
    /// A process that the agent starts, and that starts the agent again.
    #[default]
    Own,
    /// systemd, where it runs the agent as a service with room for descriptors.
    Systemd,
    /// One that listens there already.
    At(PathBuf),
    /// Nobody: they die with it.
    Off,
}

impl FromStr for HolderChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "own" => Ok(Self::Own),
            "off" => Ok(Self::Off),
            "systemd" => Ok(Self::Systemd),
            path if Path::new(path).is_absolute() => Ok(Self::At(path.into())),
            other => {
                Err(format!("'{other}' is not own, systemd, off, or the absolute path of a socket"))
            }
        }
    }
}

impl fmt::Display for HolderChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("own"),
            Self::Off => f.write_str("off"),
            Self::Systemd => f.write_str("systemd"),
            Self::At(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Serialize for HolderChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HolderChoice {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        String::deserialize(value)?.parse().map_err(D::Error::custom)
    }
}

/// The options in force, beside those of every process ([`process::Options`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// Where the agent keeps its cache and its identity.
    pub data_dir: PathBuf,
    /// Unix socket that dfctl talks to; in the data directory when not given.
    pub socket: Option<PathBuf>,
    /// Group whose members may use the socket too.
    pub socket_group: Option<SocketGroup>,
    /// Unix socket at which containerd finds a snapshotter that shows images instead of unpacking them.
    pub snapshotter_socket: Option<PathBuf>,
    /// Unix socket at which a kubelet finds containerd's CRI, passed on as it is: so the snapshotter learns the pull
    /// secrets of images, and keeps them in memory.
    pub cri_socket: Option<PathBuf>,
    /// Unix socket at which containerd listens.
    pub containerd_socket: PathBuf,
    /// Managers of the cluster to take part in.
    pub cluster: Vec<ServiceAddress>,
    /// Token that this machine joins the cluster with, once.
    pub join: Option<JoinToken>,
    /// Addresses to announce instead.
    #[serde(deserialize_with = "config::reachable_all")]
    pub advertise: Vec<SocketAddr>,
    /// Port of the piece plane.
    pub port_pieces: Option<u16>,
    /// Port at which its neighbours find it where it leads them.
    pub port_grpc: Option<u16>,
    /// Disk that the cache may take, at least 64MiB; when not given, all of its file system but 64MiB
    /// (a thirty-second of a small one).
    pub capacity: Option<Capacity>,
    /// Where the cache lies: on `disk`; in `memory`: in the file system in memory that the directory `memory` of the data
    /// directory is, else in /dev/shm; or `layered`: there until that memory is needed for what comes next, and then on
    /// disk. Memory outlives the agent where that is killed or leaves its mounts to another one, and is given back where it
    /// ends for good.
    pub cache_medium: MediumChoice,
    /// Memory that such a cache takes at most, at least 64MiB; a quarter of the machine's, or its control group's, when
    /// not given.
    pub cache_memory: Option<Capacity>,
    /// Bytes in a second that it uploads at most.
    pub upload_rate: Option<Rate>,
    /// Certificate authorities that origins may be signed by, beside the system's.
    pub ca_file: Vec<PathBuf>,
    /// What a kubelet is told of its credential providers, a file or a directory of files: they are asked for the agent's own
    /// logins to registries, before others are looked for.
    pub image_credential_provider_config: Option<PathBuf>,
    /// Directory in which the programs of these credential providers lie.
    pub image_credential_provider_bin_dir: Option<PathBuf>,
    /// A file that says which registries have mirrors, as `registries.conf` of podman and CRI-O does.
    pub registries_conf: Option<PathBuf>,
    /// Directories that other users of this machine may name files in, each with their own rights; absolute.
    #[serde(deserialize_with = "absolute")]
    pub export: Vec<PathBuf>,
    /// Seconds that a node waits for a swarm that does not deliver before it reads the origin itself.
    pub patience_seconds: u32,
    /// Whether pieces travel compressed, from this host and to it: `auto` where samples of the content and the rate
    /// of the link say that it is quicker, `off` never.
    pub compression: Compression,
    /// Who keeps the mounts when the agent dies: `own`, a process that it starts and that starts it again; `systemd`, where
    /// the agent is a service of it; the path of the socket of one that is there already; or `off`.
    pub holder: HolderChoice,
    /// Address at which container runtimes pull through this agent; no mirror when not given.
    pub mirror_listen: Option<SocketAddr>,
    /// Registries that may be asked through the mirror; when none is named any, by clients of this machine.
    pub mirror_registry: Vec<RegistryHost>,
    /// Networks of other machines that may ask the mirror; where it listens for others these and the registries must be
    /// named.
    pub mirror_client: Vec<Network>,
    /// The registry that the mirror stands for where a client names none; docker.io when not given.
    pub mirror_default: Option<RegistryHost>,
    /// Address at which programs find a proxy for HTTP and HTTPS; no proxy when not given.
    pub proxy_listen: Option<SocketAddr>,
    /// File of rules of the proxy; all is passed on as it is when not given.
    pub proxy_rules: Option<PathBuf>,
    /// Certificate of the authority that clients of the proxy trust, where rules name hosts whose connections are looked into.
    pub proxy_ca_cert: Option<PathBuf>,
    /// Its key.
    pub proxy_ca_key: Option<PathBuf>,
    /// Networks of other machines that may ask the proxy; where it listens for others these, and users or places, must be
    /// named.
    pub proxy_client: Vec<Network>,
    /// File of names and passwords that the proxy asks for; it asks for none when not given.
    pub proxy_users: Option<PathBuf>,
    /// Hosts that clients of the proxy may go to, on ports 80 and 443 where none is named; anywhere when none is given, with
    /// tunnels to port 443.
    pub proxy_allow: Vec<Place>,
    /// Keys that are believed of indexes that somebody attached to an image: Ed25519 public keys of 64 hexadecimal digits.
    pub index_key: Vec<IndexKey>,
    /// Registries of which all attached indexes are believed, whoever made them.
    pub index_registry: Vec<RegistryHost>,
    /// Whether reads that an agent had taken when it died are sent to the next one: `auto` where the kernel does that
    /// (Linux 6.9), or `off`, where each of them fails once.
    pub resend: Resend,
}

/// Directories that mean the same wherever the agent was started.
fn absolute<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<PathBuf>, D::Error> {
    let dirs = Vec::<PathBuf>::deserialize(value)?;
    match dirs.iter().find(|dir| !dir.is_absolute()) {
        Some(dir) => Err(D::Error::custom(format!("'{}' is not an absolute path", dir.display()))),
        None => Ok(dirs),
    }
}

impl Options {
    /// Which attached indexes are believed.
    pub fn index_trust(&self) -> IndexTrust {
        let registries = self.index_registry.iter().map(|host| host.as_str().to_owned());
        IndexTrust { keys: self.index_key.clone(), registries: registries.collect() }
    }

    /// For whom it is the mirror of registries, if it is.
    pub fn mirror(&self) -> Option<MirrorOptions> {
        let docker = || DOCKER.parse().expect("it is a registry's name");
        Some(MirrorOptions {
            listen: self.mirror_listen?,
            registries: self.mirror_registry.clone(),
            clients: self.mirror_client.clone(),
            default: self.mirror_default.clone().unwrap_or_else(docker),
        })
    }

    /// For whom it is a proxy, if it is.
    pub fn proxy(&self) -> Option<ProxyOptions> {
        Some(ProxyOptions {
            listen: self.proxy_listen?,
            rules: self.proxy_rules.clone(),
            ca_cert: self.proxy_ca_cert.clone(),
            ca_key: self.proxy_ca_key.clone(),
            clients: self.proxy_client.clone(),
            users: self.proxy_users.clone(),
            allow: self.proxy_allow.clone(),
        })
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/dfs"),
            socket: None,
            socket_group: None,
            snapshotter_socket: None,
            cri_socket: None,
            containerd_socket: PathBuf::from("/run/containerd/containerd.sock"),
            cluster: Vec::new(),
            join: None,
            advertise: Vec::new(),
            port_pieces: None,
            port_grpc: None,
            capacity: None,
            cache_medium: MediumChoice::Disk,
            cache_memory: None,
            upload_rate: None,
            ca_file: Vec::new(),
            image_credential_provider_config: None,
            image_credential_provider_bin_dir: None,
            registries_conf: None,
            export: Vec::new(),
            patience_seconds: 3,
            compression: Compression::Auto,
            holder: HolderChoice::Own,
            mirror_listen: None,
            mirror_registry: Vec::new(),
            mirror_client: Vec::new(),
            mirror_default: None,
            proxy_listen: None,
            proxy_rules: None,
            proxy_ca_cert: None,
            proxy_ca_key: None,
            proxy_client: Vec::new(),
            proxy_users: None,
            proxy_allow: Vec::new(),
            index_key: Vec::new(),
            index_registry: Vec::new(),
            resend: Resend::Auto,
        }
    }
}

/// The tree of commands, for manual pages and completions.
pub fn command() -> clap::Command {
    Flags::command()
}

#[cfg(test)]
mod tests {
    use dfs_model::ByteSize;
    use dfs_service::config::Loader;

    use super::*;

    #[test]
    fn flags_win_over_variables_and_these_over_defaults() {
        command().debug_assert();
        assert!(EXAMPLES.lines().all(|line| line.len() <= 80), "a terminal would break it");
        let flags = Flags::try_parse_from([PROCESS, "--capacity", "2GiB", "--area", "a"]).unwrap();
        let (shared, own) = Loader::new(PROCESS)
            .system_dir("/nonexistent")
            .environment([("DFS_CAPACITY", "1GiB"), ("DFS_PORT_PIECES", "5001"), ("DFS_IDC", "i")])
            .load_beside::<process::Options, Options, _>(&flags)
            .unwrap();
        assert_eq!(own.capacity.map(Capacity::size), Some(ByteSize(2 << 30)));
        assert_eq!(own.port_pieces, Some(5001));
        assert_eq!(own.patience_seconds, 3);
        let tiny = Loader::new(PROCESS)
            .system_dir("/nonexistent")
            .environment([("DFS_CAPACITY", "10")])
            .load_beside::<process::Options, Options, _>(&Flags::default())
            .unwrap_err();
        assert!(
            tiny.to_string().contains("DFS_CAPACITY") && tiny.to_string().contains("64.0 MiB"),
            "{tiny}"
        );
        for relative in ["files", ""] {
            let flags = Flags { export: vec!["/srv".into(), relative.into()], ..Flags::default() };
            let loader = Loader::new(PROCESS).system_dir("/nonexistent");
            let refused = loader.load_beside::<process::Options, Options, _>(&flags).unwrap_err();
            let said = refused.to_string();
            assert!(said.contains("export") && said.contains("not an absolute path"), "{said}");
        }
        assert_eq!((shared.area.as_str(), shared.idc.as_str()), ("a", "i"));
    }

    #[test]
    fn a_name_that_could_pretend_to_be_another_line_is_refused() {
        for flag in ["--name", "--area", "--idc", "--rack"] {
            let flags = Flags::try_parse_from([PROCESS, flag, "b\nnode c"]).unwrap();
            let loader = Loader::new(PROCESS).system_dir("/nonexistent");
            let refused = loader.load_beside::<process::Options, Options, _>(&flags).unwrap_err();
            let said = refused.to_string();
            assert!(said.contains("'b\\nnode c' is no name") && !said.contains('\n'), "{said}");
        }
    }
}
