//! Patterns that would keep the broker busy: its search tries every way to share the words of a key among the `#`.

use lapin::ExchangeKind;
use lapin::options::ExchangeDeclareOptions;
use lapin::types::FieldTable;
use mq_core::{Error, Kind, Result};

use crate::connection::Admin;
use crate::error::BACKEND;

/// `#` in one pattern: what the broker itself allows since 4.3. Three of them are 40,000 steps for a key of 64 words,
/// eight are minutes.
const MANY_WORDS: usize = 2;

/// Refuses a pattern of a topic exchange that is too costly. Other exchanges take `#` as it is written.
pub(crate) async fn check(admin: &Admin, exchange: &str, pattern: &str) -> Result<()> {
    let many = pattern.split('.').filter(|word| *word == "#").count();
    if many <= MANY_WORDS || !is_topic(admin, exchange).await? {
        return Ok(());
    }
    Err(Error::config(format!(
        "the pattern has {many} `#`, at most {MANY_WORDS} are allowed on RabbitMQ; bind the queue by several patterns"
    ))
    .with_context("exchange", exchange.to_owned())
    .with_backend(BACKEND))
}

/// A declaration with another kind is refused, and this is the only way to ask for it.
async fn is_topic(admin: &Admin, exchange: &str) -> Result<bool> {
    if !crate::topology::exchange_exists(admin, exchange).await? {
        return Ok(false);
    }
    let declared = admin
        .run("look for an exchange", |channel| async move {
            let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            channel
                .exchange_declare(exchange.into(), ExchangeKind::Topic, options, FieldTable::default())
                .await
        })
        .await;
    match declared {
        Ok(()) => Ok(true),
        // The kind is compared before all else.
        Err(e) if e.kind() == Kind::AlreadyExists => Ok(!e.message().contains("another kind")),
        Err(e) => Err(e),
    }
}
