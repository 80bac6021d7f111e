//! What a kubelet is told of its credential providers: a `CredentialProviderConfig`, as YAML or JSON, or a directory of such
//! files in the order of their names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dfs_model::{printable, shortened};
use serde::Deserialize;

use super::super::config_file;
use super::super::login::LoginError;
use super::pattern::ImagePattern;

const KIND: &str = "CredentialProviderConfig";
const VERSIONS: [&str; 2] = ["kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1beta1"];
/// How a program may be spoken to.
const PROTOCOLS: [&str; 2] =
    ["credentialprovider.kubelet.k8s.io/v1", "credentialprovider.kubelet.k8s.io/v1beta1"];
/// Most providers.
const MOST: usize = 64;

/// A provider, as it is told of.
pub(super) struct Told {
    /// That of its program.
    pub name: String,
    pub images: Vec<ImagePattern>,
    /// How long what it prints is kept where it does not say.
    pub usual: Duration,
    /// How it is spoken to.
    pub protocol: String,
    pub arguments: Vec<String>,
    /// Variables by their names.
    pub variables: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    api_version: String,
    kind: String,
    #[serde(default)]
    providers: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    #[serde(default)]
    name: String,
    #[serde(default)]
    match_images: Vec<String>,
    default_cache_duration: Option<String>,
    #[serde(default)]
    api_version: String,
    args: Option<Vec<String>>,
    env: Option<Vec<Variable>>,
    token_attributes: Option<TokenAttributes>,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenAttributes {
    #[serde(default)]
    require_service_account: bool,
}

/// Reads a file, or all files of a directory.
pub(super) fn read(path: &Path) -> Result<Vec<Told>, LoginError> {
    let mut told = Vec::new();
    for file in files(path)? {
        let failed = |reason| LoginError::Providers { path: file.clone(), reason };
        let text = config_file::read_text(&file).map_err(|error| failed(error.to_string()))?;
        told.extend(parse(&text).map_err(failed)?);
    }
    let failed = |reason| LoginError::Providers { path: path.to_owned(), reason };
    let mut names = BTreeSet::new();
    if let Some(again) = told.iter().find(|told| !names.insert(&told.name)) {
        return Err(failed(format!("it names {} twice", again.name)));
    }
    if told.len() > MOST {
        return Err(failed(format!("it names more than {MOST} providers")));
    }
    // One that works for a service account alone is never asked without one, and none is known here.
    Ok(told.into_iter().filter_map(|told| told.usable).collect())
}

fn files(path: &Path) -> Result<Vec<PathBuf>, LoginError> {
    let failed = |reason: String| LoginError::Providers { path: path.to_owned(), reason };
    let found = match std::fs::metadata(path).map(|found| found.is_dir()) {
        Ok(true) => config_file::in_directory(path, &["json", "yaml", "yml"]),
        Ok(false) => Ok(vec![path.to_owned()]),
        Err(error) => Err(error),
    };
    let found = found.map_err(|error| failed(error.to_string()))?;
    match found.is_empty() {
        true => Err(failed("it has no file of providers".to_owned())),
        false => Ok(found),
    }
}

/// A provider that was read.
struct Read {
    name: String,
    /// `None` of one that is not asked here.
    usable: Option<Told>,
}

fn parse(text: &str) -> Result<Vec<Read>, String> {
    // What the parser says may hold what it parsed, and a variable may be a secret.
    let document: Document = match text.trim_start().starts_with('{') {
        true => serde_json::from_str(text)
            .map_err(|error| format!("it is no JSON of a {KIND}: see line {}", error.line()))?,
        false => serde_saphyr::from_str(text).map_err(|error| {
            let line = error.location().map(|at| format!(": see line {}", at.line()));
            format!("it is no YAML of a {KIND}{}", line.unwrap_or_default())
        })?,
    };
    let Document { api_version, kind, providers } = document;
    if kind != KIND || !VERSIONS.contains(&api_version.as_str()) {
        let (kind, version) = (shown(&kind), shown(&api_version));
        return Err(format!("it is a {kind} of {version}, not a {KIND} of {}", VERSIONS[0]));
    }
    if providers.is_empty() {
        return Err("it names no provider".to_owned());
    }
    providers.into_iter().map(Written::check).collect()
}

impl Written {
    fn check(self) -> Result<Read, String> {
        let name = self.name;
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
        if name.is_empty() || name == "." || name == ".." || !name.bytes().all(is_plain) {
            return Err(format!("'{}' is no name of a program", shown(&name)));
        }
        let wrong = |why: &str| format!("of {name}: {why}");
        if !PROTOCOLS.contains(&self.api_version.as_str()) {
            let version = shown(&self.api_version);
            return Err(wrong(&format!("its apiVersion is '{version}', not {}", PROTOCOLS[0])));
        }
        if self.match_images.is_empty() {
            return Err(wrong("its matchImages names no image"));
        }
        let pattern = |text: &String| {
            let parsed = ImagePattern::parse(text);
            parsed.map_err(|why| wrong(&format!("in its matchImages, '{}': {why}", shown(text))))
        };
        let images = self.match_images.iter().map(pattern).collect::<Result<_, _>>()?;
        let usual = self.default_cache_duration.as_deref().and_then(duration);
        let usual = usual.ok_or_else(|| wrong("its defaultCacheDuration is none, as 12h is"))?;
        let variables = self.env.unwrap_or_default().into_iter();
        let variables: Vec<_> = variables.map(|one| (one.name, one.value)).collect();
        let is_odd = |(name, value): &(String, String)| {
            name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
        };
        let arguments = self.args.unwrap_or_default();
        if variables.iter().any(is_odd) || arguments.iter().any(|one| one.contains('\0')) {
            return Err(wrong("its env or args cannot be given to a program"));
        }
        let protocol = self.api_version;
        let is_usable = !self.token_attributes.is_some_and(|told| told.require_service_account);
        let told = Told { name: name.clone(), images, usual, protocol, arguments, variables };
        Ok(Read { name, usable: is_usable.then_some(told) })
    }
}

fn shown(text: &str) -> String {
    printable(&shortened(text, 80))
}

/// A length of time as Go writes it: `12h`, `1h30m`, `0.5s`, `0`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds = 0.0;
    let is_number = |sign: char| sign.is_ascii_digit() || sign == '.';
    while !rest.is_empty() {
        let unit_at = rest.find(|sign| !is_number(sign))?;
        let (number, behind) = rest.split_at(unit_at);
        let unit_ends = behind.find(is_number).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_ends);
        let unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * unit;
        rest = behind;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = r#"# As the documentation of a kubelet has it.
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: ecr-credential-provider
    matchImages:
      - "*.dkr.ecr.*.amazonaws.com"
      - "*.dkr.ecr.*.amazonaws.com.cn"
    defaultCacheDuration: "12h"
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    args:
      - get-credentials
    env:
      - name: AWS_PROFILE
        value: example_profile
  - name: accounts
    matchImages: [registry.io]
    defaultCacheDuration: 0s
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    tokenAttributes:
      serviceAccountTokenAudience: registry.io
      requireServiceAccount: true
"#;

    fn told(text: &str) -> Vec<Told> {
        parse(text).unwrap().into_iter().filter_map(|read| read.usable).collect()
    }

    #[test]
    fn what_a_kubelet_is_told_is_read_of_yaml_and_json() {
        let json = r#"{
	"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "CredentialProviderConfig",
	"providers": [{
		"name": "ecr-credential-provider", "matchImages": ["*.dkr.ecr.*.amazonaws.com", "*.dkr.ecr.*.amazonaws.com.cn"],
		"defaultCacheDuration": "12h0m0s", "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
		"args": ["get-credentials"], "env": [{ "name": "AWS_PROFILE", "value": "example_profile" }],
		"of-tomorrow": { "a": [1] }
	}]
}"#;
        for text in [YAML, json] {
            let [told] = &told(text)[..] else { panic!("{text}") };
            assert_eq!(told.name, "ecr-credential-provider");
            assert_eq!((told.images.len(), told.usual), (2, Duration::from_secs(12 * 3600)));
            assert_eq!(told.arguments, ["get-credentials"]);
            assert_eq!(told.variables, [("AWS_PROFILE".to_owned(), "example_profile".to_owned())]);
        }
    }

    #[test]
    fn what_is_wrong_with_it_is_said_without_what_may_be_secret() {
        for (from, to, said) in [
            (
                "kubelet.config.k8s.io/v1",
                "kubelet.config.k8s.io/v9",
                "of kubelet.config.k8s.io/v9, not",
            ),
            ("kind: CredentialProviderConfig", "kind: Pod", "it is a Pod of"),
            ("name: ecr-credential-provider", "name: ../sh", "'../sh' is no name of a program"),
            ("\"12h\"", "\"12 hours\"", "its defaultCacheDuration"),
            ("\"*.dkr.ecr.*.amazonaws.com.cn\"", "\"http://x\"", "'http://x': it has a scheme"),
            ("kubelet.k8s.io/v1\n    args", "kubelet.k8s.io/v7\n    args", "its apiVersion is"),
            ("  - name: accounts", "  name: accounts", "it is no YAML of a"),
            ("name: AWS_PROFILE", "name: \"A=B\"", "its env or args"),
        ] {
            let text = YAML.replacen(from, to, 1);
            assert_ne!(text, YAML, "{from}");
            let error = parse(&text).map(drop).unwrap_err();
            assert!(error.contains(said) && !error.contains("example_profile"), "{error}");
        }
        let deep = "[".repeat(100_000);
        assert!(parse(&deep).is_err() && parse("").is_err() && parse("{").is_err());
    }

    #[test]
    fn files_of_a_directory_are_one_after_the_other_and_no_name_is_twice() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, name: &str| {
            let text = YAML.replacen("ecr-credential-provider", name, 1);
            let text = text.replacen("name: accounts", &format!("name: accounts-{name}"), 1);
            std::fs::write(dir.path().join(file), text).unwrap();
        };
        assert!(
            read(dir.path()).map(drop).unwrap_err().to_string().contains("no file of providers")
        );
        write("20.yaml", "b");
        write("10.yml", "a");
        write("notes.txt", "c");
        let names = |told: Vec<Told>| told.into_iter().map(|told| told.name).collect::<Vec<_>>();
        assert_eq!(names(read(dir.path()).unwrap()), ["a", "b"]);
        write("30.json.yaml", "a");
        let error = read(dir.path()).map(drop).unwrap_err().to_string();
        assert!(error.contains("it names a twice"), "{error}");
    }

    #[test]
    fn lengths_of_time_are_read_as_go_writes_them() {
        for (text, millis) in [
            ("12h", 43_200_000),
            ("1h30m", 5_400_000),
            ("0.5s", 500),
            ("0", 0),
            ("0s", 0),
            ("5ms", 5),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "h", "1", "-1s", "1d", "1h 2m", "1e9s", "..s", "9999999999999999999999h"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
