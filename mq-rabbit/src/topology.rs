//! Declares, binds, deletes, asks: each on a throw-away channel, because a refusal closes the channel.

use std::time::Duration;

use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{ExchangeKind as NativeKind, Queue};
use mq_core::driver::{Applied, Change, Count, Depth, Described, Query, Sort};
use mq_core::protocol::objects;
use mq_core::{Binding, Error, ExchangeKind, ExchangeSpec, Kind, QueueSpec, Result, Status};
use tokio::time::Instant;

use crate::connection::{Admin, found};
use crate::convert;
use crate::error::BACKEND;
use crate::looks::Proof;
use crate::note::{self, Note};
use crate::plan::{self, Plan};
use crate::{pattern, topic};

/// How long a queue may take to show what it got back: one that nobody else reads, and one whose readers may have
/// taken it already.
const SEEN_BACK: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(500));
/// Pause before a leader that cannot be reached is asked again.
const PROVE_AGAIN: Duration = Duration::from_millis(100);
/// Pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Applies one change.
pub(crate) async fn apply(admin: &Admin, change: &Change) -> Result<Applied> {
    match change {
        Change::DeclareExchange(spec) => declare_exchange(admin, spec).await,
        Change::DeclareQueue(spec) => declare_queue(admin, spec).await,
        Change::DeclareTopic(spec) => topic::declare(admin, spec).await,
        Change::Delete(Sort::Topic, name) => topic::delete(admin, name).await,
        Change::Bind(binding) => bind(admin, binding).await,
        Change::Unbind(binding) => unbind(admin, binding).await,
        Change::Delete(sort, name) => delete(admin, *sort, name).await,
        Change::Purge(queue) => purge(admin, queue).await,
        _ => Err(Error::unsupported("this change is not offered on RabbitMQ")),
    }
}

/// Answers a question.
pub(crate) async fn describe(admin: &Admin, query: &Query) -> Result<Described> {
    match query {
        Query::Exists(Sort::Queue, name) => Ok(Described::Exists(find_queue(admin, name).await?.is_some())),
        Query::Exists(Sort::Exchange, name) => Ok(Described::Exists(exchange_exists(admin, name).await?)),
        Query::KeepsExpired(queue) => {
            Ok(Described::KeepsExpired(Note::read(admin, queue).await?.keeps_expired))
        }
        Query::Depth(queue) => {
            let found = count_queue(admin, queue).await?.ok_or_else(|| Error::not_found("queue", queue))?;
            // AMQP tells neither what is in flight nor what waits in the delay levels for this queue.
            let again = count_queue(admin, &objects::again(queue)).await?;
            let copies = again.map_or(0, |q| u64::from(q.message_count()));
            let ready = Count::Exact(u64::from(found.message_count()) + copies);
            Ok(Described::Depth(Depth::new(ready, Count::Unknown, Count::Unknown)))
        }
        _ => topic::describe(admin, query).await,
    }
}

/// A queue with its counts. The broker says "no message, no consumer" also of a quorum queue whose leader it does not
/// reach: at once where there is none, after 250 ms where it is silent. So the leader itself is asked then, by a
/// `basic.get`, and the whole again until it answers.
pub(crate) async fn count_queue(admin: &Admin, name: &str) -> Result<Option<Queue>> {
    let begun = Instant::now();
    loop {
        let found = find_queue(admin, name).await?;
        let is_empty = found.as_ref().is_some_and(|q| q.message_count() == 0 && q.consumer_count() == 0);
        if !is_empty {
            return Ok(found);
        }
        let left = admin.limit().saturating_sub(begun.elapsed());
        match admin.prove(name, left).await {
            Ok(Proof::Empty | Proof::Withheld) => return Ok(found),
            Ok(Proof::Filled(count)) => seen_back(admin, &[name.to_owned()], count).await?,
            Err(e) if e.kind() == Kind::NotFound => return Ok(None),
            // Each of these costs a connection.
            Err(e) if matches!(e.kind(), Kind::Disconnected | Kind::Timeout) => {
                tokio::time::sleep(PROVE_AGAIN).await;
            }
            // The broker lets this client make no third connection.
            Err(_) => return Ok(found),
        }
        if begun.elapsed() >= admin.limit() {
            let text = format!("the leader of queue `{name}` does not answer the broker; ask again later");
            return Err(Error::new(Kind::Timeout, text).with_status(Status::Temporary).with_backend(BACKEND));
        }
    }
}

/// A queue by a passive declare; its counts may be wrong, see [`count_queue`].
pub(crate) async fn find_queue(admin: &Admin, name: &str) -> Result<Option<Queue>> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let look = |channel: lapin::Channel| async move {
        channel.queue_declare(name.into(), options, FieldTable::default()).await
    };
    found(admin.look("look for a queue", look).await)
}

/// A queue takes messages back a moment after the answer. Waits a little until it shows so many; where somebody else
/// takes them at once, it never does. The queues must exist: each refused look costs a channel.
pub(crate) async fn seen_back(admin: &Admin, queues: &[String], count: u64) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    let start = Instant::now();
    loop {
        let (mut ready, mut readers) = (0, 0);
        for name in queues {
            if let Some(found) = find_queue(admin, name).await? {
                ready += u64::from(found.message_count());
                readers += found.consumer_count();
            }
        }
        let patience = if readers == 0 { SEEN_BACK.0 } else { SEEN_BACK.1 };
        if ready >= count || start.elapsed() >= patience {
            return Ok(());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

pub(crate) async fn exchange_exists(admin: &Admin, name: &str) -> Result<bool> {
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let look = |channel: lapin::Channel| async move {
        channel.exchange_declare(name.into(), NativeKind::Direct, options, FieldTable::default()).await
    };
    Ok(found(admin.look("look for an exchange", look).await)?.is_some())
}

/// Makes one queue of a plan, or finds it equal. The broker asks for the permission to configure it in either case.
pub(crate) async fn make_queue(admin: &Admin, plan: Plan) -> Result<()> {
    let is_new = plan.is_replicated() && !admin.queue_exists(&plan.name).await?;
    declare_one(admin, plan, is_new).await
}

/// Makes a queue of mq's own that is not there yet. One that is there needs no permission to configure it.
pub(crate) async fn ensure_queue(admin: &Admin, plan: Plan) -> Result<()> {
    if admin.queue_exists(&plan.name).await? {
        return Ok(());
    }
    declare_one(admin, plan, true).await
}

async fn declare_one(admin: &Admin, plan: Plan, is_new: bool) -> Result<()> {
    if is_new && !admin.version().is_4_3() {
        admin.births().gone().await;
    }
    let Plan { name, options, arguments } = plan;
    let made = admin
        .run("declare a queue", |channel| async move {
            channel.queue_declare(name.as_str().into(), options, arguments).await
        })
        .await;
    if is_new {
        admin.births().note();
    }
    made.map(drop)
}

async fn declare_queue(admin: &Admin, spec: &QueueSpec) -> Result<Applied> {
    let plans = plan::queue(spec, admin.version())?;
    // In this order: a queue that is there has had its note before.
    let there = admin.queue_exists(&spec.name).await?;
    let (wanted, present) = (Note::of(spec), Note::read(admin, &spec.name).await?);
    if present != wanted {
        // Finds a conflict before anything is made.
        if there || present.partitions.is_some() {
            return Err(note::conflict(&spec.name, present, wanted));
        }
        if present != Note::default() {
            // Its queue went without it: the broker deleted it, or somebody who knows nothing of notes.
            Note::forget(admin, &spec.name).await?;
        }
    }
    wanted.keep(admin, &spec.name).await?;
    for plan in plans {
        make_queue(admin, plan).await?;
    }
    Ok(Applied::Done)
}

async fn declare_exchange(admin: &Admin, spec: &ExchangeSpec) -> Result<Applied> {
    let kind = match spec.kind {
        ExchangeKind::Fanout => NativeKind::Fanout,
        ExchangeKind::Direct => NativeKind::Direct,
        ExchangeKind::Topic => NativeKind::Topic,
        ExchangeKind::Headers => NativeKind::Headers,
        _ => return Err(Error::unsupported("this kind of exchange is not offered on RabbitMQ")),
    };
    let mut arguments = FieldTable::default();
    if let Some(alternate) = &spec.alternate {
        plan::text(&mut arguments, "alternate-exchange", alternate);
    }
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let name = spec.name.as_str();
    admin
        .run("declare an exchange", |channel| async move {
            channel.exchange_declare(name.into(), kind, options, arguments).await
        })
        .await?;
    Ok(Applied::Done)
}

/// The arguments of a binding of a headers exchange.
fn matching(binding: &Binding) -> FieldTable {
    let mut arguments = FieldTable::default();
    if let Some(matching) = &binding.matching {
        plan::text(&mut arguments, "x-match", matching.mode.as_str());
        for (name, value) in matching.values.iter() {
            arguments.insert(name.into(), convert::header_value(value));
        }
        for name in &matching.present {
            arguments.insert(name.as_str().into(), AMQPValue::Void);
        }
    }
    arguments
}

async fn bind(admin: &Admin, binding: &Binding) -> Result<Applied> {
    let Binding { exchange, queue, key, .. } = binding;
    pattern::check(admin, exchange, key).await?;
    let arguments = matching(binding);
    admin.births().ripe().await;
    admin
        .run("bind", |channel| async move {
            let options = QueueBindOptions::default();
            channel
                .queue_bind(
                    queue.as_str().into(),
                    exchange.as_str().into(),
                    key.as_str().into(),
                    options,
                    arguments,
                )
                .await
        })
        .await?;
    Ok(Applied::Done)
}

async fn unbind(admin: &Admin, binding: &Binding) -> Result<Applied> {
    let Binding { exchange, queue, key, .. } = binding;
    let arguments = matching(binding);
    let done = admin
        .find("unbind", |channel| async move {
            channel
                .queue_unbind(queue.as_str().into(), exchange.as_str().into(), key.as_str().into(), arguments)
                .await
        })
        .await?;
    Ok(if done.is_some() { Applied::Done } else { Applied::Unchanged })
}

async fn delete(admin: &Admin, sort: Sort, name: &str) -> Result<Applied> {
    let done = match sort {
        Sort::Exchange => admin
            .find("delete an exchange", |channel| async move {
                channel.exchange_delete(name.into(), ExchangeDeleteOptions::default()).await
            })
            .await?
            .is_some(),
        Sort::Queue => {
            let again = delete_queue(admin, &objects::again(name)).await?;
            // A topic of that name keeps its note.
            if Note::read(admin, name).await?.partitions.is_none() {
                Note::forget(admin, name).await?;
            }
            let deleted = delete_queue(admin, name).await?;
            admin.births().note_deletion();
            deleted | again
        }
        _ => return Err(Error::unsupported("this cannot be deleted on RabbitMQ")),
    };
    Ok(if done { Applied::Done } else { Applied::Unchanged })
}

/// Deletes a queue with all it holds.
pub(crate) async fn delete_queue(admin: &Admin, name: &str) -> Result<bool> {
    let done = admin
        .find("delete a queue", |channel| async move {
            channel.queue_delete(name.into(), QueueDeleteOptions::default()).await
        })
        .await?;
    Ok(done.is_some())
}

async fn purge(admin: &Admin, queue: &str) -> Result<Applied> {
    let again = objects::again(queue);
    let purge = |name: String| async move {
        let purge = |channel: lapin::Channel| async move {
            channel.queue_purge(name.as_str().into(), QueuePurgeOptions::default()).await
        };
        admin.find("purge", purge).await
    };
    let main = purge(queue.to_owned()).await?.ok_or_else(|| Error::not_found("queue", queue))?;
    let copies = purge(again).await?.unwrap_or(0);
    Ok(Applied::Purged(Count::Exact(u64::from(main) + u64::from(copies))))
}
