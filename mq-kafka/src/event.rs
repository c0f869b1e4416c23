//! What happens to a connection, kept until the core asks.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use mq_core::driver::Event;
use mq_core::{Error, Kind};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::sync::Notify;

use crate::error;
use crate::lock;

/// Events kept at most; further ones replace the oldest.
const KEPT: usize = 64;

/// Events of one connection, from the threads of all its native clients.
#[derive(Debug, Default)]
pub(crate) struct Events {
    queue: Mutex<VecDeque<Event>>,
    /// Why the broker refuses us, as long as no one asked.
    refusal: Mutex<Option<Error>>,
    interrupted: AtomicBool,
    arrived: Notify,
}

impl Events {
    /// Takes an error event of a native client. Most of them are passing and repeat (one per broker and attempt):
    /// only changes of state become events.
    pub(crate) fn native_error(&self, error: &KafkaError, reason: &str) {
        let Some(code) = error::code_of(error) else { return };
        tracing::debug!(target: "mq_kafka", ?code, reason, "native client");
        match code {
            Code::Authentication if reason.starts_with("Failed to acquire SASL OAUTHBEARER token") => {
                let text = "no token was given; check the token endpoint and the client's id and secret";
                self.refused(Kind::Unauthenticated, format!("{text}: {reason}"));
            }
            Code::Authentication | Code::SaslAuthenticationFailed => {
                self.refused(Kind::Unauthenticated, format!("the broker refused us: {reason}"));
            }
            Code::SSL => {
                let text =
                    "no TLS connection came about; check the authority, the host name and the certificate";
                self.refused(Kind::ConfigInvalid, format!("{text}: {reason}"));
            }
            Code::AllBrokersDown if !self.interrupted.swap(true, Ordering::AcqRel) => {
                self.push(Event::Interrupted(error::of_code("all brokers are down", code)));
            }
            Code::Fatal => self.push(Event::Lost(
                Error::disconnected(format!("the native client cannot go on: {reason}"))
                    .with_backend(error::BACKEND),
            )),
            _ => {}
        }
    }

    fn refused(&self, kind: Kind, text: String) {
        let refusal = Error::new(kind, mq_core::text::escape(&text).to_string()).with_backend(error::BACKEND);
        lock(&self.refusal).get_or_insert(refusal);
        self.arrived.notify_one();
    }

    pub(crate) fn push(&self, event: Event) {
        let mut queue = lock(&self.queue);
        if queue.len() == KEPT {
            queue.pop_front();
        }
        queue.push_back(event);
        drop(queue);
        self.arrived.notify_one();
    }

    pub(crate) fn pop(&self) -> Option<Event> {
        lock(&self.queue).pop_front()
    }

    /// Why the broker refused our credentials or certificates, if it did.
    pub(crate) fn refusal(&self) -> Option<Error> {
        lock(&self.refusal).clone()
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Acquire)
    }

    /// True if it was interrupted until now.
    pub(crate) fn restored(&self) -> bool {
        self.interrupted.swap(false, Ordering::AcqRel)
    }

    /// Waits for the next event.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_outage_errors_are_one_event() {
        let events = Events::default();
        for _ in 0..11 {
            events.native_error(&KafkaError::Global(Code::AllBrokersDown), "2/2 brokers are down");
            events.native_error(&KafkaError::Global(Code::BrokerTransportFailure), "connection refused");
        }
        assert!(matches!(events.pop(), Some(Event::Interrupted(_))));
        assert!(events.pop().is_none(), "T15: counted once");
        assert!(events.restored() && !events.restored());
    }

    #[test]
    fn only_a_fatal_error_ends_the_connection() {
        let events = Events::default();
        events.native_error(&KafkaError::Global(Code::UnknownTopicOrPartition), "x");
        assert!(events.pop().is_none());
        events.native_error(&KafkaError::Global(Code::Fatal), "x");
        assert!(matches!(events.pop(), Some(Event::Lost(_))));
    }
}
