//! Which URL scheme is served by which backend. A value: nothing is registered behind anyone's back.

use std::fmt;
use std::sync::Arc;

use crate::client::Client;
use crate::driver::Connector;
use crate::driver::erased::DynConnector;
use crate::error::{Error, Result};
use crate::options::ClientOptions;
use crate::url::Url;

type Make = Arc<dyn Fn(&Url, &ClientOptions) -> Result<Arc<dyn DynConnector>> + Send + Sync>;

/// A backend as the registry knows it: its schemes, and how a URL becomes a connector.
#[derive(Clone)]
pub struct Backend {
    schemes: &'static [&'static str],
    make: Option<Make>,
    feature: &'static str,
}

impl Backend {
    /// A backend that serves these schemes. `make` reads the URL (the keys of the core are taken out of it already)
    /// and does no I/O; it gets the client's options for the client name.
    pub fn new<C: Connector>(
        schemes: &'static [&'static str],
        make: impl Fn(&Url, &ClientOptions) -> Result<C> + Send + Sync + 'static,
    ) -> Self {
        let make = move |url: &Url, options: &ClientOptions| {
            make(url, options).map(|connector| Arc::new(connector) as Arc<dyn DynConnector>)
        };
        Self { schemes, make: Some(Arc::new(make)), feature: "" }
    }

    /// A backend that does not exist yet: its schemes are known, and the error says that no feature would help.
    #[must_use]
    pub fn planned(schemes: &'static [&'static str]) -> Self {
        Self { schemes, make: None, feature: "" }
    }

    /// A backend that is not compiled in: its schemes are known, and the error names the feature to switch on.
    #[must_use]
    pub fn absent(schemes: &'static [&'static str], feature: &'static str) -> Self {
        Self { schemes, make: None, feature }
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("schemes", &self.schemes)
            .field("compiled_in", &self.make.is_some())
            .finish()
    }
}

/// The backends that URLs can name.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    backends: Vec<Backend>,
}

impl Registry {
    /// No backend.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a backend; for a scheme that is known already, the one added last serves it.
    #[must_use]
    pub fn with(mut self, backend: Backend) -> Self {
        self.backends.push(backend);
        self
    }

    /// The schemes that are compiled in.
    pub fn schemes(&self) -> impl Iterator<Item = &'static str> {
        self.backends.iter().filter(|b| b.make.is_some()).flat_map(|b| b.schemes.iter().copied())
    }

    /// Connects to the broker that the URL names, with the defaults and what the URL says.
    ///
    /// # Errors
    /// [`ConfigInvalid`](crate::Kind::ConfigInvalid) for a URL that cannot be read, an unknown scheme or an unknown
    /// key; else as [`Client::connect`].
    ///
    /// # Cancel safety
    /// A half-made connection is closed.
    pub async fn connect(&self, url: &str) -> Result<Client> {
        self.connect_with(url, ClientOptions::default()).await
    }

    /// Connects with options; what the URL says wins.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    ///
    /// # Cancel safety
    /// A half-made connection is closed.
    pub async fn connect_with(&self, url: &str, options: ClientOptions) -> Result<Client> {
        let (common, url) = Url::parse(url)?.split_common()?;
        let options = options.overlaid(common);
        let connector = self.connector(&url, &options)?;
        Client::connect_erased(connector, options).await
    }

    fn connector(&self, url: &Url, options: &ClientOptions) -> Result<Arc<dyn DynConnector>> {
        let scheme = url.scheme();
        let found = self.backends.iter().rev().find(|b| b.schemes.contains(&scheme));
        match found {
            Some(Backend { make: Some(make), .. }) => make(url, options),
            Some(none) if none.feature.is_empty() => Err(Error::config(format!(
                "this version of mq-sdk has no backend for `{scheme}://`; compiled in: {}",
                self.known()
            ))),
            Some(absent) => Err(Error::config(format!(
                "`{scheme}://` is not compiled in; switch on the feature `{}` of mq-sdk",
                absent.feature
            ))),
            None => {
                Err(Error::config(format!("the scheme `{scheme}` is unknown; compiled in: {}", self.known())))
            }
        }
    }

    fn known(&self) -> String {
        self.schemes().map(|s| format!("{s}://")).collect::<Vec<_>>().join(", ")
    }
}
