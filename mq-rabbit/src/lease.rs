//! Who owns a partition of a group, and how far the group has read: pure, time and channels passed in.
//!
//! For each partition of each group there is one small queue with a single active consumer. Who is active there may
//! claim the partition; the newest commit in the queue is the group's offset. Records are compared by epoch and
//! sequence, never by their order of arrival: after a change of owner an older record can come behind a newer one.

use std::fmt;

use mq_core::Timestamp;
use mq_core::driver::Start;

/// Where a group goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At the first message that is kept.
    First,
    /// At the first message of this time or later.
    Time(u64),
    /// At this offset.
    Offset(u64),
}

impl Place {
    pub(crate) fn start(self) -> Start {
        match self {
            Self::First => Start::Earliest,
            Self::Time(millis) => Start::At(Timestamp::from_millis(millis)),
            Self::Offset(offset) => Start::Offset(offset),
        }
    }
}

/// One record of the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// Somebody joined: an empty queue would tell nobody that it is the active one.
    Probe,
    /// Somebody takes the partition.
    Claim { epoch: u64, owner: String },
    /// All before this place is acknowledged.
    Commit { epoch: u64, owner: String, seq: u64, place: Place, born: u64 },
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Probe => write!(f, "probe"),
            Self::Claim { epoch, owner } => write!(f, "claim {epoch} {owner}"),
            Self::Commit { epoch, owner, seq, place, born } => {
                let place = match place {
                    Place::First => "first".to_owned(),
                    Place::Time(millis) => format!("time:{millis}"),
                    Place::Offset(offset) => format!("offset:{offset}"),
                };
                write!(f, "commit {epoch} {owner} {seq} {place} {born}")
            }
        }
    }
}

impl Record {
    pub(crate) fn parse(data: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(data).ok()?.split(' ');
        let record = match words.next()? {
            "probe" => Self::Probe,
            "claim" => Self::Claim { epoch: words.next()?.parse().ok()?, owner: words.next()?.to_owned() },
            "commit" => Self::Commit {
                epoch: words.next()?.parse().ok()?,
                owner: words.next()?.to_owned(),
                seq: words.next()?.parse().ok()?,
                place: match words.next()?.split_once(':') {
                    None => Place::First,
                    Some(("time", millis)) => Place::Time(millis.parse().ok()?),
                    Some((_, offset)) => Place::Offset(offset.parse().ok()?),
                },
                born: words.next()?.parse().ok()?,
            },
            _ => return None,
        };
        Some(record)
    }
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Acknowledge this delivery: its record is replaced or counts nothing.
    Ack(u64),
    /// The queue offers the partition: claim it, or pass it on by closing the channel.
    Offered,
    /// Publish a claim: the one before was beaten.
    Claim(Record),
    /// The claim has come back: all that was in the queue has been seen.
    Claimed,
    /// Our commit of this number has come back: it counts.
    Committed(u64),
    /// Another one owns it: close the channel and get in line again.
    Lost,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Claiming,
    Owning,
}

/// One member's view of one partition, for the life of one channel.
#[derive(Debug)]
pub(crate) struct Lease {
    /// Fresh for each subscription.
    me: String,
    born: u64,
    phase: Phase,
    /// Epoch, owner and sequence of the newest record.
    newest: (u64, String, u64),
    commit: Option<(u64, Place)>,
    claim: Option<u64>,
    probe: Option<u64>,
    epoch: u64,
    seq: u64,
}

impl Lease {
    pub(crate) fn new(me: String, born: u64) -> Self {
        Self {
            me,
            born,
            phase: Phase::Waiting,
            newest: (0, String::new(), 0),
            commit: None,
            claim: None,
            probe: None,
            epoch: 0,
            seq: 0,
        }
    }

    /// A record was delivered.
    pub(crate) fn record(&mut self, tag: u64, record: Option<Record>) -> Vec<Act> {
        let mut acts = Vec::new();
        match record {
            // Not ours: whatever it is, it does not count.
            None => acts.push(Act::Ack(tag)),
            Some(Record::Probe) => self.probe(tag, &mut acts),
            Some(Record::Claim { epoch, owner }) => self.claimed(tag, epoch, owner, &mut acts),
            Some(Record::Commit { epoch, owner, seq, place, born }) => {
                self.committed(tag, (epoch, owner, seq), place, born, &mut acts);
            }
        }
        if self.phase == Phase::Waiting {
            acts.push(Act::Offered);
        }
        acts
    }

    fn probe(&mut self, tag: u64, acts: &mut Vec<Act>) {
        if self.commit.is_some() || self.claim.is_some() {
            acts.push(Act::Ack(tag));
        } else {
            acts.extend(self.probe.replace(tag).map(Act::Ack));
        }
    }

    fn claimed(&mut self, tag: u64, epoch: u64, owner: String, acts: &mut Vec<Act>) {
        let (mine, counts) = (owner == self.me && epoch == self.epoch, epoch > self.newest.0);
        if counts {
            self.newest = (epoch, owner, 0);
            acts.extend(self.claim.replace(tag).map(Act::Ack));
            acts.extend(self.probe.take().map(Act::Ack));
        } else {
            acts.push(Act::Ack(tag));
        }
        match self.phase {
            Phase::Claiming if mine && counts => {
                self.phase = Phase::Owning;
                acts.push(Act::Claimed);
            }
            Phase::Claiming if mine => acts.push(Act::Claim(self.claim())),
            Phase::Owning if counts && !mine => acts.push(Act::Lost),
            _ => {}
        }
    }

    fn committed(&mut self, tag: u64, by: (u64, String, u64), place: Place, born: u64, acts: &mut Vec<Act>) {
        let newest = &self.newest;
        let counts = by.0 > newest.0 || (by.0 == newest.0 && by.1 == newest.1 && by.2 > newest.2);
        if !counts || born != self.born {
            acts.push(Act::Ack(tag));
            return;
        }
        let (mine, seq) = (by.0 == self.epoch && by.1 == self.me, by.2);
        self.newest = by;
        acts.extend(self.commit.replace((tag, place)).map(|(old, _)| Act::Ack(old)));
        acts.extend(self.claim.take().map(Act::Ack));
        acts.extend(self.probe.take().map(Act::Ack));
        if self.phase == Phase::Owning {
            acts.push(if mine { Act::Committed(seq) } else { Act::Lost });
        }
    }

    /// The claim to publish.
    pub(crate) fn claim(&mut self) -> Record {
        self.phase = Phase::Claiming;
        self.epoch = self.newest.0 + 1;
        Record::Claim { epoch: self.epoch, owner: self.me.clone() }
    }

    /// Where the group goes on, if anything is stored.
    pub(crate) fn place(&self) -> Option<Place> {
        self.commit.map(|(_, place)| place)
    }

    /// A commit to publish, and its number. For an owner.
    pub(crate) fn commit(&mut self, place: Place) -> (u64, Record) {
        self.seq += 1;
        let (epoch, owner, seq, born) = (self.epoch, self.me.clone(), self.seq, self.born);
        (seq, Record::Commit { epoch, owner, seq, place, born })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(epoch: u64, owner: &str, seq: u64, offset: u64) -> Option<Record> {
        let place = Place::Offset(offset);
        Some(Record::Commit { epoch, owner: owner.into(), seq, place, born: 7 })
    }

    fn claim(epoch: u64, owner: &str) -> Option<Record> {
        Some(Record::Claim { epoch, owner: owner.into() })
    }

    fn lease() -> Lease {
        Lease::new("me".into(), 7)
    }

    #[test]
    fn records_round_trip() {
        for place in [Place::First, Place::Time(5), Place::Offset(9)] {
            let record = Record::Commit { epoch: 1, owner: "o".into(), seq: 2, place, born: 3 };
            assert_eq!(Record::parse(record.to_string().as_bytes()), Some(record));
        }
        assert_eq!(Record::parse(b"claim 4 o"), claim(4, "o"));
        for odd in [&b""[..], b"claim", b"claim x o", b"commit 1 o 2 offset:x 3", b"\xff", b"other"] {
            assert_eq!(Record::parse(odd), None);
        }
    }

    #[test]
    fn a_first_owner_claims_and_commits() {
        let mut l = lease();
        assert_eq!(l.record(1, Some(Record::Probe)), [Act::Offered]);
        let mine = l.claim();
        assert_eq!(l.record(2, Some(mine)), [Act::Ack(1), Act::Claimed]);
        assert_eq!(l.place(), None);
        let (seq, first) = l.commit(Place::First);
        assert_eq!(l.record(3, Some(first)), [Act::Ack(2), Act::Committed(seq)]);
        assert_eq!(l.place(), Some(Place::First));
    }

    #[test]
    fn an_older_record_behind_a_newer_one_counts_nothing() {
        let mut l = lease();
        l.record(1, commit(3, "a", 9, 90));
        assert_eq!(l.record(2, commit(3, "a", 8, 80)), [Act::Ack(2), Act::Offered]);
        assert_eq!(l.record(3, commit(2, "b", 99, 99)), [Act::Ack(3), Act::Offered]);
        assert_eq!(l.place(), Some(Place::Offset(90)));
        // Another owner of the same epoch never counts either.
        assert_eq!(l.record(4, commit(3, "b", 10, 100)), [Act::Ack(4), Act::Offered]);
    }

    #[test]
    fn a_beaten_claim_is_made_again() {
        let mut l = lease();
        l.record(1, commit(1, "a", 1, 10));
        let mine = l.claim();
        assert_eq!(l.record(2, claim(2, "b")), []);
        let acts = l.record(3, Some(mine));
        assert_eq!(acts, [Act::Ack(3), Act::Claim(claim(3, "me").unwrap())]);
        assert_eq!(l.record(4, claim(3, "me")), [Act::Ack(2), Act::Claimed]);
    }

    #[test]
    fn an_owner_yields_to_a_higher_epoch_and_its_late_commits_do_not_count() {
        let mut old = lease();
        old.record(1, Some(Record::Probe));
        let mine = old.claim();
        old.record(2, Some(mine));
        let (_, late) = old.commit(Place::Offset(5));
        assert_eq!(old.record(3, claim(2, "b")), [Act::Ack(2), Act::Lost]);
        let mut new = Lease::new("b".into(), 7);
        new.record(1, claim(1, "me"));
        new.claim();
        new.record(2, claim(2, "b"));
        assert_eq!(new.record(3, Some(late)), [Act::Ack(3)]);
    }

    #[test]
    fn an_offset_of_a_deleted_namesake_means_nothing() {
        let mut l = Lease::new("me".into(), 8);
        assert_eq!(l.record(1, commit(5, "a", 1, 10)), [Act::Ack(1), Act::Offered]);
        assert_eq!(l.place(), None);
    }

    #[test]
    fn the_newest_probe_stays_until_there_is_more() {
        let mut l = lease();
        assert_eq!(l.record(1, Some(Record::Probe)), [Act::Offered]);
        assert_eq!(l.record(2, Some(Record::Probe)), [Act::Ack(1), Act::Offered]);
        assert_eq!(l.record(3, commit(1, "a", 1, 1)), [Act::Ack(2), Act::Offered]);
        assert_eq!(l.record(4, Some(Record::Probe)), [Act::Ack(4), Act::Offered]);
    }
}
