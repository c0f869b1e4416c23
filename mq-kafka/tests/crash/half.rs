//! The crash matrix of half messages: a process that sends, decides and owns dies at each of its steps, before and
//! after the broker has heard of it; another process finishes, whose checker would say the contrary, were it asked.

use std::time::Duration;

use mq_conformance::crash::{self, Answer, Death};
use mq_core::driver::Verdict;
use mq_core::{QueueSpec, Topology};

use crate::broker::{Broker, PATIENCE, client, text};
use crate::child::end;

crate::tests![a_half_message_has_one_end_wherever_its_process_dies];

/// The age at which the checker is asked.
const CHECK_AFTER: Duration = Duration::from_secs(1);
/// After this nothing more comes: the dead one's session, a check, and a step lie within.
const QUIET: Duration = Duration::from_secs(10);
/// The log is opened, the half message and its verdict are appended, the owner makes its step.
const STEPS: u32 = 4;

/// In the child: `COMMIT STEP HEARD`.
pub(crate) async fn work(act: &str, broker: &Broker) -> mq_core::Result<()> {
    let words: Vec<&str> = act.split(' ').collect();
    let verdict = if words[0] == "true" { Verdict::Commit } else { Verdict::Rollback };
    let death = Death::at(words[1].parse().unwrap(), words[2] == "true");
    let client = client(&broker.url, broker.options().with_layer(death.clone())).await?;
    crash::half(&client, verdict, &death).await
}

async fn a_half_message_has_one_end_wherever_its_process_dies(broker: Broker) {
    let mut all = tokio::task::JoinSet::new();
    for commit in [true, false] {
        for heard in [true, false] {
            let broker = broker.clone();
            all.spawn(async move {
                let mut step = 0;
                while dies_at(&broker.apart(), commit, step, heard).await {
                    step += 1;
                }
                assert!(step >= STEPS, "only {step} steps of it were deadly");
            });
        }
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
}

/// False if it lived.
async fn dies_at(broker: &Broker, commit: bool, step: u32, heard: bool) -> bool {
    let case = format!("commit {commit}, step {step}, heard {heard}");
    let client = broker.client().await.unwrap();
    client.declare(Topology::new().queue(QueueSpec::new("a").with_parallelism(1))).await.unwrap();
    let (killed, told) = end(broker, &format!("{commit} {step} {heard}")).await;
    // Only a half message that is stored without a verdict is asked about.
    let (own, contrary) =
        if commit { (Verdict::Commit, Verdict::Rollback) } else { (Verdict::Rollback, Verdict::Commit) };
    let decided = told.contains("decided");
    let answer = Answer(if decided { contrary } else { own });
    let half = client.half_producer("g").check_after(CHECK_AFTER).open(answer).await.unwrap();
    let mut consumer = client.queue("a").consumer().open().await.unwrap();
    let must = commit && told.contains("prepared");
    let mut came = 0;
    while let Some(more) = consumer.recv_for(if must && came == 0 { PATIENCE } else { QUIET }).await.unwrap()
    {
        assert_eq!(text(&more), "half");
        more.ack().unwrap();
        came += 1;
    }
    println!("{case}: {}, {came} came", told.split_whitespace().last().unwrap_or("nothing"));
    assert!(came <= u32::from(commit), "{case}: {came} came, after {told:?}");
    assert!(!must || came == 1, "{case}: it is lost, after {told:?}");
    drop(half);
    client.close().await.unwrap();
    killed
}
