//! The arms of an A/B test in configuration:
//!
//! ```toml
//! [scheduler.arms]
//! control = { strategy = "random", share = "10%" }
//! near = { strategy = "seed004+", share = "10%" }
//! ```

use std::collections::BTreeMap;
use std::fmt;

use dfs_model::{REST, WHOLE};
use dfs_scheduler::core::{Arm, MAX_ARMS};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::Strategy;

/// Characters of an arm's name.
const MAX_NAME: usize = 32;

/// One arm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ArmOptions {
    /// Who decides about its tasks.
    pub strategy: Strategy,
    /// How many of all tasks these are.
    pub share: Share,
}

impl ArmOptions {
    /// The arm of this name.
    pub(super) fn make(&self, name: &str) -> Arm {
        Arm::new(name, self.strategy.make(), self.share.0)
    }
}

/// A share of all URLs, in hundredths of a percent: `10%`, `2.5%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u32);

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / 100.0)
    }
}

impl Serialize for Share {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || de::Error::custom(format!("'{text}' is no share: 10%, 2.5%"));
        let percent = text.trim().strip_suffix('%').ok_or_else(wrong)?;
        let percent: f64 = percent.trim_end().parse().map_err(|_| wrong())?;
        let parts = (percent * f64::from(WHOLE) / 100.0).round();
        match (1.0..=f64::from(WHOLE)).contains(&parts) {
            true => Ok(Self(parts as u32)),
            false => Err(de::Error::custom(format!("'{text}' is not from 0.01% to 100%"))),
        }
    }
}

/// Reads the arms, and says what is wrong with them together.
pub fn read<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, ArmOptions>, D::Error> {
    let arms = BTreeMap::<String, ArmOptions>::deserialize(deserializer)?;
    if arms.len() > MAX_ARMS {
        return Err(de::Error::custom(format!("there are {} arms, of {MAX_ARMS}", arms.len())));
    }
    for name in arms.keys() {
        let is_word = !name.is_empty()
            && name.len() <= MAX_NAME
            && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
        if !is_word {
            let wrong = format!("'{name}' is no name of an arm: small letters, digits, hyphens");
            return Err(de::Error::custom(wrong));
        }
        if name == REST {
            let wrong = format!("'{REST}' is the arm of the tasks that are in no other");
            return Err(de::Error::custom(wrong));
        }
    }
    let all: u32 = arms.values().map(|arm| arm.share.0).sum();
    if all > WHOLE {
        let wrong = format!("the shares of the arms are {} together, beyond 100%", Share(all));
        return Err(de::Error::custom(wrong));
    }
    Ok(arms)
}

#[cfg(test)]
mod tests {
    use dfs_service::config::Loader;
    use serde_json::json;

    use super::super::Options;
    use super::*;

    fn of(arms: serde_json::Value) -> Result<Options, String> {
        serde_json::from_value(json!({ "arms": arms })).map_err(|error| error.to_string())
    }

    #[test]
    fn arms_are_read_by_name_with_shares_in_percent() {
        let options = of(json!({
            "near": { "strategy": "seed004+", "share": "12.5%" },
            "control": { "strategy": "random", "share": "87.5%" },
        }))
        .unwrap();
        let shares: Vec<_> =
            options.arms.iter().map(|(name, arm)| (&**name, arm.share.to_string())).collect();
        assert_eq!(shares, [("control", "87.5%".into()), ("near", "12.5%".to_owned())]);
        assert_eq!(options.arms["near"].strategy, Strategy::Seed004Plus);
        let again: Options =
            serde_json::from_value(serde_json::to_value(&options).unwrap()).unwrap();
        assert_eq!(again, options);
    }

    #[test]
    fn what_is_wrong_with_arms_is_said_in_one_line() {
        let arm = |share: &str| json!({ "strategy": "random", "share": share });
        for (arms, said) in [
            (json!({ "a": arm("60%"), "b": arm("40.01%") }), "100.01% together, beyond 100%"),
            (json!({ "default": arm("1%") }), "the arm of the tasks that are in no other"),
            (json!({ "A b": arm("1%") }), "small letters, digits, hyphens"),
            (json!({ "a": arm("0%") }), "not from 0.01% to 100%"),
            (json!({ "a": arm("0.1") }), "no share: 10%, 2.5%"),
            (json!({ "a": arm("NaN%") }), "not from 0.01% to 100%"),
            (json!({ "a": { "strategy": "best", "share": "1%" } }), "`seed004+`"),
            (json!({ "a": { "strategy": "swarm" } }), "`share`"),
        ] {
            let error = of(arms).unwrap_err();
            assert!(error.contains(said) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn arms_are_set_by_variables_too() {
        let options = Loader::new("dfs-cluster")
            .system_dir("/nonexistent")
            .environment([
                ("DFS_SCHEDULER__ARMS__CONTROL__STRATEGY", "random"),
                ("DFS_SCHEDULER__ARMS__CONTROL__SHARE", "50%"),
            ])
            .load_beside::<dfs_service::process::Options, crate::options::Options, _>(
                &crate::options::Flags::default(),
            )
            .unwrap()
            .1;
        assert_eq!(options.scheduler.arms["control"].share, Share(5_000));
    }
}
