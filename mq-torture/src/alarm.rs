//! The memory alarm of a RabbitMQ node, and what clients do meanwhile: who publishes has to wait, who leaves must not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mq::defaults::CLOSE_GRACE;
use mq::{Client, ClientOptions, QueueSpec, Topology};
use mq_conformance::torture::Trouble;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep};
use xtask::brokers::{Broker, Control};

use crate::network::LONG;

/// An alarm that most deadlines outlast.
const SHORT: Duration = Duration::from_secs(4);
/// How long the node may take to raise an alarm, or to end it.
const SOON: Duration = Duration::from_secs(20);
/// A close may be that much later than its grace time, on a machine that is busy.
const SLACK: Duration = Duration::from_secs(3);
/// A send that takes longer has been stopped by the alarm.
const STOPPED: Duration = Duration::from_secs(1);
/// Between two sends of a probe.
const PACE: Duration = Duration::from_millis(20);
/// Where the probes send to.
const QUEUE: &str = "probe";

type Outcome<T> = std::result::Result<T, String>;

/// Memory alarms, for a short and for a long time in turns.
///
/// # Errors
/// The first probes cannot be opened.
pub(crate) async fn alarms(broker: &Broker, control: Control, url: &str) -> mq::Result<Trouble> {
    let node = broker.nodes.first().map(|n| n.name.clone()).unwrap_or_default();
    let next = Arc::new(Mutex::new(Some(Probes::open(url).await?)));
    let alarm = Alarm { control, node, url: url.to_owned(), next };
    let turn = Arc::new(AtomicU64::new(0));
    Ok(Trouble::new("alarm", move || {
        let time = if turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) { SHORT } else { LONG };
        let alarm = alarm.clone();
        async move { alarm.make(time).await }
    })
    .slow_to_begin())
}

#[derive(Clone)]
struct Alarm {
    control: Control,
    node: String,
    url: String,
    /// Opened ahead: the alarm has to come while the workload is sending.
    next: Arc<Mutex<Option<Probes>>>,
}

impl Alarm {
    async fn make(&self, time: Duration) -> Outcome<()> {
        let ready = self.next.lock().await.take();
        let probes = match ready {
            Some(probes) => probes,
            None => Probes::open(&self.url).await.map_err(|e| e.to_string())?,
        };
        let over = AtomicBool::new(false);
        let course = async {
            let ended = self.course(time).await;
            over.store(true, Ordering::Release);
            ended
        };
        let (ended, judged) = tokio::join!(course, probes.judge(time, &over));
        let again = self.clone();
        // Where this fails, the next alarm tries it once more.
        tokio::spawn(async move { *again.next.lock().await = Probes::open(&again.url).await.ok() });
        ended.and(judged)
    }

    /// The node lets the alarm end by itself, whatever becomes of this process; here that is only waited for.
    async fn course(&self, time: Duration) -> Outcome<()> {
        match self.eval(raise(time)).await?.as_str() {
            "raised" => {}
            "on" => return Err("the node's memory alarm was on already; wait until it is over".into()),
            said => return Err(format!("the node raised no memory alarm within {SOON:?}: {said}")),
        }
        match self.eval(wait(time + SOON, false)).await?.as_str() {
            "over" => Ok(()),
            said => Err(format!("the node's memory alarm does not end: {said}")),
        }
    }

    async fn eval(&self, expression: String) -> Outcome<String> {
        let (control, node) = (self.control.clone(), self.node.clone());
        let asked = move || control.eval(&node, &expression, LONG + SOON * 2);
        let said = tokio::task::spawn_blocking(asked).await.map_err(|e| e.to_string())?;
        said.map_err(|e| e.to_string())
    }
}

/// Two clients: one sends all the time, the other leaves during the alarm.
#[derive(Debug)]
struct Probes {
    patient: Client,
    leaving: Client,
}

impl Probes {
    /// Connects, and leaves no name at the broker as long as there is no alarm.
    async fn open(url: &str) -> mq::Result<Self> {
        let prefix = format!("t{:x}-", fastrand::u64(..));
        let options = ClientOptions::new().with_prefix(prefix).with_send_deadline(LONG + SOON);
        let connect = || async { mq::registry().connect_with(url, options.clone()).await };
        Ok(Self { patient: connect().await?, leaving: connect().await? })
    }

    /// Until the alarm, which takes this time, is over.
    async fn judge(self, time: Duration, over: &AtomicBool) -> Outcome<()> {
        let (begun, look) = watch::channel(Instant::now());
        let sending = send(&self.patient, over, begun);
        let (sent, left) = tokio::join!(sending, leave(self.leaving, over, look));
        let failed = |e| format!("a send failed that had only to wait for the end of the alarm: {e}");
        let (count, longest) = sent.map_err(failed)?;
        left?;
        if longest + STOPPED * 2 < time {
            return Err(format!("the alarm took {time:?}, but no send longer than {longest:?}"));
        }
        let kept = kept(&self.patient).await.map_err(|e| e.to_string())?;
        // What was unconfirmed when its client left may be there, too.
        if kept >= count { Ok(()) } else { Err(format!("of {count} confirmed messages {kept} were kept")) }
    }
}

/// Sends one message after the other until the alarm is over; how many, and the longest time that one took.
async fn send(
    client: &Client,
    over: &AtomicBool,
    begun: watch::Sender<Instant>,
) -> mq::Result<(u64, Duration)> {
    client.declare(Topology::new().queue(QueueSpec::new(QUEUE))).await?;
    let producer = client.queue(QUEUE).producer().build().await?;
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !over.load(Ordering::Acquire) {
        begun.send_replace(Instant::now());
        producer.send("meanwhile").await?;
        longest = longest.max(begun.borrow().elapsed());
        count += 1;
        sleep(PACE).await;
    }
    Ok((count, longest))
}

/// Closes a client with a message on its way, when sends are stopped.
async fn leave(client: Client, over: &AtomicBool, begun: watch::Receiver<Instant>) -> Outcome<()> {
    // The first change is the first send: what is made before it takes its time, too.
    while !begun.has_changed().unwrap_or(true) || begun.borrow().elapsed() < STOPPED {
        if over.load(Ordering::Acquire) {
            return Err("the alarm has stopped no send".to_owned());
        }
        sleep(PACE).await;
    }
    let handed = match client.queue(QUEUE).producer().build().await {
        Ok(producer) => producer.hand_over("unconfirmed").await,
        Err(e) => return Err(format!("no producer during the alarm: {e}")),
    };
    let (since, limit) = (Instant::now(), CLOSE_GRACE + SLACK);
    // That it says so where the broker did not answer is fine.
    let _ = client.close().await;
    drop(handed);
    let took = since.elapsed();
    if took > limit { Err(format!("a close during the alarm took {took:?}, not {limit:?}")) } else { Ok(()) }
}

/// How many messages there are; removes them.
async fn kept(client: &Client) -> mq::Result<u64> {
    let queue = client.queue(QUEUE);
    let ready = queue.depth().await?.ready.exact().unwrap_or(0);
    queue.delete().await?;
    client.close().await?;
    Ok(ready)
}

/// True if the node's memory alarm is on, in Erlang.
const ON: &str = "lists:any(fun({{_, memory, _}, _}) -> true; (_) -> false end, rabbit_alarm:get_alarms())";

/// Raises the alarm by a memory watermark of nothing. First a timer of the node's own is set to put the watermark back:
/// it does so when nobody is there any more to ask for it.
fn raise(time: Duration) -> String {
    let (millis, wait) = (time.as_millis(), wait(SOON, true));
    format!(
        "Mark = vm_memory_monitor:get_vm_memory_high_watermark(), \
         case Mark == 0 orelse {ON} of true -> on; false -> \
         {{ok, _}} = timer:apply_after({millis}, vm_memory_monitor, set_vm_memory_high_watermark, [Mark]), \
         ok = vm_memory_monitor:set_vm_memory_high_watermark(0), {wait} end"
    )
}

/// Waits until the alarm is on or over, and says which, or that it is late.
fn wait(time: Duration, on: bool) -> String {
    let (looks, said) = (time.as_millis() / 20, if on { "raised" } else { "over" });
    format!(
        "(fun Look(0) -> late; Look(N) -> case {ON} of {on} -> {said}; _ -> timer:sleep(20), Look(N - 1) end end)({looks})"
    )
}
