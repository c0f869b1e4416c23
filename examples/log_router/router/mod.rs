//! The work of the example: read, publish, consume, put together again.

mod collect;
mod input;
mod output;
mod progress;
mod publish;
mod report;
mod routes;
mod severity;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use mq::prelude::*;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::collect::{Drain, Received, Sink};
use self::progress::Progress;
use self::routes::Route;
use crate::common::Failed;

pub(crate) use self::input::Input;
pub(crate) use self::report::Report;

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) inputs: Vec<Input>,
    /// Workers on each queue.
    pub(crate) workers: usize,
    /// Where to write what the queues received.
    pub(crate) out: Option<PathBuf>,
}

/// Routes every line of the inputs and says what each queue received. The topology is removed at the end.
pub(crate) async fn run(client: &Client, job: Job) -> Result<Report, Failed> {
    let routes = routes::routes(&job.inputs);
    client.declare(routes::topology(&routes)).await?;
    let outcome = route(client, &job, &routes).await;
    routes::remove(client, &routes).await?;
    let (mut report, mut received) = outcome?;
    report.check()?;
    if let Some(dir) = job.out {
        let names = input::names(&job.inputs);
        let write = move || {
            for (route, received) in routes.iter().zip(&mut received) {
                output::write_queue(&dir, route.queue, &mut received.parts)?;
            }
            output::write_files(&dir, &names, &received[0].parts)
        };
        tokio::task::spawn_blocking(write).await??;
        report.written = true;
    }
    Ok(report)
}

async fn route(client: &Client, job: &Job, routes: &[Route]) -> Result<(Report, Vec<Received>), Failed> {
    let total = job.inputs.iter().map(Input::size).sum();
    let progress = Progress::new(total);
    let _drawing = progress.draw();
    let begun = Instant::now();
    let sinks: Vec<_> = routes.iter().map(|_| Sink::new(job.out.is_some())).collect();
    let (end, published) = watch::channel(None);
    let mut workers = JoinSet::new();
    for (route, sink) in routes.iter().zip(&sinks) {
        let drain = Drain {
            queue: client.queue(route.queue),
            sink: Arc::clone(sink),
            progress: Arc::clone(&progress),
            published: published.clone(),
            all: route.all,
        };
        workers.spawn(drain.run(job.workers));
    }
    let sent = tokio::select! {
        sent = send(client, job, &progress) => sent?,
        failed = first_failure(&mut workers) => return Err(failed),
    };
    let publishing = begun.elapsed();
    end.send_replace(Some(sent.lines));
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    let received: Vec<_> = sinks.iter().map(|s| s.finish()).collect();
    Ok((Report::new(sent, begun, publishing, routes, &received), received))
}

/// Reads on a thread of its own, publishes here.
async fn send(client: &Client, job: &Job, progress: &Arc<Progress>) -> Result<publish::Published, Failed> {
    let (lines, read) = mpsc::channel(1024);
    let inputs = job.inputs.clone();
    let largest = client.capabilities().limits.max_body;
    let reader = tokio::task::spawn_blocking(move || input::read_all(&inputs, largest, &lines));
    let published = publish::publish(client, read, progress).await?;
    reader.await??;
    Ok(published)
}

/// Workers do not end while publishing goes on, unless they fail.
async fn first_failure(workers: &mut JoinSet<Result<(), Failed>>) -> Failed {
    match workers.join_next().await {
        Some(Ok(Err(failed))) => failed,
        Some(Err(panicked)) => panicked.into(),
        Some(Ok(Ok(()))) | None => "a worker ended before everything was published".into(),
    }
}
