# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_dfs_cluster_global_optspecs
    string join \n h/help V/version
end

function __fish_dfs_cluster_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_dfs_cluster_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_dfs_cluster_using_subcommand
    set -l cmd (__fish_dfs_cluster_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c dfs-cluster -n "__fish_dfs_cluster_needs_command" -s h -l help -d 'Print help'
complete -c dfs-cluster -n "__fish_dfs_cluster_needs_command" -s V -l version -d 'Print version'
complete -c dfs-cluster -n "__fish_dfs_cluster_needs_command" -f -a "all" -d 'Everything, behind one gRPC port'
complete -c dfs-cluster -n "__fish_dfs_cluster_needs_command" -f -a "manager" -d 'The manager: members and their leases'
complete -c dfs-cluster -n "__fish_dfs_cluster_needs_command" -f -a "scheduler" -d 'A scheduler: who may be whose parent'
complete -c dfs-cluster -n "__fish_dfs_cluster_needs_command" -f -a "seed" -d 'A seed: reads origins once for everybody, and keeps'
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand all" -l data-dir -d 'Where the process keeps what must survive it; `dfctl cluster up` says another one [default: /var/lib/dfs-cluster]' -r -F
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand all" -l advertise -d 'Address that others reach this process at, where it is not the one it listens on; repeatable' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand all" -l port-grpc -d 'Port of the gRPC services; 0 is a free one [default: 4000, or a free one if that is taken]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand all" -l port-pieces -d 'Port of the seed\'s piece plane; 0 is a free one [default: 4002, or a free one if that is taken]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand all" -l manager -d 'The manager to join, as host:port; not where the manager runs in this process. A token names it too' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand all" -l join -d 'Token that this process joins the cluster with, once: `dfctl cluster join-token --role ROLE` prints it. Not where the manager runs in this process' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand all" -l config -d 'Configuration file over those in /etc/dfs' -r -F
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand all" -l listen -d 'Address to listen on; others can reach this process only where it has joined with --join [default: 127.0.0.1]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand all" -l port-metrics -d 'Port of metrics and health; 0 is a free one [default: 4090 of a node, 4091 of a cluster, or a free one if that is taken]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand all" -l metrics-listen -d 'Address at which others may read metrics and health too, with the token of --metrics-token-file; the page on loopback stays' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand all" -l metrics-token-file -d 'File with the token that who reads metrics from elsewhere shows, as `Authorization: Bearer METRICS-TOKEN`' -r -F
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand all" -l name -d 'Name for people; the machine\'s own when not given' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand all" -l area -d 'Area (region) this process stands in; one has schedulers and seeds of its own' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand all" -l idc -d 'Data centre it stands in' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand all" -l rack -d 'Finer place in it, elements separated by `|`' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand all" -l log -d 'What is logged, as in RUST_LOG [default: info]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand all" -l log-format -d 'How it is logged: human, json or auto [default: auto]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand all" -l tls -d 'Uses certificates on loopback too: everybody then has to join. On other addresses there is no other way'
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand all" -s h -l help -d 'Print help'
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand manager" -l data-dir -d 'Where the process keeps what must survive it; `dfctl cluster up` says another one [default: /var/lib/dfs-cluster]' -r -F
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand manager" -l advertise -d 'Address that others reach this process at, where it is not the one it listens on; repeatable' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand manager" -l port-grpc -d 'Port of the gRPC services; 0 is a free one [default: 4000, or a free one if that is taken]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand manager" -l port-pieces -d 'Port of the seed\'s piece plane; 0 is a free one [default: 4002, or a free one if that is taken]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand manager" -l manager -d 'The manager to join, as host:port; not where the manager runs in this process. A token names it too' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand manager" -l join -d 'Token that this process joins the cluster with, once: `dfctl cluster join-token --role ROLE` prints it. Not where the manager runs in this process' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand manager" -l config -d 'Configuration file over those in /etc/dfs' -r -F
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand manager" -l listen -d 'Address to listen on; others can reach this process only where it has joined with --join [default: 127.0.0.1]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand manager" -l port-metrics -d 'Port of metrics and health; 0 is a free one [default: 4090 of a node, 4091 of a cluster, or a free one if that is taken]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand manager" -l metrics-listen -d 'Address at which others may read metrics and health too, with the token of --metrics-token-file; the page on loopback stays' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand manager" -l metrics-token-file -d 'File with the token that who reads metrics from elsewhere shows, as `Authorization: Bearer METRICS-TOKEN`' -r -F
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand manager" -l name -d 'Name for people; the machine\'s own when not given' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand manager" -l area -d 'Area (region) this process stands in; one has schedulers and seeds of its own' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand manager" -l idc -d 'Data centre it stands in' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand manager" -l rack -d 'Finer place in it, elements separated by `|`' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand manager" -l log -d 'What is logged, as in RUST_LOG [default: info]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand manager" -l log-format -d 'How it is logged: human, json or auto [default: auto]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand manager" -l tls -d 'Uses certificates on loopback too: everybody then has to join. On other addresses there is no other way'
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand manager" -s h -l help -d 'Print help'
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand scheduler" -l data-dir -d 'Where the process keeps what must survive it; `dfctl cluster up` says another one [default: /var/lib/dfs-cluster]' -r -F
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand scheduler" -l advertise -d 'Address that others reach this process at, where it is not the one it listens on; repeatable' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand scheduler" -l port-grpc -d 'Port of the gRPC services; 0 is a free one [default: 4000, or a free one if that is taken]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand scheduler" -l port-pieces -d 'Port of the seed\'s piece plane; 0 is a free one [default: 4002, or a free one if that is taken]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand scheduler" -l manager -d 'The manager to join, as host:port; not where the manager runs in this process. A token names it too' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand scheduler" -l join -d 'Token that this process joins the cluster with, once: `dfctl cluster join-token --role ROLE` prints it. Not where the manager runs in this process' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand scheduler" -l config -d 'Configuration file over those in /etc/dfs' -r -F
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand scheduler" -l listen -d 'Address to listen on; others can reach this process only where it has joined with --join [default: 127.0.0.1]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand scheduler" -l port-metrics -d 'Port of metrics and health; 0 is a free one [default: 4090 of a node, 4091 of a cluster, or a free one if that is taken]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand scheduler" -l metrics-listen -d 'Address at which others may read metrics and health too, with the token of --metrics-token-file; the page on loopback stays' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand scheduler" -l metrics-token-file -d 'File with the token that who reads metrics from elsewhere shows, as `Authorization: Bearer METRICS-TOKEN`' -r -F
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand scheduler" -l name -d 'Name for people; the machine\'s own when not given' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand scheduler" -l area -d 'Area (region) this process stands in; one has schedulers and seeds of its own' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand scheduler" -l idc -d 'Data centre it stands in' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand scheduler" -l rack -d 'Finer place in it, elements separated by `|`' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand scheduler" -l log -d 'What is logged, as in RUST_LOG [default: info]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand scheduler" -l log-format -d 'How it is logged: human, json or auto [default: auto]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand scheduler" -l tls -d 'Uses certificates on loopback too: everybody then has to join. On other addresses there is no other way'
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand scheduler" -s h -l help -d 'Print help'
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand seed" -l data-dir -d 'Where the process keeps what must survive it; `dfctl cluster up` says another one [default: /var/lib/dfs-cluster]' -r -F
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand seed" -l advertise -d 'Address that others reach this process at, where it is not the one it listens on; repeatable' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand seed" -l port-grpc -d 'Port of the gRPC services; 0 is a free one [default: 4000, or a free one if that is taken]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand seed" -l port-pieces -d 'Port of the seed\'s piece plane; 0 is a free one [default: 4002, or a free one if that is taken]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand seed" -l manager -d 'The manager to join, as host:port; not where the manager runs in this process. A token names it too' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand seed" -l join -d 'Token that this process joins the cluster with, once: `dfctl cluster join-token --role ROLE` prints it. Not where the manager runs in this process' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand seed" -l config -d 'Configuration file over those in /etc/dfs' -r -F
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand seed" -l listen -d 'Address to listen on; others can reach this process only where it has joined with --join [default: 127.0.0.1]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand seed" -l port-metrics -d 'Port of metrics and health; 0 is a free one [default: 4090 of a node, 4091 of a cluster, or a free one if that is taken]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand seed" -l metrics-listen -d 'Address at which others may read metrics and health too, with the token of --metrics-token-file; the page on loopback stays' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand seed" -l metrics-token-file -d 'File with the token that who reads metrics from elsewhere shows, as `Authorization: Bearer METRICS-TOKEN`' -r -F
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand seed" -l name -d 'Name for people; the machine\'s own when not given' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand seed" -l area -d 'Area (region) this process stands in; one has schedulers and seeds of its own' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand seed" -l idc -d 'Data centre it stands in' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand seed" -l rack -d 'Finer place in it, elements separated by `|`' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand seed" -l log -d 'What is logged, as in RUST_LOG [default: info]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand seed" -l log-format -d 'How it is logged: human, json or auto [default: auto]' -r
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand seed" -l tls -d 'Uses certificates on loopback too: everybody then has to join. On other addresses there is no other way'
complete -c dfs-cluster -n "__fish_dfs_cluster_using_subcommand seed" -s h -l help -d 'Print help'
