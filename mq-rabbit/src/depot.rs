//! Delayed messages of one producer or exchange, on their way into the delay levels.
//!
//! The levels take every message, so it has to be looked up first whether there is a place for it at the end. That
//! takes round trips. A message is handed over all the same without waiting for them: a task looks once for all that
//! came meanwhile, so that each is published after a look that began after its hand-over.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use mq_core::driver::{Item, Receipt, Routed, Target, Ticket};
use mq_core::protocol::Route;
use mq_core::{Error, Fate, Kind, Result};
use tokio::sync::mpsc;

use crate::connection::Admin;
use crate::delay::{self, Delay, Delays, Entry};
use crate::error::BACKEND;
use crate::levels::Round;
use crate::producer::Place;
use crate::publisher::{Answer, Handed, Meaning, Pending};
use crate::topology;

/// Messages that wait for the look, and as many again that a look is made for.
const ROOM: usize = 256;

/// Where what is due goes.
#[derive(Debug)]
pub(crate) enum End {
    /// To the native queues behind a target.
    Target(Target, Arc<Place>),
    /// Through an exchange: routed when it is due.
    Exchange(String),
}

/// One message that was handed over.
#[derive(Debug)]
pub(crate) struct Parcel {
    item: Item,
    ticket: Ticket,
    round: Round,
    pending: Pending,
}

impl Parcel {
    pub(crate) fn new(item: Item, ticket: Ticket, round: Round, handed: &Arc<Handed>) -> Self {
        Self { item, ticket, round, pending: handed.one() }
    }
}

/// Takes delayed messages. Its task starts with the first one, and ends when the depot is gone and all is dealt with.
#[derive(Debug)]
pub(crate) struct Depot {
    desk: Arc<Desk>,
    door: OnceLock<mpsc::Sender<Parcel>>,
}

impl Depot {
    pub(crate) fn new(admin: &Admin, delays: Arc<Delays>, end: End) -> Self {
        let desk = Desk { admin: admin.clone(), delays, end };
        Self { desk: Arc::new(desk), door: OnceLock::new() }
    }

    fn door(&self) -> &mpsc::Sender<Parcel> {
        self.door.get_or_init(|| {
            let (door, inbox) = mpsc::channel(ROOM);
            tokio::spawn(run(Arc::clone(&self.desk), inbox));
            door
        })
    }

    /// Room for one message. Waits while there is none.
    pub(crate) async fn reserve(&self) -> Result<mpsc::Permit<'_, Parcel>> {
        let closed = |_| Error::disconnected("the way into the delay levels is closed").with_backend(BACKEND);
        self.door().reserve().await.map_err(closed)
    }

    /// Room for one message, if there is some now.
    pub(crate) fn try_reserve(&self) -> Option<mpsc::Permit<'_, Parcel>> {
        self.door().try_reserve().ok()
    }
}

async fn run(desk: Arc<Desk>, mut inbox: mpsc::Receiver<Parcel>) {
    let mut parcels = Vec::new();
    while inbox.recv_many(&mut parcels, ROOM).await > 0 {
        let mut looks = Looks::default();
        for parcel in parcels.drain(..) {
            desk.publish(&mut looks, parcel).await;
        }
    }
}

/// What was found out for the messages of one turn.
#[derive(Default)]
struct Looks(HashMap<String, Result<()>>);

#[derive(Debug)]
struct Desk {
    admin: Admin,
    delays: Arc<Delays>,
    end: End,
}

impl Desk {
    async fn publish(&self, looks: &mut Looks, parcel: Parcel) {
        let Parcel { item, ticket, round, pending } = parcel;
        let delay = self.delays.current();
        let place = async {
            let entry = self.entry(&delay, looks, &item, round).await?;
            Ok((entry, delay.publisher().await?.reserve().await?))
        };
        let (entry, place) = match place.await {
            Ok(ready) => ready,
            // The error of a look is not one of this message: it has not left.
            Err(error) => return ticket.done(Err(Error::with_fate(error, Fate::Rejected))),
        };
        let receipt = match self.end {
            End::Target(..) => Receipt::ONE,
            End::Exchange(_) => Receipt::routed(Routed::Some),
        };
        let meaning = Meaning::Delayed(Arc::clone(&delay), receipt);
        match entry.job(&item.message, self.admin.prefix(), Answer::Ticket(ticket, meaning, pending)) {
            Ok(job) => place.send(job),
            Err((answer, e)) => answer.refuse(e),
        }
    }

    async fn entry(&self, delay: &Delay, looks: &mut Looks, item: &Item, round: Round) -> Result<Entry> {
        let place = match &self.end {
            End::Target(target, place) => place.queue_for_copy(&self.admin, target, &item.message).await?,
            End::Exchange(name) => name.clone(),
        };
        delay.prepare(&round).await?;
        let seen = match looks.0.get(&place) {
            Some(seen) => seen.clone(),
            None => {
                let seen = self.look(delay, &place).await;
                looks.0.entry(place.clone()).or_insert(seen).clone()
            }
        };
        seen?;
        Ok(match &self.end {
            End::Target(target, _) => Entry::to_queue(round, &place, target),
            End::Exchange(name) => Entry::to_forwarder(round, Route::through(name, &*item.routing_key)),
        })
    }

    /// Is it there, and does it get what is due for it?
    async fn look(&self, delay: &Delay, place: &str) -> Result<()> {
        match &self.end {
            // The broker binds nothing to a queue that is not there: one question is enough for both.
            End::Target(target, _) => match delay.bind(place).await {
                Err(e) if e.kind() == Kind::NotFound && e.context("exchange").is_some() => {
                    delay.mark_broken();
                    Err(delay::incomplete())
                }
                Err(e) if e.kind() == Kind::NotFound => Err(target.not_found().with_backend(BACKEND)),
                bound => bound,
            },
            End::Exchange(name) if topology::exchange_exists(&self.admin, name).await? => Ok(()),
            End::Exchange(name) => Err(Error::not_found("exchange", name).with_backend(BACKEND)),
        }
    }
}
