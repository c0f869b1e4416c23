//! Half messages: a receipt is sent if and only if the payment is booked, whoever crashes in between.
//!
//! ```sh
//! cargo run --example payments
//! ```
//!
//! A half message is stored and invisible. The local transaction, here a line in a ledger file, decides what becomes
//! of it. When no verdict comes, the broker side asks a checker of the same producer group, which looks the payment
//! up: the ledger is the truth.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mq::driver::{Check, Decided, Target, Verdict};
use mq::prelude::*;
use mq::{Checker, HalfProducer, MessageId};

use common::Failed;

/// How long a receipt that must come is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one that must not come is waited for.
const QUIET: Duration = Duration::from_millis(1500);

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let client = common::connect(&common::unique("pay")).await?;
    println!("connected to {} ({})", client.backend(), client.product());
    client.declare(Topology::new().queue(QueueSpec::new("receipts"))).await?;
    let ledger = Ledger::open(&common::unique("mq-ledger"))?;
    let outcome = tour(&client, &ledger).await;
    ledger.remove()?;
    client.queue("receipts").delete().await?;
    client.queue("receipts").dead_letters().delete().await?;
    client.close().await?;
    outcome
}

async fn tour(client: &Client, ledger: &Ledger) -> Result<(), Failed> {
    let payments = client
        .half_producer("payments")
        .check_after(Duration::from_millis(300))
        .check_every(Duration::from_millis(500))
        .open(ledger.clone())
        .await?;
    let mut receipts = client.queue("receipts").consumer().open().await?;

    pay(&payments, ledger, "alice", 30).await?;
    expect(&mut receipts, Some("30 from alice")).await?;
    let refused = pay(&payments, ledger, "bob", 5_000).await;
    println!("bob: {}", refused.err().ok_or("a payment beyond the limit was booked")?);
    expect(&mut receipts, None).await?;

    println!("\ncarol's payment is booked, and the process dies before it gives its verdict:");
    let half = payments.prepare(receipts_queue(), Message::text("40 from carol")).await?;
    ledger.book(&half.0, "carol", 40)?;
    expect(&mut receipts, Some("40 from carol")).await?;

    println!("\nfor dave the process dies before anything is booked:");
    payments.prepare(receipts_queue(), Message::text("50 from dave")).await?;
    expect(&mut receipts, None).await?;
    Ok(receipts.close().await?)
}

fn receipts_queue() -> Target {
    Target::queue("receipts")
}

/// Stores the receipt, books the payment, and lets the booking decide.
async fn pay(payments: &HalfProducer, ledger: &Ledger, from: &str, amount: u64) -> Result<Decided, Failed> {
    let receipt = Message::text(format!("{amount} from {from}"));
    let book = async |local: mq::Local| {
        ledger.book(local.id(), from, amount)?;
        Ok::<_, Failed>(Verdict::Commit)
    };
    let decided = payments.send(receipts_queue(), receipt, book).await?;
    println!("{from}: booked, verdict {decided:?}");
    Ok(decided)
}

async fn expect(receipts: &mut Consumer, text: Option<&str>) -> Result<(), Failed> {
    let wait = if text.is_some() { PATIENCE } else { QUIET };
    let delivery = receipts.recv_for(wait).await?;
    let came = delivery.as_deref().map(|m| m.to_str()).transpose()?;
    println!("  receipt: {}", came.unwrap_or("none, as it must be"));
    if came != text {
        return Err(format!("expected {text:?}").into());
    }
    delivery.map_or(Ok(()), |d| Ok(d.ack()?))
}

/// What was booked: a file, so that another process could answer for this one.
#[derive(Clone)]
struct Ledger {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

impl Ledger {
    fn open(name: &str) -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(name);
        let file = File::options().create(true).append(true).open(&path)?;
        Ok(Self { path, file: Arc::new(Mutex::new(file)) })
    }

    /// The local transaction: one line, durable when this returns.
    fn book(&self, id: &MessageId, from: &str, amount: u64) -> Result<(), Failed> {
        if amount > 1_000 {
            return Err(format!("{from} cannot pay {amount}: the limit is 1000").into());
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(file, "{id} {from} {amount}")?;
        Ok(file.sync_data()?)
    }

    fn has(&self, id: &MessageId) -> std::io::Result<bool> {
        let booked = fs::read_to_string(&self.path)?;
        Ok(booked.lines().any(|line| line.split(' ').next() == Some(&id.to_string())))
    }

    fn remove(&self) -> std::io::Result<()> {
        fs::remove_file(&self.path)
    }
}

#[async_trait::async_trait]
impl Checker for Ledger {
    async fn check(&self, half: &Check) -> Verdict {
        let (ledger, id) = (self.clone(), half.id.0.clone());
        // A file is read on a thread that may block.
        let verdict = match tokio::task::spawn_blocking(move || ledger.has(&id)).await {
            Ok(Ok(true)) => Verdict::Commit,
            Ok(Ok(false)) => Verdict::Rollback,
            // Better asked again than answered wrongly.
            _ => Verdict::Unknown,
        };
        println!("  the checker is asked, for the {}. time: {verdict:?}", half.count);
        verdict
    }
}
