//! 1xxx: the command itself and the files of this machine.

super::codes! {
    UNEXPECTED = 1000, Other, "something unexpected happened",
        means: "Neither the command nor its input is known to be at fault.",
        causes: ["a mistake in dfs", "this machine lacks something that every machine has: threads, memory, a clock"],
        next: ["dfctl doctor" => "looks whether this machine is fit",
            "dfctl version" => "names the versions; report them with the text of the error if it stays"];
    USAGE = 1001, Usage, "the command line cannot be understood",
        means: "A flag, argument or value is missing or not of the expected form.",
        causes: ["a flag is misspelt or belongs to another command", "a size or a rate without its unit, or with one that has two readings",
            "a beginning of a task's id that several tasks have"],
        next: ["dfctl --help" => "names the commands; with --help, each shows two examples and every flag"];
    BAD_URL = 1002, Usage, "the URL cannot be understood",
        means: "It is written as https://host/path, s3://bucket/key, file:///path or as a path of this machine; URL!path names something inside an artifact.",
        causes: ["the scheme is missing, or one that dfs does not have", "a literal ! of the URL is not written %21, or a % not %25",
            "the shell took the name apart: it has no single quotes"],
        next: ["dfctl stat 'https://host/archive.tar!dir/file'" => "looks at a name in quotes"];
    BAD_CONFIG = 1003, Usage, "the configuration is wrong",
        means: "A configuration file or environment variable has an unknown key or an impossible value, or is not TOML. The error names the file and the place in it.",
        causes: ["a key is misspelt, or belongs to another of the programs", "a value of the wrong kind: `solo = \"yes\"` where true or false is meant",
            "a file of /etc/dfs that this user cannot read"],
        next: ["dfctl config explain" => "lists every key, its value and where that came from",
            "dfctl config set KEY VALUE" => "writes a value that is looked at before"];
    UNKNOWN_NAME = 1004, NotFound, "there is no such code or key",
        means: "What was named is not a code of dfs, or not a key of its configuration. The error names those that look like it.",
        causes: ["it is misspelt", "it belongs to another version of dfs"],
        next: ["dfctl explain --list" => "lists every code", "dfctl config get" => "lists every key with its value"];
    TARGET_EXISTS = 1101, Other, "the output exists and is different",
        means: "`get` never replaces a file whose content differs, unless it is told to.",
        causes: ["the origin has another version now", "a file of that name that has nothing to do with it"],
        next: ["dfctl get URL -o PATH" => "writes somewhere else", "dfctl get URL --force" => "replaces the file"];
    OUTPUT_FAILED = 1102, Other, "the output cannot be written",
        means: "The local file system refused. The cause names the file.",
        causes: ["a directory on the way is missing, or is a file", "the disk failed: the kernel's log says more"],
        next: ["dfctl get URL -o PATH" => "writes somewhere else", "dmesg" => "says what the kernel thinks of the disk"];
    OUTPUT_DENIED = 1103, NotPermitted, "the output may not be written",
        means: "This user has no permission to write there.",
        causes: ["the directory belongs to somebody else", "the file system is mounted read-only"],
        next: ["dfctl get URL -o PATH" => "writes somewhere else", "ls -ld DIR" => "shows whose the directory is"];
    NO_SPACE = 1104, NoSpace, "no space left for the output",
        means: "The file system of the output, or its quota, is full. What came is kept in the part file, where one is named.",
        causes: ["the disk is full", "this user's quota is used up"],
        next: ["df -h DIR" => "shows what room there is; then the same command resumes", "dfctl get URL -o PATH" => "writes to another disk"];
    OUTPUT_BUSY = 1105, Other, "another dfctl is writing this output",
        means: "The part file beside the output is locked by a running dfctl.",
        causes: ["the same command runs in another terminal, or in the background"],
        next: ["dfctl get URL -o PATH" => "writes somewhere else", "fuser OUTPUT.dfs-part" => "names the process to wait for"];
    UNSAFE_NAME = 1106, Other, "a name would leave the output directory",
        means: "The artifact holds a name or link that leads outside of the directory it is saved in. It is not followed; everything else is saved.",
        causes: ["an archive made with absolute names, or with `..` in them", "somebody means harm", "a link in the output directory leads out of it"],
        next: ["dfctl ls -r URL" => "shows all names as they are", "dfctl get -r URL --exclude GLOB" => "leaves it out"];
    READER_GONE = 1107, Done, "the reader of the output has gone",
        means: "Whoever read the standard output closed it. Nothing is wrong.",
        causes: ["the next command of the pipe had enough, as `head` does"],
        next: ["dfctl get URL -o PATH" => "writes all of it to a file"];
    PARTLY = 1108, Partly, "only a part was done",
        means: "Some entries failed; each is named above the error.",
        causes: ["the origin lists files that it does not give", "names that cannot be saved here"],
        next: ["dfctl get -r URL" => "again takes what is missing, and nothing else"];
    UNCONFIRMED = 1109, Usage, "nobody could be asked",
        means: "The command takes something away and asks before; its input is no terminal, so nobody can answer. Nothing was done.",
        causes: ["it runs in a script, in a pipe or from a timer"],
        next: ["dfctl task rm --dry-run ID" => "shows what it would do", "dfctl task rm --yes ID" => "does it without asking"];
    NESTED = 1110, Usage, "one of the two places lies in the other",
        means: "What is copied into itself never ends, and what is deleted in the one goes from the other.",
        causes: ["the destination is a directory of the source, or one above it", "both are prefixes of one bucket, and one begins with the other"],
        next: ["dfctl sync --dry-run SRC DST" => "with two places that have nothing in common, says what it would do"];
    INTERRUPTED = 1130, Interrupted, "interrupted",
        means: "The command was stopped by a signal. Where a part file is named, the same command resumes at it.",
        causes: ["Ctrl-C", "the session ended", "a service manager stopped it"],
        next: ["dfctl get URL" => "again resumes where a part file is"];
}
