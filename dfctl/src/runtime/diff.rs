//! What an edit changes, as `diff -u` says it. An edit is one run of lines in place of another.

/// Lines around the change that are shown.
const AROUND: usize = 3;

/// How many parts of two texts are alike at their beginning, and how many of the others at their end.
pub fn alike<T: PartialEq>(old: &[T], new: &[T]) -> (usize, usize) {
    let front = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[front..], &new[front..]);
    let ends = old.iter().rev().zip(new.iter().rev());
    (front, ends.take_while(|(old, new)| old == new).count())
}

/// The difference between two texts of a file; empty where there is none.
pub fn unified(path: &str, before: Option<&str>, after: Option<&str>) -> String {
    if before == after {
        return String::new();
    }
    let lines = |text: Option<&str>| -> Vec<String> {
        text.unwrap_or_default().split_inclusive('\n').map(str::to_owned).collect()
    };
    let (old, new) = (lines(before), lines(after));
    let (same, same_behind) = alike(&old, &new);
    let (first, last) = (same.saturating_sub(AROUND), same_behind.saturating_sub(AROUND));
    let name = |text: Option<&str>| text.map_or("/dev/null", |_| path).to_owned();
    let span = |all: &[String]| {
        let count = all.len() - last - first;
        format!("{},{count}", if count == 0 { first } else { first + 1 })
    };
    let mut shown = format!(
        "--- {}\n+++ {}\n@@ -{} +{} @@\n",
        name(before),
        name(after),
        span(&old),
        span(&new)
    );
    let mut show = |mark: char, lines: &[String]| {
        for line in lines {
            shown.push(mark);
            shown.push_str(line);
            if !line.ends_with('\n') {
                shown.push_str("\n\\ No newline at end of file\n");
            }
        }
    };
    show(' ', &old[first..same]);
    show('-', &old[same..old.len() - same_behind]);
    show('+', &new[same..new.len() - same_behind]);
    show(' ', &old[old.len() - same_behind..old.len() - last]);
    shown
}
