//! What waits for background work: the lag of emulations.

use crate::client::Client;
use crate::driver::{Count, Depth, Described, Query};
use crate::error::{Error, Kind, Result};
use crate::protocol::objects;

/// Messages that wait for one piece of background work.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backlog {
    /// The work, in words.
    pub work: &'static str,
    /// mq's own queue or topic where they wait: its full name.
    pub place: String,
    /// How many, as well as the broker knows. On Kafka, messages of a delay level that are not due yet are among those
    /// that are ready: the broker cannot tell them apart.
    pub depth: Depth,
}

impl Client {
    /// What waits for the background work of emulations, whichever process does it: unpacking of committed
    /// transactions, routing of delayed publishes, moving on of delayed messages. What grows here over minutes has no
    /// process that works on it: open a consumer, or a client with
    /// [`with_background_work`](crate::ClientOptions::with_background_work), somewhere. Nothing is lost meanwhile,
    /// only late.
    ///
    /// Empty where the broker does all of it, and as long as nobody has used what needs it. Not among it are half
    /// messages: those are open until their verdict, and [`Parked`](crate::ClientEvent::Parked) tells of those without
    /// one.
    ///
    /// # Errors
    /// The broker did not answer.
    ///
    /// # Cancel safety
    /// Asks only.
    pub async fn backlog(&self) -> Result<Vec<Backlog>> {
        let base = &self.inner.base;
        let mut asked = base.link.live()?.backlogs();
        let depth = |name| Query::Depth(base.own(name));
        if base.info.core.transactions {
            asked.push(("unpack committed transactions", depth(objects::ENVELOPES)));
        }
        if base.info.core.exchanges {
            asked.push(("route delayed publishes that are due", depth(objects::DUE)));
        }
        let mut found = Vec::new();
        for (work, query) in asked {
            let place = match &query {
                Query::Depth(queue) => queue.clone(),
                Query::Lag { topic, .. } => topic.clone(),
                _ => {
                    return Err(Error::new(
                        Kind::Unexpected,
                        "the driver names a backlog that cannot be counted",
                    ));
                }
            };
            let depth = match base.describe(query).await {
                Ok(Described::Depth(depth)) => depth,
                Ok(Described::Lag(lag)) => {
                    Depth::new(sum(lag.into_iter().map(|(_, n)| n)), Count::Unknown, Count::Unknown)
                }
                // Nobody has used it yet.
                Err(e) if e.kind() == Kind::NotFound => continue,
                Ok(_) => return Err(Error::new(Kind::Unexpected, "the driver answered another question")),
                Err(e) => return Err(e),
            };
            found.push(Backlog { work, place, depth });
        }
        Ok(found)
    }
}

/// As exact as the least exact of them.
fn sum(counts: impl Iterator<Item = Count>) -> Count {
    counts.fold(Count::Exact(0), |all, count| match (all, count) {
        (Count::Exact(a), Count::Exact(b)) => Count::Exact(a + b),
        (Count::Exact(a) | Count::AtMost(a), Count::Exact(b) | Count::AtMost(b)) => Count::AtMost(a + b),
        _ => Count::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_as_exact_as_its_parts() {
        let of = |counts: &[Count]| sum(counts.iter().copied());
        assert_eq!(of(&[]), Count::Exact(0));
        assert_eq!(of(&[Count::Exact(2), Count::Exact(3)]), Count::Exact(5));
        assert_eq!(of(&[Count::Exact(2), Count::AtMost(3)]), Count::AtMost(5));
        assert_eq!(of(&[Count::AtMost(2), Count::Unknown, Count::Exact(1)]), Count::Unknown);
    }
}
