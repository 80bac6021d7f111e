//! The choice among the images of an index.

pub use dfs_source::oci::{Platform, PlatformError};

use super::manifest::Descriptor;

/// Platforms that an error names.
const MAX_NAMED: usize = 20;

/// An index without an image for a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no image for {wanted}: {there}")]
pub struct NoSuchPlatform {
    /// What was wanted.
    pub wanted: Platform,
    /// What there is, in words.
    pub there: String,
}

/// The manifest of an index that is best for a platform, the first of equals. What says something of another manifest is never
/// chosen; one without a platform is where it is all there is.
pub fn choose<'a>(
    manifests: &'a [Descriptor],
    wanted: &Platform,
) -> Result<&'a Descriptor, NoSuchPlatform> {
    let images = || manifests.iter().filter(|manifest| !manifest.is_attestation());
    let mut best: Option<((u8, u8), &Descriptor)> = None;
    for manifest in images() {
        let offered = manifest.platform.as_ref();
        let Some(level) = offered.and_then(|offered| wanted.takes(offered)) else { continue };
        if best.is_none_or(|(so_far, _)| level > so_far) {
            best = Some((level, manifest));
        }
    }
    if let Some((_, manifest)) = best {
        return Ok(manifest);
    }
    let mut all = images();
    match (all.next(), all.next()) {
        (Some(only), None) if only.platform.is_none() => Ok(only),
        _ => Err(NoSuchPlatform { wanted: wanted.clone(), there: there(images()) }),
    }
}

/// Whether an image that is there alone runs on a machine that was named.
pub fn check(offered: &Platform, wanted: &Platform) -> Result<(), NoSuchPlatform> {
    match wanted.takes(offered) {
        Some(_) => Ok(()),
        None => {
            let there = format!("there is {offered}");
            Err(NoSuchPlatform { wanted: wanted.clone(), there })
        }
    }
}

/// What platforms there are, in words.
fn there<'a>(manifests: impl Iterator<Item = &'a Descriptor>) -> String {
    let mut names: Vec<String> = Vec::new();
    let mut more = 0;
    for platform in manifests.filter_map(|manifest| manifest.platform.as_ref()) {
        let name = platform.to_string();
        match names.len() < MAX_NAMED {
            _ if names.contains(&name) => {}
            true => names.push(name),
            false => more += 1,
        }
    }
    match (names.is_empty(), more) {
        (true, _) => "there is none for any platform".to_owned(),
        (false, 0) => format!("there is {}", names.join(", ")),
        (false, more) => format!("there is {}, and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::manifest::tests::descriptor;
    use super::*;

    /// An index of images for these platforms; "" has none.
    fn index(platforms: &[&str]) -> Vec<Descriptor> {
        let image = |platform: &&str| {
            let mut json = descriptor("application/vnd.oci.image.manifest.v1+json", b"x");
            let parts: Vec<&str> = platform.split('/').collect();
            json["platform"] = match parts[..] {
                [os, architecture] => json!({ "os": os, "architecture": architecture }),
                [os, architecture, variant] => {
                    json!({ "os": os, "architecture": architecture, "variant": variant })
                }
                _ => json!(null),
            };
            serde_json::from_value(json).unwrap()
        };
        platforms.iter().map(image).collect()
    }

    /// Which image of an index is chosen.
    fn chosen(platforms: &[&str], wanted: &str) -> Result<usize, String> {
        let index = index(platforms);
        let wanted = wanted.parse().map_err(|error: PlatformError| error.to_string())?;
        let chosen = choose(&index, &wanted).map_err(|error| error.to_string())?;
        Ok(index.iter().position(|manifest| std::ptr::eq(manifest, chosen)).unwrap())
    }

    #[test]
    fn the_best_of_the_kind_is_chosen_downwards() {
        let arms = ["linux/arm/v5", "linux/arm/v7", "linux/arm/v6", "linux/arm64/v8"];
        assert_eq!(chosen(&arms, "linux/arm/v7"), Ok(1));
        assert_eq!(chosen(&arms, "linux/arm"), Ok(1));
        assert_eq!(chosen(&arms, "linux/arm/v6"), Ok(2));
        assert_eq!(chosen(&arms, "linux/arm/v8"), Ok(1));
        assert_eq!(chosen(&arms, "linux/arm/v5"), Ok(0));
        assert_eq!(chosen(&arms, "linux/arm64"), Ok(3));
        assert_eq!(chosen(&arms, "linux/arm64/v9.2"), Ok(3));
        let levels = ["linux/amd64/v4", "linux/amd64", "linux/amd64/v3", "windows/amd64"];
        assert_eq!(chosen(&levels, "linux/amd64"), Ok(1));
        assert_eq!(chosen(&levels, "linux/amd64/v2"), Ok(1));
        assert_eq!(chosen(&levels, "linux/amd64/v3"), Ok(2));
        assert_eq!(chosen(&levels, "linux/x86_64/v4"), Ok(0));
        assert_eq!(chosen(&levels, "windows/amd64/v4"), Ok(3));
    }

    #[test]
    fn later_kinds_are_never_chosen_and_what_there_is_is_named() {
        let there =
            ["linux/amd64/v3", "linux/arm/v7", "linux/arm/v7", "linux/riscv64", "unknown/unknown"];
        for wanted in ["linux/amd64", "linux/arm/v6", "linux/s390x", "darwin/arm/v7"] {
            let error = chosen(&there, wanted).unwrap_err();
            let named = "there is linux/amd64/v3, linux/arm/v7, linux/riscv64";
            assert_eq!(error, format!("there is no image for {wanted}: {named}"));
        }
        let many: Vec<String> = (0..30).map(|number| format!("linux/cpu{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let error = chosen(&many, "linux/amd64").unwrap_err();
        assert!(error.ends_with("linux/cpu19, and 10 more"), "{error}");
        let hostile = chosen(&["linux/\x1b[31m"], "linux/amd64").unwrap_err();
        assert!(!hostile.contains('\x1b'), "{hostile}");
    }

    #[test]
    fn an_image_alone_is_for_the_machine_that_it_names() {
        let here = |text: &str| text.parse::<Platform>().unwrap();
        assert_eq!(check(&here("linux/amd64"), &here("linux/amd64/v3")), Ok(()));
        let error = check(&here("linux/amd64"), &here("linux/arm64")).unwrap_err().to_string();
        assert_eq!(error, "there is no image for linux/arm64: there is linux/amd64");
    }

    #[test]
    fn what_is_said_of_an_image_is_not_one() {
        let beside = ["unknown/unknown", "linux/amd64"];
        assert_eq!(chosen(&beside, "linux/amd64"), Ok(1));
        let error = chosen(&beside, "unknown/unknown").unwrap_err();
        assert_eq!(error, "there is no image for unknown/unknown: there is linux/amd64");
        let mut attested = index(&["linux/amd64", "linux/amd64"]);
        let mut json = descriptor("application/vnd.oci.image.manifest.v1+json", b"x");
        json["platform"] = json!({ "os": "linux", "architecture": "amd64" });
        json["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
        attested[0] = serde_json::from_value(json).unwrap();
        let platform = "linux/amd64".parse().unwrap();
        assert!(std::ptr::eq(choose(&attested, &platform).unwrap(), &raw const attested[1]));
    }

    #[test]
    fn one_without_a_platform_is_chosen_where_it_is_all_there_is() {
        assert_eq!(chosen(&[""], "linux/amd64"), Ok(0));
        assert_eq!(chosen(&["unknown/unknown", ""], "linux/amd64"), Ok(1));
        let error = chosen(&["", ""], "linux/amd64").unwrap_err();
        assert_eq!(error, "there is no image for linux/amd64: there is none for any platform");
        assert!(chosen(&[], "linux/amd64").is_err());
        assert!(chosen(&["", "linux/arm64"], "linux/amd64").is_err());
    }
}
