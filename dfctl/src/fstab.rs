//! Mounting as mount(8) asks for it: options as fstab(5) has them, and the program `mount.dfs`, which is this one by
//! another name.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::slice::Iter;
use std::str::Chars;
use std::time::Duration;

use clap::ValueEnum;
use dfs_fuse::agent::OFTENEST;
use dfs_model::{Capacity, UnitParseError};

use crate::backend::Prefetch;

/// The name by which mount(8) calls what mounts a type `dfs`.
const HELPER: &str = "mount.dfs";

/// Options that say something to mount(8), systemd or other file systems, and nothing here. A mount is read-only
/// whatever is said, as of all file systems that have nothing else.
const OF_OTHERS: &[&str] = &[
    "_netdev",
    "async",
    "atime",
    "auto",
    "defaults",
    "diratime",
    "dirsync",
    "group",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "noauto",
    "nodiratime",
    "nofail",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nouser",
    "owner",
    "relatime",
    "ro",
    "rw",
    "silent",
    "strictatime",
    "sync",
    "user",
    "users",
];

/// Such that go on with whatever is theirs.
const BEGINNINGS: &[&str] = &["x-", "X-", "comment=", "user=", "uhelper=", "helper="];

/// What is understood.
const OURS: &str = "ro, allow_other, uid=, gid=, noexec, suid, dev, privileged, lane=, prefetch=, cache-quota=, verify-reads, follow, follow=";

/// Options of one mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Other users may look in.
    pub allow_other: bool,
    /// Whose all files appear to be.
    pub uid: Option<u32>,
    /// Which group's.
    pub gid: Option<u32>,
    /// No program can be started from it.
    pub noexec: bool,
    /// Set-user-id bits and devices work.
    pub effective: bool,
    /// As `--lane` has it.
    pub lane: Option<String>,
    /// As `--prefetch` has it.
    pub prefetch: Option<Prefetch>,
    /// As `--cache-quota` has it.
    pub cache_quota: Option<Capacity>,
    /// As `--verify-reads` has it.
    pub verify_reads: bool,
    /// As `--follow` has it.
    pub follow: Option<Duration>,
}

/// An option that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Nobody knows it.
    #[error("there is no mount option '{0}'; there are {OURS}")]
    Unknown(String),
    /// What stands behind it.
    #[error("the mount option '{0}' takes a number")]
    NoNumber(String),
    /// What stands behind `prefetch=`.
    #[error("the mount option prefetch= takes off, trace or all, not '{0}'")]
    NoPrefetch(String),
    /// What stands behind `cache-quota=`.
    #[error("the mount option cache-quota= takes a size: {0}")]
    NoQuota(UnitParseError),
    /// What stands behind `follow=`.
    #[error("the mount option '{0}': {1}")]
    NoTime(String, String),
    /// What is mounted stays as it is.
    #[error("a mount cannot be changed while it is there: unmount it, and mount it again")]
    Remount,
    /// Half of what belongs together.
    #[error("'suid' and 'dev' are given together or not at all")]
    Half,
}

/// What to do about options that are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// An error.
    Refused,
    /// They are passed over.
    Tolerated,
}

/// How often a target is looked up that is followed, where nothing is said.
pub const FOLLOW: &str = "1m";

/// Reads how often that is to be.
pub fn follow_every(text: &str) -> Result<Duration, String> {
    let every = dfs_model::parse_duration(text).map_err(|error| error.to_string())?;
    match every < OFTENEST {
        true => Err(format!("a target is looked up every {} s at most", OFTENEST.as_secs())),
        false => Ok(every),
    }
}

impl Options {
    /// Reads options separated by commas.
    pub fn parse(text: &str, unknown: Unknown) -> Result<Self, OptionError> {
        let mut options = Self::default();
        let (mut suid, mut dev) = (false, false);
        for option in text.split(',').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let number = || value.parse().map_err(|_| OptionError::NoNumber(option.to_owned()));
            match name {
                "allow_other" => options.allow_other = true,
                "noexec" => options.noexec = true,
                "verify-reads" => options.verify_reads = true,
                "uid" => options.uid = Some(number()?),
                "gid" => options.gid = Some(number()?),
                "exec" => options.noexec = false,
                "suid" | "nosuid" => suid = name == "suid",
                "dev" | "nodev" => dev = name == "dev",
                // What is usual of other file systems mount(8) does not pass on.
                "privileged" => (suid, dev) = (true, true),
                "remount" => return Err(OptionError::Remount),
                "follow" => {
                    let time = if option.contains('=') { value } else { FOLLOW };
                    let read = follow_every(time);
                    let read = read.map_err(|why| OptionError::NoTime(option.to_owned(), why))?;
                    options.follow = Some(read);
                }
                "lane" => options.lane = Some(value.to_owned()),
                "prefetch" => {
                    let read = Prefetch::from_str(value, false);
                    let read = read.map_err(|_| OptionError::NoPrefetch(value.to_owned()))?;
                    options.prefetch = Some(read);
                }
                "cache-quota" => {
                    options.cache_quota = Some(value.parse().map_err(OptionError::NoQuota)?);
                }
                _ if OF_OTHERS.contains(&option) => {}
                _ if BEGINNINGS.iter().any(|beginning| option.starts_with(beginning)) => {}
                _ if unknown == Unknown::Tolerated => {}
                _ => return Err(OptionError::Unknown(option.to_owned())),
            }
        }
        options.effective = suid && dev;
        if suid == dev { Ok(options) } else { Err(OptionError::Half) }
    }
}

/// The words of `dfctl` that do what `words` ask of mount.dfs; `None` where another program was called.
pub fn as_dfctl(words: &[OsString]) -> Option<Vec<OsString>> {
    let program = words.first().and_then(|program| Path::new(program).file_name())?;
    if program != HELPER {
        return None;
    }
    let mut meant: Vec<OsString> = ["dfctl", "mount"].map(OsString::from).into();
    let mut given = words[1..].iter();
    let (mut quiet, mut rest) = (true, false);
    while let Some(word) = given.next() {
        match flags_of(word).filter(|_| !rest) {
            Some("-") => rest = true,
            Some(long) if long.starts_with('-') => meant.push(word.clone()),
            Some(flags) => {
                let mut flags = flags.chars();
                while let Some(flag) = flags.next() {
                    match flag {
                        // Nothing is written into a table of mounts in any case.
                        'n' | 'r' | 'w' => {}
                        'v' => quiet = false,
                        's' => meant.push("--sloppy".into()),
                        'f' => meant.push("--fake".into()),
                        't' | 'N' => drop(value(&mut flags, &mut given)),
                        'o' => {
                            meant.push("-o".into());
                            meant.extend(value(&mut flags, &mut given));
                        }
                        other => meant.push(format!("-{other}").into()),
                    }
                }
            }
            None => meant.push(word.clone()),
        }
    }
    if quiet {
        meant.push("--quiet".into());
    }
    Some(meant)
}

/// What a flag is given: the rest of its word, else the next one.
fn value(flags: &mut Chars<'_>, given: &mut Iter<'_, OsString>) -> Option<OsString> {
    match flags.as_str() {
        "" => given.next().cloned(),
        _ => Some(flags.collect::<String>().into()),
    }
}

/// The letters behind the dash, of a word that is flags.
fn flags_of(word: &OsStr) -> Option<&str> {
    word.to_str()?.strip_prefix('-').filter(|flags| !flags.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Options, OptionError> {
        Options::parse(text, Unknown::Refused)
    }

    #[test]
    fn options_of_a_table_are_understood() {
        let all = "rw,noauto,sync,x-systemd.automount,_netdev,comment=a b,allow_other,uid=1000,gid=5,\
                   noexec,lane=fuse,prefetch=off,cache-quota=2GiB,verify-reads,follow=90s";
        let wanted = Options {
            allow_other: true,
            uid: Some(1000),
            gid: Some(5),
            noexec: true,
            effective: false,
            lane: Some("fuse".into()),
            prefetch: Some(Prefetch::Off),
            cache_quota: Some("2GiB".parse().unwrap()),
            verify_reads: true,
            follow: Some(Duration::from_secs(90)),
        };
        assert_eq!(parsed(all), Ok(wanted));
        assert_eq!(parsed(""), Ok(Options::default()));
        assert!(
            parsed("suid,dev").unwrap().effective && parsed("ro,privileged").unwrap().effective
        );
        assert_eq!(parsed("follow").unwrap().follow, Some(Duration::from_secs(60)));
        // What is said last counts.
        assert_eq!(parsed("suid,dev,noexec,nosuid,nodev,exec"), Ok(Options::default()));
    }

    #[test]
    fn the_manual_page_and_the_guide_have_every_option() {
        let pages =
            [include_str!("../../deploy/mount.dfs.8"), include_str!("../../docs/guide/mount.md")];
        for page in pages {
            let lacks = OURS.split(", ").filter(|option| !page.contains(option));
            assert_eq!(lacks.collect::<Vec<_>>(), Vec::<&str>::new());
            // Who requires a service is taken away when it is restarted.
            assert!(page.contains(",x-systemd.after=dfs-fuse.service"));
        }
    }

    #[test]
    fn options_that_are_none_are_said_to_be() {
        assert_eq!(parsed("ro,big"), Err(OptionError::Unknown("big".into())));
        assert_eq!(parsed("uid=me"), Err(OptionError::NoNumber("uid=me".into())));
        assert_eq!(parsed("uid=-1"), Err(OptionError::NoNumber("uid=-1".into())));
        assert_eq!(parsed("prefetch=most"), Err(OptionError::NoPrefetch("most".into())));
        for bad in ["cache-quota=", "cache-quota=much", "cache-quota=1MiB"] {
            assert!(matches!(parsed(bad), Err(OptionError::NoQuota(_))), "{bad}");
        }
        assert_eq!(parsed("suid"), Err(OptionError::Half));
        assert_eq!(parsed("rw,remount,noexec"), Err(OptionError::Remount));
        for wrong in ["follow=", "follow=10ms", "follow=soon"] {
            assert!(matches!(parsed(wrong), Err(OptionError::NoTime(..))), "{wrong}");
        }
        assert_eq!(parsed("ro=1"), Err(OptionError::Unknown("ro=1".into())));
        assert_eq!(Options::parse("big", Unknown::Tolerated), Ok(Options::default()));
    }

    fn meant(words: &[&str]) -> Option<String> {
        let words: Vec<_> = words.iter().map(OsString::from).collect();
        let meant = as_dfctl(&words)?;
        Some(meant.join(OsStr::new(" ")).into_string().unwrap())
    }

    #[test]
    fn what_mount_calls_is_what_dfctl_does() {
        let words = ["/sbin/mount.dfs", "http://h/d/", "/mnt", "-o", "rw,noexec"];
        let wanted = "dfctl mount http://h/d/ /mnt -o rw,noexec --quiet";
        assert_eq!(meant(&words).unwrap(), wanted);
        let words = ["mount.dfs", "-vsn", "-t", "dfs", "u", "d", "-f"];
        assert_eq!(meant(&words).unwrap(), "dfctl mount --sloppy u d --fake");
        // As getopt(3) has it: what stands behind the letter is its value.
        let words = ["mount.dfs", "u", "d", "-nvoro,noexec", "-tdfs"];
        assert_eq!(meant(&words).unwrap(), "dfctl mount u d -o ro,noexec");
        assert_eq!(meant(&["mount.dfs", "--help"]).unwrap(), "dfctl mount --help --quiet");
        assert_eq!(meant(&["dfctl", "mount"]), None);
        assert_eq!(meant(&[]), None);
    }
}
