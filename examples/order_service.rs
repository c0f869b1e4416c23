//! A service: typed messages, handlers with retry and dead letters, a shutdown that loses nothing.
//!
//! ```sh
//! cargo run --example order_service                      # ends by itself after a moment
//! cargo run --example order_service -- --run-for 3600    # until Ctrl-C, or for an hour
//! MQ_URL=kafka://127.0.0.1:9092 cargo run --features kafka --example order_service
//! ```
//!
//! It goes on from what it finds: orders that an earlier run left unhandled are handled now. Several copies of it
//! share the work.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use mq::Dedup;
use mq::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::time::{interval, sleep};

use common::Failed;

/// What a shop sends.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    number: u64,
    customer: String,
    cents: u64,
}

/// What the service answers with.
#[derive(Debug, Serialize, Deserialize)]
struct Invoice {
    order: u64,
    cents_with_tax: u64,
}

/// Takes orders, writes invoices.
#[derive(Debug, Parser)]
struct Args {
    /// Seconds after which it ends as on Ctrl-C
    #[arg(long, default_value_t = 2, value_name = "SECONDS")]
    run_for: u64,
    /// Orders a second that the shop makes up
    #[arg(long, default_value_t = 20)]
    rate: u32,
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let args = Args::parse();
    let client = common::connect("order-service-").await?;
    println!("connected to {} ({})", client.backend(), client.product());
    client.declare(topology()).await?;

    let shop = tokio::spawn(shop(client.clone(), args.rate));
    let desk = Desk { invoices: client.queue("invoices").producer().build().await?, bank: Arc::default() };
    // An order that comes twice, after a fault, is invoiced once.
    let guarded = Dedup::in_memory("orders").guard(move |message: Received| desk.clone().handle(message));
    let stop = end_of_work(Duration::from_secs(args.run_for));
    let report = RunLoop::new()
        .on(client.queue("orders").consumer().prefetch(32), guarded)
        .on(client.queue("invoices").consumer(), print_invoice)
        .concurrency(8)
        // Orders of one customer are handled one after the other.
        .concurrency_per_key(1)
        .handler_timeout(Duration::from_secs(5))
        .run_until(stop)
        .await?;
    shop.abort();

    println!("{report:?}");
    let dead = client.queue("orders").dead_letters();
    for letter in dead.list(5).await? {
        let why = letter.trail().and_then(|t| t.error.as_deref()).unwrap_or("unknown");
        println!("dead letter {:?}: {why}", String::from_utf8_lossy(letter.payload()));
    }
    println!("{:?} dead letters in all; {:?} orders wait for the next run", dead.depth().await?.ready, {
        client.queue("orders").depth().await?.ready
    });
    Ok(client.close().await?)
}

fn topology() -> Topology {
    let retry = Backoff::exponential(Duration::from_millis(100)).with_jitter(0.1).max_attempts(4);
    Topology::new().queue(QueueSpec::new("orders").with_retry(retry)).queue(QueueSpec::new("invoices"))
}

/// Ctrl-C or the end of the time, whichever comes first.
async fn end_of_work(after: Duration) {
    tokio::select! {
        () = sleep(after) => println!("the time is over: handlers finish, then it ends"),
        // Where the signal cannot be listened to, the time is all there is.
        Ok(()) = tokio::signal::ctrl_c() => println!("Ctrl-C: handlers finish, then it ends"),
    }
}

/// Makes up orders; one in ten cannot be read.
async fn shop(client: Client, rate: u32) -> Result<()> {
    let orders = client.queue("orders").producer().build().await?;
    let mut pace = interval(Duration::from_secs(1) / rate.max(1));
    for number in 1.. {
        pace.tick().await;
        let customer = format!("customer-{}", number % 5);
        let order = Order { number, customer, cents: number * 100 };
        let message =
            if number % 10 == 0 { Message::text("three of the blue ones") } else { Message::json(&order)? };
        orders.send(message.with_key(&order.customer)).await?;
    }
    Ok(())
}

/// Handles orders.
#[derive(Clone)]
struct Desk {
    invoices: Producer,
    bank: Arc<AtomicU64>,
}

impl Desk {
    async fn handle(self, message: Received) -> Handled {
        // What cannot be read never will be: a permanent error, which is dead-lettered without another try.
        let order: Order = message.to_json()?;
        let attempt = message.attempt();
        self.charge(&order).await.inspect_err(|e| {
            println!("order {} of {}: attempt {attempt}: {e}", order.number, order.customer);
        })?;
        let invoice = Invoice { order: order.number, cents_with_tax: order.cents * 119 / 100 };
        self.invoices.send(Message::json(&invoice)?.with_key(&order.customer)).await?;
        Ok(())
    }

    /// A bank that is away now and then.
    async fn charge(&self, order: &Order) -> Result<(), &'static str> {
        sleep(Duration::from_millis(order.number % 7)).await;
        let call = self.bank.fetch_add(1, Ordering::Relaxed);
        if call % 6 == 5 { Err("the bank does not answer") } else { Ok(()) }
    }
}

async fn print_invoice(message: Received) -> Handled {
    let invoice: Invoice = message.to_json()?;
    println!("invoice for order {}: {} cents", invoice.order, invoice.cents_with_tax);
    Ok(())
}
