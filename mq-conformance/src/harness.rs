//! What an author of a backend supplies: how to connect, how patient to be, what is refused.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mq_core::{Ability, Client, ClientOptions, Registry, Result};

use crate::scenario::Hooks;
use crate::turn::Company;

pub(crate) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Connect = Arc<dyn Fn(ClientOptions) -> Boxed<Result<Client>> + Send + Sync>;
pub(crate) type Hook = Arc<dyn Fn() -> Boxed<std::result::Result<(), String>> + Send + Sync>;
pub(crate) type Sweep = Arc<dyn Fn(String) -> Boxed<()> + Send + Sync>;
type SetUp = Arc<dyn Fn() -> Boxed<std::result::Result<Setup, String>> + Send + Sync>;

/// How long a scenario waits for what a backend owes. These are the backend's own statements; no scenario sleeps
/// a fixed time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Patience {
    /// How late a due message may be, and how often a condition is looked at.
    pub tick: Duration,
    /// Until every client sees a change of the topology.
    pub topology: Duration,
    /// Until everything works again after a restart, a cut or a consumer's death. Also how long a message that
    /// must come is waited for.
    pub fail_over: Duration,
    /// How long a message that fell due while the broker was down may still take after its restart.
    pub overdue: Duration,
    /// Until an ack is durable.
    pub ack_bound: Duration,
    /// How long a scenario watches that nothing comes.
    pub quiet: Duration,
    /// Deadline of a whole scenario.
    pub scenario: Duration,
}

impl Patience {
    /// For a broker in this process.
    #[must_use]
    pub const fn local() -> Self {
        Self {
            tick: Duration::from_millis(20),
            topology: Duration::from_millis(100),
            fail_over: Duration::from_secs(20),
            overdue: Duration::from_secs(20),
            ack_bound: Duration::from_secs(1),
            quiet: Duration::from_millis(500),
            scenario: Duration::from_secs(900),
        }
    }

    /// For a broker on this machine, behind a socket.
    #[must_use]
    pub const fn remote() -> Self {
        Self {
            tick: Duration::from_secs(1),
            topology: Duration::from_secs(2),
            fail_over: Duration::from_secs(45),
            overdue: Duration::from_secs(45),
            ack_bound: Duration::from_secs(1),
            quiet: Duration::from_secs(2),
            scenario: Duration::from_secs(180),
        }
    }

    /// Replaces [`tick`](Self::tick).
    #[must_use]
    pub const fn with_tick(mut self, tick: Duration) -> Self {
        self.tick = tick;
        self
    }

    /// Replaces [`topology`](Self::topology).
    #[must_use]
    pub const fn with_topology(mut self, topology: Duration) -> Self {
        self.topology = topology;
        self
    }

    /// Replaces [`fail_over`](Self::fail_over).
    #[must_use]
    pub const fn with_fail_over(mut self, fail_over: Duration) -> Self {
        self.fail_over = fail_over;
        self
    }

    /// Replaces [`overdue`](Self::overdue).
    #[must_use]
    pub const fn with_overdue(mut self, overdue: Duration) -> Self {
        self.overdue = overdue;
        self
    }

    /// Replaces [`quiet`](Self::quiet).
    #[must_use]
    pub const fn with_quiet(mut self, quiet: Duration) -> Self {
        self.quiet = quiet;
        self
    }

    /// Replaces [`scenario`](Self::scenario).
    #[must_use]
    pub const fn with_scenario(mut self, deadline: Duration) -> Self {
        self.scenario = deadline;
        self
    }
}

/// One broker, as a scenario uses it: made afresh for each scenario. Two setups may lead to the same broker.
#[derive(Clone)]
pub struct Setup {
    pub(crate) connect: Connect,
    pub(crate) restart: Option<Hook>,
    pub(crate) disconnect: Option<Hook>,
    /// How to stall, and how to go on.
    pub(crate) stall: Option<(Hook, Hook)>,
    pub(crate) sweep: Option<Sweep>,
    /// The URL that leads there.
    pub(crate) address: Option<(Registry, String)>,
}

impl Setup {
    /// Connects with this function. Every call gives one more client of the same broker; the options bring the
    /// scenario's prefix.
    pub fn new<F, Fut>(connect: F) -> Self
    where
        F: Fn(ClientOptions) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Client>> + Send + 'static,
    {
        Self {
            connect: Arc::new(move |o| Box::pin(connect(o))),
            restart: None,
            disconnect: None,
            stall: None,
            sweep: None,
            address: None,
        }
    }

    /// Connects by URL.
    #[must_use]
    pub fn url(registry: Registry, url: impl Into<String>) -> Self {
        let url = url.into();
        let address = (registry.clone(), url.clone());
        let setup = Self::new(move |options| {
            let (registry, url) = (registry.clone(), url.clone());
            async move { registry.connect_with(&url, options).await }
        });
        Self { address: Some(address), ..setup }
    }

    /// A URL of this backend, for a setup that connects in another way: scenarios spoil it, and see it refused.
    #[must_use]
    pub fn with_url(mut self, registry: Registry, url: impl Into<String>) -> Self {
        self.address = Some((registry, url.into()));
        self
    }

    /// How to kill the broker and start it again with what it had stored. Returns when it takes connections.
    #[must_use]
    pub fn with_restart<F, Fut>(mut self, restart: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<(), String>> + Send + 'static,
    {
        self.restart = Some(Arc::new(move || Box::pin(restart())));
        self
    }

    /// How to cut every connection of the broker while it lives on.
    #[must_use]
    pub fn with_disconnect<F, Fut>(mut self, disconnect: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<(), String>> + Send + 'static,
    {
        self.disconnect = Some(Arc::new(move || Box::pin(disconnect())));
        self
    }

    /// How to make the broker stop answering while its connections stay open, and how to let it go on.
    #[must_use]
    pub fn with_stall<F, Fut, G, Gut>(mut self, stall: F, resume: G) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<(), String>> + Send + 'static,
        G: Fn() -> Gut + Send + Sync + 'static,
        Gut: Future<Output = std::result::Result<(), String>> + Send + 'static,
    {
        self.stall = Some((Arc::new(move || Box::pin(stall())), Arc::new(move || Box::pin(resume()))));
        self
    }
}

impl Setup {
    /// How to remove everything whose name begins with a scenario's prefix, for a broker that many objects slow down.
    /// Called when the scenario has ended; what it fails to remove stays.
    #[must_use]
    pub fn with_sweep<F, Fut>(mut self, sweep: F) -> Self
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.sweep = Some(Arc::new(move |prefix| Box::pin(sweep(prefix))));
        self
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("restart", &self.restart.is_some())
            .field("disconnect", &self.disconnect.is_some())
            .field("stall", &self.stall.is_some())
            .finish_non_exhaustive()
    }
}

/// A backend under test.
///
/// ```no_run
/// # fn registry() -> mq_core::Registry { mq_core::Registry::new() }
/// use mq_conformance::{Harness, Patience, Setup};
/// use mq_core::Ability;
///
/// fn main() -> std::process::ExitCode {
///     let harness = Harness::new("mybroker", || async {
///         let url = std::env::var("MYBROKER_URL").map_err(|_| "MYBROKER_URL is not set".to_owned())?;
///         Ok(Setup::url(registry(), url))
///     });
///     mq_conformance::run(harness.patience(Patience::remote()).refuses(&[Ability::Priority]))
/// }
/// ```
#[derive(Clone)]
pub struct Harness {
    pub(crate) name: String,
    pub(crate) set_up: SetUp,
    pub(crate) patience: Patience,
    pub(crate) refuses: Vec<Ability>,
    pub(crate) virtual_time: bool,
    pub(crate) shared: bool,
    pub(crate) at_once: Option<usize>,
    pub(crate) own_cuts: bool,
    pub(crate) shared_restarts: bool,
}

impl Harness {
    /// A backend under this name. `set_up` is called once for each scenario; its error is the reason why the broker
    /// is absent.
    pub fn new<F, Fut>(name: impl Into<String>, set_up: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<Setup, String>> + Send + 'static,
    {
        Self {
            name: name.into(),
            set_up: Arc::new(move || Box::pin(set_up())),
            patience: Patience::remote(),
            refuses: Vec::new(),
            virtual_time: false,
            shared: true,
            at_once: None,
            own_cuts: false,
            shared_restarts: false,
        }
    }

    /// How long to wait for what. Default [`Patience::remote`].
    #[must_use]
    pub fn patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// The abilities that this backend refuses. Each must be refused, and no other may be.
    #[must_use]
    pub fn refuses(mut self, abilities: &[Ability]) -> Self {
        self.refuses = abilities.to_vec();
        self
    }

    /// Runs scenarios on tokio's paused clock: for a broker that lives in this process and waits by tokio's timers
    /// alone.
    #[must_use]
    pub fn virtual_time(mut self) -> Self {
        self.virtual_time = true;
        self
    }

    /// Each setup makes a broker of its own, so that scenarios with faults need not run alone.
    #[must_use]
    pub fn own_broker(mut self) -> Self {
        self.shared = false;
        self
    }

    /// So many scenarios at once, unless the command line says otherwise: for a broker that makes them wait more than
    /// work. Default one for each core.
    #[must_use]
    pub fn at_once(mut self, scenarios: usize) -> Self {
        self.at_once = Some(scenarios);
        self
    }

    /// The hooks that cut and stall touch the setup's own connections only, as a proxy for each setup does: of the
    /// scenarios with faults only those that restart the broker run alone.
    #[must_use]
    pub fn own_cuts(mut self) -> Self {
        self.own_cuts = true;
        self
    }

    /// Scenarios that restart a shared broker once run all at the same time, and one restart serves all of them: it
    /// happens when each of them has come to it. For a broker that is slow to come back.
    #[must_use]
    pub fn shared_restarts(mut self) -> Self {
        self.shared_restarts = true;
        self
    }

    /// Who may run beside a scenario with this hook.
    pub(crate) fn company(&self, hooks: Hooks) -> Company {
        match hooks {
            Hooks::Restart if self.shared && self.shared_restarts => Company::Restarting,
            Hooks::Restart | Hooks::Restarts if self.shared => Company::Alone,
            Hooks::Disconnect | Hooks::Stall if self.shared && !self.own_cuts => Company::Alone,
            _ => Company::Peaceful,
        }
    }
}

impl fmt::Debug for Harness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness")
            .field("name", &self.name)
            .field("patience", &self.patience)
            .field("refuses", &self.refuses)
            .finish_non_exhaustive()
    }
}
