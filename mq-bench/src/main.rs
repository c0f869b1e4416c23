//! Benchmarks: ratios against the raw channel or client, both sides in one run, in turns.

#[cfg(feature = "broker")]
mod broker;
#[cfg(feature = "kafka")]
mod kafka;
mod measure;
mod memory;
#[cfg(feature = "rabbit")]
mod rabbit;
mod table;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Benchmarks of mq")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The memory broker against a bare channel.
    Memory(memory::Options),
    /// The RabbitMQ adapter against lapin.
    #[cfg(feature = "rabbit")]
    Rabbit(broker::Options),
    /// The Kafka adapter against rdkafka.
    #[cfg(feature = "kafka")]
    Kafka(broker::Options),
    /// One figure of a fresh process: messages, queues or delays.
    #[command(hide = true)]
    Weigh {
        /// Which one.
        what: String,
    },
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() {
    let outcome = match Arguments::parse().what {
        What::Memory(options) => memory::run(&options),
        #[cfg(feature = "rabbit")]
        What::Rabbit(options) => rabbit::run(&options),
        #[cfg(feature = "kafka")]
        What::Kafka(options) => kafka::run(&options),
        What::Weigh { what } => memory::weight::child(&what),
    };
    if let Err(error) = outcome {
        eprintln!("bench: {error}");
        std::process::exit(1);
    }
}
