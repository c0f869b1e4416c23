//! Producers and consumers in processes of their own, which are killed and replaced.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mq_core::{Error, Result};
use tokio::sync::mpsc;

use super::run::Run;
use super::work::FLYING;
use super::worker::clock;
use crate::history::{Delivery as Seen, End, Moment, Send, Settled, Span};

/// Lines that were read and not looked at.
const AHEAD: usize = 1024;

/// How a worker is started: a program that connects with the prefix of the run and calls
/// [`work`](super::work()) with the role. It gets `send PREFIX` or `receive PREFIX` as its last arguments.
#[derive(Clone, Debug)]
pub struct Workers {
    command: Vec<OsString>,
}

impl Workers {
    /// By this program with these arguments.
    #[must_use]
    pub fn new(command: Vec<OsString>) -> Self {
        Self { command }
    }

    fn start(&self, role: &str, prefix: &str) -> Result<Worker> {
        let broken = |e| Error::config("a worker could not be started").with_source(e);
        let (program, arguments) =
            self.command.split_first().ok_or_else(|| Error::config("no program for workers"))?;
        let mut command = Command::new(program);
        command.args(arguments).args([role, prefix]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process: Child = command.spawn().map_err(broken)?;
        let (input, output) = (process.stdin.take(), process.stdout.take());
        let (tx, lines) = mpsc::channel(AHEAD);
        std::thread::spawn(move || {
            let lines = output.into_iter().flat_map(|o| BufReader::new(o).lines());
            for line in lines.map_while(std::result::Result::ok) {
                if tx.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Worker { process, input, lines })
    }
}

/// The first number of a line.
pub(super) fn next_number(line: &str) -> Option<u64> {
    line.split(' ').next()?.parse().ok()
}

struct Worker {
    process: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

impl Worker {
    /// It reads as fast as it is written to: a few hundred short lines fit into the pipe.
    fn send(&mut self, value: u64) {
        if let Some(input) = &mut self.input {
            // One that has ended is found out when its lines end.
            let _ = writeln!(input, "{value}");
        }
    }
}

impl Drop for Worker {
    /// SIGKILL: nothing is said, nothing is closed.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a line says, and when that was by the clock of the run.
struct Told<'a> {
    words: Vec<&'a str>,
    at: Moment,
}

impl<'a> Told<'a> {
    fn of(run: &Run, line: &'a str) -> Option<Self> {
        let mut words: Vec<&str> = line.split(' ').collect();
        let at = Duration::from_micros(words.pop()?.parse().ok()?);
        let ago = clock().saturating_sub(at);
        Some(Self { words, at: run.recorder.now().saturating_sub(ago) })
    }

    fn number(&self) -> u64 {
        self.words.get(1).and_then(|w| w.parse().ok()).unwrap_or(u64::MAX)
    }

    fn end(&self) -> End {
        match self.words.last() {
            Some(&"Ok") => End::Ok,
            Some(&"Failed") => End::Failed,
            _ => End::Unknown,
        }
    }
}

/// What a producer has to send, and what became of it.
struct Errand {
    todo: VecDeque<u64>,
    /// Given to the worker, which has not begun with it.
    asked: BTreeSet<u64>,
    /// Sends that the worker has begun, in the record.
    flying: HashMap<u64, usize>,
}

/// Sends a producer's part of the values through workers, one after the other.
pub(super) async fn produce(run: Arc<Run>, workers: Workers, number: u32) -> Result<()> {
    let parts = u64::from(run.plan.producers);
    let todo = (0..run.plan.messages).filter(|v| v % parts == u64::from(number)).collect();
    let mut errand = Errand { todo, asked: BTreeSet::new(), flying: HashMap::new() };
    while !errand.todo.is_empty() {
        let worker = workers.start("send", &run.prefix)?;
        errand.run(&run, worker, number).await;
    }
    Ok(())
}

impl Errand {
    /// Sends through this worker until everything has its answer or the worker has ended.
    async fn run(&mut self, run: &Run, mut worker: Worker, number: u32) {
        let (mut gate, mut kills) = (run.gate.subscribe(), run.slaughter.subscribe());
        loop {
            let room = self.asked.len() + self.flying.len() < FLYING;
            let open = *gate.borrow_and_update() > run.begun.load(Ordering::Relaxed);
            if let Some(value) = if room && open { self.todo.pop_front() } else { None } {
                run.begun.fetch_add(1, Ordering::Relaxed);
                self.asked.insert(value);
                worker.send(value);
                continue;
            }
            if self.todo.is_empty() && self.asked.is_empty() && self.flying.is_empty() {
                return;
            }
            tokio::select! {
                line = worker.lines.recv() => match line {
                    Some(line) => self.told(run, number, &line),
                    None => break,
                },
                _ = gate.changed(), if !open => {}
                _ = kills.changed() => {
                    let _ = worker.process.kill();
                }
            }
        }
        self.bereaved(run);
    }

    /// What the worker had begun may have been stored; the rest is for the next one.
    fn bereaved(&mut self, run: &Run) {
        for (_, send) in self.flying.drain() {
            run.recorder.sent(send, End::Unknown, None);
            run.ended.send_modify(|n| *n += 1);
        }
        run.begun.fetch_sub(u64::try_from(self.asked.len()).unwrap_or(0), Ordering::Relaxed);
        std::mem::take(&mut self.asked).into_iter().rev().for_each(|v| self.todo.push_front(v));
    }

    /// Notes what a sender says.
    fn told(&mut self, run: &Run, producer: u32, line: &str) {
        let Some(told) = Told::of(run, line) else { return };
        let value = told.number();
        if self.asked.remove(&value) {
            let send = run.recorder.send(Send::new(producer, run.place, value, told.at).key(value % 64));
            run.recorder.edit(|h| h.sends[send].span.from = told.at);
            self.flying.insert(value, send);
        } else if let Some(send) = self.flying.remove(&value) {
            run.recorder.sent(send, told.end(), None);
            if told.end() == End::Ok {
                run.confirmed.send_modify(|n| *n += 1);
            }
            run.ended.send_modify(|n| *n += 1);
        }
    }
}

/// Receives through workers, one after the other, until the run is drained.
pub(super) async fn consume(run: Arc<Run>, workers: Workers, number: u32) -> Result<()> {
    let mut kills = run.slaughter.subscribe();
    while !run.drained.load(Ordering::Acquire) {
        let mut worker = workers.start("receive", &run.prefix)?;
        let mut last = None;
        loop {
            let line = tokio::select! {
                line = worker.lines.recv() => line,
                _ = kills.changed() => {
                    let _ = worker.process.kill();
                    continue;
                }
                () = tokio::time::sleep(run.plan.patience.tick) => {
                    if run.drained.load(Ordering::Acquire) {
                        // The end of its input ends it.
                        worker.input = None;
                    }
                    continue;
                }
            };
            let Some(line) = line else { break };
            receiver_told(&run, number, &mut last, &line);
        }
        run.recorder.shift(Some(number));
    }
    Ok(())
}

/// Notes what a receiver says of its last delivery.
fn receiver_told(run: &Run, consumer: u32, last: &mut Option<usize>, line: &str) {
    let Some(told) = Told::of(run, line) else { return };
    match (told.words[0], *last) {
        ("d", _) => {
            let back = told.words.last() == Some(&"Back");
            let index = run.recorder.delivered(Seen::new(consumer, run.place, told.number(), told.at));
            run.count_delivery();
            let how = if back { Settled::Back } else { Settled::Ack };
            run.recorder.edit(|h| {
                let d = &mut h.deliveries[index];
                (d.at, d.settled) = (told.at, Some((how, told.at)));
                // It ends when its process tells so, if that lives.
                d.copy = back.then(|| Span::open(told.at));
            });
            *last = Some(index);
        }
        ("b", Some(index)) => run.recorder.edit(|h| {
            let from = h.deliveries[index].at;
            h.deliveries[index].copy = Some(Span::done(from, told.at, told.end()));
        }),
        ("u", Some(index)) => run.recorder.edit(|h| h.deliveries[index].settled = None),
        _ => {}
    }
}
