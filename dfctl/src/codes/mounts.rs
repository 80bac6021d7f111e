//! 5xxx: mounts.

super::codes! {
    MOUNT_FAILED = 5101, Other, "the mount failed",
        means: "The cause says what the kernel or fusermount3 answered.",
        causes: ["fusermount3 is missing, or /dev/fuse is closed to this user", "too many mounts of this user: mount_max in /etc/fuse.conf", "something else is mounted on top", "the agent is in another mount namespace: a container, or a unit with PrivateMounts=", "--cache-quota was given, and the cache lies on a file system that cannot give parts of a file back: ext4, XFS, btrfs and tmpfs can"],
        next: ["dfctl doctor" => "looks at what a mount needs", "findmnt DIR" => "shows what is mounted there"];
    MOUNT_DIR = 5102, Usage, "the mount point cannot be used",
        means: "It must be an existing directory of yours that nothing is mounted on yet.",
        causes: ["it does not exist, or is a file", "something is mounted there already", "a mount whose agent is gone is still there", "it belongs to another user", "it lies in the agent's own data, or has that in it", "with --follow: it lies in the directory that the mount would follow"],
        next: ["mkdir -p DIR" => "makes it", "dfctl mounts" => "shows what is mounted", "dfctl umount DIR" => "takes a mount of dfs away, also a dead one",
            "dfctl doctor --fix" => "takes all that are dead away"];
    NOT_MOUNTED = 5103, NotFound, "nothing of dfs is mounted there",
        means: "The directory is no mount point, or what is mounted on it is not of dfs.",
        causes: ["the mount was taken away already", "the path is that of something inside the mount"],
        next: ["dfctl mounts" => "lists what is mounted", "findmnt DIR" => "says what is mounted there"];
    NO_REFLINK = 5104, Other, "the file system cannot share blocks",
        means: "`get` must copy out of the cache what it could share on a file system with reflinks. Everything works; it takes longer and twice the room.",
        causes: ["the data directory lies on ext4, tmpfs or an overlay"],
        next: ["dfs-fuse --data-dir DIR" => "on XFS or btrfs, with outputs on the same file system, shares blocks"];
    MOUNT_BUSY = 5105, Other, "the mount is in use",
        means: "Some process works in it.",
        causes: ["a shell stands in it", "a program has a file of it open", "something else is mounted below it"],
        next: ["fuser -vm DIR" => "names who", "findmnt -R DIR" => "shows what is mounted in it, which would go with it", "dfctl umount --lazy DIR" => "takes the mount away when the last one leaves"];
    MOUNT_ELSEWHERE = 5106, Other, "another node agent serves this mount",
        means: "A mount is looked at and taken away by the agent that serves it, and what it shows is in the cache of that agent.",
        causes: ["another user mounted it", "it was mounted by an agent with another socket"],
        next: ["dfctl --socket PATH umount DIR" => "asks that agent", "dfctl mounts" => "lists the mounts of the agent that is asked, and says where others listen",
            "getfattr -n user.dfs.socket --only-values DIR" => "says where the agent of a mount listens"];
    MOUNT_COVERED = 5107, Other, "another mount lies on top",
        means: "What one sees there is not the mount of dfs but something that was mounted over it. Nothing was taken away.",
        causes: ["another program, or a person, mounted on the same directory later"],
        next: ["findmnt DIR" => "shows what lies on top of what", "umount DIR" => "takes the uppermost away", "dfctl umount DIR" => "then takes the mount of dfs away"];
    BAD_PROFILE = 5108, Usage, "the prefetch profile cannot be used",
        means: "A profile says what readers of one version of something touch first. It is used for that version only, and only as it was written; the one that was there is kept.",
        causes: ["the origin has another version by now", "it was made for another URL, another part of it, or with --as", "the file was damaged, or is no profile", "a later version of dfs wrote it"],
        next: ["dfctl trace show MOUNT" => "says what is known of the version that is mounted", "dfctl trace export -o FILE MOUNT" => "writes it anew, on a machine where it was read"];
    NOT_FOLLOWING = 5109, Usage, "the mount follows nothing",
        means: "It shows the version that it was mounted with, whatever its target names by now.",
        causes: ["it was mounted without --follow"],
        next: ["dfctl umount DIR" => "takes it away", "dfctl mount --follow URL DIR" => "mounts it so that it switches to the next version"];
}
