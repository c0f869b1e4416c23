//! The conformance suite on the oldest supported RabbitMQ.

#[path = "common/brokers.rs"]
mod brokers;

fn main() -> std::process::ExitCode {
    brokers::suite("rabbit", brokers::OLDEST)
}
