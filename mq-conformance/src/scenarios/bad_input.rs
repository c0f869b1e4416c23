//! What is wrong is refused before any I/O, by a line that says what to do.

use std::time::Duration;

use mq_core::driver::Start;
use mq_core::{
    Backoff, Binding, ClientOptions, ExchangeSpec, Headers, Kind, Message, QueueSpec, Received, RunLoop,
    TopicSpec, Topology,
};

use crate::context::Ctx;
use crate::outcome::{Outcome, check, check_kind};
use crate::scenario::scenarios;

scenarios! {
    "bad_input";
    bad_names_are_refused [Queues];
    long_names_with_a_prefix_are_refused [Queues];
    bad_messages_are_refused_before_any_io [Queues];
    the_limits_themselves_are_accepted [Queues];
    bad_routing_keys_are_refused [Exchanges];
    bad_patterns_are_refused_at_declare [Exchanges];
    a_body_that_is_too_large_is_refused [Queues];
    bad_policies_are_refused [Queues];
    bad_specs_are_refused [Queues];
    bad_urls_are_refused_before_any_io [] Url;
    options_without_an_effect_are_refused [Queues];
    errors_are_one_line_without_control_characters [Queues];
    odd_but_legal_text_survives [Queues];
}

async fn bad_names_are_refused(cx: Ctx) -> Outcome {
    let long = "x".repeat(61);
    for name in ["", " ", "a b", "ä", "a/b", "a\nb", "a\0b", "..", "#", "*", "a:b", &long] {
        let declared = cx.client.declare(Topology::new().queue(QueueSpec::new(name))).await;
        check_kind!(declared, Kind::ConfigInvalid, "declaring the queue {name:?}");
        check_kind!(cx.client.queue(name).send("x").await, Kind::ConfigInvalid, "a send to {name:?}");
        let opened = cx.client.queue(name).consumer().open().await;
        check_kind!(opened, Kind::ConfigInvalid, "a consumer of {name:?}");
    }
    Ok(())
}

async fn long_names_with_a_prefix_are_refused(cx: Ctx) -> Outcome {
    let client = cx.connect(ClientOptions::new().with_prefix("a-prefix-of-thirty-characters-")).await?;
    let name = "x".repeat(40);
    let declared = client.declare(Topology::new().queue(QueueSpec::new(&name))).await;
    check_kind!(declared, Kind::ConfigInvalid, "a name that is too long with its prefix");
    // The dead-letter queue's name must be good too.
    let name = "x".repeat(28);
    let declared = client.declare(Topology::new().queue(QueueSpec::new(&name))).await;
    check_kind!(declared, Kind::ConfigInvalid, "a name whose dead-letter queue's name is too long");
    Ok(())
}

async fn bad_messages_are_refused_before_any_io(cx: Ctx) -> Outcome {
    let many: Headers = (0..65).map(|n| (format!("h{n}"), n)).collect();
    let bad = [
        ("a long key", Message::text("x").with_key("k".repeat(201))),
        ("an empty id", Message::text("x").with_id("")),
        ("a long id", Message::text("x").with_id("i".repeat(201))),
        ("a long content type", Message::text("x").with_content_type("c".repeat(201))),
        ("a long correlation id", Message::text("x").with_correlation_id("c".repeat(201))),
        ("a long reply-to", Message::text("x").with_reply_to("r".repeat(201))),
        ("a reserved header", Message::text("x").with_header("mq-id", 1)),
        ("a header without a name", Message::text("x").with_header("", 1)),
        ("a header name of 256 bytes", Message::text("x").with_header("h".repeat(256), 1)),
        ("65 headers", Message::text("x").with_headers(many)),
        ("9000 bytes of headers", Message::text("x").with_header("h", "v".repeat(9000))),
    ];
    for (what, message) in bad {
        // The queue does not exist: had the broker been asked, this would be `NotFound`.
        let sent = cx.client.queue("missing").send(message).await;
        check_kind!(sent, Kind::InvalidMessage, "{what}");
    }
    Ok(())
}

async fn the_limits_themselves_are_accepted(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let headers = (0..63).map(|n| (format!("h{n:02}"), "v".repeat(100)));
    let headers: Headers = headers.chain([("h".repeat(255), "v".to_owned())]).collect();
    let message = Message::new(vec![7; 1_000_000])
        .with_id("i".repeat(200))
        .with_key("k".repeat(200))
        .with_correlation_id("c".repeat(200))
        .with_reply_to("r".repeat(200))
        .with_content_type("t".repeat(200))
        .with_headers(headers);
    queue.send(message.clone()).await?;
    let mut consumer = queue.consumer().open().await?;
    let got = cx.next(&mut consumer).await?;
    check!(got.payload() == message.payload(), "the payload of {} bytes changed", got.payload().len());
    check!(got.headers() == message.headers(), "the headers changed");
    check!(got.key() == message.key() && got.id() == message.id(), "key or id changed");
    check!(got.correlation_id() == message.correlation_id(), "the correlation id changed");
    got.ack()?;
    Ok(())
}

async fn bad_routing_keys_are_refused(cx: Ctx) -> Outcome {
    for key in ["x".repeat(256), ".".repeat(64), "é".repeat(128)] {
        let published = cx.client.exchange("missing").publish(&key, "x").await;
        check_kind!(published, Kind::InvalidMessage, "a routing key of {} bytes", key.len());
    }
    Ok(())
}

async fn bad_patterns_are_refused_at_declare(cx: Ctx) -> Outcome {
    for pattern in ["x".repeat(256), "#.".repeat(64)] {
        let topology = Topology::new().exchange(ExchangeSpec::topic("x")).bind("x", "missing", &pattern);
        let declared = cx.client.declare(topology).await;
        check_kind!(declared, Kind::InvalidMessage, "a pattern of {} bytes", pattern.len());
        let bound = cx.client.bind(Binding::new("missing", "missing", &pattern)).await;
        check_kind!(bound, Kind::InvalidMessage, "a pattern of {} bytes", pattern.len());
    }
    Ok(())
}

async fn a_body_that_is_too_large_is_refused(cx: Ctx) -> Outcome {
    let max = cx.client.capabilities().limits.max_body;
    let sent = cx.client.queue("missing").send(Message::new(vec![0; max + 1])).await;
    let error = check_kind!(sent, Kind::TooLarge, "a body one byte too large, before any I/O");
    check!(error.to_string().contains(&max.to_string()), "the error does not tell the limit: {error}");
    Ok(())
}

async fn bad_policies_are_refused(cx: Ctx) -> Outcome {
    let never = Backoff::fixed(std::time::Duration::ZERO).max_attempts(0);
    let opened = cx.client.queue("missing").consumer().retry(never).open().await;
    check_kind!(opened, Kind::ConfigInvalid, "a policy of 0 attempts");
    let declared = cx.client.declare(Topology::new().queue(QueueSpec::new("q").with_retry(never))).await;
    check_kind!(declared, Kind::ConfigInvalid, "a queue with a policy of 0 attempts");
    Ok(())
}

async fn bad_specs_are_refused(cx: Ctx) -> Outcome {
    let queue = |spec| Topology::new().queue(spec);
    let mut bad = vec![
        ("a parallelism of 0", queue(QueueSpec::new("q").with_parallelism(0))),
        ("at most 0 deaths", queue(QueueSpec::new("q").with_max_deaths(0))),
    ];
    if cx.can(mq_core::Ability::Topics) {
        bad.push(("0 partitions", Topology::new().topic(TopicSpec::new("t").with_partitions(0))));
    }
    for (what, topology) in bad {
        check_kind!(cx.client.declare(topology).await, Kind::ConfigInvalid, "{what}");
    }
    Ok(())
}

async fn bad_urls_are_refused_before_any_io(cx: Ctx) -> Outcome {
    let (registry, url) = cx.address()?;
    let scheme = url.split("://").next().unwrap_or_default();
    let mark = if url.contains('?') { '&' } else { '?' };
    let refused = async |url: String, word: &str| {
        let connected = cx.ends("a connect by a bad URL", registry.connect_with(&url, cx.options())).await?;
        let error = check_kind!(connected, Kind::ConfigInvalid, "a URL with `{word}` in the wrong place");
        check!(error.to_string().contains(word), "the error does not name `{word}`: {error}");
        check!(!error.to_string().contains("s3cret"), "the error tells the password: {error}");
        Ok(())
    };
    for (more, word) in [
        ("no_such_key=1", "no_such_key"),
        ("Prefix=x.", "Prefix"),
        ("send_timeout=soon", "send_timeout"),
        ("connect_timeout=-1s", "connect_timeout"),
        ("prefix=a%zzb", ""),
        ("prefix=a%20b.", ""),
    ] {
        refused(format!("{url}{mark}{more}"), word).await?;
    }
    for (garbage, word) in [
        (String::new(), ""),
        (scheme.to_owned(), ""),
        (format!("{scheme}:/x"), ""),
        ("://x".to_owned(), ""),
        ("no-such-scheme://x".to_owned(), "no-such-scheme"),
        (format!("{scheme}://user:s3cret@127.0.0.1:1:2"), ""),
        (format!("{scheme}://127.0.0.1:99999"), ""),
        // Nobody listens there: had it been tried, this would be `Disconnected`.
        (format!("{scheme}://user:s3cret@127.0.0.1:1?no_such_key=1"), ""),
    ] {
        refused(garbage, word).await?;
    }
    Ok(())
}

/// What would be ignored is refused, before any I/O: had the broker been asked, this would be `NotFound`.
async fn options_without_an_effect_are_refused(cx: Ctx) -> Outcome {
    let (queue, topic) = (cx.client.queue("missing"), cx.client.topic("missing"));
    let second = Duration::from_secs(1);
    let bad = [
        ("a start position of a queue", queue.consumer().start(Start::Latest)),
        ("a start position of an exclusive consumer", queue.consumer().exclusive().start(Start::Earliest)),
        ("a start position of a queue's browse", queue.browse().start(Start::Latest)),
        ("an exclusive browse", queue.browse().exclusive()),
        ("an exclusive group", topic.group("g").exclusive()),
        ("an exclusive broadcast", topic.broadcast().exclusive()),
        ("concurrency without a run", queue.consumer().concurrency(2)),
        ("concurrency per key without a run", queue.consumer().concurrency_per_key(2)),
        ("a handler timeout without a run", queue.consumer().handler_timeout(second)),
        ("a grace time without a run", queue.consumer().grace(second)),
    ];
    for (what, builder) in bad {
        check_kind!(builder.open().await, Kind::ConfigInvalid, "{what}");
    }
    let handler = |_: Received| async { Ok(()) };
    let run = RunLoop::new().on(queue.consumer().handler_timeout(second), handler);
    let refused = run.run_until(std::future::pending::<()>()).await;
    check_kind!(refused, Kind::ConfigInvalid, "an option of the run on one of its consumers");
    Ok(())
}

async fn errors_are_one_line_without_control_characters(cx: Ctx) -> Outcome {
    let hostile = "evil\r\n\u{1b}[2Jname\u{202e}";
    let client = &cx.client;
    let errors = [
        client.queue(hostile).send("x").await.err(),
        client
            .queue("missing")
            .send(Message::text("x").with_id(hostile).with_header("mq-\r\n", 1))
            .await
            .err(),
        client.queue("missing").send(Message::text("x").with_key(hostile)).await.err(),
        client.topic(hostile).send("x").await.err(),
    ];
    for error in errors.into_iter().flatten() {
        let text = error.to_string();
        check!(!text.chars().any(char::is_control), "an error with control characters: {text:?}");
        check!(!text.contains('\u{202e}'), "an error with a turn of direction: {text:?}");
    }
    Ok(())
}

async fn odd_but_legal_text_survives(cx: Ctx) -> Outcome {
    let queue = cx.queue("q").await?;
    let odd = "a\r\n\t\"'\\ \u{0} \u{202e} \u{1F600} {}%s";
    let sent = Message::text(odd)
        .with_key(odd)
        .with_header("odd", odd)
        .with_header("ключ", "значение")
        .with_correlation_id("c c");
    queue.send(sent.clone()).await?;
    let mut consumer = queue.consumer().open().await?;
    let got = cx.next(&mut consumer).await?;
    check!(got.payload() == sent.payload() && got.key() == sent.key(), "payload or key changed: {got:?}");
    check!(got.headers() == sent.headers(), "the headers changed: {:?}", got.headers());
    got.ack()?;
    Ok(())
}
