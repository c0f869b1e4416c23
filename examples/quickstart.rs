//! A first tour: route, fail, retry, dead-letter, replay, delay.
//!
//! ```sh
//! cargo run --example quickstart
//! MQ_URL=amqp://127.0.0.1 cargo run --features rabbit --example quickstart
//! ```

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mq::Replay;
use mq::driver::Count;
use mq::prelude::*;
use tokio::sync::{mpsc, oneshot};

use common::Failed;

/// How long anything here may take on a real broker.
const PATIENCE: Duration = Duration::from_secs(30);
const QUEUES: [&str; 3] = ["billing", "shipping", "audit"];

#[tokio::main]
async fn main() -> Result<(), Failed> {
    // A name of its own for each run, so that a real broker starts clean; all of it is deleted at the end.
    let client = common::connect(&common::unique("tour")).await?;
    let diary = Diary(Instant::now());
    diary.note("client", format!("connected to {} ({})", client.backend(), client.product()));
    client.declare(topology()).await?;
    diary.note(
        "client",
        "declared the topic exchange `orders` and three queues, each with a dead-letter queue",
    );

    let shop = Shop { diary, card_works: Arc::default() };
    let (told, mut happened) = mpsc::channel(64);
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(shop.handlers(&client, &told).run_until(stopped));

    publish(&client, diary).await?;
    // Billing fails three times for the second order, which is dead-lettered then.
    wait_for(&mut happened, &["billing done", "billing gave up", "audit reminder"]).await?;
    let dead = client.queue("billing").dead_letters();
    let letters = letters(&dead).await?;
    for letter in &letters {
        let why = letter.trail().and_then(|t| t.error.clone()).unwrap_or_default();
        diary.note("dead letters", format!("`{}`, because: {why}", letter.to_str()?));
    }

    shop.card_works.store(true, Ordering::Relaxed);
    let replayed = client.queue("billing").replay(Replay::default()).await?;
    diary.note("dead letters", format!("the bank is back: {} replayed", replayed.replayed));
    wait_for(&mut happened, &["billing done"]).await?;

    // Stops fetching, lets handlers finish, settles, closes.
    drop(stop);
    let report = running.await??;
    diary.note("client", format!("{report:?}"));
    clean_up(&client).await?;
    client.close().await?;
    diary.note("client", "deleted what was declared, and closed");
    Ok(())
}

fn topology() -> Topology {
    let retry = Backoff::exponential(Duration::from_millis(50)).max_attempts(3);
    Topology::new()
        .exchange(ExchangeSpec::topic("orders"))
        .queue(QueueSpec::new("billing").with_retry(retry))
        .queue(QueueSpec::new("shipping"))
        .queue(QueueSpec::new("audit"))
        .bind("orders", "billing", "order.*.paid")
        .bind("orders", "shipping", "order.eu.#")
        .bind("orders", "audit", "#")
}

async fn publish(client: &Client, diary: Diary) -> Result<()> {
    let orders = client.exchange("orders");
    for (key, text) in [
        ("order.eu.paid", "order 1, 20 EUR"),
        ("order.us.paid", "order 2, 35 USD, card declined"),
        ("order.eu.cancelled", "order 3"),
    ] {
        // Returns when the broker has it.
        orders.publish(key, text).await?;
        diary.note("client", format!("published `{text}` as {key}"));
    }
    let delay = Duration::from_millis(400);
    client.queue("audit").send(Message::text("reminder").with_delay(delay)).await?;
    diary.note("client", format!("sent a reminder to audit, due in {delay:?}"));
    Ok(())
}

/// The handlers of the three queues, and what they share.
#[derive(Clone)]
struct Shop {
    diary: Diary,
    card_works: Arc<AtomicBool>,
}

impl Shop {
    fn handlers(&self, client: &Client, told: &mpsc::Sender<String>) -> RunLoop {
        let shop = self.clone();
        QUEUES.iter().fold(RunLoop::new().concurrency(4), |run, queue| {
            let (shop, told) = (shop.clone(), told.clone());
            run.on(client.queue(*queue).consumer(), move |message: Received| {
                let (shop, told) = (shop.clone(), told.clone());
                async move { shop.handle(queue, &message, &told).await }
            })
        })
    }

    async fn handle(&self, queue: &str, message: &Received, told: &mpsc::Sender<String>) -> Handled {
        let (text, attempt) = (message.to_str()?, message.attempt());
        let declined = queue == "billing" && text.contains("declined");
        let outcome = if !declined || self.card_works.load(Ordering::Relaxed) {
            self.diary.note(queue, format!("handled `{text}`"));
            if text == "reminder" { "reminder" } else { "done" }
        } else {
            self.diary.note(queue, format!("attempt {attempt} of `{text}` fails"));
            if attempt == 3 { "gave up" } else { "will try again" }
        };
        told.send(format!("{queue} {outcome}")).await?;
        // The result settles the message: acknowledged, or retried by the policy of the queue.
        if matches!(outcome, "gave up" | "will try again") { Err("card declined".into()) } else { Ok(()) }
    }
}

/// Waits until all of these have happened, in any order, among other things.
async fn wait_for(happened: &mut mpsc::Receiver<String>, what: &[&str]) -> Result<(), Failed> {
    let mut missing = what.to_vec();
    let all = async {
        while !missing.is_empty() {
            let event = happened.recv().await.ok_or("the handlers have ended early")?;
            missing.iter().position(|m| *m == event).map(|found| missing.remove(found));
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap_or_else(|_| Err("it took too long".into()))
}

/// The dead letters, when there are some: the last failure is reported before the message is moved.
async fn letters(dead: &Queue) -> Result<Vec<Message>, Failed> {
    let until = Instant::now() + PATIENCE;
    while dead.depth().await?.ready == Count::Exact(0) && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(dead.list(10).await?)
}

async fn clean_up(client: &Client) -> Result<()> {
    for queue in QUEUES {
        client.queue(queue).delete().await?;
        client.queue(queue).dead_letters().delete().await?;
    }
    client.delete_exchange("orders").await.map(drop)
}

/// Prints what happens, with the time since the start.
#[derive(Clone, Copy)]
struct Diary(Instant);

impl Diary {
    fn note(self, who: &str, what: impl std::fmt::Display) {
        println!("{:>6} ms  {who:<13} {what}", self.0.elapsed().as_millis());
    }
}
