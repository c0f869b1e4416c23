//! What a scenario works with.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use mq_core::driver::{Flushed, Sort};
use mq_core::{
    Ability, Client, ClientEvent, ClientOptions, Consumer, Delivery, Message, Queue, QueueSpec, Registry,
    Topic, TopicSpec,
};
use mq_core::{DeathCount, Sharing, Topology};
use tokio::time::{Instant, sleep, timeout};

use crate::harness::{Hook, Patience, Setup, Sweep};
use crate::outcome::{Failed, Outcome};

/// A client of a fresh namespace, and the means to wait for what is promised.
#[derive(Debug)]
pub struct Ctx {
    /// The scenario's client.
    pub client: Client,
    /// How long to wait for what.
    pub patience: Patience,
    setup: Setup,
    prefix: String,
}

impl Ctx {
    pub(crate) async fn new(setup: Setup, patience: Patience, prefix: String) -> mq_core::Result<Self> {
        let client = (setup.connect)(ClientOptions::new().with_prefix(&prefix)).await?;
        Ok(Self { client, patience, setup, prefix })
    }

    /// How to remove what the scenario leaves behind, and the prefix of its names.
    pub(crate) fn sweep(&self) -> Option<(Sweep, String)> {
        Some((Arc::clone(self.setup.sweep.as_ref()?), self.prefix.clone()))
    }

    /// Options with the scenario's prefix.
    #[must_use]
    pub fn options(&self) -> ClientOptions {
        ClientOptions::new().with_prefix(&self.prefix)
    }

    /// One more client of the same broker and namespace.
    ///
    /// # Errors
    /// The connect failed.
    pub async fn second(&self) -> Outcome<Client> {
        self.connect(self.options()).await
    }

    /// One more client of the same broker.
    ///
    /// # Errors
    /// The connect failed.
    pub async fn connect(&self, options: ClientOptions) -> Outcome<Client> {
        Ok((self.setup.connect)(options).await?)
    }

    /// The URL that leads to the broker, with what reads it.
    pub(crate) fn address(&self) -> Outcome<(&Registry, &str)> {
        let address = self.setup.address.as_ref().map(|(registry, url)| (registry, url.as_str()));
        address.ok_or_else(|| Failed::new("the harness has no URL"))
    }

    /// True if the backend offers it.
    #[must_use]
    pub fn can(&self, ability: Ability) -> bool {
        self.client.capabilities().support(ability).is_offered()
    }

    /// The deaths that so many clean hand-backs of a message may count at most.
    #[must_use]
    pub fn counted(&self, hand_backs: u32) -> u32 {
        match self.client.capabilities().death_count {
            DeathCount::HandBacks => hand_backs,
            _ => 0,
        }
    }

    /// True if a queue's consumers share it message by message.
    #[must_use]
    pub fn shares_messages(&self) -> bool {
        self.client.capabilities().sharing == Sharing::PerMessage
    }

    /// A queue with the defaults, declared.
    ///
    /// # Errors
    /// The declare failed.
    pub async fn queue(&self, name: &str) -> Outcome<Queue> {
        self.declare_queue(QueueSpec::new(name)).await
    }

    /// A queue that keeps one order: of parallelism 1.
    ///
    /// # Errors
    /// The declare failed.
    pub async fn ordered_queue(&self, name: &str) -> Outcome<Queue> {
        self.declare_queue(QueueSpec::new(name).with_parallelism(1)).await
    }

    /// A queue, declared.
    ///
    /// # Errors
    /// The declare failed.
    pub async fn declare_queue(&self, spec: QueueSpec) -> Outcome<Queue> {
        let queue = self.client.queue(&spec.name);
        self.client.declare(Topology::new().queue(spec)).await?;
        Ok(queue)
    }

    /// A topic, declared.
    ///
    /// # Errors
    /// The declare failed.
    pub async fn topic(&self, name: &str, partitions: u32) -> Outcome<Topic> {
        self.client.declare(Topology::new().topic(TopicSpec::new(name).with_partitions(partitions))).await?;
        Ok(self.client.topic(name))
    }

    /// Waits until every client must have seen the last change of the topology.
    pub async fn topology_seen(&self) {
        let lag = self.client.capabilities().limits.topology_lag;
        if !lag.is_zero() {
            sleep(lag.max(self.patience.topology)).await;
        }
    }

    /// The next message, which must come.
    ///
    /// # Errors
    /// None came within the fail-over time.
    pub async fn next(&self, consumer: &mut Consumer) -> Outcome<Delivery> {
        self.next_within(consumer, self.patience.fail_over).await
    }

    async fn next_within(&self, consumer: &mut Consumer, within: Duration) -> Outcome<Delivery> {
        match consumer.recv_for(within).await? {
            Some(delivery) => Ok(delivery),
            None => Err(Failed::new(format!("no message came within {within:?}"))),
        }
    }

    /// So many messages, held.
    ///
    /// # Errors
    /// One did not come.
    pub async fn take(&self, consumer: &mut Consumer, n: usize) -> Outcome<Vec<Delivery>> {
        let mut taken = Vec::with_capacity(n);
        for have in 0..n {
            let next = self.next(consumer).await;
            taken.push(next.map_err(|f| Failed { text: format!("{have} of {n} came: {}", f.text), ..f })?);
        }
        Ok(taken)
    }

    /// So many messages that fell due while the broker was down, held.
    ///
    /// # Errors
    /// One did not come.
    pub async fn take_overdue(&self, consumer: &mut Consumer, n: usize) -> Outcome<Vec<Delivery>> {
        let mut taken = Vec::with_capacity(n);
        for have in 0..n {
            let next = self.next_within(consumer, self.patience.overdue).await;
            taken.push(next.map_err(|f| Failed { text: format!("{have} of {n} came: {}", f.text), ..f })?);
        }
        Ok(taken)
    }

    /// The texts of so many messages, in order, each acknowledged at once.
    ///
    /// # Errors
    /// One did not come or cannot be settled.
    pub async fn read(&self, consumer: &mut Consumer, n: usize) -> Outcome<Vec<String>> {
        let mut texts = Vec::with_capacity(n);
        while texts.len() < n {
            let next = self.next(consumer).await;
            let have = texts.len();
            let delivery =
                next.map_err(|f| Failed { text: format!("{have} of {n} came: {}", f.text), ..f })?;
            texts.push(text(&delivery));
            delivery.ack()?;
        }
        Ok(texts)
    }

    /// The texts of all that comes until it is quiet, acknowledged.
    ///
    /// # Errors
    /// The consumer failed.
    pub async fn drain(&self, consumer: &mut Consumer) -> Outcome<Vec<String>> {
        let mut texts = Vec::new();
        while let Some(delivery) = consumer.recv_for(self.patience.quiet).await? {
            texts.push(text(&delivery));
            delivery.ack()?;
        }
        Ok(texts)
    }

    /// The texts of all that comes, acknowledged: waits for so many different ones, then until it is quiet.
    ///
    /// # Errors
    /// One did not come, or the consumer failed.
    pub async fn all(&self, consumer: &mut Consumer, different: usize) -> Outcome<Vec<String>> {
        let mut texts = Vec::new();
        self.rest(consumer, &mut texts, different).await?;
        Ok(texts)
    }

    /// As [`all`](Self::all), of which some have come before: adds what is missing to them.
    ///
    /// # Errors
    /// One did not come, or the consumer failed.
    pub async fn rest(&self, consumer: &mut Consumer, texts: &mut Vec<String>, different: usize) -> Outcome {
        let mut seen: BTreeSet<_> = texts.iter().cloned().collect();
        while seen.len() < different {
            let next = self.next(consumer).await;
            let came = format!("{} of {different} came", seen.len());
            let delivery = next.map_err(|f| Failed { text: format!("{came}: {}", f.text), ..f })?;
            texts.push(text(&delivery));
            seen.insert(text(&delivery));
            drop(delivery.ack());
        }
        texts.extend(self.drain(consumer).await?);
        Ok(())
    }

    /// As [`rest`](Self::rest), for two consumers that share the messages. Leaves it to the caller to see whether
    /// all came within the fail-over time.
    ///
    /// # Errors
    /// A consumer failed.
    pub async fn shared(&self, both: [(&mut Consumer, &mut Vec<String>); 2], different: usize) -> Outcome {
        let [(first, of_first), (second, of_second)] = both;
        let until = Instant::now() + self.patience.fail_over;
        loop {
            let (one, two) = tokio::join!(self.drain(first), self.drain(second));
            of_first.extend(one?);
            of_second.extend(two?);
            let seen: BTreeSet<_> = of_first.iter().chain(of_second.iter()).collect();
            if seen.len() >= different || Instant::now() >= until {
                return Ok(());
            }
        }
    }

    /// Watches that nothing comes.
    ///
    /// # Errors
    /// Something came.
    pub async fn nothing(&self, consumer: &mut Consumer) -> Outcome {
        match consumer.recv_for(self.patience.quiet).await? {
            None => Ok(()),
            Some(d) => Err(Failed::new(format!("nothing should have come, but `{}` did", text(&d)))),
        }
    }

    /// Waits until a condition holds, looking at every tick.
    ///
    /// # Errors
    /// It did not hold within the fail-over time.
    pub async fn eventually<F, Fut>(&self, what: &str, mut condition: F) -> Outcome
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Outcome<bool>>,
    {
        let until = Instant::now() + self.patience.fail_over;
        while !condition().await? {
            if Instant::now() >= until {
                return Err(Failed::new(format!("not within {:?}: {what}", self.patience.fail_over)));
            }
            sleep(self.patience.tick.min(Duration::from_millis(200))).await;
        }
        Ok(())
    }

    /// A call that must end within the fail-over time.
    ///
    /// # Errors
    /// It hangs.
    pub async fn ends<T>(&self, what: &str, call: impl Future<Output = T>) -> Outcome<T> {
        let within = self.patience.fail_over;
        timeout(within, call).await.map_err(|_| Failed::new(format!("{what} did not end within {within:?}")))
    }

    /// Kills the broker and starts it again. Returns when the scenario's client can use it.
    ///
    /// # Errors
    /// It did not come back.
    pub async fn restart(&self) -> Outcome {
        self.hook(self.setup.restart.as_ref()).await?;
        // The pause before the client's next try may be as long as the deadline of a call.
        self.eventually("the client is connected again", || async {
            Ok(self.client.exists(Sort::Queue, "any").await.is_ok())
        })
        .await
    }

    /// Cuts every connection. Returns when the scenario's client has noticed.
    ///
    /// # Errors
    /// It could not be done.
    pub async fn disconnect(&self) -> Outcome {
        let mut events = self.client.events();
        self.hook(self.setup.disconnect.as_ref()).await?;
        let lost = async {
            while let Some(event) = events.next().await {
                if matches!(event, ClientEvent::Lost(_)) {
                    return;
                }
            }
        };
        // A client that was connecting just then has nothing to notice.
        let _ = timeout(self.patience.tick, lost).await;
        Ok(())
    }

    /// Makes sure that what was acknowledged does not come again through a fault.
    ///
    /// # Errors
    /// The acks could not be pushed out.
    pub async fn acks_last(&self, consumer: &Consumer) -> Outcome {
        if consumer.flush_acks().await? != Flushed::Confirmed {
            // Where the broker does not confirm acks, they are durable when the ack bound is over.
            sleep(self.patience.ack_bound).await;
        }
        Ok(())
    }

    /// Makes the broker stop answering.
    ///
    /// # Errors
    /// It could not be done.
    pub async fn stall(&self) -> Outcome {
        self.hook(self.setup.stall.as_ref().map(|(stall, _)| stall)).await
    }

    /// Lets a stalled broker go on.
    ///
    /// # Errors
    /// It could not be done.
    pub async fn go_on(&self) -> Outcome {
        self.hook(self.setup.stall.as_ref().map(|(_, resume)| resume)).await
    }

    async fn hook(&self, hook: Option<&Hook>) -> Outcome {
        let hook = hook.ok_or_else(|| Failed::new("the harness has no such hook"))?;
        hook().await.map_err(|e| Failed::new(format!("the harness' hook failed: {e}")))
    }

    pub(crate) fn has(&self, hooks: crate::scenario::Hooks) -> bool {
        match hooks {
            crate::scenario::Hooks::None => true,
            crate::scenario::Hooks::Restart | crate::scenario::Hooks::Restarts => {
                self.setup.restart.is_some()
            }
            crate::scenario::Hooks::Disconnect => self.setup.disconnect.is_some(),
            crate::scenario::Hooks::Stall => self.setup.stall.is_some(),
            crate::scenario::Hooks::Url => self.setup.address.is_some(),
        }
    }
}

/// The payload as text, whatever it is.
pub(crate) fn text(message: &Message) -> String {
    String::from_utf8_lossy(message.payload()).into_owned()
}
