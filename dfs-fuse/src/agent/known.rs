//! What URLs turned out to be, a moment ago: so that one question is not asked of an origin again and again.
//!
//! An answer serves everybody who asks the same with the same credentials for a short while, and the
//! commands that were given it until they end: one command sees one version. Time is passed in. What is
//! here dies with the process; the next question then goes to the origin.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dfs_artifact::View;
use dfs_model::CanonicalUrl;
use dfs_peer::engine::Task;
use dfs_peer::opener::{OpenArtifact, Purpose};
use dfs_source::Target;

/// How long an answer is good enough for whoever comes new.
const FRESH: Duration = Duration::from_secs(10);

/// How long an answer is kept that only commands under way may want again, and none of them uses now.
const KEPT: Duration = Duration::from_secs(60);

/// Between two questions of a command under way, usually less.
const BETWEEN: Duration = Duration::from_secs(1);

/// Answers kept at a time, and URLs known to be gone.
const ANSWERS: usize = 64;

/// Commands that share an answer; of more the first is forgotten, and asks anew.
const COMMANDS: usize = 64;

/// Names one command, over all the calls it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandId([u8; 16]);

impl CommandId {
    /// Reads one; `None` when it has another length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// As messages have it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What is asked, and for whom. Credentials are part of it: nobody is answered with what others were told.
#[derive(Debug, Clone)]
pub struct Question {
    /// What.
    pub target: Target,
    /// Seen how.
    pub view: View,
    /// In which command; `None` is none with other calls.
    pub command: Option<CommandId>,
    /// What for: it has no part in what the answer is.
    pub purpose: Purpose,
}

impl Question {
    /// Whether both have the same answer.
    pub fn is_same(&self, other: &Self) -> bool {
        self.target == other.target && self.view == other.view
    }

    /// The same of something inside: where nothing of its name is there, it fails with what keeps the target from
    /// being a tree of its own, and not of a directory made around it.
    pub fn of_a_tree(&self) -> Self {
        Self { view: View::Tree, ..self.clone() }
    }

    /// The same of what is read next.
    pub fn to_read(self) -> Self {
        Self { purpose: Purpose::Read, ..self }
    }

    /// Whether the answer to `known` answers this: what is a tree is one in whatever way it is looked at.
    fn is_answered_by(&self, known: &Self) -> bool {
        let same_view = self.view == known.view;
        let tree = (self.view, known.view) == (View::Auto, View::Tree);
        self.target == known.target && (same_view || tree)
    }
}

struct Known {
    question: Question,
    opened: Arc<OpenArtifact>,
    since: Instant,
    used: Instant,
    /// Whether its version turned out to be gone.
    is_gone: bool,
    commands: VecDeque<CommandId>,
}

impl Known {
    fn is_fresh(&self, now: Instant) -> bool {
        !self.is_gone && now.duration_since(self.since) < FRESH
    }

    fn is_open(&self) -> bool {
        self.opened.tasks.iter().all(Task::is_open)
    }

    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.opened) > 1
    }

    fn is_worth_keeping(&self, now: Instant) -> bool {
        let wanted = self.is_in_use() || now.duration_since(self.used) < KEPT;
        self.is_fresh(now) || (wanted && !self.commands.is_empty())
    }

    fn is_for(&self, command: Option<CommandId>) -> bool {
        command.is_some_and(|command| self.commands.contains(&command))
    }

    fn note(&mut self, command: Option<CommandId>, now: Instant) {
        self.used = now;
        let Some(command) = command.filter(|command| !self.commands.contains(command)) else {
            return;
        };
        if self.commands.len() >= COMMANDS {
            self.commands.pop_front();
        }
        self.commands.push_back(command);
    }
}

/// Answers, and which of them turned out to be of versions that are gone.
#[derive(Default)]
pub struct Answers {
    known: Vec<Known>,
    gone: HashSet<CanonicalUrl>,
}

impl Answers {
    /// The answer, if there is one that this question may be given: the one that its command began with, also
    /// where others have a newer one by now.
    pub fn get(&mut self, question: &Question, now: Instant) -> Option<Arc<OpenArtifact>> {
        self.prune(now);
        let own = self.newest(question, |known| known.is_for(question.command));
        let at = own.or_else(|| self.newest(question, |known| known.is_fresh(now)))?;
        let known = &mut self.known[at];
        known.note(question.command, now);
        Some(Arc::clone(&known.opened))
    }

    fn newest(&self, question: &Question, suits: impl Fn(&Known) -> bool) -> Option<usize> {
        self.known.iter().rposition(|known| {
            question.is_answered_by(&known.question) && suits(known) && known.is_open()
        })
    }

    /// Takes note that the question's command was given this answer, whatever others are given by now.
    pub fn give(&mut self, question: &Question, opened: &Arc<OpenArtifact>, now: Instant) {
        if question.command.is_none() {
            return;
        }
        match self.known.iter_mut().find(|known| Arc::ptr_eq(&known.opened, opened)) {
            Some(known) => known.note(question.command, now),
            None => self.add(question, Arc::clone(opened), now, true),
        }
    }

    /// Lets go of what nobody will be given any more: tasks stay open as long as an answer holds them.
    pub fn prune(&mut self, now: Instant) {
        self.known.retain(|known| known.is_worth_keeping(now));
    }

    /// Lets go of what has a task that was closed: nobody will be given it any more.
    pub fn prune_closed(&mut self) {
        self.known.retain(Known::is_open);
    }

    /// Lets go of all that nobody is using now: a command that asks again only later may be given a newer version.
    pub fn prune_unused(&mut self, now: Instant) {
        let is_wanted = |known: &Known| now.duration_since(known.used) < BETWEEN;
        self.known.retain(|known| known.is_in_use() || is_wanted(known));
    }

    /// Keeps an answer, which is news of its URL.
    pub fn put(&mut self, question: &Question, opened: Arc<OpenArtifact>, now: Instant) {
        self.gone.remove(&question.target.url);
        self.add(question, opened, now, false);
    }

    fn add(&mut self, question: &Question, opened: Arc<OpenArtifact>, now: Instant, is_gone: bool) {
        if self.known.len() >= ANSWERS {
            let oldest = (0..self.known.len()).min_by_key(|at| self.known[*at].used);
            // What is behind it stays in its order: the newest is last.
            oldest.map(|at| self.known.remove(at));
        }
        let commands = question.command.into_iter().collect();
        let question = question.clone();
        self.known.push(Known { question, opened, since: now, used: now, is_gone, commands });
    }

    /// Gives what is known of a URL, whose version turned out to be gone, to nobody who comes new. Commands
    /// under way go on with the version they began with: what else of it can be had is right.
    pub fn forget(&mut self, url: &CanonicalUrl) {
        let of_it = self.known.iter_mut().filter(|known| known.question.target.url == *url);
        of_it.for_each(|known| known.is_gone = true);
        if self.gone.len() >= ANSWERS {
            self.gone.clear();
        }
        self.gone.insert(url.clone());
    }

    /// Whether a version of it turned out to be gone, and there was no answer since.
    pub fn is_gone(&self, url: &CanonicalUrl) -> bool {
        self.gone.contains(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(url: &str, view: View, command: u8) -> Question {
        let command = (command > 0).then_some(CommandId([command; 16]));
        let purpose = Purpose::Look;
        Question { target: Target::parse(url).unwrap(), view, command, purpose }
    }

    fn asked(url: &str, command: u8) -> Question {
        question(url, View::Tree, command)
    }

    fn opened(question: &Question) -> Arc<OpenArtifact> {
        let target = question.target.clone();
        Arc::new(OpenArtifact { target, index: None, tasks: Vec::new() })
    }

    fn put(answers: &mut Answers, question: &Question, now: Instant) {
        answers.put(question, opened(question), now);
    }

    fn is_given(answers: &mut Answers, command: u8, opened: &Arc<OpenArtifact>) -> bool {
        let given = answers.get(&asked(URL, command), Instant::now());
        given.is_some_and(|given| Arc::ptr_eq(&given, opened))
    }

    const URL: &str = "https://h/d/";

    #[test]
    fn an_answer_is_everybodys_for_a_short_while_and_its_commands_for_longer() {
        let begin = Instant::now();
        let mut answers = Answers::default();
        put(&mut answers, &asked(URL, 1), begin);
        let mut now = begin;
        assert!(answers.get(&asked(URL, 2), now).is_some(), "another command joins");
        for _ in 0..10 {
            now += FRESH;
            assert!(answers.get(&asked(URL, 1), now).is_some());
            assert!(answers.get(&asked(URL, 2), now).is_some());
            assert!(answers.get(&asked(URL, 3), now).is_none(), "it is too old for a new one");
            assert!(answers.get(&asked(URL, 0), now).is_none());
        }
        answers.prune(now + KEPT);
        assert!(answers.known.is_empty(), "nothing is kept for ever");
        assert!(answers.get(&asked(URL, 1), now + KEPT).is_none());
    }

    #[test]
    fn a_command_is_given_the_version_that_it_began_with_also_when_others_have_a_newer_one() {
        let now = Instant::now();
        let mut answers = Answers::default();
        let (old, new) = (opened(&asked(URL, 1)), opened(&asked(URL, 2)));
        answers.put(&asked(URL, 1), Arc::clone(&old), now);
        answers.put(&asked(URL, 2), Arc::clone(&new), now);
        assert!(is_given(&mut answers, 1, &old), "one version");
        assert!(is_given(&mut answers, 2, &new) && is_given(&mut answers, 3, &new));
        // One that only this command was ever told.
        let only = opened(&asked(URL, 4));
        answers.give(&asked(URL, 4), &only, now);
        assert!(is_given(&mut answers, 4, &only) && is_given(&mut answers, 5, &new));
    }

    #[test]
    fn a_command_that_waited_for_an_answer_with_others_goes_on_with_that_one() {
        let now = Instant::now();
        let mut answers = Answers::default();
        let (old, new) = (opened(&asked(URL, 1)), opened(&asked(URL, 2)));
        answers.put(&asked(URL, 1), Arc::clone(&old), now);
        answers.put(&asked(URL, 2), Arc::clone(&new), now);
        answers.give(&asked(URL, 3), &old, now);
        assert!(is_given(&mut answers, 3, &old));
    }

    #[test]
    fn an_answer_in_use_is_kept_and_one_that_is_gone_is_for_who_began_with_it() {
        let begin = Instant::now();
        let mut answers = Answers::default();
        put(&mut answers, &asked(URL, 1), begin);
        let held = answers.get(&asked(URL, 1), begin);
        assert!(answers.get(&asked(URL, 1), begin + KEPT * 5).is_some());
        answers.forget(&asked(URL, 1).target.url);
        assert!(answers.get(&asked(URL, 2), begin).is_none(), "who comes new asks anew");
        assert!(answers.get(&asked(URL, 0), begin).is_none());
        assert!(answers.get(&asked(URL, 1), begin).is_some() && held.is_some(), "one version");
        for _ in 0..2 {
            assert!(answers.is_gone(&asked(URL, 1).target.url), "a question alone is no answer");
        }
        put(&mut answers, &asked(URL, 2), begin);
        assert!(!answers.is_gone(&asked(URL, 1).target.url));
    }

    #[test]
    fn what_is_in_use_outlasts_a_want_of_files() {
        let begin = Instant::now();
        let mut answers = Answers::default();
        put(&mut answers, &asked(URL, 1), begin);
        put(&mut answers, &asked("https://h/e/", 1), begin);
        let held = answers.get(&asked(URL, 1), begin).unwrap();
        answers.prune_unused(begin);
        assert_eq!(answers.known.len(), 2, "its command may be about to ask again");
        answers.prune_unused(begin + BETWEEN);
        assert!(is_given(&mut answers, 1, &held));
        assert_eq!(answers.known.len(), 1);
    }

    #[test]
    fn nobody_is_given_what_others_were_told_with_their_credentials() {
        let now = Instant::now();
        let mut answers = Answers::default();
        put(&mut answers, &asked("https://ada:secret@h/d/", 1), now);
        assert!(answers.get(&asked("https://ada:secret@h/d/", 2), now).is_some());
        for other in [URL, "https://ada@h/d/", "https://ada:other@h/d/"] {
            // Not even under the command's own name.
            assert!(answers.get(&asked(other, 1), now).is_none(), "{other}");
        }
    }

    #[test]
    fn a_tree_answers_whoever_asks_for_what_a_mount_shows_and_not_the_other_way() {
        let now = Instant::now();
        let mut answers = Answers::default();
        put(&mut answers, &asked(URL, 0), now);
        assert!(answers.get(&question(URL, View::Auto, 0), now).is_some());
        assert!(answers.get(&question(URL, View::File, 0), now).is_none());
        let file = question("https://h/f", View::Auto, 0);
        put(&mut answers, &file, now);
        assert!(answers.get(&question("https://h/f", View::Tree, 0), now).is_none());
    }

    #[test]
    fn answers_are_bounded_and_the_one_used_last_stays() {
        let begin = Instant::now();
        let mut answers = Answers::default();
        put(&mut answers, &asked(URL, 0), begin);
        for number in 0..u32::try_from(ANSWERS).unwrap() * 2 {
            let now = begin + Duration::from_millis(number.into());
            put(&mut answers, &asked(&format!("https://h/{number}/"), 0), now);
            assert!(answers.get(&asked(URL, 0), now).is_some());
        }
        assert_eq!(answers.known.len(), ANSWERS);
    }
}
