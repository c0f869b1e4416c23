//! Changes of exchanges and bindings, as a driver would make them.

use std::sync::Arc;

use bytes::Bytes;

use super::super::Base;
use super::catalog::Catalog;
use crate::deadline::within;
use crate::driver::{Applied, Change, Described, Query, Sort, Target};
use crate::error::{Error, Kind, Result};
use crate::protocol::registry::{Definition, Record};
use crate::routing::check_binding;
use crate::spec::{Binding, ExchangeSpec};

impl Base {
    /// Applies a change: exchanges and bindings here, everything else by the driver.
    pub(crate) async fn change(self: &Arc<Self>, change: Change) -> Result<Applied> {
        let deadline = self.options.admin_deadline;
        match change {
            Change::DeclareExchange(spec) => within("declare", deadline, self.declare_exchange(spec)).await,
            Change::Bind(binding) => within("bind", deadline, self.bind(binding)).await,
            Change::Unbind(binding) => within("unbind", deadline, self.unbind(&binding)).await,
            Change::Delete(Sort::Exchange, name) => {
                within("delete", deadline, self.remove(|catalog| catalog.keys_of_exchange(&name))).await
            }
            Change::Delete(Sort::Queue, name) => {
                // First, so that a queue of the same name that is made later is not bound to anything.
                within("delete", deadline, self.remove(|catalog| catalog.keys_of_queue(&name))).await?;
                self.apply(Change::Delete(Sort::Queue, name)).await
            }
            other => self.apply(other).await,
        }
    }

    /// Answers a question: about exchanges here, about everything else by the driver.
    pub(crate) async fn answer(self: &Arc<Self>, query: Query) -> Result<Described> {
        let Query::Exists(Sort::Exchange, name) = query else { return self.describe(query).await };
        within("describe", self.options.admin_deadline, self.sync()).await?;
        Ok(Described::Exists(self.registry.catalog().exchange(&name).is_some()))
    }

    async fn declare_exchange(self: &Arc<Self>, spec: ExchangeSpec) -> Result<Applied> {
        self.declare_topology().await?;
        self.sync().await?;
        if let Some(made) = self.made(&spec.name) {
            return compare(&made, &spec).map(|()| Applied::Unchanged);
        }
        let definition = Definition::Exchange(spec.clone());
        let key = definition.key();
        self.write_all(vec![(key.clone(), Record::new(definition).encode().into())]).await?;
        let Some(made) = self.made(&spec.name) else {
            return Err(Error::new(Kind::NotFound, "the exchange was deleted while it was declared"));
        };
        if let Err(lost) = compare(&made, &spec) {
            // Somebody else was first: this one's record must not win later.
            self.write_all(vec![(key, Bytes::new())]).await?;
            return Err(lost);
        }
        Ok(Applied::Done)
    }

    fn made(&self, name: &str) -> Option<ExchangeSpec> {
        self.registry.catalog().exchange(name).cloned()
    }

    async fn bind(self: &Arc<Self>, binding: Binding) -> Result<Applied> {
        self.sync().await?;
        let Some(exchange) = self.made(&binding.exchange) else {
            return Err(Error::not_found("exchange", &binding.exchange));
        };
        check_binding(exchange.kind, &binding)?;
        let queue = Target::queue(binding.queue.clone());
        if !self.exists(&queue).await? {
            return Err(queue.not_found());
        }
        if self.registry.catalog().is_bound(&binding) {
            return Ok(Applied::Unchanged);
        }
        let definition = Definition::Binding(binding);
        self.write_all(vec![(definition.key(), Record::new(definition).encode().into())]).await?;
        Ok(Applied::Done)
    }

    async fn unbind(self: &Arc<Self>, binding: &Binding) -> Result<Applied> {
        let key = Definition::Binding(binding.clone()).key();
        self.remove(|catalog| if catalog.is_bound(binding) { vec![key] } else { Vec::new() }).await
    }

    /// Deletes the records under these keys.
    async fn remove(self: &Arc<Self>, keys: impl FnOnce(&Catalog) -> Vec<String>) -> Result<Applied> {
        self.sync().await?;
        let keys = keys(&self.registry.catalog());
        if keys.is_empty() {
            return Ok(Applied::Unchanged);
        }
        self.write_all(keys.into_iter().map(|key| (key, Bytes::new())).collect()).await?;
        Ok(Applied::Done)
    }
}

fn compare(made: &ExchangeSpec, wanted: &ExchangeSpec) -> Result<()> {
    let property = match () {
        () if made.kind != wanted.kind => "kind",
        () if made.alternate != wanted.alternate => "alternate",
        () => return Ok(()),
    };
    let text = format!(
        "exchange `{}` exists with another {property}; declare it as it is, or delete it first",
        wanted.name
    );
    Err(Error::new(Kind::AlreadyExists, text).with_context("property", property))
}
