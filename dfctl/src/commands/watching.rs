//! Looking at swarms again and again: in place on a terminal, line by line in a pipe, as events for programs.

use std::io;
use std::time::{Duration, Instant};

use super::inside::interrupted;
use super::swarm::look;
use crate::backend::Backend;
use crate::backend::swarm::{Detail, SwarmTask, Which};
use crate::context::Context;
use crate::error::CliError;
use crate::output::swarm::screen::{self, Rates, Screen};
use crate::output::{Format, Items, window};

/// How often a terminal and programs are told.
const OFTEN: Duration = Duration::from_secs(1);

/// How often a pipe is told, for people.
const NOW_AND_THEN: Duration = Duration::from_secs(3);

/// What is watched, and how it is shown.
pub struct Watch<'a> {
    context: &'a Context,
    backend: &'a dyn Backend,
    which: Which,
    detail: Detail,
    once: bool,
    begun: Instant,
    rates: Rates,
    screen: Screen,
}

impl<'a> Watch<'a> {
    /// Of these tasks; `once`: what is there now.
    pub fn new(
        context: &'a Context,
        backend: &'a dyn Backend,
        which: Which,
        detail: Detail,
        once: bool,
    ) -> Self {
        // One document, or a list of names, has an end.
        let once = once || matches!(context.output.format, Format::Json | Format::Name);
        let (rates, screen) = (Rates::default(), Screen::default());
        Self { context, backend, which, detail, once, begun: Instant::now(), rates, screen }
    }

    /// Whether it ends after the first look.
    pub fn is_once(&self) -> bool {
        self.once
    }

    /// What is there now.
    pub async fn look(&mut self) -> Result<Vec<SwarmTask>, CliError> {
        let which = self.which.clone();
        let seen = look(self.context, self.backend, which, self.detail).await?;
        let at = self.begun.elapsed();
        self.rates.keep_only(&seen.tasks);
        seen.tasks.iter().for_each(|task| self.rates.see_task(task, at));
        Ok(seen.tasks)
    }

    /// Shows people a page on a terminal, or once; in a pipe a few lines.
    pub fn show(
        &mut self,
        page: impl FnOnce(&Rates) -> String,
        lines: impl FnOnce(&Rates) -> String,
    ) -> Result<(), CliError> {
        let output = &self.context.output;
        if self.once {
            return output.line(&page(&self.rates));
        }
        if output.stdout_is_terminal {
            return self.screen.draw(output, &page(&self.rates), window(io::stdout()));
        }
        output.line(&lines(&self.rates)).and_then(|()| output.flush())
    }

    /// Tells programs of a task, a line.
    pub fn tell(&self, task: &SwarmTask) -> Result<(), CliError> {
        let event = screen::event(task, &self.rates);
        self.context.output.line(&event.to_string())
    }

    /// Writes a list of them, for programs.
    pub fn list(&self, tasks: &[SwarmTask]) -> Result<(), CliError> {
        let mut items = Items::new(&self.context.output, "swarms");
        tasks.iter().try_for_each(|task| items.push(task))?;
        items.finish()
    }

    /// Until it is time to look again, or Ctrl-C.
    pub async fn pause(&self) -> Result<(), CliError> {
        self.context.output.flush()?;
        let output = &self.context.output;
        let is_slow = output.format == Format::Human && !output.stdout_is_terminal;
        tokio::select! {
            () = self.context.interrupted.cancelled() => Err(interrupted()),
            () = tokio::time::sleep(if is_slow { NOW_AND_THEN } else { OFTEN }) => Ok(()),
        }
    }
}
