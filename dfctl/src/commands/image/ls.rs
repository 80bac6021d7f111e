//! `dfctl image ls`.

use dfs_model::ByteSize;
use serde_json::{Value, json};

use crate::backend::ImageHere;
use crate::commands::cache::ls::share;
use crate::commands::inside::answer;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::table::{Align, Table};
use crate::output::{Record, counted, printable};

/// Digits of a digest that are shown.
const DIGITS: usize = 12;

/// List the images that are known here, and how much of each there is
///
/// Examples:
///   dfctl image ls
///   dfctl image ls --format json
///
/// An image is known once it was mounted, pulled or looked into, until its index is evicted. Nobody is asked for it: DIGEST
/// is what the name stood for then. SIZE is that of its files, HERE how much of them this machine has.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

/// Runs it.
pub async fn run(_: Args, context: &Context) -> Result<Outcome, CliError> {
    let backend = context.resident_backend()?;
    let images = answer(context, backend.images()).await?;
    let images = images.map_err(|failure| CliError::backend("list", "the images", failure))?;
    context.output.records("images", &images, || human(&images))?;
    Ok(Outcome::Done)
}

fn human(images: &[ImageHere]) -> String {
    if images.is_empty() {
        return "no image is known here".to_owned();
    }
    let mut table = Table::new(&[
        ("SIZE", Align::Right),
        ("HERE", Align::Right),
        ("USE", Align::Left),
        ("PLATFORM", Align::Left),
        ("DIGEST", Align::Left),
        ("IMAGE", Align::Left),
    ]);
    for image in images {
        let digest = image.digest.split_once(':').map_or(&*image.digest, |(_, digits)| digits);
        table.row(vec![
            ByteSize(image.whole.bytes).to_string(),
            share(image.whole.cached, image.whole.bytes),
            used(image),
            image.platform.as_deref().map_or_else(|| "-".to_owned(), printable),
            printable(digest).chars().take(DIGITS).collect(),
            printable(&image.url),
        ]);
    }
    table.render()
}

fn used(image: &ImageHere) -> String {
    let mounts = match image.mounts.len() {
        0 => None,
        1 => Some("mounted".to_owned()),
        more => Some(counted(more as u64, "mount", "mounts")),
    };
    let pinned = image.whole.pinned.then(|| "pinned".to_owned());
    let used: Vec<String> = mounts.into_iter().chain(pinned).collect();
    if used.is_empty() { "-".to_owned() } else { used.join(", ") }
}

impl Record for ImageHere {
    fn json(&self) -> Value {
        json!({
            "url": self.url,
            "digest": self.digest,
            "manifest": self.manifest,
            "platform": self.platform,
            "files": self.whole.files,
            "bytes": self.whole.bytes,
            "cached_bytes": self.whole.cached,
            "pinned": self.whole.pinned,
            "mounts": self.mounts,
        })
    }

    fn name(&self) -> Vec<u8> {
        self.url.as_bytes().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{CachedEntry, EntryKind};

    fn image(cached: u64, pinned: bool, mounts: &[&str]) -> ImageHere {
        let whole = CachedEntry {
            name: Vec::new(),
            kind: EntryKind::Directory,
            files: 3,
            bytes: 4 << 20,
            cached,
            pinned,
            last_read_ms: 0,
        };
        ImageHere {
            url: "oci://h/app:1".into(),
            digest: format!("sha256:{}", "ab".repeat(32)),
            manifest: format!("sha256:{}", "cd".repeat(32)),
            platform: Some("linux/amd64".into()),
            whole,
            mounts: mounts.iter().map(|&dir| dir.to_owned()).collect(),
        }
    }

    #[test]
    fn each_image_says_how_much_of_it_is_here_and_who_uses_it() {
        let images = [
            image(1 << 20, false, &["/a"]),
            image(4 << 20, true, &["/a", "/b"]),
            image(0, false, &[]),
        ];
        let lines = human(&images);
        let lines: Vec<Vec<&str>> =
            lines.lines().map(|line| line.split("  ").map(str::trim).collect()).collect();
        let has = |line: usize, word: &str| lines[line].contains(&word);
        assert!(has(1, "25 %") && has(1, "mounted") && has(1, "abababababab"), "{lines:?}");
        assert!(has(2, "all") && has(2, "2 mounts, pinned"), "{lines:?}");
        assert!(has(3, "0 %") && has(3, "-") && has(3, "oci://h/app:1"), "{lines:?}");
        assert_eq!(human(&[]), "no image is known here");
        assert_eq!(images[0].json()["cached_bytes"], 1 << 20);
    }
}
