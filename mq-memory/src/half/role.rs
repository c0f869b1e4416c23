//! Native half messages.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use mq_core::driver::{Check, CheckToken, Decided, Half, HalfId, HalfOptions, Target, Verdict};
use mq_core::{Error, Message, Result};
use tokio::time::Instant;

use super::state::{Prepared, check_token};
use super::{draw_room, room};
use crate::atomic::{Room, Step};
use crate::broker::Broker;
use crate::link::Link;
use crate::names::Object;
use crate::switchboard::Operation;

/// Half messages of a producer group on a memory broker.
#[derive(Debug)]
pub struct MemoryHalf {
    pub(crate) broker: Arc<Broker>,
    pub(crate) link: Arc<Link>,
    pub(crate) options: HalfOptions,
}

impl MemoryHalf {
    async fn faulty<T>(
        &self,
        operation: Operation,
        act: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let alive = || self.link.check();
        alive()?;
        self.broker.faults.run(operation, alive, act).await
    }

    /// The target, if this message may go there.
    fn find(&self, to: &Target, message: &Message) -> Result<Object> {
        let object = self.broker.names.find(to)?;
        match &object {
            Object::Queue(queue) => {
                self.broker.check_owner(queue, self.link.id)?;
                queue.check(message)?;
            }
            Object::Topic(topic) => topic.check(message)?,
        }
        Ok(object)
    }

    async fn keep(&self, to: &Target, message: Message, check_after: Duration) -> Result<HalfId> {
        self.find(to, &message)?;
        self.broker.check_weight(&message)?;
        draw_room(&self.broker, &message).await;
        let (id, taken) = (HalfId(message.stamped_id().clone()), room(&message));
        let prepared = Prepared {
            group: Arc::from(self.options.group.as_str()),
            target: to.clone(),
            message,
            next: self.broker.clock().now().plus(check_after),
            every: self.options.check_every,
            max: self.options.max_checks,
            asked: 0,
        };
        let book = &self.broker.halves;
        let new = {
            let mut state = book.state.lock();
            let new = state.halves.prepare(&id, prepared);
            book.arm(&mut state, &self.broker);
            new
        };
        if !new {
            self.broker.pool().give_back(taken);
        }
        book.changed.notify_waiters();
        Ok(id)
    }

    /// Stores a verdict; a commit stores the message at its target in the same step.
    fn settle(&self, id: &HalfId, verdict: Verdict, asked: Option<&CheckToken>) -> Result<Decided> {
        check_token(id, asked)?;
        let mut state = self.broker.halves.state.lock();
        let half = match state.halves.open(id, verdict) {
            Ok(half) => half,
            Err(decided) => return Ok(decided),
        };
        match verdict {
            Verdict::Unknown => return Ok(Decided::Stored),
            Verdict::Rollback => self.broker.pool().give_back(room(&half.message)),
            Verdict::Commit => {
                let object = self.broker.names.find(&half.target)?;
                let sends = vec![(object, half.message.clone())];
                Step { sends, room: Room::Drawn, ..Step::default() }.run(&self.broker)?;
            }
            other => return Err(Error::unsupported(format!("memory does not know the verdict {other:?}"))),
        }
        state.halves.close(id, verdict);
        Ok(Decided::Stored)
    }

    async fn wait_for_checks(&self, max: usize, wait: Duration) -> Result<Vec<Check>> {
        let end = Instant::now().checked_add(wait);
        loop {
            let mut changed = pin!(self.broker.halves.changed.notified());
            changed.as_mut().enable();
            self.link.check()?;
            let (checks, next) = self.broker.halves.ask(&self.broker, &self.options.group, max);
            if !checks.is_empty() || end.is_some_and(|end| end <= Instant::now()) {
                return Ok(checks);
            }
            let due = async {
                match next {
                    Some(next) => self.broker.clock().sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            let over = async {
                match end {
                    Some(end) => tokio::time::sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => {}
                () = due => {}
                () = over => {}
            }
        }
    }
}

impl Half for MemoryHalf {
    async fn prepare(&self, to: &Target, message: Message, check_after: Duration) -> Result<HalfId> {
        self.faulty(Operation::Prepare, self.keep(to, message, check_after)).await
    }

    async fn decide(&self, id: &HalfId, verdict: Verdict, asked: Option<CheckToken>) -> Result<Decided> {
        self.faulty(Operation::Decide, async { self.settle(id, verdict, asked.as_ref()) }).await
    }

    async fn checks(&self, max: usize, wait: Duration) -> Result<Vec<Check>> {
        self.faulty(Operation::Checks, self.wait_for_checks(max, wait)).await
    }
}
