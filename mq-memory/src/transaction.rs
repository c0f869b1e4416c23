//! Transactions: several sends and acks in one step.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Weak};

use mq_core::driver::{Tag, Target, Transaction, TransactionOptions};
use mq_core::{Error, Kind, Message, Result, Timestamp};

use crate::atomic::Step;
use crate::broker::{Broker, next_id};
use crate::link::{Ends, Link, Opened};
use crate::names::Object;
use crate::pool::Credit;
use crate::queue::{Admission, weight};
use crate::switchboard::Operation;
use crate::sync::Mutex;
use crate::timer::Timed;
use crate::topic::void;

/// A transaction on a memory broker. Dropping it undoes it.
#[derive(Debug)]
pub struct MemoryTransaction {
    pub(crate) open: Arc<Open>,
}

/// What the connection and the timer know of a transaction.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) id: u64,
    broker: Arc<Broker>,
    link: Arc<Link>,
    until: Timestamp,
    this: Weak<Self>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Open(Step),
    /// It was undone, for this reason.
    Undone(Error),
    Committed,
}

/// A message for which there is no room now: in its queue, or else in the broker.
struct Full {
    object: Object,
    message: Message,
    queue: bool,
}

/// What a message takes of the broker's bound.
fn room(message: &Message) -> Credit {
    Credit { messages: 1, bytes: weight(message).into() }
}

fn aborted(why: &Error) -> Error {
    if why.kind() == Kind::TransactionAborted {
        return why.clone();
    }
    Error::new(Kind::TransactionAborted, format!("nothing of the transaction happened: {}", why.message()))
        .with_status(why.status())
        .with_source(why.clone())
}

impl MemoryTransaction {
    pub(crate) fn begin(
        broker: &Arc<Broker>,
        link: &Arc<Link>,
        options: &TransactionOptions,
    ) -> Result<Self> {
        let until = broker.clock().now().plus(options.lifetime);
        let open = Arc::new_cyclic(|this| Open {
            id: next_id(),
            broker: Arc::clone(broker),
            link: Arc::clone(link),
            until,
            this: Weak::clone(this),
            state: Mutex::new(State::Open(Step::default())),
        });
        let ends = Arc::downgrade(&open);
        link.watch(open.id, ends)?;
        let timed = Weak::clone(&open.this) as Weak<dyn Timed>;
        broker.timer().set(broker, open.id, None, Some((until, timed)));
        Ok(Self { open })
    }
}

impl Open {
    /// Runs an operation through what the switchboard has armed.
    async fn faulty<T>(
        &self,
        operation: Operation,
        act: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let alive = || self.link.check();
        alive()?;
        self.broker.faults.run(operation, alive, act).await
    }

    /// Works on the step, unless the transaction has ended.
    fn with<T>(&self, run: impl FnOnce(&mut Step) -> Result<T>) -> Result<T> {
        match &mut *self.state.lock() {
            State::Open(step) => run(step),
            State::Undone(why) => Err(aborted(why)),
            State::Committed => Err(Error::closed("transaction")),
        }
    }

    async fn send(&self, to: &Target, message: Message) -> Result<()> {
        let object = self.broker.names.find(to)?;
        match &object {
            Object::Queue(queue) => {
                self.broker.check_owner(queue, self.link.id)?;
                queue.check(&message)?;
            }
            Object::Topic(topic) => topic.check(&message)?,
        }
        self.broker.check_weight(&message)?;
        let mut staged = Some((object, message));
        while let Some((object, message)) = staged.take() {
            staged = match self.stage(object, message)? {
                None => None,
                Some(full) => Some(self.wait(full).await?),
            };
        }
        Ok(())
    }

    /// Takes room for a message and adds it. If there is no room now, it comes back.
    fn stage(&self, object: Object, message: Message) -> Result<Option<Full>> {
        self.with(|step| {
            if let Object::Queue(queue) = &object {
                match queue.reserve(&self.broker, &message) {
                    Admission::Yes => {}
                    Admission::No(refused) => return Err(refused),
                    Admission::Wait(_) => return Ok(Some(Full { object, message, queue: true })),
                }
            }
            if self.broker.pool().draw(room(&message)).is_err() {
                if let Object::Queue(queue) = &object {
                    queue.unreserve(&message);
                }
                return Ok(Some(Full { object, message, queue: false }));
            }
            step.sends.push((object, message));
            Ok(None)
        })
    }

    /// Waits until there may be room, or the transaction ends.
    async fn wait(&self, full: Full) -> Result<(Object, Message)> {
        let Full { object, message, queue } = full;
        tokio::select! {
            () = self.room(&object, &message, queue) => {}
            () = self.broker.clock().sleep_until(self.until) => {}
        }
        self.link.check()?;
        Ok((object, message))
    }

    async fn room(&self, object: &Object, message: &Message, queue: bool) {
        match object {
            Object::Queue(full) if queue => full.wait_for_room(Some(message)).await,
            _ => {
                let starving = self.broker.pool().starve();
                let mut free = pin!(starving.room());
                free.as_mut().enable();
                self.broker.reclaim();
                if !self.broker.pool().fits(room(message)) {
                    free.await;
                }
            }
        }
    }

    fn attach(&self, tags: &[Tag]) -> Result<()> {
        let mut by_consumer: BTreeMap<u64, Vec<Tag>> = BTreeMap::new();
        tags.iter().for_each(|tag| by_consumer.entry(tag.consumer).or_default().push(*tag));
        self.with(|step| {
            for (consumer, tags) in by_consumer {
                match self.link.consumer(consumer).ok_or_else(void)? {
                    Opened::Queue(queue, reader) => {
                        let entries = reader.attach(&queue, &tags)?;
                        step.entries.push((queue, entries));
                    }
                    Opened::Topic(reader) => {
                        reader.attach(&self.broker, &tags, self.id)?;
                        step.tags.extend(tags.iter().map(|t| (Arc::clone(&reader), *t, Some(self.id))));
                    }
                }
            }
            Ok(())
        })
    }

    fn commit(&self) -> Result<()> {
        let done = {
            let mut state = self.state.lock();
            let step = match &mut *state {
                State::Open(step) => step,
                State::Undone(why) => return Err(aborted(why)),
                State::Committed => return Err(Error::closed("transaction")),
            };
            if self.broker.clock().now() >= self.until { Err(late()) } else { step.run(&self.broker) }
                .inspect(|()| *state = State::Committed)
        };
        done.map_err(|why| {
            self.undo(&why, false);
            aborted(&why)
        })
    }

    /// Gives back what is attached and forgets the rest; `died` counts a death for each delivery of a queue.
    fn undo(&self, why: &Error, died: bool) {
        let step = {
            let mut state = self.state.lock();
            let State::Open(step) = &mut *state else { return };
            let step = std::mem::take(step);
            *state = State::Undone(why.clone());
            step
        };
        for (object, message) in step.sends {
            if let Object::Queue(queue) = object {
                queue.unreserve(&message);
            }
            self.broker.pool().give_back(room(&message));
        }
        for (queue, entries) in step.entries {
            queue.return_attached(&self.broker, entries, died);
        }
        for (reader, tag, _) in step.tags {
            reader.roll_back(&self.broker, tag, self.id);
        }
    }

    /// It is over: nobody needs to know of it any more.
    fn forget(&self) {
        self.link.unwatch(self.id);
        self.broker.timer().set(&self.broker, self.id, Some(self.until), None);
    }
}

fn late() -> Error {
    Error::new(
        Kind::TransactionAborted,
        "the transaction was open for longer than its lifetime and is undone",
    )
}

impl Ends for Open {
    fn end(&self, why: &Error, died: bool) {
        self.undo(why, died);
    }
}

impl Timed for Open {
    fn tick(&self, _: &Arc<Broker>, _: Timestamp) {
        self.undo(&late(), false);
    }
}

impl Transaction for MemoryTransaction {
    async fn send(&mut self, to: &Target, message: Message) -> Result<()> {
        let send = self.open.send(to, message);
        // What could not be added cannot be committed either: all or nothing.
        self.open.faulty(Operation::Stage, send).await.inspect_err(|why| self.open.undo(why, false))
    }

    async fn attach(&mut self, tags: &[Tag]) -> Result<()> {
        self.open.faulty(Operation::Stage, async { self.open.attach(tags) }).await
    }

    async fn commit(self) -> Result<()> {
        self.open.faulty(Operation::Commit, async { self.open.commit() }).await
    }

    async fn rollback(self) -> Result<()> {
        let undo = async {
            self.open.undo(&Error::closed("transaction"), false);
            Ok(())
        };
        self.open.faulty(Operation::Rollback, undo).await
    }

    fn abandon(self) {}
}

impl Drop for MemoryTransaction {
    fn drop(&mut self) {
        self.open.undo(&Error::closed("transaction"), false);
        self.open.forget();
    }
}
