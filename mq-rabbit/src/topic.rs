//! Topics: one stream for each partition, and a note that says how many there are.

use futures_util::future::try_join_all;
use mq_core::driver::{Applied, Count, Described, PartitionRange, Query};
use mq_core::protocol::partition;
use mq_core::{Error, Kind, Message, Result, Timestamp, TopicSpec};

use crate::connection::Admin;
use crate::error::BACKEND;
use crate::note::Note;
use crate::plan::{self, Plan};
use crate::{reader, topology};

/// A topic that exists.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) partitions: u32,
    /// Tells it from a namesake that was deleted before.
    pub(crate) born: u64,
}

/// The stream of a partition.
pub(crate) fn stream(topic: &str, partition: u32) -> String {
    format!("mq.topic.{topic}.{partition}")
}

impl Topic {
    /// Finds a topic.
    pub(crate) async fn find(admin: &Admin, name: &str) -> Result<Option<Self>> {
        let note = Note::read(admin, name).await?;
        Ok(note.partitions.map(|partitions| Self {
            name: name.to_owned(),
            partitions,
            born: note.born.unwrap_or_default(),
        }))
    }

    /// Finds a topic that must exist.
    ///
    /// # Errors
    /// [`NotFound`](Kind::NotFound).
    pub(crate) async fn get(admin: &Admin, name: &str) -> Result<Self> {
        Self::find(admin, name).await?.ok_or_else(|| Error::not_found("topic", name).with_backend(BACKEND))
    }

    /// The stream that takes a message: by its key, else by its id, so that a copy goes where the original went.
    pub(crate) fn stream_of(&self, message: &Message) -> String {
        let number = match message.key() {
            Some(key) => partition::partition(key, self.partitions),
            None => partition::partition(message.stamped_id().to_string().as_bytes(), self.partitions),
        };
        stream(&self.name, number)
    }
}

/// The stream of a partition, as it is declared.
pub(crate) fn stream_plan(spec: &TopicSpec, partition: u32) -> Plan {
    let mut plan = plan::stream(&stream(&spec.name, partition));
    if let Some(retention) = spec.retention {
        let seconds = retention.as_millis().div_ceil(1000).max(1);
        plan::text(&mut plan.arguments, "x-max-age", &format!("{seconds}s"));
    }
    if let Some(copies) = spec.replication {
        plan::number(&mut plan.arguments, "x-initial-cluster-size", i64::from(copies));
    }
    plan
}

/// Makes a topic, or finds it equal.
pub(crate) async fn declare(admin: &Admin, spec: &TopicSpec) -> Result<Applied> {
    if admin.queue_exists(&spec.name).await? {
        return Err(Error::new(
            Kind::AlreadyExists,
            format!("`{}` exists as a queue; queues and topics share their names", spec.name),
        )
        .with_context("property", "sort"));
    }
    let note = Note::of_topic(spec.partitions, Timestamp::now().as_millis());
    if Topic::find(admin, &spec.name).await?.is_some() {
        // Finds a conflict before anything is made.
        note.keep(admin, &spec.name).await?;
    }
    for partition in 0..spec.partitions {
        topology::make_queue(admin, stream_plan(spec, partition)).await?;
    }
    note.keep(admin, &spec.name).await.map(|()| Applied::Done)
}

/// Deletes a topic with all it holds.
pub(crate) async fn delete(admin: &Admin, name: &str) -> Result<Applied> {
    let Some(topic) = Topic::find(admin, name).await? else { return Ok(Applied::Unchanged) };
    for partition in 0..topic.partitions {
        topology::delete_queue(admin, &stream(name, partition)).await?;
    }
    // Last: a delete that was cut off finds the topic again, and deletes the rest. What groups have stored stays, and
    // means nothing to a namesake: it names the birth of this one.
    Note::forget(admin, name).await?;
    Ok(Applied::Done)
}

/// Answers a question about a topic.
pub(crate) async fn describe(admin: &Admin, query: &Query) -> Result<Described> {
    match query {
        Query::Exists(_, name) => Ok(Described::Exists(Topic::find(admin, name).await?.is_some())),
        Query::Partitions(name) => {
            let topic = Topic::get(admin, name).await?;
            Ok(Described::Partitions(ranges(admin, &topic).await?))
        }
        Query::Lag { topic, group } => {
            let topic = Topic::get(admin, topic).await?;
            lag(admin, &topic, group).await
        }
        _ => Err(Error::unsupported("this question is not answered on RabbitMQ")),
    }
}

async fn ranges(admin: &Admin, topic: &Topic) -> Result<Vec<PartitionRange>> {
    let all = (0..topic.partitions).map(|partition| async move {
        let (earliest, latest) = reader::range(admin, &stream(&topic.name, partition)).await?;
        Ok(PartitionRange { partition, earliest, latest })
    });
    try_join_all(all).await
}

async fn lag(admin: &Admin, topic: &Topic, group: &str) -> Result<Described> {
    let ranges = ranges(admin, topic).await?;
    let mut lag = Vec::with_capacity(ranges.len());
    for range in ranges {
        // A single active consumer's queue cannot be looked into: the offset is known where its owner is.
        let stored = admin.offset(&topic.name, range.partition, group);
        let behind = stored.map_or(Count::AtMost(range.latest - range.earliest), |offset| {
            Count::Exact(range.latest.saturating_sub(offset.max(range.earliest)))
        });
        lag.push((range.partition, behind));
    }
    Ok(Described::Lag(lag))
}
