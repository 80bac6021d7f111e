//! 4xxx: the node agent, the cluster, and starting and stopping them.

super::codes! {
    NO_AGENT = 4101, Source, "no node agent answers",
        means: "Nothing listens on the agent's socket. One that was named (--socket, DFS_SOCKET, the configuration) is never gone around unless --solo says so.",
        causes: ["no agent was started, or it ended", "it listens on another socket", "it runs for another user"],
        next: ["dfctl mount URL DIR" => "starts one for this user", "dfs-fuse --data-dir DIR --socket PATH" => "starts one that stays",
            "dfctl doctor" => "says which sockets were tried"];
    AGENT_DENIED = 4102, NotPermitted, "the node agent may not be used by this user",
        means: "The agent's socket belongs to somebody else.",
        causes: ["the agent was started by root or another user, without a group for its socket", "this user is not a member of that group, or not since the last login"],
        next: ["dfctl --solo get URL" => "goes around it", "dfs-fuse --socket-group GROUP" => "started so, lets a group in"];
    AGENT_LOST = 4103, Source, "the node agent went away",
        means: "The connection to the agent broke in the middle. Where a part file is named, the same command resumes there.",
        causes: ["it was stopped or restarted", "it crashed, or the kernel ended it for want of memory"],
        next: ["dfctl version" => "says whether one answers now", "dfctl doctor" => "looks at what it left"];
    AGENT_PROTOCOL = 4104, Other, "the node agent answered something unreadable",
        means: "dfctl and the agent do not understand each other.",
        causes: ["they are of versions too far apart", "another program listens on the socket"],
        next: ["dfctl version" => "compares the versions", "dfctl --solo get URL" => "goes around it"];
    START_FAILED = 4105, Other, "a process could not be started",
        means: "It ended at once or was not ready in time, and was stopped again. The error says why, or shows the last lines of its log.",
        causes: ["another process works on the same data directory", "another one listens on the port that was given", "its configuration is wrong", "/dev/fuse or fusermount3 is missing"],
        next: ["dfctl doctor" => "looks at what it needs", "less LOG" => "shows all that it said"];
    NO_BINARY = 4106, NotFound, "a program of dfs is missing",
        means: "It is looked for beside dfctl and then in PATH.",
        causes: ["only dfctl was installed", "PATH does not name its directory"],
        next: ["dfctl version" => "says which dfctl this is", "command -v dfs-fuse dfs-cluster" => "says what PATH has"];
    CLUSTER_DOWN = 4107, NotFound, "no cluster runs here",
        means: "No process works on the data directory of this user's cluster, or nothing answers at the address that --cluster names.",
        causes: ["it was never started, or has ended", "it was started with another --data-dir, or by another user"],
        next: ["dfctl cluster up" => "starts one on this machine", "dfctl cluster status --data-dir DIR" => "looks at another directory"];
    STOP_FAILED = 4108, Other, "a process did not stop",
        means: "It was asked to end and still runs. Its log says what it waits for.",
        causes: ["it writes to a disk that does not answer", "it belongs to another user", "it is a service: systemctl stops it"],
        next: ["dfctl cluster status" => "shows what is left of it", "less LOG" => "shows what it waits for"];
    BUSY = 4109, Limit, "a limit was reached",
        means: "The agent, the cluster or the origin refuses more for now, or it is more than dfs takes at once.",
        causes: ["a tree that is larger or deeper than dfs takes: name a directory in it", "too many transfers at once", "the agent's limit of files (ulimit -n, LimitNOFILE= of its unit), threads or memory", "the origin answers 429 or 503"],
        next: ["dfctl task ls" => "shows what is going on", "dfctl get URL --limit 10MiB/s" => "asks for less at once",
            "dfctl umount DIR" => "gives back what a mount takes"];
    NO_SOLO = 4110, Other, "solo is not possible for this command",
        means: "The command asks a node agent about its mounts or cache; without one there is nothing to ask.",
        causes: ["--solo or DFS_SOLO is set", "the configuration says `solo = true`"],
        next: ["dfctl config explain solo" => "says where that came from", "dfctl mount URL DIR" => "starts an agent"];
    AGENT_REFUSED = 4111, NotPermitted, "the node agent does not do this for this user",
        means: "A user other than the agent's own and root may read through it, mount on directories of their own, and take away what they mounted; not read this machine's files, take away others' mounts, or change the cache that all share.",
        causes: ["the agent is the machine's, and this user is an ordinary one"],
        next: ["sudo dfctl COMMAND" => "does it as root", "dfctl --socket PATH COMMAND" => "asks an agent of one's own"];
    OTHER_CLUSTER = 4112, Usage, "the node agent does not take part in this cluster",
        means: "An agent is in the cluster it was started with, or in none; --cluster (DFS_CLUSTER, the configuration) does not move it.",
        causes: ["the configuration names a cluster and the agent was started without one", "two clusters, and the other one is meant"],
        next: ["dfctl config explain cluster" => "says where the address came from", "dfctl version" => "names the agent",
            "dfctl --socket PATH mount --cluster ADDR URL DIR" => "starts an agent in that cluster"];
    DATA_DENIED = 4113, NotPermitted, "a directory of dfs may not be used by this user",
        means: "What dfs keeps lies in a directory of the user it runs as, which nobody else can enter: below ~/.local/share/dfs, or /var/lib/dfs for root.",
        causes: ["it belongs to another user: an earlier command ran as root", "others can enter it, so it is not trusted"],
        next: ["ls -ld DIR" => "shows whose it is", "dfctl --data-dir DIR mount URL DIR" => "uses another directory"];
    CACHE_FULL = 4114, NoSpace, "no space left for the cache",
        means: "The file system of the data directory, or the part of it that the agent may take (--capacity, or --cache-memory where it lies in memory), is full of what is in use or pinned.",
        causes: ["the disk is full of other things", "what is mounted, fetched or pinned takes all of it"],
        next: ["dfctl cache ls" => "shows what takes the room", "dfctl cache gc" => "evicts what nobody reads",
            "dfctl cache unpin ID" => "lets a pinned task go", "dfctl umount DIR" => "gives back what is mounted",
            "dfctl --solo --data-dir DIR get URL" => "keeps it on another disk"];
    START_DENIED = 4115, NotPermitted, "a process could not be started with the rights of this user",
        means: "A file, a port or a device that it needs is closed to this user. The error shows the last lines of its log.",
        causes: ["/dev/fuse is closed", "the data directory or the socket's directory belongs to another user"],
        next: ["dfctl doctor" => "says which one"];
    NO_TASK = 4116, NotFound, "this machine holds nothing of the task",
        means: "The cache of the agent that was asked has no task whose id begins so.",
        causes: ["it was evicted or removed", "the id is misspelt", "another agent has it"],
        next: ["dfctl task ls" => "lists those that are here"];
    TASK_IN_USE = 4117, Other, "the task is in use",
        means: "What a mount shows, an open file reads, a transfer fetches or a neighbour is given is never taken away. Nothing was removed of it.",
        causes: ["something is mounted that lies in it", "it is being fetched or given to others", "it is pinned"],
        next: ["dfctl mounts" => "shows what is mounted", "dfctl umount DIR" => "ends that use",
            "dfctl task rm --wait ID" => "removes it as soon as nothing uses it", "dfctl task rm --unpin ID" => "removes it although it is pinned"];
    CACHE_FAILED = 4118, Other, "the disk of the cache failed",
        means: "Reading or writing in the data directory failed for another reason than room. No wrong byte was shown; what the disk still gives is hashed again before it is used.",
        causes: ["the disk is broken, or was unplugged", "the file system was made read-only after an error", "somebody removed files of the data directory"],
        next: ["dmesg" => "says what the kernel saw", "dfctl doctor" => "tries the data directory", "dfctl --data-dir DIR get URL" => "keeps it on another disk"];
    NO_CLUSTER = 4119, Source, "the cluster cannot be reached",
        means: "No manager answers at the address of --cluster (DFS_CLUSTER, the configuration), or it names no scheduler. What a command starts is never begun around a cluster that was named, except with --solo; an agent that runs goes on without its cluster, and says so in its log.",
        causes: ["the cluster does not run, or listens at another address", "the port is that of something else: of a scheduler or a seed, of the metrics, of a web server",
            "the manager runs without a scheduler", "the agent that was asked takes part in no cluster"],
        next: ["dfctl cluster status --cluster ADDR" => "asks once more, and says who takes part", "dfctl config explain cluster" => "says where the address came from",
            "dfctl get --solo URL" => "goes straight to the origin"];
    SEED_FULL = 4120, NoSpace, "the seed has no room",
        means: "The seed of the cluster cannot keep all of this beside what is in use. What it has of it is kept as far as there is room.",
        causes: ["its seed.capacity is too small", "its disk is full"],
        next: ["dfctl preheat --wait URL" => "again, when there is room"];
    JOIN_REFUSED = 4121, NotPermitted, "the cluster does not let this machine in",
        means: "A machine takes part with a certificate of the cluster, which it gets for a join token, once. The manager says why it gave none, or what answers is not the manager that the token is for.",
        causes: ["the token was used already, or has expired: one is good for an hour and for one machine unless it was made otherwise", "the token is for another role or of another cluster",
            "the data directory was copied from another machine", "the certificate that is here is of another host or cluster"],
        next: ["dfctl cluster join-token" => "on the manager's machine: prints another token", "dfctl cluster join-token --role seed" => "for a seed",
            "dfs-fuse --data-dir DIR --listen ADDR --join JOIN-TOKEN" => "joins with it"];
    JOIN_UNREACHED = 4122, Source, "the cluster is not reached by a machine that wants to join",
        means: "A join token says where its manager is. Nobody answered there; the token is not used up by that.",
        causes: ["the cluster does not run, or a firewall is in between", "it is reached at another address than the one it listens on: dfctl cluster up --advertise ADDR", "the port was taken when the cluster started, and another one is in use since"],
        next: ["dfctl cluster status" => "on the manager's machine: says where it listens", "dfctl cluster join-token" => "prints a token with its addresses of now"];
    NO_CERTIFICATES = 4123, Usage, "the cluster has no certificates",
        means: "A cluster that listens on loopback is for its own machine and protects nothing; nobody else can join it.",
        causes: ["it was started without --listen"],
        next: ["dfctl cluster down" => "stops it; what it holds stays", "dfctl cluster up --listen ADDR" => "starts it for other machines too"];
    UNKNOWN_TASK = 4124, NotFound, "no scheduler knows the task",
        means: "The schedulers of the cluster were asked, and none has a task whose id begins so, or that is of this URL. A scheduler knows what hosts take part in now, or have had open within the hour; of what merely lies with them it has the names alone.",
        causes: ["nobody of the cluster has fetched it, or all who did have closed it", "it is small: what fits into the answer comes without a swarm", "the id is misspelt, or that of another cluster",
            "the scheduler was started since"],
        next: ["dfctl top --once" => "lists what the cluster is busy with", "dfctl task ls" => "lists what this machine holds"];
    UNKNOWN_NODE = 4125, NotFound, "no such node takes part",
        means: "The scheduler knows the task, and no node of that name in it, now or of late. The error names some of those that are.",
        causes: ["the name is misspelt", "the node has nothing to do with this task", "what was known of it was kept no longer"],
        next: ["dfctl why TASK" => "shows all of them", "dfctl task watch TASK --once" => "lists them"];
    NOT_REPLACED = 4126, Other, "the node agent was not replaced",
        means: "An agent is replaced while its mounts go on: somebody keeps them meanwhile, and starts the next one. Where one of them would die nothing was changed. Where no other agent came the mounts wait for one, for five minutes.",
        causes: ["it was started with --holder off", "its holder did not answer when something was mounted", "the program that is installed now does not start: its log says why",
            "somebody else starts it, as outside of a container, and has not yet"],
        next: ["dfctl mounts --format json" => "says of each mount who keeps it", "dfctl umount DIR" => "takes one away first", "dfctl doctor" => "looks at the agent and its program"];
    PIN_FAILED = 4127, Partly, "some of what is pinned cannot be had",
        means: "What is here of it stays pinned. What is missing is not had by trying again soon: the origin has another version, or refuses. The agent tries every few minutes all the same.",
        causes: ["the origin has another version of it by now", "it was pinned with credentials, and the agent was restarted since: they are never written down", "the credentials have expired"],
        next: ["dfctl cache ls --pins" => "shows what it waits for", "dfctl cache pin URL" => "pins the version that the origin has now, or gives credentials anew",
            "dfctl cache unpin URL" => "lets go of it"];
    PIN_TOO_LARGE = 4128, NoSpace, "more is to be pinned than there is room for",
        means: "What is pinned is kept whole. It must fit into the cache beside everything else that is pinned; nothing of it was fetched or pinned.",
        causes: ["the capacity of the cache is smaller", "other pins take the room", "the disk of the cache is full of other things"],
        next: ["dfctl cache pin 'URL!path'" => "pins a part of it", "dfctl cache ls --pins" => "shows what is pinned", "dfctl cache unpin URL" => "lets go of something",
            "dfs-fuse --capacity SIZE" => "gives the cache more room"];
    MIRROR_REFUSED = 4151, Usage, "the registry mirror does not take this request",
        means: "The mirror of a node agent answers what registries answer to who reads: /v2/, manifests, blobs, tags and referrers, for registries and clients that it may have. The code stands in the detail of its answer.",
        causes: ["something was to be pushed or deleted: that goes to the registry itself", "the registry is none of those that mirror-registry names", "the client is in none of the networks that mirror-client names",
            "the mirror was set up as an HTTP proxy", "the name of a repository, a tag or a digest is none"],
        next: ["curl http://127.0.0.1:4050/v2/" => "says whether the mirror is there"];
    MIRROR_UNREACHED = 4152, Source, "a registry cannot be asked through the mirror",
        means: "The mirror asked the registry on behalf of a client and had no answer, or one that is not what its digest says. Clients that know the registry itself go there next.",
        causes: ["the registry is away, or its name is misspelt", "it speaks plain HTTP and DFS_OCI_PLAIN_HTTP does not name it", "its certificate is of an authority that --ca-file does not name", "somebody on the way changes what it says"],
        next: ["dfctl stat oci://HOST/REPOSITORY:TAG" => "asks the registry and says all there is to say"];
    RUNTIME_UNFIT = 4153, Usage, "the configuration of a container runtime cannot be edited",
        means: "What the file says is unknown to dfctl, or goes against what was to be put there. Nothing was changed.",
        causes: ["the file is of a version that dfctl does not know", "it is broken: the runtime does not read it either", "it names mirrors in a way that excludes others", "it is a link that leads out of --root"],
        next: ["dfctl runtime install containerd --dry-run" => "shows what would be changed", "less FILE" => "shows what it says"];
    MIRROR_NOT_READY = 4154, Source, "no registry mirror answers",
        means: "A container runtime is told of the mirror only once that answers. Nothing was changed.",
        causes: ["the agent does not run", "it was started without --mirror-listen", "it listens on another address than the one given"],
        next: ["dfs-fuse --mirror-listen 127.0.0.1:4050" => "starts an agent with a mirror", "dfctl runtime install docker --mirror ADDR" => "names another address"];
    RUNTIME_EDITED = 4155, Other, "a file was edited where dfctl had written",
        means: "What dfctl wrote there is not found again, so that it cannot be taken out. Nothing was changed.",
        causes: ["somebody edited these lines", "another program wrote the file anew"],
        next: ["less FILE" => "shows what it says: take out the lines of dfs by hand, then undo again"];
    PROXY_REFUSED = 4161, Usage, "the proxy does not take this request",
        means: "The proxy of a node agent asks the web for clients that it knows, and leads them where they may go: never to itself, to addresses of nobody or, from other machines, to this one. The code stands in its answer.",
        causes: ["the client is in none of the networks that proxy-client names", "it shows no name and password of proxy-users", "the host is none of those that proxy-allow names, or the port is another one", "a rule refuses it",
            "the proxy was asked as if it were a web server", "the name leads to a link-local address, as that of a cloud's metadata is"],
        next: ["curl --proxy http://USER:PASSWORD@HOST:PORT URL" => "shows what it says", "dfs-fuse --proxy-allow HOST:PORT" => "names a place and a port"];
    PROXY_UNREACHED = 4162, Source, "an origin cannot be asked through the proxy",
        means: "The proxy asked the origin on behalf of a client and had no answer, or could not connect.",
        causes: ["the origin is away, or its name is misspelt", "its certificate is of an authority that --ca-file does not name: where a connection is looked into the agent checks it, not the client"],
        next: ["curl --noproxy '*' URL" => "asks the origin itself"];
}
