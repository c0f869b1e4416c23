//! Declaring topics and finding them.

use std::sync::Arc;

use mq_core::driver::{Applied, Sort, Target};
use mq_core::{Ability, Error, Result, TopicSpec};

use super::Topic;
use crate::connection::MemoryConnection;
use crate::names::{Object, conflict};

/// Partitions of a topic at most: each costs memory in every group.
const MAX_PARTITIONS: u32 = 4096;

impl MemoryConnection {
    pub(crate) fn declare_topic(&self, spec: &TopicSpec) -> Result<Applied> {
        mq_core::limits::check_any_name("topic", &spec.name)?;
        self.demand(Ability::Topics)?;
        if spec.replication.is_some() {
            return Err(Error::unsupported("memory keeps one copy of a topic; leave the replication out"));
        }
        if spec.partitions == 0 || spec.partitions > MAX_PARTITIONS {
            let text =
                format!("topic `{}` has {} partitions; 1 to {MAX_PARTITIONS}", spec.name, spec.partitions);
            return Err(Error::config(text));
        }
        let (topic, new) = self.broker.names.declare_topic(spec)?;
        if new {
            return Ok(Applied::Done);
        }
        if topic.spec.partitions != spec.partitions {
            return Err(conflict(Sort::Topic, &spec.name, "partitions"));
        }
        if topic.spec.retention != spec.retention {
            return Err(conflict(Sort::Topic, &spec.name, "retention"));
        }
        Ok(Applied::Unchanged)
    }

    pub(crate) fn topic(&self, name: &str) -> Result<Arc<Topic>> {
        match self.broker.names.find(&Target::topic(name))? {
            Object::Topic(topic) => Ok(topic),
            Object::Queue(_) => Err(Error::not_found(Sort::Topic.as_str(), name)),
        }
    }
}
