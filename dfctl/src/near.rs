//! Names that look like one that does not exist.

/// Most names that are offered.
const MOST: usize = 3;

/// Those of `known` that could have been meant by `wrong`, the nearest first.
pub fn near<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wrong = wrong.to_lowercase();
    let furthest = (wrong.chars().count() / 3).max(1);
    let distance = |name: &str| {
        let name = name.to_lowercase();
        match !wrong.is_empty() && (name.starts_with(&wrong) || name.ends_with(&wrong)) {
            true => 1,
            false => strsim::osa_distance(&wrong, &name),
        }
    };
    let mut found: Vec<_> = known
        .into_iter()
        .map(|name| (distance(name), name))
        .filter(|(distance, _)| *distance <= furthest)
        .collect();
    found.sort();
    found.into_iter().map(|(_, name)| name).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_by_a_slip_is_offered_and_nothing_else() {
        let known = ["data-dir", "cluster", "color", "solo"];
        assert_eq!(near("colour", known), ["color"]);
        assert_eq!(near("datadir", known), ["data-dir"]);
        assert_eq!(near("DATA_DIR", known), ["data-dir"]);
        assert_eq!(near("dir", known), ["data-dir"]);
        assert_eq!(near("zzz", known), [""; 0]);
        assert_eq!(near("", known), [""; 0]);
    }
}
