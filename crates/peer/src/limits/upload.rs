//! The upload slots that senders wait for.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use dfs_model::{HostId, Priority};

use super::{SlotLimits, SlotQueue, Ticket};

/// The slots of one process, shared by all its connections.
#[derive(Debug)]
pub struct UploadSlots {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    queue: SlotQueue,
    waiters: HashMap<Ticket, oneshot::Sender<()>>,
}

impl State {
    fn wake(&mut self) {
        for ticket in self.queue.grant() {
            // A waiter that is gone meanwhile has its `Slot` leave the queue.
            self.waiters.remove(&ticket).map(|waiter| waiter.send(()));
        }
    }
}

impl UploadSlots {
    /// All slots free.
    pub fn new(limits: SlotLimits) -> Arc<Self> {
        let state = State { queue: SlotQueue::new(limits), waiters: HashMap::new() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Waits for a slot. Giving up the wait leaves the queue.
    pub async fn acquire(self: &Arc<Self>, child: HostId, priority: Priority) -> Slot {
        let (slot, granted) = self.enter(child, priority);
        // The sender lives in `waiters` until it is granted, so this ends with a grant only.
        let _ = granted.await;
        slot
    }

    fn enter(self: &Arc<Self>, child: HostId, priority: Priority) -> (Slot, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        let ticket = state.queue.enter(child, priority);
        state.waiters.insert(ticket, sender);
        state.wake();
        (Slot { slots: Arc::clone(self), ticket }, receiver)
    }

    /// Slots in use now.
    pub fn used(&self) -> usize {
        self.state.lock().queue.used()
    }

    /// Senders that wait for a slot now.
    pub fn waiting(&self) -> usize {
        self.state.lock().queue.waiting()
    }
}

/// The right to send one segment; dropping it passes it on.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<UploadSlots>,
    ticket: Ticket,
}

impl Slot {
    /// Lets others have the slot while this segment is stuck; the child's own share stays taken.
    pub fn yield_slot(&self) {
        let mut state = self.slots.state.lock();
        state.queue.yield_slot(self.ticket);
        state.wake();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.state.lock();
        state.waiters.remove(&self.ticket);
        state.queue.leave(self.ticket);
        state.wake();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_waiter_that_gives_up_blocks_nobody() {
        let slots = UploadSlots::new(SlotLimits { slots: 1, demand_extra: 0, per_child: 1 });
        let child = HostId::from_bytes([1; 16]);
        let held = slots.acquire(child, Priority::Bulk).await;
        let mut given_up = Box::pin(slots.acquire(child, Priority::Bulk));
        assert!(given_up.as_mut().now_or_never().is_none());
        let mut next = Box::pin(slots.acquire(child, Priority::Bulk));
        assert!(next.as_mut().now_or_never().is_none());
        assert_eq!(slots.waiting(), 2);
        drop(given_up);
        drop(held);
        let slot = next.await;
        assert_eq!((slots.used(), slots.waiting()), (1, 0));
        drop(slot);
        assert_eq!(slots.used(), 0);
    }
}
