//! A line on the terminal that shows how far things are.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

const WIDTH: u64 = 30;

/// Counts, and draws a bar while there is a terminal to draw on.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Bytes of all inputs, where that is known.
    total: Option<u64>,
    published: AtomicU64,
    delivered: AtomicU64,
}

/// Stops drawing when it is dropped.
#[derive(Debug)]
pub(crate) struct Drawing(Option<JoinHandle<()>>);

impl Drop for Drawing {
    fn drop(&mut self) {
        if let Some(drawing) = self.0.take() {
            drawing.abort();
            eprint!("\r\x1b[K");
        }
    }
}

impl Progress {
    pub(crate) fn new(total: Option<u64>) -> Arc<Self> {
        Arc::new(Self { total, ..Self::default() })
    }

    pub(crate) fn published(&self, bytes: u64) {
        self.published.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn delivered(&self, messages: usize) {
        self.delivered.fetch_add(u64::try_from(messages).unwrap_or_default(), Ordering::Relaxed);
    }

    /// Draws until the result is dropped; does nothing where standard error is no terminal.
    pub(crate) fn draw(self: &Arc<Self>) -> Drawing {
        if !std::io::stderr().is_terminal() {
            return Drawing(None);
        }
        let progress = Arc::clone(self);
        Drawing(Some(tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(100));
            loop {
                tick.tick().await;
                eprint!("\r\x1b[K{}", progress.line());
                // A terminal that cannot be written to shows no bar.
                let _ = std::io::stderr().flush();
            }
        })))
    }

    fn line(&self) -> String {
        let (published, delivered) =
            (self.published.load(Ordering::Relaxed), self.delivered.load(Ordering::Relaxed));
        let share = |width: u64| match self.total {
            Some(total) if total > 0 => published.min(total) * width / total,
            _ => 0,
        };
        let full = usize::try_from(share(WIDTH)).unwrap_or_default();
        let bar: String = (0..30).map(|n| if n < full { '#' } else { '.' }).collect();
        format!("[{bar}] {:>3} % published, {delivered} deliveries", share(100))
    }
}
