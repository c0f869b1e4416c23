//! What librdkafka calls back.

use std::sync::Arc;

use mq_core::driver::Ticket;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, ProducerContext};

use crate::event::Events;
use crate::gate::{Gate, Places};
use crate::topic::Flight;

/// Passes a log line of librdkafka on.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::warn!(target: "mq_kafka::librdkafka", facility, "{}", mq_core::text::escape(line));
        }
        _ => tracing::debug!(target: "mq_kafka::librdkafka", facility, "{}", mq_core::text::escape(line)),
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
    pub(crate) ticket: Ticket,
    pub(crate) flight: Arc<Flight>,
    pub(crate) places: Places,
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
        let Sent { ticket, flight, places } = *sent;
        self.gate.leave(places);
        ticket.done(flight.topic.answer(result));
        flight.ended();
    }
}
