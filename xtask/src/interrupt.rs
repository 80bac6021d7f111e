//! Ctrl-C: the first one undoes what must not stay and lets the work fail; a second one ends the
//! process at once.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::run::Failure;

type Action = Box<dyn Fn() + Send>;

#[derive(Default)]
struct State {
    raised: bool,
    actions: Vec<Action>,
}

/// Whether somebody asked to stop, and what happens then. Clones share it.
#[derive(Clone, Default)]
pub struct Interrupt {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Interrupt {
    /// Takes the signals from now on.
    pub fn install() -> Result<Self, Failure> {
        let failed = |error| Failure::Other(format!("cannot take signals: {error}"));
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
        let interrupt = Self::default();
        let raised = interrupt.clone();
        let watch = move || {
            for signal in signals.forever() {
                if raised.raise() {
                    std::process::exit(128 + signal);
                }
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(watch).map_err(failed)?;
        Ok(interrupt)
    }

    /// Does this, too, when the signal comes; at once when it has come already.
    pub fn on_signal(&self, action: impl Fn() + Send + 'static) {
        let mut state = self.lock();
        if state.raised {
            action();
        }
        state.actions.push(Box::new(action));
    }

    /// An error once the signal has come.
    pub fn check(&self) -> Result<(), Failure> {
        if self.lock().raised { Err(Failure::Interrupted) } else { Ok(()) }
    }

    /// Waits for the signal.
    pub fn wait(&self) {
        let raised = self.shared.1.wait_while(self.lock(), |state| !state.raised);
        drop(raised.unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether it had come before.
    fn raise(&self) -> bool {
        let mut state = self.lock();
        if state.raised {
            return true;
        }
        state.raised = true;
        state.actions.iter().for_each(|action| action());
        self.shared.1.notify_all();
        false
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn what_must_not_stay_is_undone_once() {
        let interrupt = Interrupt::default();
        let undone = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&undone);
        interrupt.on_signal(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        assert!(interrupt.check().is_ok());
        assert!(!interrupt.raise());
        assert!(interrupt.raise());
        assert!(interrupt.check().is_err());
        assert_eq!(undone.load(Ordering::Relaxed), 1);
    }
}
