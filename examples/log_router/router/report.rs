//! What came where, and how fast.

use std::fmt;
use std::time::{Duration, Instant};

use super::collect::Received;
use super::publish::Published;
use super::routes::Route;
use crate::common::Failed;

/// What a queue received.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    pub(crate) queue: &'static str,
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
    pub(crate) repeats: u64,
    exchange: &'static str,
    bound_by: String,
    took: Duration,
    all: bool,
}

/// What the whole run did.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) queues: Vec<Counted>,
    pub(crate) sent: Published,
    pub(crate) written: bool,
    publishing: Duration,
}

impl Report {
    pub(crate) fn new(
        sent: Published,
        begun: Instant,
        publishing: Duration,
        routes: &[Route],
        received: &[Received],
    ) -> Self {
        let counted = |(route, received): (&Route, &Received)| Counted {
            queue: route.queue,
            lines: received.lines,
            bytes: received.bytes,
            repeats: received.repeats,
            exchange: route.exchange,
            bound_by: route.bound_by(),
            took: received.last.map_or(Duration::ZERO, |last| last - begun),
            all: route.all,
        };
        let queues = routes.iter().zip(received).map(counted).collect();
        Self { queues, sent, written: false, publishing }
    }

    /// Queues that must have every line have it, every byte of it.
    pub(crate) fn check(&self) -> Result<(), Failed> {
        let wrong =
            self.queues.iter().find(|q| q.all && (q.lines, q.bytes) != (self.sent.lines, self.sent.bytes));
        wrong.map_or(Ok(()), |q| {
            let (sent, queue) = (self.sent, q.queue);
            let text = format!(
                "`{queue}` received {} lines, {} bytes of {}, {}",
                q.lines, q.bytes, sent.lines, sent.bytes
            );
            Err(text.into())
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Published { lines, bytes, unrouted } = self.sent;
        let took = self.publishing;
        let rate = rate(lines, took);
        writeln!(f, "published {lines} lines, {bytes} bytes, to 3 exchanges in {took:.2?} ({rate} lines/s)")?;
        writeln!(f, "matched no binding of their exchange: {unrouted}\n")?;
        let head = ["QUEUE", "EXCHANGE", "BOUND BY", "LINES", "BYTES", "LINES/S", "REPEATS"];
        let [queue, exchange, bound, lines, bytes, speed, repeats] = head;
        writeln!(f, "{queue:<20} {exchange:<9} {bound:<28} {lines:>8} {bytes:>11} {speed:>9} {repeats:>8}")?;
        for q in &self.queues {
            let Counted { queue, lines, bytes, repeats, exchange, bound_by: bound, took, .. } = q;
            let speed = self::rate(*lines, *took);
            writeln!(
                f,
                "{queue:<20} {exchange:<9} {bound:<28} {lines:>8} {bytes:>11} {speed:>9} {repeats:>8}"
            )?;
        }
        Ok(())
    }
}

fn rate(lines: u64, took: Duration) -> u128 {
    u128::from(lines) * 1_000_000 / took.as_micros().max(1)
}
