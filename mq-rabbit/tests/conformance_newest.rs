//! The conformance suite on the newest RabbitMQ.

#[path = "common/brokers.rs"]
mod brokers;

fn main() -> std::process::ExitCode {
    brokers::suite("rabbit4", brokers::NEWEST)
}
