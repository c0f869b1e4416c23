//! Anomalies of queues and of time, planted by hand into small histories and by mutation into random ones.

use std::time::Duration;

use mq_conformance::history::{
    AnomalyKind, Decision, Delivery, End, Fault, History, Moment, PlaceInfo, Send, Settled, Shift, Span, Tx,
};
use mq_core::Order;

pub(crate) type Planting = (&'static str, AnomalyKind, fn() -> History);

pub(crate) const fn ms(n: u64) -> Moment {
    Duration::from_millis(n)
}

/// Place 0 is a queue, 1 a topic with groups 0 and 1, 2 the queue's dead-letter queue, 3 a topic with group 0.
pub(crate) fn empty() -> History {
    let mut dlq = PlaceInfo::queue("q.dlq", Order::None);
    dlq.dead_letters_of = Some(0);
    History {
        places: vec![
            PlaceInfo::queue("q", Order::Queue),
            PlaceInfo::topic("t", [0, 1]),
            dlq,
            PlaceInfo::topic("u", [0]),
        ],
        ..History::default()
    }
}

/// Sent to the queue at this time and confirmed 5 ms later.
pub(crate) fn sent(value: u64, at: u64) -> Send {
    Send::new(0, 0, value, ms(at)).ended(ms(at + 5), End::Ok)
}

/// Delivered from the queue to consumer 0 at this time, acknowledged 1 ms later, durable 5 ms later.
pub(crate) fn got(value: u64, at: u64) -> Delivery {
    Delivery::new(0, 0, value, ms(at)).settle(Settled::Ack, ms(at + 1), Some(ms(at + 5)))
}

pub(crate) fn history(sends: Vec<Send>, deliveries: Vec<Delivery>) -> History {
    History { sends, deliveries, ..empty() }
}

pub(crate) fn fault(from: u64, to: u64) -> Fault {
    Fault { label: "kill".into(), from: ms(from), to: Some(ms(to)) }
}

pub(crate) fn tx(decision: Decision, from: u64, end: End) -> Tx {
    Tx { decision, span: Span::done(ms(from), ms(from + 5), end) }
}

/// Two sends in one transaction, and what was delivered of them.
fn transaction(tx: Tx, deliveries: Vec<Delivery>) -> History {
    let mut h = history(vec![sent(1, 0).within(0), sent(2, 1).within(0)], deliveries);
    h.transactions.push(tx);
    h
}

fn due(mut send: Send, at: u64) -> Send {
    send.due = Some(ms(at));
    send
}

fn expires(mut send: Send, at: u64) -> Send {
    send.expires = Some(ms(at));
    send
}

use AnomalyKind as K;

pub(crate) const BY_HAND: &[Planting] = &[
    ("confirmed, never delivered", K::Lost, || history(vec![sent(1, 0), sent(2, 10)], vec![got(2, 20)])),
    ("given back, never again", K::Lost, || {
        let d = Delivery::new(0, 0, 1, ms(10)).settle(Settled::Back, ms(12), None);
        history(vec![sent(1, 0)], vec![d])
    }),
    ("dead-lettered into nothing", K::Lost, || {
        let d = Delivery::new(0, 0, 1, ms(10)).settle(Settled::Dead, ms(12), None);
        history(vec![sent(1, 0)], vec![d])
    }),
    ("held by a consumer that left", K::Lost, || {
        let mut h = history(vec![sent(1, 0)], vec![Delivery::new(0, 0, 1, ms(10))]);
        h.shifts.push(Shift { at: ms(20), consumer: Some(0), seek: false });
        h
    }),
    ("acknowledged by a transaction that was rolled back", K::Lost, || {
        let mut h = history(vec![sent(1, 0)], vec![Delivery::new(0, 0, 1, ms(10)).within(0)]);
        h.transactions.push(tx(Decision::Rollback, 20, End::Ok));
        h
    }),
    ("lost in a fault although confirmed before it", K::Lost, || {
        let mut h = history(vec![sent(1, 0), sent(2, 100)], vec![got(2, 120)]);
        h.faults.push(fault(50, 90));
        h
    }),
    ("twice in a row", K::Duplicate, || history(vec![sent(1, 0)], vec![got(1, 10), got(1, 50)])),
    ("three times, one excuse", K::Duplicate, || {
        let first = Delivery::new(0, 0, 1, ms(10)).settle(Settled::Back, ms(12), None);
        history(vec![sent(1, 0)], vec![first, got(1, 30), got(1, 60)])
    }),
    ("a fault long after the ack was durable", K::Duplicate, || {
        let mut h = history(vec![sent(1, 0)], vec![got(1, 10), got(1, 3000)]);
        h.faults.push(fault(2000, 2500));
        h
    }),
    ("a fault before the send", K::Duplicate, || {
        let mut h = history(vec![sent(1, 100)], vec![got(1, 110), got(1, 150)]);
        h.faults.push(fault(10, 50));
        h
    }),
    ("a failed give-back without a fault, copied and come again", K::Duplicate, || {
        let failed = Delivery::new(0, 0, 1, ms(10)).copied(Span::done(ms(11), ms(40), End::Unknown));
        history(vec![sent(1, 0)], vec![failed, got(1, 50), got(1, 60)])
    }),
    ("one fault excuses a copy that was stored, and sent again, not a third one", K::Duplicate, || {
        let failed = Delivery::new(0, 0, 1, ms(10)).copied(Span::done(ms(11), ms(40), End::Unknown));
        let again = vec![failed, got(1, 150), got(1, 160), got(1, 170), got(1, 180)];
        History { faults: vec![fault(20, 100)], ..history(vec![sent(1, 0)], again) }
    }),
    ("two faults excuse two, not three", K::Duplicate, || {
        let mut h = history(vec![sent(1, 0)], vec![got(1, 100), got(1, 200), got(1, 300)]);
        h.sends[0].span = Span::done(ms(0), ms(50), End::Ok);
        h.faults = vec![fault(20, 30)];
        h
    }),
    ("two in the wrong order", K::Reordered, || {
        history(vec![sent(1, 0), sent(2, 10)], vec![got(2, 20), got(1, 30)])
    }),
    ("the last of three first", K::Reordered, || {
        history(vec![sent(1, 0), sent(2, 10), sent(3, 20)], vec![got(3, 30), got(1, 31), got(2, 32)])
    }),
    ("a fault before both is no excuse", K::Reordered, || {
        let mut h = history(vec![sent(1, 50), sent(2, 60)], vec![got(2, 70), got(1, 80)]);
        h.faults.push(fault(10, 40));
        h
    }),
    ("rolled back and seen", K::AbortedSeen, || {
        transaction(tx(Decision::Rollback, 20, End::Ok), vec![got(1, 40)])
    }),
    ("dropped and seen", K::AbortedSeen, || {
        transaction(Tx { decision: Decision::None, span: Span::open(Moment::MAX) }, vec![got(1, 40)])
    }),
    ("aborted commit and seen", K::AbortedSeen, || {
        transaction(tx(Decision::Commit, 20, End::Failed), vec![got(1, 40), got(2, 41)])
    }),
    ("a send that failed and was seen", K::AbortedSeen, || {
        history(vec![Send::new(0, 0, 1, ms(0)).ended(ms(5), End::Failed)], vec![got(1, 10)])
    }),
    ("seen before the commit", K::PrematureRead, || {
        transaction(tx(Decision::Commit, 20, End::Ok), vec![got(1, 10), got(2, 30)])
    }),
    ("seen before a commit of unknown outcome", K::PrematureRead, || {
        transaction(tx(Decision::Commit, 20, End::Unknown), vec![got(1, 10), got(2, 30)])
    }),
    ("all of it seen before the commit", K::PrematureRead, || {
        transaction(tx(Decision::Commit, 90, End::Ok), vec![got(1, 10), got(2, 30)])
    }),
    ("nobody sent it", K::Phantom, || history(vec![sent(1, 0)], vec![got(1, 10), got(77, 20)])),
    ("nobody sent anything", K::Phantom, || history(vec![], vec![got(5, 20)])),
    ("from a place it was not sent to", K::Phantom, || {
        let mut wrong = got(1, 30);
        wrong.place = 3;
        wrong.group = Some(0);
        history(vec![sent(1, 0)], vec![got(1, 10), wrong])
    }),
    ("a queue is not empty after the drain", K::Unseen, || {
        let mut h = history(vec![sent(1, 0)], vec![got(1, 10)]);
        h.places[0].left = Some(1);
        h
    }),
    ("half a second early", K::Early, || history(vec![due(sent(1, 0), 1000)], vec![got(1, 500)])),
    ("one millisecond early", K::Early, || history(vec![due(sent(1, 0), 1000)], vec![got(1, 999)])),
    ("early after a fault", K::Early, || {
        let mut h = history(vec![due(sent(1, 0), 1000)], vec![got(1, 700)]);
        h.faults.push(fault(100, 200));
        h
    }),
    ("expired", K::Expired, || history(vec![expires(sent(1, 0), 100)], vec![got(1, 101)])),
    ("expired long ago", K::Expired, || history(vec![expires(sent(1, 0), 100)], vec![got(1, 9000)])),
    ("expired while it was retried", K::Expired, || {
        let first = Delivery::new(0, 0, 1, ms(50)).settle(Settled::Back, ms(60), None);
        history(vec![expires(sent(1, 0), 100)], vec![first, got(1, 200)])
    }),
    ("half of a commit", K::Torn, || transaction(tx(Decision::Commit, 20, End::Ok), vec![got(1, 40)])),
    ("the other half", K::Torn, || transaction(tx(Decision::Commit, 20, End::Ok), vec![got(2, 40)])),
    ("half of a commit of unknown outcome", K::Torn, || {
        transaction(tx(Decision::Commit, 20, End::Unknown), vec![got(2, 40)])
    }),
    ("two read each other", K::Cycle, || circle(2)),
    ("three in a circle", K::Cycle, || circle(3)),
    ("five in a circle", K::Cycle, || circle(5)),
];

/// Transaction n writes value n and reads the value of the next one.
fn circle(n: usize) -> History {
    let mut h = empty();
    for i in 0..n {
        let v = i as u64;
        h.transactions.push(tx(Decision::Commit, 20, End::Ok));
        h.sends.push(sent(v, v).within(i));
        h.deliveries.push(Delivery::new(0, 0, v, ms(30 + v)).within((i + 1) % n));
    }
    h
}

/// Changes a random clean history; false if it offers no place for it.
pub(crate) type Mutation = (&'static str, AnomalyKind, fn(&mut History) -> bool);

fn plain(h: &History, d: &Delivery) -> bool {
    let send = h.sends.iter().find(|s| s.value == d.value);
    send.is_some_and(|s| s.span.end == End::Ok && s.transaction.is_none() && s.expires.is_none())
}

pub(crate) const MUTATIONS: &[Mutation] = &[
    ("a confirmed value vanishes", K::Lost, |h| {
        let Some(v) = h.deliveries.iter().find(|d| d.group.is_none() && plain(h, d)).map(|d| d.value) else {
            return false;
        };
        h.deliveries.retain(|d| d.value != v);
        true
    }),
    ("a settled delivery comes again", K::Duplicate, |h| {
        // After everything else, when no fault can excuse it.
        let end = h.deliveries.iter().map(|d| d.at).max().unwrap_or_default();
        let Some(mut d) = h
            .deliveries
            .iter()
            .find(|d| {
                let alone = h.deliveries.iter().filter(|e| e.value == d.value).count() == 1;
                alone && d.group.is_none() && plain(h, d) && d.durable.is_some() && unharmed(h, d)
            })
            .cloned()
        else {
            return false;
        };
        d.at = end + ms(1);
        h.deliveries.push(d);
        true
    }),
    ("an unknown value appears", K::Phantom, |h| {
        let Some(mut d) = h.deliveries.first().cloned() else { return false };
        d.value = u64::MAX;
        h.deliveries.push(d);
        true
    }),
    ("a rolled-back value appears", K::AbortedSeen, |h| {
        let rolled =
            |s: &&Send| s.transaction.is_some_and(|t| h.transactions[t].decision == Decision::Rollback);
        let Some(s) = h.sends.iter().find(rolled).cloned() else { return false };
        h.deliveries.push(Delivery::new(0, s.place, s.value, ms(10_000_000)));
        true
    }),
    ("part of a commit vanishes", K::Torn, |h| {
        let in_tx = |s: &&Send| {
            s.transaction.is_some_and(|t| {
                h.transactions[t].decision == Decision::Commit
                    && h.deliveries.iter().any(|d| d.value == s.value)
                    && h.sends.iter().filter(|o| o.transaction == Some(t)).count() > 1
            })
        };
        let Some(v) = h.sends.iter().find(in_tx).map(|s| s.value) else { return false };
        h.deliveries.retain(|d| d.value != v);
        true
    }),
    ("a delayed value comes early", K::Early, |h| {
        let Some((v, due)) = h.sends.iter().find_map(|s| Some((s.value, s.due?))) else { return false };
        let Some(d) = h.deliveries.iter_mut().find(|d| d.value == v) else { return false };
        d.at = due - ms(1);
        true
    }),
    ("two offsets are swapped for one reader", K::InconsistentOffset, |h| {
        let Some(n) = h.deliveries.iter().position(|d| d.position.is_some()) else { return false };
        let Some(other) = h
            .deliveries
            .iter()
            .find(|d| {
                d.position.is_some() && d.place == h.deliveries[n].place && d.value != h.deliveries[n].value
            })
            .and_then(|d| d.position)
        else {
            return false;
        };
        h.deliveries[n].position = Some(other);
        true
    }),
    ("a topic value is skipped by a group", K::PollSkip, skip),
];

/// Nothing happened that could excuse a second delivery.
fn unharmed(h: &History, d: &Delivery) -> bool {
    let Some(send) = h.sends.iter().find(|s| s.value == d.value) else { return false };
    let calm = |from: Moment, to: Moment| {
        !h.faults.iter().any(|f| f.from <= to && from <= f.to.unwrap_or(Moment::MAX))
            && !h.shifts.iter().any(|s| from <= s.at && s.at <= to)
    };
    let Some(durable) = d.durable else { return false };
    send.due.is_none() && calm(send.span.from, durable) && matches!(d.settled, Some((Settled::Ack, _)))
}

/// Takes the middle one of three neighbours that one consumer read in a calm time.
fn skip(h: &mut History) -> bool {
    let Some(shift) = h.shifts.iter().map(|s| s.at).chain(h.faults.iter().filter_map(|f| f.to)).max() else {
        return false;
    };
    let reads: Vec<_> =
        h.deliveries.iter().enumerate().filter(|(_, d)| d.position.is_some() && d.at > shift).collect();
    for (_, a) in &reads {
        let next = |by: u64| {
            let p = a
                .position
                .map(|p| mq_core::driver::Position { partition: p.partition, offset: p.offset + by });
            reads.iter().find(|(_, d)| {
                d.position == p && d.consumer == a.consumer && d.place == a.place && plain(h, d)
            })
        };
        let (Some((index, b)), Some(_)) = (next(1), next(2)) else { continue };
        let once =
            h.deliveries.iter().filter(|d| d.value == b.value && d.consumer == b.consumer).count() == 1;
        if once {
            h.deliveries.remove(*index);
            return true;
        }
    }
    false
}
