//! Delayed messages: a ladder of topics they wait in, and a forwarder that moves them on.
//!
//! A delayed message is stored before its send is confirmed, in the topic of its level, with its target and due
//! time in headers. The forwarder is a member of a group that all processes share: whoever owns a level's
//! partition moves its messages, and another member takes over when it dies. Nothing is moved twice but after a
//! fault, and nothing is lost if nobody runs: it is late then.

mod forward;
mod hooks;
mod ladder;
mod line;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use mq_core::driver::Query;
use mq_core::protocol::objects;
use mq_core::{Result, Timestamp};

use crate::connection::Link;
use crate::topology;

pub(crate) use forward::Moved;
pub(crate) use ladder::LEVELS;

use forward::Forwarder;

/// What a connection knows of its ladder.
#[derive(Debug, Default)]
pub(crate) struct Delay {
    /// The topics below this level are there.
    ready: AtomicU8,
    started: AtomicBool,
}

/// The group of all forwarders of a namespace.
pub(crate) fn group(link: &Link) -> String {
    objects::own(&link.config.namespace, "mq.delay")
}

/// The topic of a level.
pub(crate) fn topic(link: &Link, level: u8) -> String {
    objects::own(&link.config.namespace, &objects::delay_level(level))
}

/// Where delayed messages wait for a forwarder.
pub(crate) fn backlogs(link: &Link) -> Vec<(&'static str, Query)> {
    let lag = |level| Query::Lag { topic: topic(link, level), group: group(link) };
    (0..LEVELS).map(|level| ("move delayed messages on", lag(level))).collect()
}

/// The level where a message that is due at this time waits first.
pub(crate) fn first(due: Timestamp, now: Timestamp) -> u8 {
    ladder::level(due, now)
}

impl Delay {
    /// Makes the topics of this level and of those below it, unless they are there.
    pub(crate) async fn prepare(&self, link: &Arc<Link>, level: u8) -> Result<()> {
        let ready = self.ready.load(Ordering::Acquire);
        if ready <= level {
            topology::declare_levels(link, ready..level + 1).await?;
            self.ready.fetch_max(level + 1, Ordering::AcqRel);
        }
        Ok(())
    }

    /// The topics may be gone.
    pub(crate) fn doubt(&self) {
        self.ready.store(0, Ordering::Release);
    }

    /// Starts the forwarder of this connection, once.
    pub(crate) fn start(&self, link: &Arc<Link>) {
        if link.config.forwards
            && !self.started.swap(true, Ordering::AcqRel)
            && let Err(failed) = Forwarder::start(link, &group(link))
        {
            self.started.store(false, Ordering::Release);
            tracing::warn!(target: "mq_kafka", error = %failed, "no delay forwarder; delayed messages may be late");
        }
    }
}
