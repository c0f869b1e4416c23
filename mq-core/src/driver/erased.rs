//! The boxed twins: the same roles as objects, implemented once for every driver.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::error::Result;
use crate::message::Message;

/// A boxed future.
pub(crate) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

macro_rules! twin {
    (
        $(#[$doc:meta])* $twin:ident of $role:ident {
            $( async fn $name:ident(&self $(, $arg:ident : $ty:ty)*) -> $out:ty; )*
        } sync {
            $( fn $sname:ident(&self $(, $sarg:ident : $sty:ty)*) -> $sout:ty; )*
        }
    ) => {
        $(#[$doc])*
        pub(crate) trait $twin: Send + Sync {
            $( fn $name<'a>(&'a self $(, $arg: $ty)*) -> Boxed<'a, $out>; )*
            $( fn $sname(&self $(, $sarg: $sty)*) -> $sout; )*
        }
        impl<T: $role> $twin for T {
            $( fn $name<'a>(&'a self $(, $arg: $ty)*) -> Boxed<'a, $out> { Box::pin($role::$name(self $(, $arg)*)) } )*
            $( fn $sname(&self $(, $sarg: $sty)*) -> $sout { $role::$sname(self $(, $sarg)*) } )*
        }
    };
}

twin! {
    /// [`Producer`] as an object.
    DynProducer of Producer {
        async fn send_batch(&self, batch: &'a mut Batch) -> Result<()>;
        async fn close(&self) -> Result<()>;
    } sync {
        fn try_send(&self, message: &mut Option<Message>) -> Option<Result<Receipt>>;
        fn send_now(&self, batch: &mut Batch) -> ();
    }
}

twin! {
    /// [`Exchange`] as an object.
    DynExchange of Exchange {
        async fn publish_batch(&self, batch: &'a mut Batch) -> Result<()>;
        async fn close(&self) -> Result<()>;
    } sync {
        fn try_publish(
            &self,
            routing_key: &str,
            mandatory: bool,
            message: &mut Option<Message>
        ) -> Option<Result<Receipt>>;
        fn publish_now(&self, batch: &mut Batch) -> ();
    }
}

twin! {
    /// [`Consumer`] as an object.
    DynConsumer of Consumer {
        async fn receive(&self, into: &'a mut Vec<Arrival>, max: usize, wait: Duration) -> Result<()>;
        async fn flush(&self) -> Result<Flushed>;
        async fn settle(&self, tag: Tag, how: Settle) -> Result<()>;
        async fn control(&self, control: Control) -> Result<()>;
        async fn close(&self) -> Result<()>;
    } sync {
        fn try_receive(&self, into: &mut Vec<Arrival>, max: usize) -> Result<bool>;
        fn ack(&self, tags: &[Tag]) -> AckNow;
        fn try_flush(&self) -> bool;
    }
}

twin! {
    /// [`Half`] as an object.
    DynHalf of Half {
        async fn prepare(&self, to: &'a Target, message: Message, check_after: Duration) -> Result<HalfId>;
        async fn decide(&self, id: &'a HalfId, verdict: Verdict, asked: Option<CheckToken>) -> Result<Decided>;
        async fn checks(&self, max: usize, wait: Duration) -> Result<Vec<Check>>;
    } sync {}
}

twin! {
    /// [`HalfLog`] as an object.
    DynHalfLog of HalfLog {
        async fn append(&self, record: HalfRecord) -> Result<()>;
        async fn next(&self, max: usize, wait: Duration) -> Result<LogBatch>;
        async fn step(&self, shard: Shard, step: Step) -> Result<Stepped>;
    } sync {}
}

/// [`Transaction`] as an object.
pub(crate) trait DynTransaction: Send + Sync {
    fn send<'a>(&'a mut self, to: &'a Target, message: Message) -> Boxed<'a, Result<()>>;
    fn attach<'a>(&'a mut self, tags: &'a [Tag]) -> Boxed<'a, Result<()>>;
    fn commit(self: Box<Self>) -> Boxed<'static, Result<()>>;
    fn rollback(self: Box<Self>) -> Boxed<'static, Result<()>>;
    fn abandon(self: Box<Self>);
}

impl<T: Transaction> DynTransaction for T {
    fn send<'a>(&'a mut self, to: &'a Target, message: Message) -> Boxed<'a, Result<()>> {
        Box::pin(Transaction::send(self, to, message))
    }
    fn attach<'a>(&'a mut self, tags: &'a [Tag]) -> Boxed<'a, Result<()>> {
        Box::pin(Transaction::attach(self, tags))
    }
    fn commit(self: Box<Self>) -> Boxed<'static, Result<()>> {
        Box::pin(Transaction::commit(*self))
    }
    fn rollback(self: Box<Self>) -> Boxed<'static, Result<()>> {
        Box::pin(Transaction::rollback(*self))
    }
    fn abandon(self: Box<Self>) {
        Transaction::abandon(*self);
    }
}

/// [`Connection`] as an object.
pub(crate) trait DynConnection: Send + Sync {
    fn info(&self) -> &ConnectionInfo;
    fn apply<'a>(&'a self, change: &'a Change) -> Boxed<'a, Result<Applied>>;
    fn beneath(&self, changes: &[Change]) -> Vec<String>;
    fn backlogs(&self) -> Vec<(&'static str, Query)>;
    fn describe<'a>(&'a self, query: &'a Query) -> Boxed<'a, Result<Described>>;
    fn open_producer<'a>(&'a self, target: &'a Target) -> Boxed<'a, Result<Arc<dyn DynProducer>>>;
    fn open_exchange<'a>(&'a self, name: &'a str) -> Boxed<'a, Result<Arc<dyn DynExchange>>>;
    fn open_consumer<'a>(&'a self, options: &'a ConsumerOptions) -> Boxed<'a, Result<Arc<dyn DynConsumer>>>;
    fn begin<'a>(&'a self, options: &'a TransactionOptions) -> Boxed<'a, Result<Box<dyn DynTransaction>>>;
    fn open_half<'a>(&'a self, options: &'a HalfOptions) -> Boxed<'a, Result<Arc<dyn DynHalf>>>;
    fn open_half_log<'a>(&'a self, options: &'a HalfOptions) -> Boxed<'a, Result<Arc<dyn DynHalfLog>>>;
    fn next_event(&self) -> Boxed<'_, Event>;
    fn close(&self) -> Boxed<'_, Result<()>>;
    /// The driver's own connection, for callers that know its type.
    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync);
}

impl<C: Connection> DynConnection for C {
    fn info(&self) -> &ConnectionInfo {
        Connection::info(self)
    }
    fn apply<'a>(&'a self, change: &'a Change) -> Boxed<'a, Result<Applied>> {
        Box::pin(Connection::apply(self, change))
    }
    fn beneath(&self, changes: &[Change]) -> Vec<String> {
        Connection::beneath(self, changes)
    }
    fn backlogs(&self) -> Vec<(&'static str, Query)> {
        Connection::backlogs(self)
    }
    fn describe<'a>(&'a self, query: &'a Query) -> Boxed<'a, Result<Described>> {
        Box::pin(Connection::describe(self, query))
    }
    fn open_producer<'a>(&'a self, target: &'a Target) -> Boxed<'a, Result<Arc<dyn DynProducer>>> {
        Box::pin(async move {
            Ok(Arc::new(Connection::open_producer(self, target).await?) as Arc<dyn DynProducer>)
        })
    }
    fn open_exchange<'a>(&'a self, name: &'a str) -> Boxed<'a, Result<Arc<dyn DynExchange>>> {
        Box::pin(
            async move { Ok(Arc::new(Connection::open_exchange(self, name).await?) as Arc<dyn DynExchange>) },
        )
    }
    fn open_consumer<'a>(&'a self, options: &'a ConsumerOptions) -> Boxed<'a, Result<Arc<dyn DynConsumer>>> {
        Box::pin(async move {
            Ok(Arc::new(Connection::open_consumer(self, options).await?) as Arc<dyn DynConsumer>)
        })
    }
    fn begin<'a>(&'a self, options: &'a TransactionOptions) -> Boxed<'a, Result<Box<dyn DynTransaction>>> {
        Box::pin(
            async move { Ok(Box::new(Connection::begin(self, options).await?) as Box<dyn DynTransaction>) },
        )
    }
    fn open_half<'a>(&'a self, options: &'a HalfOptions) -> Boxed<'a, Result<Arc<dyn DynHalf>>> {
        Box::pin(async move { Ok(Arc::new(Connection::open_half(self, options).await?) as Arc<dyn DynHalf>) })
    }
    fn open_half_log<'a>(&'a self, options: &'a HalfOptions) -> Boxed<'a, Result<Arc<dyn DynHalfLog>>> {
        Box::pin(async move {
            Ok(Arc::new(Connection::open_half_log(self, options).await?) as Arc<dyn DynHalfLog>)
        })
    }
    fn next_event(&self) -> Boxed<'_, Event> {
        Box::pin(Connection::next_event(self))
    }
    fn close(&self) -> Boxed<'_, Result<()>> {
        Box::pin(Connection::close(self))
    }
    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}

/// [`Connector`] as an object.
pub(crate) trait DynConnector: Send + Sync {
    fn connect(&self) -> Boxed<'_, Result<Arc<dyn DynConnection>>>;
}

impl<C: Connector> DynConnector for C {
    fn connect(&self) -> Boxed<'_, Result<Arc<dyn DynConnection>>> {
        Box::pin(async move { Ok(Arc::new(Connector::connect(self).await?) as Arc<dyn DynConnection>) })
    }
}
