//! The targets, by what they read.

mod archives;
mod bootstraps;
mod indexes;
mod listings;
mod seeking;
mod tables;

use crate::Target;

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "archive", run: archives::resolve_one, seeds: archives::seeds },
    Target { name: "tar", run: archives::scan_tar, seeds: archives::tars },
    Target { name: "unpack", run: archives::unpack, seeds: archives::compressed },
    Target { name: "index", run: indexes::open_index, seeds: indexes::seeds },
    Target { name: "image", run: indexes::open_image, seeds: indexes::images },
    Target { name: "index-page", run: listings::index_page, seeds: listings::pages },
    Target { name: "json-listing", run: listings::json, seeds: listings::documents },
    Target { name: "object-page", run: listings::objects, seeds: listings::object_pages },
    Target { name: "frames", run: tables::frames, seeds: tables::frame_seeds },
    Target { name: "digests", run: tables::digests, seeds: tables::digest_seeds },
    Target { name: "proof", run: tables::proof, seeds: tables::proof_seeds },
    Target { name: "members", run: tables::members, seeds: tables::member_seeds },
    Target { name: "parts", run: tables::parts, seeds: tables::part_seeds },
    Target { name: "chunks", run: tables::chunks, seeds: tables::chunk_seeds },
    Target { name: "checkpoints", run: seeking::checkpoints, seeds: seeking::tables },
    Target { name: "layer", run: seeking::layer, seeds: seeking::layers },
    Target { name: "toc", run: seeking::toc, seeds: seeking::tocs },
    Target { name: "rafs", run: bootstraps::parse, seeds: Vec::new },
];
