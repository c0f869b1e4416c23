//! Routes log lines through a topic, a direct and a fanout exchange, byte for byte.
//!
//! ```sh
//! cargo run --release --example log_router -- --out routed logs/*.log
//! journalctl | cargo run --release --example log_router
//! MQ_URL=amqp://127.0.0.1 cargo run --release --features rabbit --example log_router -- logs/*.log
//! ```
//!
//! Each line is published with its own terminator and the routing key `<file stem>.<severity>`. The severity is told
//! by the leftmost whole word among trace, debug, info, notice, warn, warning, error, fail, failed, failure, fatal,
//! crit and critical. `--out DIR` writes what each queue received, in the order of the inputs, to `DIR/queues`, and
//! the inputs, put together again from what `everything` received, to `DIR/files`.
//!
//! The counts can be checked without this program:
//!
//! ```sh
//! for f in logs/*.log; do cmp "$f" routed/files/"${f##*/}"; done     # says nothing: every byte is there
//! cat logs/linux.log | cmp - routed/queues/linux
//!
//! words='trace|debug|info|notice|warn|warning|error|fail|failed|failure|fatal|crit|critical'
//! for f in logs/*.log; do
//!   LC_ALL=C grep -aniowE "$words" "$f" | LC_ALL=C awk -F: '!seen[$1]++ { print tolower($2) }'
//! done | awk '/^(fail.*|error|fatal|crit.*)$/ { error++ } /^warn/ { warning++ } { some++ }
//!   END { print error+0, "errors;", warning+0, "warnings;", some+0, "lines with a severity" }'
//! for f in logs/*.log; do grep -ac "" "$f"; done | paste -sd+ | bc          # the lines of everything
//! ```
//!
//! With `--out`, lines are kept in memory until the end; without it, only their ids are.

#[path = "../common/mod.rs"]
mod common;
mod router;

use std::io::{IsTerminal, Write, stdin, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use mq::ClientOptions;

use crate::common::Failed;
use crate::router::{Input, Job};

/// Lines for a first look, where there is neither a file nor a pipe.
const SAMPLE: &str = "\
09:00:01 web: INFO request served\r\n\
09:00:02 db: WARNING slow query, 812 ms\n\
09:00:03 web: ERROR upstream gone; failed over\n\
09:00:04 cron: nothing to say\n\
09:00:05 db: notice: checkpoint complete";

/// Routes log lines through exchanges to queues, byte for byte.
#[derive(Debug, Parser)]
struct Args {
    /// Log files; none: standard input, or a few sample lines where that is a terminal
    files: Vec<PathBuf>,
    /// Write what each queue received, and the inputs put together again, to this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Consumers of each queue
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Failed> {
    let inputs = match args.files {
        files if !files.is_empty() => files.into_iter().map(Input::File).collect(),
        _ if stdin().is_terminal() => vec![Input::Sample("sample.log", SAMPLE)],
        _ => vec![Input::Standard],
    };
    // Long enough for a broker that is killed and started again meanwhile.
    let options =
        ClientOptions::new().with_prefix(common::unique("lr")).with_send_deadline(Duration::from_secs(120));
    let client = common::connect_with(options).await?;
    writeln!(stdout(), "{} ({})", client.backend(), client.product())?;
    let report = router::run(&client, Job { inputs, workers: args.workers, out: args.out.clone() }).await?;
    client.close().await?;
    write!(stdout(), "{report}")?;
    if let (true, Some(dir)) = (report.written, args.out) {
        writeln!(stdout(), "\nwritten to {}", dir.display())?;
    }
    Ok(())
}
