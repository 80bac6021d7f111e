//! 6xxx: what `dfctl doctor` finds.

super::codes! {
    UNFIT = 6100, Other, "something on this machine is not as dfs needs it",
        means: "At least one check of `dfctl doctor` failed. Each has a line with a code of its own and what to do about it.",
        causes: ["the lines that begin with `fail` say it"],
        next: ["dfctl doctor --fix" => "does what is safe", "dfctl explain CODE" => "says more of one line"];
    FUSE_DEVICE = 6101, Other, "/dev/fuse cannot be used",
        means: "Every mount needs this device. Everything else works without: get, cat, ls, stat.",
        causes: ["the kernel's module is not loaded", "a container was started without the device", "its permissions are not the usual 0666"],
        next: ["ls -l /dev/fuse" => "shows whether it is there, and for whom", "sudo modprobe fuse" => "loads the module where it is not there",
            "sudo chmod 666 /dev/fuse" => "opens it to users, as udev does where fuse3 is installed", "docker run --device /dev/fuse --cap-add SYS_ADMIN IMAGE" => "gives it to a container"];
    FUSERMOUNT = 6102, Other, "fusermount3 is missing",
        means: "Users other than root mount and unmount through this program.",
        causes: ["the package fuse3 is not installed", "it is there and has lost its set-uid bit"],
        next: ["sudo apt-get install fuse3" => "installs it (Debian, Ubuntu)", "sudo dnf install fuse3" => "installs it (Fedora)"];
    OLD_KERNEL = 6103, Other, "the kernel lacks what faster mounts need",
        means: "The lane fuse works with every kernel; passthrough needs Linux 6.9 and kernel 6.14, and an agent that is restarted keeps its readers from 6.9 on.",
        causes: ["an older kernel"],
        next: ["uname -r" => "shows which one runs"];
    ALLOW_OTHER = 6104, Other, "other users cannot look into mounts of this user",
        means: "Without `user_allow_other` in /etc/fuse.conf the kernel shows a mount to who made it alone: not even root, or a container, can look inside.",
        causes: ["the line is missing, or has a # in front of it: most systems ship it so"],
        next: ["echo user_allow_other | sudo tee -a /etc/fuse.conf" => "allows it"];
    DATA_DIR = 6105, Other, "a data directory cannot be written",
        means: "The cache of an agent, or what a command without one keeps, lies there.",
        causes: ["the file system is mounted read-only", "a file has the name of the directory", "the disk failed"],
        next: ["dfctl --data-dir DIR doctor" => "looks at another one", "findmnt -T DIR" => "shows how it is mounted"];
    LITTLE_ROOM = 6106, Other, "little room is left for the cache",
        means: "A full disk does not stop dfs, it goes on from memory; but nothing new is kept, and what others share is fetched again.",
        causes: ["the disk is nearly full"],
        next: ["dfctl cache gc" => "evicts what nobody reads", "df -h DIR" => "shows the room"];
    STALE_MOUNT = 6107, Other, "a mount whose agent is gone is still there",
        means: "Whoever looks into it gets an error or waits. Nothing is lost by taking it away.",
        causes: ["the agent was killed, or crashed"],
        next: ["dfctl doctor --fix" => "takes all of them away", "dfctl umount DIR" => "takes one away"];
    AGENT_SILENT = 6108, Other, "the node agent does not answer",
        means: "Somebody listens on its socket and did not answer in time, or not as an agent does.",
        causes: ["it is stopped (SIGSTOP), or waits for a disk that does not answer", "another program listens there"],
        next: ["dfctl --solo get URL" => "goes around it", "fuser -v SOCKET" => "names the process"];
    OTHER_VERSION = 6109, Other, "the node agent is of another version",
        means: "Versions one release apart work together; new flags do nothing until the agent is restarted. The cache stays.",
        causes: ["dfs was upgraded and the agent still runs", "several copies of dfctl: PATH finds another"],
        next: ["dfctl upgrade" => "has the agent replaced; its mounts go on", "dfctl version" => "names both", "command -v dfctl" => "says which one PATH finds"];
    CLUSTER_SILENT = 6110, Source, "the cluster is not reached",
        means: "Nothing answers at the address of its manager. What is here, and what neighbours hold, stays usable.",
        causes: ["it is down", "the address is wrong, or a firewall stands in between"],
        next: ["dfctl config explain cluster" => "says where the address came from", "dfctl cluster status" => "looks at the one of this machine"];
    CLOCK = 6111, Other, "the clock of this machine is wrong",
        means: "Signed URLs, keys of object stores and certificates are refused by whoever has the right time.",
        causes: ["nobody keeps the time: no chrony, no systemd-timesyncd", "a virtual machine was paused"],
        next: ["timedatectl" => "says whether the clock is kept", "date -u" => "shows the time it has"];
    FEW_FILES = 6112, Other, "few files may be open at once",
        means: "An agent has two files open for each task in use, and a connection for each neighbour.",
        causes: ["the limit of the shell, of the service or of the container is low"],
        next: ["ulimit -n 65536" => "raises it for what this shell starts", "systemctl edit dfs-fuse" => "takes LimitNOFILE=65536 for the service"];
    LEFTOVERS = 6113, Other, "commands that were killed left files behind",
        means: "Without an agent a command keeps what it reads in a directory of its own, and takes it away at its end. Those of killed ones only take room.",
        causes: ["a command was killed (SIGKILL), or the machine lost power"],
        next: ["dfctl doctor --fix" => "takes them away"];
    LEFT_MOUNT = 6114, Other, "no agent knows of a mount of the kernel's",
        means: "A mount of the lane kernel needs no agent, and is written down in the data directory so that nothing that it shows is evicted. This one is written down nowhere. Who has a file of it open keeps that.",
        causes: ["the data directory was removed, or files of it", "it was mounted in another mount namespace"],
        next: ["dfctl doctor --fix" => "takes it away unless somebody uses it", "dfctl umount DIR" => "does the same for one"];
    LEFT_SOCKET = 6115, Other, "a socket is left on which nobody listens",
        means: "The process that listened there was killed. Commands say that no agent answers until one is started again; nothing else is wrong.",
        causes: ["the agent, or its holder, was killed or crashed"],
        next: ["dfctl doctor --fix" => "removes it", "dfctl mount URL DIR" => "starts an agent, which takes its place"];
    HALF_MADE = 6116, Other, "something half-made is left in the store",
        means: "An agent died while it made or removed a task. Its next start clears what it threw away; empty directories only take names.",
        causes: ["the agent was killed, or the machine lost power"],
        next: ["dfctl doctor --fix" => "removes it while no agent works there"];
    STORE_RIGHTS = 6117, NotPermitted, "the agent cannot use all of its store",
        means: "Everything in the store must belong to the user of the data directory, who must be allowed to read and write it. Reads of what cannot be used fail, and it can neither be evicted nor removed.",
        causes: ["an agent, or a copy, was once run as root in the same directory", "somebody changed permissions or owners by hand"],
        next: ["dfctl doctor --fix --dry-run" => "says what would be changed", "sudo dfctl --data-dir DIR doctor --fix" => "gives it back to its owner",
            "ls -lR DIR" => "shows whose it is"];
    LEFT_MEMORY = 6118, Other, "memory is taken by a cache with which nobody works",
        means: "With cache-medium memory or layered what the cache holds lies in /dev/shm. It outlives an agent that is killed, so that the next one goes on with it; where none comes it is taken until the machine ends.",
        causes: ["the agent was killed, or crashed, and nothing starts it again", "its data directory was removed"],
        next: ["dfctl doctor --fix" => "gives it back while no agent works with it, and no mount waits for one", "dfs-fuse --data-dir DIR" => "goes on with it"];
}
