//! Positions in topics: each belongs to one value, sends and polls go forward, polls leave nothing out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use mq_core::driver::Position;

use super::{AnomalyKind, Delivery, End, Fate, Judge, Place, Send, Settled};

type Log = BTreeMap<u64, u64>;
type Logs = HashMap<(Place, u32), Log>;

impl Judge<'_> {
    pub(super) fn offsets(&mut self) {
        let logs = self.logs();
        self.sends_go_forward();
        self.polls_go_forward(&logs);
    }

    fn is_topic(&self, place: Place) -> bool {
        self.history.places.get(place).is_some_and(super::super::PlaceInfo::is_topic)
    }

    /// All that is known about where values lie. Accuses two values at one offset and one value at several.
    fn logs(&mut self) -> Logs {
        let (mut logs, mut homes): (Logs, BTreeMap<(Place, u64), BTreeSet<Position>>) = Default::default();
        let mut clashes = BTreeSet::new();
        let sends = self.history.sends.iter().map(|s| (s.place, s.value, s.position));
        let seen = self.history.deliveries.iter().map(|d| (d.place, d.value, d.position));
        for (place, value, position) in sends.chain(seen) {
            let Some(at) = position.filter(|_| self.is_topic(place)) else { continue };
            homes.entry((place, value)).or_default().insert(at);
            let other = *logs.entry((place, at.partition)).or_default().entry(at.offset).or_insert(value);
            if other != value {
                clashes.insert((value.max(other), value.min(other), at));
            }
        }
        for (value, other, at) in clashes {
            let text = format!("it and value {other} both lie at {at:?}");
            self.accuse(AnomalyKind::InconsistentOffset, value, text);
        }
        for ((_, value), at) in homes {
            let allowed = 1 + self.sends.get(&value).map_or(0, |s| self.resends(s, super::Moment::MAX));
            if at.len() > allowed {
                self.accuse(AnomalyKind::DuplicateOffset, value, format!("it lies at each of {at:?}"));
            }
        }
        logs
    }

    fn sends_go_forward(&mut self) {
        let mut last: HashMap<(u32, Place, u32), &Send> = HashMap::new();
        for send in &self.history.sends {
            let Some(at) = send.position else { continue };
            let resent = self.history.faults.iter().any(|f| send.span.touches(f));
            if resent || send.span.end != End::Ok || !self.is_topic(send.place) {
                continue;
            }
            let before = last.insert((send.producer, send.place, at.partition), send);
            let Some(before) = before else { continue };
            if before.position.is_some_and(|p| p.offset >= at.offset) {
                let inside = send.transaction.is_some() && send.transaction == before.transaction;
                let kind =
                    if inside { AnomalyKind::IntNonMonotonicSend } else { AnomalyKind::NonMonotonicSend };
                // Transactions of one producer that overlap may be committed in any order.
                if inside || (send.transaction.is_none() && before.transaction.is_none()) {
                    let text = format!(
                        "it lies at {at:?}, value {} before it at {:?}",
                        before.value, before.position
                    );
                    self.accuse(kind, send.value, text);
                }
            }
        }
    }

    fn polls_go_forward(&mut self, logs: &Logs) {
        let mut last: HashMap<(u32, Place, u32), &Delivery> = HashMap::new();
        let mut given: HashSet<(u32, Place, u64)> = HashSet::new();
        for d in &self.history.deliveries {
            let Some(at) = d.position.filter(|_| self.is_topic(d.place)) else { continue };
            let again = !given.insert((d.consumer, d.place, d.value));
            if again && self.retried_here(d) {
                continue;
            }
            let Some(before) = last.insert((d.consumer, d.place, at.partition), d) else { continue };
            let from = before.position.map_or(0, |p| p.offset);
            if self.moved_between(before, d) {
                continue;
            }
            let inside = d.transaction.is_some() && d.transaction == before.transaction;
            if at.offset <= from {
                let kind =
                    if inside { AnomalyKind::IntNonMonotonicPoll } else { AnomalyKind::NonMonotonicPoll };
                let text = format!("consumer {} read {at:?} after offset {from}", d.consumer);
                self.accuse(kind, d.value, text);
                continue;
            }
            let Some(log) = logs.get(&(d.place, at.partition)) else { continue };
            let missed = log
                .range(from + 1..at.offset)
                .map(|(_, v)| *v)
                .find(|v| !given.contains(&(d.consumer, d.place, *v)) && self.must_be_polled(*v));
            if let Some(missed) = missed {
                let kind = if inside { AnomalyKind::IntPollSkip } else { AnomalyKind::PollSkip };
                let text = format!("consumer {} went from offset {from} to {}", d.consumer, at.offset);
                self.accuse(kind, missed, text);
            }
        }
    }

    /// A retry in place comes when it is due, behind whatever its key did not hold back.
    fn retried_here(&self, d: &Delivery) -> bool {
        let all = self.streams.get(&(d.place, d.group, d.value));
        all.into_iter()
            .flatten()
            .map(|i| self.delivery(*i))
            .any(|e| e.consumer == d.consumer && matches!(e.settled, Some((Settled::Back, at)) if at <= d.at))
    }

    fn moved_between(&self, before: &Delivery, d: &Delivery) -> bool {
        self.fault_between(before.at, d.at) || self.shift_between(Some(d.consumer), before.at, d.at)
    }

    fn must_be_polled(&self, value: u64) -> bool {
        self.sends
            .get(&value)
            .is_some_and(|s| self.fate(s) != Fate::Never && s.expires.is_none() && s.due.is_none())
    }
}
