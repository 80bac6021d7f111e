#!/usr/bin/env python3
"""Makes images.tar.zst anew: one tree as nydus-image packs it in several ways, in a layout of images, and as a tar.

Takes root, tar, zstd, and nydus-image 2.2.0 of the crate nydus-rs. No test runs it: what it made is kept, since that tool takes
a quarter of an hour to build, and a compiler of today takes it only with nydus-storage 0.6.2, nydus-utils 0.4.1,
uuid 0.8.2 and fuse-backend-rs 0.10.1, with ENODATA for the ENOATTR that libc has no more (xattr 0.2.3), and without its `deny(warnings)`.

    sudo tests/rafs/make.py .../bin/nydus-image

The bootstraps go to the corpus of the fuzzer too.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TOOL = os.path.abspath(sys.argv[1])
SECOND = 10**9
NYDUS = "containerd.io/snapshot/nydus-"
BLOB = "application/vnd.oci.image.layer.nydus.blob.v1"
TAR = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def noise(seed, length):
    return hashlib.shake_256(seed.encode()).digest(length)


def counted(seed, chunks):
    """Chunks of 4 KiB that differ, and of which all but one are short in the archive."""
    body = noise(seed, 4088)
    return b"".join(number.to_bytes(8, "big") + body for number in range(chunks))


class Tree:
    """A directory that is filled; dates come last."""

    def __init__(self, root):
        self.root, self.dates = root, []
        os.mkdir(root)

    def path(self, name):
        return os.path.join(self.root, name)

    def dated(self, name, date):
        self.dates.append((self.path(name), date))

    def dir(self, name, mode=0o755, owner=(0, 0), date=981_173_106 * SECOND):
        if name != ".":
            os.mkdir(self.path(name))
        os.chown(self.path(name), *owner)
        os.chmod(self.path(name), mode)
        self.dated(name, date)

    def file(self, name, bytes, mode=0o644, owner=(0, 0), date=1_600_000_000 * SECOND + 123_456_789):
        with open(self.path(name), "wb") as file:
            file.write(bytes)
        os.chown(self.path(name), *owner)
        os.chmod(self.path(name), mode)
        self.dated(name, date)

    def node(self, name, kind, mode, device=(0, 0), owner=(0, 0)):
        os.mknod(self.path(name), kind | mode, os.makedev(*device))
        os.chmod(self.path(name), mode)
        os.chown(self.path(name), *owner)
        self.dated(name, 1_500_000_000 * SECOND)

    def symlink(self, name, target):
        os.symlink(target, self.path(name))
        self.dated(name, 1_400_000_000 * SECOND + 5)

    def link(self, name, target):
        os.link(self.path(target), self.path(name))

    def xattr(self, name, key, value):
        os.setxattr(self.path(name), key, value, follow_symlinks=False)

    def done(self):
        # What was put into a directory has changed its date.
        for path, date in sorted(self.dates, reverse=True):
            os.utime(path, ns=(date, date), follow_symlinks=False)


def lower(root):
    tree = Tree(root)
    tree.dir(".", mode=0o751, date=0)
    tree.dir("bin")
    tree.file("bin/tool", noise("tool", 9000), mode=0o4755)
    tree.xattr("bin/tool", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    tree.dir("owned", mode=0o2770, owner=(1000, 70_000))
    tree.file("owned/file", b"owned\n", mode=0o600, owner=(65_536, 4_000_000_000), date=0)
    tree.xattr("owned/file", "user.note", b"of the lower layer")
    tree.xattr("owned/file", "user.empty", b"")
    tree.xattr("owned", "trusted.of.a.directory", noise("xattr", 700))
    tree.dir("lengths")
    for length in (0, 1, 4095, 4096, 4097, 3 * 4096 + 5, 65_536, 70_001):
        tree.file(f"lengths/{length}", noise(f"length {length}", length))
    # Chunks that several files have, in the same order and in another.
    tree.dir("chunks")
    blocks = [noise(f"block {number}", 4096) for number in range(5)]
    tree.file("chunks/one", b"".join(blocks))
    tree.file("chunks/again", b"".join(blocks))
    tree.file("chunks/backwards", b"".join(reversed(blocks)))
    tree.file("chunks/mixed", blocks[3] + noise("between", 4096) + blocks[0] + blocks[0] + b"end")
    tree.file("large", counted("large", 512))
    tree.dir("links")
    tree.file("links/first", b"three names\n")
    tree.link("links/second", "links/first")
    tree.link("bin/third", "links/first")
    tree.symlink("links/short", "../bin/tool")
    tree.symlink("links/dangling", "/" + "nowhere/" * 100 + "x")
    tree.dir("dev")
    tree.node("dev/null", stat.S_IFCHR, 0o666, (1, 3))
    tree.node("dev/disk", stat.S_IFBLK, 0o660, (259, 300), owner=(0, 6))
    tree.node("dev/pipe", stat.S_IFIFO, 0o622)
    tree.dir("names")
    tree.file("names/" + "n" * 255, b"long")
    tree.file("names/\u00fc \u2603 \n'\"\\", b"odd")
    tree.file("names/!before the dot", b"!")
    tree.dir("many")
    for number in range(300):
        tree.symlink(f"many/entry-{number:03d}-{'x' * (number % 40)}", f"{number}")
    tree.dir("empty", mode=0o1777)
    for depth in range(1, 7):
        tree.dir("/".join("a deep one of many elements".split()[:depth]), date=-depth * SECOND)
    # What the upper layer hides or replaces.
    tree.file("changed", b"of the lower layer\n")
    tree.file("hidden", b"never seen\n")
    tree.dir("gone")
    tree.file("gone/with-it", noise("gone", 5000))
    tree.dir("opaque")
    tree.file("opaque/below", b"never seen\n")
    tree.dir("was-a-dir")
    tree.file("was-a-dir/file", b"never seen\n")
    tree.file("was-a-file", b"never seen\n")
    tree.done()


def upper(root, marks):
    """The upper layer, with marks or, where it is put over the lower one by hand, without."""
    tree = Tree(root)
    # To nydus-image the root is that of the lowest layer, without a date.
    tree.dir(".", mode=0o751, date=0)
    tree.file("changed", b"of the upper layer\n", date=1_700_000_000 * SECOND)
    tree.dir("opaque", mode=0o700)
    tree.file("opaque/above", b"seen\n")
    tree.file("was-a-dir", b"now a file\n")
    tree.dir("was-a-file")
    tree.file("was-a-file/inside", b"now a directory\n")
    tree.dir("chunks", mode=0o711)
    # A chunk of the lower layer and one of its own.
    tree.file("chunks/upper", noise("block 2", 4096) + noise("upper", 4096) + noise("block 1", 4096))
    tree.dir("added")
    tree.file("added/first", noise("added", 20_000))
    tree.link("added/second", "added/first")
    if marks:
        tree.file(".wh.hidden", b"")
        tree.file(".wh.gone", b"")
        tree.file("opaque/.wh..wh..opq", b"")
    tree.done()


def merged(root, work):
    """The upper layer over the lower one."""
    lower(root)
    for path in ("hidden", "was-a-file"):
        os.unlink(os.path.join(root, path))
    for path in ("gone", "opaque", "was-a-dir"):
        shutil.rmtree(os.path.join(root, path))
    bare = os.path.join(work, "bare")
    upper(bare, marks=False)
    packed = subprocess.run(pack(bare, "-"), check=True, stdout=subprocess.PIPE).stdout
    unpack = ["tar", "--extract", "--xattrs", "--xattrs-include=*", "--directory", root]
    subprocess.run(unpack, check=True, input=packed)


def pack(root, file):
    return ["tar", "--create", "--format=pax", "--numeric-owner", "--sort=name", "--xattrs",
            "--xattrs-include=*", "--pax-option=delete=atime,delete=ctime", "--file", file,
            "--directory", root, "."]


class Layout:
    def __init__(self, root):
        self.root, self.named = root, []
        os.makedirs(os.path.join(root, "blobs/sha256"))

    def blob(self, media_type, bytes, **annotations):
        digest = hashlib.sha256(bytes).hexdigest()
        with open(os.path.join(self.root, "blobs/sha256", digest), "wb") as file:
            file.write(bytes)
        descriptor = {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(bytes)}
        if annotations:
            descriptor["annotations"] = {NYDUS + name.replace("_", "-"): value for name, value in annotations.items()}
        return descriptor

    def image(self, name, bootstrap, blobs, version="6"):
        """As nydusify writes it: the blobs, and the bootstrap as the last layer."""
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as writer:
            directory = tarfile.TarInfo("image")
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            writer.addfile(directory)
            entry = tarfile.TarInfo("image/image.boot")
            entry.size, entry.mode = len(bootstrap), 0o444
            writer.addfile(entry, io.BytesIO(bootstrap))
        layers = [self.blob(BLOB, blob, blob="true") for blob in blobs]
        packed = gzip.compress(tar.getvalue(), mtime=0)
        layers.append(self.blob(TAR, packed, bootstrap="true", fs_version=version))
        diff_ids = [layer["digest"] for layer in layers[:-1]]
        diff_ids.append("sha256:" + hashlib.sha256(tar.getvalue()).hexdigest())
        config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/tool"]},
                  "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST,
                    "config": self.blob(CONFIG, json.dumps(config).encode()), "layers": layers}
        named = self.blob(MANIFEST, json.dumps(manifest).encode())
        named["annotations"] = {"org.opencontainers.image.ref.name": name}
        self.named.append(named)

    def done(self):
        index = {"schemaVersion": 2, "manifests": self.named}
        for name, content in (("index.json", index), ("oci-layout", {"imageLayoutVersion": "1.0.0"})):
            with open(os.path.join(self.root, name), "w") as file:
                json.dump(content, file)


def nydus(*words):
    subprocess.run([TOOL, *words], check=True, stdout=subprocess.DEVNULL)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def created(source, work, *options):
    """The bootstrap and the blobs of one directory, the blobs by their digests."""
    blobs = tempfile.mkdtemp(dir=work)
    bootstrap = blobs + ".boot"
    nydus("create", "--bootstrap", bootstrap, "--blob-dir", blobs, *options, source)
    return bootstrap, blobs


def inside(blob):
    """The bootstrap in a blob that ends with a table of what is in it, and the header of that as in a tar."""
    table_end = len(blob) - 512
    length = int(blob[table_end + 124:table_end + 135], 8)
    table = blob[table_end - length:table_end]
    for at in range(0, length, 128):
        flags, _, name, _, offset, packed, unpacked = struct.unpack_from("<II16s32sQQQ", table, at)
        if name.rstrip(b"\0") == b"image.boot":
            bytes = blob[offset:offset + packed]
            if flags & 2:
                unzstd = ["zstd", "--decompress", "--stdout"]
                bytes = subprocess.run(unzstd, check=True, input=bytes, stdout=subprocess.PIPE).stdout
            assert len(bytes) == unpacked
            return bytes
    raise SystemExit("the blob has no bootstrap in it")


def in_order(*dirs):
    return [read(os.path.join(blobs, name)) for blobs in dirs for name in sorted(os.listdir(blobs))]


def main():
    with tempfile.TemporaryDirectory() as work:
        at = lambda name: os.path.join(work, name)
        lower(at("lower"))
        upper(at("upper"), marks=True)
        merged(at("merged"), work)
        layout = Layout(at("images"))

        bootstrap, blobs = created(at("merged"), work, "--compressor", "none", "--chunk-size", "0x1000")
        layout.image("none-blake3", read(bootstrap), in_order(blobs))

        # Layers by themselves, with their bootstraps inside, which are merged: as snapshotters convert images.
        options = ["--compressor", "lz4_block", "--digester", "sha256", "--chunk-size", "0x4000",
                   "--whiteout-spec", "none"]
        sources, packed = [], []
        for name in ("lower", "upper"):
            file = at(name + ".blob")
            nydus("create", "--blob", file, "--blob-inline-meta", "--features", "blob-toc", *options, at(name))
            packed.append(read(file))
            # A bootstrap by itself has the name of its blob.
            sources.append(at(hashlib.sha256(packed[-1]).hexdigest()))
            with open(sources[-1], "wb") as bootstrap:
                bootstrap.write(inside(packed[-1]))
        nydus("merge", "--bootstrap", at("merged.boot"), *sources)
        layout.image("lz4-sha256", read(at("merged.boot")), packed)

        # One layer over the bootstrap of the other.
        first, below = created(at("lower"), work, "--compressor", "zstd", "--chunk-size", "0x10000")
        second, above = created(at("upper"), work, "--compressor", "zstd", "--chunk-size", "0x10000",
                                "--parent-bootstrap", first)
        layout.image("zstd-blake3", read(second), in_order(below, above))

        bootstrap, blobs = created(at("lower"), work, "--fs-version", "5")
        layout.image("v5", read(bootstrap), in_order(blobs), version="5")
        layout.image("v5-unsaid", read(bootstrap), in_order(blobs))

        subprocess.run(pack(at("upper"), at("upper.tar")), check=True)
        packed = gzip.compress(read(at("upper.tar")), mtime=0)
        with open(at("upper.tar.gz"), "wb") as file:
            file.write(packed)
        nydus("create", "--type", "targz-ref", "--bootstrap", at("ref.boot"), "--blob", at("ref.blob"), at("upper.tar.gz"))
        layout.image("oci-ref", read(at("ref.boot")), [read(at("ref.blob")), packed])
        layout.done()
        for name, file in (("layers", at("merged.boot")), ("above", second)):
            shutil.copy(file, os.path.join(HERE, "../fuzz/corpus/rafs", name))

        subprocess.run(pack(at("merged"), at("tree.tar")), check=True)
        subprocess.run(["tar", "--create", "--sort=name", "--owner=0", "--group=0", "--mtime=@0", "--file", at("all.tar"),
                        "--directory", work, "images", "tree.tar"], check=True)
        subprocess.run(["zstd", "--ultra", "-22", "--long=27", "--force", "--quiet", at("all.tar"), "-o",
                        os.path.join(HERE, "images.tar.zst")], check=True)


main()
