//! Does a secret get out? A transcript of everything that a client says while it fails: errors, `Debug` texts, and what
//! every crate below it traces.

use std::error::Error as _;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mq_core::{Error, Registry};
use tokio::time::timeout;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// The secret that is planted: nothing else contains this word.
pub const CANARY: &str = "hunter2canary";
/// How long one connect may take before it is dropped.
const PATIENCE: Duration = Duration::from_secs(5);

/// Everything that was said. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Transcript(Arc<Mutex<String>>);

impl Transcript {
    /// Adds a line.
    pub fn add(&self, line: impl fmt::Display) {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(text, "{line}");
    }

    /// Adds an error in each form it has, with all its causes.
    pub fn add_error(&self, error: &Error) {
        self.add(format_args!("{error} {error:?} {error:#?}"));
        let mut cause = error.source();
        while let Some(inner) = cause {
            self.add(format_args!("{inner} {inner:?} {inner:#?}"));
            cause = inner.source();
        }
    }

    /// The text so far.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The lines that show the secret, as it is or percent-encoded.
    #[must_use]
    pub fn leaks(&self) -> Vec<String> {
        let shows = |line: &&str| line.contains(CANARY) || line.contains("%68unter2");
        self.text().lines().filter(shows).map(str::to_owned).collect()
    }
}

/// Connects to each of these URLs, in which the secret is planted, and notes all that is said meanwhile. Nothing has to
/// answer there.
///
/// Make the transcript the subscriber of `tracing` before, by [`subscriber`](Transcript::subscriber).
pub async fn connect_to_all(registry: &Registry, urls: &[String], transcript: &Transcript) {
    for url in urls {
        match timeout(PATIENCE, registry.connect(url)).await {
            Ok(Ok(client)) => {
                transcript.add(format_args!("{client:?} {client:#?} {}", client.explain()));
                let _ = timeout(PATIENCE, client.close()).await;
            }
            Ok(Err(error)) => transcript.add_error(&error),
            Err(_) => transcript.add("no end of the connect"),
        }
    }
}

impl Transcript {
    /// A subscriber that writes down every event and span of every crate, at every level.
    #[must_use]
    pub fn subscriber(&self) -> impl Subscriber + Send + Sync + use<> {
        Listener(self.clone())
    }
}

struct Listener(Transcript);

/// Fields of an event or a span, in one line.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = Line(format!("span {}", span.metadata().name()));
        span.record(&mut line);
        self.0.add(line.0);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut line = Line(String::new());
        values.record(&mut line);
        self.0.add(line.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().target().to_owned());
        event.record(&mut line);
        self.0.add(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
