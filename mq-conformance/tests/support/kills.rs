//! The switchboard's faults as hooks of a set-up.

use std::future::ready;
use std::time::Duration;

use mq_conformance::Setup;
use mq_memory::Switchboard;

/// Adds a cut of all connections, and a restart that takes so long.
pub(crate) fn with_kills(setup: Setup, faults: Switchboard, down: Duration) -> Setup {
    let cut = faults.clone();
    let setup = setup.with_disconnect(move || {
        cut.disconnect();
        ready(Ok(()))
    });
    setup.with_restart(move || {
        faults.restart(down);
        async move {
            tokio::time::sleep(down).await;
            Ok(())
        }
    })
}
