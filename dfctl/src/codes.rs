//! Every code that `dfctl` can end with: number, exit code, and what a person needs to know about it.
//!
//! Numbers are stable: one is never reused or moved. 1xxx the command and this machine's files, 2xxx origin
//! and network, 3xxx integrity, 4xxx agent and cluster, 5xxx mounts.

use std::fmt;

/// What the process ends with (`cli.md` "Exit codes").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// None of the others.
    Other = 1,
    /// The command line or configuration is wrong.
    Usage = 2,
    /// What was named is not there.
    NotFound = 3,
    /// It may not be had.
    NotPermitted = 4,
    /// Network or source.
    Source = 5,
    /// Bytes are not what they should be.
    Integrity = 6,
    /// No space.
    NoSpace = 7,
    /// Some of it was done.
    Partly = 8,
    /// There was nothing to do.
    Nothing = 9,
    /// A limit or quota.
    Limit = 10,
    /// Interrupted by the user.
    Interrupted = 130,
}

/// One way to fail.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// Stable number, shown as `DFS-nnnn`.
    pub number: u16,
    /// What the process ends with.
    pub exit: Exit,
    /// One line.
    pub title: &'static str,
    /// What it means and what to do about it.
    pub meaning: &'static str,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("DFS-{}", self.number))
    }
}

macro_rules! codes {
    ($($name:ident = $number:literal, $exit:ident, $title:literal, $meaning:literal;)*) => {
        $(
            #[doc = $title]
            pub static $name: Code =
                Code { number: $number, exit: Exit::$exit, title: $title, meaning: $meaning };
        )*

        /// All of them, by number.
        pub static ALL: &[&Code] = &[$(&$name),*];
    };
}

codes! {
    UNEXPECTED = 1000, Other, "something unexpected happened",
        "Neither the command nor its input is known to be at fault. Run it again with -v; if it stays, report it with the text of the error.";
    USAGE = 1001, Usage, "the command line cannot be understood",
        "A flag, argument or value is missing or not of the expected form. `dfctl COMMAND --help` shows two examples and every flag.";
    BAD_URL = 1002, Usage, "the URL cannot be understood",
        "Write it as https://host/path, file:///path or an absolute path; `URL!path` names something inside an artifact; a literal `!` in a URL is written %21.";
    BAD_CONFIG = 1003, Usage, "the configuration is wrong",
        "A configuration file or environment variable has an unknown key or an impossible value. The error names the file and the key.";
    TARGET_EXISTS = 1101, Other, "the output exists and is different",
        "`get` never replaces a file whose content differs, unless --force is given. -o writes somewhere else.";
    OUTPUT_FAILED = 1102, Other, "the output cannot be written",
        "The local file system refused: a directory is missing, is not a directory, or the disk failed. The cause names the file.";
    OUTPUT_DENIED = 1103, NotPermitted, "the output may not be written",
        "This user has no permission to write there. -o writes somewhere else.";
    NO_SPACE = 1104, NoSpace, "no space left for the output",
        "The file system of the output (or its quota) is full. Make room and run the same command again: it resumes at the part file, where one is named; or write somewhere else with -o.";
    OUTPUT_BUSY = 1105, Other, "another dfctl is writing this output",
        "The part file beside the output is locked by a running dfctl. Wait for it, or write somewhere else with -o.";
    UNSAFE_NAME = 1106, Other, "a name would leave the output directory",
        "The artifact holds a name or link that leads outside of the directory it is saved in. It is not followed.";
    READER_GONE = 1107, Done, "the reader of the output has gone",
        "Whoever read the standard output closed it, as `head` does. Nothing is wrong.";
    INTERRUPTED = 1130, Interrupted, "interrupted",
        "The command was stopped by a signal. Where a part file is named, the same command resumes at it.";
    PARTLY = 1108, Partly, "only a part was done",
        "Some entries failed; each is named above the error. Running the same command again takes what is missing.";
    NOT_FOUND = 2101, NotFound, "there is no such thing",
        "The origin (or the artifact's tree) has nothing under that name. `dfctl ls` shows what is there.";
    UNAUTHENTICATED = 2102, NotPermitted, "the origin wants to know who asks",
        "The origin answered 401. Give credentials in the URL (https://user:password@host/…) or with -H 'Authorization: …'.";
    NOT_PERMITTED = 2103, NotPermitted, "the origin refused",
        "The origin answered that this asker may not read it (403). Check the credentials and what they may read.";
    SOURCE_FAILED = 2104, Source, "the origin or the network failed",
        "Every attempt failed within the time allowed. Run the command again later: where a part file is named, it resumes there.";
    TIMED_OUT = 2105, Source, "nothing came in time",
        "The origin, or every holder of the bytes, was silent for too long.";
    ORIGIN_CHANGED = 2106, Source, "the origin changed while it was read",
        "The origin's version is another one than at the start; bytes of two versions are never mixed. Run the command again to get the new version.";
    UNSUPPORTED = 2107, Other, "this cannot be done with this origin",
        "The origin's kind, or what it is able to do (ranges, listings), does not allow it.";
    IS_TREE = 2108, Usage, "this is a directory tree, not a file",
        "Name a file inside it (`URL!path`), or take all of it with `dfctl get -r`.";
    NOT_TREE = 2109, Usage, "this is a file, not a directory tree",
        "There is nothing inside it to name or list.";
    BAD_RANGE = 2110, Usage, "the range is not in the content",
        "--range A-B counts from 0 and includes both ends; it must begin inside the content.";
    MEMBER_MISSING = 2111, NotFound, "something of a tree is missing",
        "The origin lists it and does not give it: it was deleted, it may not be read, or its directory cannot be listed. Everything else is there.";
    DIGEST_MISMATCH = 3101, Integrity, "the content does not match its digest",
        "What was received is not what --digest names. Nothing was saved. Either the origin has another version, or somebody changed it.";
    CORRUPT = 3102, Integrity, "bytes failed their verification",
        "No source of verified bytes was left. The bad bytes were not saved.";
    PART_CORRUPT = 3103, Integrity, "the part file is damaged",
        "The bytes taken over from a part file do not belong to this content, or somebody cut it off or replaced it while it was written. Nothing was saved; run the command again.";
    CACHE_DAMAGED = 3104, Integrity, "the cache holds damaged groups",
        "They were marked missing and will be fetched again when they are next read. If it happens again, check the disk.";
    NO_AGENT = 4101, Source, "no node agent answers",
        "Nothing listens on the agent's socket. One that was named (--socket, DFS_SOCKET, the configuration) is never gone around; --solo does so. `dfctl mount` starts an agent for this user, on the socket that was named if one was; a resident one is started with dfs-fuse.";
    AGENT_DENIED = 4102, NotPermitted, "the node agent may not be used by this user",
        "The agent's socket belongs to somebody else. Ask for membership in its socket group, or go around it with --solo.";
    AGENT_LOST = 4103, Source, "the node agent went away",
        "The connection to the agent broke in the middle. Run the command again: where a part file is named, it resumes there.";
    AGENT_PROTOCOL = 4104, Other, "the node agent answered something unreadable",
        "dfctl and the agent are probably of different versions: compare `dfctl version`.";
    START_FAILED = 4105, Other, "a process could not be started",
        "The error shows the last lines of its log.";
    NO_BINARY = 4106, NotFound, "a program of dfs is missing",
        "It is looked for beside dfctl and then in PATH.";
    CLUSTER_DOWN = 4107, NotFound, "no cluster runs here",
        "`dfctl cluster up` starts one on this machine.";
    STOP_FAILED = 4108, Other, "a process did not stop",
        "It was asked to end and still runs. Its log says what it waits for.";
    BUSY = 4109, Limit, "a limit was reached",
        "The agent, the cluster or the origin refuses more for now. Run the command again later.";
    NO_SOLO = 4110, Other, "solo is not possible for this command",
        "The command asks a node agent about its mounts or cache; without one there is nothing to ask.";
    AGENT_REFUSED = 4111, NotPermitted, "the node agent does not do this for this user",
        "A user other than the agent's own and root may read through it, mount on directories of their own, and take away what they mounted; not read this machine's files, take away others' mounts, or evict from the cache that all share.";
    OTHER_CLUSTER = 4112, Usage, "the node agent does not take part in this cluster",
        "An agent is in the cluster it was started with, or in none; --cluster (DFS_CLUSTER, the configuration) does not move it. Leave it out, or name an agent of that cluster with --socket; `dfctl mount` starts one on a socket where none listens.";
    DATA_DENIED = 4113, NotPermitted, "a directory of dfs may not be used by this user",
        "What dfs keeps lies in a directory of the user it runs as, which nobody else can enter: below ~/.local/share/dfs, or /var/lib/dfs for root. --data-dir names another.";
    CACHE_FULL = 4114, NoSpace, "no space left for the cache",
        "The file system of the data directory, or the part of it that the agent may take (--capacity), is full of what is in use. Make room, or let the data lie elsewhere with --data-dir.";
    START_DENIED = 4115, NotPermitted, "a process could not be started with the rights of this user",
        "A file, a port or a device that it needs is closed to this user. The error shows the last lines of its log.";
    MOUNT_FAILED = 5101, Other, "the mount failed",
        "The cause says what the kernel or fusermount3 answered.";
    MOUNT_DIR = 5102, Usage, "the mount point cannot be used",
        "It must be an existing directory of yours that nothing is mounted on yet.";
    NOT_MOUNTED = 5103, NotFound, "nothing of dfs is mounted there",
        "`dfctl mounts` lists what is mounted.";
    MOUNT_BUSY = 5105, Other, "the mount is in use",
        "Some process works in it. `fuser -m DIR` names it; `dfctl umount --lazy DIR` takes the mount away when the last one leaves.";
    MOUNT_ELSEWHERE = 5106, Other, "another node agent serves this mount",
        "A mount is taken away by the agent that serves it: name its socket with --socket, or be the user who started it. `dfctl mounts` lists those of the agent that is asked.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_used_twice_and_each_is_explained() {
        let mut numbers: Vec<u16> = ALL.iter().map(|code| code.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), ALL.len());
        for code in ALL {
            assert!(!code.title.ends_with('.') && code.meaning.ends_with('.'), "{code}");
        }
    }
}
