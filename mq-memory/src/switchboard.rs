//! Faults on demand, for tests of programs that use mq.

use std::sync::Arc;
use std::time::Duration;

use mq_core::driver::Event;
use mq_core::{Error, Result};

use crate::broker::Broker;
use crate::faults::Fault;

/// What a planned fault hits: the next operation of this kind, whoever asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Whatever comes next, except connecting.
    Any,
    /// Connecting.
    Connect,
    /// Changing the topology.
    Apply,
    /// Asking about the topology.
    Describe,
    /// Opening a producer, an exchange, a consumer, half messages.
    Open,
    /// Sending one message to a queue or topic.
    Send,
    /// Publishing one message through an exchange.
    Publish,
    /// Receiving.
    Receive,
    /// Pushing acks out. The acks themselves are recorded without a reply that could be lost.
    Flush,
    /// Settling otherwise than by an ack: giving back, moving to retry or to the dead letters.
    Settle,
    /// Pausing, resuming, seeking.
    Control,
    /// Beginning a transaction.
    Begin,
    /// Adding a send or an ack to a transaction.
    Stage,
    /// Committing a transaction.
    Commit,
    /// Rolling a transaction back.
    Rollback,
    /// Storing a half message.
    Prepare,
    /// Deciding about a half message.
    Decide,
    /// Asking for half messages to be checked.
    Checks,
    /// Storing a record in the log of emulated half messages.
    Append,
    /// Reading that log.
    Next,
    /// A step of that log's owner.
    Step,
}

impl Operation {
    pub(crate) const fn is_send(self) -> bool {
        matches!(self, Self::Send | Self::Publish)
    }

    /// True if a plan for `self` hits `operation`.
    pub(crate) fn hits(self, operation: Self, fault: &Fault) -> bool {
        let possible = match fault {
            Fault::Duplicate => operation.is_send(),
            _ => true,
        };
        possible && (self == operation || (self == Self::Any && operation != Self::Connect))
    }
}

/// Makes a memory broker misbehave, so that a program's own tests can show what it does then.
///
/// A planned fault hits the next operations of its kind, of all connections of the broker, once each; an operation
/// meets one plan at most, the oldest that fits. While nothing is planned, operations pay one relaxed atomic load.
/// Times run with tokio's clock, paused or not.
///
/// ```
/// use std::time::Duration;
/// use mq_core::{Error, Kind};
/// use mq_memory::{MemoryConfig, MemoryConnector, Operation};
///
/// # fn main() -> mq_core::Result<()> {
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
/// # let _entered = runtime.enter();
/// let connector = MemoryConnector::new(&MemoryConfig::new())?;
/// let faults = connector.switchboard();
/// faults.fail_next(Operation::Send, 2, Error::new(Kind::RateLimited, "try later"));
/// faults.lose_reply(Operation::Commit, 1);
/// assert_eq!(faults.planned(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Switchboard(Arc<Broker>);

impl Switchboard {
    pub(crate) const fn new(broker: Arc<Broker>) -> Self {
        Self(broker)
    }

    /// The switchboard of the shared broker `memory://NAME`; it keeps the broker alive.
    ///
    /// # Errors
    /// [`NotFound`](mq_core::Kind::NotFound) if nobody has connected to a broker of this name.
    pub fn of(name: &str) -> Result<Self> {
        crate::connector::shared(name).map(Self).ok_or_else(|| Error::not_found("memory broker", name))
    }

    /// Fails the next `times` operations of this kind with this error; they do not happen.
    pub fn fail_next(&self, operation: Operation, times: u32, error: Error) {
        self.0.faults.plan(operation, times, Fault::Fail(error));
    }

    /// Delays each of the next `times` operations of this kind; then they happen.
    pub fn delay_next(&self, operation: Operation, times: u32, by: Duration) {
        self.0.faults.plan(operation, times, Fault::Delay(by));
    }

    /// Lets the next `times` operations of this kind happen and loses the replies: their outcome is unknown.
    pub fn lose_reply(&self, operation: Operation, times: u32) {
        self.0.faults.plan(operation, times, Fault::LoseReply);
    }

    /// Stores each of the next `times` messages that are sent or published twice.
    pub fn duplicate_next(&self, times: u32) {
        self.0.faults.plan(Operation::Any, times, Fault::Duplicate);
    }

    /// How many operations planned faults still wait for.
    #[must_use]
    pub fn planned(&self) -> u64 {
        self.0.faults.planned()
    }

    /// The live connections, oldest first.
    #[must_use]
    pub fn connections(&self) -> Vec<u64> {
        self.0.links().iter().map(|l| l.id).collect()
    }

    /// Cuts all connections: their producers, consumers and transactions die, what they held comes again with a
    /// death counted. New connections are taken at once.
    pub fn disconnect(&self) {
        self.cut(None, "the connection was cut; connect again");
    }

    /// Cuts one of the [`connections`](Self::connections); false if it is gone already.
    pub fn disconnect_one(&self, connection: u64) -> bool {
        self.cut(Some(connection), "the connection was cut; connect again")
    }

    fn cut(&self, connection: Option<u64>, why: &'static str) -> bool {
        let links = self.0.links();
        let hit = links.iter().filter(|l| connection.is_none_or(|id| id == l.id));
        let count = hit.map(|l| l.end(&self.0, &Error::disconnected(why), true)).count();
        self.0.faults.look_again();
        count > 0
    }

    /// Goes down with all connections, and takes new ones after this time, or earlier by [`up`](Self::up). What is
    /// durable stays; exclusive queues and open transactions are gone.
    pub fn restart(&self, after: Duration) {
        self.0.faults.go_down(Some(self.0.clock().now().plus(after)));
        self.cut(None, "the broker was restarted; connect again");
    }

    /// Goes down with all connections, and takes no new ones before [`up`](Self::up).
    pub fn down(&self) {
        self.0.faults.go_down(None);
        self.cut(None, "the broker went down; connect again");
    }

    /// Takes connections again.
    pub fn up(&self) {
        self.0.faults.go_up();
    }

    /// Holds every operation until [`resume`](Self::resume): a broker that is connected and does not answer.
    pub fn stall(&self) {
        self.0.faults.stall(true);
    }

    /// Lets operations go on that a stall holds.
    pub fn resume(&self) {
        self.0.faults.stall(false);
    }

    /// Holds sends until [`unblock`](Self::unblock) and says so to all connections, as a broker does that is short
    /// of memory.
    pub fn block(&self, reason: impl Into<String>) {
        let reason = reason.into();
        if self.0.faults.block(Some(reason.clone())) {
            self.tell(&Event::Blocked(reason));
        }
    }

    /// Takes sends again and says so.
    pub fn unblock(&self) {
        if self.0.faults.block(None) {
            self.tell(&Event::Unblocked);
        }
    }

    fn tell(&self, event: &Event) {
        self.0.links().iter().for_each(|l| l.tell(event.clone()));
    }

    /// Forgets all planned faults, and ends stall and block. A broker that is down stays down.
    pub fn clear(&self) {
        if self.0.faults.clear() {
            self.tell(&Event::Unblocked);
        }
    }
}
