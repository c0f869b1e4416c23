//! The history checker, checked: every kind of planted anomaly is found, and no clean history is accused.

mod planted;
mod planted_topic;
mod sim;

use mq_conformance::history::{
    Allowed, AnomalyKind, Deletion, Delivery, End, History, Settled, Shift, Span, check,
};

#[test]
fn clean_histories_are_accused_of_nothing() {
    let mut explained = 0;
    let mut faults = 0;
    for seed in 0..1000 {
        let history = sim::run(seed);
        let verdict = check(&history, &sim::allowed());
        assert!(verdict.is_clean(), "seed {seed}: {verdict}");
        explained += verdict.summary.explained;
        faults += history.faults.len();
        assert!(verdict.summary.delivered > 0, "seed {seed} did nothing");
    }
    assert!(explained > 1000 && faults > 1000, "the histories have {explained} duplicates, {faults} faults");
}

/// A connection dies while consumer 0 has a message in its buffer: consumer 1 gets it and handles it, then consumer 0
/// hands out what is void, cannot settle it, and goes away.
#[test]
fn a_void_delivery_of_a_handled_message_is_no_loss() {
    let mut void = planted::got(1, 30);
    (void.settled, void.durable) = (None, None);
    let mut handled = planted::got(1, 20);
    handled.consumer = 1;
    let mut history = planted::history(vec![planted::sent(1, 0)], vec![handled, void.clone()]);
    history.faults.push(planted::fault(10, 40));
    history.shifts.push(Shift { at: planted::ms(50), consumer: Some(0), seek: false });
    let verdict = check(&history, &Allowed::default());
    assert!(verdict.is_clean(), "{verdict}");
    history.deliveries = vec![void];
    assert!(!check(&history, &Allowed::default()).is_clean(), "nobody has handled it");
}

#[test]
fn the_same_seed_gives_the_same_history_and_verdict() {
    for seed in [1, 7, 99] {
        assert_eq!(sim::run(seed), sim::run(seed));
    }
}

/// Kinds of mutations of clean histories, each with what it must be found as.
#[test]
fn anomalies_planted_into_random_histories_are_found() {
    for (name, kind, plant) in planted::MUTATIONS {
        let mut planted = 0;
        for seed in 0..200 {
            let mut history = sim::run(seed);
            if !plant(&mut history) {
                continue;
            }
            planted += 1;
            let verdict = check(&history, &sim::allowed());
            assert!(verdict.count(*kind) > 0, "{name}, seed {seed}: not found; {verdict}");
        }
        assert!(planted >= 3, "{name} was planted only {planted} times");
    }
}

#[test]
fn each_kind_has_three_plantings_by_hand_and_each_is_found() {
    let all: Vec<_> = planted::BY_HAND.iter().chain(planted_topic::BY_HAND).collect();
    for kind in AnomalyKind::ALL {
        let plantings = all.iter().filter(|(_, k, _)| *k == kind).count();
        assert!(plantings >= 3, "{kind:?} has only {plantings} plantings");
    }
    for (name, kind, build) in all {
        let verdict = check(&build(), &Allowed::default());
        assert!(verdict.count(*kind) > 0, "{name}: {kind:?} not found; {verdict}");
        let others = verdict.anomalies.iter().filter(|a| a.kind != *kind).count();
        assert_eq!(others, 0, "{name}: accused of more than was planted: {verdict}");
    }
}

#[test]
fn what_was_open_at_a_fault_is_told() {
    let told: usize = (0..50)
        .map(|seed| {
            let h: History = sim::run(seed);
            h.faults
                .iter()
                .map(|f| h.at_fault(f, mq_core::defaults::ACK_BOUND_TIME))
                .map(|a| a.unconfirmed + a.held + a.undurable)
                .sum::<usize>()
        })
        .sum();
    assert!(told > 50, "{told}");
}

#[test]
fn a_give_back_that_failed_in_a_fault_may_have_stored_its_copy() {
    let failed = Delivery::new(0, 0, 1, planted::ms(10)).copied(Span::done(
        planted::ms(11),
        planted::ms(40),
        End::Unknown,
    ));
    let all = vec![failed, planted::got(1, 150), planted::got(1, 160)];
    let mut history = planted::history(vec![planted::sent(1, 0)], all);
    history.faults.push(planted::fault(20, 100));
    let verdict = check(&history, &Allowed::default());
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!((verdict.summary.excuses.open_at_fault, verdict.summary.excuses.resent), (1, 1));
}

/// A queue is deleted and made again between 100 and 200.
#[test]
fn what_was_in_a_deleted_queue_is_no_loss_and_what_came_after_it_is() {
    let back =
        |value, at| Delivery::new(0, 0, value, planted::ms(at)).settle(Settled::Back, planted::ms(at), None);
    let sends = vec![planted::sent(1, 0), planted::sent(2, 150), planted::sent(3, 10), planted::sent(4, 201)];
    let deliveries = vec![back(3, 90), planted::got(4, 210)];
    let mut history = planted::history(sends, deliveries);
    let deletion = Deletion { place: 0, from: planted::ms(100), to: Some(planted::ms(200)) };
    history.deletions.push(deletion);
    history.faults.push(planted::fault(100, 220));
    let verdict = check(&history, &Allowed::default());
    assert!(verdict.is_clean(), "{verdict}");
    let lost = |change: fn(&mut History)| {
        let mut changed = history.clone();
        change(&mut changed);
        check(&changed, &Allowed::default()).count(AnomalyKind::Lost)
    };
    assert_eq!(lost(|h| h.deletions.clear()), 3);
    assert_eq!(lost(|h| h.deliveries.truncate(1)), 1, "it was sent to the queue that is there now");
    assert_eq!(lost(|h| h.deliveries[0].settled = Some((Settled::Back, planted::ms(201)))), 1);
    assert_eq!(lost(|h| h.deletions[0].place = 2), 3, "it was another queue");
    let left = |value| Delivery::new(0, 0, value, planted::ms(210));
    history.shifts.push(Shift { at: planted::ms(220), consumer: Some(0), seek: false });
    history.deliveries.push(left(1));
    let verdict = check(&history, &Allowed::default());
    assert!(verdict.is_clean(), "what was void in a buffer: {verdict}");
    history.deliveries[1] = left(4);
    assert_eq!(check(&history, &Allowed::default()).count(AnomalyKind::Lost), 1, "it was in the new queue");
}

/// The copy was stored, its confirm was lost, it was sent again and stored again; then the ack failed, and the
/// original came, too.
#[test]
fn a_give_back_that_failed_in_a_fault_may_have_stored_its_copy_twice() {
    let call = Span::done(planted::ms(11), planted::ms(40), End::Unknown);
    let failed = Delivery::new(0, 0, 1, planted::ms(10)).copied(call);
    let mut all = vec![failed, planted::got(1, 150), planted::got(1, 160), planted::got(1, 170)];
    let judge = |all: &[Delivery]| {
        let mut history = planted::history(vec![planted::sent(1, 0)], all.to_vec());
        history.faults.push(planted::fault(20, 100));
        check(&history, &Allowed::default())
    };
    let verdict = judge(&all);
    assert!(verdict.is_clean(), "{verdict}");
    all.push(planted::got(1, 180));
    assert_eq!(judge(&all).count(AnomalyKind::Duplicate), 1);
}
