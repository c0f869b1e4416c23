//! What a client tells about its objects.

use mq_core::driver::Sort;
use mq_core::{ExchangeSpec, QueueSpec, Topology};

use crate::common::rig;

#[tokio::test(start_paused = true)]
async fn an_export_names_the_objects_of_the_core() {
    let wanted = Topology::new().exchange(ExchangeSpec::topic("x")).queue(QueueSpec::new("q"));
    let own = ["mq.topology", "mq.due", "mq.envelopes", "mq.parked", "mq.undelivered"];
    let (_broker, emulated) = rig(|d| (d.exchanges, d.transactions, d.half) = (true, true, true)).await;
    let text = emulated.export(&wanted).unwrap();
    for name in own {
        assert!(text.contains(name), "the export does not name `{name}`:\n{text}");
    }
    assert!(!emulated.exists(Sort::Queue, "mq.parked").await.unwrap(), "the export made a queue");
    let (_broker, native) = rig(|_| ()).await;
    assert!(!native.export(&wanted).unwrap().contains("mq."), "objects that nobody needs");
}
