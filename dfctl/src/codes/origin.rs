//! 2xxx: the origin and the network to it.

super::codes! {
    NOT_FOUND = 2101, NotFound, "there is no such thing",
        means: "The origin, or the artifact's tree, has nothing under that name.",
        causes: ["the name is misspelt, or the thing was moved or deleted", "a directory's URL without its / at the end", "a store that hides what the asker may not see"],
        next: ["dfctl ls https://host/dir/" => "shows what is there", "dfctl stat URL" => "looks again"];
    UNAUTHENTICATED = 2102, NotPermitted, "the origin wants to know who asks",
        means: "The origin answered 401: it gives this to nobody whom it does not know.",
        causes: ["no credentials were given", "they have expired, or are wrong"],
        next: ["dfctl stat https://user:password@host/file" => "gives a user and a password", "dfctl stat -H 'Authorization: Bearer TOKEN' URL" => "gives a token",
            "dfctl stat --profile NAME s3://bucket/key" => "takes keys of ~/.aws"];
    NOT_PERMITTED = 2103, NotPermitted, "the origin refused",
        means: "The origin answered that this asker may not read it (403), or the file of this machine is closed to this user.",
        causes: ["the credentials are those of somebody who may not", "none were given, and the store answers 403 instead of 401", "the URL was signed and its time is over"],
        next: ["dfctl stat --profile NAME s3://bucket/key" => "asks with the keys of another profile", "dfctl stat -H 'Authorization: Bearer TOKEN' URL" => "asks as somebody else",
            "ls -ld FILE" => "of a file of this machine, shows who may read it"];
    SOURCE_FAILED = 2104, Source, "the origin or the network failed",
        means: "Every attempt failed within the time allowed. What came is kept in the part file, where one is named.",
        causes: ["the host is down, or its name does not resolve", "a proxy stands in between: HTTP_PROXY, NO_PROXY", "its certificate is not signed by anyone this machine knows"],
        next: ["dfctl stat URL" => "shows whether it answers", "curl -v URL" => "shows the same without dfs"];
    TIMED_OUT = 2105, Source, "nothing came in time",
        means: "The origin, or every holder of the bytes, was silent for too long.",
        causes: ["the origin is overloaded", "a firewall drops packets instead of refusing them"],
        next: ["dfctl stat URL" => "shows whether it answers now", "dfctl get URL -v" => "says what it waits for"];
    ORIGIN_CHANGED = 2106, Source, "the origin changed while it was read",
        means: "The origin's version is another one than at the start; bytes of two versions are never mixed.",
        causes: ["somebody published a new version", "several servers behind one name do not agree on the version"],
        next: ["dfctl get URL" => "again gets the new version", "dfctl mount URL DIR" => "again shows the new version"];
    UNSUPPORTED = 2107, Other, "this cannot be done with this origin",
        means: "The origin's kind, or what it is able to do (ranges, listings), does not allow it.",
        causes: ["a web server that shows no listing", "a scheme that can be read and not listed"],
        next: ["dfctl stat URL" => "says what the origin is able to do", "dfctl get URL" => "gets one file whole"];
    IS_TREE = 2108, Usage, "this is a directory tree, not a file",
        means: "The command wants one file and the URL names a directory.",
        causes: ["-r is missing", "the path inside is missing: URL!path"],
        next: ["dfctl get -r URL" => "takes all of it", "dfctl ls URL" => "shows the files to choose from"];
    NOT_TREE = 2109, Usage, "this is a file, not a directory tree",
        means: "There is nothing inside it to name or list.",
        causes: ["-r was given for one file", "it is an archive of a kind that dfs does not look into"],
        next: ["dfctl get URL" => "takes the file", "dfctl stat URL" => "says what it is"];
    BAD_RANGE = 2110, Usage, "the range is not in the content",
        means: "--range A-B counts from 0 and includes both ends; it must begin inside the content.",
        causes: ["the content is shorter than expected", "the range was counted from 1"],
        next: ["dfctl stat URL" => "shows the length"];
    MEMBER_MISSING = 2111, NotFound, "something of a tree is missing",
        means: "The origin lists it and does not give it. Everything else is there.",
        causes: ["it was deleted since it was listed", "it may not be read by this asker", "its directory cannot be listed"],
        next: ["dfctl ls -r URL" => "names everything that is missing", "dfctl mount URL DIR" => "again shows the tree as it is then"];
    REDIRECTS = 2112, Source, "the origin's redirects lead nowhere",
        means: "The origin sends whoever asks on to another place, that one on again, and so without end; or to something that is not the web. Asking again leads the same way.",
        causes: ["the server wants a cookie or a login and sends on to a page for people", "two rules of the server that undo each other, as http to https and back",
            "the URL lacks its / at the end, or has one too many"],
        next: ["curl -sIL URL" => "shows each step of the way", "dfctl stat -H 'Authorization: Bearer TOKEN' URL" => "asks as somebody whom the server knows"];
    BAD_ANSWER = 2113, Source, "the origin's answer makes no sense",
        means: "The answer contradicts the question: other bytes than the range that was asked, a length that is none, a compressed answer where plain bytes were asked for. None of it was saved or shown.",
        causes: ["a proxy or a cache in between mends answers that it should pass on", "a server that does not understand ranges and says that it does"],
        next: ["curl -sv -r 0-99 -o /dev/null URL" => "shows the answer to a range: Content-Range must say bytes 0-99", "env NO_PROXY=HOST dfctl get URL" => "goes around the proxy"];
    DECLINED = 2115, Source, "the origin does not do what was asked",
        means: "It answered with a status that it will answer again, as 400, 410 or 501: asking once more is of no use.",
        causes: ["a signed URL that is cut off, or signed for another kind of request", "the URL lacks a parameter, or a header that the server wants",
            "a proxy in between that does not know what it is asked"],
        next: ["curl -sv -r 0-99 URL" => "shows the question and what the server says of it", "dfctl stat -H 'Name: value' URL" => "asks with a header more"];
    BROKEN_ARCHIVE = 2114, Source, "the archive is damaged at the origin",
        means: "What is compressed ends in the middle, or does not unpack. Its bytes came as the origin has them; every later read of them comes to the same.",
        causes: ["its upload or download was cut off", "it is still being written", "it is no archive: a page for people under an archive's name", "somebody means harm: it unfolds to far more than anything useful does"],
        next: ["dfctl get URL" => "takes the archive itself, as it is", "dfctl stat URL" => "shows its length, to compare with what it should be", "gzip -t FILE" => "says where it breaks"];
}
