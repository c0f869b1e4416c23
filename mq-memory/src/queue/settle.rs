//! Acknowledging and giving back.

use std::sync::Arc;

use mq_core::driver::{AckNow, Flushed, Settle, Tag, Target};
use mq_core::{Error, Kind, Message, Result};

use super::reader::Hold;
use super::{Entry, Queue, QueueConsumer, Reader, State};
use crate::broker::Broker;

/// Void tags that are kept for the next receive, at most.
const MAX_LOST: usize = 10_000;

fn fenced() -> Error {
    Error::new(
        Kind::Fenced,
        "the delivery is not held by this consumer; its message comes again, or was settled",
    )
}

impl Hold {
    /// An error if the consumer has ended.
    fn check(&self) -> Result<()> {
        match &self.end {
            None => Ok(()),
            // What was held when the connection died has gone back to the queue.
            Some(end) if end.kind() == Kind::Disconnected => Err(fenced().with_source(end.clone())),
            Some(end) => Err(end.clone()),
        }
    }
}

impl Reader {
    fn owns(&self, tag: Tag) -> bool {
        tag.consumer == self.id && tag.epoch == 0
    }

    /// Takes deliveries out of the consumer for a transaction: all of them or none.
    ///
    /// # Errors
    /// `Fenced` if one is not held.
    pub(crate) fn attach(&self, queue: &Queue, tags: &[Tag]) -> Result<Vec<Entry>> {
        let mut hold = self.hold.lock();
        hold.check()?;
        if tags.iter().any(|t| !self.owns(*t) || hold.held.get(t.seq).is_none()) {
            return Err(fenced());
        }
        let entries: Vec<_> = tags.iter().filter_map(|t| hold.held.take(t.seq)).collect();
        let mut state = queue.state.lock();
        state.attached += entries.len();
        self.recount(&hold);
        Ok(entries)
    }
}

impl Queue {
    /// Puts messages back to their places; with a limit, as the deaths of their consumer. Returns those that have
    /// reached the limit.
    pub(super) fn give_back(
        &self,
        state: &mut State,
        broker: &Arc<Broker>,
        entries: Vec<Entry>,
        max_deaths: Option<u32>,
    ) -> Vec<Entry> {
        let mut dead = Vec::new();
        let mut arm = false;
        for mut entry in entries {
            if let Some(max) = max_deaths {
                entry.deaths += 1;
                if entry.deaths >= max && !self.is_dead_letter() {
                    dead.push(entry);
                    continue;
                }
            }
            arm |= state.put_back(entry, broker.expires());
        }
        if arm {
            self.arm(state, broker);
        }
        dead
    }

    /// Gives the deliveries of a transaction back; `died` counts a death for each.
    pub(crate) fn return_attached(&self, broker: &Arc<Broker>, entries: Vec<Entry>, died: bool) {
        let mut state = self.state.lock();
        state.attached -= entries.len();
        if state.deleted {
            drop(state);
            broker.pool().give_back(Self::weigh(&entries));
            return;
        }
        let limit = died.then_some(self.spec.max_deaths.max(1));
        let dead = self.give_back(&mut state, broker, entries, limit);
        let wake = state.next_waiter();
        drop(state);
        wake.inspect(|r| r.wake());
        broker.bury(self, dead, mq_core::DeathReason::Deaths);
    }
}

impl QueueConsumer {
    pub(crate) fn ack(&self, tags: &[Tag]) -> AckNow {
        let mut hold = self.reader.hold.lock();
        if hold.end.is_some() {
            return AckNow::Recorded;
        }
        let mut now = AckNow::Done;
        for tag in tags {
            match self.reader.owns(*tag).then(|| hold.held.settle(tag.seq)).flatten() {
                Some(weight) => hold.freed.add(weight),
                None if hold.lost.len() < MAX_LOST => {
                    hold.lost.push(*tag);
                    now = AckNow::Recorded;
                }
                None => {}
            }
        }
        self.reader.recount(&hold);
        let give = if self.broker.pool().wants(hold.freed) {
            std::mem::take(&mut hold.freed)
        } else {
            Default::default()
        };
        drop(hold);
        self.broker.pool().give_back(give);
        if now == AckNow::Recorded {
            self.reader.wake();
        }
        now
    }

    pub(crate) fn flush(&self) -> Result<Flushed> {
        self.reader.hold.lock().end.as_ref().map_or(Ok(Flushed::Confirmed), |end| Err(end.clone()))
    }

    pub(crate) fn settle(&self, tag: Tag, how: Settle) -> Result<()> {
        let mut hold = self.reader.hold.lock();
        hold.check()?;
        if !self.reader.owns(tag) || hold.held.get(tag.seq).is_none() {
            return Err(fenced());
        }
        match how {
            Settle::Requeue => {
                self.requeue(&mut hold, tag);
                Ok(())
            }
            // A delivery may be held for as long as its consumer lives.
            Settle::Extend(_) => Ok(()),
            Settle::Move(target, message) => self.replace(&mut hold, tag, &target, message),
            other => Err(Error::unsupported(format!("memory does not know how to settle by {other:?}"))),
        }
    }

    fn requeue(&self, hold: &mut Hold, tag: Tag) {
        let entries: Vec<_> = hold.held.take(tag.seq).into_iter().collect();
        let mut state = self.queue.state.lock();
        self.reader.recount(hold);
        self.queue.give_back(&mut state, &self.broker, entries, None);
        let wake = state.next_waiter();
        drop(state);
        wake.inspect(|r| r.wake());
    }

    /// Stores the copy, then lets go of the original, both under the lock of the held deliveries: nobody sees one
    /// without the other.
    fn replace(&self, hold: &mut Hold, tag: Tag, target: &Target, message: Message) -> Result<()> {
        self.broker.check_move()?;
        self.broker.store(target, message)?;
        if let Some(entry) = hold.held.take(tag.seq) {
            self.reader.recount(hold);
            hold.freed.add(entry.weight);
        }
        Ok(())
    }

    pub(crate) fn pause(&self, paused: bool) -> Result<()> {
        let mut hold = self.reader.hold.lock();
        hold.check()?;
        hold.paused = paused;
        drop(hold);
        self.reader.wake();
        Ok(())
    }
}
