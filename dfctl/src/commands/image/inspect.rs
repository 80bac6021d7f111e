//! `dfctl image inspect`.

use dfs_artifact::image::Platform;
use dfs_artifact::image::graph::{Graph, GraphError, Machines, Named};
use dfs_artifact::image::manifest::Contents;
use dfs_model::ByteSize;
use dfs_source::oci::{ContentDigest, Located, MAX_DOCUMENT, Referrer, validator};
use dfs_source::{FileOptions, Source, SourceError, Target, read_short};
use serde_json::{Value, json};

use super::machines;
use super::parts::{bad_answer, failed, platforms};
use crate::codes;
use crate::commands::inside::{Access, answer};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::{Record, counted, printable};

/// Say what an image is made of
///
/// Examples:
///   dfctl image inspect oci://localhost:5000/team/app:v1
///   dfctl image inspect oci-layout:build:v1 --platform linux/arm64 --format json
///
/// Nothing but documents is read. Of an image for several machines, its layers are those of this one, or of --platform. What
/// the registry has about it (signatures, lists of contents, indexes) is said as those who may push there say it.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Which: oci://HOST[:PORT]/REPOSITORY[:TAG], oci-layout:DIR[:NAME] or docker-archive:FILE[:NAME]
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    access: Access,
}

/// What is said of one.
struct Inspected {
    url: String,
    digest: ContentDigest,
    media_type: String,
    platforms: Vec<(Platform, ContentDigest)>,
    manifest: ContentDigest,
    kind: Option<String>,
    config: Value,
    layers: Vec<Layer>,
    referrers: Vec<Referring>,
}

/// Something that is about it.
struct Referring {
    about: ContentDigest,
    what: Referrer,
}

struct Layer {
    digest: ContentDigest,
    media_type: String,
    size: u64,
    title: Option<String>,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let locator = args.access.locate(context, &args.url).await?;
    let shown = locator.shown();
    if locator.inner.is_some() || Located::of(&locator.target.url).is_err() {
        return Err(CliError::new(&codes::BAD_URL, format!("{shown} names no image"))
            .hint("dfctl image inspect oci://HOST/REPOSITORY:TAG"));
    }
    let wanted = match machines(&locator) {
        Machines::All => Machines::One(Platform::here()),
        wanted => wanted,
    };
    let sources = context.sources(FileOptions::default()).build();
    let source = sources.and_then(|sources| sources.for_target(&locator.target));
    let source = source.map_err(|error| failed("inspect", &shown, error))?;
    let inspecting = inspect(&source, &locator.target, &wanted);
    let inspected = answer(context, inspecting).await??;
    context.output.record("image", &inspected, || inspected.lines())?;
    Ok(Outcome::Done)
}

async fn inspect(
    source: &std::sync::Arc<dyn Source>,
    target: &Target,
    wanted: &Machines,
) -> Result<Inspected, CliError> {
    let shown = target.url.to_string();
    let cannot = |error: GraphError| failed("inspect", &shown, error);
    let graph = Graph::of(source, target, wanted).await.map_err(cannot)?;
    let top = &graph.top;
    let document = top.document().map_err(|error| cannot(error.into()))?;
    let root = graph.root();
    let Some(Named { manifest: Some(manifest), digest: of_manifest, media_type, .. }) = root else {
        return Err(bad_answer("inspect", &shown, "it leads to no manifest".to_owned()));
    };
    let contents = manifest.contents().map_err(|error| cannot(error.into()))?;
    let (kind, config) = match contents {
        Contents::Artifact { kind, .. } => (Some(kind), Value::Null),
        Contents::Image(_) | Contents::Rafs(_) => {
            let located = Located::of(&target.url);
            let located = located.map_err(|why| bad_answer("inspect", &shown, why))?;
            let blob = &manifest.config;
            let config = Target { url: located.blob(blob.digest).url(), ..target.clone() };
            let pin = validator(&blob.digest, Some(blob.size));
            let bytes = read_short(&**source, &config, &pin, MAX_DOCUMENT as u64).await;
            let bytes = bytes.map_err(|error| cannot(error.into()))?;
            blob.verify("image config", &bytes).map_err(|error| cannot(error.into()))?;
            (None, serde_json::from_slice(&bytes).unwrap_or_default())
        }
    };
    let referrers = referrers(source, target, &[top.digest, *of_manifest]).await;
    let referrers = referrers.map_err(|error| failed("inspect", &shown, error))?;
    let layer = |layer: &dfs_artifact::image::Descriptor| Layer {
        digest: layer.digest,
        media_type: layer.media_type.clone(),
        size: layer.size,
        title: layer.title().map(str::to_owned),
    };
    Ok(Inspected {
        url: shown.clone(),
        digest: top.digest,
        media_type: top.media_type.clone().unwrap_or_else(|| media_type.clone()),
        platforms: platforms(&document),
        manifest: *of_manifest,
        kind,
        config,
        layers: manifest.layers.iter().map(layer).collect(),
        referrers,
    })
}

/// What the registry has about these.
async fn referrers(
    source: &std::sync::Arc<dyn Source>,
    target: &Target,
    about: &[ContentDigest],
) -> Result<Vec<Referring>, SourceError> {
    let (mut found, mut asked) = (Vec::new(), Vec::new());
    for &about in about {
        if asked.contains(&about) {
            continue;
        }
        asked.push(about);
        let told = source.referrers(target, &about, None).await?;
        found.extend(told.into_iter().map(|what| Referring { about, what }));
    }
    Ok(found)
}

impl Inspected {
    fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add)
    }

    fn lines(&self) -> String {
        let mut lines = vec![
            format!("url       {}", self.url),
            format!("digest    {}", self.digest),
            format!("type      {}", printable(&self.media_type)),
        ];
        for (platform, digest) in &self.platforms {
            lines.push(format!("for       {platform}   {digest}"));
        }
        if self.manifest != self.digest {
            lines.push(format!("manifest  {}", self.manifest));
        }
        match &self.kind {
            Some(kind) => lines.push(format!("artifact  {}", printable(kind))),
            None => lines.extend(self.said()),
        }
        let (number, size) = (self.layers.len() as u64, ByteSize(self.size()));
        let (one, many, name) = match self.kind {
            Some(_) => ("file", "files", "file "),
            None => ("layer", "layers", "layer"),
        };
        lines.push(format!("size      {size} in {}", counted(number, one, many)));
        for layer in &self.layers {
            let title = layer.title.as_deref().map(printable).unwrap_or_default();
            let size = ByteSize(layer.size).to_string();
            lines.push(
                format!("{name}     {}   {size:>9}  {title}", layer.digest).trim_end().to_owned(),
            );
        }
        for Referring { what, .. } in &self.referrers {
            let kind = what.artifact_type.as_deref().unwrap_or(&what.media_type);
            let size = ByteSize(what.size).to_string();
            lines.push(format!("about it  {}   {size:>9}  {}", what.digest, printable(kind)));
        }
        lines.join("\n")
    }

    /// What the configuration says.
    fn said(&self) -> Vec<String> {
        let text = |value: &Value| value.as_str().map(printable);
        let words = |value: &Value| {
            let words = value.as_array()?.iter().filter_map(text).collect::<Vec<_>>();
            (!words.is_empty()).then(|| words.join(" "))
        };
        let os = text(&self.config["os"]).zip(text(&self.config["architecture"]));
        let runs = &self.config["config"];
        let facts = [
            ("runs on ", os.map(|(os, architecture)| format!("{os}/{architecture}"))),
            ("created ", text(&self.config["created"])),
            ("entry   ", words(&runs["Entrypoint"])),
            ("command ", words(&runs["Cmd"])),
            ("user    ", text(&runs["User"]).filter(|user| !user.is_empty())),
        ];
        let known = facts.into_iter().filter_map(|(name, fact)| Some((name, fact?)));
        known.map(|(name, fact)| format!("{name}  {fact}")).collect()
    }
}

impl Referring {
    fn json(&self) -> Value {
        json!({
            "about": self.about.to_string(),
            "digest": self.what.digest.to_string(),
            "media_type": self.what.media_type,
            "artifact_type": self.what.artifact_type,
            "size": self.what.size,
            "annotations": self.what.annotations,
        })
    }
}

impl Record for Inspected {
    fn json(&self) -> Value {
        let platforms = self.platforms.iter().map(
            |(platform, digest)| json!({ "platform": platform.to_string(), "digest": digest.to_string() }),
        );
        let layers = self.layers.iter().map(|layer| {
            json!({
                "digest": layer.digest.to_string(),
                "media_type": layer.media_type,
                "size": layer.size,
                "title": layer.title,
            })
        });
        json!({
            "url": self.url,
            "digest": self.digest.to_string(),
            "media_type": self.media_type,
            "platforms": platforms.collect::<Vec<_>>(),
            "manifest": self.manifest.to_string(),
            "artifact_type": self.kind,
            "config": self.config,
            "size": self.size(),
            "layers": layers.collect::<Vec<_>>(),
            "referrers": self.referrers.iter().map(Referring::json).collect::<Vec<_>>(),
        })
    }

    fn name(&self) -> Vec<u8> {
        self.digest.to_string().into_bytes()
    }
}
