# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_dfctl_global_optspecs
    string join \n cluster= socket= solo= data-dir= format= progress= color= q/quiet v/verbose h/help V/version
end

function __fish_dfctl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_dfctl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_dfctl_using_subcommand
    set -l cmd (__fish_dfctl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c dfctl -n "__fish_dfctl_needs_command" -l cluster -d 'Cluster, as address:port, for an agent that `mount` starts; one that runs must take part in it' -r
complete -c dfctl -n "__fish_dfctl_needs_command" -l socket -d 'Socket of the node agent; where nobody answers on one given here, `mount` starts an agent and any other command fails' -r -F
complete -c dfctl -n "__fish_dfctl_needs_command" -l solo -d 'Work without any node agent' -r -f -a "true\t''
false\t''"
complete -c dfctl -n "__fish_dfctl_needs_command" -l data-dir -d 'Where a process started by dfctl keeps its data; without an agent, dfctl\'s own goes to DIR/solo' -r -F
complete -c dfctl -n "__fish_dfctl_needs_command" -l format -d 'Shape of the result' -r -f -a "human\t'For people'
json\t'One document: `{"version": 1, "kind": …, …}`'
jsonl\t'One object a line'
name\t'Names only, one a line'"
complete -c dfctl -n "__fish_dfctl_needs_command" -l progress -d 'How progress is shown on stderr' -r -f -a "auto\t'A bar on a terminal, else nothing'
bar\t'A bar'
plain\t'A line every few seconds'
json\t'One JSON object a line, every second'
none\t'Nothing'"
complete -c dfctl -n "__fish_dfctl_needs_command" -l color -d 'When to colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c dfctl -n "__fish_dfctl_needs_command" -s q -l quiet -d 'Say only what failed, and print only what was asked for'
complete -c dfctl -n "__fish_dfctl_needs_command" -s v -l verbose -d 'Say more'
complete -c dfctl -n "__fish_dfctl_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dfctl -n "__fish_dfctl_needs_command" -s V -l version -d 'Print version'
complete -c dfctl -n "__fish_dfctl_needs_command" -f -a "get" -d 'Get a file, or with -r a whole tree, from a URL'
complete -c dfctl -n "__fish_dfctl_needs_command" -f -a "cat" -d 'Write the content behind a URL to the standard output'
complete -c dfctl -n "__fish_dfctl_needs_command" -f -a "ls" -d 'List what is behind a URL'
complete -c dfctl -n "__fish_dfctl_needs_command" -f -a "stat" -d 'Say what is behind a URL: kind, size, version, task'
complete -c dfctl -n "__fish_dfctl_needs_command" -f -a "mount" -d 'Mount what is behind a URL as a read-only directory'
complete -c dfctl -n "__fish_dfctl_needs_command" -f -a "umount" -d 'Take a mount away'
complete -c dfctl -n "__fish_dfctl_needs_command" -f -a "mounts" -d 'List what is mounted on this machine'
complete -c dfctl -n "__fish_dfctl_needs_command" -f -a "task" -d 'Look at what is being distributed, or was'
complete -c dfctl -n "__fish_dfctl_needs_command" -f -a "cache" -d 'Look after this machine\'s cache'
complete -c dfctl -n "__fish_dfctl_needs_command" -f -a "cluster" -d 'Run a cluster on this machine'
complete -c dfctl -n "__fish_dfctl_needs_command" -f -a "version" -d 'Say which dfctl this is, and which node agent answers'
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -s H -l header -d 'Header for the origin; one that looks secret never leaves for another host' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -l profile -d 'Profile of ~/.aws with the keys and the region for s3:// URLs' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -l endpoint -d 'Store that s3:// URLs mean, as in http://host:9000 [default: AWS]' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -s o -l output -d 'Where to: a file, a directory that exists, or - for the standard output' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -l include -d 'With -r: only files that match; a pattern without / matches names at any depth' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -l exclude -d 'With -r: no files that match' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -l range -d 'Only bytes A to B, counted from 0, both included' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -l digest -d 'What the bytes must be, as in sha256:9f2c… or blake3:9f2c…' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -l limit -d 'At most this fast, as in 10MiB/s or 100Mbit/s' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -l priority -d 'Urgency, 0 the most urgent' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -l cluster -d 'Cluster, as address:port, for an agent that `mount` starts; one that runs must take part in it' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -l socket -d 'Socket of the node agent; where nobody answers on one given here, `mount` starts an agent and any other command fails' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -l solo -d 'Work without any node agent' -r -f -a "true\t''
false\t''"
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -l data-dir -d 'Where a process started by dfctl keeps its data; without an agent, dfctl\'s own goes to DIR/solo' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -l format -d 'Shape of the result' -r -f -a "human\t'For people'
json\t'One document: `{"version": 1, "kind": …, …}`'
jsonl\t'One object a line'
name\t'Names only, one a line'"
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -l progress -d 'How progress is shown on stderr' -r -f -a "auto\t'A bar on a terminal, else nothing'
bar\t'A bar'
plain\t'A line every few seconds'
json\t'One JSON object a line, every second'
none\t'Nothing'"
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -l color -d 'When to colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -s r -l recursive -d 'Everything below, into a directory'
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -s f -l force -d 'Replace what exists'
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -l explain -d 'End with a ledger of where every byte and the time came from'
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -s q -l quiet -d 'Say only what failed, and print only what was asked for'
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -s v -l verbose -d 'Say more'
complete -c dfctl -n "__fish_dfctl_using_subcommand get" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dfctl -n "__fish_dfctl_using_subcommand cat" -s H -l header -d 'Header for the origin; one that looks secret never leaves for another host' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand cat" -l profile -d 'Profile of ~/.aws with the keys and the region for s3:// URLs' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand cat" -l endpoint -d 'Store that s3:// URLs mean, as in http://host:9000 [default: AWS]' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand cat" -l range -d 'Only bytes A to B, counted from 0, both included' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand cat" -l digest -d 'What the bytes must be, as in sha256:9f2c… or blake3:9f2c…' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand cat" -l limit -d 'At most this fast, as in 10MiB/s or 100Mbit/s' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand cat" -l priority -d 'Urgency, 0 the most urgent' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand cat" -l cluster -d 'Cluster, as address:port, for an agent that `mount` starts; one that runs must take part in it' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand cat" -l socket -d 'Socket of the node agent; where nobody answers on one given here, `mount` starts an agent and any other command fails' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand cat" -l solo -d 'Work without any node agent' -r -f -a "true\t''
false\t''"
complete -c dfctl -n "__fish_dfctl_using_subcommand cat" -l data-dir -d 'Where a process started by dfctl keeps its data; without an agent, dfctl\'s own goes to DIR/solo' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand cat" -l format -d 'Shape of the result' -r -f -a "human\t'For people'
json\t'One document: `{"version": 1, "kind": …, …}`'
jsonl\t'One object a line'
name\t'Names only, one a line'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cat" -l progress -d 'How progress is shown on stderr' -r -f -a "auto\t'A bar on a terminal, else nothing'
bar\t'A bar'
plain\t'A line every few seconds'
json\t'One JSON object a line, every second'
none\t'Nothing'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cat" -l color -d 'When to colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cat" -l explain -d 'End with a ledger of where every byte and the time came from'
complete -c dfctl -n "__fish_dfctl_using_subcommand cat" -s q -l quiet -d 'Say only what failed, and print only what was asked for'
complete -c dfctl -n "__fish_dfctl_using_subcommand cat" -s v -l verbose -d 'Say more'
complete -c dfctl -n "__fish_dfctl_using_subcommand cat" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dfctl -n "__fish_dfctl_using_subcommand ls" -s H -l header -d 'Header for the origin; one that looks secret never leaves for another host' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand ls" -l profile -d 'Profile of ~/.aws with the keys and the region for s3:// URLs' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand ls" -l endpoint -d 'Store that s3:// URLs mean, as in http://host:9000 [default: AWS]' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand ls" -l cluster -d 'Cluster, as address:port, for an agent that `mount` starts; one that runs must take part in it' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand ls" -l socket -d 'Socket of the node agent; where nobody answers on one given here, `mount` starts an agent and any other command fails' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand ls" -l solo -d 'Work without any node agent' -r -f -a "true\t''
false\t''"
complete -c dfctl -n "__fish_dfctl_using_subcommand ls" -l data-dir -d 'Where a process started by dfctl keeps its data; without an agent, dfctl\'s own goes to DIR/solo' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand ls" -l format -d 'Shape of the result' -r -f -a "human\t'For people'
json\t'One document: `{"version": 1, "kind": …, …}`'
jsonl\t'One object a line'
name\t'Names only, one a line'"
complete -c dfctl -n "__fish_dfctl_using_subcommand ls" -l progress -d 'How progress is shown on stderr' -r -f -a "auto\t'A bar on a terminal, else nothing'
bar\t'A bar'
plain\t'A line every few seconds'
json\t'One JSON object a line, every second'
none\t'Nothing'"
complete -c dfctl -n "__fish_dfctl_using_subcommand ls" -l color -d 'When to colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c dfctl -n "__fish_dfctl_using_subcommand ls" -s r -l recursive -d 'Everything below, not only the next level'
complete -c dfctl -n "__fish_dfctl_using_subcommand ls" -s 0 -l null -d 'Only names, each ended by a NUL byte instead of a newline, which names may hold'
complete -c dfctl -n "__fish_dfctl_using_subcommand ls" -s q -l quiet -d 'Say only what failed, and print only what was asked for'
complete -c dfctl -n "__fish_dfctl_using_subcommand ls" -s v -l verbose -d 'Say more'
complete -c dfctl -n "__fish_dfctl_using_subcommand ls" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dfctl -n "__fish_dfctl_using_subcommand stat" -s H -l header -d 'Header for the origin; one that looks secret never leaves for another host' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand stat" -l profile -d 'Profile of ~/.aws with the keys and the region for s3:// URLs' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand stat" -l endpoint -d 'Store that s3:// URLs mean, as in http://host:9000 [default: AWS]' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand stat" -l as -d 'Look at it as one file or as a tree, instead of as a mount would show it' -r -f -a "file\t'The one byte sequence behind the URL'
tree\t'A directory hierarchy'"
complete -c dfctl -n "__fish_dfctl_using_subcommand stat" -l cluster -d 'Cluster, as address:port, for an agent that `mount` starts; one that runs must take part in it' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand stat" -l socket -d 'Socket of the node agent; where nobody answers on one given here, `mount` starts an agent and any other command fails' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand stat" -l solo -d 'Work without any node agent' -r -f -a "true\t''
false\t''"
complete -c dfctl -n "__fish_dfctl_using_subcommand stat" -l data-dir -d 'Where a process started by dfctl keeps its data; without an agent, dfctl\'s own goes to DIR/solo' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand stat" -l format -d 'Shape of the result' -r -f -a "human\t'For people'
json\t'One document: `{"version": 1, "kind": …, …}`'
jsonl\t'One object a line'
name\t'Names only, one a line'"
complete -c dfctl -n "__fish_dfctl_using_subcommand stat" -l progress -d 'How progress is shown on stderr' -r -f -a "auto\t'A bar on a terminal, else nothing'
bar\t'A bar'
plain\t'A line every few seconds'
json\t'One JSON object a line, every second'
none\t'Nothing'"
complete -c dfctl -n "__fish_dfctl_using_subcommand stat" -l color -d 'When to colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c dfctl -n "__fish_dfctl_using_subcommand stat" -s q -l quiet -d 'Say only what failed, and print only what was asked for'
complete -c dfctl -n "__fish_dfctl_using_subcommand stat" -s v -l verbose -d 'Say more'
complete -c dfctl -n "__fish_dfctl_using_subcommand stat" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dfctl -n "__fish_dfctl_using_subcommand mount" -s H -l header -d 'Header for the origin; one that looks secret never leaves for another host' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand mount" -l profile -d 'Profile of ~/.aws with the keys and the region for s3:// URLs' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand mount" -l endpoint -d 'Store that s3:// URLs mean, as in http://host:9000 [default: AWS]' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand mount" -l lane -d 'How the kernel reads it' -r -f -a "auto\t''
fuse\t''"
complete -c dfctl -n "__fish_dfctl_using_subcommand mount" -l as -d 'Show it as one file or as a tree, instead of by its kind' -r -f -a "file\t'The one byte sequence behind the URL'
tree\t'A directory hierarchy'"
complete -c dfctl -n "__fish_dfctl_using_subcommand mount" -l cluster -d 'Cluster, as address:port, for an agent that `mount` starts; one that runs must take part in it' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand mount" -l socket -d 'Socket of the node agent; where nobody answers on one given here, `mount` starts an agent and any other command fails' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand mount" -l solo -d 'Work without any node agent' -r -f -a "true\t''
false\t''"
complete -c dfctl -n "__fish_dfctl_using_subcommand mount" -l data-dir -d 'Where a process started by dfctl keeps its data; without an agent, dfctl\'s own goes to DIR/solo' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand mount" -l format -d 'Shape of the result' -r -f -a "human\t'For people'
json\t'One document: `{"version": 1, "kind": …, …}`'
jsonl\t'One object a line'
name\t'Names only, one a line'"
complete -c dfctl -n "__fish_dfctl_using_subcommand mount" -l progress -d 'How progress is shown on stderr' -r -f -a "auto\t'A bar on a terminal, else nothing'
bar\t'A bar'
plain\t'A line every few seconds'
json\t'One JSON object a line, every second'
none\t'Nothing'"
complete -c dfctl -n "__fish_dfctl_using_subcommand mount" -l color -d 'When to colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c dfctl -n "__fish_dfctl_using_subcommand mount" -l allow-other -d 'Let other users look inside, also where credentials were given'
complete -c dfctl -n "__fish_dfctl_using_subcommand mount" -s q -l quiet -d 'Say only what failed, and print only what was asked for'
complete -c dfctl -n "__fish_dfctl_using_subcommand mount" -s v -l verbose -d 'Say more'
complete -c dfctl -n "__fish_dfctl_using_subcommand mount" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dfctl -n "__fish_dfctl_using_subcommand umount" -l cluster -d 'Cluster, as address:port, for an agent that `mount` starts; one that runs must take part in it' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand umount" -l socket -d 'Socket of the node agent; where nobody answers on one given here, `mount` starts an agent and any other command fails' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand umount" -l solo -d 'Work without any node agent' -r -f -a "true\t''
false\t''"
complete -c dfctl -n "__fish_dfctl_using_subcommand umount" -l data-dir -d 'Where a process started by dfctl keeps its data; without an agent, dfctl\'s own goes to DIR/solo' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand umount" -l format -d 'Shape of the result' -r -f -a "human\t'For people'
json\t'One document: `{"version": 1, "kind": …, …}`'
jsonl\t'One object a line'
name\t'Names only, one a line'"
complete -c dfctl -n "__fish_dfctl_using_subcommand umount" -l progress -d 'How progress is shown on stderr' -r -f -a "auto\t'A bar on a terminal, else nothing'
bar\t'A bar'
plain\t'A line every few seconds'
json\t'One JSON object a line, every second'
none\t'Nothing'"
complete -c dfctl -n "__fish_dfctl_using_subcommand umount" -l color -d 'When to colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c dfctl -n "__fish_dfctl_using_subcommand umount" -s l -l lazy -d 'Take the name away now and the rest when the last user leaves'
complete -c dfctl -n "__fish_dfctl_using_subcommand umount" -s q -l quiet -d 'Say only what failed, and print only what was asked for'
complete -c dfctl -n "__fish_dfctl_using_subcommand umount" -s v -l verbose -d 'Say more'
complete -c dfctl -n "__fish_dfctl_using_subcommand umount" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dfctl -n "__fish_dfctl_using_subcommand mounts" -l cluster -d 'Cluster, as address:port, for an agent that `mount` starts; one that runs must take part in it' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand mounts" -l socket -d 'Socket of the node agent; where nobody answers on one given here, `mount` starts an agent and any other command fails' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand mounts" -l solo -d 'Work without any node agent' -r -f -a "true\t''
false\t''"
complete -c dfctl -n "__fish_dfctl_using_subcommand mounts" -l data-dir -d 'Where a process started by dfctl keeps its data; without an agent, dfctl\'s own goes to DIR/solo' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand mounts" -l format -d 'Shape of the result' -r -f -a "human\t'For people'
json\t'One document: `{"version": 1, "kind": …, …}`'
jsonl\t'One object a line'
name\t'Names only, one a line'"
complete -c dfctl -n "__fish_dfctl_using_subcommand mounts" -l progress -d 'How progress is shown on stderr' -r -f -a "auto\t'A bar on a terminal, else nothing'
bar\t'A bar'
plain\t'A line every few seconds'
json\t'One JSON object a line, every second'
none\t'Nothing'"
complete -c dfctl -n "__fish_dfctl_using_subcommand mounts" -l color -d 'When to colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c dfctl -n "__fish_dfctl_using_subcommand mounts" -s q -l quiet -d 'Say only what failed, and print only what was asked for'
complete -c dfctl -n "__fish_dfctl_using_subcommand mounts" -s v -l verbose -d 'Say more'
complete -c dfctl -n "__fish_dfctl_using_subcommand mounts" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and not __fish_seen_subcommand_from ls show" -l cluster -d 'Cluster, as address:port, for an agent that `mount` starts; one that runs must take part in it' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and not __fish_seen_subcommand_from ls show" -l socket -d 'Socket of the node agent; where nobody answers on one given here, `mount` starts an agent and any other command fails' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and not __fish_seen_subcommand_from ls show" -l solo -d 'Work without any node agent' -r -f -a "true\t''
false\t''"
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and not __fish_seen_subcommand_from ls show" -l data-dir -d 'Where a process started by dfctl keeps its data; without an agent, dfctl\'s own goes to DIR/solo' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and not __fish_seen_subcommand_from ls show" -l format -d 'Shape of the result' -r -f -a "human\t'For people'
json\t'One document: `{"version": 1, "kind": …, …}`'
jsonl\t'One object a line'
name\t'Names only, one a line'"
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and not __fish_seen_subcommand_from ls show" -l progress -d 'How progress is shown on stderr' -r -f -a "auto\t'A bar on a terminal, else nothing'
bar\t'A bar'
plain\t'A line every few seconds'
json\t'One JSON object a line, every second'
none\t'Nothing'"
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and not __fish_seen_subcommand_from ls show" -l color -d 'When to colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and not __fish_seen_subcommand_from ls show" -s q -l quiet -d 'Say only what failed, and print only what was asked for'
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and not __fish_seen_subcommand_from ls show" -s v -l verbose -d 'Say more'
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and not __fish_seen_subcommand_from ls show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and not __fish_seen_subcommand_from ls show" -f -a "ls" -d 'List the tasks that this machine holds bytes of'
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and not __fish_seen_subcommand_from ls show" -f -a "show" -d 'Show one task in full'
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and __fish_seen_subcommand_from ls" -l cluster -d 'Cluster, as address:port, for an agent that `mount` starts; one that runs must take part in it' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and __fish_seen_subcommand_from ls" -l socket -d 'Socket of the node agent; where nobody answers on one given here, `mount` starts an agent and any other command fails' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and __fish_seen_subcommand_from ls" -l solo -d 'Work without any node agent' -r -f -a "true\t''
false\t''"
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and __fish_seen_subcommand_from ls" -l data-dir -d 'Where a process started by dfctl keeps its data; without an agent, dfctl\'s own goes to DIR/solo' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and __fish_seen_subcommand_from ls" -l format -d 'Shape of the result' -r -f -a "human\t'For people'
json\t'One document: `{"version": 1, "kind": …, …}`'
jsonl\t'One object a line'
name\t'Names only, one a line'"
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and __fish_seen_subcommand_from ls" -l progress -d 'How progress is shown on stderr' -r -f -a "auto\t'A bar on a terminal, else nothing'
bar\t'A bar'
plain\t'A line every few seconds'
json\t'One JSON object a line, every second'
none\t'Nothing'"
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and __fish_seen_subcommand_from ls" -l color -d 'When to colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and __fish_seen_subcommand_from ls" -s q -l quiet -d 'Say only what failed, and print only what was asked for'
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and __fish_seen_subcommand_from ls" -s v -l verbose -d 'Say more'
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and __fish_seen_subcommand_from show" -l cluster -d 'Cluster, as address:port, for an agent that `mount` starts; one that runs must take part in it' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and __fish_seen_subcommand_from show" -l socket -d 'Socket of the node agent; where nobody answers on one given here, `mount` starts an agent and any other command fails' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and __fish_seen_subcommand_from show" -l solo -d 'Work without any node agent' -r -f -a "true\t''
false\t''"
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and __fish_seen_subcommand_from show" -l data-dir -d 'Where a process started by dfctl keeps its data; without an agent, dfctl\'s own goes to DIR/solo' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and __fish_seen_subcommand_from show" -l format -d 'Shape of the result' -r -f -a "human\t'For people'
json\t'One document: `{"version": 1, "kind": …, …}`'
jsonl\t'One object a line'
name\t'Names only, one a line'"
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and __fish_seen_subcommand_from show" -l progress -d 'How progress is shown on stderr' -r -f -a "auto\t'A bar on a terminal, else nothing'
bar\t'A bar'
plain\t'A line every few seconds'
json\t'One JSON object a line, every second'
none\t'Nothing'"
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and __fish_seen_subcommand_from show" -l color -d 'When to colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and __fish_seen_subcommand_from show" -s q -l quiet -d 'Say only what failed, and print only what was asked for'
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and __fish_seen_subcommand_from show" -s v -l verbose -d 'Say more'
complete -c dfctl -n "__fish_dfctl_using_subcommand task; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and not __fish_seen_subcommand_from ls gc verify" -l cluster -d 'Cluster, as address:port, for an agent that `mount` starts; one that runs must take part in it' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and not __fish_seen_subcommand_from ls gc verify" -l socket -d 'Socket of the node agent; where nobody answers on one given here, `mount` starts an agent and any other command fails' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and not __fish_seen_subcommand_from ls gc verify" -l solo -d 'Work without any node agent' -r -f -a "true\t''
false\t''"
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and not __fish_seen_subcommand_from ls gc verify" -l data-dir -d 'Where a process started by dfctl keeps its data; without an agent, dfctl\'s own goes to DIR/solo' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and not __fish_seen_subcommand_from ls gc verify" -l format -d 'Shape of the result' -r -f -a "human\t'For people'
json\t'One document: `{"version": 1, "kind": …, …}`'
jsonl\t'One object a line'
name\t'Names only, one a line'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and not __fish_seen_subcommand_from ls gc verify" -l progress -d 'How progress is shown on stderr' -r -f -a "auto\t'A bar on a terminal, else nothing'
bar\t'A bar'
plain\t'A line every few seconds'
json\t'One JSON object a line, every second'
none\t'Nothing'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and not __fish_seen_subcommand_from ls gc verify" -l color -d 'When to colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and not __fish_seen_subcommand_from ls gc verify" -s q -l quiet -d 'Say only what failed, and print only what was asked for'
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and not __fish_seen_subcommand_from ls gc verify" -s v -l verbose -d 'Say more'
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and not __fish_seen_subcommand_from ls gc verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and not __fish_seen_subcommand_from ls gc verify" -f -a "ls" -d 'List what the cache holds, the longest unread first'
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and not __fish_seen_subcommand_from ls gc verify" -f -a "gc" -d 'Evict what nobody reads; never what is in use or pinned'
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and not __fish_seen_subcommand_from ls gc verify" -f -a "verify" -d 'Hash what the cache holds again; mark damaged groups missing'
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from ls" -l cluster -d 'Cluster, as address:port, for an agent that `mount` starts; one that runs must take part in it' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from ls" -l socket -d 'Socket of the node agent; where nobody answers on one given here, `mount` starts an agent and any other command fails' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from ls" -l solo -d 'Work without any node agent' -r -f -a "true\t''
false\t''"
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from ls" -l data-dir -d 'Where a process started by dfctl keeps its data; without an agent, dfctl\'s own goes to DIR/solo' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from ls" -l format -d 'Shape of the result' -r -f -a "human\t'For people'
json\t'One document: `{"version": 1, "kind": …, …}`'
jsonl\t'One object a line'
name\t'Names only, one a line'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from ls" -l progress -d 'How progress is shown on stderr' -r -f -a "auto\t'A bar on a terminal, else nothing'
bar\t'A bar'
plain\t'A line every few seconds'
json\t'One JSON object a line, every second'
none\t'Nothing'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from ls" -l color -d 'When to colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from ls" -s q -l quiet -d 'Say only what failed, and print only what was asked for'
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from ls" -s v -l verbose -d 'Say more'
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from gc" -l target -d 'Evict until no more than this is used; without it, down to the agent\'s own low mark' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from gc" -l cluster -d 'Cluster, as address:port, for an agent that `mount` starts; one that runs must take part in it' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from gc" -l socket -d 'Socket of the node agent; where nobody answers on one given here, `mount` starts an agent and any other command fails' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from gc" -l solo -d 'Work without any node agent' -r -f -a "true\t''
false\t''"
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from gc" -l data-dir -d 'Where a process started by dfctl keeps its data; without an agent, dfctl\'s own goes to DIR/solo' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from gc" -l format -d 'Shape of the result' -r -f -a "human\t'For people'
json\t'One document: `{"version": 1, "kind": …, …}`'
jsonl\t'One object a line'
name\t'Names only, one a line'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from gc" -l progress -d 'How progress is shown on stderr' -r -f -a "auto\t'A bar on a terminal, else nothing'
bar\t'A bar'
plain\t'A line every few seconds'
json\t'One JSON object a line, every second'
none\t'Nothing'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from gc" -l color -d 'When to colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from gc" -s n -l dry-run -d 'Only say what would go'
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from gc" -s q -l quiet -d 'Say only what failed, and print only what was asked for'
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from gc" -s v -l verbose -d 'Say more'
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from gc" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from verify" -l cluster -d 'Cluster, as address:port, for an agent that `mount` starts; one that runs must take part in it' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from verify" -l socket -d 'Socket of the node agent; where nobody answers on one given here, `mount` starts an agent and any other command fails' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from verify" -l solo -d 'Work without any node agent' -r -f -a "true\t''
false\t''"
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from verify" -l data-dir -d 'Where a process started by dfctl keeps its data; without an agent, dfctl\'s own goes to DIR/solo' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from verify" -l format -d 'Shape of the result' -r -f -a "human\t'For people'
json\t'One document: `{"version": 1, "kind": …, …}`'
jsonl\t'One object a line'
name\t'Names only, one a line'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from verify" -l progress -d 'How progress is shown on stderr' -r -f -a "auto\t'A bar on a terminal, else nothing'
bar\t'A bar'
plain\t'A line every few seconds'
json\t'One JSON object a line, every second'
none\t'Nothing'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from verify" -l color -d 'When to colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from verify" -s q -l quiet -d 'Say only what failed, and print only what was asked for'
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from verify" -s v -l verbose -d 'Say more'
complete -c dfctl -n "__fish_dfctl_using_subcommand cache; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and not __fish_seen_subcommand_from up down status" -l cluster -d 'Cluster, as address:port, for an agent that `mount` starts; one that runs must take part in it' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and not __fish_seen_subcommand_from up down status" -l socket -d 'Socket of the node agent; where nobody answers on one given here, `mount` starts an agent and any other command fails' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and not __fish_seen_subcommand_from up down status" -l solo -d 'Work without any node agent' -r -f -a "true\t''
false\t''"
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and not __fish_seen_subcommand_from up down status" -l data-dir -d 'Where a process started by dfctl keeps its data; without an agent, dfctl\'s own goes to DIR/solo' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and not __fish_seen_subcommand_from up down status" -l format -d 'Shape of the result' -r -f -a "human\t'For people'
json\t'One document: `{"version": 1, "kind": …, …}`'
jsonl\t'One object a line'
name\t'Names only, one a line'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and not __fish_seen_subcommand_from up down status" -l progress -d 'How progress is shown on stderr' -r -f -a "auto\t'A bar on a terminal, else nothing'
bar\t'A bar'
plain\t'A line every few seconds'
json\t'One JSON object a line, every second'
none\t'Nothing'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and not __fish_seen_subcommand_from up down status" -l color -d 'When to colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and not __fish_seen_subcommand_from up down status" -s q -l quiet -d 'Say only what failed, and print only what was asked for'
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and not __fish_seen_subcommand_from up down status" -s v -l verbose -d 'Say more'
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and not __fish_seen_subcommand_from up down status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and not __fish_seen_subcommand_from up down status" -f -a "up" -d 'Start a cluster on this machine: manager, scheduler and seed in one'
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and not __fish_seen_subcommand_from up down status" -f -a "down" -d 'Stop the cluster of this machine; what it holds stays'
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and not __fish_seen_subcommand_from up down status" -f -a "status" -d 'Say whether a cluster runs on this machine, and how its parts are'
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from up" -l cluster -d 'Cluster, as address:port, for an agent that `mount` starts; one that runs must take part in it' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from up" -l socket -d 'Socket of the node agent; where nobody answers on one given here, `mount` starts an agent and any other command fails' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from up" -l solo -d 'Work without any node agent' -r -f -a "true\t''
false\t''"
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from up" -l data-dir -d 'Where a process started by dfctl keeps its data; without an agent, dfctl\'s own goes to DIR/solo' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from up" -l format -d 'Shape of the result' -r -f -a "human\t'For people'
json\t'One document: `{"version": 1, "kind": …, …}`'
jsonl\t'One object a line'
name\t'Names only, one a line'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from up" -l progress -d 'How progress is shown on stderr' -r -f -a "auto\t'A bar on a terminal, else nothing'
bar\t'A bar'
plain\t'A line every few seconds'
json\t'One JSON object a line, every second'
none\t'Nothing'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from up" -l color -d 'When to colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from up" -s q -l quiet -d 'Say only what failed, and print only what was asked for'
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from up" -s v -l verbose -d 'Say more'
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from up" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from down" -l cluster -d 'Cluster, as address:port, for an agent that `mount` starts; one that runs must take part in it' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from down" -l socket -d 'Socket of the node agent; where nobody answers on one given here, `mount` starts an agent and any other command fails' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from down" -l solo -d 'Work without any node agent' -r -f -a "true\t''
false\t''"
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from down" -l data-dir -d 'Where a process started by dfctl keeps its data; without an agent, dfctl\'s own goes to DIR/solo' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from down" -l format -d 'Shape of the result' -r -f -a "human\t'For people'
json\t'One document: `{"version": 1, "kind": …, …}`'
jsonl\t'One object a line'
name\t'Names only, one a line'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from down" -l progress -d 'How progress is shown on stderr' -r -f -a "auto\t'A bar on a terminal, else nothing'
bar\t'A bar'
plain\t'A line every few seconds'
json\t'One JSON object a line, every second'
none\t'Nothing'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from down" -l color -d 'When to colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from down" -s q -l quiet -d 'Say only what failed, and print only what was asked for'
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from down" -s v -l verbose -d 'Say more'
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from down" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from status" -l cluster -d 'Cluster, as address:port, for an agent that `mount` starts; one that runs must take part in it' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from status" -l socket -d 'Socket of the node agent; where nobody answers on one given here, `mount` starts an agent and any other command fails' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from status" -l solo -d 'Work without any node agent' -r -f -a "true\t''
false\t''"
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from status" -l data-dir -d 'Where a process started by dfctl keeps its data; without an agent, dfctl\'s own goes to DIR/solo' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from status" -l format -d 'Shape of the result' -r -f -a "human\t'For people'
json\t'One document: `{"version": 1, "kind": …, …}`'
jsonl\t'One object a line'
name\t'Names only, one a line'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from status" -l progress -d 'How progress is shown on stderr' -r -f -a "auto\t'A bar on a terminal, else nothing'
bar\t'A bar'
plain\t'A line every few seconds'
json\t'One JSON object a line, every second'
none\t'Nothing'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from status" -l color -d 'When to colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from status" -s q -l quiet -d 'Say only what failed, and print only what was asked for'
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from status" -s v -l verbose -d 'Say more'
complete -c dfctl -n "__fish_dfctl_using_subcommand cluster; and __fish_seen_subcommand_from status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c dfctl -n "__fish_dfctl_using_subcommand version" -l cluster -d 'Cluster, as address:port, for an agent that `mount` starts; one that runs must take part in it' -r
complete -c dfctl -n "__fish_dfctl_using_subcommand version" -l socket -d 'Socket of the node agent; where nobody answers on one given here, `mount` starts an agent and any other command fails' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand version" -l solo -d 'Work without any node agent' -r -f -a "true\t''
false\t''"
complete -c dfctl -n "__fish_dfctl_using_subcommand version" -l data-dir -d 'Where a process started by dfctl keeps its data; without an agent, dfctl\'s own goes to DIR/solo' -r -F
complete -c dfctl -n "__fish_dfctl_using_subcommand version" -l format -d 'Shape of the result' -r -f -a "human\t'For people'
json\t'One document: `{"version": 1, "kind": …, …}`'
jsonl\t'One object a line'
name\t'Names only, one a line'"
complete -c dfctl -n "__fish_dfctl_using_subcommand version" -l progress -d 'How progress is shown on stderr' -r -f -a "auto\t'A bar on a terminal, else nothing'
bar\t'A bar'
plain\t'A line every few seconds'
json\t'One JSON object a line, every second'
none\t'Nothing'"
complete -c dfctl -n "__fish_dfctl_using_subcommand version" -l color -d 'When to colour' -r -f -a "auto\t'On a terminal, unless NO_COLOR is set'
always\t'Always'
never\t'Never'"
complete -c dfctl -n "__fish_dfctl_using_subcommand version" -s q -l quiet -d 'Say only what failed, and print only what was asked for'
complete -c dfctl -n "__fish_dfctl_using_subcommand version" -s v -l verbose -d 'Say more'
complete -c dfctl -n "__fish_dfctl_using_subcommand version" -s h -l help -d 'Print help (see more with \'--help\')'
