//! A topic that is written to: who sends to it, and whether it is known to be there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use mq_core::driver::{Position, Receipt, Sort, Target};
use mq_core::{Error, Fate, Kind, Result};
use rdkafka::Message as _;
use rdkafka::producer::DeliveryResult;

use crate::context::failure;
use crate::flight::Flight;
use crate::{error, lock};

/// A topic of a connection's producers.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) target: Target,
    /// Its producers.
    flights: Mutex<Vec<Weak<Flight>>>,
    /// It was deleted here: nothing may be sent any more, or it would land in a later topic of that name.
    gone: AtomicBool,
    /// The broker did not know it: ask before the next send.
    doubtful: AtomicBool,
}

impl Topic {
    fn new(target: Target) -> Self {
        Self {
            target,
            flights: Mutex::default(),
            gone: AtomicBool::new(false),
            doubtful: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    pub(crate) fn retire(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// It was not deleted after all, as far as is known.
    pub(crate) fn restore(&self) {
        self.doubtful.store(true, Ordering::Release);
        self.gone.store(false, Ordering::Release);
    }

    pub(crate) fn is_doubtful(&self) -> bool {
        self.doubtful.load(Ordering::Acquire)
    }

    pub(crate) fn confirm(&self) {
        self.doubtful.store(false, Ordering::Release);
    }

    /// What the broker's answer means.
    pub(crate) fn answer(&self, result: &DeliveryResult<'_>) -> Result<Receipt> {
        match (failure(result), result) {
            (None, Ok(message) | Err((_, message))) => {
                Ok(self.receipt(message.partition(), message.offset()))
            }
            (Some(native), _) => {
                let failed = error::of("the message was not confirmed", native);
                if failed.kind() == Kind::NotFound {
                    self.doubtful.store(true, Ordering::Release);
                    return Err(self.target.not_found().with_backend(error::BACKEND));
                }
                if failed.kind() == Kind::Timeout {
                    // The native client has given up, not the sender: it has a deadline of its own and sends again.
                    let text = "the broker has not confirmed the message in time";
                    let lost = Error::disconnected(text).with_fate(Fate::Unknown);
                    return Err(lost.with_backend(error::BACKEND).with_source(failed));
                }
                Err(failed)
            }
        }
    }

    fn receipt(&self, partition: i32, offset: i64) -> Receipt {
        match (u32::try_from(partition), u64::try_from(offset)) {
            (Ok(partition), Ok(offset)) if self.target.sort == Sort::Topic => {
                Receipt::at(Position { partition, offset })
            }
            _ => Receipt::ONE,
        }
    }

    /// One more producer sends to it.
    pub(crate) fn add(&self, flight: &Arc<Flight>) {
        let mut flights = lock(&self.flights);
        flights.retain(|other| other.strong_count() > 0);
        flights.push(Arc::downgrade(flight));
    }

    /// Waits until nothing is in flight.
    pub(crate) async fn drained(&self) {
        let flights: Vec<_> = lock(&self.flights).iter().filter_map(Weak::upgrade).collect();
        for flight in flights {
            flight.drained().await;
        }
    }
}

/// The topics of a connection by name.
#[derive(Debug, Default)]
pub(crate) struct Topics(Mutex<HashMap<String, Arc<Topic>>>);

impl Topics {
    /// The topic behind a target, made if it is new. One that is gone is replaced: the name stands for another
    /// topic now.
    pub(crate) fn get(&self, target: &Target) -> Arc<Topic> {
        let mut map = lock(&self.0);
        if let Some(topic) = map.get(&target.name).filter(|t| !t.is_gone() && t.target == *target) {
            return Arc::clone(topic);
        }
        map.retain(|_, topic| Arc::strong_count(topic) > 1);
        let topic = Arc::new(Topic::new(target.clone()));
        map.insert(target.name.clone(), Arc::clone(&topic));
        topic
    }

    /// The topic of a name that is in use.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Topic>> {
        lock(&self.0).get(name).map(Arc::clone)
    }
}
