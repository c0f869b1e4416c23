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

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mq_core::driver::Query;
use mq_core::protocol::objects;
use mq_core::{Result, Timestamp};
use tokio::sync::oneshot;

use crate::connection::Link;
use crate::{lock, topology};

pub(crate) use forward::Moved;
pub(crate) use ladder::LEVELS;

use forward::Forwarder;

/// What a connection knows of its ladder.
#[derive(Debug, Default)]
pub(crate) struct Delay {
    /// The topics below this level are there.
    ready: AtomicU8,
    started: AtomicBool,
    /// Ends with the forwarder.
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

/// How long a close waits for the forwarder: what it has on its way, its last commit, its leave.
const LEAVE: Duration = Duration::from_secs(4);

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

    /// Starts the forwarder of this connection, once. Does not block.
    pub(crate) fn start(&self, link: &Arc<Link>) {
        if !link.config.forwards || self.started.swap(true, Ordering::AcqRel) {
            return;
        }
        match Forwarder::start(link) {
            Ok(ended) => *lock(&self.ended) = Some(ended),
            Err(failed) => {
                self.stopped();
                tracing::warn!(target: "mq_kafka", error = %failed, "no delay forwarder; delayed messages may be late");
            }
        }
    }

    /// There is none: the next delayed message may start another one.
    fn stopped(&self) {
        self.started.store(false, Ordering::Release);
    }

    /// Waits until the forwarder of a closed connection has left its group, for a few seconds at most.
    pub(crate) async fn ended(&self) {
        let ended = lock(&self.ended).take();
        if let Some(ended) = ended
            && tokio::time::timeout(LEAVE, ended).await.is_err()
        {
            tracing::warn!(target: "mq_kafka", "the delay forwarder did not end in time; its group waits for it");
        }
    }
}

#[cfg(test)]
mod tests {
    use mq_core::Kind;
    use mq_core::driver::{Connector as _, Event};
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::config::KafkaConfig;
    use crate::connection::KafkaConnector;

    /// Delayed messages are accepted all the same: whoever sends them must hear that they wait.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_forwarder_that_may_not_join_tells_so_once() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("mq.delay.00", 1, 1).unwrap();
        let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED; 3];
        mock.request_errors(RDKafkaApiKey::JoinGroup, &refused);
        let config = KafkaConfig::new([mock.bootstrap_servers()]);
        let connection = KafkaConnector::new(config).unwrap().connect().await.unwrap();
        let link = Arc::clone(&connection.link);
        link.delay.start(&link);
        let told = async {
            loop {
                if let Some(Event::Hindered(why)) = link.events.pop() {
                    return why;
                }
                link.events.arrived().await;
            }
        };
        let why = tokio::time::timeout(Duration::from_secs(30), told).await.expect("nobody is told");
        assert_eq!(why.kind(), Kind::PermissionDenied, "{why}");
        // The others are met until it joins, or ends.
        drop(connection);
        link.delay.ended().await;
        while let Some(event) = link.events.pop() {
            assert!(!matches!(event, Event::Hindered(_)), "told again");
        }
    }
}
