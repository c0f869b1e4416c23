//! Opening a consumer again, over as many waits as it takes.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::core::ConsumerCore;
use super::session::Session;
use crate::client::panicked;
use crate::error::Result;

/// An open that goes on when the wait for it is cancelled: short waits would begin it anew each time.
#[derive(Debug, Default)]
pub(super) struct Reopening(Option<(Handle, JoinHandle<Result<Arc<Session>>>)>);

impl Reopening {
    /// The session that is being opened; begins to open one if none is.
    ///
    /// # Cancel safety
    /// The open goes on; the next call waits for it.
    pub(super) async fn session(&mut self, core: &Arc<ConsumerCore>) -> Result<Arc<Session>> {
        let (_, opening) = self.0.get_or_insert_with(|| {
            let core = Arc::clone(core);
            (Handle::current(), tokio::spawn(async move { core.open_session().await }))
        });
        let opened = opening.await;
        self.0 = None;
        opened.unwrap_or_else(|e| Err(panicked(&e)))
    }
}

impl Drop for Reopening {
    fn drop(&mut self) {
        let Some((runtime, opening)) = self.0.take() else { return };
        opening.abort();
        runtime.spawn(async move {
            // It may have been opened already.
            if let Ok(Ok(session)) = opening.await
                && let Err(error) = session.close().await
            {
                tracing::debug!(%error, "a consumer that nobody waited for did not close in time");
            }
        });
    }
}
