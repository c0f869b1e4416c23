//! The text beside a committed offset: what is acknowledged beyond it, and whether its owner left in order.

use std::ops::Range;

use mq_core::protocol::acked::{Acked, DEFAULT_BUDGET};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};

use super::track::Snapshot;
use crate::quiet::caught;

/// A stored offset and what its text says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) base: i64,
    /// What is acknowledged beyond the base, ascending.
    pub(crate) ahead: Vec<Range<i64>>,
    pub(crate) deaths: Deaths,
    /// Its owner has not left in order: it lives, or it died.
    pub(crate) open: bool,
    /// Creation id of the topic that it was stored for; 0 if that is not known.
    pub(crate) creation: u64,
}

impl Place {
    /// False if it was stored for another topic, which had this name before: the last commit of a consumer may come
    /// after its queue was deleted and made again, and would skip what the new one holds.
    pub(crate) fn is_of(&self, creation: u64) -> bool {
        self.creation == creation || self.creation == 0 || creation == 0
    }
}

/// Deaths of consumers that held messages, as steps: offsets below the end have seen so many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deaths(Vec<(u64, u32)>);

impl Deaths {
    /// How many an offset has seen.
    pub(super) fn of(&self, offset: i64) -> u32 {
        let at = self.0.partition_point(|(end, _)| i64::try_from(*end).is_ok_and(|end| end <= offset));
        self.0.get(at).map_or(0, |(_, count)| *count)
    }

    /// One more for everything below `end`.
    pub(super) fn add(&mut self, end: i64) {
        let end = unsigned(end);
        let at = self.0.partition_point(|(other, _)| *other < end);
        if self.0.get(at).is_none_or(|(other, _)| *other != end) {
            let count = self.0.get(at).map_or(0, |(_, count)| *count);
            self.0.insert(at, (end, count));
        }
        self.0[..=at].iter_mut().for_each(|(_, count)| *count = count.saturating_add(1));
    }
}

/// What is stored for a partition.
pub(crate) type Entry = (Snapshot, Deaths);

#[allow(clippy::cast_sign_loss)]
fn unsigned(offset: i64) -> u64 {
    offset.max(0) as u64
}

fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

/// The text for a snapshot. What does not fit is left out from the far end: it costs a redelivery, no message.
/// The broker refuses a text that is too long without a word on some paths, so the budget is kept here.
pub(crate) fn encode(snapshot: &Snapshot, deaths: &Deaths, open: bool, creation: u64) -> String {
    map(snapshot, deaths, open, creation).encode(DEFAULT_BUDGET).text
}

/// What is left of a snapshot in its text.
pub(super) fn kept(snapshot: &Snapshot, deaths: &Deaths, open: bool, creation: u64) -> Vec<Range<i64>> {
    decode(snapshot.base, &encode(snapshot, deaths, open, creation)).ahead
}

/// Every ack below this offset is in the text for a snapshot.
pub(super) fn covers(snapshot: &Snapshot, deaths: &Deaths) -> i64 {
    if snapshot.ahead.len() <= FEW {
        return i64::MAX;
    }
    signed(map(snapshot, deaths, true, u64::MAX).encode(DEFAULT_BUDGET).covers)
}

/// Runs that fit in any case.
const FEW: usize = 256;

/// True if the text for a snapshot leaves nothing out.
pub(super) fn fits(snapshot: &Snapshot, deaths: &Deaths) -> bool {
    fits_in(DEFAULT_BUDGET, snapshot, deaths)
}

/// As [`fits`], with room to spare for what arrives before the next commit.
pub(super) fn fits_well(snapshot: &Snapshot, deaths: &Deaths) -> bool {
    fits_in(DEFAULT_BUDGET / 4 * 3, snapshot, deaths)
}

fn fits_in(budget: usize, snapshot: &Snapshot, deaths: &Deaths) -> bool {
    let Some(last) = snapshot.ahead.last() else { return true };
    // The longest creation id: it must fit whatever it is.
    let covers = || map(snapshot, deaths, true, u64::MAX).encode(budget).covers;
    snapshot.ahead.len() <= FEW || covers() >= unsigned(last.end)
}

fn map(snapshot: &Snapshot, deaths: &Deaths, open: bool, creation: u64) -> Acked {
    let mut map = Acked::new(unsigned(snapshot.base), creation);
    map.runs = snapshot.ahead.iter().map(|r| unsigned(r.start)..unsigned(r.end)).collect();
    map.deaths.clone_from(&deaths.0);
    map.open = open;
    map
}

/// What a text says, if it belongs to this offset; anything else says nothing.
fn decode(base: i64, text: &str) -> Place {
    let found = Acked::decode(text, unsigned(base)).unwrap_or_default();
    Place {
        base,
        ahead: found.runs.iter().map(|r| signed(r.start)..signed(r.end)).collect(),
        deaths: Deaths(found.deaths),
        open: found.open,
        creation: found.creation,
    }
}

/// The stored position of an element, `None` where nothing is stored; its text may come from any program, and the
/// client panics if it is not UTF-8.
///
/// # Errors
/// The broker did not tell this one, though it told of others: to take that for nothing stored would read all of the
/// partition again.
pub(crate) fn position(element: &TopicPartitionListElem<'_>) -> KafkaResult<Option<Place>> {
    element.error()?;
    let Offset::Offset(base) = element.offset() else { return Ok(None) };
    let text = caught(|| element.metadata().to_owned());
    Ok(Some(decode(base, &text.unwrap_or_default())))
}

/// The stored positions of all elements, by partition.
///
/// # Errors
/// As [`position`].
pub(crate) fn positions(found: &TopicPartitionList) -> KafkaResult<Vec<(i32, Option<Place>)>> {
    found.elements().iter().map(|e| Ok((e.partition(), position(e)?))).collect()
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use std::time::Duration;

    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::mocking::MockCluster;

    use super::*;

    #[test]
    fn round_trip_and_budget() {
        let s = Snapshot { base: 7, ahead: vec![8..9, 12..20] };
        let mut deaths = Deaths::default();
        deaths.add(12);
        let text = encode(&s, &deaths, true, 5);
        let place = decode(7, &text);
        assert_eq!((&place.ahead, &place.deaths, place.open), (&s.ahead, &deaths, true));
        assert!(place.is_of(5) && place.is_of(0) && !place.is_of(6));
        let other = decode(8, &text);
        assert!(other.ahead.is_empty() && !other.open, "a reset by hand carries no map");
        assert!(other.is_of(6), "a reset by hand counts for whatever is there");
        let long = Snapshot { base: 0, ahead: (1..9000).map(|i| i * 9..i * 9 + 1).collect() };
        let text = encode(&long, &deaths, false, 0);
        assert!(text.len() <= DEFAULT_BUDGET && text.is_ascii());
        let kept = decode(0, &text).ahead;
        assert!(!kept.is_empty() && long.ahead.starts_with(&kept));
    }

    /// A broker may answer for some partitions alone: read as nothing stored, all of the others would come again.
    #[test]
    fn what_the_broker_does_not_tell_is_not_taken_for_nothing_stored() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("t", 1, 1).unwrap();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", mock.bootstrap_servers()).set("group.id", "g");
        let client: BaseConsumer = config.create().unwrap();
        let ask = |partitions: &[i32]| {
            let mut asked = TopicPartitionList::new();
            for partition in partitions {
                asked.add_partition("t", *partition);
            }
            let found = client.committed_offsets(asked, Duration::from_secs(10)).unwrap();
            positions(&found)
        };
        assert!(matches!(ask(&[0]).unwrap()[..], [(0, None)]));
        // The broker knows nothing of the second one and says so for that one alone.
        assert!(ask(&[0, 7]).is_err());
    }

    /// T7: the native client panics on the text of such a commit, which any program may have made.
    #[test]
    fn a_text_that_is_not_utf8_says_nothing_and_ends_nobody() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("t", 1, 1).unwrap();
        commit_raw(&mock.bootstrap_servers(), &[0xff, 0xfe]);
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", mock.bootstrap_servers()).set("group.id", "g");
        let client: BaseConsumer = config.create().unwrap();
        let mut asked = TopicPartitionList::new();
        asked.add_partition("t", 0);
        let found = client.committed_offsets(asked, Duration::from_secs(10)).unwrap();
        let places = positions(&found).unwrap();
        let place = places[0].1.as_ref().expect("the offset counts");
        assert!(place.base == 5 && place.ahead.is_empty() && !place.open);
    }

    /// Commits offset 5 of partition 0 of `t` for the group `g`, by a request of version 2: no client library writes
    /// such a text.
    fn commit_raw(address: &str, text: &[u8]) {
        use std::io::{Read as _, Write as _};

        // OffsetCommit, its version, the request's number, and a client without a name.
        let mut body = vec![0, 8, 0, 2, 0, 0, 0, 7, 0xff, 0xff];
        body.extend([0, 1, b'g']);
        // No generation, no member, kept as long as the broker likes; one topic with one partition.
        body.extend([0xff, 0xff, 0xff, 0xff, 0, 0]);
        body.extend([0xff; 8]);
        body.extend([0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0]);
        body.extend(5_i64.to_be_bytes());
        body.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
        body.extend(text);
        let mut broker = std::net::TcpStream::connect(address).unwrap();
        broker.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        broker.write_all(&u32::try_from(body.len()).unwrap().to_be_bytes()).unwrap();
        broker.write_all(&body).unwrap();
        // Length, number, topics, name, partitions, partition, error.
        let mut answer = [0; 4 + 4 + 4 + 3 + 4 + 4 + 2];
        broker.read_exact(&mut answer).unwrap();
        assert_eq!(answer[23..], [0, 0], "the commit was refused");
    }

    #[test]
    fn deaths_are_steps() {
        let mut d = Deaths::default();
        d.add(10);
        d.add(5);
        d.add(10);
        d.add(20);
        assert_eq!([d.of(0), d.of(4), d.of(5), d.of(9), d.of(10), d.of(19), d.of(20)], [4, 4, 3, 3, 1, 1, 0]);
    }
}
