//! Benchmarks: ratios against the raw channel or client, both sides in one run, in turns.

mod measure;
mod memory;
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
    /// One figure of a fresh process: messages, queues or delays.
    #[command(hide = true)]
    Weigh {
        /// Which one.
        what: String,
    },
}

fn main() {
    let outcome = match Arguments::parse().what {
        What::Memory(options) => memory::run(&options),
        What::Weigh { what } => memory::weight::child(&what),
    };
    if let Err(error) = outcome {
        eprintln!("bench: {error}");
        std::process::exit(1);
    }
}
