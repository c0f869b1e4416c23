//! A memory broker of its own for each scenario, with all of its faults.

use std::future::ready;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mq_conformance::Setup;
use mq_core::{Client, Registry};
use mq_memory::{MemoryConfig, MemoryConnector};

use crate::kills::with_kills;

/// How long a restart takes.
const DOWN: Duration = Duration::from_millis(300);

static BROKERS: AtomicU64 = AtomicU64::new(0);

/// Sets one up with this configuration, under a name of its own.
pub(crate) fn fresh(config: MemoryConfig) -> Result<Setup, String> {
    let name = format!("conformance-{}", BROKERS.fetch_add(1, Ordering::Relaxed));
    let connector = MemoryConnector::new(&config.with_name(name)).map_err(|e| e.to_string())?;
    let faults = connector.switchboard();
    let (stall, resume) = (faults.clone(), faults.clone());
    let setup =
        Setup::new(move |options| Client::connect(connector.clone().in_namespace(options.prefix()), options))
            .with_stall(
                move || {
                    stall.stall();
                    ready(Ok(()))
                },
                move || {
                    resume.resume();
                    ready(Ok(()))
                },
            );
    let registry = Registry::new().with(mq_memory::backend());
    Ok(with_kills(setup.with_url(registry, "memory://"), faults, DOWN))
}
