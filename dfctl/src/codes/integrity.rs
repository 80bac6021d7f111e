//! 3xxx: bytes that are not what they should be.

super::codes! {
    DIGEST_MISMATCH = 3101, Integrity, "the content does not match its digest",
        means: "What was received is not what --digest names. Nothing was saved.",
        causes: ["the origin has another version", "the digest is that of something else, such as the unpacked content", "somebody changed it"],
        next: ["dfctl stat URL" => "shows the origin's version", "dfctl get URL" => "saves it, and prints the digest that it has"];
    CORRUPT = 3102, Integrity, "bytes failed their verification",
        means: "No source of verified bytes was left. The bad bytes were neither saved nor shown.",
        causes: ["a disk or the memory of this machine, or of a neighbour, is failing", "something on the network changes what passes"],
        next: ["dfctl cache verify" => "hashes again what this machine holds", "dfctl --solo get URL" => "goes straight to the origin"];
    PART_CORRUPT = 3103, Integrity, "the part file is damaged",
        means: "The bytes taken over from a part file do not belong to this content, or somebody cut it off or replaced it while it was written. Nothing was saved.",
        causes: ["another program wrote to the part file", "the disk lost what was written to it"],
        next: ["dfctl get URL" => "again begins anew"];
    CACHE_DAMAGED = 3104, Integrity, "the cache holds damaged groups",
        means: "They were marked missing and will be fetched again when they are next read.",
        causes: ["the disk, a cable or the memory is failing", "somebody wrote into the data directory"],
        next: ["dfctl cache verify" => "again shows whether it gets worse", "dmesg" => "says what the kernel thinks of the disk"];
}
