//! Which publish does a returned message belong to? Pure.
//!
//! The broker sends `basic.return` before the ack of the same publish, but the client hangs each returned message
//! on whichever confirm it resolves next. So a confirm alone proves nothing. The rule: collect the sequence numbers
//! of returned messages wherever they turn up, and decide a confirm only when its own return, if there is one, must
//! have turned up already: when the confirm carries nothing (nothing was waiting then), or when a later confirm
//! carries nothing, or when nothing is outstanding.

use std::collections::{HashSet, VecDeque};

/// What became of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The broker has it, in one queue at least (or in the alternate exchange's).
    Stored,
    /// No queue took it.
    Returned,
    /// A queue refused it.
    Refused,
}

/// Confirms that were resolved, and returns that were seen.
#[derive(Debug)]
pub(crate) struct Correlation<T> {
    returned: HashSet<u64>,
    /// Confirms that carried nothing: decided at the end of the drain.
    clean: Vec<(u64, T)>,
    /// Confirms that carried another publish's return, in the order in which they were resolved.
    doubtful: VecDeque<(u64, T)>,
    /// So many of the doubtful ones were resolved before a confirm that carried nothing.
    settled: usize,
}

impl<T> Correlation<T> {
    pub(crate) fn new() -> Self {
        Self { returned: HashSet::new(), clean: Vec::new(), doubtful: VecDeque::new(), settled: 0 }
    }

    /// Takes a confirm and the sequence number of the returned message it carried.
    pub(crate) fn resolve(
        &mut self,
        seq: u64,
        acked: bool,
        carried: Option<u64>,
        item: T,
        decided: &mut Vec<(T, Outcome)>,
    ) {
        match carried {
            None => self.settled = self.doubtful.len(),
            Some(other) if other != seq => {
                self.returned.insert(other);
            }
            Some(_) => {}
        }
        match (acked, carried) {
            (false, _) => {
                self.returned.remove(&seq);
                decided.push((item, Outcome::Refused));
            }
            (true, None) => self.clean.push((seq, item)),
            (true, Some(own)) if own == seq => decided.push((item, Outcome::Returned)),
            (true, Some(_)) => self.doubtful.push_back((seq, item)),
        }
    }

    /// All confirms that are ready have been resolved. `idle` says that none is outstanding.
    pub(crate) fn drained(&mut self, idle: bool, decided: &mut Vec<(T, Outcome)>) {
        for (seq, item) in self.clean.drain(..) {
            let outcome = if self.returned.remove(&seq) { Outcome::Returned } else { Outcome::Stored };
            decided.push((item, outcome));
        }
        let settled = if idle { self.doubtful.len() } else { self.settled };
        self.settled = 0;
        if self.doubtful.is_empty() {
            return;
        }
        let mut kept = VecDeque::new();
        for (at, (seq, item)) in self.doubtful.drain(..).enumerate() {
            if self.returned.remove(&seq) {
                decided.push((item, Outcome::Returned));
            } else if at < settled {
                decided.push((item, Outcome::Stored));
            } else {
                kept.push_back((seq, item));
            }
        }
        self.doubtful = kept;
    }

    /// The channel died: what is left can't be decided any more.
    pub(crate) fn abandon(&mut self) -> impl Iterator<Item = T> + '_ {
        self.clean.drain(..).chain(self.doubtful.drain(..)).map(|(_, item)| item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Confirms as (own number, acked, carried return), in groups between drains.
    fn run(groups: &[&[(u64, bool, Option<u64>)]]) -> Vec<(u64, Outcome)> {
        let mut book = Correlation::new();
        let mut decided = Vec::new();
        for (n, group) in groups.iter().enumerate() {
            for (seq, acked, carried) in *group {
                book.resolve(*seq, *acked, *carried, *seq, &mut decided);
            }
            book.drained(n + 1 == groups.len(), &mut decided);
        }
        decided.sort_by_key(|(seq, _)| *seq);
        decided
    }

    use Outcome::{Refused, Returned, Stored};

    #[test]
    fn a_return_on_its_own_confirm() {
        assert_eq!(run(&[&[(1, true, Some(1)), (2, true, None)]]), [(1, Returned), (2, Stored)]);
    }

    #[test]
    fn a_return_on_an_earlier_confirm() {
        let all = run(&[&[(1, true, Some(2))], &[(2, true, None)]]);
        assert_eq!(all, [(1, Stored), (2, Returned)]);
    }

    #[test]
    fn returns_shifted_by_one_all_along() {
        let all = run(&[&[(1, true, Some(2)), (2, true, Some(3))], &[(3, true, Some(4)), (4, true, None)]]);
        assert_eq!(all, [(1, Stored), (2, Returned), (3, Returned), (4, Returned)]);
    }

    #[test]
    fn a_doubtful_confirm_waits_for_its_own_return() {
        let mut book = Correlation::new();
        let mut decided = Vec::new();
        book.resolve(1, true, Some(2), 1, &mut decided);
        book.drained(false, &mut decided);
        assert!(decided.is_empty(), "its own return may still be waiting: {decided:?}");
        book.resolve(3, true, Some(1), 3, &mut decided);
        book.drained(false, &mut decided);
        assert_eq!(decided, [(1, Returned)]);
        book.resolve(2, true, None, 2, &mut decided);
        book.drained(true, &mut decided);
        decided.sort_by_key(|(seq, _)| *seq);
        assert_eq!(decided, [(1, Returned), (2, Returned), (3, Stored)]);
    }

    #[test]
    fn a_refusal_is_decided_at_once_and_its_cargo_recorded() {
        let mut book = Correlation::new();
        let mut decided = Vec::new();
        book.resolve(1, false, Some(2), 1, &mut decided);
        assert_eq!(decided, [(1, Refused)]);
        book.resolve(2, true, None, 2, &mut decided);
        book.drained(false, &mut decided);
        assert_eq!(decided, [(1, Refused), (2, Returned)]);
    }
}
