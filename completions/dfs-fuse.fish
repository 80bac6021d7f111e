# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_dfs_fuse_global_optspecs
    string join \n data-dir= socket= socket-group= snapshotter-socket= cri-socket= containerd-socket= cluster= join= advertise= port-pieces= port-grpc= capacity= cache-medium= cache-memory= upload-rate= ca-file= image-credential-provider-config= image-credential-provider-bin-dir= registries-conf= export= holder= mirror-listen= mirror-registry= mirror-client= mirror-default= proxy-listen= proxy-rules= proxy-ca-cert= proxy-ca-key= proxy-client= proxy-users= proxy-allow= index-key= index-registry= exit-when-idle config= listen= port-metrics= metrics-listen= metrics-token-file= name= area= idc= rack= log= log-format= h/help V/version
end

function __fish_dfs_fuse_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_dfs_fuse_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_dfs_fuse_using_subcommand
    set -l cmd (__fish_dfs_fuse_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l data-dir -d 'Where the agent keeps its cache and its identity [default: /var/lib/dfs]' -r -F
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l socket -d 'Unix socket that dfctl talks to [default: agent.sock in the data directory]' -r -F
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l socket-group -d 'Group whose members may use the socket too, by its name or its number' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l snapshotter-socket -d 'Unix socket at which containerd finds a snapshotter that shows images instead of unpacking them; root alone may use it. None is not served' -r -F
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l cri-socket -d 'Unix socket at which a kubelet finds containerd\'s CRI, passed on as it is: so the snapshotter learns the pull secrets of images. None is not served' -r -F
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l containerd-socket -d 'Unix socket at which containerd listens [default: /run/containerd/containerd.sock]' -r -F
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l cluster -d 'The cluster to take part in, as host:port of its manager; repeatable. None is solo' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l join -d 'Token that this machine joins the cluster with, once; it says where the cluster is. `dfctl cluster up` and `dfctl cluster join-token` print it' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l advertise -d 'Address that others reach this host\'s pieces at, where it is not the one it listens on; repeatable' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l port-pieces -d 'Port of the piece plane; 0 is a free one [default: 4001, or a free one if that is taken]' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l port-grpc -d 'Port at which this host\'s neighbours find it where it leads them in its scheduler\'s place; 0 is a free one [default: 4003, or a free one if that is taken]' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l capacity -d 'Disk that the cache may take, as in 50GiB, at least 64MiB; all of the file system when not given' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l cache-medium -d 'Where the cache lies: on disk; in memory, which is lost with the machine and given back when the agent ends for good; or layered, in memory until that is needed and then on disk [default: disk]' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l cache-memory -d 'Memory that a cache in memory or layered takes of it at most, as in 4GiB, at least 64MiB; a quarter of the machine\'s, or its control group\'s, when not given' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l upload-rate -d 'Bytes in a second that it uploads at most, as in 1Gbit/s' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l ca-file -d 'PEM file of a certificate authority that origins may be signed by; repeatable' -r -F
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l image-credential-provider-config -d 'What a kubelet is told of its credential providers, a file or a directory of files: the agent asks them for its own logins to registries, before it looks for others. None are asked when not given' -r -F
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l image-credential-provider-bin-dir -d 'Directory in which the programs of these credential providers lie' -r -F
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l registries-conf -d 'A file that says which registries have mirrors, as `registries.conf` of podman and CRI-O does: what these give is held against its digest, and they are asked without a login. None is read when not given' -r -F
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l export -d 'Directory that other users may name files in, each with their own rights; absolute; repeatable' -r -F
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l holder -d 'Who keeps the mounts when the agent dies, until the next one goes on with them: own, a process that it starts and that starts it again; systemd, where the agent is a service of it; the path of the socket of one that is there already, as outside of a container; or off [default: own]' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l mirror-listen -d 'Address at which container runtimes pull through this agent (see the guide\'s mirror.md), as in 127.0.0.1:4050; port 0 is a free one. No mirror when not given' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l mirror-registry -d 'Registry that may be asked through the mirror; repeatable. Any when none is given, by clients of this machine' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l mirror-client -d 'Network of other machines that may ask the mirror, as in 10.0.0.0/8; repeatable. Only this machine when none is given' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l mirror-default -d 'Registry that the mirror stands for where a client names none [default: docker.io]' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l proxy-listen -d 'Address at which programs find a proxy for HTTP and HTTPS (see the guide\'s proxy.md), as in 127.0.0.1:4051; port 0 is a free one. No proxy when not given' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l proxy-rules -d 'File of rules: which URLs go through the swarm, elsewhere or nowhere, and whose connections are looked into. All is passed on as it is when not given' -r -F
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l proxy-ca-cert -d 'PEM file of the certificate authority that clients of the proxy trust, where connections are looked into' -r -F
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l proxy-ca-key -d 'PEM file of its key' -r -F
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l proxy-client -d 'Network of other machines that may ask the proxy, as in 10.0.0.0/8; repeatable. Only this machine when none is given' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l proxy-users -d 'File of names and passwords that the proxy asks for, as `htpasswd -B` writes it. It asks for none when not given' -r -F
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l proxy-allow -d 'Host that clients of the proxy may go to, as in example.org, *.example.org or example.org:8443; repeatable. Anywhere when none is given' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l index-key -d 'Key that is believed of indexes that somebody attached to an image, an Ed25519 public key of 64 hexadecimal digits; repeatable. No attached index is used when none is given' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l index-registry -d 'Registry of which all attached indexes are believed, whoever made them; repeatable' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l config -d 'Configuration file over those in /etc/dfs' -r -F
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l listen -d 'Address to listen on; others can reach this process only where it has joined with --join [default: 127.0.0.1]' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l port-metrics -d 'Port of metrics and health; 0 is a free one [default: 4090 of a node, 4091 of a cluster, or a free one if that is taken]' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l metrics-listen -d 'Address at which others may read metrics and health too, with the token of --metrics-token-file; the page on loopback stays' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l metrics-token-file -d 'File with the token that who reads metrics from elsewhere shows, as `Authorization: Bearer METRICS-TOKEN`' -r -F
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l name -d 'Name for people; the machine\'s own when not given' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l area -d 'Area (region) this process stands in; one has schedulers and seeds of its own' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l idc -d 'Data centre it stands in' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l rack -d 'Finer place in it, elements separated by `|`' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l log -d 'What is logged, as in RUST_LOG [default: info]' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l log-format -d 'How it is logged: human, json or auto [default: auto]' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -l exit-when-idle -d 'Ends when nothing has been mounted and nothing asked for a while'
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -s h -l help -d 'Print help'
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -s V -l version -d 'Print version'
complete -c dfs-fuse -n "__fish_dfs_fuse_needs_command" -f -a "holder" -d 'Keeps the mounts of an agent that dies for the next one. Agents start it themselves; a machine runs it for those in containers'
complete -c dfs-fuse -n "__fish_dfs_fuse_using_subcommand holder" -l socket -d 'Unix socket that agents find it at' -r -F
complete -c dfs-fuse -n "__fish_dfs_fuse_using_subcommand holder" -l patience-seconds -d 'Seconds that mounts whose agent is gone are kept for the next one; then they are taken away' -r
complete -c dfs-fuse -n "__fish_dfs_fuse_using_subcommand holder" -s h -l help -d 'Print help'
