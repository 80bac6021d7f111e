//! Room for answers, reserved before they are asked for.
//!
//! A request reserves all the bytes its answer may hold, on its connection and in the process; what its
//! consumer takes is given back piece by piece. Demand reads have room of their own, so that they never
//! wait behind bulk requests whose consumers are slow.

use std::sync::Arc;

use dfs_model::{GroupRange, Invariant, Priority, TaskId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ConnectionOptions;
use crate::wire::exchange::Exchange;
use crate::wire::frame::MAX_REQUEST_GROUPS;
use crate::wire::message::PieceRequest;

/// Bytes that may be on their way or waiting for their readers.
#[derive(Clone)]
pub(in crate::wire) struct ReceiveBudget {
    demand: Arc<Semaphore>,
    other: Arc<Semaphore>,
}

impl ReceiveBudget {
    /// A quarter of `bytes` for demand reads, the rest for everything else; a full request fits either.
    pub(in crate::wire) fn new(bytes: u64) -> Self {
        let room = |bytes: u64| {
            let bytes = usize::try_from(bytes.max(largest_room())).unwrap_or(usize::MAX);
            Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS)))
        };
        Self { demand: room(bytes / 4), other: room(bytes / 4 * 3) }
    }

    fn of(&self, priority: Priority) -> &Arc<Semaphore> {
        if priority == Priority::Demand { &self.demand } else { &self.other }
    }
}

fn largest_room() -> u64 {
    let groups = GroupRange::new(0, MAX_REQUEST_GROUPS);
    let request = PieceRequest::new(TaskId::from_bytes([0; 32]), groups);
    Exchange::room(&PieceRequest { want_signed: true, ..request })
}

/// The places and the room of one connection.
pub(super) struct Lanes {
    demand_places: Arc<Semaphore>,
    other_places: Arc<Semaphore>,
    connection: ReceiveBudget,
    process: ReceiveBudget,
}

impl Lanes {
    pub(super) fn new(options: &ConnectionOptions, process: ReceiveBudget) -> Self {
        let demand = (options.in_flight / 8).max(1);
        let other = options.in_flight.saturating_sub(demand).max(1);
        Self {
            demand_places: Arc::new(Semaphore::new(demand)),
            other_places: Arc::new(Semaphore::new(other)),
            connection: ReceiveBudget::new(options.buffer.0),
            process,
        }
    }

    /// Waits for a place among the requests in flight and for room for the whole answer.
    pub(super) async fn admit(&self, request: &PieceRequest) -> Admission {
        let priority = request.priority;
        let demand = priority == Priority::Demand;
        let places = if demand { &self.demand_places } else { &self.other_places };
        let unbounded = Invariant::MemoryIsBounded.is_broken();
        let room = if unbounded { 0 } else { Exchange::room(request) };
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        let place = acquire(places, 1).await;
        let connection = acquire(self.connection.of(priority), room).await;
        let process = acquire(self.process.of(priority), room).await;
        Admission { place, room: Room { connection, process } }
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, permits: u32) -> OwnedSemaphorePermit {
    let permit = Arc::clone(semaphore).acquire_many_owned(permits).await;
    permit.expect("the semaphores of budgets are never closed")
}

/// A request may go out.
pub(super) struct Admission {
    /// One of the requests in flight.
    pub(super) place: OwnedSemaphorePermit,
    pub(super) room: Room,
}

/// Bytes reserved for one answer.
pub(super) struct Room {
    connection: OwnedSemaphorePermit,
    process: OwnedSemaphorePermit,
}

impl Room {
    /// Gives back `bytes`, which their reader has taken.
    pub(super) fn release(&mut self, bytes: usize) {
        drop(self.connection.split(bytes));
        drop(self.process.split(bytes));
    }

    /// Gives back everything but `bytes`: no more will come.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        self.release(self.connection.num_permits().saturating_sub(bytes));
    }
}
