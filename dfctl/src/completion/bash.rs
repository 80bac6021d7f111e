//! What is peculiar to bash: words come with their quotes and are cut at `=` and `:`, and it replaces only what
//! stands behind the last cut.

/// Where bash cuts words beside blanks.
const CUTS: [char; 2] = ['=', ':'];

fn is_cut(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| CUTS.contains(&c))
}

/// The words as they are meant.
pub fn plain(words: &[String]) -> Vec<String> {
    let mut plain: Vec<String> = Vec::new();
    let mut goes_on = false;
    for word in words {
        let cut = is_cut(word);
        match plain.last_mut().filter(|_| cut || goes_on) {
            Some(last) => last.push_str(&unquoted(word)),
            None => plain.push(unquoted(word)),
        }
        goes_on = cut;
    }
    plain
}

/// What bash is to put in place of what is typed, so that `value` stands there.
pub fn reply(value: &str, typed: &str) -> String {
    // Inside an open quote bash puts what it gets as it is.
    let is_quoted = typed.starts_with(['\'', '"']);
    let value = if is_quoted { value } else { value.rsplit(CUTS).next().unwrap_or(value) };
    if is_quoted { value.to_owned() } else { escaped(value) }
}

fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        if c.is_ascii() && !c.is_ascii_alphanumeric() && !"%+,-./=:@_".contains(c) {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// A word of a command line without its quotes, which may still be open.
fn unquoted(word: &str) -> String {
    let (mut text, mut quote) = (String::with_capacity(word.len()), None);
    let mut letters = word.chars();
    while let Some(c) = letters.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\'' | '"', None) => quote = Some(c),
            ('\\', None | Some('"')) => text.extend(letters.next()),
            (c, _) => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(words: &[&str]) -> Vec<String> {
        plain(&words.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn what_bash_took_apart_is_put_together() {
        assert_eq!(joined(&["--format", "=", "js"]), ["--format=js"]);
        assert_eq!(joined(&["--format", "="]), ["--format="]);
        assert_eq!(joined(&["get", "https", ":", "//h/"]), ["get", "https://h/"]);
        assert_eq!(joined(&["umount", r"/mnt/my\ d"]), ["umount", "/mnt/my d"]);
        assert_eq!(joined(&["umount", "'/mnt/it"]), ["umount", "/mnt/it"]);
        assert_eq!(joined(&["umount", ""]), ["umount", ""]);
    }

    #[test]
    fn a_reply_is_what_stands_behind_the_last_cut_in_quotes_of_bash() {
        assert_eq!(reply("--format=json", "js"), "json");
        assert_eq!(reply("/mnt/my d$", "/mnt"), r"/mnt/my\ d\$");
        assert_eq!(reply("/mnt/my d", "'/mnt"), "/mnt/my d");
        assert_eq!(reply("/mnt/größe", ""), "/mnt/größe");
    }
}
