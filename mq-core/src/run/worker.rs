//! A worker of a run: takes one job after the other and calls the handler for it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::coop;

use super::Tally;
use super::attempt::Clock;
use super::crew::{Crew, Job, Place};
use super::handler::{BatchHandler, Handler, Work};
use super::received::Received;
use super::work;
use crate::delivery::Delivery;

/// What all workers of a consumer share.
pub(super) struct Shop {
    pub(super) crew: Crew,
    pub(super) work: Work,
    pub(super) tally: Arc<Tally>,
    /// Handlers that may run at a time, where several consumers share them. One alone has no more workers than that.
    pub(super) permits: Option<Arc<Semaphore>>,
}

pub(super) struct Worker {
    shop: Arc<Shop>,
    number: usize,
    place: Place,
    clock: Clock,
    /// Of the message before, to be used again.
    spare: Option<Received>,
}

impl Worker {
    pub(super) fn new(shop: Arc<Shop>, clock: Clock) -> Self {
        let number = shop.crew.hire();
        Self { shop, number, place: Place::Coming, clock, spare: None }
    }

    /// Works until the crew is closed.
    pub(super) async fn run(mut self) {
        let shop = Arc::clone(&self.shop);
        loop {
            // Handlers that never wait must not keep other tasks of this thread from running.
            coop::consume_budget().await;
            let Some((job, _permit)) = self.next().await else { return };
            match (&shop.work, job) {
                (Work::Single(handler), Job::Single(delivery)) => self.single(&**handler, delivery).await,
                (Work::Single(handler), Job::Batch(deliveries)) => {
                    for delivery in deliveries {
                        self.single(&**handler, delivery).await;
                    }
                }
                (Work::Batch { handler, .. }, job) => self.batch(&**handler, job.into_deliveries()).await,
            }
        }
    }

    async fn next(&mut self) -> Option<(Job, Option<OwnedSemaphorePermit>)> {
        let Some(permits) = &self.shop.permits else {
            return Some((self.shop.crew.next(self.number, &mut self.place).await?, None));
        };
        while self.shop.crew.waiting(self.number, &mut self.place).await {
            // They are never closed.
            let permit = Arc::clone(permits).acquire_owned().await.ok()?;
            if let Some(job) = self.shop.crew.take(&mut self.place) {
                return Some((job, Some(permit)));
            }
        }
        None
    }

    async fn single(&mut self, handler: &dyn Handler, delivery: Delivery) {
        // It may have waited for its turn.
        let Some(delivery) = delivery.still_fit() else { return };
        let message = Received::reuse(self.spare.take(), delivery);
        let ended = self.clock.run(|| handler.handle(message.share())).await;
        self.spare = work::settle(message, &ended, &self.shop.tally).await;
    }

    async fn batch(&mut self, handler: &dyn BatchHandler, deliveries: Vec<Delivery>) {
        let fit = deliveries.into_iter().filter_map(Delivery::still_fit);
        let messages: Vec<Received> = fit.map(Received::new).collect();
        if messages.is_empty() {
            return;
        }
        let shared = messages.iter().map(Received::share).collect();
        let ended = self.clock.run(|| handler.handle(shared)).await;
        for message in messages {
            work::settle(message, &ended, &self.shop.tally).await;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shop.crew.left(self.number, &mut self.place);
    }
}
