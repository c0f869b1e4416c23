//! What librdkafka calls back.

use std::sync::Arc;

use mq_core::driver::Ticket;
use mq_core::{Error, Fate};
use rdkafka::ClientContext;
use rdkafka::Message as _;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{DeliveryResult, ProducerContext};

use crate::delay::Moved;
use crate::error;
use crate::event::Events;
use crate::flight::Flight;
use crate::gate::{Gate, Places};

/// Passes a log line of librdkafka on.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::warn!(target: "mq_kafka::librdkafka", facility, "{}", mq_core::text::escape(line));
        }
        _ => tracing::debug!(target: "mq_kafka::librdkafka", facility, "{}", mq_core::text::escape(line)),
    }
}

/// Why a message that was reported is not known to be stored; `None` if it is.
///
/// Without an offset the broker has not confirmed it: librdkafka concludes that it is stored because a later one of its
/// partition is. A leader that has just taken over refuses the first, then takes the second, for it knows nothing of
/// the producer yet: the first is nowhere.
pub(crate) fn failure(result: &DeliveryResult<'_>) -> Option<KafkaError> {
    match result {
        Ok(message) if message.offset() < 0 => {
            Some(KafkaError::MessageProduction(Code::OutOfOrderSequenceNumber))
        }
        Ok(_) => None,
        Err((failed, _)) => Some(failed.clone()),
    }
}

/// For clients that only ask.
#[derive(Debug)]
pub(crate) struct Quiet(pub(crate) Arc<Events>);

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.native_error(&error, reason);
    }
}

impl rdkafka::consumer::ConsumerContext for Quiet {}

/// A message on its way.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) answer: Answer,
    pub(crate) places: Places,
}

/// Who waits for the answer.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A sender of the application.
    Ticket(Ticket, Arc<Flight>),
    /// The delay forwarder.
    Moved(Moved),
}

impl Sent {
    /// The broker has answered, or librdkafka in its place.
    fn answered(self, gate: &Gate, result: &DeliveryResult<'_>) {
        match self.answer {
            Answer::Ticket(ticket, flight) => {
                ticket.done(flight.topic.answer(result));
                flight.leave(self.places);
            }
            Answer::Moved(moved) => {
                gate.leave(self.places);
                let failed = failure(result).map(|e| error::of("the delayed message was not moved", e));
                moved.answer(failed.map_or(Ok(()), Err));
            }
        }
    }

    /// It was never handed over.
    pub(crate) fn refuse(self, gate: &Gate, why: Error) {
        let why = why.with_fate(Fate::Rejected);
        match self.answer {
            Answer::Ticket(ticket, flight) => {
                ticket.done(Err(why));
                flight.leave(self.places);
            }
            Answer::Moved(moved) => {
                gate.leave(self.places);
                moved.answer(Err(why));
            }
        }
    }
}

/// The shared producer's side: completes what was handed over.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) gate: Arc<Gate>,
    pub(crate) events: Arc<Events>,
}

impl ClientContext for Sending {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.events.native_error(&error, reason);
    }
}

impl ProducerContext for Sending {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Self::DeliveryOpaque) {
        sent.answered(&self.gate, result);
    }
}
