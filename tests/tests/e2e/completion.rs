//! The tabulator key in real shells: what it completes, and that an agent which hangs holds up nobody.

use std::path::Path;
use std::process::Command;

use dfs_tests::process::Said;
use dfs_tests::{Body, Origin};

use crate::support::{Agent, Expected, Place, binaries, is_mounted, runs, told, typed_at, until};

/// What is typed first in each shell.
const BASH: (&str, &str) = ("bash --norc --noprofile -i", "source <(dfctl completion bash)");
const ZSH: (&str, &str) = (
    "zsh -f -i",
    "autoload -U compinit; compinit -u -D; zstyle ':completion:*' insert-tab false; source <(dfctl completion zsh)",
);

/// Types `lines` in a shell; what the terminal showed.
fn typed((shell, first): (&str, &str), socket: &Path, lines: &[&str]) -> String {
    typed_at(shell, socket, &[&[first], lines, &["exit"]].concat())
}

fn fish(socket: &Path, line: &str) -> Vec<String> {
    let mut command = Command::new("fish");
    let script = format!("dfctl completion fish | source; complete -C \"{line}\"");
    command.args(["--no-config", "-c", &script]);
    told(&mut command, socket);
    let said = Said::by(&mut command).unwrap().done();
    assert_eq!(said.stderr, "");
    let lines = said.text();
    lines.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

fn id_of_its_task(agent: &Agent) -> String {
    agent.dfctl(&["task", "ls", "--format", "name"]).done().text().trim().to_owned()
}

#[test]
fn the_tabulator_completes_the_mount_that_is_there_in_bash_and_zsh() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 1_000)).unwrap();
    let agent = Agent::solo(&place, "agent");
    for shell in [BASH, ZSH] {
        let dir = agent.mount(&origin.url("/d/"), place.dir("my mount"));
        assert!(is_mounted(&dir));
        let line = format!("dfctl umount {}\t", place.path("m").display());
        let shown = typed(shell, agent.socket(), &[&line]);
        assert!(!is_mounted(&dir), "{shown}");
        assert!(shown.contains("unmounted  "), "{shown}");
    }
}

#[test]
fn the_tabulator_completes_tasks_codes_flags_and_their_values() {
    let place = Place::new();
    let origin = Origin::of("/f", Body::noise(1, 100_000)).unwrap();
    let agent = Agent::solo(&place, "agent");
    let url = origin.url("/f");
    agent.dfctl(&["cat", &url]).done();
    let id = id_of_its_task(&agent);
    let begun = format!("dfctl task show {}\t --form\tname", &id[..4]);
    for shell in [BASH, ZSH] {
        // On a busy machine the agent may answer too late to be waited for.
        until("the task is completed", || typed(shell, agent.socket(), &[&begun]).contains(&id));
        let lines = ["dfctl explain DFS-210\t3", "dfctl --color=ne\tversion"];
        let shown = typed(shell, agent.socket(), &lines);
        assert!(shown.contains("the origin refused"), "{shown}");
        assert!(shown.contains("dfctl  0."), "{shown}");
        assert!(!shown.contains("DFS-1001"), "no line was a mistake: {shown}");
    }
}

#[test]
fn fish_offers_what_is_there() {
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 100_000)).unwrap();
    let agent = Agent::solo(&place, "agent");
    let dir = agent.mount(&origin.url("/d/"), place.dir("my mount"));
    let socket = agent.socket();
    let begun = format!("dfctl umount {}/", place.root().display());
    assert_eq!(fish(socket, &begun), [dir.to_str().unwrap()]);
    agent.dfctl(&["cat", &origin.url("/d/f")]).done();
    let known = agent.dfctl(&["task", "ls", "--format", "name"]).done().text();
    let mut known: Vec<_> = known.lines().map(|id| id[..12].to_owned()).collect();
    known.sort();
    until("every task is offered", || {
        let mut offered = fish(socket, "dfctl task show ");
        offered.sort();
        offered == known
    });
    assert_eq!(fish(socket, "dfctl explain 2103"), ["2103"]);
    assert_eq!(fish(socket, "dfctl cluster s"), ["status"]);
}

#[test]
fn an_agent_that_hangs_is_not_waited_for() {
    let place = Place::new();
    let origin = Origin::of("/f", Body::noise(1, 100_000)).unwrap();
    let agent = Agent::solo(&place, "agent");
    agent.dfctl(&["cat", &origin.url("/f")]).done();
    let asked = || {
        let mut command = binaries().command("dfctl").unwrap();
        command.args(["__complete", "fish", "task", "show", ""]).env("DFS_SOCKET", agent.socket());
        Said::by(&mut command).unwrap().done()
    };
    let id = id_of_its_task(&agent);
    until("its task is offered", || asked().text().starts_with(&id[..12]));
    agent.node.process().freeze();
    let hangs = agent.dfctl_start(&["task", "ls"]);
    let said = asked();
    assert_eq!((said.text().as_str(), said.stderr.as_str()), ("", ""));
    assert!(runs(&hangs.pid().to_string()), "the agent hangs indeed");
    agent.node.process().thaw();
    hangs.wait().done();
}
