//! Machines that an image is for, `os/architecture[/variant]`. Pure.

use std::fmt;
use std::str::FromStr;

use dfs_model::{printable, shortened};
use serde::Deserialize;

/// Longest part of a platform, in bytes.
const MAX_PART: usize = 64;

/// A kind of machine, by the names that Go has for them. What is read is made uniform: `x86_64` is `amd64`, `arm` is
/// `arm/v7`, `arm64/v8` is `arm64`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(from = "RawPlatform")]
pub struct Platform {
    /// Operating system.
    pub os: String,
    /// Processor.
    pub architecture: String,
    /// Which of its kind, where there are several.
    pub variant: Option<String>,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

/// Text that is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a platform: expected OS/ARCHITECTURE[/VARIANT], as in linux/arm64 or linux/arm/v7"
)]
pub struct PlatformError(String);

impl From<RawPlatform> for Platform {
    fn from(RawPlatform { os, architecture, variant }: RawPlatform) -> Self {
        Self::new(&os, &architecture, variant.as_deref().unwrap_or_default())
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(PlatformError(printable(&shortened(text, 100)))),
        };
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let part = |part: &str| (1..=MAX_PART).contains(&part.len()) && part.bytes().all(known);
        if [Some(os), Some(architecture), variant].into_iter().flatten().all(part) {
            return Ok(Self::new(os, architecture, variant.unwrap_or_default()));
        }
        Err(PlatformError(printable(&shortened(text, 100))))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |text: &str| printable(&shortened(text, MAX_PART));
        write!(f, "{}/{}", part(&self.os), part(&self.architecture))?;
        match &self.variant {
            Some(variant) => write!(f, "/{}", part(variant)),
            None => Ok(()),
        }
    }
}

impl Platform {
    fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let os = match os.to_ascii_lowercase() {
            os if os == "macos" => "darwin".to_owned(),
            os => os,
        };
        let variant = variant.to_ascii_lowercase();
        let architecture = architecture.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "" | "8" | "v8") => ("arm64", ""),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("arm" | "armhf", "" | "7") => ("arm", "v7"),
            ("armel", "" | "6") | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("i386" | "i686" | "386", variant) => ("386", variant),
            (architecture, variant) => (architecture, variant),
        };
        let variant = (!variant.is_empty()).then(|| variant.to_owned());
        Self { os, architecture: architecture.to_owned(), variant }
    }

    /// The machine that this runs on. An image for Linux is shown also where that is not the system.
    pub fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86" => "386",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            "mips64" if cfg!(target_endian = "little") => "mips64le",
            other => other,
        };
        Self::new("linux", architecture, level_here())
    }

    /// It, and then those of its kind whose images it runs, too: the best first.
    pub fn with_lower(&self) -> Vec<Self> {
        let level = self.level().filter(|(_, minor)| *minor == 0 && self.variant.is_some());
        let lower = (1..level.map_or(0, |(major, _)| major)).rev().map(|major| {
            let variant = format!("v{major}");
            Self::new(&self.os, &self.architecture, &variant)
        });
        let mut all = vec![self.clone()];
        all.extend(lower.filter(|lower| self.takes(lower).is_some() && lower != self));
        all
    }

    /// Whether it can be written in a name, and read from it again. A list may have anything.
    pub fn is_nameable(&self) -> bool {
        self.to_string().parse().as_ref() == Ok(self)
    }

    /// Whether it stands for no machine: what says something of an image is listed beside it so.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }

    /// How far up its kind it is, where later ones run what is made for earlier ones.
    fn level(&self) -> Option<(u8, u8)> {
        let variant = match (self.architecture.as_str(), self.variant.as_deref()) {
            ("amd64", None) => "v1",
            ("arm64", None) => "v8",
            ("amd64" | "arm64" | "arm", Some(variant)) => variant,
            _ => return None,
        };
        let (major, minor) = match variant.strip_prefix('v')?.split_once('.') {
            Some((major, minor)) => (major, minor.parse().ok()?),
            None => (variant.strip_prefix('v')?, 0),
        };
        Some((major.parse().ok()?, minor))
    }

    /// How well an image for `offered` runs here: the higher the better, `None` for not at all.
    pub fn takes(&self, offered: &Self) -> Option<(u8, u8)> {
        if (&self.os, &self.architecture) != (&offered.os, &offered.architecture) {
            return None;
        }
        match (self.level(), offered.level()) {
            (Some(most), Some(level)) => (level <= most).then_some(level),
            _ => (self.variant == offered.variant).then_some((0, 0)),
        }
    }
}

/// Which of the levels of x86-64 the processor is of.
#[cfg(target_arch = "x86_64")]
fn level_here() -> &'static str {
    macro_rules! has {
        ($($feature:tt),+) => { $(std::arch::is_x86_feature_detected!($feature))&&+ };
    }
    let second = has!("sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cmpxchg16b");
    let third = second && has!("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe");
    let fourth = third && has!("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl");
    match (second, third, fourth) {
        (_, _, true) => "v4",
        (_, true, _) => "v3",
        (true, _, _) => "v2",
        _ => "",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn level_here() -> &'static str {
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_runs_what_is_for_lower_ones_of_its_kind() {
        let with_lower = |text: &str| {
            let all = text.parse::<Platform>().unwrap().with_lower();
            all.iter().map(Platform::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            with_lower("linux/amd64/v3"),
            ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"]
        );
        assert_eq!(with_lower("linux/amd64"), ["linux/amd64"]);
        assert_eq!(with_lower("linux/arm64"), ["linux/arm64"]);
        assert_eq!(with_lower("linux/s390x"), ["linux/s390x"]);
        assert_eq!(with_lower("linux/arm/v7")[..2], ["linux/arm/v7", "linux/arm/v6"]);
    }

    #[test]
    fn what_no_name_can_say_is_told() {
        let named = |os: &str, architecture: &str| Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: None,
        };
        assert!(named("linux", "amd64").is_nameable());
        for odd in [named("", "amd64"), named("linux", "am d64"), named("linux", "a/b/c")] {
            assert!(!odd.is_nameable(), "{odd}");
        }
    }

    #[test]
    fn platforms_are_read_in_many_spellings_and_nothing_else() {
        for (text, shown) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64/v1", "linux/amd64"),
            ("linux/aarch64/v8", "linux/arm64"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/arm/6", "linux/arm/v6"),
            ("macos/arm64", "darwin/arm64"),
            ("linux/i686", "linux/386"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), shown);
        }
        let long = format!("linux/{}", "a".repeat(65));
        for bad in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/am d64", "a/b/", &long] {
            let error = bad.parse::<Platform>().unwrap_err().to_string();
            assert!(error.contains("is not a platform"), "{error}");
        }
        assert_eq!(Platform::here().to_string().parse(), Ok(Platform::here()));
    }
}
