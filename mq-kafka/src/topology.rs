//! Declaring, deleting, purging.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use mq_core::driver::{Applied, Change, Sort};
use mq_core::{Error, Kind, QueueSpec, Result, TopicSpec};
use rdkafka::admin::{AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};

use crate::connection::{Link, blocking};
use crate::{capability, delay, describe, error, lock};

/// How long a deletion waits for messages that are in flight to the topic.
const DRAIN: Duration = Duration::from_secs(2);
/// How long a deletion or declaration waits until the brokers' metadata shows it.
const SEEN: Duration = Duration::from_secs(5);
/// What Kafka has no setting for is kept in settings of the log cleaner, which does nothing for these topics:
/// whether it is a queue or a topic...
const MARK: &str = "min.compaction.lag.ms";
const QUEUE_MARK: i64 = 1;
const TOPIC_MARK: i64 = 2;
/// A queue that dead-letters what expires in it.
const KEEPING_MARK: i64 = 3;
/// ... which of the topics that had its name it is, by a random number that is set when it is made...
const CREATION: &str = "delete.retention.ms";
/// Creation ids are above this: anything a person would set says nothing.
const NO_CREATION: i64 = 1 << 40;
/// ... and the TTL of its messages, in milliseconds.
const TTL: &str = "max.compaction.lag.ms";
const FOR_EVER: i64 = i64::MAX;
/// Largest record: the largest body, key and headers.
const MAX_RECORD: &str = "4194304";

/// Applies one change.
pub(crate) async fn apply(link: &Arc<Link>, change: &Change) -> Result<Applied> {
    match change {
        Change::DeclareQueue(spec) => declare(link, &Plan::queue(link, spec)?).await,
        Change::DeclareTopic(spec) => declare(link, &Plan::topic(link, spec)).await,
        Change::Delete(Sort::Queue | Sort::Topic, name) => delete(link, name).await,
        Change::Purge(name) => purge(link, name).await,
        Change::CancelScheduled(..) => Err(capability::absent("cancelling a scheduled message")),
        _ => Err(capability::absent("exchanges are routed by the core")),
    }
}

fn options(link: &Link) -> AdminOptions {
    let deadline = link.config.admin_deadline;
    AdminOptions::new().request_timeout(Some(deadline)).operation_timeout(Some(deadline))
}

/// A topic as it should be.
pub(crate) struct Plan {
    sort: Sort,
    pub(crate) name: String,
    pub(crate) partitions: u32,
    /// As asked for, to compare with; else the default is taken.
    replication: Option<u32>,
    pub(crate) copies: u32,
    retention: String,
    ttl: Option<Duration>,
    keeps_expired: bool,
}

impl Plan {
    pub(crate) fn queue(link: &Link, spec: &QueueSpec) -> Result<Self> {
        if spec.bound.is_some() || spec.priority || spec.exclusive {
            return Err(Error::unsupported(
                "Kafka has no bounded, prioritized or exclusive queues; leave the setting out",
            ));
        }
        let plan = Self::new(link, Sort::Queue, &spec.name, spec.parallelism, None, None);
        Ok(Self { ttl: spec.ttl, keeps_expired: spec.dead_letter_expired, ..plan })
    }

    /// One of mq's own queues.
    pub(crate) fn own(link: &Link, name: &str, partitions: u32) -> Result<Self> {
        Self::queue(link, &QueueSpec::new(name).with_parallelism(partitions))
    }

    pub(crate) fn topic(link: &Link, spec: &TopicSpec) -> Self {
        Self::new(link, Sort::Topic, &spec.name, spec.partitions, spec.replication, spec.retention)
    }

    fn new(
        link: &Link,
        sort: Sort,
        name: &str,
        partitions: u32,
        replication: Option<u32>,
        retention: Option<Duration>,
    ) -> Self {
        let brokers = u32::try_from(link.brokers).unwrap_or(u32::MAX);
        let copies = replication.or(link.config.replication).unwrap_or_else(|| brokers.min(3));
        let retention = retention.map_or_else(|| "-1".to_owned(), |kept| kept.as_millis().to_string());
        let (name, ttl, keeps_expired) = (name.to_owned(), None, false);
        Self { sort, name, partitions, replication, copies, retention, ttl, keeps_expired }
    }

    /// The TTL as it is kept: at least 1 ms, or for ever.
    fn kept_ttl(&self) -> String {
        let millis = self.ttl.map_or(FOR_EVER, |ttl| i64::try_from(ttl.as_millis()).unwrap_or(FOR_EVER));
        // The broker wants it to be no less than the marker beside it.
        millis.max(TOPIC_MARK).max(self.mark()).to_string()
    }

    /// The native settings.
    pub(crate) fn settings(&self) -> [(&'static str, String); 7] {
        [
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", self.retention.clone()),
            ("retention.bytes", "-1".to_owned()),
            ("max.message.bytes", MAX_RECORD.to_owned()),
            ("min.insync.replicas", in_sync(self.copies)),
            (MARK, self.mark().to_string()),
            (TTL, self.kept_ttl()),
        ]
    }

    const fn mark(&self) -> i64 {
        match (self.sort, self.keeps_expired) {
            (Sort::Queue, true) => KEEPING_MARK,
            (Sort::Queue, false) => QUEUE_MARK,
            _ => TOPIC_MARK,
        }
    }
}

fn in_sync(copies: u32) -> String {
    copies.saturating_sub(1).max(1).to_string()
}

/// Copies and native settings of a delay level.
pub(crate) fn level(link: &Link) -> (u32, [(&'static str, String); 6]) {
    let copies = Plan::new(link, Sort::Queue, "", 1, None, None).copies;
    let settings = [
        ("cleanup.policy", "delete".to_owned()),
        ("retention.ms", "-1".to_owned()),
        ("retention.bytes", "-1".to_owned()),
        ("message.timestamp.type", "LogAppendTime".to_owned()),
        ("max.message.bytes", MAX_RECORD.to_owned()),
        ("min.insync.replicas", in_sync(copies)),
    ];
    (copies, settings)
}

async fn declare(link: &Arc<Link>, plan: &Plan) -> Result<Applied> {
    let counts = i32::try_from(plan.partitions).ok().zip(i32::try_from(plan.copies).ok());
    let Some((partitions, copies)) = counts.filter(|(p, c)| *p > 0 && *c > 0) else {
        return Err(Error::config("partitions and replication are at least 1"));
    };
    let (settings, creation) = (plan.settings(), fastrand::i64(NO_CREATION + 1..).to_string());
    let outcome = {
        let topic = NewTopic::new(&plan.name, partitions, TopicReplication::Fixed(copies));
        let topic = topic.set(CREATION, &creation);
        let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
        let asked = link.admin().await?.create_topics([&topic], &options(link));
        asked.await.map_err(|e| error::of("the topic was not created", e))?.pop()
    };
    match outcome {
        Some(Ok(_)) => {
            link.fresh.note(&plan.name);
            seen(link, &plan.name, true).await?;
            Ok(Applied::Done)
        }
        Some(Err((_, Code::TopicAlreadyExists))) => {
            link.fresh.note(&plan.name);
            compare(link, plan).await
        }
        Some(Err((name, code))) => {
            let doing = format!("the {} `{name}` was not created", plan.sort.as_str());
            Err(error::of_code(&doing, code))
        }
        None => Err(Error::new(Kind::Unexpected, "the broker did not answer for the topic")),
    }
}

/// Makes one of mq's own queues, or finds it.
pub(crate) async fn declare_own(link: &Arc<Link>, name: &str, partitions: u32) -> Result<()> {
    let there = {
        let (link, name) = (Arc::clone(link), name.to_owned());
        blocking(move || link.partitions(&name)).await?
    };
    if there.is_some() {
        return Ok(());
    }
    declare(link, &Plan::own(link, name, partitions)?).await.map(drop)
}

/// Makes the topics of these delay levels, or finds them.
pub(crate) async fn declare_levels(link: &Arc<Link>, levels: Range<u8>) -> Result<()> {
    let (copies, settings) = level(link);
    let copies = i32::try_from(copies).unwrap_or(1);
    let names: Vec<String> = levels.map(|level| delay::topic(link, level)).collect();
    let outcomes = {
        let topic = |name| {
            let topic = NewTopic::new(name, 1, TopicReplication::Fixed(copies));
            settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
        };
        let topics: Vec<NewTopic<'_>> = names.iter().map(|name| topic(name)).collect();
        let asked = link.admin().await?.create_topics(&topics, &options(link));
        asked.await.map_err(|e| error::of("the delay levels were not created", e))?
    };
    let refused =
        outcomes.into_iter().find_map(|o| o.err().filter(|(_, code)| *code != Code::TopicAlreadyExists));
    match refused {
        None => match names.last() {
            Some(name) => seen(link, name, true).await,
            None => Ok(()),
        },
        Some((name, code)) => Err(error::of_code(&format!("the delay level `{name}` was not created"), code)),
    }
}

/// Removes what lies below these offsets.
pub(crate) async fn trim(link: &Arc<Link>, topic: &str, ends: &[(i32, i64)]) -> Result<()> {
    let failed = |e| error::of("the log was not trimmed", e);
    let admin = link.admin().await?;
    let mut cut = TopicPartitionList::with_capacity(ends.len());
    for (partition, end) in ends {
        cut.add_partition_offset(topic, *partition, Offset::Offset(*end)).map_err(failed)?;
    }
    let done = admin.delete_records(&cut, &options(link));
    drop(cut);
    let done = done.await.map_err(failed)?;
    let refused = done.elements().iter().find_map(|e| e.error().err());
    refused.map_or(Ok(()), |e| Err(failed(e)))
}

/// Waits until the metadata that this client sees shows the change: with several brokers it travels.
async fn seen(link: &Arc<Link>, name: &str, there: bool) -> Result<()> {
    let deadline = tokio::time::Instant::now() + SEEN;
    loop {
        let (link, asked) = (Arc::clone(link), name.to_owned());
        let found = blocking(move || link.partitions(&asked)).await?;
        if found.is_some_and(|p| !p.is_empty()) == there || tokio::time::Instant::now() >= deadline {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Finds an existing topic equal to the plan, or names the property that differs.
async fn compare(link: &Arc<Link>, plan: &Plan) -> Result<Applied> {
    // It may have been made this moment.
    seen(link, &plan.name, true).await?;
    let (asked, name) = (Arc::clone(link), plan.name.clone());
    let (partitions, copies) = blocking(move || describe::shape(&asked, &name)).await?;
    let kept = settings(link, &plan.name).await?;
    let is = |name: &str, wanted: String| (kept.get(name).cloned().unwrap_or_else(|| wanted.clone()), wanted);
    let parallelism = if plan.sort == Sort::Queue { "parallelism" } else { "partitions" };
    let copies = copies.to_string();
    let mark = is(MARK, plan.mark().to_string());
    // A topic that mq did not make can be used as either.
    let sort = if mark.0 == "0" { (mark.1.clone(), mark.1) } else { mark };
    let is_queue = |mark: &str| [QUEUE_MARK, KEEPING_MARK].iter().any(|m| m.to_string() == mark);
    // A queue in either way: then it is not the sort that differs.
    let (sort, keeps) = if is_queue(&sort.0) && is_queue(&sort.1) {
        let keeps = |mark: &str| (mark == KEEPING_MARK.to_string()).to_string();
        ((String::new(), String::new()), (keeps(&sort.0), keeps(&sort.1)))
    } else {
        (sort, (String::new(), String::new()))
    };
    let (ttl_is, ttl_wanted) = is(TTL, plan.kept_ttl());
    let ttl_is =
        if ttl_is == FOR_EVER.to_string() && plan.sort == Sort::Topic { ttl_wanted.clone() } else { ttl_is };
    let differs = [
        ("sort", sort.0, sort.1),
        (parallelism, partitions.to_string(), plan.partitions.to_string()),
        ("replication", copies.clone(), plan.replication.map_or(copies, |r| r.to_string())),
        ("retention", is("retention.ms", plan.retention.clone()).0, plan.retention.clone()),
        ("ttl", ttl_is, ttl_wanted),
        ("dead_letter_expired", keeps.0, keeps.1),
    ];
    match differs.into_iter().find(|(_, is, wanted)| is != wanted) {
        None => Ok(Applied::Unchanged),
        Some((property, is, wanted)) => Err(plan.conflict(property, &is, &wanted)),
    }
}

impl Plan {
    fn conflict(&self, property: &'static str, is: &str, wanted: &str) -> Error {
        let (sort, name) = (self.sort.as_str(), &self.name);
        let text = if property == "sort" {
            let other = if self.sort == Sort::Queue { "topic" } else { "queue" };
            format!("`{name}` exists as a {other}; take another name for the {sort}")
        } else {
            format!(
                "the {sort} `{name}` exists with {property} {is}, not {wanted}; delete it or declare it as it is"
            )
        };
        Error::new(Kind::AlreadyExists, text).with_context("property", property).with_backend(error::BACKEND)
    }
}

/// The settings of a topic.
async fn settings(link: &Arc<Link>, topic: &str) -> Result<HashMap<String, String>> {
    loop {
        match ask_settings(link, topic).await {
            Err(e) if e.kind() == Kind::NotFound && link.is_known(topic) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            answer => return answer,
        }
    }
}

async fn ask_settings(link: &Arc<Link>, topic: &str) -> Result<HashMap<String, String>> {
    let asked = [ResourceSpecifier::Topic(topic)];
    let found = link.admin().await?.describe_configs(&asked, &options(link));
    let found = found.await.map_err(|e| error::of("the topic's settings were not read", e))?;
    let answer = found.into_iter().next();
    let answer =
        answer.ok_or_else(|| Error::new(Kind::Unexpected, "the broker did not answer for the topic"))?;
    let resource = answer.map_err(|code| error::of_code("the topic's settings were not read", code))?;
    Ok(resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect())
}

/// What the settings of a topic say to those who use it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kept {
    /// Expiry of a queue's messages that bring none.
    pub(crate) ttl: Option<Duration>,
    /// A queue dead-letters what expires in it.
    pub(crate) keeps_expired: bool,
    /// Tells the topic from others that had its name; 0 if it was made by others than mq.
    pub(crate) creation: u64,
}

/// What the settings of a topic say.
pub(crate) async fn kept(link: &Arc<Link>, topic: &str) -> Result<Kept> {
    let kept = settings(link, topic).await?;
    let number = |name: &str| kept.get(name).and_then(|value| value.parse::<i64>().ok());
    let creation = number(CREATION).filter(|id| *id > NO_CREATION).unwrap_or(0).cast_unsigned();
    let mark = number(MARK);
    let keeps_expired = mark == Some(KEEPING_MARK);
    let ttl = number(TTL).filter(|ttl| (keeps_expired || mark == Some(QUEUE_MARK)) && *ttl != FOR_EVER);
    let ttl = ttl.and_then(|ttl| u64::try_from(ttl).ok()).map(Duration::from_millis);
    Ok(Kept { ttl, keeps_expired, creation })
}

/// Deletes a topic; the broker forgets the groups' offsets of it at once.
///
/// A message sent to a topic that is gone would wait in librdkafka and land in a later topic of the same name, so
/// sends are stopped first and what is in flight is awaited.
async fn delete(link: &Arc<Link>, name: &str) -> Result<Applied> {
    link.fresh.forget(name);
    if let Some(topic) = link.topics.find(name) {
        topic.retire();
        // What is not answered in time ends as its own broker answer says: not found, or unknown.
        let _ = tokio::time::timeout(DRAIN, topic.drained()).await;
    }
    let outcome = remove(link, name).await;
    if let (Err(failed), Some(topic)) = (&outcome, link.topics.find(name)) {
        // It may still be there: the next send asks.
        tracing::debug!(target: "mq_kafka", name, %failed, "not deleted");
        topic.restore();
    }
    if outcome? == Applied::Done {
        seen(link, name, false).await?;
        return Ok(Applied::Done);
    }
    Ok(Applied::Unchanged)
}

async fn remove(link: &Arc<Link>, name: &str) -> Result<Applied> {
    let asked = link.admin().await?.delete_topics(&[name], &options(link));
    let outcome = asked.await.map_err(|e| error::of("the topic was not deleted", e))?.pop();
    match outcome {
        Some(Ok(_)) => Ok(Applied::Done),
        Some(Err((_, Code::UnknownTopicOrPartition | Code::UnknownTopic))) => Ok(Applied::Unchanged),
        Some(Err((_, code))) => Err(error::of_code(&format!("`{name}` was not deleted"), code)),
        None => Err(Error::new(Kind::Unexpected, "the broker did not answer for the topic")),
    }
}

/// Removes all records that are in the log now. Consumers of this connection drop what they have fetched of them;
/// those of other processes may still deliver what they had fetched.
async fn purge(link: &Arc<Link>, name: &str) -> Result<Applied> {
    let creation = kept(link, name).await?.creation;
    let (asked, topic) = (Arc::clone(link), name.to_owned());
    let (ends, depth) = blocking(move || describe::backlog(&asked, &topic, creation)).await?;
    trim(link, name, &ends).await?;
    for consumer in lock(&link.consumers).iter().filter_map(std::sync::Weak::upgrade) {
        consumer.purged(name, &ends);
    }
    Ok(Applied::Purged(depth))
}
