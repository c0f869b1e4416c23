//! Reading what is there now, without a trace.

use mq_core::driver::{Incoming, Start, Tag};
use mq_core::{Message, Timestamp};

use super::assign::Member;
use super::log::{Log, position};

/// A reader of what the topic held when it was opened.
#[derive(Debug)]
pub(crate) struct Browser {
    /// From where to where in each partition.
    ranges: Vec<(u64, u64)>,
    seq: u64,
}

impl Browser {
    pub(crate) fn new(start: Start, logs: &[Log]) -> Self {
        Self { ranges: logs.iter().map(|l| (l.resolve(start), l.latest())).collect(), seq: 0 }
    }

    /// Reads these partitions (none: all) from there on, up to what the topic held at the open.
    pub(crate) fn seek(&mut self, start: Start, parts: &[u32], logs: &[Log]) {
        for (at, (next, end)) in self.ranges.iter_mut().enumerate() {
            if parts.is_empty() || parts.iter().any(|p| *p as usize == at) {
                *next = logs[at].resolve(start).min(*end);
            }
        }
    }

    /// The next messages, oldest first over all partitions.
    pub(crate) fn take(&mut self, member: Member, max: usize, logs: &[Log], now: Timestamp) -> Vec<Incoming> {
        let mut taken = Vec::new();
        while taken.len() < max {
            let Some((at, offset, message)) = self.oldest(logs, now) else { break };
            self.ranges[at].0 = offset + 1;
            self.seq += 1;
            let tag = Tag { consumer: member, epoch: 0, seq: self.seq };
            taken.push(Incoming::new(tag, message.clone()).at(position(at, offset)));
        }
        taken
    }

    fn oldest<'a>(&mut self, logs: &'a [Log], now: Timestamp) -> Option<(usize, u64, &'a Message)> {
        let mut oldest: Option<(Timestamp, usize)> = None;
        for (at, (next, end)) in self.ranges.iter_mut().enumerate() {
            *next = (*next).max(logs[at].earliest());
            while *next < *end && logs[at].get(*next).is_some_and(|e| e.expired(now)) {
                *next += 1;
            }
            let Some(entry) = logs[at].get(*next).filter(|_| *next < *end) else { continue };
            if oldest.is_none_or(|(stored, _)| entry.stored < stored) {
                oldest = Some((entry.stored, at));
            }
        }
        let (_, at) = oldest?;
        let next = self.ranges[at].0;
        Some((at, next, &logs[at].get(next)?.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_first_and_only_what_was_there() {
        let mut logs = [Log::default(), Log::default()];
        for (at, time) in [(0, 1), (1, 2), (1, 3), (0, 4)] {
            logs[at].append(Message::text(time.to_string()), Timestamp::from_millis(time));
        }
        let mut browser = Browser::new(Start::Earliest, &logs);
        logs[0].append(Message::text("later"), Timestamp::from_millis(9));
        let text = |b: &mut Browser, max| -> Vec<String> {
            let got = b.take(1, max, &logs, Timestamp::default());
            got.iter().map(|i| i.message.to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(text(&mut browser, 3), ["1", "2", "3"]);
        assert_eq!(text(&mut browser, 3), ["4"]);
        assert!(text(&mut browser, 3).is_empty());
        browser.seek(Start::Latest, &[0], &logs);
        browser.seek(Start::Offset(1), &[1], &logs);
        assert_eq!(text(&mut browser, 9), ["3"]);
    }
}
